"""What the operations that a model runs do to the labels of channels.

Operations that only move numbers move the labels with them; what joins numbers ties their channels;
what mixes them in a way that no cut leaves as it is fixes them, for a reason that names it.

Shapes: labels are shaped as the tensor that they belong to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ._labels import key
from .hooks import tensors
from .looking import by_value

if TYPE_CHECKING:
    from ._trace import Trace

_POINTWISE = frozenset(
    "_prelu_kernel log_sigmoid_forward rrelu_with_noise hardswish native_dropout bernoulli clone _to_copy copy".split()
)
# they make numbers that fit whatever width there is
_FRESH = frozenset(
    (
        "new_empty new_zeros new_ones new_full new_empty_strided empty_like zeros_like ones_like full_like rand_like "
        "randn_like randint_like"
    ).split()
)
_DRAWS = frozenset("rand randn randint normal rand_like randn_like bernoulli uniform".split())
_MOVES = frozenset(
    (
        "cat stack index index_select gather flip roll repeat pixel_shuffle pixel_unshuffle channel_shuffle "
        "native_channel_shuffle im2col tril triu slice_scatter select_scatter diagonal_copy view_copy expand_copy "
        "permute_copy transpose_copy slice_copy upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d reflection_pad1d "
        "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d"
    ).split()
)
_REDUCES = frozenset(
    (
        "mean sum amax amin max min var std var_mean std_mean prod any all argmax argmin logsumexp linalg_vector_norm "
        "norm _softmax _log_softmax softmax log_softmax cumsum cumprod sort topk median nanmean logcumsumexp"
    ).split()
)
_PLANES = re.compile(
    r"_?(adaptive_)?(avg|max)_pool([123])d.*|_?upsample_(?:linear|bilinear|bicubic|trilinear)([123])d.*"
)


class Following(TorchDispatchMode):
    """While it is entered, labels follow every operation that runs outside of a watched layer."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.trace.own:
            return out
        given = list(tensors((args, kwargs or {})))
        self.trace.seen.update(key(t) for t in given if t.layout == torch.strided)
        self.trace.chosen = self.trace.chosen or by_value(func, given)
        if self.trace.inside == 0:
            if any(self.trace.knows(t) or self.trace.is_held(t) for t in given):
                _follow(self.trace, func, args, kwargs or {}, given, out)
            elif func.overloadpacket.__name__.rstrip("_") in _DRAWS:
                for t in tensors(out):
                    self.trace.memory.put(t, torch.zeros(()).long())
        return out


def _follow(
    trace: Trace, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], out: Any
) -> None:
    """Give the labels that an operation's outputs have by its inputs'."""
    name = func.overloadpacket.__name__
    if func._schema.is_mutable and name.endswith("_"):
        name = name[:-1]
    made = list(tensors(out))
    if not func._schema.is_mutable and made and all(any(key(t) == key(g) for g in given) for t in made):
        _taken_apart(trace, name, args, made)
        return  # a view, which has its labels
    pointwise = torch.Tag.pointwise in func.tags or name in _POINTWISE
    try:
        if name in ("fill", "zero") or (func._schema.is_mutable and torch.Tag.nondeterministic_seeded in func.tags):
            return  # other numbers at the same places
        if name in _FRESH:
            labels = [torch.zeros(()).long() for _ in made]
        elif pointwise:
            labels = [_pointwise(trace, given, tuple(t.shape)) for t in made]
        else:
            labels = _structural(trace, func, name, args, kwargs, made)
    except (RuntimeError, IndexError, TypeError, ValueError) as e:
        labels = _barrier(trace, given, made, f"its channels go through {name}, where they cannot be followed ({e})")
    for t, label in zip(made, labels, strict=True):
        place = trace.memory.get(t) if func._schema.is_mutable else None
        if place is None:
            trace.memory.put(t, label)
        else:
            place.copy_(label)


