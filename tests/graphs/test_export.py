"""The ONNX file: names, free batch, parity, and what the export leaves behind."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from featherweight.errors import TargetError
from featherweight.graphs import export as _onnx
from featherweight.graphs import parity
from tests import odd_ways
from tests.targets.nets import NETS, cnn


@pytest.mark.parametrize("name", NETS)
def test_file_computes_what_the_module_computes_at_any_batch(name, tmp_path, capfd):
    module, example, rows = NETS[name]()
    notes = _onnx.export_onnx(module, example, rows, tmp_path / "m.onnx")
    assert (
        notes["exporter"] == "trace" and notes["exporter_why"] is None and notes["float_parity"]["max_abs_error"] < 1e-4
    )
    session = _onnx.onnxruntime().InferenceSession(str(tmp_path / "m.onnx"))
    assert [i.name for i in session.get_inputs()] == list(example) and [o.name for o in session.get_outputs()] == [
        "output"
    ]
    for n in (1, 2, 5):
        part = {k: v[:n] for k, v in rows.items()}
        with torch.no_grad():
            expected = module(*part.values()).numpy()
        np.testing.assert_allclose(session.run(None, {k: v.numpy() for k, v in part.items()})[0], expected, atol=1e-4)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_the_module_is_left_as_it_was(tmp_path):
    module, example, _ = NETS["attention"]()
    module.train()
    module.encoder.eval()
    before, modes = copy.deepcopy(module.state_dict()), [m.training for m in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    _onnx.export_onnx(module, example, None, tmp_path / "m.onnx")
    assert [m.training for m in module.modules()] == modes and torch.backends.mha.get_fastpath_enabled() == fast
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()) and all(
        p.requires_grad for p in module.parameters()
    )


class FrozenBatch(nn.Module):
    """Its graph, traced at batch 2, adds a row that exists only there."""

    def forward(self, x):
        return x + torch.arange(float(len(x)))[:, None] if len(x) == 2 else x * 3


def test_a_wrong_trace_is_noticed_and_both_reasons_are_told(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no dynamo today")

    monkeypatch.setattr(_onnx, "_dynamo", broken)
    with pytest.raises(TargetError, match="(?s)trace: .*no dynamo today"):
        _onnx.export_onnx(FrozenBatch(), {"x": torch.randn(1, 4)}, {"x": torch.randn(9, 4)}, tmp_path / "m.onnx")


class EarlyExit(nn.Module):
    """Answers by its first head where the batch is bright: control flow on values."""

    def __init__(self, whole_batch=True):
        super().__init__()
        self.a, self.early = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 4)
        self.b, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.whole_batch = whole_batch

    def forward(self, image):
        x = torch.relu(self.a(image))
        bright = image[:, 0, 0, 0].mean() if self.whole_batch else image[:, 0, 0, 0].max()
        if bright > 0.9:
            return 3 * self.early(x.mean((2, 3)))
        return self.out(torch.relu(self.b(x)).mean((2, 3)))


def test_control_flow_on_values_is_refused_whichever_way_was_traced(tmp_path):
    """One row of 40 takes the other way: not the first, and none of the example's variations."""
    torch.manual_seed(0)
    rows = 0.1 * torch.randn(40, 1, 8, 8)
    rows[33, 0, 0, 0] = 2.0
    with pytest.raises(
        TargetError, match="depends on the samples beside it[\\s\\S]*batches of 1[\\s\\S]*control flow on values"
    ):
        _onnx.export_onnx(EarlyExit().eval(), {"image": rows[:1]}, {"image": rows}, tmp_path / "m.onnx")


def test_statistics_of_the_batch_are_refused_by_name(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()).eval()
    with pytest.raises(TargetError, match="got: 1: their output depends on the whole batch"):
        _onnx.export_onnx(module, {"x": torch.randn(1, 1, 8, 8)}, None, tmp_path / "m.onnx")


def test_float64_is_refused_with_the_way_out(tmp_path):
    module = nn.Sequential(nn.Linear(4, 2)).double().eval()
    with pytest.raises(TargetError, match="0.weight, 0.bias, x[\\s\\S]*float32"):
        _onnx.export_onnx(module, {"x": torch.randn(1, 4).double()}, None, tmp_path / "m.onnx")


@pytest.mark.slow
def test_dynamo_takes_over_when_tracing_fails(tmp_path, monkeypatch, capfd):
    def broken(*_):
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr(_onnx, "_trace", broken)
    module, example, rows = cnn()
    notes = _onnx.export_onnx(module, example, rows, tmp_path / "m.onnx")
    assert notes["exporter"] == "dynamo" and "unexpected keyword" in notes["exporter_why"]
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert len(_onnx.skipped(graph, ["head"])) == 1 and _onnx.skipped(graph, ["layers.1"])
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/stem/stem.1/stem.1.1/Conv", "stem.1.1"),
        ("/layers.0/layers.0.1/conv/Conv", "layers.0.1.conv"),
        ("/head/Gemm", "head"),
        ("/encoder/layers.0/self_attn/MatMul_1", "encoder.layers.0.self_attn"),
        ("/Add", ""),
        ("node_conv2d", ""),
    ],
)
def test_module_path_of_a_node(name, path):
    assert _onnx.path_of(name) == path


