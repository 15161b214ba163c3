"""Programs of torch.export: the module that was exported comes back, layer by layer."""

import json
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError
from featherweight.models.package import Package
from featherweight.pt2 import checked
from featherweight.task.accept import task_of
from featherweight.task.accept._exported import exported_of
from featherweight.task.kinds import make_task
from featherweight.transforms.prune import Prune
from tests import toy
from tests.lean import BASELINES, reference_only

FREE = torch.export.Dim.DYNAMIC
RNG = np.random.default_rng(0)


def saved(net, args, file, free=True, **more):
    shapes = tuple({0: FREE} for _ in args) if free else None
    torch.export.save(torch.export.export(net, args, dynamic_shapes=shapes, **more), file)
    return file


class Forms(nn.Module):
    """Every layer that is made again, some called twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.GELU(),
            nn.Conv2d(8, 8, 3, groups=8, padding="same"),
            nn.GroupNorm(2, 8),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.AdaptiveAvgPool2d(4),
        )
        self.series, self.dropped = nn.Conv1d(4, 6, 3, stride=2, dilation=2, padding=2), nn.Dropout(0.3)
        self.lstm = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.gru, self.rnn = nn.GRU(10, 4, batch_first=True), nn.RNN(4, 4, nonlinearity="relu", batch_first=True)
        self.norm, self.twice, self.out = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3, bias=False)
        self.flat = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.tensor(1.5))
        for m in self.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = self.dropped(self.series(self.features(x).flatten(2)))
        h, (_, cell) = self.lstm(h.transpose(1, 2))
        h = self.rnn(self.gru(h)[0])[0].mean(1)
        h = self.twice(torch.relu(self.twice(self.norm(h))))
        return self.flat(self.out(h)) * self.scale + cell.mean()


def x(n=5, *shape):
    return torch.from_numpy(RNG.normal(size=(n, *(shape or (3, 8, 8)))).astype("float32"))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_layers_come_back_under_their_names(tmp_path):
    net = Forms().eval()
    found = exported_of(saved(net, (x(2),), tmp_path / "net.pt2"))
    assert found.inputs == ("x",) and found.outputs == ("output",)
    rows = x(6)
    torch.testing.assert_close(found.module(rows), net(rows), rtol=1e-5, atol=1e-6)
    kinds = {name: type(m) for name, m in net.named_modules() if next(m.parameters(recurse=False), None) is not None}
    kinds.pop("")
    assert {name: type(m) for name, m in found.module.named_modules() if name in kinds} == kinds
    assert dict(found.module.named_parameters()).keys() == dict(net.named_parameters()).keys()
    for name in ("features.0", "features.3", "features.5", "series", "features.1", "gru", "lstm"):
        assert repr(found.module.get_submodule(name)).replace(", bias=True", "") == repr(
            net.get_submodule(name)
        ).replace(", bias=True", "")
    found.check({"x": rows.numpy()}, ("x",), found.module(rows))
    with pytest.raises(TaskError, match="computes something else"):
        found.check({"x": rows.numpy()}, ("x",), found.module(rows) + 0.1)
    torch.manual_seed(0)  # what was exported is what runs, in training too
    assert not torch.equal(found.module.train()(rows), net.eval()(rows))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.body = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, ids):
        h = self.normed(torch.tanh(self.body(self.embed(ids))))
        return {"tokens": self.head(h), "sums": h.sum((1, 2))}


def test_tied_weights_stay_tied_and_several_outputs_are_named_by_place(tmp_path):
    net, ids = Tied().eval(), torch.from_numpy(RNG.integers(1, 20, (6, 7)))
    found = exported_of(saved(net, (ids[:2],), tmp_path / "net.pt2"))
    tokens, sums = found.module(ids)
    torch.testing.assert_close(tokens, net(ids)["tokens"])
    torch.testing.assert_close(sums, net(ids)["sums"])
    assert isinstance(found.module.embed, nn.Embedding) and found.module.embed.padding_idx == 0
    heads = [m for m in found.module.modules() if isinstance(m, nn.Linear) and m.out_features == 20]
    assert len(heads) == 1 and heads[0].weight is found.module.embed.weight
    # a weight that is computed is no layer's
    assert [type(m).__name__ for m in found.module.modules() if isinstance(m, nn.Linear)] == ["Linear"] * 2
    found.check({"ids": ids.numpy()}, ("ids",), found.module(ids))
    assert found.outputs == ("tokens", "sums")
    data = {"ids": RNG.integers(1, 20, (40, 7))}
    chosen = task_of(tmp_path / "net.pt2", data, output="tokens").build()
    torch.testing.assert_close(chosen(torch.from_numpy(data["ids"])), net(torch.from_numpy(data["ids"]))["tokens"])
    with pytest.raises(TaskError, match="several tensors"):
        task_of(tmp_path / "net.pt2", data)


def test_an_encoder_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=3
    )
    torch.manual_seed(0)
    net = transformers.BertForSequenceClassification(config).eval()
    ids = torch.from_numpy(RNG.integers(1, 50, (4, 9)))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    program = torch.export.export(
        net,
        (),
        {"input_ids": ids, "attention_mask": mask},
        dynamic_shapes={"input_ids": {0: FREE}, "attention_mask": {0: FREE}},
    )
    torch.export.save(program, tmp_path / "net.pt2")
    found = exported_of(tmp_path / "net.pt2")
    assert found.inputs == ("input_ids", "attention_mask")
    torch.testing.assert_close(found.module(ids, mask), net(input_ids=ids, attention_mask=mask).logits)
    data = {"input_ids": ids.repeat(20, 1).numpy(), "attention_mask": mask.repeat(20, 1).numpy()}
    task = task_of(tmp_path / "net.pt2", data)
    torch.testing.assert_close(task.build()(ids, mask), net(input_ids=ids, attention_mask=mask).logits)
    layers = sum(isinstance(m, nn.Linear) for m in net.modules())
    assert sum(isinstance(m, nn.Linear) for m in found.module.modules()) == layers


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    ).eval()


def arrays(n=120):
    return {"input": RNG.normal(size=(n, 1, 8, 8)).astype("float32")}


def test_one_that_was_exported_for_one_sample(tmp_path):
    net = cnn()
    file = saved(net, (x(1, 1, 8, 8),), tmp_path / "one.pt2", free=False)
    task = task_of(file, arrays())
    rows = torch.from_numpy(arrays(8)["input"])
    torch.testing.assert_close(task.build()(rows), net(rows))

    class Mixed(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1)[:, :4].sum(0)])

    file = saved(Mixed(), (x(1, 1, 8, 8),), tmp_path / "odd.pt2", free=False)
    with pytest.raises(TaskError, match="something else than the program") as e:
        task_of(file, arrays())
    assert "dynamic_shapes" in e.value.fix


def test_inputs_keep_their_names_and_outputs_are_numbers(tmp_path):
    net = cnn()  # whose forward calls its input "input", as Python does something else
    found = exported_of(saved(net, (x(2, 1, 8, 8),), tmp_path / "net.pt2"))
    assert found.inputs == ("input",)

    class Yes(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] > 0

    with pytest.raises(TaskError, match="no real numbers"):
        task_of(saved(Yes(), (x(2, 1, 8, 8),), tmp_path / "yes.pt2"), arrays())


def test_it_is_cut_like_the_module(tmp_path):
    net = cnn()
    data = arrays() | {"label": np.arange(120) % 4}
    task = task_of(saved(net, (x(2, 1, 8, 8),), tmp_path / "net.pt2"), data)
    package = Prune(ratio=0.5).apply(Package(task.build()), toy.context(task))
    assert package.notes[-1]["widths"] == {"0": [16, 8], "4": [32, 16]}
    package.save(tmp_path, task.build)
    rows = torch.from_numpy(data["input"][:5])
    assert torch.equal(Package.load(tmp_path, task.build).module(rows), package.module(rows))


def test_a_search_from_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(BASELINES, reference_only)
    np.savez(tmp_path / "data.npz", **arrays(200))
    saved(cnn(), (x(2, 1, 8, 8),), tmp_path / "net.pt2")
    task = make_task("model-file", model=str(tmp_path / "net.pt2"), data=str(tmp_path / "data.npz"))
    assert task.ref["options"]["model"] == str(tmp_path / "net.pt2")
    study = fw.optimize(
        task, fw.Recipe(fw.Prune(ratio=0.25)), out=tmp_path / "run", trials=1, max_drop=0.9, measure_seconds=0.1,
        minimize=["params"],
    )  # fmt: skip
    assert len(study.front) and study.state.trials[0].entry is not None


def test_what_cannot_be_taken(tmp_path):
    with pytest.raises(TaskError, match="no such file"):
        task_of(tmp_path / "none.pt2", arrays())
    (tmp_path / "text.pt2").write_text("no zip")
    with pytest.raises(TaskError, match="cannot be read"):
        task_of(tmp_path / "text.pt2", arrays())
    torch.save(cnn(), tmp_path / "pickled.pt2")
    with pytest.raises(TaskError, match="cannot be read"):
        task_of(tmp_path / "pickled.pt2", arrays())
    half = saved(cnn().half(), (x(2, 1, 8, 8).half(),), tmp_path / "half.pt2")
    with pytest.raises(TaskError, match="not float32"):
        task_of(half, arrays())
    for odd in (nn.BatchNorm2d(1), nn.Dropout(0.2)):
        net = nn.Sequential(odd, nn.Flatten(), nn.Linear(64, 4)).train()
        with pytest.raises(TaskError, match="exported in training mode") as e:
            task_of(saved(net, (x(2, 1, 8, 8),), tmp_path / "train.pt2"), arrays())
        assert "eval()" in e.value.fix


class Own(nn.Module):
    """A module of one's own: parameters by these names, and what forward does with them."""

    def __init__(self, forward, **held):
        super().__init__()
        torch.manual_seed(0)
        self.does = forward
        for name, value in held.items():
            value = torch.randn(value) if isinstance(value, tuple) else value
            setattr(self, name, nn.Parameter(value) if isinstance(value, torch.Tensor) else value)

    def forward(self, x):
        return self.does(self, x)


