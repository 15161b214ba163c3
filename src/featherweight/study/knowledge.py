"""What the strategy of a study is told before it proposes: the user's guesses, earlier studies,
a supernet's ranking."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.messages import RelaxJob
from ..errors import FeatherweightError
from ..seeding import derive, generator
from ..space import Filling, Space
from ..strategies.base import Strategy
from ..warm.earlier import Earlier
from ..warm.guess import Guess
from ..warm.portfolio import warmed
from ..warm.strategy import Warm
from . import lessons
from .config import Config
from .jobs import Jobs
from .log import Log
from .reading import read_state
from .state import StudyState

TOLD = 5  # of a supernet's ranking, to a strategy that takes no ranking
# equal in studies whose values mean the same
_COMPARABLE = ("fingerprint", "baseline", "minimize", "constraints", "recipe", "target")


def train_supernet(jobs: Jobs, space: Space, strategy: Strategy) -> Strategy:
    """If the request wants one: train a net that holds all of the space (once a study);
    the strategy with its ranking."""
    config, log, stop = jobs.config, jobs.log, jobs.stop
    if config.supernet is None or stop.asked:
        return strategy
    if log.state.relaxed is None:
        log.record("phase", {"name": "supernet"})
        net = config.recipe["recipe"][0]["build"]["net"]
        settings = {"method": config.supernet, "device": config.device, "prefix": "build.net"}
        job = RelaxJob(net=net, settings=settings, seed=derive(config.seed, "relax"))
        outcome = jobs.run_one(job, jobs.clock.timeout())
        if outcome.kind != "finished":
            if stop.asked or jobs.clock.out_of_time():
                return strategy
            raise FeatherweightError("the supernet cannot be trained", got=outcome.reason)
        log.record("relaxed", {"relaxed": outcome.result["relaxed"]}, key="relaxed")
    relaxed = log.state.relaxed
    return with_ranking(strategy, space, relaxed["ranked"], config.seed) if relaxed is not None else strategy


def with_earlier(log: Log, config: Config, space: Space, strategy: Strategy) -> Strategy:
    """The strategy with what the user guesses and what earlier studies found; logged once, so that
    a resumed study knows the same."""
    if log.state.warm is None and not len(log.state.trials):
        fields = knowledge(config, strategy, space, log.state)
        if fields is not None:
            log.record("warm", {"warm": fields}, key="warm")
    return with_knowledge(strategy, log.state.warm) if log.state.warm is not None else strategy


def knowledge(config: Config, strategy: Strategy, space: Space, state: StudyState) -> dict[str, Any] | None:
    """The fields of `Warm`, as JSON data to log, of the guesses and earlier studies that config
    names, and of what this study's baselines showed; None if there is nothing.

    InputError for a guess that does not fit the space, or an earlier study that has no
    finished trial in it."""
    earlier = [_earlier(Path(folder), config) for folder in config.earlier]
    guesses = [*config.guesses, *lessons.guesses(state, space)]
    seen = tuple(json.dumps(o, sort_keys=True) for o in lessons.observations(state, space))
    made = warmed(strategy, space, guesses, earlier, generator(config.seed, "warm"))
    if not isinstance(made, Warm) or made is strategy:
        if not seen:
            return None
        made = Warm(strategy)
    made = dataclasses.replace(made, earlier=(*made.earlier, *seen))
    fields: dict[str, Any] = json.loads(
        json.dumps({f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.name != "inner"})
    )
    return fields


def with_knowledge(strategy: Strategy, fields: dict[str, Any]) -> Strategy:
    """The strategy with what `knowledge` gave, so that a study that is resumed knows the same."""
    tuples: dict[str, Any] = {
        k: tuple(tuple(x) if isinstance(x, list) else x for x in v) if isinstance(v, list) else v
        for k, v in fields.items()
    }
    return Warm(strategy, **tuples)


def with_ranking(strategy: Strategy, space: Space, ranked: Sequence[Filling], seed: int) -> Strategy:
    """The strategy with a supernet's ranking, best first: as its field `ranked`, or, if it has
    none, with the first `TOLD` to try before all."""
    if any(f.name == "ranked" for f in dataclasses.fields(strategy)):  # type: ignore[arg-type]
        return dataclasses.replace(strategy, ranked=tuple(map(json.dumps, ranked)))  # type: ignore[type-var]
    return warmed(strategy, space, [Guess(filling, 0.0) for filling in ranked[:TOLD]], (), generator(seed, "ranked"))


def _earlier(folder: Path, config: Config) -> Earlier:
    state, mine = read_state(folder), config.to_json()
    theirs = state.config.to_json() if state.config is not None else {}
    same = all(theirs.get(k) == mine[k] for k in _COMPARABLE)
    return Earlier(folder.name, state.trials, same)