def _structural(
    trace: Trace, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
) -> list[Tensor]:
    """Labels of the outputs of an operation that is not pointwise."""
    planes = _PLANES.fullmatch(name)
    if name == "_unsafe_view":
        _taken_apart(trace, name, args, made)
        return [trace.labels(args[0]).reshape(made[0].shape)]
    if name in _MOVES:
        return _moved(trace, func, name, args, kwargs, made)
    if name == "constant_pad_nd":
        return [_padded(trace.labels(args[0]), args[1])]
    if planes:
        dims = int(planes[3] or planes[4])
        one = trace.ties.tie_along(trace.labels(args[0]), range(-dims, 0), f"its channels are joined by {_plain(name)}")
        return [one.expand(t.shape) for t in made]
    if name in _REDUCES:
        return _reduced(trace, func, name, args, kwargs, made)
    if name == "native_layer_norm":
        dims = len(args[1])
        reason = "a LayerNorm is coupled to it, whose statistics would change"
        one = trace.ties.tie_along(trace.labels(args[0]), range(-dims, 0), reason)
        full = one.expand(args[0].shape)
        return [full if t.shape == args[0].shape else one.expand(t.shape) for t in made]
    if name == "glu":
        a, b = trace.labels(args[0]).chunk(2, args[1] if len(args) > 1 else -1)
        trace.ties.tie(a, b)
        return [torch.where(a != 0, a, b)]
    if name in ("mm", "bmm"):
        return [_product(trace, name, args[0], args[1])]
    mixed = list(tensors((args, kwargs)))
    return _barrier(trace, mixed, made, f"its channels go through {_plain(name)}, which mixes them")


def _barrier(trace: Trace, given: list[Tensor], made: list[Tensor], reason: str) -> list[Tensor]:
    for t in given:
        trace.close(t, reason)
    label = trace.ties.new(1, reason)[0]
    return [label.expand(t.shape) for t in made]


