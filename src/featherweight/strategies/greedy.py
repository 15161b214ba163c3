"""Greedy search: coordinate-wise hill climbing with restarts,
over any space and any number of objectives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..digest import Digest
from ..errors import InputError
from ..records import History, Trial
from ..space import Filling, Space
from ..space.domains import Choice, Float
from ..space.space import key
from ..space.vary import centre, middle, mutated
from .base import Fresh, Proposal, Strategy

Weights = Sequence[float] | None  # None: all objectives alike
# of violation, against the mean log of the objectives; a trial of the climb makes it dearer
PENALTY, GROWTH = 0.5, 1.05


@dataclass(frozen=True)
class Greedy(Strategy):
    """Changes one hole at a time, keeps what is better, and starts anew where
    nothing near is better.

    A climb minimises the weighted mean of log(objective) (objectives are ratios to the baseline)
    plus a penalty times the violation that grows with every trial of the climb: at first it may
    cross what breaks a constraint a little, in the end what holds them all comes before what does
    not. (With feasible strictly before infeasible a climb never dares a step such as quantization
    that breaks a floor by a hair and could be made good by the next.) The first climb starts in the
    middle of the space and weighs all objectives alike. Later ones draw their weights from the unit
    simplex, so that the climbs spread along the front, and go on from the trial that is best for
    these weights, feasible before infeasible; where all of its neighbours are known, from a copy of
    it with a few holes drawn anew (iterated local search; Lourenco, Martin and Stuetzle,
    "Iterated local search", 2003).

    Holes take turns, from the last of the recipe to the first: candidates that differ only in late
    steps share their stored beginnings and are cheap. A hole that has just brought something stays
    on, in the same direction. A change that brings holes to life takes their values from the best
    trial that had them, else their middles.

    restart: the share of later climbs that start from a random filling. patience: changes of a
    trial that end a climb where they bring nothing (what it left untried is tried first by the next
    climb from there); None: 8, with one objective, where all climbs want the same, 16.
    beam: the best trials of a climb, of which the one that was changed least is changed next (beam
    search; Lowerre, "The HARPY speech recognition system", 1976); 1: hill climbing. starts: in an
    empty history the first climb goes on from the best of the middle and `starts` - 1 random
    fillings, because the middle of names is no better than any.
    """

    restart: float = 0.3
    patience: int | None = None
    beam: int = 1
    starts: int = 4

    def __post_init__(self) -> None:
        if (
            not 0 <= self.restart <= 1
            or (self.patience is not None and self.patience < 1)
            or self.beam < 1
            or self.starts < 1
        ):
            raise InputError(
                "greedy needs a restart share in [0, 1], and patience, beam and starts of at least 1",
                got=f"restart={self.restart}, patience={self.patience}, beam={self.beam}, starts={self.starts}",
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes hold the climb, its weights and the change that was made,
        so a climb goes on after a restart."""
        index = _Index.of(history, space=space)
        patience = self.patience or (16 if index.objectives == 1 else 8)
        batch: list[Proposal] = []
        for _ in range(n):
            view = _View(space, history, index, batch)
            proposal = (
                view.other_start(rng, self.starts)
                or view.next_move(rng, patience, self.beam)
                or view.next_start(rng, self.restart)
            )
            if proposal is None:
                break
            batch.append(proposal)
        return batch


