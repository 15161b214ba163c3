"""The recipe algebra: transforms, recipes of transforms, JSON,
content hash and preconditions. No torch here.

JSON: a scalar is itself; everything else is an object with one key, its kind:
`{"prune": {"ratio": 0.5}}`, `{"float": {"low": 0, "high": 0.8}}`, `{"recipe": [...]}`. Files from
strangers are data: nothing in them is executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, ClassVar

from . import registry
from .errors import InputError, RecipeError
from .space import Domain, Filling, Node, Space
from .space.domains import Choice, Float, Int, Maybe, Order
from .space.node import is_filled, label, labels

# a deeper tree is an accident or an attack; Python's own limit would end in a RecursionError
_DEEPEST = 64
_DOMAINS: dict[str, type[Domain]] = {d.tag: d for d in (Float, Int, Choice, Maybe, Order)}


class Mark(StrEnum):
    """Abstract: the words of `Transform.makes` and `Transform.refuses`. It has none itself: ours
    are `Made`, a plug-in's a subclass of its own."""


class Made(Mark):
    """What our own transforms leave in a model."""

    INTEGER_WEIGHTS = "integer weights"
    ZERO_WEIGHTS = "zero weights"
    NM_PATTERN = "n:m pattern"
    LOW_RANK_LAYERS = "low-rank layers"


class Shape(StrEnum):
    """What a step does to a model's structure: its layers and their sizes, and with them its
    parameters and multiply-accumulates."""

    KEEPS = "keeps"  # it stays, whatever the weights are
    FIELDS = "fields"  # what it becomes follows from what it was and from the step's fields alone
    # it stays, but the number formats of its layers, and so size and speed,
    # follow from weights, data or chance
    FORMATS = "formats"
    WEIGHTS = "weights"  # what it becomes follows from weights, data, time or chance


class Transform(Node):
    """Abstract: one step, model in, new model out. Subclasses are frozen dataclasses
    with a `version`.

    `version` is part of the content hash: raise it when the same fields would give another model.
    `makes` and `refuses` state the preconditions: a step may not follow one that makes what it
    refuses. Both speak in members of `Made`. A plug-in with a word of its own makes a subclass of
    `Mark`, once, and takes the word from there in every step that makes or refuses it:

        class Turned(Mark):
            ROTATED = "rotated weights"

    So no typo passes: a member that is not there is Python's own error, and plain text is refused
    when a recipe with the step is checked. `shape` states what a step does to the structure, so
    that a search knows which limits it can check before it trains.
    """

    version: ClassVar[int] = 1
    says: ClassVar[str] = ""  # what it does, in words for a report; none: its kind
    # does a teacher's forward pass over the training split come before it?
    teaches: ClassVar[bool] = False
    # does a model refuse it for what it is made of, so that trying it on the untrained one, before
    # anything runs, tells? It has to be cheap
    tried: ClassVar[bool] = False

    @property
    def makes(self) -> frozenset[Mark]:
        """What this step leaves in the model that later steps may have to refuse."""
        return frozenset()

    @property
    def refuses(self) -> dict[Mark, str]:
        """What an earlier step made -> why this one cannot follow it."""
        return {}

    @property
    def shape(self) -> Shape | None:
        """What it does to the model's structure. None: it does not say, which is taken for
        `Shape.WEIGHTS`: then no limit is checked before training in recipes with this step
        (a search says so), and the conformance suite does not pass it."""
        return None

    @property
    def stored(self) -> bool:
        """False: applying it again is cheaper than reading what it made."""
        return True

    @property
    def starts(self) -> bool:
        """True: it makes a model of its own, whatever came before;
        so it can only be the first step."""
        return False

    @property
    def idle(self) -> bool:
        """True: with these fields it leaves the model as it is, so that a search knows what its
        recipe is without this step."""
        return False

    @property
    def depends(self) -> str:
        """What else decides its result on this machine (a processor's grid, a runtime's version);
        part of the key it is stored under."""
        return ""

    def apply(self, model: Any, context: Any) -> Any:
        """The transformed model (`models.Package`); the input is left as it was.
        `context`: `transforms.base.Context`."""
        raise TypeError(f"{type(self).__name__} has no apply")


