"""What becomes of a strategy that fails."""

from types import SimpleNamespace

import pytest

from featherweight.errors import FeatherweightError
from featherweight.records import History
from featherweight.strategies.base import Strategy
from featherweight.study.search import Search


class Mine(Strategy):
    def propose(self, space, history, n, rng):
        return {}["prune.ration"]


class Ours(Mine):
    pass


Ours.__module__ = "featherweight.strategies.ours"


def search(strategy):
    made = Search.__new__(Search)
    made.state = SimpleNamespace(trials=History())
    made.config = SimpleNamespace(seed=0, strategy="mine")
    made.space, made.strategy = None, strategy
    return made


def test_a_plug_in_that_fails_is_named_with_its_package():
    with pytest.raises(FeatherweightError, match="strategy 'mine' failed") as e:
        search(Mine()).propose()
    assert "KeyError: 'prune.ration'" in str(e.value) and Mine.__module__ in str(e.value)


def test_our_own_failure_stays_a_bug():
    with pytest.raises(KeyError):
        search(Ours()).propose()
