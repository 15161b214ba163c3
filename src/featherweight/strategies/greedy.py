"""Greedy search: coordinate-wise hill climbing with restarts, over any space and any number of objectives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import InputError
from ..records import History, Trial
from ..space import Filling, Space
from ..space.domains import Float
from ..space.space import key
from ._vary import centre, middle, mutated
from .base import Proposal, Strategy, unseen_sample

if TYPE_CHECKING:
    import numpy as np

Weights = Sequence[float] | None  # None: all objectives alike
PENALTY, GROWTH = 0.5, 1.05  # of violation, against the mean log of the objectives; a trial of the climb makes it dearer


@dataclass(frozen=True)
class Greedy(Strategy):
    """Changes one hole at a time, keeps what is better, and starts anew where nothing near is better.

    A climb minimises the weighted mean of log(objective) (objectives are ratios to the baseline) plus a penalty times
    the violation that grows with every trial of the climb: at first it may cross what breaks a constraint a little, in
    the end what holds them all comes before what does not. (With feasible strictly before infeasible a climb never
    dares a step such as quantization that breaks a floor by a hair and could be made good by the next.) The first climb
    starts in the middle of the space and weighs all objectives alike. Later ones draw their weights from the unit
    simplex, so that the climbs spread along the front, and go on from the trial that is best for these weights, feasible
    before infeasible; where all of its neighbours are known, from a copy of it with a few holes drawn anew (iterated
    local search; Lourenco, Martin and Stuetzle, "Iterated local search", 2003).

    Holes take turns, from the last of the recipe to the first: candidates that differ only in late steps share their
    stored beginnings and are cheap. A hole that has just brought something stays on, in the same direction. A change
    that brings holes to life takes their values from the best trial that had them, else their middles.

    restart: the share of later climbs that start from a random filling; patience: fruitless changes that end a climb
    (what it left untried is tried first by the next climb from there).
    """

    restart: float = 0.3
    patience: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.restart <= 1 or self.patience < 1:
            raise InputError(
                "greedy needs a restart share in [0, 1] and a patience of at least 1", got=f"restart={self.restart}, patience={self.patience}"
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes hold the climb, its weights and the change that was made, so a climb goes on after a restart."""
        index = _index(space, history)
        batch: list[Proposal] = []
        for _ in range(n):
            view = _View(space, history, index, batch)
            proposal = view.next_move(rng, self.patience) or view.next_start(rng, self.restart)
            if proposal is None:
                break
            batch.append(proposal)
        return batch


class _Index:
    """What is derived from a history, kept up to date: each trial is read when it appears and when it has finished."""

    def __init__(self, space: Space) -> None:
        import numpy as np

        self.space, self.read = space, 0
        self.running: list[int] = []
        self.seen: set[str] = set()  # rough keys of all fillings
        self.climbs: dict[int, list[int]] = {}  # climb -> numbers of its trials
        self.having: dict[tuple[str, str], list[int]] = {}  # (hole, value that brings others to life) -> numbers
        self.objectives = 0  # 0: no trial has finished
        self.ranks = np.empty((0, 1))  # row = trial: violation, log of each objective; infinite if it has no values

    def update(self, history: History) -> None:
        for number in range(self.read, len(history)):
            trial = history[number]
            self.seen.add(_rough(self.space, trial.filling))
            if "climb" in trial.note:
                self.climbs.setdefault(int(trial.note["climb"]), []).append(number)
            for path, value in trial.filling.items():
                if self.space[path].domain.branches(value, path):
                    self.having.setdefault((path, repr(value)), []).append(number)
            self.running.append(number)
        self.read = len(history)
        finished = [i for i in self.running if history[i].state != "running"]
        self.running = [i for i in self.running if history[i].state == "running"]
        for number in finished:
            self._rank(history[number])

    def _rank(self, trial: Trial) -> None:
        import numpy as np

        if trial.state != "complete" or not trial.values or not all(map(math.isfinite, (*trial.values, trial.violation))):
            return
        self.objectives = self.objectives or len(trial.values)
        if len(trial.values) != self.objectives:
            raise InputError(f"trial {trial.number} has another number of objectives than the first", got=len(trial.values), allowed=self.objectives)
        if len(self.ranks) <= trial.number:
            grown = np.full((2 * (trial.number + 8), 1 + self.objectives), math.inf)
            grown[: len(self.ranks), : self.ranks.shape[1]] = self.ranks
            self.ranks = grown
        self.ranks[trial.number] = [trial.violation, *(math.log(max(v, 1e-12)) for v in trial.values)]

    def best(self, numbers: Sequence[int] | None, weights: Weights, penalty: float = math.inf) -> int | None:
        """The trial (of `numbers`, None for all) with the least weighted mean + penalty * violation; the earliest of equals."""
        import numpy as np

        if not self.objectives:
            return None
        which = np.arange(len(self.ranks)) if numbers is None else np.array([i for i in numbers if i < len(self.ranks)], dtype=int)
        rows = self.ranks[which]
        least = rows[:, 0].min(initial=math.inf)
        if least == math.inf:
            return None
        if penalty == math.inf:
            which = which[rows[:, 0] == least]
            penalty = 0.0
        else:
            which = which[rows[:, 0] < math.inf]
        equal = [1.0 / self.objectives] * self.objectives
        means = self.ranks[which, 1:] @ np.asarray(weights if weights is not None and len(weights) == self.objectives else equal)
        return int(which[np.argmin(means + penalty * self.ranks[which, 0])])


