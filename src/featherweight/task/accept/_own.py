"""What outputs stand for where there are no targets: the original's own are what is to be kept, as
numbers, or as the answers that they give.

One number that says yes or no is judged where it turns: at 0 if it is a logit, at a half if it is a
probability; a softmax over one number would always say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import TaskError
from ._axes import Around, told_axis, width
from ._targets import ANSWERS, Meaning, as_numbers, probabilities, sums_to_one

if TYPE_CHECKING:
    import torch

_SAID = "there are no labels: what the original gives is what is to be kept"


def own(out: torch.Tensor, asked: tuple[object, ...], around: Around, tokens: bool) -> Meaning:
    """Of data without targets. asked: the loss and the metric that were asked for, or None; tokens:
    are inputs whole numbers?"""
    names = {a.partition("@")[0] for a in asked if isinstance(a, str)}
    answers = bool({"agreement", "kl"} & names)
    if wrong := names & set(ANSWERS) - {"agreement"}:
        raise TaskError(
            "there are no labels that answers could be compared with",
            got=f"inputs alone, metric={', '.join(sorted(wrong))!r}",
            fix="metric='agreement' compares with the original's answers; or give (inputs, targets)",
        )
    if out.ndim > 2:
        if answers:
            return _at_places(out, around, tokens)
        note = f"{_SAID}, and its outputs are taken for numbers (of classes at each place: metric='agreement')"
        return Meaning("mse", "r2", as_numbers, None, (note,))
    several = out.ndim == 2 and out.shape[1] > 1
    if several and sums_to_one(out, 1):
        return _numbers("mse", "agreement", "its outputs are probabilities of classes")
    if several and bool(((out.norm(dim=1) - 1).abs() < 1e-3).all()):
        return _numbers("cosine", "cosine", "its outputs are vectors of length 1")
    if several and probabilities(out):
        return _numbers(
            "log_loss", "agreement@0.5", "its outputs are probabilities of labels that do not exclude each other", 0
        )
    if several:
        what = "its outputs are taken for scores of classes (of embeddings: metric='cosine'; of numbers: metric='r2')"
        return _numbers("kl", "agreement", what)
    if answers:
        return _yes_or_no(out, None)
    return _numbers("mse", "r2", "its outputs are taken for numbers")


def _numbers(loss: str, metric: str, what: str, axis: int | None = None) -> Meaning:
    return Meaning(loss, metric, as_numbers, None, (f"{_SAID}, and {what}",), axis)


def _yes_or_no(out: torch.Tensor, axis: int | None) -> Meaning:
    """One number for each answer."""
    if probabilities(out):
        return _numbers("log_loss", "agreement@0.5", "its outputs are taken for probabilities of yes", axis)
    return _numbers("kl", "agreement", "its outputs are taken for logits of yes", axis)


def _at_places(out: torch.Tensor, around: Around, tokens: bool) -> Meaning:
    """Answers at places. TaskError if outputs may as well be rows and columns of one mask as
    classes of frames."""
    shape = tuple(out.shape[1:])
    axis = around.axis if around.axis is not None else told_axis(around.inputs, shape)
    if axis is None and len(shape) == 2 and any(len(given) > 2 for given in around.inputs):
        raise TaskError(
            "are these classes at each place, or one answer of yes or no?",
            got=f"outputs {list(shape)} a sample, inputs {', '.join(str(list(s)) for s in around.inputs)}",
            fix="class_axis=1 or -1: where the classes are; class_axis=0: there is one number at each place",
        )
    axis = axis if axis is not None else -1 if tokens and len(shape) == 2 else 1
    if width(shape, axis) == 1:
        return _yes_or_no(out, axis)
    place = "second" if axis == 1 else "last"
    what = f"the {place} axis of outputs {list(shape)} a sample is taken for the classes"
    if sums_to_one(out, axis):
        return _numbers("mse", "agreement", f"{what}, outputs for their probabilities", axis)
    if probabilities(out):
        what = "its outputs are taken for probabilities of labels that do not exclude each other"
        return _numbers("log_loss", "agreement@0.5", what, 0)
    return _numbers("kl", "agreement", what, axis)
