"""Feeds a history to Optuna's samplers in memory, and reads their suggestions as fillings.

A mirror of the history is kept for each History object: a finished trial is told to Optuna once.
What the samplers propose is withdrawn before `propose` returns, so the mirror depends on the
history alone and a rebuilt one is the same. Optuna's samplers sort and fit all trials anew for each
suggestion; a `Window` shows them the best and the latest ones only.

How a hole becomes parameters: a Float or Int is itself; a Choice or Maybe is a category (its JSON
text, so that 1, 1.0 and True stay apart); an Order is one number in [0, 1] an item, and their
ranking is the order (random keys; Bean, "Genetic algorithms and random keys for sequencing and
optimization", 1994), because 8! categories help no model.
"""

from __future__ import annotations

import bisect
import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import InputError
from ...records import History, Trial
from ...space import Domain, Filling, Float, Int, Order, Space
from ...space.node import resolve
from ...space.vary import middle
from ..base import Fresh, Proposal

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

# a sampler that repeats itself is asked this often before a neighbour of its suggestion is taken
ASKS = 3


@dataclass(frozen=True)
class Window:
    """Which finished trials a sampler sees: the `best` ones by rank and by each objective, and the
    `recent` ones. Running ones always."""

    best: int
    recent: int


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log lines and its warnings that something is experimental; restores both."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def distributions(path: str, domain: Domain) -> dict[str, BaseDistribution]:
    """The Optuna parameters of a hole, by name."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, (Float, Int)):
        n = domain.count(None)
        high = domain.high if math.isinf(n) else domain.nth(int(n) - 1, None)
        if isinstance(domain, Float):
            return {path: FloatDistribution(domain.low, high, log=domain.log, step=domain.step)}
        return {path: IntDistribution(domain.low, high, log=domain.log, step=1 if domain.log else domain.step)}
    if isinstance(domain, Order):
        return {f"{path}>{name}": FloatDistribution(0.0, 1.0) for name in domain.names}
    return {path: CategoricalDistribution([json.dumps(v) for v in domain.options(None) or []])}


def names(path: str, domain: Domain) -> list[str]:
    """The names of a hole's Optuna parameters."""
    return [f"{path}>{name}" for name in domain.names] if isinstance(domain, Order) else [path]


def params(path: str, domain: Domain, value: Any) -> dict[str, Any]:
    """A hole's value as Optuna parameters."""
    if isinstance(domain, (Float, Int)):
        return {path: value}
    if isinstance(domain, Order):
        names = value.split(">")
        return {f"{path}>{name}": (names.index(name) + 0.5) / len(names) for name in domain.names}
    return {path: json.dumps(value)}


def value_of(path: str, domain: Domain, suggested: dict[str, Any]) -> Any:
    """Optuna parameters as a hole's value. The inverse of `params`."""
    if isinstance(domain, (Float, Int)):
        return domain.check(suggested[path], path, snap=True)
    if isinstance(domain, Order):
        return ">".join(sorted(domain.names, key=lambda name: suggested[f"{path}>{name}"]))
    return json.loads(suggested[path])


@cache
def _memory_storage() -> Any:
    from optuna.storages import InMemoryStorage

    class Memory(InMemoryStorage):
        """Optuna's storage in memory, from which the last trial can be taken out again and old
        trials can be hidden."""

        # numbers of the old trials in view, number of the first new one; None: all
        shown: tuple[list[int], int] | None = None

        def withdraw(self, study_id: int) -> None:
            with self._lock:
                trial = self._studies[study_id].trials.pop()
                del self._trial_id_to_study_id_and_number[trial._trial_id]

        def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
            if self.shown is None:
                return super().get_all_trials(study_id, deepcopy, states)
            with self._lock:
                everything = self._studies[study_id].trials
                old, new = self.shown
                seen = [
                    t for t in (*(everything[i] for i in old), *everything[new:]) if states is None or t.state in states
                ]
            return copy.deepcopy(seen) if deepcopy else seen

    return Memory


