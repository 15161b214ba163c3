"""What the baselines showed, for the strategy: a search begins where they ended."""

from __future__ import annotations

from typing import Any

from ..recipe import Recipe
from ..records import Entry
from ..space import Filling, Space
from ..space.domains import Choice, Maybe
from ..transforms.quantize import Quantize
from ..warm.guess import Guess
from .baselines import halfway
from .state import StudyState

WEIGHT = 1.0  # trials that a lesson is worth beyond the one that tries it


def guesses(state: StudyState, space: Space) -> list[Guess]:
    """Values that the baselines speak for: the runtime whose original scored best, where there are
    several, and the arithmetic of plain int8, if it scored better than the original and is within
    the floor."""
    out: list[Guess] = []
    paths = {h.path: h.domain for h in space.holes}
    values: dict[str, Any] = {}
    ways = paths.get("target")
    timed = {e.target: e for e in state.baselines.values() if _as_it_is(e)}
    if isinstance(ways, Choice) and len(timed) > 1:
        able = [t for t in ways.items if t in timed]
        if able:
            values["target"] = min(able, key=lambda t: state.score(timed[t]))
            out.append(Guess(dict(values), WEIGHT))
    plain = state.baselines.get("plain int8")
    if plain is not None and state.score(plain) < 0 and not any("chance" in v for v in plain.violations):
        values |= {path: v for path, v in _int8(paths).items() if path not in values}
        if values.keys() - {"target"}:
            out.append(Guess(dict(values), WEIGHT))
    return out


def observations(state: StudyState, space: Space) -> list[dict[str, Any]]:
    """Random cutting as a trial of the space, {"filling", "values", "violation", "note"}: what it
    showed need not be tried again."""
    entry, found = state.baselines.get("random cutting"), halfway(space)
    if entry is None or found is None or found[0].to_json() != entry.recipe:
        return []
    filling: Filling = found[1]
    if "target" in filling:
        if entry.target not in getattr(space["target"].domain, "items", ()):
            return []
        filling = {**filling, "target": entry.target}
    values, violation = state.measured(entry)
    return [{"filling": filling, "values": list(values), "violation": violation, "note": {}}]


def _as_it_is(entry: Entry) -> bool:
    return not Recipe.from_json(entry.recipe).steps


def _int8(paths: dict[str, Any]) -> dict[str, Any]:
    """The holes that make a step of the space plain int8: it is there, with this scheme."""
    out: dict[str, Any] = {}
    for path, domain in paths.items():
        if isinstance(domain, Maybe) and isinstance(domain.item, Quantize):
            out[path] = True
        scheme = isinstance(domain, Choice) and Quantize().scheme in domain.items
        if scheme and path.split(".")[-1] == "scheme":
            out[path] = Quantize().scheme
    return out