@dataclasses.dataclass(frozen=True, init=False)
class Recipe(Node):
    """An ordered expression of transforms; a step may be a hole, a field may hold a recipe."""

    steps: tuple[Any, ...]

    def __init__(self, *steps: Any) -> None:
        flat: list[Any] = []
        for s in steps:
            if isinstance(s, Recipe):
                flat += s.steps
            elif isinstance(s, (Transform, Choice, Maybe, Order)):
                flat.append(s)
            else:
                raise RecipeError(
                    "a recipe is made of transforms", got=repr(s), allowed="Transform, Recipe, Choice, Maybe, Order"
                )
        object.__setattr__(self, "steps", tuple(flat))

    def parts(self, path: str) -> list[tuple[Any, str]]:
        prefix = f"{path}." if path else ""
        return [(s, prefix + name) for s, name in zip(self.steps, labels(self.steps), strict=True)]

    def rebuild(self, parts: list[Any]) -> Recipe:
        """None (a Maybe left out) disappears; a tuple (an Order) and a recipe are spliced in."""
        flat: list[Any] = []
        for p in parts:
            flat += _flat(p)
        return Recipe(*flat)

    def __add__(self, other: Recipe | Transform) -> Recipe:
        return Recipe(self, other)

    def __len__(self) -> int:
        return len(self.steps)

    # `space` on an instance lists its holes; `Prune.space()` on a class opens its fields.
    def space(self) -> Space:  # type: ignore[override]
        """All holes of this recipe."""
        return Space(self)

    def fill(self, values: Filling) -> Recipe:
        """This recipe with its holes filled and its preconditions checked."""
        filled: Recipe = Space(self).fill(values)
        filled.check()
        return filled

    @property
    def is_filled(self) -> bool:
        return is_filled(self)

    def check(self) -> None:
        """RecipeError if a step cannot follow the ones before it; says why, and the order that
        works. Also if a step states its preconditions or its shape in words that are none."""
        if not self.is_filled:
            return
        made: dict[Mark, Transform] = {}
        for i, step in enumerate(self.steps):
            _check_words(step, "makes", step.makes)
            _check_words(step, "refuses", step.refuses)
            stated(step)
            if step.starts and i > 0:
                raise RecipeError(
                    f"{label(step)} makes a model of its own, so what comes before it is lost",
                    got=" -> ".join(label(s) for s in self.steps),
                    allowed=f"{label(step)} as the first step",
                )
            for thing, reason in step.refuses.items():
                if thing in made:
                    order = self._legal_order()
                    raise RecipeError(
                        f"{label(step)} cannot follow {label(made[thing])}: {reason}",
                        got=" -> ".join(label(s) for s in self.steps),
                        allowed=" -> ".join(label(s) for s in order)
                        if order
                        else f"one of {label(made[thing])} and {label(step)}, not both",
                    )
            made.update(dict.fromkeys(step.makes, step))
            for nested in _recipes(tuple(getattr(step, f.name) for f in dataclasses.fields(step))):
                nested.check()

    def _legal_order(self) -> list[Transform]:
        """Steps that make what others refuse go last, otherwise the order stays;
        empty if no such order is legal."""
        steps = sorted(self.steps, key=lambda s: sum(bool(s.makes & set(o.refuses)) for o in self.steps if o is not s))
        made: set[Mark] = set()
        for s in steps:
            if made & set(s.refuses):
                return []
            made |= s.makes
        return steps

    def to_json(self) -> Any:
        """Plain data for `json.dumps`; `from_json` gives back an equal recipe."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        if isinstance(data, list):
            data = {"recipe": data}
        recipe = decode(data)
        if not isinstance(recipe, Recipe):
            raise RecipeError("this is no recipe", got=repr(data)[:200], allowed='{"recipe": [{"prune": {...}}, ...]}')
        return recipe

    def to_yaml(self) -> str:
        import yaml

        return str(yaml.safe_dump(self.to_json(), sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        import yaml

        from .plain import read_yaml

        try:
            return cls.from_json(read_yaml(text))
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            # ValueError: a date such as 2024-13-45
            raise RecipeError("the recipe is not valid YAML", got=str(e)) from e

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON with the transforms' versions: equal recipes, and only
        those, have equal hashes."""
        return content_hash(self)

    def __str__(self) -> str:
        return " > ".join(_short(s) for s in self.steps) or "as it is"


