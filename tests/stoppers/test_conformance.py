"""Every stopper passes the suite that the package ships; and the suite finds what it
is there to find."""

import dataclasses

import pytest

from featherweight import registry
from featherweight.errors import InputError
from featherweight.stoppers.asha import Asha
from featherweight.stoppers.base import Stopper
from featherweight.stoppers.hyperband import Hyperband
from featherweight.stoppers.median import Median
from featherweight.stoppers.successive_halving import SuccessiveHalving
from featherweight.testing import check_stopper

SETTINGS = [
    Asha(),
    Asha(min_budget=2, max_budget=20, eta=2),
    Asha(type="stopping"),
    Hyperband(max_budget=27),
    Hyperband(min_budget=3, max_budget=20, eta=2),
    Asha(min_budget=0.1, eta=3),
    Hyperband(min_budget=0.25, max_budget=10, eta=3),
    Median(min_budget=0.5, every=0.25),
    SuccessiveHalving(min_budget=0.5, eta=2),
    Median(),
    Median(min_budget=4, every=3, trials=2),
    SuccessiveHalving(),
    SuccessiveHalving(trials=16, eta=4),
]


@pytest.mark.parametrize("stopper", SETTINGS, ids=repr)
def test_stopper(stopper):
    check_stopper(stopper)


def test_all_are_there():
    assert (
        set(registry.names("stoppers"))
        == {"asha", "hyperband", "median", "successive_halving"}
        == {_kind(s) for s in SETTINGS}
    )


def _kind(stopper):
    return next(k for k in registry.names("stoppers") if registry.find("stoppers", k) is type(stopper))


@dataclasses.dataclass(frozen=True)
class Broken(Stopper):
    how: str

    def rungs(self, trial, of):
        return (
            (3, 1)
            if self.how == "rungs fall"
            else tuple(r for r in (1, 3, of if self.how == "rung at the end" else 9) if 0 < r <= of)[
                : of if of < 3 else 3
            ]
        )

    def decide(self, reports, trial, step):
        return True if self.how != "order decides" else trial == next(iter(reports))

    def promote(self, reports, states, closed=False):
        if self.how == "promotes the dead":
            return next(iter(states), None)
        return next((t for t in sorted(states) if states[t] == "paused"), None) if self.how == "order decides" else None


@pytest.mark.parametrize("how", ["rungs fall", "rung at the end", "order decides", "promotes the dead", "nothing ends"])
def test_the_suite_finds_faults(how):
    with pytest.raises(AssertionError):
        check_stopper(Broken(how))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Asha(min_budget=0),
        lambda: Asha(min_budget=float("nan")),
        lambda: Asha(min_budget="1"),
        lambda: Median(every=0),
        lambda: Asha(min_budget=5, max_budget=4),
        lambda: Asha(eta=1),
        lambda: Asha(type="other"),
        lambda: Median(trials=0),
        lambda: SuccessiveHalving(trials=0),
        lambda: Hyperband().brackets,
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(InputError):
        make()
