"""What every description has to do, then each architecture against its definition."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from featherweight import registry
from featherweight.errors import InputError, RecipeError
from featherweight.graphs.export import export_onnx
from featherweight.nets._modules import Rows
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.mlp import Mlp
from featherweight.nets.series_net import SeriesNet
from featherweight.nets.standardised import Standardised
from featherweight.recipe import Recipe, content_hash, decode, encode
from featherweight.seeding import generator
from featherweight.space import Choice, Int, Space
from featherweight.transforms.build import Build

IMAGES = (torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0)),)
IDS = torch.tensor([[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
SERIES = (torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)),)
SOUNDS = (torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)),)
ROWS = (torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 2], [3, 1]]))
INPUTS = {
    **{"conv_net": IMAGES, "cell": IMAGES, "mlp": IMAGES, "encoder": (IDS, MASK)},
    **{"log_mel": SOUNDS, "columns": ROWS, "series_net": SERIES, "recurrent_net": SERIES},
    "standardised": SERIES,
}
SMALL = {
    "conv_net": {"widths": (8, 16), "depths": (1, 2), "stem": 8, "classes": 5},
    "cell": {"width": 4, "cells": 1, "classes": 5},
    "mlp": {"features": 360, "classes": 5},
    "recurrent_net": {"in_channels": 3, "hidden": 6, "classes": 5},
    "standardised": {
        "net": SeriesNet(in_channels=3, widths=(8,), depths=(1,), stem=8, classes=5),
        "shape": (3, 20),
        "mean": (1.0, 2.0, 3.0),
        "deviation": (1.0, 0.0, 10.0),
    },
    "series_net": {"in_channels": 3, "widths": (8, 16), "depths": (1, 2), "stem": 8, "classes": 5},
    "encoder": {"vocab": 20, "length": 6, "width": 16, "heads": 2, "classes": 5},
    "log_mel": {"net": ConvNet(in_channels=1, widths=(8,), depths=(1,), stem=8, classes=5), "samples": 4000},
    "columns": {"mean": (0.0, 1.0, 2.0), "deviation": (1.0, 2.0, 0.0), "missing": 1, "values": (4, 3), "classes": 5},
}
FIXED = ("classes", "features", "vocab", "length", "cells", "samples", "mean", "deviation", "missing", "values")


def small(kind, **more):
    return registry.find("nets", kind)(**{**SMALL[kind], **more})


def run(module, inputs):
    with torch.no_grad():
        return module(*inputs)


@pytest.mark.parametrize("kind", registry.names("nets"))
def test_every_net_builds_the_same_module_from_its_json_and_seed(kind):
    net = small(kind)
    again = decode(json.loads(json.dumps(encode(net))))
    assert again == net and content_hash(again) == content_hash(net)
    state = torch.get_rng_state()
    first, second, other = net.build(3), again.build(3), net.build(4)
    assert torch.equal(torch.get_rng_state(), state), "the global random state was changed"
    assert not first.training
    out = run(first, INPUTS[kind])
    assert out.shape == (2, 5) and torch.isfinite(out).all()
    assert torch.equal(out, run(second, INPUTS[kind])) and not torch.equal(out, run(other, INPUTS[kind]))


@pytest.mark.parametrize("kind", registry.names("nets"))
def test_every_draw_of_the_declared_ranges_builds(kind):
    sizes = {
        k: v
        for k, v in SMALL[kind].items()
        if k in FIXED or (k == "net" and kind in ("log_mel", "standardised")) or k in ("shape", "mean", "deviation")
    }
    if kind in ("series_net", "recurrent_net"):
        sizes["in_channels"] = 3
    recipe = Recipe(Build(registry.find("nets", kind).space(**sizes)))
    space = Space(recipe)
    for i in range(4):
        step = recipe.fill(space.sample(generator(0, kind, i))).steps[0]
        assert run(step.net.build(), INPUTS[kind]).shape == (2, 5)


@pytest.mark.parametrize("kind", registry.names("nets"))
def test_fields_are_documented_and_holes_have_to_be_filled(kind):
    cls = registry.find("nets", kind)
    assert all(f.metadata.get("doc") for f in dataclasses.fields(cls))
    with pytest.raises(RecipeError, match="still has holes"):
        (Standardised(net=Mlp.space(features=4)) if cls is Standardised else cls.space()).build()


def test_holes_have_paths_and_a_recipe_of_nets_survives_json():
    recipe = Recipe(Build(Choice(ConvNet(widths=(Int(8, 16), 16), depths=(1, Int(1, 2))), Mlp(features=64))))
    assert {h.path for h in Space(recipe).holes} == {
        "build.net",
        "build.net.conv_net.widths[0]",
        "build.net.conv_net.depths[1]",
    }
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    filled = recipe.fill(
        {"build.net": "conv_net", "build.net.conv_net.widths[0]": 12, "build.net.conv_net.depths[1]": 2}
    )
    assert filled.steps[0].net == ConvNet(widths=(12, 16), depths=(1, 2))


def test_a_net_is_no_step():
    with pytest.raises(RecipeError, match="made of transforms"):
        Recipe.from_json([{"mlp": {}}])
    with pytest.raises(InputError, match="called 'no_net'"):
        decode({"no_net": {}})
    with pytest.raises(RecipeError, match="no such field"):
        decode({"mlp": {"layers": 3}})


@pytest.mark.parametrize("block", ["residual", "inverted"])
def test_conv_net_stages(block):
    net = ConvNet(
        in_channels=3, stem=8, stride=2, depths=(1, 3), widths=(8, 16), block=block, expansion=2.0, kernel=5
    ).build()
    x = torch.zeros(1, 3, 32, 32)
    shapes = []
    for part in net[:3]:
        x = part(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 16, 16), (8, 16, 16), (16, 8, 8)]
    assert [len(s) for s in net[1:3]] == [1, 3]
    convs = [m for m in net[2][0].modules() if isinstance(m, nn.Conv2d)]
    if block == "residual":
        assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [
            (8, 32, 5, 2),
            (32, 16, 5, 1),
            (8, 16, 1, 2),
        ]
    else:
        got = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.groups) for c in convs]
        assert got == [(8, 16, 1, 1, 1), (16, 16, 5, 2, 16), (16, 16, 1, 1, 1)]


def test_a_residual_block_adds_its_input():
    for block in ("residual", "inverted"):
        net = ConvNet(stem=8, depths=(1,), widths=(8,), block=block).build()
        x = torch.rand(2, 8, 5, 5)
        for p in net[1][0].parameters():
            nn.init.zeros_(p)
        # the rest of the block gives 0; relu leaves what is positive
        assert torch.equal(run(net[1], (x,)), x)


def test_resnet20_has_the_published_number_of_parameters():
    """He et al. 2016, arXiv:1512.03385, table 6: 0.27 M; 269,722 with their shortcuts, which have
    no parameters (option A)."""
    net = ConvNet(stem=16, depths=(3, 3, 3), widths=(16, 32, 64)).build()
    short = 16 * 32 + 64 + 32 * 64 + 128
    assert sum(p.numel() for p in net.parameters()) - short == 269_722


def test_stages_of_different_number_are_refused():
    for widths, depths, kernel in (((8, 16), (1,), 3), ((), (), 3), ((8,), (1,), (3, 5))):
        with pytest.raises(InputError, match="one value a stage"):
            ConvNet(widths=widths, depths=depths, kernel=kernel)
    with pytest.raises(InputError):
        ConvNet(widths=(8, 0), depths=(1, 1))


def test_a_plain_block_is_the_residual_one_without_its_skip_connection():
    """The same weights: what the residual block adds is all that tells them apart
    (He et al. 2016, figure 3)."""
    residual, plain = (
        ConvNet(stem=8, depths=(2,), widths=(8,), block=b, kernel=(5,)).build()[1] for b in ("residual", "plain")
    )
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        for r, p in zip(residual, plain, strict=True):
            torch.testing.assert_close(r(x), torch.relu(r.body(x) + x))
            torch.testing.assert_close(p(x), torch.relu(r.body(x)))


@pytest.mark.parametrize("block", ["residual", "inverted", "plain"])
def test_normalisation_and_kernels_of_each_stage(block):
    net = ConvNet(
        stem=12, depths=(1, 2), widths=(12, 20), block=block, kernel=(3, 5), norm="group", expansion=2.0
    ).build()
    kinds = {type(m) for m in net.modules()}
    assert nn.GroupNorm in kinds and nn.BatchNorm2d not in kinds
    # the largest divisors of 20, 12, 24 or 40 up to 8
    assert {m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)} <= {4, 5, 6, 8}
    assert [{m.kernel_size[0] for m in net[i].modules() if isinstance(m, nn.Conv2d)} - {1} for i in (1, 2)] == [
        {3},
        {5},
    ]
    bare = ConvNet(stem=12, depths=(1, 2), widths=(12, 20), block=block, kernel=(3, 5), norm="none").build()
    assert not any(isinstance(m, (nn.GroupNorm, nn.BatchNorm2d)) for m in bare.modules())
    assert all(m.bias is not None for m in bare.modules() if isinstance(m, nn.Conv2d))


def test_descriptions_saved_before_a_field_was_added_still_load():
    saved = {
        "in_channels": 1,
        "classes": 4,
        "stem": 8,
        "stride": 1,
        "depths": [1],
        "widths": [8],
        "kernel": 5,
        "block": "residual",
    }
    assert decode({"conv_net": {**saved, "expansion": 1.0, "activation": "relu"}}) == ConvNet(
        1, 4, 8, 1, (1,), (8,), 5, norm="batch"
    )


def test_kernels_of_stages_may_be_holes():
    recipe = Recipe(Build(ConvNet(widths=(8, 16), depths=(1, 1), kernel=(Choice(3, 5), 3))))
    assert [h.path for h in Space(recipe).holes] == ["build.net.kernel[0]"]
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert recipe.fill({"build.net.kernel[0]": 5}).steps[0].net.kernel == (5, 3)
    with pytest.raises(InputError):
        ConvNet(widths=(8, 16), depths=(1, 1), kernel=(3, 4))


def test_mlp_layers():
    net = Mlp(features=6, classes=3, hidden=(5, 4), norm="layer", dropout=0.1, activation="gelu").build()
    kinds = [
        Rows,
        nn.Linear,
        nn.LayerNorm,
        nn.GELU,
        nn.Dropout,
        nn.Linear,
        nn.LayerNorm,
        nn.GELU,
        nn.Dropout,
        nn.Linear,
    ]
    assert [type(m) for m in net] == kinds
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [5, 4, 3]
    assert [type(m) for m in Mlp(features=6, hidden=()).build()] == [Rows, nn.Linear]


def test_padding_changes_nothing():
    net = small("encoder").build()
    short = run(net, (IDS[:1, :4], MASK[:1, :4]))
    torch.testing.assert_close(run(net, (IDS[:1], MASK[:1])), short)
    other = IDS[:1].clone()
    other[0, 4:] = 7
    torch.testing.assert_close(run(net, (other, MASK[:1])), short)
    assert torch.isfinite(run(net, (IDS, torch.zeros_like(MASK)))).all()


def test_attention_is_multi_head_attention():
    """torch's own nn.MultiheadAttention with the same weights."""
    net = small("encoder").build()
    ours, theirs = net.blocks[0].attention, nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x = torch.randn(2, 6, 16)
        want, _ = theirs(x, x, x, key_padding_mask=MASK == 0, need_weights=False)
        mask = (MASK[:, None, None, :].float() - 1) * torch.finfo(torch.float32).max
        torch.testing.assert_close(ours(x, mask), want)


