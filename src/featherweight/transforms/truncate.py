"""Truncate: the model reads less of each sequence. What is deployed takes the tokens, or the
series, that the original takes, and leaves the rest out itself, first of all.

Of tokens the first part stays: attention has a quarter of its work at half the length, all else
half. A series may be made coarser instead, by the means of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Float, param
from .base import MANY, Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package

Edit = dict[str, Any]


@dataclass(frozen=True)
class Truncate(Transform):
    """Shorten tokens, int64 [n, T] (ids and what goes with them: all such inputs, which have to be
    of one length), or, where there are none, one series of numbers: [n, T], [n, C, T] or [n, T, C],
    whichever axis the model takes less of."""

    says = "Read less of each sequence"
    tried = True

    length: float = param(
        0.5,
        search=Choice(1.0, 0.75, 0.5, 0.25),
        legal=Float(1e-6, 1.0),
        doc="new length, as a share of the length that the model is given",
    )
    how: str = param(
        "head",
        legal=Choice("head", "pool"),
        doc="the first part stays (head), or each is the mean of as many neighbours (pool: series only)",
    )

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the integer grids were chosen for sequences of another length"}

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS

    @property
    def idle(self) -> bool:
        return self.length == 1.0

    def apply(self, model: Package, context: Context) -> Package:
        from ..models.entry import changed

        if self.idle:
            return model.noted(step="truncate", sequences={})
        samples = {name: v.cpu() for name, v in context.calibration(MANY).items()}
        names, rows = list(samples), tuple(samples.values())
        now = changed(model.module, rows)
        tokens = _tokens(names, now)
        few = tuple(v[:2] for v in rows)
        if tokens:
            if self.how == "pool":
                raise InputError("tokens have no mean", got="how='pool'", allowed="how='head' for tokens")
            _padded_at_the_end(names, now, tokens)
            edits = [e for i in tokens for e in self._edits(i, names[i], 1, now[i].shape[1])]
        else:
            i, axis = self._time(model, names, now, few)
            edits = self._edits(i, names[i], axis, now[i].shape[axis])
        module, why = _tried(model, edits, few)
        if why is not None:
            raise InputError(
                "this model takes no shorter sequences",
                got=f"length={self.length}; {why}",
                fix="leave truncate out of the recipe",
            )
        note = {e["name"]: {k: v for k, v in e.items() if k in ("axis", "length", "stride")} for e in edits}
        return model.edited(module=module).restructured(*edits).noted(step="truncate", sequences=note)

    def _edits(self, i: int, name: str, axis: int, length: int) -> list[Edit]:
        """The change of one input, as data; none if all of it stays. InputError if it cannot be."""
        where: Edit = {"input": i, "name": name, "axis": axis}
        if self.how == "head":
            kept = max(1, round(length * self.length))
            return [{"edit": "cut_input", **where, "length": kept}] if kept < length else []
        stride = round(1 / self.length)
        if abs(stride * self.length - 1) > 1e-3 or stride > length:
            raise InputError(
                "means are of a whole number of neighbours",
                got=f"length={self.length} of {length}",
                allowed=f"one of 1/2, 1/3, .., 1/{length}; near it is {1 / max(1, min(stride, length)):.4g}",
            )
        return [{"edit": "pool_input", **where, "stride": stride}]

    def _time(
        self, model: Package, names: list[str], now: tuple[Tensor, ...], few: tuple[Tensor, ...]
    ) -> tuple[int, int]:
        """(the input that is a series, which of its axes is time): the one that the model takes
        less of. InputError if that is not clear."""
        from .shared.entrance import described

        told = {"got": described(names, now), "fix": "leave truncate out of the recipe"}
        found = [i for i, x in enumerate(now) if x.is_floating_point()]
        if len(found) != 1 or now[found[0]].ndim not in (2, 3):
            raise InputError(
                "truncate does not know which input is a sequence",
                allowed="tokens, int64 [n, T], or one floating-point series [n, T], [n, C, T] or [n, T, C]",
                **told,
            )
        i, whys = found[0], {}
        for axis, length in list(enumerate(now[i].shape))[1:]:
            if length > 1:
                least = max(1, min(length - 1, round(length * self.length)))
                cut = {"edit": "cut_input", "input": i, "name": names[i], "axis": axis, "length": least}
                whys[axis] = _tried(model, [cut], few)[1]
        able = [axis for axis, why in whys.items() if why is None]
        if len(able) > 1:
            raise InputError("truncate does not know which axis is time: the model takes less of either", **told)
        if not able:
            raise InputError(
                "this model takes no shorter sequences" if whys else "there is nothing to shorten",
                got="; ".join([told["got"], *(f"less of axis {axis}: {why}" for axis, why in whys.items())]),
                fix=told["fix"],
            )
        return i, able[0]


def _tokens(names: list[str], inputs: tuple[Tensor, ...]) -> list[int]:
    """Which inputs are tokens and what goes with them. InputError if their lengths differ."""
    from .shared.entrance import described

    found = [i for i, x in enumerate(inputs) if not x.is_floating_point() and x.ndim == 2]
    if len({inputs[i].shape[1] for i in found}) > 1:
        raise InputError(
            "truncate does not know which inputs are tokens: they are of several lengths",
            got=described(names, inputs),
            allowed="int64 inputs [n, T] of one length",
            fix="leave truncate out of the recipe",
        )
    return found


def _padded_at_the_end(names: list[str], inputs: tuple[Tensor, ...], tokens: list[int]) -> None:
    """InputError if short texts are filled up at their beginning, as a mask or the ids show: then
    the first part is what holds nothing."""
    flags = [i for i in tokens if bool(((inputs[i] == 0) | (inputs[i] == 1)).all())]
    ids = [i for i in tokens if i not in flags]
    for i in flags:
        late = (inputs[i][:, 0] == 0) & (inputs[i][:, -1] == 1)
        before = (inputs[i].cumsum(1) == 0) & late[:, None]  # [n, T], what stands before the first 1
        # sentence A of a pair is no padding: its tokens differ
        alike = all(int(inputs[k][before].min()) == int(inputs[k][before].max()) for k in ids) if late.any() else False
        if bool(late.any()) and (alike or "mask" in names[i].lower()):
            raise _padding(f"{names[i]} begins with 0 and ends with 1")
    for i in ids:
        if (token := _leading(inputs[i])) is not None:
            raise _padding(f"{names[i]} begins with the token {token}, over and over")


def _leading(ids: Tensor) -> int | None:  # ids: [n, T]
    """The token that stands only at the beginning of rows, and there several times: padding."""
    if ids.shape[1] < 2:
        return None
    for token in sorted(set(ids[ids[:, 0] == ids[:, 1]][:, 0].tolist())):
        there = ids == token
        first = there.cumprod(1).bool()  # of each row, what it begins with
        if bool((there == first).all()) and not bool(there.all(1).any()):
            return int(token)
    return None


def _padding(got: str) -> InputError:
    return InputError(
        "the first part of these texts is padding",
        got=got,
        allowed="texts that are filled up at their end",
        fix="tokenize with padding_side='right', or leave truncate out of the recipe",
    )


def _tried(model: Package, edits: list[Edit], few: tuple[Tensor, ...]) -> tuple[nn.Module, str | None]:
    """(a module with these edits, why it does not run)."""
    from ..models.surgery import edit
    from .shared.entrance import problem

    module = model.copied().eval()
    for one in edits:
        edit(module, one)
    return module, problem(model.module, module, few)
