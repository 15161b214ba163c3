"""What every strategy has to do: valid fillings, none twice, the same ones again after a restart.

Use it in the tests of a plug-in: `check_strategy(MyStrategy())`.
It raises AssertionError with what went wrong.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recipe import Recipe, Transform
from ..records import History, Trial
from ..seeding import generator
from ..space import Choice, Float, Int, Maybe, Order, Space
from ..space.space import key
from ..strategies.base import Proposal, Strategy

# sets state, values and violation of a trial that ran
Outcome = Callable[[Trial, np.random.Generator], None]


@dataclass(frozen=True)
class Step(Transform):
    """A transform that is never run: two numbers, a name, and a field for a recipe."""

    a: float = 0.0
    b: int = 1
    mode: Any = "x"
    inner: Any = None


@dataclass(frozen=True)
class Other(Transform):
    """A second kind."""

    c: float = 0.0
    mode: Any = "x"


def finite_space() -> Space:
    """24 fillings: conditional holes below a Maybe and below the recipes of a Choice."""
    return Space(
        Recipe(
            Step(a=Float(0, 1, step=0.5), mode=Choice("x", True)),
            Choice(Recipe(Step(), Other(mode=Choice(1, 1.0))), Maybe(Other()), name="which"),
        )
    )


def mixed_space() -> Space:
    """Every domain, nested: also a recipe in a field, holes below an Order,
    and a hole with a single value."""
    return Space(
        Recipe(
            Step(
                a=Float(1e-4, 1e-1, log=True),
                b=Int(1, 64, log=True),
                mode=Choice("x", "y", "z"),
                inner=Recipe(Other(c=Float(0, 1))),
            ),
            Maybe(Step(a=Float(-1, 1, step=0.25), b=Int(0, 6, step=2), mode=Maybe(Choice(1, 2.5, None, True)))),
            Order(
                Other(c=Float(0.0, 0.5)),
                Maybe(Step(a=Float(3.0, 3.0))),
                Choice(Recipe(Step(b=Int(1, 3)), Other()), Recipe(Other(mode=Choice("only"))), name="pair"),
            ),
        )
    )


def check_strategy(strategy: Strategy) -> None:
    """Run the whole suite (a few seconds at most for a strategy of average speed)."""
    check_no_holes(strategy)
    check_exhaustion(strategy)
    for workers, objectives, trials in ((1, 1, 21), (3, 2, 36), (2, 3, 18)):
        check_replay(strategy, mixed_space(), workers, objectives, trials)
    check_replay(strategy, finite_space(), 2, 2, trials=18)
    check_batches(strategy)


def check_no_holes(strategy: Strategy) -> None:
    """A space without holes has one filling, the empty one."""
    space, history = Space(Recipe(Step())), History()
    first = strategy.propose(space, history, 3, generator(0))
    assert [p.filling for p in first] == [{}], f"a space without holes has the one filling {{}}, got {first}"
    history.add(Trial(0, {}, note=first[0].note))
    assert not strategy.propose(space, history, 1, generator(1)), "the one filling was proposed again"


def check_exhaustion(strategy: Strategy) -> None:
    """Every filling of a finite space is proposed once, then nothing is;
    whatever became of the trials."""
    for n, outcome in ((1, finished), (5, mishaps)):
        space, history = finite_space(), History()
        while len(history) <= space.size:
            proposals = strategy.propose(space, history, n, generator(len(history)))
            if not proposals:
                break
            _valid(space, history, proposals, n)
            for p in proposals:
                trial = Trial(len(history), p.filling, note=_json(p.note))
                outcome(trial, generator(1, trial.number))
                history.add(trial)
        assert history.distinct == len(history) == space.size, (
            f"{history.distinct} of the {space.size} fillings were proposed, in {len(history)} trials"
        )


def check_replay(strategy: Strategy, space: Space, workers: int, objectives: int, trials: int = 36) -> None:
    """With some trials running, failed, stopped (some of which go on later) or infeasible:
    proposals are valid and new; asking twice gives the same, and so does a history that was written
    and read again, as after a restart."""
    history, rng = History(), generator(5, workers, objectives)
    while len(history) < trials:
        running = [t for t in history if t.state == "running"]
        if len(running) >= workers:
            mishaps(running[int(rng.integers(len(running)))], rng, objectives)
            paused = [t for t in history if t.state == "stopped" and t.values is None]
            # a stopper had put it down; now it has gone on to its end
            if paused and rng.random() < 0.3:
                finished(paused[0], rng, objectives)
            continue
        before = [dataclasses.replace(t) for t in history]
        proposals = strategy.propose(space, history, 1, generator(7, len(history)))
        _valid(space, history, proposals, 1)
        assert len(proposals) == 1, (
            f"nothing was proposed after {len(history)} trials in a space of {space.size} fillings"
        )
        assert list(history) == before, "propose changed the history"
        if len(history) % 5 == 0:
            again = strategy.propose(space, history, 1, generator(7, len(history)))
            assert _plain(again) == _plain(proposals), f"the same call gave {_plain(proposals)}, then {_plain(again)}"
            replayed = strategy.propose(space, restarted(history), 1, generator(7, len(history)))
            assert _plain(replayed) == _plain(proposals), (
                f"after a restart {_plain(replayed)}, without {_plain(proposals)}"
            )
        history.add(Trial(len(history), proposals[0].filling, note=_json(proposals[0].note)))


def check_batches(strategy: Strategy) -> None:
    """Several proposals at once are different ones; none are given when none are asked for."""
    space, history = mixed_space(), History()
    assert len(strategy.propose(space, history, 0, generator(0))) == 0, "0 proposals were asked for"
    for batch in range(3):
        proposals = strategy.propose(space, history, 6, generator(3, batch))
        _valid(space, history, proposals, 6)
        assert len(proposals) == 6, f"6 proposals were asked for, {len(proposals)} came, of a space without end"
        for p in proposals:
            trial = Trial(len(history), p.filling, note=_json(p.note))
            finished(trial, generator(9, trial.number))
            history.add(trial)


def finished(trial: Trial, rng: np.random.Generator, objectives: int = 2) -> None:
    """The trial finished with values."""
    trial.state, trial.violation = "complete", 0.0
    trial.values = tuple(float(v) for v in rng.uniform(0.2, 2.0, objectives))


def mishaps(trial: Trial, rng: np.random.Generator, objectives: int = 2) -> None:
    """The trial failed, was stopped, broke a constraint, gave a value that is no
    number, or finished."""
    finished(trial, rng, objectives)
    fate = int(rng.integers(7))
    if fate == 0:
        trial.state, trial.values = "failed", None
    elif fate == 1:
        trial.state, trial.values = "stopped", None
    elif fate == 2:
        trial.values = (math.nan, *(trial.values or ())[1:])
    elif fate <= 4:
        trial.violation = float(rng.uniform(0.0, 3.0))


def restarted(history: History) -> History:
    """The history as it is after it has been written to a store and read again:
    JSON, keys in another order."""
    return History(
        Trial(t.number, _json(t.filling), t.state, t.values, t.violation, t.cost_s, _json(t.note)) for t in history
    )


def _json(data: Any) -> Any:
    return json.loads(json.dumps(data, sort_keys=True, allow_nan=False))


def _plain(proposals: Sequence[Proposal]) -> list[tuple[str, Any]]:
    return [(key(p.filling), _json(p.note)) for p in proposals]


def _valid(space: Space, history: History, proposals: Sequence[Proposal], n: int) -> None:
    """At most `n` proposals, each a filling that the space accepts as it is, and new unless the
    space is infinite and coarse."""
    assert len(proposals) <= n, f"{n} proposals were asked for, {len(proposals)} came"
    keys = [key(p.filling) for p in proposals]
    assert len(set(keys)) == len(keys), f"a filling twice in one answer: {keys}"
    for p in proposals:
        space.fill(p.filling)
        canonical = space.complete(p.filling, None)
        assert key(canonical) == key(p.filling), f"{p.filling} is written {canonical} in the space's own form"
        assert key(_json(p.filling)) == key(p.filling), f"{p.filling} does not survive JSON"
        assert not history.seen(p.filling), f"{p.filling} was proposed before"
