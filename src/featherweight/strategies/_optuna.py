"""Feeds a history to Optuna's samplers in memory, and reads their suggestions as fillings.

A mirror of the history is kept for each History object: a finished trial is told to Optuna once. What the samplers
propose is withdrawn before `propose` returns, so the mirror depends on the history alone and a rebuilt one is the same.

How a hole becomes parameters: a Float or Int is itself; a Choice or Maybe is a category (its JSON text, so that 1, 1.0
and True stay apart); an Order is one number in [0, 1] an item, and their ranking is the order (random keys; Bean,
"Genetic algorithms and random keys for sequencing and optimization", 1994), because 8! categories help no model.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import InputError
from ..records import History, Trial
from ..space import Domain, Filling, Float, Int, Order, Space
from ..space.node import resolve
from ..space.space import key
from .base import Proposal, unseen_sample

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

ASKS = 4  # a sampler that repeats itself is asked again this often before a random filling is taken


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
        """Optuna's storage in memory, from which the last trial can be taken out again."""

        def withdraw(self, study_id: int) -> None:
            with self._lock:
                trial = self._studies[study_id].trials.pop()
                del self._trial_id_to_study_id_and_number[trial._trial_id]

    return Memory


class Mirror:
    """A history as an Optuna study: trial i of the one is trial i of the other."""

    def __init__(self, space: Space, objectives: int) -> None:
        import optuna

        self.space, self.objectives = space, objectives
        self.domains = {h.path: h.domain for h in space.holes}
        self.distributions = {name: d for h in space.holes for name, d in distributions(h.path, h.domain).items()}
        self.settled = False  # whether a finished trial has told the number of objectives
        self.read = 0  # trials told to Optuna
        self.running: dict[int, int] = {}  # number of a trial that was running when told -> Optuna's trial id
        with quiet():
            self.study = optuna.create_study(directions=["minimize"] * objectives, storage=_memory_storage()())

    def update(self, history: History) -> None:
        storage = self.study._storage
        for number, trial_id in list(self.running.items()):
            trial = history[number]
            if trial.state != "running":
                if trial.values:
                    storage.set_trial_system_attr(trial_id, "constraints:violation", _violation(trial))
                state, values = self._outcome(trial)
                storage.set_trial_state_values(trial_id, state, values)
                del self.running[number]
        while self.read < len(history):
            self._add(history[self.read])
            self.read += 1

    def _add(self, trial: Trial) -> None:
        from optuna.trial import create_trial

        values_in: dict[str, Any] = {}
        unknown = [path for path in trial.filling if path not in self.domains]
        if unknown:
            raise InputError(f"trial {trial.number} is of another space", got=unknown, allowed=", ".join(self.domains))
        for path, domain in self.domains.items():  # not in the filling's own order, which a store may change
            if path in trial.filling:
                values_in |= params(path, domain, trial.filling[path])
        known = {name: self.distributions[name] for name in values_in}
        state, values = self._outcome(trial)
        constraints = {"violation": _violation(trial)} if trial.values else None
        self.study.add_trial(create_trial(state=state, values=values, params=values_in, distributions=known, constraints=constraints))
        if trial.state == "running":
            self.running[trial.number] = self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, trial.number)

    def _outcome(self, trial: Trial) -> tuple[Any, list[float] | None]:
        """Optuna's state and values. A trial without finite values is a failed one, which the samplers ignore."""
        from optuna.trial import TrialState

        if trial.state == "complete" and trial.values:
            if len(trial.values) != self.objectives:
                raise InputError(
                    f"trial {trial.number} has another number of objectives than the first", got=len(trial.values), allowed=self.objectives
                )
            if all(map(math.isfinite, trial.values)):
                return TrialState.COMPLETE, [float(v) for v in trial.values]
        if trial.state == "stopped" and trial.values:
            return TrialState.PRUNED, None
        return TrialState.RUNNING if trial.state == "running" else TrialState.FAIL, None

    def ask(self, sampler: BaseSampler) -> Filling:
        """One suggestion of `sampler`, whose trial stays in the study as running until `withdraw`."""
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


_MIRRORS: WeakKeyDictionary[History, Mirror] = WeakKeyDictionary()


def mirror(space: Space, history: History) -> Mirror:
    """The study that reflects `history` as it is now."""
    held = _MIRRORS.get(history)
    if held is None or held.space is not space or not held.settled:
        first = next((t.values for t in history if t.state == "complete" and t.values), None)
        if held is None or held.space is not space or (first is not None and len(first) != held.objectives):
            held = _MIRRORS[history] = Mirror(space, len(first or (0.0,)))
        held.settled = first is not None
    held.update(history)
    return held


def propose(
    space: Space, history: History, n: int, rng: np.random.Generator, reflected: Mirror, sampler: Callable[[int], BaseSampler], note: dict[str, Any]
) -> list[Proposal]:
    """Up to `n` new fillings. `sampler(seed)` makes a sampler; `note` goes into every proposal.

    A filling that is known is asked for again with another seed, at last replaced by a random one.
    """
    out: list[Proposal] = []
    also: set[str] = set()
    asked = 0
    try:
        for _ in range(n):
            if len(also) + history.distinct >= space.size and _exhausted(space, history, also):
                break
            proposal = None
            for _ in range(ASKS):
                filling = reflected.ask(sampler(int(rng.integers(2**31))))
                asked += 1
                if not history.seen(filling) and key(filling) not in also:
                    proposal = Proposal(filling, dict(note))
                    break
                reflected.withdraw()
                asked -= 1
            if proposal is None:
                drawn = unseen_sample(space, history, rng, also)
                if drawn is None:
                    break
                proposal = Proposal(drawn, {**note, "random": "instead of a repeat"})
            also.add(key(proposal.filling))
            out.append(proposal)
    finally:
        for _ in range(asked):
            reflected.withdraw()
    return out


def _exhausted(space: Space, history: History, also: set[str]) -> bool:
    return all(history.seen_key(space.key_at(i)) or space.key_at(i) in also for i in range(int(space.size)))
