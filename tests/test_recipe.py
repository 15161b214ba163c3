import dataclasses
import hashlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight import registry
from featherweight.errors import FeatherweightError, InputError, RecipeError
from featherweight.recipe import Made, Mark, Recipe, Transform, content_hash, decode, encode
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from featherweight.space.node import require_filled
from featherweight.testing.transforms import check_round_trip
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from tests.algebra import KINDS, Freeze, Needs, Shave, Teach, recipes

quick = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    real = registry.find
    monkeypatch.setattr(
        registry,
        "find",
        lambda group, kind: KINDS[kind] if group == "transforms" and kind in KINDS else real(group, kind),
    )


# --- round trips


@given(recipes())
@quick
def test_json_round_trip(recipe):
    data = recipe.to_json()
    assert Recipe.from_json(data) == recipe
    through = Recipe.from_json(json.loads(json.dumps(data, allow_nan=False)))
    assert through == recipe and through.hash == recipe.hash
    assert hash(through) == hash(recipe)


@given(recipes())
@quick
def test_yaml_round_trip(recipe):
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe and again.hash == recipe.hash


@given(recipes(), st.integers(0, 2**32))
@quick
def test_filled_recipes_round_trip_too(recipe, seed):
    filled = Space(recipe).fill(Space(recipe).sample(generator(seed)))
    assert filled.is_filled and Recipe.from_json(json.loads(json.dumps(filled.to_json()))) == filled
    require_filled(filled, "it")
    assert str(filled)


# --- the hash


def shuffled(data, rng):
    if isinstance(data, dict):
        keys = list(data)
        return {keys[int(i)]: shuffled(data[keys[int(i)]], rng) for i in rng.permutation(len(keys))}
    return [shuffled(v, rng) for v in data] if isinstance(data, list) else data


@given(recipes(), st.integers(0, 2**32))
@quick
def test_hash_ignores_the_order_of_keys(recipe, seed):
    assert Recipe.from_json(shuffled(recipe.to_json(), generator(seed))).hash == recipe.hash


@given(recipes(), recipes())
@quick
def test_hash_is_equality(a, b):
    assert (a.hash == b.hash) == (json.dumps(a.to_json(), sort_keys=True) == json.dumps(b.to_json(), sort_keys=True))
    assert (a == b) <= (a.hash == b.hash)


@given(recipes())
@quick
def test_hash_sees_every_change(recipe):
    assert (recipe + Shave(ratio=0.123)).hash != recipe.hash
    for i, step in enumerate(recipe.steps):
        if isinstance(step, (Shave, Freeze, Teach)):
            changes = {
                "ratio": 0.456789,
                "criterion": "any" if getattr(step, "criterion", "") != "any" else "small",
                "round_to": 63,
                "bits": 15,
                "exact": step.exact is not True if isinstance(step, Freeze) else None,
                "skip": ("other",),
                "epochs": 999,
                "rate": 0.987,
                "teacher": "x",
                "extra": ("y",),
            }
            for f in dataclasses.fields(step):
                value = changes[f.name]
                if getattr(step, f.name) == value and type(getattr(step, f.name)) is type(value):
                    continue
                other = Recipe(*recipe.steps[:i], dataclasses.replace(step, **{f.name: value}), *recipe.steps[i + 1 :])
                assert other.hash != recipe.hash, f.name


def test_hash_sees_order_version_kind_and_type(monkeypatch):
    a = Recipe(Shave(), Freeze())
    assert a.hash != Recipe(Freeze(), Shave()).hash
    assert content_hash(Teach(extra=(1,))) != content_hash(Teach(extra=(1.0,))) != content_hash(Teach(extra=(True,)))
    assert Recipe(Shave(ratio=0)).hash == Recipe(Shave(ratio=0.0)).hash == Recipe(Shave(ratio=-0.0)).hash
    assert Recipe(Choice(Shave())).hash != Recipe(Maybe(Shave())).hash
    assert Recipe(Teach(teacher=Recipe(Shave()))).hash != Recipe(Teach(teacher=Recipe(Shave(ratio=0.6)))).hash
    before = a.hash
    monkeypatch.setattr(Freeze, "version", 2)
    assert a.hash != before


def test_hash_is_stable():
    """Stored results are found by it: a change of the hash is a change of the format,
    to be made on purpose."""
    text = (
        '{"recipe":[{"shave":{"criterion":"small","ratio":0.25,"round_to":8},"version":1},'
        '{"maybe":{"freeze":{"bits":{"choice":[4,8]},"exact":false,"skip":[]},"version":1}}]}'
    )
    assert Recipe(Shave(ratio=0.25), Maybe(Freeze(bits=Choice(4, 8)))).hash == hashlib.sha256(text.encode()).hexdigest()
    assert Recipe().hash == "c9d26ed6376b29f8ab2820d5a7fa4041d501e0e93cd704904ee44a14cc2c8b75"


def test_surrogates_hash():
    assert len(Recipe(Teach(extra=("\ud800",))).hash) == 64


# --- building


