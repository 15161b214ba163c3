"""What a model does to its inputs before anything else: images made smaller, sequences made
shorter, inside the graph, so that the exported file takes what the original takes.

A `Change` is attached to the root of a module, which applies its changes in the order in which they
were attached, before its own forward. No path of a layer changes by it, and copies keep it
(`copies.copied`). docs/decisions/0025 says why it is a hook.

Notation: n samples, C channels, H x W positions of an image, T of a sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

_CHANGES = "_featherweight_changes"


@dataclass(frozen=True)
class Change(ABC):
    """Abstract: what is done to one input. input: its place; name: what the task calls it, for who
    gives it by name; ops: the ONNX operators that compute, in their order."""

    input: int
    name: str

    ops: ClassVar[tuple[str, ...]] = ()

    def told(self) -> list[int]:
        """What the speed of the model hangs on, in whole numbers."""
        return [self.input]

    def prepare(self, module: nn.Module, key: str) -> None:  # noqa: B027 (most need nothing)
        """Leave on the module what `apply` needs, under names that begin with `key`."""

    @abstractmethod
    def apply(self, x: Tensor, module: nn.Module, key: str) -> Tensor:
        """What the model reads in the place of `x`."""


@dataclass(frozen=True)
class Cut(Change):
    """Only the first `length` along `axis` stay."""

    axis: int
    length: int

    def told(self) -> list[int]:
        return [self.input, self.axis, self.length]

    def apply(self, x: Tensor, module: nn.Module, key: str) -> Tensor:
        return x.narrow(self.axis, 0, self.length)


@dataclass(frozen=True)
class Pooled(Change):
    """The mean of each `stride` values along each of `axes`, one axis of a series, or the last two
    of images; what is left over at the end goes."""

    axes: tuple[int, ...]
    stride: int

    ops: ClassVar[tuple[str, ...]] = ("AveragePool",)

    def told(self) -> list[int]:
        return [self.input, *self.axes, self.stride]

    def apply(self, x: Tensor, module: nn.Module, key: str) -> Tensor:
        k = self.stride
        if len(self.axes) == 2:
            return F.avg_pool2d(x, k) if x.ndim == 4 else F.avg_pool3d(x, (1, k, k))
        if x.ndim == 2:  # [n, T]
            return F.avg_pool1d(x.unsqueeze(1), k).squeeze(1)
        if self.axes == (1,):  # [n, T, C]
            return F.avg_pool1d(x.transpose(1, 2), k).transpose(1, 2)
        return F.avg_pool1d(x, k)  # [n, C, T]


@dataclass(frozen=True)
class Resampled(Change):
    """Images [.., H, W] as [.., h, w] by two matrix products, rows [h, H] and columns [W, w]: each
    new value is the weighted mean of the old ones that it covers (`weights`)."""

    of: tuple[int, int]
    to: tuple[int, int]
    how: str

    ops: ClassVar[tuple[str, ...]] = ("MatMul", "MatMul")

    def told(self) -> list[int]:
        return [self.input, *self.of, *self.to, HOW.index(self.how)]

    def prepare(self, module: nn.Module, key: str) -> None:
        rows, columns = (weights(a, b, self.how) for a, b in zip(self.of, self.to, strict=True))
        # they follow from the sizes, so they are not saved
        module.register_buffer(f"{key}_rows", rows, persistent=False)
        module.register_buffer(f"{key}_columns", columns.t().contiguous(), persistent=False)

    def apply(self, x: Tensor, module: nn.Module, key: str) -> Tensor:
        rows, columns = module.get_buffer(f"{key}_rows"), module.get_buffer(f"{key}_columns")
        return rows @ x @ columns


HOW = ("area", "bilinear")


def weights(of: int, to: int, how: str) -> Tensor:
    """[to, of] float32: how much of each old value is in each new one; rows sum to 1.

    area: by the share of the new cell that the old one covers, as OpenCV's INTER_AREA; bilinear:
    the triangle filter, widened by the factor, as Pillow and torch's antialias=True."""
    if how == "bilinear":
        one = torch.eye(of, dtype=torch.float64)[None, None]
        return F.interpolate(one, size=(to, of), mode="bilinear", antialias=True)[0, 0].float()
    edges = torch.arange(to + 1, dtype=torch.float64) * (of / to)
    old = torch.arange(of, dtype=torch.float64)
    last, first = torch.minimum(edges[1:, None], old + 1), torch.maximum(edges[:-1, None], old)
    cover = (last - first).clamp(min=0)
    return (cover / cover.sum(1, keepdim=True)).float()


def attach(module: nn.Module, change: Change) -> None:
    """Let the module do this, after what it does to its inputs already. In place. InputError for a
    module that takes no hooks (TorchScript)."""
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            "what a TorchScript module is given cannot be changed inside of it",
            got=type(module).__name__,
            fix="give the PyTorch module that the script was made of",
        )
    before = changes(module)
    if not before:
        module.register_forward_pre_hook(_changed, with_kwargs=True)
    key = f"featherweight_input_{len(before)}"
    change.prepare(module, key)
    setattr(module, key, tuple(change.told()))  # a whole number of the module's, as widths are
    setattr(module, _CHANGES, (*before, change))


def changes(module: nn.Module) -> tuple[Change, ...]:
    """What the module does to its inputs, in order."""
    found: tuple[Change, ...] = vars(module).get(_CHANGES, ())
    return found


def handed_on(module: nn.Module, to: nn.Module) -> None:
    """`to`, which takes the same inputs, does to them what `module` does. In place."""
    for change in changes(module)[len(changes(to)) :]:
        attach(to, change)


def changed(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the module's own forward is given of these inputs."""
    args, _ = _changed(module, tuple(inputs), {})
    return args


def _changed(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given: list[Any] = list(args)
    named = dict(kwargs)
    for i, change in enumerate(changes(module)):
        key = f"featherweight_input_{i}"
        if change.name in named:
            named[change.name] = change.apply(named[change.name], module, key)
        elif change.input < len(given):
            given[change.input] = change.apply(given[change.input], module, key)
        else:
            raise InputError(
                "this model changes an input that it was not given",
                got=f"{len(given)} inputs by position, and by name {', '.join(named) or 'none'}",
                allowed=f"the input {change.name!r}, by this name or as number {change.input + 1} by position",
            )
    return tuple(given), named
