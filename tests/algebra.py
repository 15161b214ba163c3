"""Toy transforms and random trees of them, for the tests of the algebra."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st

from featherweight.recipe import Mark, Recipe, Transform
from featherweight.space import Choice, Float, Int, Maybe, Order, param


class Toy(Mark):
    """Words of their own, as a plug-in has them."""

    SMALLER = "smaller"
    FROZEN = "frozen"


@dataclass(frozen=True)
class Shave(Transform):
    """Like Prune: numbers and a name, each with a legal range and a range to search."""

    makes: ClassVar[frozenset[Mark]] = frozenset({Toy.SMALLER})
    refuses: ClassVar[dict[Mark, str]] = {Toy.FROZEN: "a frozen model cannot be shaved"}
    ratio: float = param(0.5, search=Float(0.0, 0.8), legal=Float(0.0, 1.0), doc="share")
    criterion: str = param("small", search=Choice("small", "any"), legal=Choice("small", "any"), doc="which")
    round_to: int = param(8, legal=Int(1, 64), doc="multiple")


@dataclass(frozen=True)
class Freeze(Transform):
    makes: ClassVar[frozenset[Mark]] = frozenset({Toy.FROZEN})
    bits: int = param(8, search=Choice(4, 8), legal=Int(1, 16))
    exact: bool = False
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Teach(Transform):
    """Like Distill: a field may hold a recipe; one may be none."""

    epochs: int = param(3, search=Int(1, 12, log=True), legal=Int(0, 1000))
    rate: float | None = None
    teacher: Any = None
    extra: Any = ()


@dataclass(frozen=True)
class Needs(Transform):
    """A field without a default."""

    what: str


KINDS = {c.kind: c for c in (Shave, Freeze, Teach, Needs)}

words = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
numbers = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)
scalars = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | numbers | words


def _unique(options):
    """No two options that a Choice would call the same."""
    out = {}
    for o in options:
        out.setdefault(
            o
            if isinstance(o, str)
            else (type(o).__name__, str(o) if isinstance(o, (int, float, type(None))) else repr(o)),
            o,
        )
    return list(out.values())


@st.composite
def floats(draw, low=0.0, high=1.0):
    a, b = sorted(draw(st.tuples(*[st.floats(low, high).map(lambda v: round(v, 6))] * 2)))
    form = draw(st.sampled_from(["plain", "log", "step"]))
    if form == "log" and a > 0:
        return Float(a, b, log=True)
    return Float(a, b, step=draw(st.floats(0.01, 1.0).map(lambda v: round(v, 3)))) if form == "step" else Float(a, b)


@st.composite
def ints(draw, low=0, high=60):
    a, b = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    return Int(a, b, log=a >= 1 and draw(st.booleans()), step=draw(st.integers(1, 5)))


plain_holes = (
    floats(-5.0, 5.0) | ints(-20, 20) | st.lists(scalars, min_size=1, max_size=4).map(lambda o: Choice(*_unique(o)))
)
any_holes = st.recursive(
    plain_holes,
    lambda inner: (
        inner.filter(lambda d: not isinstance(d, Maybe)).map(Maybe)
        | st.lists(inner, min_size=1, max_size=2).map(lambda o: Choice(*o))
    ),
    max_leaves=3,
)
shaves = st.builds(
    Shave,
    ratio=st.floats(0, 1) | floats(),
    criterion=st.sampled_from(["small", "any", Choice("small", "any")]),
    round_to=st.integers(1, 64) | ints(1, 64),
)
freezes = st.builds(
    Freeze,
    bits=st.integers(1, 16) | ints(1, 16),
    exact=st.booleans() | st.just(Choice(True, False)),
    skip=st.lists(words, max_size=2).map(tuple),
)


@st.composite
def steps(draw, depth):
    """A transform; below the last level one without recipes in its fields."""
    kind = draw(st.sampled_from(["shave", "freeze", "teach"] if depth else ["shave", "freeze"]))
    if kind != "teach":
        return draw(shaves if kind == "shave" else freezes)
    inner = recipes(depth - 1)
    return Teach(
        epochs=draw(st.integers(0, 9) | ints(0, 1000)),
        rate=draw(st.none() | numbers | st.just(Maybe(Float(0, 1)))),
        teacher=draw(st.none() | any_holes | inner | inner.map(Maybe)),
        extra=draw(st.lists(scalars | plain_holes | inner, max_size=2)),
    )


@st.composite
def parts(draw, depth):
    """What may stand in a recipe: a step or a hole with steps or recipes in it."""
    kind = draw(st.sampled_from(["step", "step", "maybe", "choice", "order", "recipe"]))
    one = steps(depth) if not depth else steps(depth) | recipes(depth - 1)
    if kind in ("step", "recipe"):
        return draw(one)
    if kind == "maybe":
        return Maybe(draw(one))
    low = 2 if kind == "order" else 1
    return (Order if kind == "order" else Choice)(*[draw(one) for _ in range(draw(st.integers(low, 3)))])


@st.composite
def recipes(draw, depth=1):
    """A recipe of up to three parts, with holes anywhere, recipes in fields up to `depth` deep."""
    return Recipe(*[draw(parts(depth)) for _ in range(draw(st.integers(0, 3)))])


def shuffled(filling, rng):
    """The same filling with its keys in another order."""
    paths = list(filling)
    return {paths[int(i)]: filling[paths[int(i)]] for i in rng.permutation(len(paths))}
