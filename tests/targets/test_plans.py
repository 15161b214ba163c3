"""Plans written by hand: the file holds the grids that were asked for,
and computes what they say."""

import copy
import importlib.util
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from featherweight import machine
from featherweight.errors import TargetError
from featherweight.graphs import export as _onnx
from featherweight.models.package import Package
from featherweight.models.quant.grid import Grid, codes, fit, nearest
from featherweight.plan import LayerPlan
from featherweight.targets.base import Target
from tests.targets.nets import attention, cnn, plan

HAS_OPENVINO = all(importlib.util.find_spec(p) for p in ("openvino", "nncf"))
RUNTIMES = [
    "onnxruntime",
    pytest.param("openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="needs openvino and nncf")),
]
KINDS = (nn.Linear, nn.Conv2d, nn.Embedding)


class Tokens(nn.Module):
    """A table, a product of three axes, and one whose row is no multiple of a block."""

    def __init__(self, width=48):
        super().__init__()
        self.table = nn.Embedding(50, width)
        self.mid = nn.Linear(width, 40)
        self.odd = nn.Linear(40, 24)
        self.head = nn.Linear(24, 5, bias=False)

    def forward(self, ids):
        return self.head(torch.relu(self.odd(torch.relu(self.mid(self.table(ids)).mean(1)))))


def tokens():
    torch.manual_seed(0)
    return Tokens().eval(), {"ids": torch.randint(0, 50, (1, 6))}, {"ids": torch.randint(0, 50, (48, 6))}


def normed():
    """The CNN with batch norms that fold to factors of both signs."""
    module, example, rows = cnn()
    rng = torch.Generator().manual_seed(1)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data = torch.randn(m.weight.shape, generator=rng)
            m.bias.data = torch.randn(m.bias.shape, generator=rng)
            m.running_var = torch.rand(m.running_var.shape, generator=rng) + 0.5
            m.running_mean = torch.randn(m.running_mean.shape, generator=rng)
    return module, example, rows


def layers_of(module, grid):
    one = LayerPlan(grid.bits, grid.granularity, grid.group, grid.symmetric)
    return {path: one for path, m in module.named_modules() if isinstance(m, KINDS)}


def on_grid(module, grid):
    """A copy with every weight on a grid that is wider than its min-max one,
    and the plan's tensors."""
    module, scales = copy.deepcopy(module), {}
    for path, m in module.named_modules():
        if isinstance(m, KINDS):
            s, z = fit(m.weight, grid)
            s = s * 1.2
            m.weight.data = nearest(m.weight, s, z, grid)
            scales |= {f"{path}.weight.scale": s, f"{path}.weight.zero": z}
    return module, scales


def export(runtime, net, folder, the_plan, scales=None):
    module, example, rows = net
    folder.mkdir(exist_ok=True)
    target = Target(runtime)
    notes = target.load_runtime().export(
        Package(module, plan=the_plan, scales=scales or {}), example, rows, target, folder
    )
    part = {k: v[:16].numpy() for k, v in rows.items()}
    return notes, target.load_runtime().load(folder, target, 16).run(part)


def outputs(net):
    module, _, rows = net
    with torch.no_grad():
        return module(*[v[:16] for v in rows.values()]).numpy()


def close(got, wanted, tolerance=1e-3):
    np.testing.assert_allclose(got, wanted, atol=tolerance * np.abs(wanted).max())


GRIDS = [
    Grid(8, "channel"),
    Grid(4, "channel"),
    Grid(8, "tensor", 0, False),
    Grid(4, "group", 16),
    Grid(4, "group", 32, False),
    Grid(8, "group", 16, False),
    Grid(4, "group", 12),  # no operator has such blocks
    Grid(4, "group", 7, False),
    Grid(8, "group", 7),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weight_only_computes_with_the_given_grid(runtime, grid, tmp_path):
    """Oracle: the module whose weights lie on the grid, in PyTorch.
    8 bits on ONNX Runtime round the activations too."""
    for name, make in (("cnn", normed), ("tokens", tokens)):
        net = make()
        module, scales = on_grid(net[0], grid)
        layers = layers_of(module, grid)
        legal = runtime == "openvino" or grid.granularity != "group" or grid.group in (16, 32)
        if name == "tokens" and not legal:
            layers["table"] = LayerPlan(32)
        the_plan = plan(
            "weight-only",
            bits=grid.bits,
            granularity=grid.granularity,
            group=grid.group,
            symmetric=grid.symmetric,
            layers=layers,
        )
        net = (module, *net[1:])
        notes, got = export(runtime, net, tmp_path / name, the_plan, scales)
        rounded = runtime == "onnxruntime" and grid.bits == 8
        close(got, outputs(net), 3e-2 if rounded else 1e-3)
        held = notes["coverage"]["layers"]
        assert set(held) == set(layers) and all(
            v.startswith(f"int{grid.bits}") for path, v in held.items() if layers[path].bits != 32
        ), held


@pytest.mark.parametrize("granularity", ["channel", "tensor", "group"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_lowest_code_survives_a_batch_norm_that_turns_the_sign(runtime, bits, granularity, tmp_path):
    """Oracle: the module in PyTorch. -8 turned is 8, which no 4-bit code is: the grid moves."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 3)).eval()
    module[1].weight.data = torch.tensor([-1.5, 0.7, -0.3, 2.0])
    grid, scales = Grid(bits, granularity, 9 if granularity == "group" else 0), {}
    for path in ("0", "3"):
        w = module.get_submodule(path).weight
        w.data.flatten(1)[:, 0] = -2 * w.abs().max()
        s, z = fit(w, grid)
        assert codes(w, s, z, grid).min() == grid.low == -(2 ** (bits - 1))
        w.data = nearest(w, s, z, grid)
        scales |= {f"{path}.weight.scale": s}
    rows = torch.randn(20, 3, 6, 6)
    net = (module, {"x": rows[:1]}, {"x": rows})
    header = plan("weight-only", bits=bits, granularity=granularity, group=9, layers=layers_of(module, grid))
    notes, got = export(runtime, net, tmp_path / "out", header, scales)
    close(got, outputs(net))
    assert all(v.startswith(f"int{bits}") for v in notes["coverage"]["layers"].values())


def test_integer_products_have_no_lowest_code(tmp_path):
    """int8-static and int8-dynamic: -127..127, given or rounded here."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    for path in ("0", "2"):
        w = module.get_submodule(path).weight
        w.data[:, 0] = -2 * w.abs().max()
    rows = torch.randn(32, 16)
    # of another granularity than the plan's: rounded by us, not by the runtime's tool
    layers = {"0": LayerPlan(8, "tensor"), "2": LayerPlan(8)}
    for scheme in ("int8-static", "int8-dynamic"):
        the_plan = plan(scheme, layers=layers)
        export("onnxruntime", (module, {"x": rows[:1]}, {"x": rows}), tmp_path / scheme, the_plan)
        tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / scheme / "model.onnx").graph.initializer]
        lowest = [int(t.min()) for t in tensors if t.dtype == np.int8 and t.ndim == 2]
        # the tool has a tie at -63.5, which falls either way; 255 * 64 * 2 does not overflow
        assert lowest in ([[-63, -63], [-63, -64]] if machine.saturates() else [[-127, -127]])
    w = module[2].weight
    w.data = nearest(w, *fit(w, Grid(8)), Grid(8))  # with code -128
    scales = {"2.weight.scale": fit(w, Grid(8))[0]}
    with pytest.raises(TargetError, match="does not lie on its grid"):
        export("onnxruntime", (module, {"x": rows[:1]}, {"x": rows}), tmp_path / "given", plan(layers=layers), scales)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weight_only_rounds_to_nearest_and_is_small(runtime, bits, tmp_path):
    grid = Grid(bits if bits < 16 else 8, "group" if bits < 16 else "channel", 16)
    net = tokens()
    net[0].table = nn.Embedding(2000, 48)
    torch.nn.init.normal_(net[0].table.weight)
    plain, _ = export(runtime, net, tmp_path / "float", None)
    layers = {path: replace(layer, bits=bits) for path, layer in layers_of(net[0], grid).items()}
    header = plan("weight-only", bits=bits, granularity=grid.granularity, group=16, embeddings=bits)
    notes, got = export(runtime, net, tmp_path / "small", replace(header, layers=layers))
    if bits == 16:
        for m in net[0].modules():
            if isinstance(m, KINDS):
                m.weight.data = m.weight.half().float()
    else:
        net = (on_grid_exactly(net[0], grid), *net[1:])
    close(got, outputs(net), 3e-2 if bits == 8 else 1e-3)
    assert notes["bytes"] < plain["bytes"] * {4: 0.3, 8: 0.4, 16: 0.6}[bits]
    assert notes["coverage"]["layers"]["table"].startswith("float16" if bits == 16 else f"int{bits}")


def on_grid_exactly(module, grid):
    for m in module.modules():
        if isinstance(m, KINDS):
            m.weight.data = nearest(m.weight, *fit(m.weight, grid), grid)
    return module


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic", "weight-only"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tables_are_stored_by_rows_within_half_a_step(runtime, scheme, bits, tmp_path):
    """The table alone, read back through the runtime: half a step of the row at most."""

    class Lookup(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(50, 48), nn.Linear(48, 48, bias=False)
            self.head.weight.data = torch.eye(48)

        def forward(self, ids):
            return self.table(ids).flatten(1) if scheme == "weight-only" else self.head(self.table(ids)[:, 0])

    torch.manual_seed(0)
    net = (Lookup().eval(), {"ids": torch.randint(0, 50, (1, 1))}, {"ids": torch.arange(50)[:, None]})
    layers = {"table": LayerPlan(bits), "head": LayerPlan(32 if scheme == "weight-only" else 8)}
    notes, got = export(runtime, net, tmp_path / "out", plan(scheme, layers=layers, embeddings=bits))
    w = net[0].table.weight.detach().numpy()[:16]
    step = np.abs(w).max(1, keepdims=True) / (127 if bits == 8 else 7)
    slack = 0.0 if scheme == "weight-only" else np.abs(w).max() / 40
    assert (np.abs(got - w) <= step / 2 * 1.001 + slack).all() and np.abs(got - w).max() > 0
    assert notes["coverage"]["layers"]["table"].startswith(f"int{bits}")


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_static_keeps_the_codes_and_the_learned_input_grids(granularity, tmp_path):
    """The int8 codes times their scales are the folded weights, to float precision;
    the input grids are in the file."""
    grid = Grid(8, granularity)
    module, example, rows = normed()
    module, scales = on_grid(module, grid)
    learned = {"stem.1.1": (0.021, 3), "layers.0.0.conv": (0.033, 0), "layers.1.1.conv": (0.05, 0), "head": (0.017, 0)}
    for path, (s, z) in learned.items():
        scales |= {f"{path}.input.scale": torch.tensor([s]), f"{path}.input.zero": torch.tensor([float(z)])}
    the_plan = plan(granularity=granularity, layers=layers_of(module, grid))
    notes, _ = export("onnxruntime", (module, example, rows), tmp_path / "out", the_plan, scales)
    assert set(notes["coverage"]["layers"].values()) == {"int8"} and notes["quantization"]["given_weight_grids"] == 7
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    maker = {o: n for n in graph.node for o in n.output}
    seen = set()
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        path = next(
            p
            for p in (_onnx.path_of(node.name), _onnx.path_of(node.name).rpartition(".")[0])
            if p in learned or p in layers_of(module, grid)
        )
        layer = module.get_submodule(path)
        q, s, z = (tensors[i] for i in maker[node.input[1]].input)
        restored = (q.astype(np.float64) - (z.reshape(-1, *[1] * (q.ndim - 1)) if z.ndim else z)) * (
            s.reshape(-1, *[1] * (q.ndim - 1)) if s.ndim else s
        )
        w = layer.weight.detach().numpy()
        if path.startswith("layers"):
            norm = module.get_submodule(path.replace("conv", "norm"))
            w = w * (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().numpy().reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(restored, w, atol=2e-6 * np.abs(w).max())
        if path in learned:
            source = maker[node.input[0]]
            assert (tensors[source.input[1]], tensors[source.input[2]]) == (
                np.float32(learned[path][0]),
                learned[path][1],
            )
            seen.add(path)
    assert seen == set(learned)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_static_with_given_grids_computes_them(runtime, tmp_path):
    """Codes beyond 7 bits would overflow on x86 without VNNI; the artifact must still be within the
    noise of 8-bit activations."""
    grid = Grid(8, "channel")
    module, example, rows = normed()
    module, scales = on_grid(module, grid)
    net = (module, example, rows)
    notes, got = export(runtime, net, tmp_path / "out", plan(layers=layers_of(module, grid)), scales)
    wanted = outputs(net)
    assert 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum()) > 28
    assert notes["parity"]["agreement"] > 0.9 and set(notes["coverage"]["layers"].values()) == {"int8"}


def test_two_learned_grids_of_one_tensor_are_both_kept(tmp_path):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 8), nn.Linear(16, 8)

        def forward(self, x):
            return self.a(x) + self.b(x)

    torch.manual_seed(0)
    net = (Fork().eval(), {"x": torch.randn(1, 16)}, {"x": torch.randn(48, 16)})
    scales = {"a.input.scale": torch.tensor([0.03]), "a.input.zero": torch.tensor([120.0])}
    scales |= {"b.input.scale": torch.tensor([0.04]), "b.input.zero": torch.tensor([110.0])}
    notes, got = export("onnxruntime", net, tmp_path / "out", plan(layers=layers_of(net[0], Grid())), scales)
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    grids = {
        (float(tensors[n.input[1]]), int(tensors[n.input[2]])) for n in graph.node if n.op_type == "QuantizeLinear"
    }
    assert {(float(np.float32(0.03)), 120), (float(np.float32(0.04)), 110)} <= grids
    assert notes["parity"]["sqnr_db"] > 25


@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic", "weight-only"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_layer_gets_its_own_bits(runtime, scheme, tmp_path):
    net = attention()
    layers = layers_of(net[0], Grid())
    layers["head"] = LayerPlan(32)
    layers["encoder.layers.0.linear1"] = LayerPlan(4)
    layers["encoder.layers.1.linear2"] = LayerPlan(16)
    layers["embedding"] = LayerPlan(8)
    notes, _ = export(runtime, net, tmp_path / "out", plan(scheme, layers=layers))
    held = notes["coverage"]["layers"]
    assert (
        held["head"] == "float (as planned)"
        and held["encoder.layers.0.linear1"].startswith("int4")
        and held["embedding"].startswith("int8")
    )
    assert held["encoder.layers.1.linear2"].startswith("float16") and held["encoder.layers.1.linear1"].startswith(
        "int8"
    )
    assert notes["parity"]["sqnr_db"] > 15


def test_dynamic_keeps_given_codes(tmp_path):
    grid = Grid(8, "channel")
    net = tokens()
    module, scales = on_grid(net[0], grid)
    notes, got = export(
        "onnxruntime",
        (module, *net[1:]),
        tmp_path / "out",
        plan("int8-dynamic", layers=layers_of(module, grid)),
        scales,
    )
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    held = [
        tensors[n.input[1]].astype(int) - tensors[n.input[3]].astype(int)
        for n in graph.node
        if n.op_type == "MatMulInteger"
    ]
    wanted = [
        codes(m.weight, scales[f"{p}.weight.scale"], scales[f"{p}.weight.zero"], grid).numpy().T
        for p, m in module.named_modules()
        if isinstance(m, nn.Linear)
    ]
    assert len(held) == 3 and all(any(np.array_equal(h, w) for h in held) for w in wanted)
    assert notes["parity"]["sqnr_db"] > 30 and notes["coverage"]["layers"]["mid"] == "int8"


@pytest.mark.parametrize("changes", [{"granularity": "group", "group": 16}, {"symmetric": False}])
@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic"])
def test_onnxruntime_refuses_grids_without_integer_kernels(scheme, changes):
    layers = {"head": LayerPlan(8, **changes)}
    for the_plan in (plan(scheme, **changes), plan(scheme, layers=layers)):
        assert "granularity 'channel'" in Target().load_runtime().problem(Target(), the_plan)
    assert (
        Target().load_runtime().problem(Target(), plan(scheme, layers={"head": replace(layers["head"], bits=4)}))
        is None
    )


def test_wrong_scales_are_refused(tmp_path):
    net = tokens()
    module, scales = on_grid(net[0], Grid(4))
    header = plan("weight-only", bits=4, layers=layers_of(module, Grid(4)))
    with pytest.raises(TargetError, match="does not lie on its grid"):
        export("onnxruntime", (net[0], *net[1:]), tmp_path / "a", header, scales)
    with pytest.raises(TargetError, match="do not fit"):
        export("onnxruntime", (module, *net[1:]), tmp_path / "b", header, scales | {"mid.weight.scale": torch.ones(3)})
    with pytest.raises(TargetError, match="not in the model"):
        export("onnxruntime", (module, *net[1:]), tmp_path / "c", replace(header, layers={"nowhere": LayerPlan(4)}))


def test_saturating_machines_get_unsigned_codes(tmp_path, monkeypatch):
    """8-bit codes on a machine whose signed products overflow are kept as u8 around 128;
    elsewhere as s8."""
    grid = Grid(8, "channel")
    net = normed()
    module, scales = on_grid(net[0], grid)
    for saturates, kind in ((True, np.uint8), (False, np.int8)):
        monkeypatch.setattr(machine, "saturates", lambda s=saturates: s)
        export(
            "onnxruntime", (module, *net[1:]), tmp_path / str(saturates), plan(layers=layers_of(module, grid)), scales
        )
        graph = onnx.load(tmp_path / str(saturates) / "model.onnx").graph
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        maker = {o: n for n in graph.node for o in n.output}
        assert {
            tensors[maker[n.input[1]].input[0]].dtype.type
            for n in graph.node
            if n.op_type in ("Conv", "Gemm", "MatMul")
        } == {kind}


@pytest.mark.skipif(
    not machine.saturates() or not HAS_OPENVINO, reason="needs openvino and a processor whose signed products overflow"
)
def test_openvino_takes_unsigned_codes_where_signed_ones_overflow(tmp_path):
    """All products at the top of the range: two of them do not fit into 16 bits."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 5)).eval()
    module[0].weight.data = torch.rand_like(module[0].weight) * 0.1 + 0.9
    rows = torch.rand(48, 32, 8, 8) * 0.2 + 0.8
    module, scales = on_grid(module, Grid(8, "channel"))
    for path in ("0", "3"):  # codes up to 127
        s = fit(module.get_submodule(path).weight, Grid(8, "channel"))[0]
        module.get_submodule(path).weight.data = nearest(
            module.get_submodule(path).weight, s, s * 0, Grid(8, "channel")
        )
        scales[f"{path}.weight.scale"] = s
    net = (module, {"x": rows[:1]}, {"x": rows})
    notes, got = export("openvino", net, tmp_path / "out", plan(layers=layers_of(module, Grid(8, "channel"))), scales)
    assert notes["quantization"]["codes"].startswith("unsigned") and notes["parity"]["sqnr_db"] > 35
    close(got, outputs(net), 0.05)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_small_weights_load_in_a_fresh_process(runtime, tmp_path):
    from tests.targets.test_runtimes import in_fresh_process

    net = tokens()
    _, got = export(
        runtime, net, tmp_path / "out", plan("weight-only", bits=4, granularity="group", group=16, embeddings=4)
    )
    np.savez(tmp_path / "rows.npz", ids=net[2]["ids"][:16].numpy(), wanted=got)
    done = in_fresh_process(
        f"""
import sys, numpy as np
from pathlib import Path
from featherweight.targets.base import Target
t, rows = Target.parse({runtime!r}), np.load({str(tmp_path / "rows.npz")!r})
y = t.load_runtime().load(Path({str(tmp_path / "out")!r}), t, 16).run({{"ids": rows["ids"]}})
assert np.array_equal(y, rows["wanted"]) and "torch" not in sys.modules
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


class Recurrent(nn.Module):
    """Layers that a plan lists around an LSTM, which it does not."""

    def __init__(self):
        super().__init__()
        self.table, self.pre = nn.Embedding(50, 16), nn.Linear(16, 24)
        self.rnn = nn.LSTM(24, 20, num_layers=2, bidirectional=True, batch_first=True)
        self.mid, self.out = nn.Linear(40, 16), nn.Linear(16, 3)

    def forward(self, ids):
        h, _ = self.rnn(torch.relu(self.pre(self.table(ids))))
        return self.out(torch.relu(self.mid(h.mean(1))))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_recurrent_layer_that_no_plan_lists_stays_in_floating_point(runtime, tmp_path):
    torch.manual_seed(0)
    module = Recurrent().eval()
    for p in module.rnn.parameters():
        p.data *= 4  # far from linear, as after training
    ids = torch.randint(0, 50, (64, 12))
    layers = {path: LayerPlan(8) for path in ("table", "pre", "mid", "out")}
    notes, _ = export(runtime, (module, {"ids": ids[:1]}, {"ids": ids}), tmp_path / "out", plan(layers=layers))
    found = {
        how: [k for k in notes["coverage"][how] if k.startswith(("LSTM", "RNN"))] for how in ("quantized", "float")
    }
    assert found["float"] and not found["quantized"]
    assert notes["parity"]["sqnr_db"] > 30  # 15.4 with an LSTM of 8 bits on OpenVINO


class Tied(nn.Module):
    """Its code reads the encoder's weight once more, the other way round."""

    def __init__(self, hidden):
        super().__init__()
        self.enc, self.head = nn.Linear(32, hidden), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(torch.tanh(torch.relu(self.enc(x)) @ self.enc.weight))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("hidden", [32, 64])
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"scheme": "weight-only"}, 0.03),
        ({"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 32}, 0.3),
        ({"scheme": "int8-dynamic"}, 0.05),
        ({"scheme": "int8-static"}, 0.1),
    ],
    ids=lambda v: v.get("scheme", "") + str(v.get("bits", "")) if isinstance(v, dict) else "",
)
def test_a_weight_that_is_read_both_ways_is_held_both_ways(what, error, hidden, runtime, tmp_path):
    """Square, one of the two was packed as the other; else the file could not be loaded."""
    torch.manual_seed(0)
    module, x = Tied(hidden).eval(), torch.randn(32, 32)
    target = Target(runtime)
    target.load_runtime().export(Package(module, plan=plan(**what)), {"x": x[:1]}, {"x": x}, target, tmp_path)
    session = target.load_runtime().load(tmp_path, target, 1)
    got = np.concatenate([session.run({"x": row[None].numpy()}) for row in x])
    with torch.no_grad():
        wanted = module(x).numpy()
    assert np.sqrt(((got - wanted) ** 2).mean()) < error * wanted.std()
