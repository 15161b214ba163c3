"""What a loss says of a model's outputs, for losses as users write them."""

import pytest
import torch
import torch.nn.functional as F

from featherweight.errors import InputError
from featherweight.train.forms import fitting_form


def rng():
    return torch.Generator().manual_seed(1)


CLASSES = torch.randint(0, 4, (64,), generator=rng())
LABELS = (torch.rand(64, 4, generator=rng()) < 0.4).float()
ONE = (torch.rand(64, generator=rng()) < 0.4).long()
NUMBERS = torch.randn(64, 4, generator=rng())


def focal(z, y):
    p = z.log_softmax(1).gather(1, y[:, None])
    return -((1 - p.exp()) ** 2 * p).mean()


def contrary(z, y):
    raise RuntimeError("made for other outputs")


@pytest.mark.parametrize(
    ("loss", "shape", "targets", "form"),
    [
        ("cross_entropy", (4,), CLASSES, "softmax"),
        ("mse", (1,), NUMBERS[:, 0], "mse"),
        (lambda z, y: F.cross_entropy(z, y), (4,), CLASSES, "softmax"),
        (lambda z, y: F.cross_entropy(z, y.long()), (4,), CLASSES.float(), "softmax"),
        (lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1), (4,), CLASSES, "softmax"),
        (lambda z, y: F.cross_entropy(z, y, weight=torch.arange(1.0, 5)), (4,), CLASSES, "softmax"),
        (lambda z, y: F.cross_entropy(z, NUMBERS.softmax(1)), (4,), NUMBERS, "softmax"),
        (focal, (4,), CLASSES, "softmax"),
        (lambda z, y: F.nll_loss(z, y), (4,), CLASSES, "softmax"),
        (lambda z, y: F.cross_entropy(z, y), (2,), ONE, "softmax"),
        (lambda z, y: F.binary_cross_entropy_with_logits(z, y), (4,), LABELS, "bernoulli"),
        (
            lambda z, y: F.binary_cross_entropy_with_logits(z, y, pos_weight=torch.ones(4) * 9),
            (4,),
            LABELS,
            "bernoulli",
        ),
        (lambda z, y: F.multilabel_soft_margin_loss(z, y), (4,), LABELS, "bernoulli"),
        (lambda z, y: F.binary_cross_entropy_with_logits(z.squeeze(1), y.float()), (1,), ONE, "bernoulli"),
        (lambda z, y: F.binary_cross_entropy_with_logits(z, y.float()), (), ONE, "bernoulli"),
        (lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, 4).float()), (4,), CLASSES, "bernoulli"),
        (lambda z, y: F.soft_margin_loss(z.squeeze(1), 2.0 * y - 1), (1,), ONE, "bernoulli"),
        (lambda z, y: F.binary_cross_entropy(z, y), (4,), LABELS, "mse"),
        (lambda z, y: -z.gather(1, y[:, None]).log().mean() if (z > 0).all() else z.sum() / 0, (4,), CLASSES, "mse"),
        (lambda z, y: F.mse_loss(z, y), (4,), NUMBERS, "mse"),
        (lambda z, y: F.mse_loss(z, y), (4,), LABELS, "mse"),
        (lambda z, y: F.l1_loss(z.squeeze(1), y), (1,), ONE.float(), "mse"),
        (lambda z, y: F.huber_loss(z, y), (4,), NUMBERS, "mse"),
        (lambda z, y: (z.exp() - y[:, None] * z).mean(), (1,), 7 * CLASSES, "mse"),  # counts
        (lambda z, y: F.mse_loss(z, F.one_hot(y, 4).float()), (4,), CLASSES, "mse"),
        (lambda z, y: torch.maximum(0.1 * (y[:, None] - z), 0.9 * (z - y[:, None])).mean(), (3,), NUMBERS[:, 0], "mse"),
    ],
)
def test_the_form_that_fits(loss, shape, targets, form):
    assert fitting_form(loss, shape, targets)[0] == form


@pytest.mark.parametrize("loss", [contrary, lambda z, y: F.cross_entropy(z, y) / 0.0, lambda z, y: z.sum() * 0])
def test_a_loss_that_says_nothing_is_refused_with_the_setting_that_decides(loss):
    with pytest.raises(InputError, match=r"form='softmax' or 'bernoulli' or 'mse'"):
        fitting_form(loss, (4,), CLASSES)


@pytest.mark.parametrize(
    ("shape", "axis", "form"),
    [((1,), 1, "bernoulli"), ((), 1, "bernoulli"), ((1, 6, 6), 1, "bernoulli"), ((6, 6, 1), -1, "bernoulli")]
    + [((6, 6), 0, "bernoulli"), ((3,), 1, "softmax"), ((3, 6, 6), 1, "softmax"), ((1, 6, 3), -1, "softmax")],
)
def test_a_softmax_is_of_several_numbers(shape, axis, form):
    assert fitting_form("kl", shape, torch.randn(4, *shape), axis)[0] == form


def test_rows_of_one_mask_are_no_classes():
    """A loss that wants as much more as less along an axis of a mask is no softmax of rows."""

    def level(outputs, targets):
        return (outputs - outputs.mean(1, keepdim=True)).square().sum()

    targets = torch.randint(0, 2, (8, 5)).float()
    assert fitting_form(level, (5,), targets, 1)[0] == "softmax"
    assert fitting_form(level, (5,), targets, 0)[0] == "mse"
