"""What every study measures besides its trials: the front table is worth nothing without them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from ..engine.messages import Message, TrialJob, timed_out
from ..errors import FeatherweightError, RecipeError
from ..recipe import Recipe
from ..space import Domain, Filling, Space, resolve
from ..space.domains import Choice, Maybe
from ..targets.base import Target
from ..transforms.quantize import Quantize
from ..transforms.train import Train
from .config import Config
from .jobs import Jobs, run_each, told
from .request import floor_refused

# by whether the search is over
_NO_TIME = {False: "no time yet", True: "no time, but for what certificates and the report need,"}
BASELINES_SHARE = 0.2  # of the minutes, that baselines besides the first may take before the search


def measure_baselines(
    jobs: Jobs, space: Space, guess: Callable[[], tuple[float, str] | None], late: bool = False
) -> None:
    """The original, plain int8, random cutting and the original on every runtime, in this order:
    measured like any candidate, the first alone, the others on all workers.

    With minutes given, those besides the first have to fit into a fifth of them; what there was no
    time for is measured after the search (`late`), if there is time then, or when the study is
    resumed with more. guess: see `guessing.guess`. FeatherweightError if there is nothing to
    compare with, or nothing worth comparing with (`check_original`)."""
    log, state, clock, stop = jobs.log, jobs.log.state, jobs.clock, jobs.stop
    waiting = {c[0]: c for c in baseline_candidates(jobs.config, space)}
    for done in (*state.baselines, *state.failed_baselines):
        waiting.pop(done, None)
    if "baseline" in state.baselines:
        check_original(jobs, guess)
    announced = False
    if (first := waiting.pop("baseline", None)) is not None:
        log.record("phase", {"name": "baseline"})
        announced = True
        _measure_first(jobs, first[1], first[2])
        check_original(jobs, guess)
    minutes = clock.budget.minutes
    until = clock.spent() + BASELINES_SHARE * minutes * 60 if minutes is not None and not late else float("inf")

    def ask() -> tuple[TrialJob, float, float] | None:
        nonlocal announced
        within = min(clock.for_finalists() if late else clock.left(), until - clock.spent())
        left = min(clock.timeout(finalist=late), within)
        if not waiting or stop.asked:
            return None
        if left < 2.0 or (late and clock.for_finalists() < 2.0):
            names = ", ".join(map(repr, waiting))
            log.warn(f"{_NO_TIME[late]} for the baselines {names}")
            waiting.clear()
            return None
        if not announced:
            log.record("phase", {"name": "baseline"})
            announced = True
        label = next(iter(waiting))
        _, recipe, target = waiting.pop(label)
        return jobs.trial_job(recipe, target, label, id=label), left, within

    for outcome in run_each(jobs, ask):
        label = outcome.id
        if outcome.kind == "finished":
            _record(jobs, label, outcome)
        elif timed_out(outcome.reason) and minutes is not None:
            log.warn(f"{_NO_TIME[late]} for the baseline {label!r}")
        else:
            log.record("baseline_failed", {"label": label, "reason": outcome.reason}, key=f"baseline {label}")


def _measure_first(jobs: Jobs, recipe: Recipe, target: str) -> None:
    """The original, with which all is compared. FeatherweightError if it cannot be made."""
    outcome = jobs.run_one(jobs.trial_job(recipe, target, "baseline"), jobs.clock.timeout())
    if outcome.kind == "finished":
        return _record(jobs, "baseline", outcome)
    if jobs.stop.asked:  # there is nothing to finish with
        raise KeyboardInterrupt
    late = timed_out(outcome.reason) and jobs.clock.out_of_time()
    fix = "give the search more time: raise the budget's minutes" if late else None
    raise FeatherweightError(
        "the baseline cannot be made, so there is nothing to compare with", got=outcome.reason, fix=fix
    )


def _record(jobs: Jobs, label: str, outcome: Message) -> None:
    jobs.log.record("baseline", told(outcome), key=f"baseline {label}")


def check_original(jobs: Jobs, guess: Callable[[], tuple[float, str] | None]) -> None:
    """Before the first trial: FeatherweightError if the study's floors make no sense for a metric
    with such a value, or if the original is no better than an answer that looks at no input (and
    is not trained anew by the recipe, and nobody insists: `force`)."""
    config, state = jobs.config, jobs.log.state
    if len(state.trials):
        return
    found = state.baseline.metric
    low, high = (0.0, 1.0) if found.higher_is_better and 0 <= found.value <= 1 else (-math.inf, math.inf)
    for limit in config.constraints:
        if (fix := limit.misfit(low, high)) is not None:
            raise floor_refused(limit, found.name, f"the original's {found.name} is {found.value:.4g}", fix)
    trained = any(isinstance(step, Train) for step in Recipe.from_json(config.recipe).steps)
    if config.force or trained or config.baseline is not None:
        return
    known = guess()
    sign = 1 if found.higher_is_better else -1
    # a standard error, of its interval: other samples of the kind would change it by so much
    chance = (found.ci95[1] - found.ci95[0]) / (2 * 1.96) if found.ci95 is not None else 0.0
    if known is not None and sign * (found.value - known[0]) <= chance:
        again = "train it, or longer (Task(baseline=Recipe(Train(..)))),"
        if isinstance(config.task, dict) and "epochs" in (config.task.get("options") or {}):
            again = "train it longer (--task-option epochs=N; in Python, make_task(.., epochs=N)),"
        raise FeatherweightError(
            "the original model is no better than guessing, so there is nothing to keep",
            got=f"{found.name} {found.value:.4g} on the validation split; {known[1]}: {known[0]:.4g}"
            + (f"; with so few samples chance moves it by {chance:.2g}" if sign * (found.value - known[0]) > 0 else ""),
            allowed="a trained model",
            fix=f"{again} and check that its inputs are prepared as in training"
            + (f", and whether {found.name} is better when it is higher, as it is taken" if sign > 0 else "")
            + "; or go on all the same: --force, or force=True",
        )


def baseline_candidates(config: Config, space: Space) -> list[tuple[str, Recipe, str]]:
    """(label, recipe, target) of the baselines: the reference first, then what is cheap, then what
    runs where nobody asked for."""
    reference = config.target.reference
    choices = config.target.runtimes
    out: list[tuple[str, Recipe, str]] = [("baseline", Recipe(), reference)]
    plain = Quantize()
    able = [t for t in dict.fromkeys([reference, *choices]) if _runs(t, plain)]
    out += [("plain int8" if t == reference else f"plain int8 on {t}", Recipe(plain), t) for t in able]
    dynamic = Quantize(scheme="int8-dynamic")
    if _searched(space, dynamic) and _runs(reference, dynamic):
        out.append(("plain dynamic int8", Recipe(dynamic), reference))
    out += [(extra["label"], Recipe.from_json(extra["recipe"]), reference) for extra in config.extra_baselines]
    random_cut = random_cutting(space)
    if random_cut is not None:
        out.append(("random cutting", random_cut, reference))
    name = "fixed net" if config.baseline else "original"
    elsewhere = [t for t in config.target.originals if t != reference]
    elsewhere.sort(key=lambda t: t not in choices)
    return out + [(f"{name} on {t}", Recipe(), t) for t in elsewhere]


def _runs(target: str, step: Quantize) -> bool:
    """Can the target run what the step makes?"""
    return Target.parse(target).load_runtime().problem(Target.parse(target), step.plan()) is None


def _searched(space: Space, step: Quantize) -> bool:
    """Is the step's scheme one that a hole of the space may have?"""
    schemes = (h.domain for h in space if re.search(r"(^|\.)quantize(_\d+)?\.scheme$", h.path))
    return any(step.scheme in (domain.options(100) or ()) for domain in schemes)


def random_cutting(space: Space) -> Recipe | None:
    """The recipe with every criterion random, what may be left out left out, and the middle of
    every other range; None if it cuts nothing."""
    found = halfway(space)
    return found[0] if found is not None else None


def halfway(space: Space) -> tuple[Recipe, Filling] | None:
    """`random_cutting` and its filling."""
    filling: Filling = {}

    def choose(path: str, domain: Domain) -> Any:
        options = domain.options(3) or []
        random = isinstance(domain, Choice) and "random" in options
        filling[path] = "random" if random else False if isinstance(domain, Maybe) else options[len(options) // 2]
        return filling[path]

    filled = resolve(space.tree, choose)
    try:
        filled.recipe.check()
    except RecipeError:
        return None
    return (filled.recipe, filling) if "random" in filling.values() else None