def _check_words(step: Transform, where: str, words: Iterable[Mark]) -> None:
    """RecipeError if one of the words that a step states its preconditions in is plain text:
    nothing would notice a typo in it."""
    for word in words:
        if not isinstance(word, Mark):
            near = get_close_matches(str(word), list(Made), n=1)
            ours = ", ".join(f"Made.{m.name}" for m in Made)
            own = (
                f"make it a word of the plug-in: class Own(Mark): WORD = {str(word)!r}, "
                "and write Own.WORD in every step that needs it"
            )
            raise RecipeError(
                f"{step.kind} states what it {where} in a word that is not in the vocabulary of preconditions",
                got=repr(word),
                allowed=f"{ours}, or a member of the plug-in's own subclass of Mark (both in featherweight.recipe)",
                fix=f"write Made.{Made(near[0]).name}" if near else own,
            )


def stated(step: Transform) -> Shape | None:
    """The step's own `shape`. RecipeError if it is no `Shape`."""
    shape = step.shape
    if shape is not None and not isinstance(shape, Shape):
        allowed = ", ".join(f"Shape.{s.name}" for s in Shape)
        raise RecipeError(
            f"{step.kind} states its shape in a word that is not in the vocabulary",
            got=repr(shape),
            allowed=f"{allowed}, or None",
        )
    return shape


def shape_of(steps: Iterable[Transform | Shape]) -> Shape:
    """What steps, one after the other, do to a model's structure.
    RecipeError if one states what is no `Shape`."""
    found = {step if isinstance(step, Shape) else stated(step) or Shape.WEIGHTS for step in steps} - {Shape.KEEPS}
    return Shape.WEIGHTS if len(found) > 1 else next(iter(found), Shape.KEEPS)


def _flat(part: Any) -> list[Any]:
    """The steps that a filled hole stands for: an Order gives a tuple (of what its items gave),
    a Maybe left out none."""
    if isinstance(part, tuple):
        return [s for p in part for s in _flat(p)]
    return [] if part is None else [part]


def _recipes(value: Any) -> Iterator[Recipe]:
    """The outermost recipes in a field's value: the value itself, in a list,
    or in a field of a transform."""
    if isinstance(value, Recipe):
        yield value
    elif isinstance(value, tuple):
        for v in value:
            yield from _recipes(v)
    elif isinstance(value, Node):
        for f in dataclasses.fields(value):  # type: ignore[arg-type]
            yield from _recipes(getattr(value, f.name))


def _short(step: Any) -> str:
    if not isinstance(step, Transform):
        return repr(step)
    changed = [
        f"{f.name}={getattr(step, f.name)}"
        for f in dataclasses.fields(step)  # type: ignore[arg-type]
        if getattr(step, f.name) != f.default
    ]
    return f"{step.kind}({', '.join(changed)})"


def describe(recipe: Recipe, filling: Filling) -> str:
    """A filled recipe in one line: its steps but for idle ones, each with the fields that were
    holes."""

    def step(s: Transform) -> str:
        fields = [
            f.name
            for f in dataclasses.fields(s)  # type: ignore[arg-type]
            if any(re.search(rf"(^|\.){s.kind}(_\d+)?\.{f.name}$", path) for path in filling)
        ]
        return f"{s.kind}({', '.join(f'{name}={getattr(s, name)}' for name in fields)})" if fields else s.kind

    return " > ".join(step(s) for s in recipe.steps if not s.idle) or "as it is"


