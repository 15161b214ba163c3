"""What every study measures besides its trials: the front table is worth nothing without them."""

from __future__ import annotations

from typing import Any

from ..errors import FeatherweightError, RecipeError
from ..recipe import Recipe
from ..space import Domain, Space, resolve
from ..space.domains import Choice, Maybe
from ..targets.base import Target
from ..transforms.quantize import Quantize
from .config import Config
from .jobs import Jobs


def measure_baselines(jobs: Jobs, space: Space) -> None:
    """The original on every runtime, plain int8, and random cutting: measured like any candidate.
    What there was no time for is not there, and is measured when the study is resumed with more."""
    log, state, clock, stop = jobs.log, jobs.log.state, jobs.clock, jobs.stop
    log.record("phase", {"name": "baseline"})
    for label, recipe, target in baseline_candidates(jobs.config, space):
        first = label == "baseline"
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
        elif first and stop.asked:  # there is nothing to finish with
            raise KeyboardInterrupt
        elif first:
            late = "give the search more time: raise the budget's minutes" if clock.out_of_time() else None
            raise FeatherweightError(
                "the baseline cannot be made, so there is nothing to compare with", got=outcome.reason, fix=late
            )
        elif not stop.asked and not clock.out_of_time():
            log.record("baseline_failed", {"label": label, "reason": outcome.reason}, key=f"baseline {label}")


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
