"""What the strategy of a study is told before it proposes: the user's guesses, earlier studies, a supernet's ranking."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .seeding import generator
from .space import Filling, Space
from .state import StudyState
from .store.events import EventStore
from .strategies._warm import Warm
from .strategies.base import Strategy
from .warm import Earlier, Guess, warmed

TOLD = 5  # of a supernet's ranking, to a strategy that takes no ranking
_COMPARABLE = ("fingerprint", "baseline", "minimize", "constraints", "recipe", "target")  # equal in studies whose values mean the same


def known_before(config: dict[str, Any], strategy: Strategy, space: Space) -> dict[str, Any] | None:
    """The fields of `Warm`, as JSON data to log, of the guesses and earlier studies that config names; None if it names none.

    InputError for a guess that does not fit the space, or an earlier study that has no finished trial in it."""
    guesses = [Guess(values, weight) for values, weight in config.get("guesses") or ()]
    earlier = [_earlier(Path(folder), config) for folder in config.get("earlier") or ()]
    if not guesses and not earlier:
        return None
    made = warmed(strategy, space, guesses, earlier, generator(config["seed"], "warm"))
    fields: dict[str, Any] = json.loads(json.dumps({f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.name != "inner"}))  # type: ignore[arg-type]
    return fields


def told(strategy: Strategy, fields: dict[str, Any]) -> Strategy:
    """The strategy with what `known_before` gave, so that a study that is resumed knows the same."""
    tuples: dict[str, Any] = {k: tuple(tuple(x) if isinstance(x, list) else x for x in v) if isinstance(v, list) else v for k, v in fields.items()}
    return Warm(strategy, **tuples)


def told_ranking(strategy: Strategy, space: Space, ranked: Sequence[Filling], seed: int) -> Strategy:
    """The strategy with a supernet's ranking, best first: as its field `ranked`, or, if it has none, with the first `TOLD` to try before all."""
    if any(f.name == "ranked" for f in dataclasses.fields(strategy)):  # type: ignore[arg-type]
        return dataclasses.replace(strategy, ranked=tuple(map(json.dumps, ranked)))  # type: ignore[type-var]
    return warmed(strategy, space, [Guess(filling, 0.0) for filling in ranked[:TOLD]], (), generator(seed, "ranked"))


def _earlier(folder: Path, config: dict[str, Any]) -> Earlier:
    store = EventStore(folder / "study.db")
    try:
        state = StudyState().fold(store.read())
    finally:
        store.close()
    same = all(state.config.get(k) == json.loads(json.dumps(config.get(k))) for k in _COMPARABLE)
    return Earlier(folder.name, state.history, same)