class Gained(nn.Linear):
    def __init__(self):
        super().__init__(6, 6)
        self.gain = nn.Parameter(torch.full((6,), 2.0))

    def forward(self, x):
        return super().forward(x) * self.gain


def lora(s, x):
    return s.l(x) + F.linear(F.linear(x, s.p.a), s.p.b)


OWN = {
    "a linear layer with a gain": Gained,
    "one that is called Linear": type("Linear", (Gained,), {}),
    "one that is scaled": lambda: Own(lambda s, x: F.linear(x, s.weight, s.bias) * s.scale, weight=(6, 6), bias=(6,),
                                      scale=(6,)),
    "a child": lambda: Own(lambda s, x: s.norm(F.linear(x, s.w)), w=(6, 6), norm=nn.LayerNorm(6)),
    "two weights": lambda: Own(lambda s, x: F.linear(F.linear(x, s.w1).relu(), s.w2), w1=(6, 6), w2=(6, 6)),
    "lora": lambda: Own(lora, l=nn.Linear(6, 6), p=Own(None, a=(2, 6), b=(6, 2))),
    "a list": lambda: Own(lambda s, x: F.linear(F.linear(x, s.ws[0]), s.ws[1]),
                          ws=nn.ParameterList([torch.ones(6, 6), torch.eye(6)])),
    "a dict": lambda: Own(lambda s, x: F.linear(F.linear(x, s.ws["a"]), s.ws["b"]),
                          ws=nn.ParameterDict({"a": torch.ones(6, 6), "b": torch.eye(6)})),
    "a bias apart": lambda: Own(lambda s, x: F.linear(x, s.weight) * 2 + s.bias, weight=(6, 6), bias=(6,)),
    "a weight read again": lambda: Own(lambda s, x: F.linear(x, s.w) @ s.w, w=(6, 6)),
}  # fmt: skip


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("deep", [True, False])
def test_layers_of_ones_own_keep_all_that_they_hold(own, deep, tmp_path):
    net = OWN[own]().eval()
    net = nn.Sequential(net, nn.ReLU(), nn.Linear(6, 3)) if deep else net
    found = exported_of(saved(net, (x(2, 6),), tmp_path / "net.pt2"))
    rows = x(7, 6)
    torch.testing.assert_close(found.module(rows), net(rows), rtol=1e-5, atol=1e-6)
    found.check({"x": rows.numpy()}, ("x",), found.module(rows))
    # each number is held once
    assert sum(p.numel() for p in found.module.parameters()) == sum(p.numel() for p in net.parameters())
    names = [n for n, _ in found.module.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(net.parameters())) + (own == "a weight read again")
    assert any(isinstance(m, nn.Linear) for name, m in found.module.named_modules() if name != "2")


