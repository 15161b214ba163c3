"""What the baselines showed, for the strategy: a search begins where they ended."""

from __future__ import annotations

from typing import Any

from ..recipe import Recipe
from ..space import Filling, Space
from ..space.domains import Choice, Maybe
from ..transforms.quantize import Quantize
from ..warm.guess import Guess
from .baselines import halfway
from .state import StudyState

WEIGHT = 1.0  # trials that a lesson is worth beyond the one that tries it


def guesses(state: StudyState, space: Space) -> list[Guess]:
    """Values that the baselines speak for: the runtime whose original scored best, where there are
    several, and the runtime and the arithmetic of the plain quantization that scored best, if it
    scored better than the original and is within the floor."""
    out: list[Guess] = []
    paths = {h.path: h.domain for h in space.holes}
    ways = paths.get("target")
    able = ways.items if isinstance(ways, Choice) else ()
    plain = {label: (e, Recipe.from_json(e.recipe).steps) for label, e in state.baselines.items()}
    timed = {e.target: e for e, steps in plain.values() if not steps}
    timed = {t: timed[t] for t in able if t in timed}
    if timed and len({e.target for e, steps in plain.values() if not steps}) > 1:
        out.append(Guess({"target": min(timed, key=lambda t: state.score(timed[t]))}, WEIGHT))
    quantized = [(e, s[0]) for e, s in plain.values() if len(s) == 1 and isinstance(s[0], Quantize)]
    for e, step in sorted(quantized, key=lambda found: state.score(found[0])):
        if state.score(e) >= 0 or any("chance" in v for v in e.violations):
            continue
        values: dict[str, Any] = _arithmetic(paths, step.scheme)
        if able and e.target in able:
            values["target"] = e.target
        if values.keys() - {"target"} and (not able or "target" in values):
            out.append(Guess(values, WEIGHT))
            break
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


def _arithmetic(paths: dict[str, Any], scheme: str) -> dict[str, Any]:
    """The holes that make a step of the space this plain quantization: it is there, with this
    scheme; {} if no filling has it."""
    out: dict[str, Any] = {}
    for path, domain in paths.items():
        if isinstance(domain, Maybe) and isinstance(domain.item, Quantize):
            if isinstance(domain.item.scheme, str) and domain.item.scheme != scheme:
                return {}
            out[path] = True
        elif path.split(".")[-1] == "scheme" and isinstance(domain, Choice):
            if scheme not in domain.items:
                return {}
            out[path] = scheme
        elif isinstance(domain, Choice):
            for name in domain.options(len(domain.items)) or []:
                ways = [part for part, _ in domain.branches(name, path) if isinstance(part, Quantize)]
                if any(way.scheme == scheme for way in ways):
                    out.setdefault(path, name)
    return out
