"""Climb: the suite, what it proposes, edges, and that it climbs."""

import numpy as np
import pytest
from featherweight_extras.climb import Climb

import featherweight as fw
from featherweight.records import History, Trial
from featherweight.space import Space
from featherweight.testing import check_strategy

RECIPE = fw.Recipe(
    fw.Prune(ratio=fw.Float(0.0, 0.9, step=0.1), round_to=fw.Int(1, 20)),
    fw.Train(epochs=fw.Int(1, 20)),
)


def run(strategy, trials, seed=0):
    """The trials of a search for 0.5, 10 and 15, without training anything."""
    space, history, rng = Space(RECIPE), History(), np.random.default_rng(seed)
    for number in range(trials):
        proposal = strategy.propose(space, history, 1, rng)[0]
        ratio, round_to, epochs = (proposal.filling[hole.path] for hole in space)
        value = 1 + abs(ratio - 0.5) + abs(round_to - 10) / 20 + abs(epochs - 15) / 20
        history.add(Trial(number, proposal.filling, "complete", (value,), note=proposal.note))
    return list(history)


@pytest.mark.parametrize("explore", [0.0, 0.1, 1.0])
def test_it_passes_the_suite(explore):
    check_strategy(Climb(explore))


def test_it_changes_one_hole_of_the_best():
    trials = run(Climb(explore=0.0), 12)
    for trial in trials[1:]:
        best = min(trials[: trial.number], key=lambda t: t.values)
        assert trial.note == {"from": best.number}
        assert sum(trial.filling[k] != v for k, v in best.filling.items()) == 1


def test_a_share_is_a_share():
    with pytest.raises(fw.FeatherweightError, match="explore is a share"):
        Climb(explore=1.5)


def test_it_climbs():
    def best(strategy, seed):
        return min(t.values[0] for t in run(strategy, 40, seed))

    climbed, drawn = (np.mean([best(Climb(e), s) for s in range(5)]) for e in (0.1, 1.0))
    assert climbed - 1 < 0.5 * (drawn - 1)
