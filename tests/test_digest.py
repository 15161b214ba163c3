"""What a digest hears of a history, and that each reader holds the same whether it followed the
history or read it anew."""

import gc
import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.digest import Digest
from featherweight.errors import InputError
from featherweight.records import History, Trial
from featherweight.registry import find
from featherweight.seeding import generator
from featherweight.strategies import gradient
from featherweight.strategies.adaptive import Adaptive
from featherweight.strategies.adaptive.arms import Ledger
from featherweight.strategies.genetic import _Elite
from featherweight.strategies.greedy import Greedy, _Index
from featherweight.strategies.shared.ranked import Outcomes
from featherweight.surrogate.observed import Observed
from featherweight.warm.strategy import Warm, _View
from tests.strategies.problems import SPACE, separable


class Heard(Digest):
    """Writes down what it hears."""

    def __init__(self, *key):
        super().__init__()
        self.key, self.calls = key, []

    def begun(self, trial):
        self.calls.append(("begun", trial.number, trial.state, trial.values))

    def told(self, trial):
        self.calls.append(("told", trial.number, trial.state, trial.values))

    def resumed(self, trial):
        self.calls.append(("resumed", trial.number, trial.state, trial.values))


@pytest.mark.parametrize(
    ("states", "calls"),
    [
        ("running running", "begun"),
        ("complete complete", "begun, told complete"),
        ("running complete complete", "begun, told complete"),
        ("running failed", "begun, told failed"),
        ("stopped stopped", "begun, told stopped"),
        ("running stopped stopped", "begun, told stopped"),
        ("stopped running running", "begun, told stopped, resumed running"),
        ("stopped running complete complete", "begun, told stopped, resumed running, told complete"),
        ("stopped running failed", "begun, told stopped, resumed running, told failed"),
        ("stopped running stopped stopped", "begun, told stopped, resumed running, told stopped"),
        ("stopped complete", "begun, told stopped, told complete"),
        ("stopped failed", "begun, told stopped, told failed"),
        (
            "running stopped running stopped complete",
            "begun, told stopped, resumed running, told stopped, told complete",
        ),
    ],
)
def test_a_trial_is_told_when_its_state_is_another_than_at_the_last_update(states, calls):
    history, heard = History([Trial(0, {})]), Heard()
    for state in states.split():
        history[0].state, history[0].values = state, (1.0,) if state == "complete" else None
        heard.update(history)
    assert [
        " ".join((kind, state) if kind != "begun" else (kind,)) for kind, _, state, _ in heard.calls
    ] == calls.split(", ")
    assert heard.open == ([] if history[0].state in ("complete", "failed") else [0])


STATES = ("running", "complete", "failed", "stopped")
EVENTS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(STATES), st.integers(1, 3), st.booleans()), min_size=5, max_size=60
)


def follow(events, *digests):
    """A history in which the events happened, two objectives a trial; the digests are brought up to
    date after those that say so, and at the end."""
    history = History()
    for number, state, value, read in events:
        if number >= len(history):
            number = len(history)
            history.add(Trial(number, SPACE.sample(generator(number)), note={"arm": "ab"[number % 2]}))
        trial = history[number]
        if trial.open:
            trial.state, trial.values = state, (value / 2, 2.0 / value) if state == "complete" else None
            trial.violation = 0.5 * (value == 3) if state == "complete" else 0.0
        for digest in digests if read else ():
            digest.update(history)
    for digest in digests:
        digest.update(history)
    return history


@given(EVENTS)
@settings(max_examples=300, deadline=None)
def test_each_update_tells_what_is_new_in_order_and_in_the_end_all_is_told(events):
    updates, heard = [], Heard()

    class Cut(Digest):
        def update(self, history):
            updates.append(([t.number for t in history], [t.state for t in history], list(heard.calls)))
            heard.calls.clear()

    history = follow(events, heard, Cut())
    last, known = {}, 0
    for numbers, states, calls in updates:
        fresh = [("begun", n) for n in numbers[known:]]
        changed = [n for n in numbers if states[n] != last.get(n, "running")]
        assert [c[:2] for c in calls] == fresh + [("resumed" if states[n] == "running" else "told", n) for n in changed]
        assert all(state == states[n] for _, n, state, _ in calls)
        known, last = len(numbers), dict(enumerate(states))
    assert heard.open == [t.number for t in history if t.open] and heard.read == len(history)


def arrays(n, *columns):
    return [np.nan_to_num(np.asarray(c[:n], dtype=float), nan=-1.0, posinf=-2.0).tolist() for c in columns]


