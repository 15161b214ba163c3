"""What a model is fitted to is the same, whether a history was followed or is read anew."""

import copy

import numpy as np
import pytest

from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Float, Space
from featherweight.strategies.bayesian import Bayesian
from featherweight.surrogate.observed import observed
from featherweight.transforms.prune import Prune

SPACE = Space(Recipe(Prune(ratio=Float(0.0, 0.8))))


def history():
    rng = np.random.default_rng(0)
    return History(
        Trial(i, {"prune.ratio": float(rng.uniform(0, 0.8))}, "complete", (float(rng.uniform(0.5, 2)),), cost_s=1.0 + i)
        for i in range(14)
    )


def states(values):
    """A trial that a stopper put down, that went on, and that was put down again later."""
    yield {"state": "stopped", "cost_s": 1.0, "values": values}
    yield {"state": "running", "cost_s": 1.0, "values": None}
    yield {"state": "stopped", "cost_s": 9.0, "values": values}


@pytest.mark.parametrize("values", [None, (0.7,)], ids=["without values", "with values"])
@pytest.mark.parametrize("looks", [(0, 1, 2), (0, 2)], ids=["watched", "unseen while it ran"])
def test_a_trial_that_goes_on_and_stops_again(values, looks):
    followed = history()
    followed.add(Trial(len(followed), {"prune.ratio": 0.31}))
    trial = followed[len(followed) - 1]
    for step, change in enumerate(states(values)):
        for name, value in change.items():
            setattr(trial, name, value)
        if step not in looks:
            continue
        seen, anew = observed(SPACE, followed), observed(SPACE, copy.deepcopy(followed))
        n = len(followed)
        for name in ("fate", "cost_s", "violation", "values"):
            np.testing.assert_array_equal(
                getattr(seen, name)[:n], getattr(anew, name)[:n], err_msg=f"{name}, step {step}"
            )
        proposals = [Bayesian().propose(SPACE, h, 1, generator(step)) for h in (followed, copy.deepcopy(followed))]
        assert proposals[0] == proposals[1], step