def test_steps_and_nesting():
    flat = Recipe(Shave(), Recipe(Freeze(), Recipe(Teach())))
    assert len(flat) == 3 and flat == Recipe(Shave()) + Freeze() + Recipe(Teach())
    for bad in (3, "shave", None, Float(0, 1), [Shave()]):
        with pytest.raises(RecipeError):
            Recipe(bad)
    assert str(Recipe()) == "as it is" and str(Recipe(Shave(ratio=0.25), Freeze())) == "shave(ratio=0.25) > freeze()"


def test_filling_splices():
    recipe = Recipe(
        Maybe(Shave()),
        Order(Recipe(Teach(), Teach(epochs=4)), Order(Shave(ratio=0.1), Shave(ratio=0.2)), Maybe(Freeze())),
    )
    filled = Space(recipe).fill(
        {"shave": False, "order": "order>freeze>recipe", "order.order": "shave_2>shave", "order.freeze": True}
    )
    assert filled == Recipe(Shave(ratio=0.2), Shave(ratio=0.1), Freeze(), Teach(), Teach(epochs=4))
    assert Recipe(Choice(Recipe(Shave(), Shave()), Recipe())).fill({"choice": "recipe_2"}) == Recipe()


def test_holes_in_a_recipe_in_a_field():
    recipe = Recipe(Teach(teacher=Recipe(Shave(ratio=Float(0, 1)))), Teach(teacher=Recipe(Shave(ratio=Float(0, 1)))))
    assert [h.path for h in recipe.space()] == ["teach.teacher.shave.ratio", "teach_2.teacher.shave.ratio"]
    with pytest.raises(RecipeError, match="still has holes"):
        require_filled(recipe, "this recipe")


# --- preconditions


def test_an_order_that_cannot_work_is_refused_with_one_that_can():
    with pytest.raises(RecipeError, match="a frozen model cannot be shaved") as e:
        Recipe(Freeze(), Shave()).check()
    assert e.value.got == "freeze -> shave" and e.value.allowed == "shave -> freeze"
    Recipe(Shave(), Freeze()).check()
    Recipe(Freeze(bits=Choice(4, 8)), Shave()).check()  # not filled: checked when it is
    with pytest.raises(RecipeError):
        Recipe(Freeze(bits=Choice(4, 8)), Shave()).fill({"freeze.bits": 4})


def test_preconditions_below_a_field():
    wrong = Recipe(Freeze(), Shave())
    for recipe in (
        Recipe(Teach(teacher=wrong)),
        Recipe(Teach(extra=(1, wrong))),
        Recipe(Teach(teacher=Teach(teacher=wrong))),
        Recipe(Teach(teacher=Recipe(Teach(teacher=wrong)))),
    ):
        with pytest.raises(RecipeError):
            recipe.check()
    Recipe(Freeze(), Teach(teacher=Recipe(Shave()))).check()  # the teacher is another model


def test_order_holes_meet_preconditions():
    recipe = Recipe(Order(Shave(), Freeze()))
    assert recipe.fill({"order": "shave>freeze"}) == Recipe(Shave(), Freeze())
    with pytest.raises(RecipeError):
        recipe.fill({"order": "freeze>shave"})


def states(kind, makes=(), refuses=()):
    """A transform that says so."""
    body = {
        "makes": property(lambda self: frozenset(makes)),
        "refuses": property(lambda self: dict.fromkeys(refuses, "of the test")),
    }
    return dataclasses.dataclass(frozen=True)(type(kind, (Transform,), body))


@pytest.mark.parametrize("where", ["makes", "refuses"])
@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("integer wieghts", "write Made.INTEGER_WEIGHTS"),
        ("zero weights", "write Made.ZERO_WEIGHTS"),
        ("rotated", "class Own(Mark): WORD = 'rotated'"),
    ],
)
def test_a_precondition_in_plain_text_is_refused(where, word, fix):
    step = states("Turn", **{where: [word]})()
    with pytest.raises(RecipeError, match=f"turn states what it {where} in a word that is not in the vocabulary") as e:
        Recipe(Shave(), step).check()
    assert e.value.got == repr(word) and "Made.NM_PATTERN" in e.value.allowed and fix in e.value.fix
    with pytest.raises(RecipeError, match="vocabulary"):  # in a recipe in a field, too
        Recipe(Teach(teacher=Recipe(step))).check()
    with pytest.raises(RecipeError, match="vocabulary"):
        check_round_trip(step)


def test_a_plug_in_has_words_of_its_own():
    class Turned(Mark):
        ROTATED = "rotated weights"

    turn, sharpen = (
        states("Turn", makes=[Turned.ROTATED])(),
        states("Sharpen", refuses=[Turned.ROTATED, Made.INTEGER_WEIGHTS])(),
    )
    Recipe(sharpen, turn).check()
    with pytest.raises(RecipeError, match="of the test") as e:
        Recipe(turn, sharpen).check()
    assert e.value.allowed == "sharpen -> turn"
    with pytest.raises(AttributeError):
        Turned.ROTADED  # noqa: B018


def test_words_keep_their_text():
    """Plug-ins and notes may have written it down."""
    assert [str(m) for m in Made] == ["integer weights", "zero weights", "n:m pattern", "low-rank layers"] and not list(
        Mark
    )


