"""Trial analysis as plain data: what the holes explain, what is known beforehand is worth, and
which strategy earned what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FeatherweightError
from ..recipe import Candidate, decode
from ..space import Filling, Space
from .correlation import Correlation, correlations
from .credit import Arm, Decision, arms, decisions
from .figures import quantity
from .importance import MIN_TRIALS, Importance, importance
from .rows import Json


@dataclass(frozen=True)
class Finished:
    """A measured trial whose filling fits the space. values: by objective, the drop of the metric
    for `error`, else the multiple of the baseline's; only what was measured and is finite.
    entry: ENTRY of front.json."""

    number: int
    filling: Filling
    values: dict[str, float]
    entry: Json


@dataclass(frozen=True)
class Analysis:
    """objectives: what was minimised and `error`, the main one first; space: None if the recipe
    cannot be read, then `problem` says why;
    finished: () without a space."""

    objectives: tuple[str, ...]
    space: Space | None
    problem: str
    finished: tuple[Finished, ...]
    importances: tuple[Importance, ...]
    correlations: tuple[Correlation, ...]
    arms: tuple[Arm, ...]
    decisions: tuple[Decision, ...]

    @property
    def main(self) -> Importance | None:
        """Of the first objective whose trials the ensemble explains; None if it explains none."""
        return next((i for i in self.importances if i.shares), None)

    def to_json(self) -> Json:
        """{"problem", "trials", "importance": [..], "features": [..],
        "strategies": [..]}: for programs."""
        return {
            "problem": self.problem or None,
            "trials": len(self.finished),
            "importance": [dataclasses.asdict(i) for i in self.importances],
            "features": [dataclasses.asdict(c) for c in self.correlations],
            "strategies": [dataclasses.asdict(a) for a in self.arms],
        }


def analyse(front: Json, trials: Sequence[Json], config: Json) -> Analysis:
    """`front`, `trials` and `config` are those of `Study`. Never raises for what a study may hold:
    what cannot be told is left out."""
    names = list(config.get("minimize") or ["latency", "size"])
    names = [*names, *(["error"] if "error" not in names else [])]
    space, problem = _space(config)
    done = _finished(space, front, trials, names) if space is not None else []
    measured = sum(bool(t.get("entry")) for t in trials)
    if space is not None and measured and not done:
        space, problem = None, "the trials' settings do not fit the recipe of the study, so they cannot be analysed"
    seed = int(config.get("seed") or 0)
    found = [_importance(space, done, name, seed) for name in names] if space is not None else []
    return Analysis(
        tuple(names),
        space,
        problem,
        tuple(done),
        tuple(found),
        _correlations(front, trials, seed),
        arms(front, trials),
        decisions(trials),
    )


def _space(config: Json) -> tuple[Space | None, str]:
    """The space that was searched; or None and the reason."""
    try:
        return Space(Candidate(decode(config["recipe"]), decode((config.get("target") or {}).get("choice", "")))), ""
    except (FeatherweightError, KeyError, TypeError) as e:  # a study of another version
        return None, f"the recipe of this study cannot be read by this version ({(str(e).splitlines() or ['?'])[0]})"


def _finished(space: Space, front: Json, trials: Sequence[Json], names: Sequence[str]) -> list[Finished]:
    baseline = front.get("baseline")
    if baseline is None:
        return []
    out = []
    for t in trials:
        if not t.get("entry") or not _fits(space, t.get("filling") or {}):
            continue
        values = {name: quantity(t["entry"], baseline, name) for name in names}
        finite = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        out.append(Finished(int(t["number"]), t["filling"], finite, t["entry"]))
    return out


def _fits(space: Space, filling: Filling) -> bool:
    """Is it a filling of this space, hole for hole?"""
    try:
        return space.walk(lambda path, _: filling[path]).keys() == filling.keys()
    except (FeatherweightError, KeyError):
        return False


def target_of(name: str, value: float) -> float:
    """What the ensembles learn: a difference as it is, a ratio by its logarithm."""
    return value if name == "error" else math.log(value)


def _importance(space: Space, done: Sequence[Finished], name: str, seed: int) -> Importance:
    known = [f for f in done if name in f.values]
    return importance(space, [f.filling for f in known], [target_of(name, f.values[name]) for f in known], name, seed)


def _correlations(front: Json, trials: Sequence[Json], seed: int) -> tuple[Correlation, ...]:
    """Of the features of measured trials with their metric."""
    known = [t for t in trials if t.get("entry") and isinstance(t.get("features"), dict)]
    up = ((front.get("baseline") or {}).get("metric") or {}).get("higher_is_better", True)
    better = [float(t["entry"]["metric"]["value"]) * (1.0 if up else -1.0) for t in known]
    features: list[dict[str, Any]] = [
        {str(k): v for k, v in t["features"].items() if isinstance(v, (int, float))} for t in known
    ]
    return correlations(features, better, seed)


def why_not(analysis: Analysis) -> str:
    """Why no importance is shown, in a sentence; empty if some is."""
    if analysis.problem:
        return f"The holes were not analysed: {analysis.problem}."
    if analysis.space is not None and not analysis.space.holes:
        return "The recipe has no holes, so there is nothing to explain."
    if len(analysis.finished) < MIN_TRIALS:
        return (
            f"{len(analysis.finished)} trials were measured; the importance of the holes needs at least {MIN_TRIALS}."
        )
    if analysis.main is None:
        return "The holes explain nothing that would hold for trials not seen, so no importance is claimed."
    return ""