@pytest.mark.parametrize("name", ["layer", "layer_layer"])
def test_a_parameter_may_be_called_like_a_layer(name, tmp_path):
    net = Own(lambda s, x: F.linear(x, getattr(s, name)), **{name: (3, 6)}).eval()
    found = exported_of(saved(net, (x(2, 6),), tmp_path / "net.pt2"))
    rows = x(4, 6)
    assert torch.equal(found.module(rows), net(rows))
    assert [type(m) for m in found.module.children()] == [nn.Linear]


def test_attention_and_encoders(tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 3)).eval()
    file = saved(net, (x(4, 5, 8),), tmp_path / "net.pt2")
    found, rows = exported_of(file), x(6, 5, 8)
    torch.testing.assert_close(found.module(rows), net(rows), rtol=1e-4, atol=1e-5)
    linear = sorted(name for name, m in found.module.named_modules() if isinstance(m, nn.Linear))
    parts = ("linear1", "linear2", "self_attn.out_proj", "self_attn_layer")
    assert linear == sorted(["2", *(f"0.layers.{i}.{part}" for i in range(2) for part in parts)])
    assert sum(p.numel() for p in found.module.parameters()) == sum(p.numel() for p in net.parameters())
    task_of(file, {"x": x(40, 5, 8).numpy()})


