"""A trained head's outputs and the labels of data: which output is which label.

By name, or by number where labels are numbers; what cannot be told is an error that says how to say
it, and what is told wrongly is seen on some samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ..data import Split
from ._numbering import numbering
from ._table import sorted_labels

if TYPE_CHECKING:
    from torch import nn

ORDER = "order"
_UNNAMED = re.compile("LABEL_[0-9]+")  # what transformers calls classes that nobody named
_CHANCE = 1.5  # times chance: right as often as by guessing


@dataclass(frozen=True)
class Order:
    """names: of the outputs, in order; number: the output of each label of the data."""

    names: tuple[str, ...]
    number: Mapping[str, int]
    notes: tuple[str, ...] = ()


def has_head(config: Any, ending: str) -> bool:
    """Is there a head of this kind in the directory (its architecture's name ends so)?"""
    return any(str(a).endswith(ending) for a in config.architectures or ())


def class_names(given: str | Sequence[str] | None) -> list[str] | str | None:
    """ "order", names with commas between them as a list, or None."""
    if given is None or given == ORDER:
        return given
    names = given.split(",") if isinstance(given, str) else list(given)
    found = [str(n).strip() for n in names]
    if not found or not all(found) or len(set(found)) < len(found):
        raise TaskError(
            "these names of classes cannot be told apart",
            got=repr(given)[:300],
            allowed="names in the order of the model's outputs: classes=dog,cat; or classes=order",
        )
    return found


def order(labels: Sequence[str], numbered: bool, config: Any, classes: list[str] | str | None, what: str) -> Order:
    """Which output each label is. labels: the distinct ones; numbered: are they whole numbers?
    config: of a model whose own head is used (None: it gets a new one); what: the labels are, in
    words. TaskError if it cannot be told."""
    found = sorted_labels(labels)
    outputs = None if config is None else [str(config.id2label[i]) for i in range(config.num_labels)]
    if isinstance(classes, list):
        return _said(found, numbered, classes, outputs, what)
    if outputs is None:
        return Order(tuple(found), {v: i for i, v in enumerate(found)})
    unnamed = all(_UNNAMED.fullmatch(n) for n in outputs)
    if numbered and classes is None and max(map(int, found)) < len(outputs):
        names = ", ".join(f"{v} is {outputs[int(v)]!r}" for v in found[:4]) + (", .." if len(found) > 4 else "")
        note = f"{what} are numbers, taken for those of the model's outputs: {names}"
        return Order(tuple(outputs), {v: int(v) for v in found}, () if unnamed else (note,))
    by_name = None if classes == ORDER or unnamed else _by_name(found, outputs)
    if by_name is not None:
        spelled = {i: v for v, i in by_name.items()}
        return Order(tuple(spelled.get(i, n) for i, n in enumerate(outputs)), by_name)
    if (classes == ORDER or unnamed) and len(found) == len(outputs):
        note = f"the model's outputs have no names: {what}, in their order, are taken for them: {', '.join(found[:6])}"
        return Order(tuple(found), {v: i for i, v in enumerate(found)}, () if classes == ORDER else (note[:500],))
    raise TaskError(
        "the model's classes are not those of the data",
        got=f"{what}: {_few(found)}; the model's {len(outputs)} outputs: {_few(outputs)}",
        allowed="labels that the model's config.json names (id2label), or the numbers of its outputs",
        fix="classes=.., the labels in the order of the model's outputs; classes=order if they are in order; or "
        "new_head=true for a head of its own, which is trained",
    )


def _said(labels: list[str], numbered: bool, classes: list[str], outputs: list[str] | None, what: str) -> Order:
    """As the caller says."""
    by_number = numbered and not set(labels) <= set(classes)
    odd = [v for v in labels if (int(v) >= len(classes) if by_number else v not in classes)]
    if odd or outputs is not None and len(classes) != len(outputs):
        raise TaskError(
            "these names of classes are not those of the data" if odd else "the model has another number of outputs",
            got=f"{len(classes)} names: {_few(classes)}" + (f"; {what} not among them: {_few(odd)}" if odd else ""),
            allowed=f"{what}: {_few(labels)}"
            + ("" if outputs is None else f"; a name for each of {len(outputs)} outputs"),
        )
    return Order(tuple(classes), {v: int(v) if by_number else classes.index(v) for v in labels})


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:12])[:200] + (", .." if len(names) > 12 else "")


def _by_name(labels: list[str], outputs: list[str]) -> dict[str, int] | None:
    """The output that has each label's name, whole or, of names with commas between them
    ("tench, Tinca tinca"), in part; None if some have none, or several."""
    whole: dict[str, list[int]] = {}
    part: dict[str, list[int]] = {}
    for i, name in enumerate(outputs):
        whole.setdefault(_plain(name), []).append(i)
        for piece in name.split(","):
            part.setdefault(_plain(piece), []).append(i)
    found = {v: whole.get(_plain(v)) or part.get(_plain(v)) or [] for v in labels}
    places = [i[0] for i in found.values() if len(i) == 1]
    return {v: i[0] for v, i in found.items()} if len(set(places)) == len(labels) else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def check_numbers(net: nn.Module, data: Split, rows: np.ndarray, placed: Order, what: str, of: str) -> tuple[str, ...]:
    """What is to be said of how a trained model's answers for these rows fit their targets ([n] or
    [n, places], those below 0 left out). what targets are, of what, in words. TaskError if another
    numbering of its outputs plainly fits, and this one does not."""
    import torch

    from ..tensors import as_tensor

    said, true = [], []
    net.eval()
    with torch.no_grad():
        for start in range(0, len(rows), 16):
            inputs, targets = data.batch(rows[start : start + 16])
            try:
                answers = net(*[as_tensor(v) for v in inputs.values()]).argmax(-1).numpy()
            except Exception as e:  # each model checks its inputs with its own code
                raise TaskError(
                    f"the model does not run on what its directory makes of {of}",
                    got=f"inputs {[list(v.shape) for v in inputs.values()]}: {e}"[:500],
                    fix="do its config.json and its tokenizer or image processor belong together?",
                ) from e
            said.append(answers[targets >= 0])
            true.append(targets[targets >= 0])
    found = numbering(np.concatenate(said), np.concatenate(true), len(placed.names))
    label = {i: v for v, i in placed.number.items()}
    fits = {place: label[of] for of, place in found.places.items()}
    if found.misfits:
        shown = ", ".join(f"{name!r} is output {i}" for i, name in sorted(fits.items())[:8])
        whole = len(fits) == len(placed.names)
        said_so = "classes=" + ",".join(fits[i] for i in sorted(fits)) if whole else "classes=.., their right order"
        raise TaskError(
            f"the model plainly numbers its classes otherwise than the {what}",
            got=f"as they are numbered {found.right:.0%} of {found.n:,} answers are right (a mean over classes), "
            f"{found.other:.0%} if {shown}{', ..' if len(fits) > 8 else ''}",
            allowed="a model whose outputs mean what the labels say",
            fix=f"{said_so}; or new_head=true for a head that is trained; check_labels=false leaves it as it is",
        )
    chance = 1 / max(len(label), 2)
    if found.right > _CHANCE * chance:
        return ()
    return (
        f"of {found.n:,} answers of the model {found.right:.0%} are right (a mean over classes), about what guessing "
        f"gives ({chance:.0%}), and no other numbering fits: is it trained for these {what}? (epochs=3 trains it)",
    )
