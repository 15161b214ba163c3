"""What a pruning criterion looks at: statistics of layers, gathered by running the
model on batches.

Notation: O outputs, I inputs (of one convolution group), k kernel positions, n = I * k, G
convolution groups, B batches, N samples, R rows: one for each sample and position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ._follow import Follow
from .criteria.base import Seen
from .hooks import watched
from .recurrent import GATES, Matrix, inside, matrix, unfit

# called anew for each pass; gives (inputs in order, targets)
Batches = Callable[[], Iterable[tuple[list[Tensor], Tensor]]]
FIELDS = frozenset({"norm", "gradient", "input_norm", "hessian", "outputs"})
_FROM_INPUTS, _FROM_OUTPUTS = frozenset({"input_norm", "hessian"}), frozenset({"norm", "outputs"})
_UNFOLDED = 2**26  # bytes of unfolded convolution inputs at a time


def observe(
    module: nn.Module,
    paths: Iterable[str],
    needs: Iterable[str],
    batches: Batches,
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None,
    *,
    max_bytes: int = 2**30,
) -> Iterator[tuple[str, Seen]]:
    """(path, what was seen of it) for each of the layers `paths`, in order,
    with the fields `needs` of `Seen` filled.

    The module runs in eval mode and is left as it was. At most `max_bytes` of statistics are held
    at once (more if a single layer's need more): the layers are split into as many passes over the
    batches as that takes, and a pass starts when the one before it has been consumed, so changes
    made to earlier layers meanwhile are seen by the later ones. Layers: Linear and
    Conv1d/2d/3d, and matrices of recurrent layers, by the name of the parameter.
    loss_fn(outputs, targets): scalar; for `gradient` only.

    norm: from a batch normalisation that is applied to the layer's very output. outputs: followed
    through that batch normalisation and through the activation function after it; where no
    activation comes next (a residual sum, say), the value as it is there. A layer that runs several
    times in a pass adds up its inputs; of its outputs the last count. A layer that never runs has
    zero statistics and no outputs.

    InputError: no such layer, an unknown need, no batches, no loss, statistics that are not finite,
    or a layer whose weight is used without the layer being called (inside nn.MultiheadAttention).
    """
    layers = {path: _layer(module, path) for path in paths}
    wanted = frozenset(needs)
    if not wanted <= FIELDS:
        raise InputError(
            "no such thing can be observed of a layer",
            got=", ".join(sorted(wanted - FIELDS)),
            allowed=", ".join(sorted(FIELDS)),
        )
    if "gradient" in wanted and loss_fn is None:
        raise InputError("the gradient needs a loss", got="loss_fn=None", fix="pass the task's loss_fn")
    return _observe(module, layers, wanted, batches, loss_fn, max_bytes)


def _layer(module: nn.Module, path: str) -> nn.Module | Matrix:
    parent, _, name = path.rpartition(".")
    try:
        cells = module.get_submodule(parent)
        if isinstance(cells, nn.RNNBase) and (found := matrix(cells, name)) is not None:
            return found
        layer = module.get_submodule(path)
    except AttributeError as e:
        raise InputError("the model has no such layer", got=path) from e
    if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise InputError(
            "this layer cannot be observed",
            got=f"{path}: {type(layer).__name__}",
            allowed="Linear, Conv1d, Conv2d, Conv3d, a matrix of a recurrent layer by its name",
        )
    return layer


def _observe(
    module: nn.Module,
    layers: dict[str, nn.Module | Matrix],
    needs: frozenset[str],
    batches: Batches,
    loss_fn: Any,
    max_bytes: int,
) -> Iterator[tuple[str, Seen]]:
    if not needs:
        for path, layer in layers.items():
            yield path, Seen(layer.weight.detach(), name=path)  # type: ignore[operator]
        return
    n_batches = n_samples = 0
    if needs & {"gradient", "outputs"}:  # their size depends on how much will be seen
        sizes = [len(targets) for _, targets in batches()]
        n_batches, n_samples = len(sizes), sum(sizes)
    part: dict[str, nn.Module | Matrix] = {}
    held = 0
    for path, layer in layers.items():
        size = _size(layer, needs, n_batches, n_samples)
        if part and held + size > max_bytes:
            yield from _one_pass(module, part, needs, batches, loss_fn)
            part, held = {}, 0
        part[path] = layer
        held += size
    if part:
        yield from _one_pass(module, part, needs, batches, loss_fn)


def _size(layer: Any, needs: frozenset[str], n_batches: int, n_samples: int) -> int:
    """Bytes of the layer's statistics, in float32."""
    o, n, g = len(layer.weight), layer.weight[0].numel(), getattr(layer, "groups", 1)
    elements = {
        "norm": o,
        "gradient": n_batches * o * n,
        "input_norm": g * n,
        "hessian": g * n * n,
        "outputs": n_samples * o,
    }
    return 4 * sum(int(elements[field]) for field in needs)


def _one_pass(
    module: nn.Module, layers: dict[str, Any], needs: frozenset[str], batches: Batches, loss_fn: Any
) -> Iterator[tuple[str, Seen]]:
    inputs = (
        {path: _Inputs(layer, "hessian" in needs) for path, layer in layers.items()} if needs & _FROM_INPUTS else {}
    )
    plain = {path: layer for path, layer in layers.items() if not isinstance(layer, Matrix)}
    follow = Follow(module, plain) if needs & _FROM_OUTPUTS else None
    gradients: dict[str, list[Tensor]] = {path: [] for path in layers}
    outputs: dict[str, list[Tensor]] = {path: [] for path in layers}
    weights = [layer.weight for layer in layers.values()]
    ran, first = 0, list[Tensor]()
    with (
        _as_found(module, weights if "gradient" in needs else []),
        watched(module, before={path: sums.add for path, sums in inputs.items() if path in plain}),
        watched(module, before=_within(layers, inputs, outputs) if needs & (_FROM_INPUTS | _FROM_OUTPUTS) else {}),
    ):
        for x, y in batches():
            ran += 1
            with torch.set_grad_enabled("gradient" in needs), follow or ExitStack():
                out = module(*x)
            if "gradient" in needs:
                found = torch.autograd.grad(loss_fn(out, y), weights, allow_unused=True)
                for path, w, g in zip(layers, weights, found, strict=True):
                    gradients[path].append(torch.zeros_like(w, dtype=torch.float32) if g is None else g.float())
            if follow is not None:
                for path, means in follow.take().items():
                    outputs[path].append(means)
            first = first or x
    if ran == 0:
        raise InputError(
            "there is nothing to observe the model on",
            got="no batches",
            fix="give at least one batch of training samples",
        )
    _refuse_bypassed(module, {p: layers[p] for p, s in inputs.items() if s.rows == 0}, first)
    for path, layer in layers.items():
        fields: dict[str, Any] = {}
        if path in inputs:
            sums = inputs.pop(path)
            fields |= {
                "input_norm": sums.norm() if "input_norm" in needs else None,
                "hessian": sums.mean() if "hessian" in needs else None,
            }
        if "gradient" in needs:
            fields["gradient"] = torch.stack(gradients.pop(path))
        if follow is not None and "norm" in needs:
            fields["norm"] = follow.norms.get(path)
        if "outputs" in needs:
            fields["outputs"] = torch.cat(
                [torch.zeros(0, len(layer.weight), device=layer.weight.device), *outputs.pop(path)]
            )
        yield path, _finite(Seen(layer.weight.detach(), **fields, name=path))


def _within(
    layers: dict[str, Any], inputs: dict[str, _Inputs], outputs: dict[str, list[Tensor]]
) -> dict[str, Callable[..., None]]:
    """{path of a recurrent layer: what a pass adds to the statistics of its matrices}."""

    def add(path: str, layer: Any, args: tuple[Any, ...]) -> None:
        if (reason := unfit(args, {})) is not None:
            raise InputError("what goes on inside this layer cannot be observed", got=f"{path}: {reason}")
        for m, rows, made in inside(layer, args[0].detach()):
            name = f"{path}.{m.name}"
            if name in inputs:
                inputs[name].add_rows(rows.float().unsqueeze(0))
            if name in layers:
                outputs[name].append(made.float().repeat(1, GATES[layer.mode]))  # a unit's gates alike

    paths = {path.rpartition(".")[0] for path, layer in layers.items() if isinstance(layer, Matrix)}
    return {path: partial(add, path) for path in paths}


def _finite(seen: Seen) -> Seen:
    for field in FIELDS:
        value = getattr(seen, field)
        if value is not None and not bool(value.isfinite().all()):
            raise InputError(
                f"the {field} of the layer {seen.name!r} is not finite",
                got="nan or inf",
                fix="check the model's weights, inputs and loss",
            )
    return seen


@contextmanager
def _as_found(module: nn.Module, weights: list[Any]) -> Iterator[None]:
    """Eval mode and gradients of `weights` only; modes and flags are put back at the end."""
    modes = {m: m.training for m in module.modules()}
    flags = {p: p.requires_grad for p in module.parameters()}
    try:
        module.eval()
        if weights:
            for p in flags:
                p.requires_grad_(False)
            for w in weights:
                w.requires_grad_(True)
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
        for p, flag in flags.items():
            p.requires_grad_(flag)


def _refuse_bypassed(module: nn.Module, idle: dict[str, Any], x: list[Tensor]) -> None:
    """InputError if the output depends on a layer that was not called:
    its inputs cannot be seen."""
    if not idle:
        return
    weights = [layer.weight for layer in idle.values()]
    with _as_found(module, weights), torch.enable_grad():
        out = module(*x)
        used = (
            torch.autograd.grad(out.sum(), weights, allow_unused=True) if out.requires_grad else [None] * len(weights)
        )
    bypassed = [path for path, g in zip(idle, used, strict=True) if g is not None]
    if bypassed:
        raise InputError(
            "the inputs of these layers cannot be observed, because the model uses their weights without calling them",
            got=", ".join(bypassed),
            fix="leave them out, or use a criterion that looks at weights or gradients only",
        )


class _Inputs:
    """Sums over the rows that go into one layer: of squares [G, n],
    or of x x^T [G, n, n], in float32."""

    def __init__(self, layer: Any, outer: bool) -> None:
        groups, n = getattr(layer, "groups", 1), layer.weight[0].numel()
        self.total = torch.zeros((groups, n, n) if outer else (groups, n), device=layer.weight.device)
        self.outer, self.rows = outer, 0

    def add(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """A forward pre-hook."""
        with torch.no_grad():
            for x in input_rows(layer, args[0].detach()):
                self.add_rows(x)

    def add_rows(self, x: Tensor) -> None:
        """x: [G, R, n]."""
        self.total += x.transpose(1, 2) @ x if self.outer else (x * x).sum(1)
        self.rows += x.shape[1]

    def norm(self) -> Tensor:
        """||x_j||_2 over all rows: [G, n]."""
        squares = self.total.diagonal(dim1=1, dim2=2) if self.outer else self.total
        return squares.sqrt()

    def mean(self) -> Tensor:
        """The mean of x x^T over all rows: [G, n, n]; in place, for it is large."""
        return self.total.div_(max(self.rows, 1))


def input_rows(layer: Any, x: Tensor) -> Iterator[Tensor]:
    """The vectors that meet the layer's weight rows, in the order of weight[0].flatten(): float32
    [G, R, n], a bounded piece at a time.

    x: [N, ..., I] of a Linear; [N, G * I, *positions] of a convolution,
    which is padded and unfolded.
    """
    if isinstance(layer, nn.Linear):
        yield x.reshape(1, -1, x.shape[-1]).float()
        return
    dims, padding = len(layer.kernel_size), layer._reversed_padding_repeated_twice
    if any(padding):
        x = F.pad(x, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    positions = [
        (s - d * (k - 1) - 1) // t + 1
        for s, k, t, d in zip(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True)
    ]
    sample = 4 * x.shape[1] * math.prod(positions) * math.prod(layer.kernel_size)  # bytes
    step = max(1, _UNFOLDED // max(sample, 1))
    for start in range(0, len(x), step):
        windows = x[start : start + step].float()
        for i, (k, t, d) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
            # the window becomes the last axis
            windows = windows.unfold(2 + i, d * (k - 1) + 1, t)[..., ::d]
        windows = windows.reshape(len(windows), layer.groups, -1, *windows.shape[2:])  # [N, G, I, *positions, *k]
        # [G, N, *positions, I, *k]
        order = (1, 0, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims))
        yield windows.permute(order).reshape(layer.groups, -1, layer.weight[0].numel())