class Fold(gradient._Fold):
    def update(self, history):
        super().update(history)
        self.now(history)  # keeps the generations that have ended


def beliefs(fold, history):
    found = fold.now(history)
    return {p: q.tolist() for p, q in found.q.items()}, found.mu.tolist(), found.sigma.tolist(), found.s.tolist()


def index(known, history):
    # a trial without values may have no row yet
    ranks = np.full((len(history), 1 + known.objectives), math.inf)
    if known.objectives:
        ranks[: len(known.ranks)] = known.ranks[: len(history)]
    return known.seen, known.having, ranks.tolist()


def view(seen, history):
    return list(seen.history), seen.best


def outcomes(told, history):
    return sorted(zip(told.numbers[: told.count].tolist(), told.rows[: told.count].tolist(), strict=True))


def elite(found, history):
    return (
        found.objectives,
        found.level,
        sorted(zip(found.numbers, map(tuple, [] if found.rows is None else found.rows), strict=True)),
    )


def ledger(book, history):
    return (
        arrays(len(history), book.rows, book.dominators, book.ended),
        book.accounts(),
        [list(view) for view in book.views.values()],
    )


def observed(seen, history):  # of trials that do not run
    rows = zip(*arrays(len(history), seen.x, seen.values, seen.violation, seen.fate), strict=True)
    return [row for row, trial in zip(rows, history, strict=True) if trial.state != "running"], seen.running


READERS = [  # how it is made, and what it holds
    (_Elite, elite),
    (Outcomes, outcomes),
    (lambda: _Index(SPACE), index),
    (lambda: Ledger("ab"), ledger),
    (lambda: _View(()), view),
    (lambda: Fold(SPACE, gradient.Gradient()), beliefs),
    (lambda: Observed(SPACE), observed),
]


@pytest.mark.parametrize(("make", "held"), READERS, ids=[held.__name__ for _, held in READERS])
@given(events=EVENTS)
@settings(max_examples=100, deadline=None)
def test_a_reader_that_followed_a_history_holds_what_one_does_that_reads_it_anew(make, held, events):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient, "_STRIDE", 2)
        followed, anew = make(), make()
        history = follow(events, followed)
        anew.update(history)
        assert held(followed, history) == held(anew, history)


def test_what_raises_is_told_again():
    history = History([Trial(0, {}, "complete", (1.0,)), Trial(1, {}, "complete", (1.0, 2.0)), Trial(2, {}, "failed")])
    counted = []

    class Strict(Heard):
        def told(self, trial):
            counted.append(trial.number)
            super().told(trial)
            if trial.state == "complete":
                trial.objectives(1)

    strict = Strict()
    for _ in range(2):
        with pytest.raises(InputError, match="trial 1 has another number of objectives") as error:
            strict.update(history)
    assert (error.value.got, error.value.allowed) == (2, 1)
    assert counted == [0, 1, 1] and [c[0] for c in strict.calls].count("begun") == 3


def test_one_is_kept_for_each_history_key_and_class_and_for_the_space_it_was_made_in():
    class Other(Heard):
        pass

    history, other = History(), object()
    one = Heard.of(history, "a")
    history.add(Trial(0, {}))
    assert Heard.of(history, "a") is one and one.read == 1 and one.key == ("a",)
    distinct = [
        one,
        Heard.of(history),
        Heard.of(history, "a", 1),
        Other.of(history, "a"),
        Heard.of(History(history), "a"),
    ]
    assert len(set(map(id, distinct))) == 5 and all(d.read == 1 for d in distinct)
    placed = Heard.of(history, "a", space=SPACE)
    assert placed is not one and placed.key == (SPACE, "a") and Heard.of(history, "a", space=SPACE) is placed
    assert Heard.of(history, "a", space=other) is not placed
    # the last space counts: as many spaces as there are proposals may come
    assert Heard.of(history, "a", space=SPACE) not in (one, placed)


KEEPING = [
    find("strategies", name)
    for name in ("bayesian", "cmaes", "genetic", "gradient", "greedy", "oneshot", "quasirandom")
]


@pytest.mark.parametrize("make", [*KEEPING, lambda: Adaptive(("genetic", "bayesian")), lambda: Warm(Greedy())])
def test_what_is_kept_of_a_history_goes_with_it(make):
    history = History()
    for i in range(24):
        filling = SPACE.sample(generator(i))
        history.add(Trial(i, filling, "complete" if i % 5 else STATES[i // 5 % 4], separable(filling)[0]))
    assert make().propose(SPACE, history, 2, generator(0))
    gone = weakref.ref(history)
    del history
    gc.collect()
    assert gone() is None
