"""Parameters and multiply-accumulates, counted by hand."""

import pytest
import torch
from torch import nn

from featherweight.errors import TargetError
from featherweight.machine import machine
from featherweight.measure.ops import layer_macs, macs, params


def test_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    ).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    example = {"x": torch.randn(4, 3, 6, 6)}
    assert macs(net, example) == 36 * 8 * 27 + 36 * 8 * 9 + 8 * 36 * 5  # one sample of the four
    assert params(net) == (8 * 27 + 8) + 16 + (8 * 9 + 8) + (8 * 36 * 5 + 5)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("fused", [True, False])
def test_attention_counts_its_products(fused):
    n, width = 10, 16
    layer = nn.TransformerEncoderLayer(width, 4, 32, batch_first=True).eval()
    if fused:
        layer.requires_grad_(False)
    expected = n * width * 3 * width + 2 * n * n * width + n * width * width + 2 * n * width * 32
    assert macs(layer, {"x": torch.randn(1, n, width)}) == expected


def test_layer_by_layer():
    """Of one sample, in the order in which the layers run; a transposed convolution multiplies
    each of its inputs."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.idle, self.up = nn.Linear(4 * 36, 5), nn.Linear(2, 2), nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.same, self.first = nn.Linear(3, 3), nn.Conv2d(3, 8, 3, stride=2, padding=1)

        def forward(self, x):
            x = self.same(self.same(x.movedim(1, -1))).movedim(-1, 1)
            return self.last(self.up(self.first(x)).flatten(1))

    net, x = Net().eval(), torch.randn(4, 3, 6, 6)
    counts = layer_macs(net, [x])
    assert counts == {"same": 2 * 36 * 9, "first": 9 * 8 * 27, "up": 9 * 8 * 4 * 4, "last": 4 * 36 * 5}
    assert list(counts) == ["same", "first", "up", "last"] and sum(counts.values()) == macs(net, {"x": x})
    assert layer_macs(net, [x[:1]]) == counts and not any(m._forward_hooks for m in net.modules())


def test_shared_parameters_count_once():
    a = nn.Linear(4, 4)
    assert (
        params(nn.Sequential(a, a)) == 20
        and params(nn.Flatten()) == 0
        and macs(nn.Flatten(), {"x": torch.zeros(1, 2)}) == 0
    )
    for bad in ({}, {"x": torch.zeros(0, 4)}):
        with pytest.raises(TargetError):
            macs(a, bad)


def test_machine_facts():
    facts = machine()
    assert (
        facts["cores"] >= 1
        and facts["memory_bytes"] > 2**28
        and facts["cpu"]
        and set(facts["flags"]) == {"avx2", "avx512", "vnni", "amx_int8", "amx_bf16"}
    )
    assert "torch" in facts["versions"] and "onnxruntime" in facts["versions"]


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_counted(cell, gates):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = cell(4, 16, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0][:, -1]

    assert macs(Net(), {"x": torch.randn(1, 10, 4)}) == 10 * gates * 16 * (16 + 4)