def _pointwise(trace: Trace, given: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Numbers that meet are of one channel, unless one of them meets several channels: then it has
    to stay. Activations first, for they have one label a channel."""
    acc, acc_wide = torch.zeros(shape, dtype=torch.long), set(range(len(shape)))
    for t in sorted(given, key=lambda t: (trace.is_held(t), -t.numel())):
        if t.numel() <= 1 and not trace.knows(t):
            continue  # a number for all
        labels = trace.labels(t)
        pad = len(shape) - t.ndim
        wide = {d for d in range(len(shape)) if (d < pad or t.shape[d - pad] == 1) and shape[d] > 1}
        b = labels.expand(shape)
        several_b, several_a = _several(acc, wide), _several(b, acc_wide - wide)
        both = (acc != 0) & (b != 0)
        trace.ties.tie(acc * (both & ~several_a & ~several_b), b)
        trace.ties.fix(b * (both & several_b), "one of its channels is joined with several others")
        trace.ties.fix(acc * (both & several_a), "one of its channels is joined with several others")
        acc, acc_wide = torch.where((acc == 0) | (several_a & ~several_b & (b != 0)), b, acc), acc_wide & wide
    return acc


def _several(labels: Tensor, dims: set[int]) -> Tensor:
    """Where there is more than one label along `dims`, which are kept with size 1."""
    if not dims or labels.numel() == 0:
        return torch.zeros((), dtype=torch.bool)
    most = labels.amax(list(dims), keepdim=True)
    least = torch.where(labels == 0, most, labels).amin(list(dims), keepdim=True)
    return most != least


def _moved(
    trace: Trace, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
) -> list[Tensor]:
    """The operation itself, on labels (as real numbers: some operations take no others)."""

    def replaced(x: Any) -> Any:
        return trace.labels(x).double() if isinstance(x, Tensor) else x

    if "channel_shuffle" in name:
        width = args[0].shape[1]
        trace.ties.apart(_run_of(trace.labels(args[0]), [1]), range(0, width, width // args[1]))
    first = 1 if name in ("index", "index_select", "gather") else len(args)
    out = func(*tree_map(replaced, args[:first]), *args[first:], **kwargs)
    return [t.round().long() for t in tensors(out)]


def _padded(labels: Tensor, pad: list[int]) -> Tensor:
    """Labels beyond an edge are those at the edge, unless channels are what is added to: then they
    are nobody's."""
    for i in range(len(pad) // 2):
        dim, before, after = labels.ndim - 1 - i, pad[2 * i], pad[2 * i + 1]
        size = labels.shape[dim]
        at = torch.arange(-before, size + after)
        varied = bool((labels != labels.narrow(dim, 0, 1)).any())
        labels = labels.index_select(dim, at.clamp(0, size - 1))
        if varied:
            outside = along(((at < 0) | (at >= size)).long(), labels.ndim, dim)
            labels = labels * (1 - outside)
    return labels


def _reduced(
    trace: Trace, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
) -> list[Tensor]:
    """What is joined along dimensions is tied along them."""
    x = args[0]
    names = [a.name for a in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    dim = given.get("dim")
    dims = list(range(x.ndim)) if dim is None or dim == [] else dim if isinstance(dim, list) else [dim]
    one = trace.ties.tie_along(trace.labels(x), dims, f"its channels are joined by {_plain(name)}")
    out = []
    for t in made:
        kept = one if t.ndim == x.ndim else one.flatten()[:1].view(()) if t.ndim == 0 else _squeezed(one, dims)
        out.append(kept.expand(t.shape))
    return out


def _squeezed(x: Tensor, dims: list[int]) -> Tensor:
    for d in sorted((d % x.ndim for d in dims), reverse=True):
        x = x.squeeze(d)
    return x


def _product(trace: Trace, name: str, a: Tensor, b: Tensor) -> Tensor:
    """[.., M, K] x [.., K, N]: what is summed over has to stay; the rest is as in either factor."""
    reason = f"its channels go through {_plain(name)}, which mixes them"
    sides = []
    for t, dim in ((a, -1), (b, -2)):
        if trace.is_held(t):
            trace.close(t, reason)
            sides.append(torch.zeros(1, dtype=torch.long))
            continue
        labels = trace.labels(t)
        trace.ties.fix(labels * _several(labels, {labels.ndim + dim}), reason)
        sides.append(labels.amax(dim, keepdim=True))
    left, right = sides
    if bool((left != 0).any()) and bool((right != 0).any()):
        # one number of each side meets many of the other: neither may vary
        if not bool(_several(left, set(range(left.ndim))).any()):
            return right.expand(*right.shape[:-2], a.shape[-2], b.shape[-1])
        if bool(_several(right, set(range(right.ndim))).any()):
            trace.ties.fix(left, reason)
            trace.ties.fix(right, reason)
        return left.expand(*left.shape[:-2], a.shape[-2], b.shape[-1])
    return (left if bool((left != 0).any()) else right).expand(*a.shape[:-2], a.shape[-2], b.shape[-1])


def _taken_apart(trace: Trace, name: str, args: tuple[Any, ...], made: list[Tensor]) -> None:
    """Take note of a view that takes channels apart: into equal runs, or by their number."""
    x = args[0]
    if not isinstance(x, Tensor) or x.numel() == 0 or not trace.knows(x):
        return
    labels = trace.labels(x)
    if name in ("view", "_unsafe_view", "_reshape_alias"):
        for mine, sizes in _matched(tuple(x.shape), tuple(made[0].shape)):
            run = _run_of(labels, mine)
            for i in range(1, len(sizes)):
                block = math.prod(sizes[i:])
                if block > 1:
                    trace.ties.apart(run, range(0, len(run), block))
    elif name in ("slice", "select", "split", "split_with_sizes"):
        dim = args[2] if name.startswith("split") and len(args) > 2 else 0 if name.startswith("split") else args[1]
        run = _run_of(labels, [dim % x.ndim])
        if name == "slice":
            ends = [args[2] if len(args) > 2 else 0, args[3] if len(args) > 3 else None]
            points = [len(run) if e is None else e + len(run) if e < 0 else e for e in ends]
        elif name == "select":
            points = [args[2] % len(run), args[2] % len(run) + 1]
        elif name == "split":
            points = list(range(0, len(run), args[1]))
        else:
            points = [sum(args[1][:i]) for i in range(len(args[1]))]
        trace.ties.apart(run, points)


def _run_of(labels: Tensor, dims: list[int]) -> Tensor:
    """The labels along `dims`, flat, at the first place of all others."""
    return labels[tuple(slice(None) if d in dims else 0 for d in range(labels.ndim))].flatten()


def _matched(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """(old dimensions, sizes of the new ones) that hold the same numbers, for each run of
    dimensions that a view changes."""
    i = j = 0
    while i < len(old) and j < len(new):
        mine, sizes, a, b = [i], [new[j]], old[i], new[j]
        while a != b:
            if a < b:
                i += 1
                mine.append(i)
                a *= old[i]
            else:
                j += 1
                sizes.append(new[j])
                b *= new[j]
        i, j = i + 1, j + 1
        if len(sizes) > 1:
            yield mine, sizes


def along(x: Tensor, ndim: int, axis: int) -> Tensor:
    """[C] -> [1, .., C, .., 1]."""
    shape = [1] * ndim
    shape[axis] = -1
    return x.view(shape)


def _plain(operation: str) -> str:
    return operation.strip("_").replace("_", " ")
