"""Every strategy passes the suite that the package ships; and the suite finds what it
is there to find."""

import dataclasses
import itertools

import pytest

from featherweight import registry
from featherweight.strategies.base import Fresh, Proposal, Strategy
from featherweight.strategies.gp import Gp
from featherweight.strategies.random import Random
from featherweight.testing import check_strategy
from featherweight.testing.strategies import check_exhaustion, check_no_holes, check_replay, finite_space, mixed_space

SLOW = ("gp",)  # half a second a proposal and more


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in registry.names("strategies")]
)
def test_strategy(kind):
    check_strategy(registry.find("strategies", kind)())


def test_gp_in_brief():
    """The suite's properties with a few proposals of the model each."""
    check_no_holes(Gp())
    check_exhaustion(Gp(startup=22))  # of two objectives
    check_replay(Gp(startup=4, most=8), mixed_space(), workers=2, objectives=1, trials=11)


def test_every_strategy_is_there():
    assert {"random", "grid", "greedy", "genetic", "tpe"} <= set(registry.names("strategies"))


def test_spaces_of_the_suite():
    assert finite_space().size == 24
    assert mixed_space().size == float("inf")


class Climb(Strategy):
    """The obvious one of a plug-in: what is next to the latest trials, without a thought for the
    order in which a store keeps keys."""

    def propose(self, space, history, n, rng):
        fresh, out = Fresh(space, history), []
        for _ in range(n):
            around = (f for t in list(history)[::-1] for f in space.neighbours(t.filling, rng) if f in fresh)
            filling = next(around, None) or fresh.sample(rng)
            if filling is None:
                break
            out.append(fresh.take(filling))
        return out


def test_an_obvious_strategy_passes():
    check_strategy(Climb())


@dataclasses.dataclass(frozen=True)
class Broken(Strategy):
    how: str

    def propose(self, space, history, n, rng):
        good = Random().propose(space, history, n, rng)
        if self.how == "repeats" and len(history):
            return [Proposal(history[0].filling)]
        if self.how == "stops early" and len(history) >= 10:
            return []
        if self.how == "never stops" and not good:
            return [Proposal(space.sample(rng))]
        if self.how == "too many":
            return [*good, *(Proposal(space.sample(rng)) for _ in range(1))]
        if self.how == "has state":
            return [Proposal(p.filling, {"call": next(COUNT)}) for p in good]
        if self.how == "invalid":
            return [Proposal({**p.filling, "nonsense": 1}) for p in good]
        if self.how == "object in the note":
            return [Proposal(p.filling, {"x": object()}) for p in good]
        if self.how == "changes history" and len(history):
            history[0].violation = 9.0
        return good


COUNT = itertools.count()


@pytest.mark.parametrize(
    "how",
    [
        "repeats",
        "stops early",
        "never stops",
        "too many",
        "has state",
        "invalid",
        "object in the note",
        "changes history",
    ],
)
def test_suite_finds(how):
    with pytest.raises(Exception) as e:
        check_strategy(Broken(how))
    assert e.type.__name__ in ("AssertionError", "InputError", "TypeError")
