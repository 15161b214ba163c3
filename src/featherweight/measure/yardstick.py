"""What other learners make of a task, next to which a model can be seen."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Quality


@dataclass(frozen=True)
class Yardstick:
    """name: of the learner; metric: its value on the validation split, with its interval; seconds:
    that fitting took, on all cores."""

    name: str
    metric: Quality
    seconds: float
