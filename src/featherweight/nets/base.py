"""What an architecture description is: a node of a recipe that builds a module. No torch until it is built."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError
from ..seeding import derive
from ..space import Domain, Node
from ..space.node import require_filled

if TYPE_CHECKING:
    from torch import nn

ACTIVATIONS = ("relu", "gelu", "silu", "hardswish")


class Net(Node, ABC):
    """Abstract: an architecture. Subclasses are frozen dataclasses that say all that `build` needs, sizes of inputs and outputs too.

    `version` is part of the content hash: raise it when the same fields would give another module.
    """

    version: ClassVar[int] = 1

    @abstractmethod
    def module(self) -> nn.Module:
        """A new module; its initial weights come from torch's default generator. `build` is the way to call it."""

    def build(self, seed: int = 0) -> nn.Module:
        """A new module in eval mode, with initial weights that depend on `seed` only; the global random state stays as it was.

        RecipeError if a field is still a hole, InputError if the fields do not fit each other."""
        import torch

        require_filled(self, self.kind)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(seed, "net"))
            module = self.module()
        return module.eval()

    @classmethod
    def space(cls, **fixed: Any) -> Any:
        """As `Node.space`; the range of a field that is a tuple opens each of its places, as many as its default has."""
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
        raise InputError(f"{kind} needs one value a stage in each of these fields", got=lengths, allowed="equal lengths, at least 1")
