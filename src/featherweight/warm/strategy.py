"""A warm start for any strategy: what is known beforehand is tried first, then pulls less and less.

Notation: t trials so far, W the summed weights of all guesses and of the prior.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..digest import Digest
from ..errors import InputError
from ..records import History, Trial
from ..space import Domain, Filling, Space
from ..space.space import key
from ..space.vary import between, mutated
from ..strategies.base import Fresh, Proposal, Strategy

# mutations until a pull is given up; share of holes that a draw from the prior draws uniformly
_TRIES, _ANEW = 20, 0.1
_HALVINGS = 4  # proposals that lie halfway to what met the limits, in one study
_Standing = tuple[tuple[float, float], int]  # how good (`Trial.score_key`), and which


@dataclass(frozen=True)
class Warm(Strategy):
    """Proposes `starts` in turn, then what `inner` proposes, but with probability W / (W + t) a
    proposal that a guess or the prior pulls.

    So a belief decays with the evidence, as beta / t does in Hvarfner et al. 2022 (piBO,
    arXiv:2204.11051, eq. 6), and a wrong one costs about W ln(1 + T / W) of T trials. A guess
    (drawn by weight) pulls by its values laid over the best filling so far, mutated; the prior by
    values drawn hole by hole.

    While nothing of this study meets the limits, but something that was known before does, the next
    is halfway from that to what breaks them least (a bisection, of four steps): of few trials, none
    is spent on what must break them more. What has no middle (4 or 8 bits) stays by turns as in the
    one and in the other: it may have cost nothing.

    `inner` sees the trials of this study after those of earlier ones, and the notes of its own
    proposals alone. Of what earlier studies tried it proposes nothing again; that comes when
    `inner` has nothing left.

    starts: fillings; guesses: (values of some holes, weight);
    prior: {path: [[value, weight], ...]}, drawn from with weight `prior_weight`;
    earlier: trials of the same task, {"filling", "values", "violation", "note"}; one whose note
    names a "baseline" is not what guesses are laid over. All as JSON, so that a warm strategy can
    be compared, hashed and stored. `warm.py` makes them. InputError for
    text that is something else, weights that are no weights, and, when it proposes, a start that is
    no filling of the space.
    """

    inner: Strategy
    starts: tuple[str, ...] = ()
    guesses: tuple[tuple[str, float], ...] = ()
    prior: str = "{}"
    prior_weight: float = 0.0
    earlier: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in (*self.starts, *(g for g, _ in self.guesses), self.prior, *self.earlier):
            _read(text)
        weights = [*(w for _, w in self.guesses), self.prior_weight]
        if not all(0 <= w < math.inf for w in weights):
            raise InputError(
                "a guess or a prior has a weight that is none", got=weights, allowed="0 or more, in trials"
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes: {"warm": "start" | "halfway" | "guess" | "prior" | "earlier"}, or what `inner`
        noted."""
        fresh, view = Fresh(space, history), _View.of(history, self.earlier)
        out = [fresh.take(f, {"warm": "start"}) for f in self._next_starts(space, fresh, n)]
        for slot in range(len(out), n):
            pulled = _halfway(space, view, fresh) or self._pulled(space, view, fresh, len(history) + slot, rng)
            if pulled is not None:
                out.append(pulled)
        left = n - len(out)
        if left > 0:  # `inner` does not know what this call proposes: it may repeat as many
            own = [p for p in self.inner.propose(space, view.history, n, rng) if key(p.filling) not in fresh.taken]
            out += [fresh.take(p.filling, p.note) for p in own[:left]]
        for text in self.earlier if len(out) < n else ():
            filling = _read(text)["filling"]
            if len(out) < n and fresh.unseen(filling):
                out.append(fresh.take(filling, {"warm": "earlier"}))
        return out

    def _next_starts(self, space: Space, fresh: Fresh, n: int) -> list[Filling]:
        found: dict[str, Filling] = {}
        for start in map(_read, self.starts):
            if len(found) >= n:
                break
            if fresh.unseen(start):
                _require(space, start)
                if start in fresh:
                    found.setdefault(key(start), start)
        return list(found.values())

    def _pulled(self, space: Space, view: _View, fresh: Fresh, t: int, rng: np.random.Generator) -> Proposal | None:
        """A proposal that a guess or the prior makes at trial t; None if none of them does."""
        weights = [*(w for _, w in self.guesses), self.prior_weight]
        total = sum(weights)
        if total <= 0 or rng.random() >= total / (total + t):
            return None
        which = int(rng.choice(len(weights), p=[w / total for w in weights]))
        if which == len(self.guesses):
            prior = _read(self.prior)
            for _ in range(_TRIES):
                filling = space.walk(lambda path, domain: _drawn(prior.get(path), domain, rng))
                if filling in fresh:
                    return fresh.take(filling, {"warm": "prior"})
            return None
        laid = space.complete({**view.best_filling, **_read(self.guesses[which][0])}, rng)
        for _ in range(_TRIES):
            if laid in fresh:
                return fresh.take(laid, {"warm": "guess"})
            laid = mutated(space, laid, rng)
        return None


