"""What needs no network, or not even the inputs, for the task: said beside what was found, because
a model that is no better than that is not worth its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import FeatherweightError
from ..measure.text_yardsticks import text_yardsticks
from ..measure.yardsticks import Yardstick, yardsticks
from ..records import Quality
from ..task.task import Task
from .jobs import Jobs

SHARE, MOST_S = 0.25, 60.0  # of the time that is left, and seconds, that other learners may take


def others(task: Task, seed: int, within_s: float = math.inf) -> list[Yardstick]:
    """Other learners that are fitted in seconds: of texts TF-IDF, of tables gradient boosting.
    InputError if that would take longer than `within_s`."""
    return text_yardsticks(task, seed, most=0, within_s=within_s) or yardsticks(task, seed, within_s)


def measure_simpler(
    jobs: Jobs, guess: Callable[[], tuple[float, str] | None], others: Callable[[float], Sequence[Yardstick]]
) -> None:
    """Log the answer that looks at no input (`guessing.guess`) and other learners
    (`measure.yardsticks`) on the validation split, once for a study: in a quarter of the time that
    is left, and a minute, at most. What cannot be computed, or not so soon, is a warning."""
    log = jobs.log
    if log.state.yardsticks is not None or jobs.stop.asked:
        return
    log.record("phase", {"name": "simpler"})
    metric, found = log.state.baseline.metric, list[dict[str, Any]]()
    known = guess()
    if known is not None:
        value = Quality(metric.name, known[0], None, metric.n, metric.higher_is_better, "valid")
        found.append({"name": known[1], "metric": value.to_json(), "seconds": 0.0})
    try:
        found += [one.to_json() for one in others(min(MOST_S, SHARE * max(jobs.clock.left(), 0.0)))]
    except (FeatherweightError, ValueError) as e:  # scikit-learn refuses data in its own words
        log.warn(f"no other learner could be compared with: {e}")
    log.record("yardsticks", {"yardsticks": found})
