"""What an architecture description is: a node of a recipe that builds a module.
No torch until it is built."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError
from ..seeding import derive
from ..space import Domain, Node
from ..space.node import require_filled

if TYPE_CHECKING:
    from torch import nn

ACTIVATIONS = ("relu", "gelu", "silu", "hardswish")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What is known of a filled description before it is built. Weighted layers are convolutions
    and linear layers; tables are looked up."""

    params: int  # parameters, as `measure.ops.params` counts them in the built module
    macs: int  # multiply-accumulates of one sample, as `measure.ops.macs` counts them
    depth: int  # weighted layers on the longest path from input to output
    layers: int  # weighted layers on any path from input to output
    widest: int  # the most numbers that one weighted layer gives for a sample
    # log2 of the number of paths from input to output that skip connections make (Veit et al. 2016,
    # arXiv:1605.06431, section 3)
    paths: float

    def features(self) -> dict[str, float]:
        """All fields by name, the same names for every kind of net."""
        return {f.name: float(getattr(self, f.name)) for f in dataclasses.fields(self)}


class Net(Node, ABC):
    """Abstract: an architecture. Subclasses are frozen dataclasses that say all that `build` needs,
    sizes of inputs and outputs too.

    `version` is part of the content hash: raise it when the same fields would give another module.
    """

    version: ClassVar[int] = 1

    @abstractmethod
    def module(self) -> nn.Module:
        """A new module; its initial weights come from torch's default generator.
        `build` is the way to call it."""

    @abstractmethod
    def cost(self, shape: Sequence[int]) -> Cost:
        """What the filled description costs for one sample whose first input has this shape (no
        batch axis: (C, H, W), (L,), (features,)).

        Counted in microseconds, without torch. RecipeError if a field is still a hole, InputError
        if the fields do not fit each other or the shape."""

    def check(self) -> None:
        """InputError if the filled fields do not fit each other;
        cheap, so that a search can ask before it trains."""

    def require(self, fits: bool, shape: Sequence[int], allowed: str) -> None:
        """What `cost` has to be sure of: no holes, fields that fit each other, sizes of at least 1
        that fit the fields (`fits`)."""
        require_filled(self, self.kind)
        self.check()
        if not fits or min(shape, default=1) < 1:
            raise InputError(f"{self.kind} does not take samples of this shape", got=list(shape), allowed=allowed)

    def build(self, seed: int = 0) -> nn.Module:
        """A new module in eval mode, with initial weights that depend on `seed` only; the global
        random state stays as it was.

        RecipeError if a field is still a hole, InputError if the fields do not fit each other."""
        import torch

        require_filled(self, self.kind)
        self.check()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(seed, "net"))
            module = self.module()
        return module.eval()

    def supernet(self) -> nn.Module:
        """A module that holds every filling of this description's operation holes at once, for a
        gradient to choose among them.

        InputError if the family has none."""
        raise InputError(
            f"{self.kind} has no supernet whose operations a gradient can choose among",
            fix="use oneshot, which takes any family, or a Cell",
        )

    @classmethod
    def space(cls, **fixed: Any) -> Any:
        """As `Node.space`; the range of a field that is a tuple opens each of its places,
        as many as its default has."""
        opened = {
            f.name: (f.metadata["search"],) * len(f.default)
            for f in dataclasses.fields(cls)  # type: ignore[arg-type]
            if f.name not in fixed and isinstance(f.default, tuple) and isinstance(f.metadata.get("search"), Domain)
        }
        return super().space(**{**opened, **fixed})


def activation(name: str) -> nn.Module:
    """A new activation layer by its name in `ACTIVATIONS`."""
    from torch import nn

    made: nn.Module = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "hardswish": nn.Hardswish}[name]()
    return made


def same_length(kind: str, **tuples: Any) -> None:
    """InputError if these fields are tuples of different lengths."""
    lengths = {name: len(v) for name, v in tuples.items() if isinstance(v, tuple)}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise InputError(
            f"{kind} needs one value a stage in each of these fields", got=lengths, allowed="equal lengths, at least 1"
        )
