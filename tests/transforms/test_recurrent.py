"""Steps on recurrent nets: their hidden units are cut like channels, and what is cut runs
wherever it is exported to."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.engine.export import write_artifact
from featherweight.measure.ops import layer_macs, macs
from featherweight.models.coupling import couple
from featherweight.models.cutting import cut
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.task.accept import task_of
from featherweight.transforms.base import Context
from featherweight.transforms.prune.cost import Macs
from featherweight.transforms.prune.cut import Cutter

T, C, H = 10, 4, 16


class Forecast(nn.Module):
    def __init__(self, cell=nn.LSTM, layers=1, both=False):
        super().__init__()
        self.cells = cell(C, H, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(H * (1 + both), 2)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def useless(net, units):
    """The net, of which nobody reads some hidden units, and whose gates do not use them."""
    with torch.no_grad():
        for name, p in net.cells.named_parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * 0.5)
            if "weight_hh" in name or "weight_ih_l1" in name:
                p[:, [u for u in units if u < p.shape[1]]] = 0
        net.head.weight[:, units] = 0
    return net


def task(net, off=0.0):
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(96, T, C)).astype(np.float32)
    with torch.no_grad():
        y = net.eval()(torch.from_numpy(x)).numpy() + off
    return task_of(net, (x, y), loss=nn.functional.mse_loss)


def context(t, package):
    return Context(t, t.splits(), 0, teacher=lambda r: package, teacher_outputs=lambda r: None, report=lambda _: None)


def applied(step, net, off=0.0):
    t = task(net, off)
    package = Package(t.build())
    return step.apply(package, context(t, package)), t


NETS = {"lstm": (nn.LSTM, 1, False), "gru": (nn.GRU, 1, False), "two": (nn.LSTM, 2, True), "plain": (nn.RNN, 2, False)}
CRITERIA = ("magnitude", "l1", "taylor", "wanda", "obs", "lamp", "fpgm", "entropy", "random")


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", NETS)
def test_every_criterion_judges_hidden_units(kind, criterion, tmp_path):
    net = Forecast(*NETS[kind])
    before = copy.deepcopy(net.state_dict())
    package, t = applied(fw.Prune(ratio=0.5, criterion=criterion, round_to=4, batches=2), net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "the input model was changed"
    ways = 2 if net.cells.bidirectional else 1
    assert package.notes[-1]["widths"] == {"cells": [ways * H, ways * H // 2]}
    assert package.module.cells.hidden_size == H // 2
    package.save(tmp_path, t.build)
    x = torch.randn(3, T, C)
    with torch.no_grad():
        assert torch.equal(Package.load(tmp_path, t.build).module(x), package.module(x))


def test_no_batch_normalisation_follows_a_recurrent_layer():
    from featherweight.errors import InputError

    with pytest.raises(InputError, match="no batch normalisation"):
        applied(fw.Prune(ratio=0.5, criterion="bn_scale"), Forecast())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_units_that_nobody_reads_go_first(kind):
    gone = [1, 2, 5, 6, 7, 9, 13, 15]
    net = useless(Forecast(*NETS[kind]), gone)
    x = torch.randn(5, T, C)
    with torch.no_grad():
        want = net(x)
    package, _ = applied(fw.Prune(ratio=0.5, criterion="taylor", round_to=1), net, off=1.0)
    with torch.no_grad():
        torch.testing.assert_close(package.module(x), want, rtol=0, atol=1e-5)


def test_a_units_importance_is_the_sum_over_gates_and_readers():
    """Magnitude, by hand: all rows of the unit, its columns inside, and those of the head."""
    net = Forecast(nn.GRU, 2, True)
    t = task(net)
    c = context(t, Package(net))
    cutter = Cutter(fw.Prune(criterion="magnitude"), net.eval(), c, None)
    groups = couple(net, cutter.inputs).groups
    got = cutter._importance(net, groups, 1)[0]
    w = {name: p.detach().double() ** 2 for name, p in net.named_parameters() if "weight" in name}
    for unit in (0, 3, H - 1):
        want = sum(float(v.view(-1, H, v.shape[1])[:, unit].sum()) for k, v in w.items() if k.startswith("cells"))
        inner = [v for k, v in w.items() if "hh" in k or "ih_l1" in k]
        want += sum(float(v.view(len(v), -1, H)[..., unit].sum()) for v in [*inner, w["head.weight"]])
        assert float(got[unit]) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("allocation", ["uniform", "sensitivity", "latency"])
def test_allocations(allocation):
    package, _ = applied(fw.Prune(ratio=0.4, allocation=allocation, round_to=1, batches=1), Forecast(nn.LSTM, 2))
    assert 1 <= package.module.cells.hidden_size < H


@pytest.mark.parametrize("kind", NETS)
def test_operations_are_counted_and_foreseen(kind):
    net = Forecast(*NETS[kind]).eval()
    x = torch.randn(2, T, C)
    counted = layer_macs(net, (x,))
    assert sum(counted.values()) == macs(net, {"x": x[:1]})
    groups = list(couple(net, (x,)).groups)
    foreseen = Macs(net, (x,)).left(groups, [4])
    cut(net, groups, [list(range(4, H))])
    assert foreseen == pytest.approx(macs(net, {"x": x[:1]}))


@pytest.mark.parametrize("kind", ["lstm", "gru", "two"])
def test_random_cuts_that_do_not_hurt_are_kept(kind):
    gone = [0, 4, 8, 11]
    net = useless(Forecast(*NETS[kind]), [*gone, *([u + H for u in gone] if kind == "two" else [])])
    step = fw.CutRandomly(ratio=0.9, share=1e-3, tolerance=1e-6, patience=100, proposals=60)
    package, _ = applied(step, net)
    assert package.module.cells.hidden_size == H - len(gone)
    x = torch.randn(5, T, C)
    with torch.no_grad():
        torch.testing.assert_close(package.module(x), net(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "two"])
def test_a_cut_net_is_exported(target, kind, tmp_path):
    if target == "openvino":
        pytest.importorskip("openvino")
    t = task(Forecast(*NETS[kind]))
    whole = Package(t.build())
    small = fw.Prune(ratio=0.5, round_to=4).apply(whole, context(t, whole))
    runs, sizes = Target.parse(target), []
    x = np.random.default_rng(1).normal(size=(1, T, C)).astype(np.float32)
    for name, package in (("whole", whole), ("small", small)):
        folder = tmp_path / name
        folder.mkdir()
        write_artifact(t, package, runs, fw.Recipe(), folder)
        got = runs.load_runtime().load(folder, runs, 1).run({"x": x})
        with torch.no_grad():
            np.testing.assert_allclose(got, package.module(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-4)
        sizes.append(sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".onnx", ".bin", ".pt2", ".pt")))
    assert sizes[1] < sizes[0]
