"""What the baselines showed, for the strategy: a search begins where they ended."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..recipe import Recipe
from ..space import Domain, Filling, Space
from ..space.domains import Choice, Maybe
from ..transforms.quantize import Quantize
from ..warm.guess import Guess
from .baselines import halfway
from .state import StudyState

WEIGHT = 2.0  # trials that a lesson is worth beyond the one that tries it: it was measured


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
    return [guess for guess in out if _fits(guess, space)]


def _fits(guess: Guess, space: Space) -> bool:
    """Is there a filling with all of its values? Not if two of its holes are in branches that
    exclude each other: then the baselines speak for neither."""
    try:
        guess.checked(space)
    except InputError:
        return False
    return True


def observations(state: StudyState, space: Space) -> list[dict[str, Any]]:
    """What the baselines showed as trials of the space, {"filling", "values", "violation", "note"}:
    random cutting, and the original and its plain quantizations, which are the fillings whose other
    steps leave the model as it is (but for a recovery, which has nothing to recover). They need
    not be tried again, and say where the limits hold."""
    found = halfway(space)
    out = []
    for label, entry in state.baselines.items():
        recipe = Recipe.from_json(entry.recipe)
        if label == "random cutting":
            filling = found[1] if found is not None and found[0].to_json() == entry.recipe else None
        else:
            filling = _at_rest(space, recipe)
        if filling is None:
            continue
        if "target" in filling and entry.target in getattr(space["target"].domain, "items", ()):
            filling = {**filling, "target": entry.target}
        if space.fill(filling).target != entry.target:
            continue
        values, violation = state.measured(entry)
        out.append({"filling": filling, "values": list(values), "violation": violation, "note": {"baseline": label}})
    return out


def _at_rest(space: Space, recipe: Recipe) -> Filling | None:
    """The filling in which nothing is done but `recipe` (the original, or its quantization): None
    if there is none."""
    wanted = {step.kind: step for step in recipe.steps}

    def choose(path: str, domain: Domain) -> Any:
        *above, name = path.split(".")
        options = domain.options(3) or []
        if isinstance(domain, Maybe):
            return getattr(domain.item, "kind", None) in wanted
        step = wanted.get(above[-1] if above else "")
        asked = getattr(step, name, None)
        if asked is not None and asked in options:
            return asked
        nothing = [v for v in options if isinstance(v, int | float) and not isinstance(v, bool) and v == 0]
        return nothing[0] if nothing else options[len(options) // 2]

    filling = space.walk(choose)
    steps = space.fill(filling).recipe.steps
    done = [step for step in steps if not step.idle and not step.teaches]
    return filling if done == list(recipe.steps) and not any(step.starts for step in steps) else None


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
