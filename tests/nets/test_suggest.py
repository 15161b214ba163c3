"""The nets suggested for a data set take it, have ordinary sizes,
and what no family takes is refused."""

import numpy as np
import pytest
import torch

from featherweight.errors import InputError
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.encoder import Encoder
from featherweight.nets.mlp import Mlp
from featherweight.nets.series_net import SeriesNet
from featherweight.recipes.nets import searchable, sensible
from featherweight.seeding import generator
from featherweight.space import Space
from featherweight.space.node import is_filled


def images(c, h, w):
    return {"image": np.zeros((2, c, h, w), "float32")}


def tokens(ids=((0, 4, 9), (2, 2, 0)), mask=((1, 1, 1), (1, 1, 0))):
    return {"ids": np.array(ids, "int64"), "mask": np.array(mask, "int64")}


DATA = {
    "digits": (images(1, 8, 8), ConvNet),
    "fashion": (images(1, 28, 28), ConvNet),
    "cifar": (images(3, 32, 32), ConvNet),
    "photos": (images(3, 96, 80), ConvNet),
    "one pixel": (images(2, 1, 1), ConvNet),
    "signals": (images(2, 1, 128), ConvNet),
    "table": ({"x": np.zeros((3, 20), "float32")}, Mlp),
    "one number": ({"x": np.zeros((3, 1), "float32")}, Mlp),
    "series": ({"x": np.zeros((3, 12, 4), "float32")}, SeriesNet),
    "mel bands": ({"x": np.zeros((3, 40, 61), "float32")}, SeriesNet),
    "a long series": ({"x": np.zeros((3, 1, 1000), "float32")}, SeriesNet),
    "a few numbers": ({"x": np.zeros((3, 4, 5), "float32")}, Mlp),
    "text": (tokens(), Encoder),
}


@pytest.mark.parametrize("name", DATA)
def test_nets_fit_their_data(name):
    inputs, family = DATA[name]
    batch = [torch.from_numpy(v) for v in inputs.values()]
    shape = batch[0].shape[1:]
    fixed, opened = sensible(inputs, 6), searchable(inputs, 6)
    assert type(fixed) is type(opened) is family and is_filled(fixed) and not is_filled(opened)
    space = Space(opened)
    for i, net in enumerate([fixed, *(space.fill(space.sample(generator(0, name, i))) for i in range(4))]):
        net.check()
        with torch.no_grad():
            assert net.build(i)(*batch).shape == (len(batch[0]), 6)
        assert net.cost(shape).params > 0


@pytest.mark.parametrize(
    "name, low, high", [("fashion", 100_000, 300_000), ("cifar", 100_000, 300_000), ("photos", 100_000, 600_000)]
)
def test_fixed_nets_for_images_have_ordinary_sizes(name, low, high):
    inputs, _ = DATA[name]
    shape = inputs["image"].shape[1:]
    params = sensible(inputs, 10).cost(shape).params
    assert low <= params <= high
    space = Space(searchable(inputs, 10))
    sizes = [space.fill(space.sample(generator(1, i))).cost(shape).params for i in range(200)]
    assert min(sizes) < params / 5 and max(sizes) > 2 * params


def test_searchable_opens_layers_widths_kernel_connection_activation_and_normalisation():
    names = {h.path.partition("[")[0] for h in Space(searchable(DATA["cifar"][0], 10)).holes}
    assert {"depths", "widths", "kernel", "block", "activation", "norm"} <= names
    assert {"hidden", "activation", "norm", "dropout"} == {
        h.path.partition("[")[0] for h in Space(searchable(DATA["table"][0], 2)).holes
    }


def test_every_number_of_heads_divides_every_width():
    space = Space(searchable(tokens(), 2))
    widths, heads = space["width"].domain.options(None), space["heads"].domain.options(None)
    assert all(w % h == 0 for w in widths for h in heads)


def test_stages_follow_the_size_of_the_images():
    assert [len(sensible(images(1, n, n), 2).depths) for n in (1, 4, 7, 8, 16, 32, 63, 64, 224)] == [
        1,
        1,
        1,
        2,
        3,
        3,
        3,
        4,
        4,
    ]
    assert sensible(images(1, 64, 2), 2).stride == 2


def test_the_vocabulary_is_what_the_rows_use():
    net = sensible(tokens(), 3)
    assert (net.vocab, net.length, net.classes) == (10, 3, 3)


@pytest.mark.parametrize(
    "inputs, outputs",
    [
        ({}, 2),
        (images(1, 8, 8), 0),
        ({"image": np.zeros((2, 1, 8, 8), "uint8")}, 2),
        ({"x": np.zeros((2, 5), "float64")}, 2),
        ({"x": np.zeros(5, "float32")}, 2),
        ({"x": np.zeros((0, 5), "float32")}, 2),
        ({"x": np.zeros((2, 0), "float32")}, 2),
        ({"ids": np.zeros((2, 5), "int64")}, 2),
        ({"a": np.zeros((2, 5), "float32"), "b": np.zeros((2, 5), "float32")}, 2),
        (tokens(ids=((-1, 2, 3), (1, 1, 1))), 2),
        (tokens(mask=((7, 1, 1), (1, 1, 1))), 2),
        ({"ids": np.zeros((2, 5), "int64"), "mask": np.zeros((2, 4), "int64")}, 2),
    ],
)
def test_data_that_no_family_takes_are_refused(inputs, outputs):
    for suggest in (sensible, searchable):
        with pytest.raises(InputError, match="no family of nets"):
            suggest(inputs, outputs)
