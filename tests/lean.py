"""Tests that take less: the baselines that most tests do not look at take longer than their
trials, tiny nets need one thread, and of many cases of a kind some stand for all."""

from unittest.mock import patch

import pytest

from featherweight.study.baselines import baseline_candidates
from featherweight.targets.base import Target

BASELINES = "featherweight.study.baselines.baseline_candidates"  # what a study asks
PROCESSES = "featherweight.study.race.PROCESSES"  # in which the best is timed again


def start(baselines):
    """To be called first in a program of its own: its studies have these baselines,
    one worker with one thread, and time their best once more."""
    patch(BASELINES, baselines).start()
    patch("os.cpu_count", one_processor).start()
    patch(PROCESSES, 1).start()


def some(cases, quick):
    """The cases of a test, all but `quick` of them slow: `make test-all` runs those."""
    assert set(quick) <= set(cases)
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def one_processor():
    return 1


def without_torch(config, space):
    """All but the original on the torch runtime, whose process takes five times what
    another one takes."""
    return [
        (label, recipe, target)
        for label, recipe, target in baseline_candidates(config, space)
        if Target.parse(target).runtime != "torch"
    ]


def reference_only(config, space):
    """The baseline that everything is compared with, and no other."""
    return baseline_candidates(config, space)[:1]
