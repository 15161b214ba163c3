"""What each strategy of the adaptive portfolio was given, and what it brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Json


@dataclass(frozen=True)
class Arm:
    """One strategy of the portfolio. trials: proposed by it; measured: of these; feasible:
    of those; front: members of the front that it found; front_share: of all that the search found;
    seconds: that its trials took."""

    name: str
    trials: int
    measured: int
    feasible: int
    front: int
    front_share: float
    seconds: float


@dataclass(frozen=True)
class Decision:
    """Why a trial went to `arm`: the portfolio's probabilities and credits then, by arm
    ({} where the note has none).

    Read from the note of `strategies.adaptive`: {"arm", "why": {"p": {arm: probability},
    "credit": {arm: credit}, ..}, "note"}.
    """

    number: int
    arm: str
    probabilities: dict[str, float]
    credits: dict[str, float]


def arm_of(trial: Json) -> str | None:
    """The strategy that proposed a trial; None if its study had no portfolio."""
    note = trial.get("strategy_note")
    arm = note.get("arm") if isinstance(note, Mapping) else None
    return arm if isinstance(arm, str) and arm else None


def decisions(trials: Sequence[Json]) -> tuple[Decision, ...]:
    """Of every trial whose note names its arm, in order of number."""
    out = []
    for t in sorted(trials, key=lambda t: int(t["number"])):
        arm = arm_of(t)
        if arm is not None:
            why = t["strategy_note"].get("why")
            why = why if isinstance(why, Mapping) else {}
            out.append(Decision(int(t["number"]), arm, _numbers(why.get("p")), _numbers(why.get("credit"))))
    return tuple(out)


def _numbers(found: Any) -> dict[str, float]:
    """The finite numbers of a note's table; everything else in it is left out."""
    if not isinstance(found, Mapping):
        return {}
    return {
        str(k): float(v)
        for k, v in found.items()
        if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < float("inf")
    }


def arms(front: Json, trials: Sequence[Json]) -> tuple[Arm, ...]:
    """Of the strategies that got trials, those that found most of the front first;
    () if the notes name none."""
    on_front = {e["trial"] for e in front.get("front") or [] if e.get("trial") is not None}
    by_arm: dict[str, list[Json]] = {}
    for t in trials:
        arm = arm_of(t)
        if arm is not None:
            by_arm.setdefault(arm, []).append(t)
    out = []
    for name, mine in by_arm.items():
        entries = [t["entry"] for t in mine if t.get("entry")]
        found = sum(t["number"] in on_front for t in mine)
        feasible = sum(bool(e.get("feasible")) for e in entries)
        seconds = sum(float(t.get("seconds") or 0.0) for t in mine)
        out.append(Arm(name, len(mine), len(entries), feasible, found, found / max(len(on_front), 1), seconds))
    return tuple(sorted(out, key=lambda a: (-a.front, -a.trials, a.name)))
