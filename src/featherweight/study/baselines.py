"""What every study measures besides its trials: the front table is worth nothing without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import FeatherweightError, RecipeError
from ..recipe import Recipe
from ..space import Domain, Space, resolve
from ..space.domains import Choice, Maybe
from ..targets.base import Target
from ..transforms.quantize import Quantize
from ..transforms.train import Train
from .config import Config
from .jobs import Jobs
from .request import floor_refused


def measure_baselines(jobs: Jobs, space: Space, guess: Callable[[], tuple[float, str] | None]) -> None:
    """The original on every runtime, plain int8, and random cutting: measured like any candidate.
    What there was no time for is not there, and is measured when the study is resumed with more.

    guess: see `guessing.guess`. FeatherweightError if there is nothing to compare with, or nothing
    worth comparing with (`check_original`)."""
    log, state, clock, stop = jobs.log, jobs.log.state, jobs.clock, jobs.stop
    log.record("phase", {"name": "baseline"})
    for label, recipe, target in baseline_candidates(jobs.config, space):
        first = label == "baseline"
        if label in state.baselines and first:
            check_original(jobs, guess)
        if label in state.baselines or label in state.failed_baselines or (stop.asked and not first):
            continue
        if not first and clock.out_of_time():
            log.warn(f"no time for the baseline '{label}'")
            continue
        outcome = jobs.run_one(jobs.trial_job(recipe, target, label), clock.timeout())
        if outcome.kind == "finished":
            log.record(
                "baseline", {k: outcome.result[k] for k in ("entry", "steps", "reused")}, key=f"baseline {label}"
            )
            if first:
                check_original(jobs, guess)
        elif first and stop.asked:  # there is nothing to finish with
            raise KeyboardInterrupt
        elif first:
            late = "give the search more time: raise the budget's minutes" if clock.out_of_time() else None
            raise FeatherweightError(
                "the baseline cannot be made, so there is nothing to compare with", got=outcome.reason, fix=late
            )
        elif not stop.asked and not clock.out_of_time():
            log.record("baseline_failed", {"label": label, "reason": outcome.reason}, key=f"baseline {label}")


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
    if known is not None and sign * (found.value - known[0]) <= 0:
        raise FeatherweightError(
            "the original model is no better than guessing, so there is nothing to keep",
            got=f"{found.name} {found.value:.4g} on the validation split; {known[1]}: {known[0]:.4g}",
            allowed="a trained model",
            fix="train it (Task(baseline=Recipe(Train(..)))) and check that its inputs are prepared as in training; "
            "or go on all the same: --force, or force=True",
        )


def baseline_candidates(config: Config, space: Space) -> list[tuple[str, Recipe, str]]:
    """(label, recipe, target) of the baselines, the reference first."""
    reference = config.target.reference
    choices = config.target.runtimes
    out: list[tuple[str, Recipe, str]] = [("baseline", Recipe(), reference)]
    out += [(extra["label"], Recipe.from_json(extra["recipe"]), reference) for extra in config.extra_baselines]
    name = "fixed net" if config.baseline else "original"
    out += [(f"{name} on {t}", Recipe(), t) for t in config.target.originals if t != reference]
    plain = Quantize()
    able = [
        t
        for t in dict.fromkeys([reference, *choices])
        if Target.parse(t).load_runtime().problem(Target.parse(t), plain.plan()) is None
    ]
    out += [("plain int8" if t == reference else f"plain int8 on {t}", Recipe(plain), t) for t in able]
    random_cut = random_cutting(space)
    if random_cut is not None:
        out.append(("random cutting", random_cut, reference))
    return out


def random_cutting(space: Space) -> Recipe | None:
    """The recipe with every criterion random, what may be left out left out, and the middle of
    every other range; None if it cuts nothing."""
    cuts = False

    def choose(path: str, domain: Domain) -> Any:
        nonlocal cuts
        options = domain.options(3) or []
        if isinstance(domain, Choice) and "random" in options:
            cuts = True
            return "random"
        return False if isinstance(domain, Maybe) else options[len(options) // 2]

    filled = resolve(space.tree, choose)
    try:
        filled.recipe.check()
    except RecipeError:
        return None
    return filled.recipe if cuts else None