class Mirror:
    """A history as an Optuna study: trial i of the one is trial i of the other.

    flat: dead holes are told with the middle of their range, so that models of a fixed set of
    parameters see every trial whole (imputation by defaults, as in Hutter, Hoos and Leyton-Brown,
    "Sequential model-based optimization for general algorithm configuration", 2011, section 4), and
    objectives as their logarithms.
    """

    def __init__(self, space: Space, objectives: int, flat: bool = False) -> None:
        import optuna

        self.space, self.objectives, self.flat = space, objectives, flat
        self.domains = {h.path: h.domain for h in space.holes}
        self.distributions = {name: d for h in space.holes for name, d in distributions(h.path, h.domain).items()}
        self.settled = False  # whether a finished trial has told the number of objectives
        self.read = 0  # trials told to Optuna
        # number of a trial that was running when told -> Optuna's trial id
        self.running: dict[int, int] = {}
        self.finished: list[int] = []  # numbers of those that have values or were stopped, in order
        # by score key, by each objective
        self.ranked: list[list[tuple[float, float, int]]] = [[] for _ in range(1 + objectives)]
        with quiet():
            self.study = optuna.create_study(directions=["minimize"] * objectives, storage=_memory_storage()())

    def update(self, history: History) -> None:
        storage = self.study._storage
        for number, trial_id in list(self.running.items()):
            trial = history[number]
            if trial.state != "running" and not (trial.state == "stopped" and not trial.values):
                if trial.values:
                    storage.set_trial_system_attr(trial_id, "constraints:violation", _violation(trial))
                state, values = self._outcome(trial)
                storage.set_trial_state_values(trial_id, state, values)
                del self.running[number]
                self._rank(trial, state)
        while self.read < len(history):
            self._add(history[self.read])
            self.read += 1

    def _add(self, trial: Trial) -> None:
        from optuna.trial import TrialState, create_trial

        values_in: dict[str, Any] = {}
        unknown = [path for path in trial.filling if path not in self.domains]
        if unknown:
            raise InputError(f"trial {trial.number} is of another space", got=unknown, allowed=", ".join(self.domains))
        # not in the filling's own order, which a store may change
        for path, domain in self.domains.items():
            if path in trial.filling or self.flat:
                values_in |= params(path, domain, trial.filling[path] if path in trial.filling else middle(domain))
        known = {name: self.distributions[name] for name in values_in}
        state, values = self._outcome(trial)
        constraints = {"violation": _violation(trial)} if trial.values else None
        self.study.add_trial(
            create_trial(state=state, values=values, params=values_in, distributions=known, constraints=constraints)
        )
        if state == TrialState.RUNNING:
            self.running[trial.number] = self.study._storage.get_trial_id_from_study_id_trial_number(
                self.study._study_id, trial.number
            )
        self._rank(trial, state)

    def _rank(self, trial: Trial, state: Any) -> None:
        """Put a finished trial in its places; whichever order trials finish in, the same places."""
        from optuna.trial import TrialState

        if state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        bisect.insort(self.finished, trial.number)
        if state == TrialState.COMPLETE:
            for ranked, value in zip(self.ranked, (trial.score_key[1], *(trial.values or ())), strict=True):
                bisect.insort(ranked, (_violation(trial), float(value), trial.number))

    @contextmanager
    def view(self, window: Window | None) -> Iterator[None]:
        """Within, the study shows the trials in the window, and those asked for since."""
        if window is None or len(self.finished) <= window.best + window.recent:
            yield
            return
        best = {number for ranked in self.ranked for _, _, number in ranked[: window.best]}
        storage: Any = self.study._storage
        storage.shown = (
            sorted(best.union(self.finished[-window.recent :], sorted(self.running)[-window.recent :])),
            self.read,
        )
        try:
            yield
        finally:
            storage.shown = None

    def _outcome(self, trial: Trial) -> tuple[Any, list[float] | None]:
        """Optuna's state and values. A trial without finite values is a failed one, which the
        samplers ignore; one that was stopped without any may go on, so it counts as running."""
        from optuna.trial import TrialState

        if trial.state == "complete" and trial.values:
            if len(trial.values) != self.objectives:
                raise InputError(
                    f"trial {trial.number} has another number of objectives than the first",
                    got=len(trial.values),
                    allowed=self.objectives,
                )
            if all(map(math.isfinite, trial.values)):
                return TrialState.COMPLETE, [math.log(max(v, 1e-12)) if self.flat else float(v) for v in trial.values]
        if trial.state == "stopped" and trial.values:
            return TrialState.PRUNED, None
        return TrialState.RUNNING if trial.open else TrialState.FAIL, None

    def ask(self, sampler: BaseSampler) -> Filling:
        """One suggestion of `sampler`, whose trial stays in the study as running
        until `withdraw`."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        self.study.sampler = sampler
        trial = self.study.ask()
        filling: Filling = {}

        def choose(path: str, domain: Domain) -> Any:
            suggested: dict[str, Any] = {}
            for name in names(path, domain):
                d: Any = self.distributions[name]
                if isinstance(d, CategoricalDistribution):
                    suggested[name] = trial.suggest_categorical(name, d.choices)
                elif isinstance(d, FloatDistribution):
                    suggested[name] = trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
                else:
                    suggested[name] = trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
            filling[path] = domain.check(value_of(path, domain, suggested), path)
            return filling[path]

        resolve(self.space.tree, choose)
        return filling

    def withdraw(self) -> None:
        """Take the last trial, one that was asked for, out of the study."""
        self.study._storage.withdraw(self.study._study_id)  # type: ignore[attr-defined]


def _violation(trial: Trial) -> float:
    return 1e12 if math.isnan(trial.violation) else min(float(trial.violation), 1e12)


_MIRRORS: WeakKeyDictionary[History, dict[bool, Mirror]] = WeakKeyDictionary()


def mirror(space: Space, history: History, flat: bool = False) -> Mirror:
    """The study that reflects `history` as it is now."""
    kept = _MIRRORS.setdefault(history, {})
    held = kept.get(flat)
    if held is None or held.space is not space or not held.settled:
        first = next((t.values for t in history if t.state == "complete" and t.values), None)
        if held is None or held.space is not space or (first is not None and len(first) != held.objectives):
            held = kept[flat] = Mirror(space, len(first or (0.0,)), flat)
        held.settled = first is not None
    held.update(history)
    return held


def propose(
    space: Space,
    history: History,
    n: int,
    rng: np.random.Generator,
    reflected: Mirror,
    sampler: Callable[[int], BaseSampler],
    note: dict[str, Any],
    asks: int = ASKS,
    window: Window | None = None,
) -> list[Proposal]:
    """Up to `n` new fillings. `sampler(seed)` makes a sampler; `note` goes into every proposal.

    A filling that is known or refused is asked for again with another seed, `asks` times in all;
    then a new one near the last suggestion is taken, at last a random one, and the note says so.
    """
    out: list[Proposal] = []
    fresh = Fresh(space, history)
    asked = 0
    try:
        with reflected.view(window):
            for _ in range(n):
                filling: Filling | None = None
                extra: dict[str, Any] = {}
                for _ in range(asks if len(fresh.taken) + history.distinct < space.size else 0):
                    filling = reflected.ask(sampler(int(rng.integers(2**31))))
                    asked += 1
                    if filling in fresh:
                        break
                    reflected.withdraw()
                    asked -= 1
                else:
                    filling, extra = _instead(space, fresh, filling, rng)
                if filling is None:
                    break
                out.append(fresh.take(filling, {**note, **extra}))
    finally:
        for _ in range(asked):
            reflected.withdraw()
    return out


def _instead(
    space: Space, fresh: Fresh, known: Filling | None, rng: np.random.Generator
) -> tuple[Filling | None, dict[str, Any]]:
    """A filling one change away from a known one, at random among the new ones; else any new one.
    And what to note."""
    if known is not None:
        near = list(space.neighbours(known, rng))
        for i in rng.permutation(len(near)):
            if near[i] in fresh:
                return near[i], {"instead of a repeat": "neighbour"}
    return fresh.sample(rng), {"instead of a repeat": "random"}


class Known:
    """Whether Optuna's internal values of all parameters stand for a filling that was tried.
    Of a conditional space, whose parameters are suggested group by group, it cannot tell,
    and says no."""

    def __init__(self, reflected: Mirror, history: History) -> None:
        self.reflected, self.history = reflected, history
        self.flat = not any(h.when for h in reflected.space.holes)

    def __call__(self, internal: dict[str, float]) -> bool:
        if not self.flat:
            return False
        suggested = {}
        for name, d in self.reflected.distributions.items():
            if name not in internal and not d.single():
                return False
            suggested[name] = d.to_external_repr(internal[name]) if name in internal else _only(d)
        return self.history.seen(
            {path: value_of(path, domain, suggested) for path, domain in self.reflected.domains.items()}
        )


def _only(d: Any) -> Any:
    """The value of a distribution that has one."""
    return d.choices[0] if hasattr(d, "choices") else d.low