_INDICES: WeakKeyDictionary[History, _Index] = WeakKeyDictionary()


def _index(space: Space, history: History) -> _Index:
    index = _INDICES.get(history)
    if index is None or index.space is not space:
        index = _INDICES[history] = _Index(space)
    index.update(history)
    return index


class _View:
    """The history together with what this call has proposed already."""

    def __init__(self, space: Space, history: History, index: _Index, batch: list[Proposal]) -> None:
        self.space, self.history, self.index, self.batch = space, history, index, batch
        self.climb = max([-1, *index.climbs, *(p.note["climb"] for p in batch)])
        self.members = index.climbs.get(self.climb, [])
        self.mine = [p for p in batch if p.note["climb"] == self.climb]
        self.notes = [history[i].note for i in self.members] + [p.note for p in self.mine]
        self.weights: Weights = self.notes[0].get("weights") if self.notes else None
        self.batch_seen = {_rough(space, p.filling) for p in batch}

    def new(self, filling: Filling) -> bool:
        rough = _rough(self.space, filling)
        return rough not in self.index.seen and rough not in self.batch_seen

    def incumbent(self) -> tuple[Filling, dict[str, Any], int | None] | None:
        """Where the climb stands: filling, note and number. While its start still runs, that is the start."""
        origin = self.notes[0].get("origin") if self.notes else None
        best = self.index.best([*([] if origin is None else [origin]), *self.members], self.weights, PENALTY * GROWTH ** min(len(self.members), 100))
        if best is None:
            best = next((i for i in self.members if self.history[i].state == "running"), None)
        if best is not None:
            trial = self.history[best]
            return trial.filling, trial.note if trial.note.get("climb") == self.climb else {}, trial.number
        return (self.mine[0].filling, self.mine[0].note, None) if self.mine else None

    def next_move(self, rng: np.random.Generator, patience: int) -> Proposal | None:
        """The next untried change of the incumbent; None if there is none or `patience` are tried."""
        stand = self.incumbent()
        if stand is None or sum("hole" in n and n.get("from") == stand[2] for n in self.notes) >= patience:
            return None
        return self.move(*stand, rng=rng, start={"climb": self.climb, "weights": self.weights})

    def move(self, filling: Filling, note: dict[str, Any], number: int | None, *, rng: np.random.Generator, start: dict[str, Any]) -> Proposal | None:
        tried = {(n.get("hole"), repr(n.get("to"))) for n in self.notes if n.get("from") == number}
        for hole, value in self.changes(filling, note):
            if (hole, repr(value)) in tried:
                continue
            changed = self.changed(filling, hole, value, start["weights"], rng)
            if self.new(changed):
                return Proposal(changed, {**start, "from": number, "hole": hole, "to": value})
        return None

    def changes(self, filling: Filling, note: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """(hole, new value): the hole that was changed last, in the same direction first; then on to earlier holes, around."""
        last = note.get("hole")
        order = [h.path for h in reversed(self.space.holes) if h.path in filling]
        turn = order.index(last) if last in filling else 0
        for path in order[turn:] + order[:turn]:
            near = self.space[path].domain.near(filling[path])
            came_from = self.history[note["from"]].filling.get(path) if path == last and note.get("from") is not None else None
            here = filling[path]
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (came_from, here, *near)):
                near.sort(key=lambda v: (v > here) != (here > came_from))  # noqa: B023 (used at once; sort is stable)
            for value in near:
                yield path, value

    def changed(self, filling: Filling, hole: str, value: Any, weights: Weights, rng: np.random.Generator) -> Filling:
        domain = self.space[hole].domain
        if not domain.branches(value, hole) and not domain.branches(filling[hole], hole):
            return {**filling, hole: value}
        best = self.index.best(self.index.having.get((hole, repr(value)), []), weights)
        donor = {} if best is None else self.history[best].filling
        middles = {h.path: middle(h.domain) for h in self.space.holes}
        return self.space.complete({**middles, **donor, **filling, hole: value}, rng)

    def next_start(self, rng: np.random.Generator, restart: float) -> Proposal | None:
        """The first proposal of a new climb; None if every filling is known."""
        start: dict[str, Any] = {"climb": self.climb + 1, "weights": None}
        if self.climb < 0:
            filling = centre(self.space)
            if self.new(filling):
                return Proposal(filling, start)
        elif self.index.objectives > 1:
            start["weights"] = [round(float(w), 6) for w in rng.dirichlet([1.0] * self.index.objectives)]
        best = None if rng.random() < restart else self.index.best(None, start["weights"])
        if best is not None:
            parent = self.history[best]
            onward = self.move(parent.filling, {}, parent.number, rng=rng, start={**start, "origin": parent.number})
            if onward is not None:
                return onward
            for _ in range(20):
                filling = mutated(self.space, parent.filling, rng)
                if self.new(filling):
                    return Proposal(filling, {**start, "from": parent.number})
        drawn = unseen_sample(self.space, self.history, rng, {key(p.filling) for p in self.batch})
        return None if drawn is None else Proposal(drawn, start)


def _rough(space: Space, filling: Filling) -> str:
    """Key of a filling that takes continuous values within a thousandth of their range for equal: a step up and a step
    down again gives 0.30000000000000004, which is no news."""
    out: Filling = {}
    for path, value in filling.items():
        domain = space[path].domain
        fine = isinstance(domain, Float) and domain.step is None
        out[path] = round(domain.position(value), 3) + 0.0 if fine else value  # type: ignore[attr-defined]
    return key(out)