class _Index(Digest):
    """What a climb looks up in a history."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        self.seen: set[str] = set()  # rough keys of all fillings
        self.climbs: dict[int, list[int]] = {}  # climb -> numbers of its trials
        # (hole, value that brings others to life) -> numbers
        self.having: dict[tuple[str, str], list[int]] = {}
        self.objectives = 0  # 0: no trial has finished
        # row = trial: violation, log of each objective; infinite if it has no values
        self.ranks = np.empty((0, 1))

    def begun(self, trial: Trial) -> None:
        self.seen.add(_rough(self.space, trial.filling))
        if "climb" in trial.note:
            self.climbs.setdefault(int(trial.note["climb"]), []).append(trial.number)
        for path, value in trial.filling.items():
            if self.space[path].domain.branches(value, path):
                self.having.setdefault((path, repr(value)), []).append(trial.number)

    def told(self, trial: Trial) -> None:
        if not trial.usable:
            return
        self.objectives = trial.objectives(self.objectives)
        if len(self.ranks) <= trial.number:
            grown = np.full((2 * (trial.number + 8), 1 + self.objectives), math.inf)
            grown[: len(self.ranks), : self.ranks.shape[1]] = self.ranks
            self.ranks = grown
        self.ranks[trial.number] = [trial.violation, *(math.log(max(v, 1e-12)) for v in trial.values or ())]

    def best(
        self, numbers: Sequence[int] | None, weights: Weights, penalty: float = math.inf, most: int = 1
    ) -> list[int]:
        """Up to `most` trials (of `numbers`, None for all) of least weighted
        mean + penalty * violation; of equals the earliest first."""
        if not self.objectives:
            return []
        which = (
            np.arange(len(self.ranks))
            if numbers is None
            else np.array([i for i in numbers if i < len(self.ranks)], dtype=int)
        )
        rows = self.ranks[which]
        least = rows[:, 0].min(initial=math.inf)
        if least == math.inf:
            return []
        if penalty == math.inf:
            which = which[rows[:, 0] == least]
            penalty = 0.0
        else:
            which = which[rows[:, 0] < math.inf]
        equal = [1.0 / self.objectives] * self.objectives
        means = self.ranks[which, 1:] @ np.asarray(
            weights if weights is not None and len(weights) == self.objectives else equal
        )
        scores = means + penalty * self.ranks[which, 0]
        order = [np.argmin(scores)] if most == 1 else np.argsort(scores, kind="stable")[:most]
        return [int(which[i]) for i in order]


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
        self.fresh = Fresh(space, history)
        self.fresh.taken |= {key(p.filling) for p in batch}

    def new(self, filling: Filling) -> bool:
        rough = _rough(self.space, filling)
        return rough not in self.index.seen and rough not in self.batch_seen and filling in self.fresh

    def incumbents(self, beam: int) -> list[tuple[Filling, dict[str, Any], int | None]]:
        """Where the climb stands, the best first: filling, note and number. While its start still
        runs, that is the start."""
        origin = self.notes[0].get("origin") if self.notes else None
        numbers = [*([] if origin is None else [origin]), *self.members]
        best = self.index.best(numbers, self.weights, PENALTY * GROWTH ** min(len(self.members), 100), beam)
        best = best or [i for i in self.members if self.history[i].state == "running"][:1]
        trials = [self.history[i] for i in best]
        stands: list[tuple[Filling, dict[str, Any], int | None]] = [
            (t.filling, t.note if t.note.get("climb") == self.climb else {}, t.number) for t in trials
        ]
        return stands or [(p.filling, p.note, None) for p in self.mine[:1]]

    def next_move(self, rng: np.random.Generator, patience: int, beam: int) -> Proposal | None:
        """The next untried change of the incumbent that has been changed least; None if there is
        none or `patience` are tried of each."""
        tried = Counter(n.get("from") for n in self.notes if "hole" in n)
        for stand in sorted(self.incumbents(beam), key=lambda s: tried[s[2]]):
            if tried[stand[2]] < patience:
                proposal = self.move(*stand, rng=rng, start={"climb": self.climb, "weights": self.weights})
                if proposal is not None:
                    return proposal
        return None

    def move(
        self,
        filling: Filling,
        note: dict[str, Any],
        number: int | None,
        *,
        rng: np.random.Generator,
        start: dict[str, Any],
    ) -> Proposal | None:
        tried = {(n.get("hole"), repr(n.get("to"))) for n in self.notes if n.get("from") == number}
        for hole, value in self.changes(filling, note, rng):
            if (hole, repr(value)) in tried:
                continue
            changed = self.changed(filling, hole, value, start["weights"], rng)
            if self.new(changed):
                return Proposal(changed, {**start, "from": number, "hole": hole, "to": value})
        return None

    def changes(self, filling: Filling, note: dict[str, Any], rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
        """(hole, new value): the hole that was changed last, in the same direction first; then on
        to earlier holes, around. Names, which are all equally near, come in any order."""
        last = note.get("hole")
        order = [h.path for h in reversed(self.space.holes) if h.path in filling]
        turn = order.index(last) if last in filling else 0
        for path in order[turn:] + order[:turn]:
            near = self.space[path].domain.near(filling[path])
            came_from = (
                self.history[note["from"]].filling.get(path) if path == last and note.get("from") is not None else None
            )
            here = filling[path]
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (came_from, here, *near)):
                near.sort(key=lambda v: (v > here) != (here > came_from))  # noqa: B023 (used at once; sort is stable)
            if any(isinstance(v, str) for v in near) and isinstance(self.space[path].domain, Choice):
                near = [near[int(i)] for i in rng.permutation(len(near))]
            for value in near:
                yield path, value

    def changed(self, filling: Filling, hole: str, value: Any, weights: Weights, rng: np.random.Generator) -> Filling:
        domain = self.space[hole].domain
        if not domain.branches(value, hole) and not domain.branches(filling[hole], hole):
            return {**filling, hole: value}
        best = self.index.best(self.index.having.get((hole, repr(value)), []), weights)
        donor = self.history[best[0]].filling if best else {}
        middles = {h.path: middle(h.domain) for h in self.space.holes}
        return self.space.complete({**middles, **donor, **filling, hole: value}, rng)

    def other_start(self, rng: np.random.Generator, starts: int) -> Proposal | None:
        """Another random start of the first climb, while a history that is this strategy's alone
        has fewer than `starts`."""
        known = len(self.history) + len(self.batch)
        filling = self.fresh.sample(rng) if self.climb == 0 and known == len(self.notes) < starts else None
        return None if filling is None else Proposal(filling, {"climb": 0, "weights": None})

    def next_start(self, rng: np.random.Generator, restart: float) -> Proposal | None:
        """The first proposal of a new climb; None if every filling is known."""
        start: dict[str, Any] = {"climb": self.climb + 1, "weights": None}
        if self.climb < 0:
            filling = centre(self.space)
            if self.new(filling):
                return Proposal(filling, start)
        elif self.index.objectives > 1:
            start["weights"] = [round(float(w), 6) for w in rng.dirichlet([1.0] * self.index.objectives)]
        best = [] if rng.random() < restart else self.index.best(None, start["weights"])
        if best:
            parent = self.history[best[0]]
            onward = self.move(parent.filling, {}, parent.number, rng=rng, start={**start, "origin": parent.number})
            if onward is not None:
                return onward
            for _ in range(20):
                filling = mutated(self.space, parent.filling, rng)
                if self.new(filling):
                    return Proposal(filling, {**start, "from": parent.number})
        drawn = self.fresh.sample(rng)
        return None if drawn is None else Proposal(drawn, start)


def _rough(space: Space, filling: Filling) -> str:
    """Key of a filling that takes continuous values within a thousandth of their range for equal:
    a step up and a step down again gives 0.30000000000000004, which is no news."""
    out: Filling = {}
    for path, value in filling.items():
        domain = space[path].domain
        fine = isinstance(domain, Float) and domain.step is None
        out[path] = round(domain.position(value), 3) + 0.0 if fine else value  # type: ignore[attr-defined]
    return key(out)
