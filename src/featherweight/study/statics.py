"""What is known of a candidate before it runs: its size and work,
and whether it can hold the limits. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError, RecipeError
from ..limits import Constraint
from ..nets.base import Cost, Net
from ..recipe import Candidate, Recipe, Shape, shape_of
from ..recipes import builds
from ..records import Entry
from ..space import Space

_COUNTED = ("params", "macs")  # limits that a description settles, without building anything


class Statics:
    """shape: of one sample, without the batch axis; samples: of the training split; limits:
    the study's constraints; baseline: its entry, for limits relative to it (None: not measured yet,
    then these are not judged)."""

    def __init__(self, shape: Sequence[int], samples: int, limits: Sequence[Constraint]) -> None:
        self.shape, self.samples = tuple(shape), samples
        self.limits = [c for c in limits if c.quantity in _COUNTED]
        self.baseline: Entry | None = None

    def space(self, tree: Candidate) -> Space:
        """The space of `tree` that knows its fillings' features and refuses what cannot
        hold the limits."""
        return (
            Space(tree, self.features, self.refuses)
            if isinstance(tree.recipe, Recipe) and builds(tree.recipe)
            else Space(tree)
        )

    def cost(self, recipe: Recipe) -> Cost:
        """Of the filled recipe's net."""
        net: Net = recipe.steps[0].net
        return net.cost(self.shape)

    def features(self, candidate: Candidate) -> Mapping[str, float]:
        """params, macs and what else the net's description tells; `work`: multiply-accumulates of
        all of its training (a step forward and back is three times a forward pass)."""
        cost = self.cost(candidate.recipe)
        epochs = sum(getattr(step, "epochs", 0) for step in candidate.recipe.steps)
        return {**cost.features(), "work": 3.0 * cost.macs * self.samples * epochs}

    def refuses(self, candidate: Candidate) -> str | None:
        """Why the candidate must not run: its fields do not fit each other, or the net is over a
        limit as it is built, and no later step changes its structure (`Transform.shape`; of the
        rest, see `engine.screen`)."""
        recipe: Recipe = candidate.recipe
        net = recipe.steps[0].net
        if not isinstance(net, Net):
            return f"build needs the description of an architecture, got {net!r}"
        try:
            net.check()
            cost = net.cost(self.shape)
            later = shape_of(recipe.steps[1:])
        except (InputError, RecipeError) as e:
            return str(e)
        if later not in (Shape.KEEPS, Shape.FORMATS):
            return None
        for limit in self.limits:
            if limit.relative and self.baseline is None:
                continue
            bound = limit.bound * (
                self.baseline.quantities[limit.quantity] if limit.relative and self.baseline else 1.0
            )
            value = getattr(cost, limit.quantity)
            if value > bound:
                return f"{limit}: it has {value:,} {limit.quantity}"
        return None


def sample_shape(inputs: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of one sample of the first input, without the batch axis:
    what `Net.cost` is told."""
    first = next(iter(inputs.values()))
    return tuple(int(n) for n in first.shape[1:])
