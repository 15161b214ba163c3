"""What a search would take: the space, and the time and memory of a trial,
from a few timed training steps."""

from __future__ import annotations

import math
import resource
import sys
from typing import Any

from ..measure.accuracy import metric_of
from ..proof.chance import attainable, outlook
from ..recipe import Candidate, Recipe, decode
from ..recipes.pace import Pace, pace
from ..space import Domain, Space, resolve
from ..task.task import Task
from .baselines import BASELINES_SHARE, baseline_candidates
from .clock import END_SHARE, LOOKS
from .config import Config
from .noticed import noticed

# export, starting the measuring process and loading the runtime, besides the timing itself:
# the middle of what trials took here (1 to 6)
_FIXED_S = 2.5


def forecast(task: Task, config: Config) -> dict[str, Any]:
    """{"space", "size", "first_s", "baseline_s", "baselines", "trial_s", "trials", "search_s",
    "polish_s", "end_s", "sum_s", "minutes", "within", "total_s", "memory_bytes", "proof", "metric",
    "how"}; trains nothing to the end and writes nothing.

    first_s: seconds until the original is made and measured; baseline_s: of all `baselines`, it
    among them; trial_s: of a trial whose holes have their middle values, nothing reused; search_s:
    of all `trials` (None, and search_s too: the space has no end); polish_s: of training finalists
    longer; end_s: of certificates and the last timings; sum_s: of these parts; within: how many of
    the trials there is time for in the budget's minutes (None: there is no such end, or all of
    them); total_s: sum_s, or the minutes if they end it; memory_bytes: peak of this process after
    the timed steps, as a worker has it; proof: what the test split can prove
    (`proof.chance.outlook`; None: there is no floor, or the metric is not right or wrong for each
    sample).
    """
    space = Space(Candidate(decode(config.recipe), decode(config.target.choice)))

    def middle(path: str, domain: Domain) -> Any:
        options = domain.options(3) or []
        return options[len(options) // 2]

    usual: Recipe = resolve(space.tree, middle).recipe
    takes = pace(task, _net(usual), config.train_threads)
    splits, budget = task.splits(), config.budget
    n_train, n_valid, n_test = len(splits.train), len(splits.valid), len(splits.test)
    first = Recipe.from_json(config.baseline) if config.baseline else task.baseline or Recipe()
    own = takes if _net(first) is _net(usual) else pace(task, _net(first), config.train_threads)
    measure_s = _FIXED_S + config.measure_seconds + n_valid * takes.forward
    others = len(baseline_candidates(config, space)) - 1
    first_s = _training_s(first, n_train, own) + measure_s
    baseline_s = first_s + others * measure_s
    trial_s = _training_s(usual, n_train, takes) + measure_s
    trials = min(space.size, budget.trials or space.size)
    search_s = trials * trial_s / config.workers
    end_s = (LOOKS / 2 + 1) * (_FIXED_S + n_test * takes.forward) + 2 * measure_s
    minutes = (budget.minutes or math.inf) * 60
    polish_s = min(config.polish / (1 - config.polish) * search_s, config.polish * minutes) if config.polish else 0.0
    sum_s = baseline_s + search_s + polish_s + end_s
    within = None
    if sum_s > minutes:  # other baselines than the first get a fifth, and the rest of them wait
        before = first_s + min(others * measure_s, BASELINES_SHARE * minutes)
        left = minutes - before - min(end_s, END_SHARE * minutes) - config.polish * minutes
        within = max(0, min(int(left * config.workers / trial_s), _whole(trials) or sys.maxsize))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    judged, evidence = metric_of(task), task.splits().report.get("evidence", {}).get("test", n_test)
    floors = {c.quantity: c.bound for c in config.constraints if c.floor and not c.relative}
    known = (
        (outlook(evidence, floors["drop"]) if "drop" in floors else attainable(evidence, floors["metric"]))
        if floors and judged.zero_one
        else None
    )
    return {
        "space": [{"path": h.path, "domain": str(h.domain), "when": [list(w) for w in h.when]} for h in space],
        "size": "inf" if space.size == float("inf") else space.size,
        "first_s": first_s,
        "baseline_s": baseline_s,
        "baselines": 1 + others,
        "trial_s": trial_s,
        "trials": _whole(trials),
        "search_s": search_s if math.isfinite(search_s) else None,
        "polish_s": polish_s if math.isfinite(polish_s) else None,
        "end_s": end_s,
        "sum_s": sum_s if math.isfinite(sum_s) else None,
        "minutes": budget.minutes,
        "within": within,
        "total_s": min(sum_s, minutes),
        "memory_bytes": peak,
        "noticed": noticed(task, config),
        "floor": any(c.floor for c in config.constraints),
        "proof": known,
        "metric": judged.name,
        "how": (
            f"training steps of {takes.samples} samples were timed on one thread, for {config.train_threads}; a trial "
            "is taken with the middle value of every hole and nothing reused, so a search whose candidates share "
            "beginnings takes less"
        ),
    }


def _whole(number: float) -> int | None:
    return int(number) if math.isfinite(number) else None


def _net(recipe: Recipe) -> Any:
    """The description that the recipe builds, None if it begins with the task's own model."""
    return getattr(recipe.steps[0], "net", None) if recipe.steps and recipe.steps[0].starts else None


def _training_s(recipe: Recipe, n: int, takes: Pace) -> float:
    """Seconds of a filled recipe's training: epochs * samples * seconds a sample, with the
    teacher's forward pass for Distill."""
    total = 0.0
    for step in recipe.steps:
        total += getattr(step, "epochs", 0) * n * takes.train
        total += n * takes.forward if step.teaches else 0.0
    return total