def _halfway(space: Space, view: _View, fresh: Fresh) -> Proposal | None:
    """From what was known to meet the limits to what breaks them least in this study; None if there
    is no such pair, or it was tried."""
    if view.met is None or view.broken is None or view.broken[0][0] <= 0 or view.halved >= _HALVINGS:
        return None
    met, broken = (view.history[number].filling for number in (view.met[1], view.broken[1]))
    ways = between(space, met, broken, met if view.halved % 2 else broken)
    found = next((filling for filling in ways if filling in fresh), None)
    return None if found is None else fresh.take(found, {"warm": "halfway"})


class _View(Digest):
    """The trials of earlier studies and then those of this one, as the inner strategy sees them.
    Standings, each with its number: best of all but baselines; met: the best that met the limits
    before this study; broken: the best of this study."""

    def __init__(self, earlier: Sequence[str]) -> None:
        super().__init__()
        self.history, self.shift = History(), len(earlier)
        self.best: _Standing | None = None
        self.met: _Standing | None = None
        self.broken: _Standing | None = None
        self.halved = 0  # proposals of this study that lie halfway
        for number, text in enumerate(earlier):
            data = _read(text)
            self.history.add(
                Trial(
                    number,
                    data["filling"],
                    "complete",
                    tuple(data["values"]),
                    data.get("violation", 0.0),
                    note=data.get("note", {}),
                )
            )
            trial = self.history[number]
            if "baseline" not in trial.note:
                self.best = _better(self.best, trial)
            if trial.violation <= 0:
                self.met = _better(self.met, trial)

    @property
    def best_filling(self) -> Filling:
        return {} if self.best is None else self.history[self.best[1]].filling

    def begun(self, trial: Trial) -> None:
        self.halved += trial.note.get("warm") == "halfway"
        note = {} if "warm" in trial.note else trial.note
        self.history.add(dataclasses.replace(trial, number=trial.number + self.shift, note=note, state="running"))

    def told(self, trial: Trial) -> None:
        ours = self.history[trial.number + self.shift]
        for f in dataclasses.fields(Trial):
            if f.name not in ("number", "filling", "note"):
                setattr(ours, f.name, getattr(trial, f.name))
        self.best, self.broken = _better(self.best, ours), _better(self.broken, ours)

    resumed = told


def _better(standing: _Standing | None, trial: Trial) -> _Standing | None:
    """The better of a standing and a trial's; one without values has none."""
    own = (trial.score_key, trial.number)
    return standing if not trial.usable else own if standing is None else min(standing, own)


def _drawn(weighed: list[list[Any]] | None, domain: Domain, rng: np.random.Generator) -> Any:
    """A value of the prior, one of its neighbours (so that numbers between those tried can
    come), or any value."""
    if not weighed or rng.random() < _ANEW:
        return domain.sample(rng)
    total = sum(w for _, w in weighed)
    value = domain.check(weighed[int(rng.choice(len(weighed), p=[w / total for _, w in weighed]))][0], "")
    if domain.tag not in ("float", "int"):
        return value
    around = [value, *domain.near(value)]
    return around[int(rng.integers(len(around)))]


def _require(space: Space, filling: Filling) -> None:
    """InputError unless the space has this filling, written like this."""
    holes = space.walk(lambda path, domain: filling[path] if path in filling else domain.check(None, path))
    if key(holes) != key(filling):
        raise InputError("a start is no filling of the space as it writes it", got=filling, allowed=holes)


@lru_cache(maxsize=200_000)
def _read(text: str) -> dict[str, Any]:
    """The object that a JSON text is. Not to be changed: it is shared."""
    try:
        data = json.loads(text)
    except ValueError as e:
        raise InputError("a warm start is told in JSON", got=text[:80], fix=str(e)) from e
    if not isinstance(data, dict):
        raise InputError("a warm start is told as JSON objects", got=text[:80], allowed='{"path": value, ...}')
    return data