def encode(value: Any) -> Any:
    """A tree as plain JSON data."""
    if isinstance(value, Recipe):
        return {"recipe": [encode(s) for s in value.steps]}
    if isinstance(value, Node):
        return {value.kind: {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}}  # type: ignore[arg-type]
    if isinstance(value, Domain):
        return {value.tag: encode(value.to_json())}
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def decode(data: Any, depth: int = 0) -> Any:
    """Plain JSON data back as a tree. RecipeError or InputError says what is wrong with it."""
    if depth > _DEEPEST:
        raise RecipeError(f"a recipe is nested at most {_DEEPEST} deep")
    if isinstance(data, (list, tuple)):
        return tuple(decode(v, depth + 1) for v in data)
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise RecipeError("an object has one key, its kind", got=sorted(map(str, data)), allowed='{"prune": {...}}')
    kind, body = next(iter(data.items()))
    if kind == "recipe":
        if not isinstance(body, (list, tuple)):
            raise RecipeError("a recipe is a list of steps", got=repr(body)[:200])
        return Recipe(*[decode(s, depth + 1) for s in body])
    if kind in _DOMAINS:
        return _decode_domain(kind, body, depth)
    # an architecture, in a field of a transform
    described = kind not in registry.names("transforms") and kind in registry.names("nets")
    cls = registry.find("nets" if described else "transforms", kind)
    body = {} if body is None else body
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if not isinstance(body, dict) or set(body) - set(fields):
        raise RecipeError(
            f"{kind} has no such field",
            got=sorted(map(str, set(body) - set(fields))) if isinstance(body, dict) else repr(body)[:200],
            allowed=sorted(fields),
        )
    missing = [
        n
        for n, f in fields.items()
        if n not in body and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{kind} lacks fields that it needs", got=sorted(body), fix=f"add {', '.join(missing)}")
    return cls(**{k: decode(v, depth + 1) for k, v in body.items()})


def _decode_domain(tag: str, body: Any, depth: int) -> Any:
    def wrong(why: str) -> InputError:
        return InputError(
            f"{tag} is written wrongly: {why}",
            got=repr(body)[:200],
            allowed='{"float": {"low": 0, "high": 1}}, {"choice": [..]}, {"maybe": ..}, {"order": [..]}',
        )

    if tag in ("float", "int"):
        if not isinstance(body, dict) or not {"low", "high"} <= set(body) <= {"low", "high", "log", "step"}:
            raise wrong("it has low and high, and may have log and step")
        return _DOMAINS[tag](**body)
    if tag == "maybe":
        return Maybe(decode(body, depth + 1))
    named = tag == "choice" and isinstance(body, dict) and set(body) == {"options", "name"}
    items = body["options"] if named else body
    if not isinstance(items, (list, tuple)):
        raise wrong("it has a list")
    values = decode(items, depth)
    return Choice(*values, name=body["name"]) if named else _DOMAINS[tag](*values)


def content_hash(value: Any) -> str:
    """sha256 of a tree: canonical JSON plus the version of every transform in it."""

    def versioned(v: Any) -> Any:
        if isinstance(v, Recipe):
            return {"recipe": [versioned(s) for s in v.steps]}
        if isinstance(v, Node):
            body = {f.name: versioned(getattr(v, f.name)) for f in dataclasses.fields(v)}  # type: ignore[arg-type]
            return {v.kind: body, "version": getattr(v, "version", 1)}
        if isinstance(v, Domain):
            return {v.tag: versioned(v.to_json())}
        if isinstance(v, dict):
            return {k: versioned(x) for k, x in v.items()}
        return [versioned(x) for x in v] if isinstance(v, (list, tuple)) else v

    text = json.dumps(versioned(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Candidate(Node):
    """What a study searches over: a recipe and the target that its result runs on.
    Either may have holes."""

    recipe: Any
    target: Any  # text, as `Target.parse` reads it

    def parts(self, path: str) -> list[tuple[Any, str]]:
        return [(self.recipe, path), (self.target, f"{path}.target" if path else "target")]