def test_every_convolution_is_found_by_its_module_path(tmp_path):
    module, example, _ = cnn()
    _onnx.export_onnx(module, example, None, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    paths = [name for name, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    nodes = [_onnx.skipped(graph, [p]) for p in paths]
    assert all(any(n.op_type in ("Conv", "Gemm") for n in graph.node if n.name in found) for found in nodes)
    assert set(_onnx.skipped(graph, ["layers.0"])) >= set(_onnx.skipped(graph, ["layers.0.1.conv"]))
    with pytest.raises(TargetError, match="layer.9"):
        _onnx.skipped(graph, ["head", "layer.9"])


def test_a_module_with_two_outputs_is_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TargetError, match="one tensor"):
        _onnx.export_onnx(Two(), {"x": torch.randn(1, 4)}, None, tmp_path / "m.onnx")


@pytest.mark.parametrize("example", [{}, {"x": torch.tensor(1.0)}, {"x": torch.randn(0, 4)}, {"x": [1.0]}])
def test_an_unusable_example_is_refused(example, tmp_path):
    with pytest.raises(TargetError, match="example"):
        _onnx.export_onnx(nn.Linear(4, 2), example, None, tmp_path / "m.onnx")


def test_variations_keep_kind_and_values():
    rows = parity.varied({"ids": torch.tensor([[7, 8, 9]]), "x": torch.randn(1, 4), "flag": torch.tensor([True])}, 5)
    assert {k: tuple(v.shape) for k, v in rows.items()} == {"ids": (5, 3), "x": (5, 4), "flag": (5,)}
    assert (
        set(rows["ids"].flatten().tolist()) == {7, 8, 9}
        and rows["ids"].dtype == torch.int64
        and rows["flag"].dtype == torch.bool
    )
    assert not torch.equal(rows["x"][0], rows["x"][1])


def test_comparison_by_hand():
    y, z = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[3.0, 0.5], [5.0, 4.0]])
    result = parity.compare(y, z)
    assert (
        result["max_abs_error"] == 5.0
        and result["agreement"] == 0.5
        and result["sqnr_db"] == pytest.approx(10 * np.log10(25 / 25.25))
    )
    same = parity.compare(y, y)
    assert same["sqnr_db"] is None and same["agreement"] == 1.0 and parity.compare(y[0], z[0])["agreement"] is None
    for bad in (z[:1], np.full_like(z, np.nan)):
        with pytest.raises(TargetError):
            parity.compare(y, bad)


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_batches_cover_every_row_once(n):
    class Double:
        def run(self, inputs):
            assert len(inputs["x"]) == 4
            return inputs["x"] * 2

    x = np.arange(n * 2.0).reshape(n, 2)
    np.testing.assert_array_equal(parity.run_rows(Double(), {"x": x}, 4), 2 * x)
    with pytest.raises(TargetError, match="no samples"):
        parity.run_rows(Double(), {"x": x[:0]}, 4)


def exported(module, rows, tmp_path):
    return _onnx.export_onnx(module.eval(), {"x": rows[:1]}, {"x": rows}, tmp_path / "m.onnx")


@pytest.mark.parametrize("whole_batch", [True, False])
def test_a_way_that_no_row_takes_is_refused_by_its_line(whole_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(_onnx, "_dynamo", lambda *_: 1 / 0)
    line = r"x\.mean\(\) > 50" if whole_batch else r"if large\.any\(\)"
    with pytest.raises(TargetError, match=rf"(?s)decides by values of its inputs.*odd_ways\.py:\d+: .*{line}"):
        exported(odd_ways.Rare(whole_batch), torch.randn(9, 8), tmp_path)


def test_shapes_checks_and_constants_are_no_values_of_the_inputs(tmp_path):
    assert exported(odd_ways.Checking(), torch.randn(9, 8), tmp_path)["exporter"] == "trace"


@pytest.mark.parametrize("kind", ["Drawing", "Counting"])
def test_a_model_that_computes_something_else_each_time_is_refused_as_that(kind, tmp_path):
    with pytest.raises(TargetError, match="other outputs when it computes the same rows again"):
        exported(getattr(odd_ways, kind)(), torch.randn(9, 8), tmp_path)


def test_rows_without_finite_outputs_are_named(tmp_path):
    rows = torch.randn(9, 8).clamp(-3, 3)
    rows[[2, 7], 0] = -6.0
    with pytest.raises(TargetError, match=r"not finite\s+got: for 2 of 9 rows: 2, 7\n"):
        exported(odd_ways.Rooted(), rows, tmp_path)


def test_each_column_of_a_file_is_held_to_its_own_size():
    y = np.stack([np.linspace(2e5, 4e5, 9), np.linspace(-1, 1, 9)], 1).astype("float32")
    parity.check_float(y, y * np.float32(1 + 1e-6), "the file")
    z = y.copy()
    z[3, 1] += 0.2
    with pytest.raises(TargetError, match="an error of 0.2\\s+allowed: at most 0.0"):
        parity.check_float(y, z, "the file")
    assert not parity.close(y, z) and parity.close(y, y) and not parity.close(y, y[:3])
    one = y[:1]  # has no spread
    parity.check_float(one, one * np.float32(1 + 1e-4), "the file")