def test_a_head_can_be_cut_from_the_layers_alone():
    """Without one head's rows and columns the module computes what it computes when that head's
    values are silenced."""
    a = small("encoder", heads=4).build().blocks[0].attention  # heads of 4 channels
    keep = torch.tensor([i for i in range(16) if i // 4 != 1])
    x, mask = torch.randn(2, 6, 16), torch.zeros(2, 1, 1, 6)
    with torch.no_grad():
        a.out.weight[:, 4:8] = 0
        want = a(x, mask)
        for layer in (a.query, a.key, a.value):
            layer.weight, layer.bias = nn.Parameter(layer.weight[keep]), nn.Parameter(layer.bias[keep])
        a.out.weight = nn.Parameter(a.out.weight[:, keep])
        torch.testing.assert_close(a(x, mask), want)


def test_heads_have_to_divide_the_width():
    with pytest.raises(InputError, match="multiple of its heads"):
        small("encoder", heads=3).build()
    with pytest.raises(InputError, match="1, 2, 4, 8, 16"):
        small("encoder", heads=3).check()
    assert run(small("encoder", depth=0).build(), INPUTS["encoder"]).shape == (2, 5)


def test_every_net_exports(tmp_path):
    for kind in registry.names("nets"):
        names = {"encoder": ["input_ids", "attention_mask"], "columns": ["numbers", "categories"]}.get(kind, ["image"])
        example = {n: v[:1] for n, v in zip(names, INPUTS[kind], strict=True)}
        assert export_onnx(small(kind).build(), example, None, tmp_path / f"{kind}.onnx")["exporter"] == "trace"


# --- of series ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["series_net", "recurrent_net"])
def test_time_may_come_first(kind):
    late, early = small(kind).build(3), small(kind, time_first=True).build(3)
    early.load_state_dict(dict(zip(early.state_dict(), late.state_dict().values(), strict=True)))
    (x,) = SERIES
    torch.testing.assert_close(run(early, (x.transpose(1, 2),)), run(late, (x,)))


def test_a_recurrent_net_reads_where_each_way_has_seen_all():
    net = small("recurrent_net", both_ways=True).build()
    (x,) = SERIES
    y, (h, _) = net.cells(x.transpose(1, 2))
    torch.testing.assert_close(run(net, (x,)), net.head(torch.cat([h[0], h[1]], 1)).detach())
    mean = small("recurrent_net", both_ways=True, pool="mean").build()
    torch.testing.assert_close(run(mean, (x,)), mean.head(mean.cells(x.transpose(1, 2))[0].mean(1)).detach())


def test_a_net_of_series_is_that_of_images_of_one_row():
    series, images = small("series_net", first=3).build(), small("conv_net").build()
    for a, b in zip(series.parameters(), images.parameters(), strict=False):
        assert a.shape == b.shape[: a.ndim] or b.ndim == 4 and a.ndim == 3 and a.shape[:2] == b.shape[:2]
    assert [type(m).__name__.replace("1d", "2d") for m in series.modules()] == [
        type(m).__name__ for m in images.modules()
    ]
