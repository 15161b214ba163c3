"""Our strategies for plain Optuna studies, and our studies as Optuna's.

study = optuna.create_study(sampler=fw.OptunaSampler("genetic", seed=0))
study.optimize(objective, n_trials=100)
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.trial import TrialState, create_trial

from ..records import History, Trial
from ..registry import find
from ..seeding import generator
from ..space import Space
from ..space.space import key
from ..strategies.base import Strategy
from ..strategies.shared.optuna import distributions, params
from .parameters import Parameters, Row, conditions, domain, inside, outside

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# system attribute of a trial: {"row": by parameter, "note",
# "space": fingerprint of what it speaks of, "scale"}
ATTR = "featherweight"
SETTLED = 10  # complete trials after which the scale of the objectives is fixed
STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "running"}


class OptunaSampler(BaseSampler):
    """A strategy of ours as an Optuna sampler: define-by-run or fixed spaces, several
    objectives in any direction, constraints, failed, pruned and pending trials; shared storages
    and resumed studies.

    strategy: a name of the registry or a Strategy. seed: same seed, same proposals; None: a new one
    each time. space: the parameters, if they are known and always suggested; else they are learned
    from the finished trials, with the conditions between them: a parameter that is suggested
    exactly under some values of one suggested before it is alive under these. One that is not
    explained so, or whose distribution changes, is drawn at random, as is all in the first trial.
    constraints_func: as Optuna's (at most 0 is feasible); `trial.set_constraint` works as well.
    timed: tell the strategy how long trials took; then proposals depend on the clock.

    Strategies want positive objectives to be minimised, and look at their logarithms. An objective
    v (negated if maximised) becomes exp(asinh((v - c) / s)), which is monotone and takes any
    number: its logarithm is linear near c and logarithmic far away. c and s are the median and half
    the interquartile range of the complete trials; fixed from the tenth on and noted in a trial, so
    that whoever opens the study has the same. Infinite values come last (or first).

    Raises InputError for an unknown strategy or a parameter of more than 2^53 values.
    """

    def __init__(
        self,
        strategy: str | Strategy = "adaptive",
        seed: int | None = None,
        *,
        space: Mapping[str, BaseDistribution] | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        timed: bool = False,
    ) -> None:
        self.strategy: Strategy = find("strategies", strategy)() if isinstance(strategy, str) else strategy
        self.seed = secrets.randbits(63) if seed is None else seed
        self.space = None if space is None else dict(space)
        self.constraints_func, self.timed = constraints_func, timed
        self._lock = threading.RLock()
        self._view: _View | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"} | {"_view": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def reseed_rng(self) -> None:
        """Nothing to do: every random number comes from the seed and the trial's number."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        with self._lock:
            view = self._viewed(study)
            view.update(trial.number)
            return {n: view.parameters.known[n] for n in view.parameters.paths}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One proposal, noted in the trial. If the space is exhausted, a random filling,
        which is a repeat."""
        if not search_space:
            return {}
        with self._lock:
            view = self._viewed(study)
            view.update(trial.number)
            rng = generator(self.seed, "propose", trial.number)
            proposals = self.strategy.propose(view.parameters.space, view.history, 1, rng)
            filling = proposals[0].filling if proposals else view.parameters.space.sample(rng)
            row = {view.parameters.names[path]: value for path, value in filling.items()}
            noted: dict[str, Any] = {
                "row": row,
                "note": proposals[0].note if proposals else {},
                "space": view.parameters.fingerprint,
            }
            if view.settled:
                noted["scale"] = view.scale
            study._storage.set_trial_system_attr(trial._trial_id, ATTR, noted)
            return {n: v for n, v in view.parameters.suggested(filling).items() if n in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        rng = generator(self.seed, "independent", trial.number, param_name)
        return outside(param_distribution, domain(param_distribution).sample(rng))

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        if self.constraints_func is not None:
            _process_constraints_after_trial(self.constraints_func, study, trial, state)

    def _viewed(self, study: optuna.Study) -> _View:
        if (
            self._view is None
            or self._view.study._storage is not study._storage
            or self._view.study._study_id != study._study_id
        ):
            self._view = _View(study, self.space, self.timed)
        self._view.study = study
        return self._view


class _View:
    """An Optuna study as a space and a history: trial i of the one is trial i of the other. What
    does not fit is a failed trial without values. Read step by step, and anew when what was read
    turns out different: a condition, a scale, a filling."""

    def __init__(self, study: optuna.Study, space: Mapping[str, BaseDistribution] | None, timed: bool) -> None:
        self.study, self.fixed, self.timed = study, space, timed
        self.signs = [-1.0 if d.name == "MAXIMIZE" else 1.0 for d in study.directions]
        self.parameters = Parameters(space or {}, {}, flat=space is not None)
        self.scale: list[tuple[float, float]] = []
        self.settled = False
        self.history = History()
        self.open: list[int] = []  # numbers of running trials
        self.rows: list[Row] = []  # of the finished trials that were read, if no space is given
        self.changing: set[str] = set()  # parameters whose distribution is not always the same

    def update(self, until: int) -> None:
        """Read the trials below number `until`, and those read before that have finished since."""
        trials = self.study._storage.get_all_trials(self.study._study_id, deepcopy=False)
        ended = [trials[i] for i in self.open if trials[i].state.is_finished()]
        new = trials[len(self.history) : until]
        again = self._learn([t for t in (*ended, *new) if t.state.is_finished()])
        again |= self._rescale(trials)
        for t in ended:
            told = self._trial(t)
            if not again and key(told.filling) == key(self.history[t.number].filling):
                self.history[t.number].__dict__.update(told.__dict__)
            else:
                again = True
        if again:
            new, self.history = trials[: max(until, len(self.history))], History()
        for t in new:
            self.history.add(self._trial(t))
        self.open = [
            i
            for i in (range(len(self.history)) if again else [*self.open, *(t.number for t in new)])
            if self.history[i].state == "running"
        ]

    def _learn(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the space is another one after these trials."""
        if self.fixed is not None:
            return False
        known, changing, fits = dict(self.parameters.known), len(self.changing), True
        for t in trials:
            # a failed or pruned trial may have ended before its last parameter
            if t.state.name != "COMPLETE":
                continue
            for name, d in t.distributions.items():
                if known.setdefault(name, d) != d:
                    self.changing.add(name)
            self.rows.append({n: inside(t.distributions[n], v) for n, v in t.params.items()})
            fits = (
                fits
                and self.rows[-1].keys() - self.changing <= self.parameters.known.keys()
                and self.parameters.filling(self.rows[-1]) is not None
            )
        if fits and len(self.changing) == changing:
            return False
        stable = {n: d for n, d in known.items() if n not in self.changing}
        rows = [{n: v for n, v in row.items() if n in stable} for row in self.rows]
        self.parameters = Parameters(stable, conditions(rows, stable))
        return True

    def _rescale(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the objectives have another scale than before."""
        if self.settled:
            return False
        noted = next((t.system_attrs[ATTR]["scale"] for t in trials if "scale" in t.system_attrs.get(ATTR, {})), None)
        told = [t.values for t in trials if t.state.name == "COMPLETE"]
        scale = (
            [tuple(s) for s in noted]
            if noted
            else [_scale([v[j] * sign for v in told]) for j, sign in enumerate(self.signs)]
        )
        self.settled = noted is not None or len(told) >= SETTLED
        changed, self.scale = scale != self.scale, scale
        return changed

    def _trial(self, t: FrozenTrial) -> Trial:
        """One of Optuna's trials as one of ours."""
        noted = t.system_attrs.get(ATTR, {})
        note = noted["note"] if noted.get("space") == self.parameters.fingerprint else {}  # notes name holes
        state: Any = STATES[t.state.name]
        row = {
            n: inside(d, t.params[n])
            for n, d in t.distributions.items()
            if n in t.params and n in self.parameters.known
        }
        filling = self.parameters.filling(noted.get("row", row) if state == "running" else row)
        if filling is None:
            return Trial(t.number, {}, state if state == "running" else "failed", note=note)
        values = None
        if state == "complete":
            values = tuple(
                _positive(sign * v, *scale) for v, sign, scale in zip(t.values, self.signs, self.scale, strict=True)
            )
        cost = t.duration.total_seconds() if self.timed and t.duration is not None else 0.0
        broken = sum(max(float(c), 0.0) for c in t.constraints.values())
        reports: dict[float, float] = {int(step): self.signs[0] * v for step, v in t.intermediate_values.items()}
        return Trial(t.number, filling, state, values, broken, cost, note=note, reports=reports)


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Median and half the interquartile range of the finite values;
    half the range, then 1, where that is 0."""
    finite = sorted(v for v in values if math.isfinite(v))
    if not finite:
        return 0.0, 1.0
    n = len(finite)
    spread = (finite[(3 * (n - 1)) // 4] - finite[(n - 1) // 4]) / 2 or (finite[-1] - finite[0]) / 2
    return finite[(n - 1) // 2], spread if 0 < spread < math.inf else 1.0


def _positive(value: float, centre: float, spread: float) -> float:
    """exp(asinh((value - centre) / spread)), between e^-700 and e^700."""
    return math.exp(min(max(math.asinh((value - centre) / spread), -700.0), 700.0))


def to_optuna(space: Space, history: History, storage: str | None = None, name: str | None = None) -> optuna.Study:
    """A history as an Optuna study, for its plots and for optuna-dashboard: in memory, or in a
    storage URL under `name`.

    A Choice or Maybe is a category of JSON texts, an Order a number an item. Objectives are ours:
    minimised, 1.0 = as the baseline. A trial that was stopped is a pruned one; one without finite
    values a failed one; notes, features and costs are user attributes. Reports are intermediate
    values by epoch, or by thousandth of an epoch where a trial told within one (Optuna's steps are
    whole numbers). InputError if a trial has another number of objectives than the first.
    """
    objectives = next((len(t.values) for t in history if t.state == "complete" and t.values), 1)
    made = optuna.create_study(directions=["minimize"] * objectives, storage=storage, study_name=name)
    states = {
        "complete": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "failed": TrialState.FAIL,
        "running": TrialState.RUNNING,
    }
    scale = 1 if all(float(epoch).is_integer() for t in history for epoch in t.reports) else 1000
    for t in history:
        state, values = states[t.state], t.values
        if state == TrialState.COMPLETE and values:
            t.objectives(objectives)
        if state == TrialState.COMPLETE and not (values and all(map(math.isfinite, values))):
            state = TrialState.FAIL
        told: dict[str, Any] = {}
        known: dict[str, BaseDistribution] = {}
        for path, value in t.filling.items():
            told |= params(path, space[path].domain, value)
            known |= distributions(path, space[path].domain)
        made.add_trial(
            create_trial(
                state=state,
                values=list(values or ()) if state == TrialState.COMPLETE else None,
                params=told,
                distributions=known,
                constraints={"violation": t.violation} if math.isfinite(t.violation) and t.values else None,
                intermediate_values={round(scale * epoch): score for epoch, score in t.reports.items()} or None,
                user_attrs={"note": t.note, "cost_s": t.cost_s, "features": t.features},
            )
        )
    return made
