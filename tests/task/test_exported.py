"""Programs of torch.export: the module that was exported comes back, layer by layer."""

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError
from featherweight.models.package import Package
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
