"""How labels (channel numbers and their squares) pass through the operations that commute with a
positive scale of each channel.

A rule takes (func, args, kwargs, x, channel, square, outs): the operation, its labelled input x,
and that input's labels, shaped as x; it gives the labels of the outputs, or None where the
operation is not equivariant in that input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Labels = list[tuple[Tensor, Tensor]] | None
Rule = Callable[[Any, Any, Any, Tensor, Tensor, Tensor, list[Tensor]], Labels]


def pointwise(
    func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]
) -> Labels:
    """f(s x) = s f(x) element by element."""
    return [(channel, square)] if args and args[0] is x and outs[0].is_floating_point() else None


def moved(func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]) -> Labels:
    """The operation selects, moves or averages elements: so it does with the labels."""
    if not args or args[0] is not x:
        return None
    made = [
        [t for t in _listed(func(label.contiguous(), *args[1:], **kwargs)) if t.is_floating_point()]
        for label in (channel, square)
    ]
    return list(zip(*made, strict=True))


def pooled(func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]) -> Labels:
    """A maximum picks the same element whatever the scale if its elements share one; the largest
    and the smallest label tell."""
    made, low = (
        moved(func, args, kwargs, x, channel, square, outs),
        moved(func, args, kwargs, x, -channel, -square, outs),
    )
    return made if made is not None and low is not None and torch.equal(made[0][0], -low[0][0]) else None


def viewed(func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]) -> Labels:
    return [(channel.reshape(outs[0].shape), square.reshape(outs[0].shape))] if args[0] is x else None


def summed(func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]) -> Labels:
    """A sum is as equivariant as a mean, and a mean of equal labels is that label."""
    if args[0] is not x or len(args) < 2 or not args[1]:
        return None
    dims, keep = args[1], bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
    return [(channel.mean(dims, keepdim=keep), square.mean(dims, keepdim=keep))]


def multiplied(
    func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]
) -> Labels:
    """x * y with y unlabelled: linear in x."""
    shape = outs[0].shape
    return [(channel.expand(shape), square.expand(shape))]


def divided(
    func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]
) -> Labels:
    return (
        multiplied(func, args, kwargs, x, channel, square, outs)
        if args[0] is x and "rounding_mode" not in kwargs
        else None
    )


def attended(
    func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]
) -> Labels:
    """Attention [N, heads, T, d] is linear in its values and sums over their positions."""
    if len(args) < 3 or args[2] is not x:
        return None
    groups = outs[0].shape[1] // x.shape[1]  # heads that share a value head
    return _over_positions(channel.repeat_interleave(groups, 1), square.repeat_interleave(groups, 1), outs[0])


def weighted(
    func: Any, args: Any, kwargs: Any, x: Tensor, channel: Tensor, square: Tensor, outs: list[Tensor]
) -> Labels:
    """A matrix product [.., T', T] [.., T, d] with labels on its right sums over T."""
    return (
        _over_positions(channel, square, outs[0])
        if len(args) > 1 and args[1] is x and args[0] is not x and x.ndim == outs[0].ndim
        else None
    )


def _over_positions(channel: Tensor, square: Tensor, out: Tensor) -> Labels:
    first = channel[..., :1, :]
    return [(first.expand(out.shape), square[..., :1, :].expand(out.shape))] if bool((channel == first).all()) else None


def _listed(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, torch.Tensor) else list(out)


_POINTWISE = (
    "relu",
    "leaky_relu",
    "_prelu_kernel",
    "abs",
    "neg",
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "lift_fresh",
    "contiguous",
)
_MOVED = (
    *(
        "permute",
        "transpose",
        "t",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "split",
        "split_with_sizes",
        "unbind",
        "mean",
    ),
    *(
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
    ),
)
_POOLED = (
    "max_pool1d",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "adaptive_max_pool2d",
    "amax",
)
ATTENDED = (
    *(
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
    ),
    *(
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_fused_attention_overrideable",
    ),
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(_MOVED, moved),
    **dict.fromkeys(_POOLED, pooled),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), viewed),
    **dict.fromkeys(ATTENDED, attended),
    "sum": summed,
    "mul": multiplied,
    "div": divided,
    "bmm": weighted,
    "matmul": weighted,
}
