"""Reading inside a model, and finding which parts of two models belong together."""

import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.matching import blocks, channels_first, ends, matched, origin
from featherweight.models.surgery import edit
from featherweight.models.taps import Taps, attention_paths, first_tensor, last_linear, part, queries_keys_values
from tests import toy


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def encoder(width=16, layers=4):
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True), layers, enable_nested_tensor=False
    ).eval()


def test_taps_give_what_a_layer_gave_and_was_given_and_are_gone_afterwards():
    net, x = toy.residual().eval(), torch.randn(2, 1, 8, 8)
    with torch.no_grad(), Taps(net, ["3", "8"]) as taps:
        out = net(x)
        torch.testing.assert_close(taps.output("3"), nn.Sequential(*list(net)[:4])(x))
        assert taps.inputs[0] is x and torch.equal(taps.output("8"), out)
        assert torch.equal(net[8](taps.calls["8"][0][0]), out)
    assert hooks(net) == 0 and not taps.outputs and taps.inputs == ()


def test_a_layer_that_is_missing_or_does_not_run_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(InputError, match="no such submodule"):
        Taps(Odd(), ["nothing"])
    with Taps(Odd(), ["idle"]) as taps, pytest.raises(InputError, match="gave no tensor"):
        taps.output("idle")


def test_the_first_tensor_of_nested_outputs():
    x = torch.ones(1)
    assert first_tensor((None, {"a": [x, torch.zeros(1)]})) is x and first_tensor((1, "a")) is None


def test_blocks_are_the_repeated_children_else_the_layers():
    assert blocks(toy.residual()) == ["3", "4", "5"]
    assert blocks(encoder()) == [f"layers.{i}" for i in range(4)]
    assert blocks(toy.plain()) == ["0", "3", "6"]
    assert blocks(nn.Sequential(nn.Sequential(toy.residual()[3]), nn.Linear(2, 2))) == ["0"]


@pytest.mark.parametrize(("n", "picked"), [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (12, [2, 5, 8, 11]), (0, [])])
def test_at_most_four_ends_evenly_spaced(n, picked):
    assert ends(n) == picked


def test_an_origin_undoes_edits_in_reverse_order():
    edits = (
        {"edit": "keep_blocks", "path": "a", "index": [1, 3, 4]},
        {"edit": "keep_blocks", "path": "a.1.b", "index": [2]},
        {"edit": "keep_blocks", "path": "a", "index": [1, 2]},
    )
    assert origin("a.0.b.0.w", edits) == "a.3.b.2.w" and origin("a.1", edits) == "a.4" and origin("c.0", edits) == "c.0"
    assert origin("1.w", ({"edit": "keep_blocks", "path": "", "index": [0, 2]},)) == "2.w"


def test_dropped_blocks_are_matched_by_what_they_were_and_other_nets_by_depth():
    teacher, student = encoder(layers=4), encoder(layers=4)
    change = {"edit": "keep_blocks", "path": "layers", "index": [0, 3]}
    edit(student, change)
    assert matched(student, teacher, student_edits=(change,)) == [("layers.0", "layers.0"), ("layers.1", "layers.3")]
    assert matched(encoder(layers=2), teacher, same_net=False) == [("layers.0", "layers.1"), ("layers.1", "layers.3")]
    assert matched(encoder(layers=8), encoder(layers=2), same_net=False)[-1] == ("layers.7", "layers.1")
    assert matched(toy.residual(8), toy.residual(16)) == [(p, p) for p in "345"]
    assert matched(toy.residual(8), toy.residual(16), ["3.conv1"]) == [("3.conv1", "3.conv1")]


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(InputError, match="no such layers"):
        matched(toy.residual(), toy.residual(), ["9.x"])
    with pytest.raises(InputError, match="no layer that matches"):
        matched(encoder(), toy.plain(), ["layers.0.self_attn"], same_net=False)


def test_channels_are_found_for_convolutions_and_for_tokens():
    assert channels_first(nn.Conv2d(1, 2, 1), torch.ones(2, 3, 4, 5)).shape == (2, 3, 4, 5)
    assert channels_first(nn.Conv1d(1, 2, 1), torch.ones(2, 3, 4)).shape == (2, 3, 4)
    assert channels_first(encoder(), torch.ones(2, 3, 4)).shape == (2, 4, 3)
    assert channels_first(nn.Linear(1, 1), torch.ones(2, 3, 4, 5)).shape == (2, 5, 3, 4)
    assert channels_first(nn.Linear(1, 1), torch.ones(2, 3)).shape == (2, 3)


class Separate(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        return self.query(x) + self.key(x) + self.value(x)


class Fused(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        return sum(self.qkv(x).chunk(3, -1))


@pytest.mark.parametrize("kind", [Separate, Fused])
def test_queries_keys_and_values_of_projections(kind):
    net, x = kind(), torch.randn(2, 5, 16)
    paths = attention_paths(net, "")
    with torch.no_grad(), Taps(net, paths) as taps:
        out = net(x)
        torch.testing.assert_close(sum(queries_keys_values(net, taps, paths)), out)


@pytest.mark.parametrize("batch_first", [True, False])
def test_queries_keys_and_values_of_multihead_attention_make_its_output(batch_first):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=batch_first)

        def forward(self, x):
            return self.attention(x, x, value=x)[0]

    net, x = Net().eval(), torch.randn(2, 5, 16)
    with torch.no_grad(), Taps(net, attention_paths(net, "")) as taps:
        out = net(x if batch_first else x.transpose(0, 1))
        q, k, v = (t.reshape(2, 5, 2, 8).transpose(1, 2) for t in queries_keys_values(net, taps, ("attention",)))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        expected = net.attention.out_proj(mixed.transpose(1, 2).reshape(2, 5, 16))
    torch.testing.assert_close(out if batch_first else out.transpose(0, 1), expected)


def test_no_attention_is_no_paths_and_the_fast_path_of_an_encoder_is_seen():
    assert attention_paths(toy.residual(), "3") == ()
    net = encoder()
    paths = attention_paths(net, "layers.3")
    assert paths == ("layers.3.self_attn",)
    with torch.no_grad(), Taps(net, paths) as taps:
        net(torch.randn(2, 5, 16))
        assert [x.shape for x in queries_keys_values(net, taps, paths)] == [(2, 5, 16)] * 3


def test_the_last_linear_layer_that_runs():
    assert last_linear(toy.residual().eval(), [torch.randn(1, 1, 8, 8)]) == "8"
    assert last_linear(nn.ReLU(), [torch.ones(1)]) is None


def test_a_part_of_a_pass_ends_where_it_should():
    net, x = toy.residual().eval(), torch.randn(2, 1, 8, 8)
    ran = []
    hook = net[6].register_forward_hook(lambda *_: ran.append(1))
    args, kwargs, out = part(net, [x], "3", "4")
    hook.remove()
    with torch.no_grad():
        torch.testing.assert_close(args[0], net[:3](x))
        torch.testing.assert_close(out, net[:5](x))
    assert kwargs == {} and not ran and not out.requires_grad and hooks(net) == 0
    with pytest.raises(InputError, match="do not run one after the other"):
        part(net, [x], "4", "3")
