"""What is searched, and how a search is scored: a space, the outcome of a filling,
and one curve that falls to 0.

One objective: the score after n evaluations is the least error so far, less the table's optimum
("simple regret"; where the optimum is not known, the least error itself). Two objectives:
1 - hypervolume / hypervolume of the true front, in the unit square that has the table's least
values in one corner and the reference point (1.0 in each normalised objective) in the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tables
from tasks import TASKS, task_space

from featherweight.pareto import front, hypervolume
from featherweight.space import Filling, Space

LEAST = 1e-6  # of the reference: a ratio is at least this, because strategies take logarithms
Outcome = Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """space(informed): with static features where they are known; outcome: of a filling, with
    `error`, `cost_s` and the other objectives.

    reference: the outcome of the filling that stands in the middle; what a strategy is told is the
    ratio to it. best: the least error, None if unknown. corner: (least, reference point) of each
    objective, and the hypervolume of the true front, if there are two.
    """

    name: str
    space: Callable[[bool], Space]
    outcome: Callable[[Filling], Outcome]
    reference: Outcome
    objectives: tuple[str, ...] = ("error",)
    best: float | None = None
    corner: tuple[tuple[float, float], ...] = ()
    volume: float = 1.0

    def values(self, outcome: Outcome) -> tuple[float, ...]:
        """The objectives as ratios to the reference's (1.0 = as the reference)."""
        return tuple(max(outcome[o] / self.reference[o], LEAST) for o in self.objectives)

    def curve(self, outcomes: Sequence[Outcome]) -> list[float]:
        """The score after each evaluation; it never rises."""
        if len(self.objectives) == 1:
            return [e - (self.best or 0.0) for e in itertools.accumulate((o["error"] for o in outcomes), min)]
        scores: list[float] = []
        known: list[tuple[float, ...]] = []
        for o in outcomes:
            point = _unit(o, self.objectives, self.corner)
            grown = [*known, point]
            kept = [grown[i] for i in front(grown)]
            if kept != known or not scores:
                known = kept
                scores.append(1.0 - hypervolume(known, (1.0,) * len(self.objectives)) / self.volume)
            else:
                scores.append(scores[-1])
        return scores


def _unit(outcome: Outcome, objectives: Sequence[str], corner: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple((outcome[o] - low) / (high - low) for o, (low, high) in zip(objectives, corner, strict=True))


def from_table(name: str) -> Problem:
    table = tables.load(name)
    middle = {k: v[len(v) // 2] for k, v in table.options.items()}
    return Problem(name, table.space, table.outcome, table.outcome(middle), best=table.best)


def two_objectives(name: str) -> Problem:
    """Error and latency of NAS-Bench-201. The reference point:
    twice the least error, and the largest latency."""
    table = tables.load(name)
    every = [
        table.outcome(dict(zip(table.options, v, strict=True))) for v in itertools.product(*table.options.values())
    ]
    objectives = ("error", "latency")
    least = {o: min(e[o] for e in every) for o in objectives}
    corner = ((least["error"], 2 * least["error"]), (least["latency"], max(e["latency"] for e in every)))
    points = [_unit(e, objectives, corner) for e in every]
    volume = hypervolume(points, (1.0, 1.0))
    middle = table.outcome({k: v[len(v) // 2] for k, v in table.options.items()})
    return Problem(
        name.replace("nas201", "nas201-multi"), table.space, table.outcome, middle, objectives, None, corner, volume
    )


def from_task(name: str) -> Problem:
    """A scikit-learn task, trained for real: the optimum is not known."""
    task = TASKS[name.partition("/")[2]]
    return Problem(name, lambda informed: task_space(), task.outcome, {"error": task.reference_error, "cost_s": 1.0})


GROUPS: dict[str, tuple[str, ...]] = {
    "nas201": tuple(f"nas201/{d}" for d in tables.NAS201),
    "hpolib": tuple(f"hpolib/{d}" for d in tables.HPOLIB),
    "hpobench": tuple(f"hpobench/{d}" for d in tables.HPOBENCH),
    "sklearn": tuple(f"sklearn/{d}" for d in TASKS),
    "nas201-multi": tuple(f"nas201-multi/{d}" for d in tables.NAS201),
}


def load(name: str) -> Problem:
    """`nas201/cifar10`, `hpolib/...`, `hpobench/...`, `sklearn/digits`, `nas201-multi/cifar10`."""
    group = name.partition("/")[0]
    if group not in GROUPS or name not in GROUPS[group]:
        raise SystemExit(f"there is no search {name!r}: {', '.join(n for names in GROUPS.values() for n in names)}")
    if group == "sklearn":
        return from_task(name)
    return two_objectives(name.replace("nas201-multi", "nas201")) if group == "nas201-multi" else from_table(name)