# --- files from strangers

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["recipe", "float", "int", "choice", "maybe", "order", "shave", "freeze", "teach", "needs", "prune"]
            ),
            inner,
            min_size=1,
            max_size=1,
        )
        | st.fixed_dictionaries(
            {},
            optional={
                k: inner for k in ("low", "high", "log", "step", "options", "name", "ratio", "bits", "teacher", "what")
            },
        )
    ),
    max_leaves=12,
)


@given(junk)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_decoding_anything_gives_a_tree_or_an_error_that_says_why(data):
    try:
        tree = decode(data)
    except FeatherweightError as e:
        assert str(e)
        return
    if isinstance(tree, Recipe):
        assert Recipe.from_json(json.loads(json.dumps(encode(tree)))) == tree
        Space(tree).sample(generator(0))


@given(junk)
@quick
def test_only_recipes_are_recipes(data):
    try:
        assert isinstance(Recipe.from_json(data), Recipe)
    except FeatherweightError as e:
        assert str(e)


@given(recipes(), st.data())
@quick
def test_a_damaged_recipe_is_refused_or_another_recipe(recipe, data):
    """One node of a good file replaced by something else."""
    good = recipe.to_json()
    places = []

    def walk(node):
        for k in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, k))
            if isinstance(node[k], (dict, list)):
                walk(node[k])

    walk(good)
    node, k = data.draw(st.sampled_from(places))
    node[k] = data.draw(junk)
    try:
        Recipe.from_json(good)
    except FeatherweightError as e:
        assert str(e)


@pytest.mark.parametrize(
    "bad",
    [
        {"recipe": {}},
        {"recipe": "abc"},
        {"recipe": [1]},
        {"recipe": [None]},
        {},
        {"a": 1, "b": 2},
        3,
        None,
        "x",
        [3],
        {"shave": {}},
        {"recipe": [{"nope": {}}]},
        {"recipe": [{"shave": {"nope": 1}}]},
        {"recipe": [{"shave": 0}]},
        {"recipe": [{"shave": []}]},
        {"recipe": [{"needs": {}}]},
        {"recipe": [{"shave": {"ratio": "x"}}]},
        {"recipe": [{"shave": {"ratio": {"float": {"low": 0}}}}]},
        {"recipe": [{"shave": {"ratio": {"float": [0, 1]}}}]},
        {"recipe": [{"shave": {"ratio": {"float": {"low": 0, "high": 10**400}}}}]},
        {"recipe": [{"shave": {"ratio": {"float": {"low": 0, "high": 1, "q": 1}}}}]},
        {"recipe": [{"choice": "abc"}]},
        {"recipe": [{"choice": {"options": "abc", "name": None}}]},
        {"recipe": [{"choice": {"options": [1]}}]},
        {"recipe": [{"choice": 5}]},
        {"recipe": [{"maybe": None}]},
        {"recipe": [{"order": [{"shave": {}}]}]},
        {"recipe": [{"order": "ab"}]},
        {1: 2, "a": 3},
        {"recipe": [{5: {}}]},
    ],
)
def test_malformed(bad):
    with pytest.raises((RecipeError, InputError)):
        Recipe.from_json(bad)


def test_deep_nesting_is_refused():
    data = {"shave": {}}
    for _ in range(5000):
        data = {"maybe": data}
    with pytest.raises(RecipeError, match="deep"):
        decode(data)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        "a: b: c",
        "2024-13-45",
        "- !!python/object/apply:os.system ['true']",
        "",
        "recipe:\n- 2024-01-01",
        "? [a]\n: b",
        "&a [*a]",
    ],
)
def test_bad_yaml(text):
    with pytest.raises(FeatherweightError):
        Recipe.from_yaml(text)


def test_short_forms():
    assert Recipe.from_yaml("recipe:\n- shave:\n- freeze: {bits: 4}") == Recipe(Shave(), Freeze(bits=4))
    assert Recipe.from_json([{"needs": {"what": "this"}}]) == Recipe(Needs("this"))
    assert Recipe.from_json({"recipe": [{"teach": {"epochs": {"int": {"low": 1, "high": 3}}}}]}) == Recipe(
        Teach(epochs=Int(1, 3))
    )


def test_our_own_transforms_are_found():
    recipe = Recipe(Prune.space(round_to=4))
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe and "prune.ratio" in [h.path for h in recipe.space()]


def test_a_refused_order_names_one_that_works_or_says_that_there_is_none():
    zeros = Prune(granularity="2:4")
    with pytest.raises(RecipeError) as e:
        Recipe(zeros, Factorize()).check()
    assert e.value.allowed == "factorize -> prune"
    Recipe(Factorize(), zeros).check()
    with pytest.raises(RecipeError) as e:
        Recipe(Quantize(), Quantize()).check()
    assert "not both" in e.value.allowed
    with pytest.raises(RecipeError) as e:
        Recipe(Quantize(), Prune(), Factorize()).check()
    assert e.value.allowed == "prune -> factorize -> quantize"
