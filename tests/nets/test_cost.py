"""What a description says it costs is what the module that it builds costs,
counted by `measure.ops`."""

import pytest
import torch
from torch import nn

from featherweight import registry
from featherweight.errors import InputError, RecipeError
from featherweight.measure import ops
from featherweight.nets.cell import Cell
from featherweight.nets.columns import Columns
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.encoder import Encoder
from featherweight.nets.log_mel import LogMel
from featherweight.nets.mlp import Mlp
from featherweight.nets.recurrent_net import RecurrentNet
from featherweight.nets.series_net import SeriesNet
from featherweight.nets.standardised import Standardised
from featherweight.recipe import Recipe
from featherweight.seeding import generator
from featherweight.space import Choice, Int, Space
from featherweight.transforms.build import Build

TOKENS = torch.ones(1, 7, dtype=torch.int64)
IMAGE = torch.zeros(1, 2, 13, 10)
SPACES = {
    "conv_net": (
        ConvNet.space(
            in_channels=2,
            norm=Choice("batch", "group", "none"),
            kernel=(Choice(1, 3, 5), 3, 7),
            stride=Choice(1, 2, 3),
            stem=Int(3, 9),
            widths=(Int(3, 9), 8, Int(8, 30)),
        ),
        (IMAGE,),
    ),
    "cell": (Cell.space(in_channels=2, width=Int(1, 6), cells=Int(1, 2)), (IMAGE,)),
    "encoder": (
        Encoder.space(vocab=30, length=9, depth=Int(0, 3), width=Choice(16, 24), mlp_ratio=Choice(0.3, 2.0)),
        (TOKENS, TOKENS),
    ),
    "recurrent_net": (
        RecurrentNet.space(in_channels=3, classes=4, hidden=Int(2, 9), layers=Int(1, 3)),
        (torch.zeros(1, 3, 11),),
    ),
    "series_net": (
        SeriesNet.space(
            in_channels=3,
            norm=Choice("batch", "group", "none"),
            stride=Choice(1, 2, 3),
            stem=Int(3, 9),
            first=Choice(1, 9),
        ),
        (torch.zeros(1, 3, 21),),
    ),
    "standardised": (
        Standardised.space(
            net=SeriesNet(in_channels=3, depths=(Int(1, 3),), widths=(Int(3, 9),), stem=Int(3, 9)),
            shape=(3, 21),
            axis=0,
            mean=(1.0, 2.0, 3.0),
            deviation=(1.0, 2.0, 3.0),
            power=2,
        ),
        (torch.zeros(1, 3, 21),),
    ),
    "mlp": (Mlp.space(features=12, classes=3), (torch.zeros(1, 3, 4),)),
    "log_mel": (
        LogMel.space(net=ConvNet.space(in_channels=1, widths=(Int(3, 9),), depths=(1,)), samples=2000),
        (torch.zeros(1, 2000),),
    ),
    "columns": (
        Columns.space(
            net=Mlp.space(), mean=(0.0, 1.0), deviation=(1.0, 2.0), missing=1, values=(4, 90), classes=3, power=0
        ),
        (torch.zeros(1, 3), torch.zeros(1, 2, dtype=torch.int64)),
    ),
}


def drawn(kind, n):
    recipe = Recipe(Build(SPACES[kind][0]))
    space = Space(recipe)
    for i in range(n):
        net = recipe.fill(space.sample(generator(0, kind, i))).steps[0].net
        # cells that are constants are refused
        if kind != "cell" or net.canonical().signature()[-1] != ":":
            yield net


def outputs(module, inputs):
    """How many numbers each weighted layer gives, in the order in which they run."""
    made = []
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda _, __, out: made.append(out.numel()))
        if isinstance(layer, nn.RNNBase):
            layer.register_forward_hook(lambda m, _, out: made.extend([out[0].numel()] * m.num_layers))
    with torch.no_grad():
        module(*inputs)
    return made


@pytest.mark.parametrize("kind", registry.names("nets"))
def test_cost_is_what_is_counted_in_the_module(kind):
    inputs = SPACES[kind][1]
    seen = set()
    for net in drawn(kind, 15):
        cost, module = net.cost(inputs[0].shape[1:]), net.build()
        assert cost.params == ops.params(module)
        assert cost.macs == ops.macs(module, {str(i): x for i, x in enumerate(inputs)})
        made = outputs(module, inputs)
        assert (cost.layers, cost.widest) == (len(made), max(made))
        assert 1 <= cost.depth <= cost.layers and cost.paths >= 0
        seen.add(cost)
    assert len(seen) >= 10


def test_depth_and_paths():
    def of(net, *shape):
        cost = net.cost(shape)
        return cost.depth, cost.layers, cost.paths

    assert of(Mlp(features=4, hidden=(5, 6)), 2, 2) == (3, 3, 0)
    # 4 in a row of 6 a block, the head; two skip connections a block
    assert of(Encoder(length=5, depth=2), 5) == (9, 13, 4)
    stages = {"in_channels": 1, "depths": (2, 1), "widths": (16, 32)}
    assert of(ConvNet(**stages), 1, 8, 8) == (8, 9, 3)  # one shortcut is a convolution
    assert of(ConvNet(**stages, block="plain"), 1, 8, 8) == (8, 8, 0)
    # expansion 1: no expanding convolution; two blocks have a skip connection
    assert of(ConvNet(**stages, block="inverted"), 1, 8, 8) == (8, 8, 2)
    assert of(ConvNet(**stages, block="inverted", expansion=2.0), 1, 8, 8) == (11, 11, 2)
    assert of(Cell(), 3, 32, 32) == (15 * 2 + 6, 15 * 2 + 8, 15 + 2)  # two paths a cell
    assert of(
        Cell.parse(
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+" + "|nor_conv_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|",
            cells=1,
        ),
        3,
        8,
        8,
    ) == (
        3 * 3 + 6,
        3 * 6 + 8,
        3 * 2 + 2,
    )


def test_all_kinds_have_the_same_features():
    names = {
        tuple(net.cost(shape).features())
        for net, shape in ((Mlp(), (64,)), (Encoder(), (128,)), (ConvNet(), (3, 4, 4)), (Cell(), (3, 4, 4)))
    }
    assert names == {("params", "macs", "depth", "layers", "widest", "paths")}
    assert all(type(v) is float for v in Mlp().cost((64,)).features().values())


@pytest.mark.parametrize(
    "net, shape",
    [
        (ConvNet(), (1, 8, 8)),
        (ConvNet(), (3, 8)),
        (ConvNet(), (3, 0, 8)),
        (Cell(), (1, 8, 8)),
        (Mlp(features=6), (2, 4)),
        (Mlp(features=1), ()),
        (Encoder(length=8), (9,)),
        (Encoder(length=8), (4, 4)),
    ],
)
def test_another_shape_is_refused(net, shape):
    with pytest.raises(InputError, match="does not take samples of this shape"):
        net.cost(shape)


def test_holes_and_fields_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match="still has holes"):
        ConvNet.space().cost((3, 8, 8))
    with pytest.raises(InputError, match="multiple of its heads"):
        Encoder(heads=3).cost((8,))