def test_a_norm_that_shares_weights_but_not_statistics_is_another_layer(tmp_path):
    a, b = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
    b.running_mean += 1

    def both(s, x):
        return s.a(x) + F.batch_norm(x, s.b.running_mean, s.b.running_var, s.a.weight, s.a.bias)

    net = Own(both, a=a, b=b).eval()
    found, rows = exported_of(saved(net, (x(2, 6),), tmp_path / "net.pt2")), x(5, 6)
    torch.testing.assert_close(found.module(rows), net(rows))


def edited(source, to, change):
    """The archive with other text of its program."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as new:
        for info in old.infolist():
            body = old.read(info)
            new.writestr(info.filename, change(body.decode()) if info.filename.endswith("model.json") else body)
    return to


@pytest.mark.parametrize(
    "path",
    "forward graph code training __class__ _modules __dict__ 0.weight _modules.x forward.x 2 0.0.0 lambda".split(),
)
def test_layers_stand_at_no_path_that_is_taken(path, tmp_path):
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    file = saved(net, (x(2, 6),), tmp_path / "net.pt2")
    kind = ",torch.nn.modules.linear.Linear"
    odd = edited(file, tmp_path / "odd.pt2", lambda text: text.replace(f",0{kind}", f",{path}{kind}"))
    found, rows = exported_of(odd), x(5, 6)
    torch.testing.assert_close(found.module(rows), net(rows))
    assert sum(isinstance(m, nn.Linear) for m in found.module.modules()) == 2
    assert len(list(found.module.parameters())) == 4


def several(net, rows, file):
    found = exported_of(saved(net.eval(), (rows[:2],), file))
    out = found.module(rows)
    found.check({"x": rows.numpy()}, ("x",), out)
    return found, out


def test_only_tensors_are_outputs(tmp_path):
    held, rows = {"l": nn.Linear(6, 3)}, x(5, 6)
    found, out = several(Own(lambda s, x: (s.l(x), None), **held), rows, tmp_path / "a.pt2")
    assert found.outputs == ("output",) and out.shape == (5, 3)
    found, out = several(Own(lambda s, x: {"k": 3, "a": s.l(x), "n": None}, **held), rows, tmp_path / "b.pt2")
    assert found.outputs == ("a",) and out.shape == (5, 3)
    found, out = several(
        Own(lambda s, x: {"sure": s.l(x) > 0, "k": 3, "two": (s.l(x), x.argmax(1))}, **held), rows, tmp_path / "c.pt2"
    )
    assert found.outputs == ("sure", "two.0", "two.1") and [v.dtype for v in out] == [
        torch.bool,
        torch.float32,
        torch.int64,
    ]
    for i, wrong in ((0, ~out[0]), (2, out[2] + 1)):
        bad = [*out[:i], wrong, *out[i + 1 :]]
        with pytest.raises(TaskError, match=f"output '{found.outputs[i]}' of sample 0 differs by 1"):
            found.check({"x": rows.numpy()}, ("x",), bad)
    with pytest.raises(TaskError, match="gives no tensor"):
        exported_of(saved(Own(lambda s, x: None).eval(), (rows[:2],), tmp_path / "d.pt2"))


def test_infinities_that_are_equal_and_outputs_of_about_nothing(tmp_path):
    mask = torch.tensor([False, True, False])
    net = Own(lambda s, x: s.l(x).masked_fill(mask, float("-inf")), l=nn.Linear(6, 3))
    rows = x(5, 6)
    found, out = several(net, rows, tmp_path / "net.pt2")
    for wrong in (out.masked_fill(mask, 0), out + 0.5, -out, out.masked_fill(~mask, float("-inf"))):
        with pytest.raises(TaskError, match="something else"):
            found.check({"x": rows.numpy()}, ("x",), wrong)
    found, out = several(Own(lambda s, x: s.l(x) * 1e-9, l=nn.Linear(6, 3)), rows, tmp_path / "small.pt2")
    found.check({"x": rows.numpy()}, ("x",), out + 2e-8)
    with pytest.raises(TaskError, match="something else"):
        found.check({"x": rows.numpy()}, ("x",), out + 2e-6)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 3)

    def forward(self, x=None, *, a, b, flag=None):
        return self.l(a["z"] - 2 * b)


def test_inputs_by_name_in_a_dictionary_and_constants(tmp_path):
    torch.manual_seed(0)
    net, free = Named().eval(), {0: FREE}
    given = {"b": x(2, 6), "a": {"z": x(2, 6)}, "flag": True}
    shapes = {"x": None, "b": free, "a": {"z": free}, "flag": None}
    torch.export.save(torch.export.export(net, (None,), given, dynamic_shapes=shapes), tmp_path / "net.pt2")
    found = exported_of(tmp_path / "net.pt2")
    assert set(found.inputs) == {"b", "a_z"}
    data = {"b": x(40, 6).numpy(), "a_z": x(40, 6).numpy()}
    built = task_of(tmp_path / "net.pt2", data).build()
    b, z = (torch.from_numpy(data[k]) for k in ("b", "a_z"))
    rows = {"b": b, "a_z": z}
    torch.testing.assert_close(built(*(rows[name] for name in found.inputs)), net(a={"z": z}, b=b))


def test_one_that_was_exported_strictly(tmp_path):
    net = cnn()
    program = torch.export.export(net, (x(2, 1, 8, 8),), dynamic_shapes=({0: FREE},), strict=True)
    torch.export.save(program, tmp_path / "net.pt2")
    with zipfile.ZipFile(tmp_path / "net.pt2") as z:
        (member,) = (n for n in z.namelist() if n.endswith("models/model.json"))
        assert "from_node" in json.dumps(json.loads(z.read(member)))
    with checked(tmp_path / "net.pt2") as copy, zipfile.ZipFile(copy) as z:
        assert b"from_node" not in z.read("model/models/model.json")
    built = task_of(tmp_path / "net.pt2", arrays()).build()
    rows = torch.from_numpy(arrays(8)["input"])
    torch.testing.assert_close(built(rows), net(rows))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_state_that_is_written_to_is_none_of_zeros(tmp_path):
    def written(s, x):
        h = torch.zeros(1, x.shape[0], 5)
        h[0, :, 0] = 1.0
        return s.l(x, h)[0][:, -1]

    net = Own(written, l=nn.GRU(6, 5, batch_first=True)).eval()
    found, rows = exported_of(saved(net, (x(2, 7, 6),), tmp_path / "net.pt2")), x(4, 7, 6)
    torch.testing.assert_close(found.module(rows), net(rows))
    found.check({"x": rows.numpy()}, ("x",), found.module(rows))


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(1)
        return self.l(x) * self.seen


def test_what_is_wrong_with_a_program_is_said(tmp_path):
    data = {"x": x(40, 6).numpy()}
    for name in ("code", "graph"):
        net = Own(lambda s, x, name=name: getattr(s, name)(x), **{name: nn.Linear(6, 3)}).eval()
        with pytest.raises(TaskError, match="cannot be taken apart") as e:
            task_of(saved(net, (x(2, 6),), tmp_path / f"{name}.pt2"), data)
        assert f"rename {name} " in e.value.fix
    noise = Own(lambda s, x: s.l(x + torch.randn_like(x)), l=nn.Linear(6, 3)).eval()
    with pytest.raises(TaskError, match="something else") as e:
        task_of(saved(noise, (x(2, 6),), tmp_path / "noise.pt2"), data)
    assert "random" in e.value.fix and "dynamic_shapes" not in e.value.fix
    with pytest.raises(TaskError, match="something else") as e:
        task_of(saved(Counts().eval(), (x(2, 6),), tmp_path / "counts.pt2"), data)
    assert "changes the buffers seen" in e.value.fix
