"""A knob of a transform: a field whose values are ordered from mild to strong,
and ways up through them.

Notation: a *setting* is a value of the knob; k steps; r_i the share removed in all after step i,
q_i the share of what is left that step i removes: 1 - r_i = (1 - r_{i-1}) (1 - q_i).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ...errors import RecipeError
from ...recipe import Made, Recipe, Transform
from ...space import Domain
from ...space.node import labels


def bisect(holds: Callable[[Any], bool], low: Any, high: Any, tries: int, whole: bool) -> Any:
    """The largest setting in [low, high] found to hold, or None: `high` first, then halving, and
    `low` only if nothing else held.

    `holds` is asked at most `tries` (at least 2) times, and taken to be true below what holds and
    false above what does not, so the answer is within (high - low) / 2^(tries - 2) of the largest
    one. whole: settings are whole numbers.
    """
    if holds(high):
        return high
    best, bottom, top = None, low, high
    for _ in range(tries - 2):
        middle = (bottom + top) // 2 if whole else (bottom + top) / 2
        if middle in (bottom, top):
            break
        if holds(middle):
            best = bottom = middle
        else:
            top = middle
    return low if best is None and low < high and holds(low) else best


def rungs(low: Any, high: Any, steps: int, compose: str, whole: bool) -> list[tuple[Any, Any]]:
    """(what is reached in all, the setting that reaches it from the rung before) for each step;
    `low` is a rung of its own above 0.

    compose "left": each step takes the same share of what is left, r_i = 1 - (1 - low)
    ((1 - high) / (1 - low))^(i / k); "sum": equal steps that add up; "whole": equal steps, each
    setting the total. Steps that add nothing are left out.
    """
    out: list[tuple[Any, Any]] = []
    before: Any = 0
    for i in range(steps + 1):
        if i == steps:
            total = high
        elif compose == "left":
            total = 1 - (1 - low) * ((1 - high) / (1 - low)) ** (i / steps)
        else:
            total = low + (high - low) * i / steps
        total = round(total) if whole else float(total)
        if total <= before:
            continue
        setting = 1 - (1 - total) / (1 - before) if compose == "left" else total - before if compose == "sum" else total
        out.append((total, setting))
        before = total
    return out


@dataclass(frozen=True)
class Knob:
    """A field of one step, and the settings that it may take (positions in `values`,
    if there are any)."""

    steps: tuple[Transform, ...]
    index: int
    name: str
    values: tuple[Any, ...]
    low: Any
    high: Any
    whole: bool
    compose: str

    @classmethod
    def of(cls, gate: Any) -> Knob:
        """The knob that a filled `Gate` names. RecipeError if there is no such field,
        or no such range."""
        steps = steps_of(gate.transform, "transform")
        index, name = _place(steps, gate.knob)
        now = getattr(steps[index], name)
        if gate.values:
            values = gate.values if isinstance(gate.values, tuple) else (gate.values,)
            knob = cls(steps, index, name, values, 0, len(values) - 1, True, "whole")
        else:
            whole = isinstance(now, int)
            high = now if gate.high is None else gate.high
            if isinstance(now, bool) or isinstance(high, bool) or not isinstance(high, (int, float)):
                raise RecipeError(
                    f"{gate.knob} is no number", got=repr(high), fix="give values=(mild, .., strong), or high"
                )
            if gate.low > high or (whole and not (float(high).is_integer() and gate.low.is_integer())):
                raise RecipeError(
                    f"{gate.knob} has no such range",
                    got=f"{gate.low} to {high}",
                    allowed=f"low <= high{', whole numbers' * whole}",
                )
            # zeroed weights are counted in all, cut channels are gone
            share = "whole" if Made.ZERO_WEIGHTS in steps[index].makes else "left"
            auto = "sum" if whole else share
            number = int if whole else float
            knob = cls(
                steps,
                index,
                name,
                (),
                number(gate.low),
                number(high),
                whole,
                auto if gate.compose == "auto" else gate.compose,
            )
        for position in (knob.low, knob.high):
            # a setting that is not legal is refused before anything runs
            knob.at(knob.setting(position))
        return knob

    def setting(self, position: Any) -> Any:
        return self.values[position] if self.values else position

    def at(self, setting: Any) -> tuple[Transform, ...]:
        """The steps with the knob at a setting."""
        turned = replace(self.steps[self.index], **{self.name: setting})  # type: ignore[type-var]
        return (*self.steps[: self.index], turned, *self.steps[self.index + 1 :])


def steps_of(value: Any, what: str) -> tuple[Transform, ...]:
    """The transforms that a field holds: none, one, or those of a recipe (none yet
    where a hole stands)."""
    if value is None or isinstance(value, Domain):
        return ()
    if isinstance(value, Recipe):
        return tuple(value.steps)
    if isinstance(value, Transform):
        return (value,)
    raise RecipeError(f"a gate's {what} is no step", got=repr(value), allowed="a transform or a recipe")


def _place(steps: tuple[Transform, ...], knob: str) -> tuple[int, str]:
    """(index of the step, name of the field) that a knob's path names."""
    head, _, name = knob.rpartition(".")
    have = [
        (label, i)
        for i, (label, s) in enumerate(zip(labels(steps), steps, strict=True))
        if name in {f.name for f in fields(s)}  # type: ignore[arg-type]
    ]
    found = [i for label, i in have if head in ("", label)]
    if len(found) != 1:
        allowed = [f"{label}.{f.name}" for label, s in zip(labels(steps), steps, strict=True) for f in fields(s)]  # type: ignore[arg-type]
        raise RecipeError(
            f"{knob!r} names {'several' if found else 'no'} field of the gate's transform",
            got=knob,
            allowed=", ".join(allowed),
        )
    return found[0], name
