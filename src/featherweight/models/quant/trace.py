"""What flows from which layer into which: one run of a module, watched operation by operation.

A *producer* is a Linear, a convolution or an affine normalisation with C output channels.
Its channel i can be divided by s_i > 0, and the weights that read it multiplied by s_i, without
changing the function, if everything between is scale-equivariant (identity, ReLU, pooling,
reshaping, the value side of attention) and ends in layers. To find that, each tensor on the way
carries labels: for each of its elements the number c of the channel that it came from, and c^2;
where an operation mixes channels, the two no longer agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...errors import InputError
from ..batch_norms import check_statistics
from ..hooks import watched
from ._rules import ATTENDED, RULES
from .layers import is_convolution, is_layer
from .pairs import Consumer, Pair


@dataclass(frozen=True)
class Flow:
    """pairs: in forward order; left: {producer: why it is not in a pair}; batch_norms: {layer:
        the batch norm that alone reads it};
    stages: the layers in forward order, those that read the same tensor together; tied: layers
        whose weight is used elsewhere too;
    repeated: layers called more than once."""

    pairs: tuple[Pair, ...]
    left: dict[str, str]
    batch_norms: dict[str, str]
    stages: tuple[tuple[str, ...], ...]
    tied: frozenset[str]
    repeated: frozenset[str]


@dataclass(frozen=True)
class Label:
    root: str
    channel: Tensor  # shaped as the value, float64
    square: Tensor


@dataclass
class _Found:
    """What a run has shown so far."""

    labels: dict[int, Label] = field(default_factory=dict)
    leaks: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # of the producers, in forward order
    reads: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)
    # layer -> batch norms that read it directly
    normed: dict[str, list[str]] = field(default_factory=dict)
    # producers that something other than a batch norm reads
    others: set[str] = field(default_factory=set)
    stages: list[list[str]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)  # modules whose parameters are read by others
    kept: list[Any] = field(default_factory=list)  # tensors stay alive, so that no id is used twice
    last_input: int = 0


def trace(module: nn.Module, inputs: tuple[Tensor, ...]) -> Flow:
    """The flow of `module` (in eval mode) on a small batch of `inputs`.
    InputError if it does not run on them, or has batch norms without statistics."""
    check_statistics(module, "folded or equalized", InputError)
    found = _Found()
    owners = {id(p): name.rpartition(".")[0] for name, p in module.named_parameters()}
    watcher = _Watcher(found, owners)
    known = [path for path, m in module.named_modules() if _is_known(m)]
    after, before = {path: partial(watcher.leave, path) for path in known}, dict.fromkeys(known, watcher.enter)
    try:
        with torch.no_grad(), watched(module, after, before=before), watcher:
            out = module(*inputs)
    except Exception as e:  # a model's code may raise anything; it all means the same to the user
        raise InputError("the model does not run on its calibration inputs", got=f"{type(e).__name__}: {e}") from e
    for t in tree_leaves(out):
        watcher.leak(t, "it is the model's output")
    return _conclude(module, found)


def _is_known(m: nn.Module) -> bool:
    """A layer or normalisation that computes what its class says (a subclass may compute
    something else)."""
    if list(m.children()) or "weight" not in m._parameters or m._parameters["weight"] is None:
        return False
    if type(m).__name__.endswith("RMSNorm"):
        return m._parameters["weight"].ndim == 1 and len(m._parameters) == 1
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(isinstance(m, k) and type(m).forward is k.forward for k in kinds)


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: _Found, owners: dict[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found, self.owners, self.inside = found, owners, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.inside == 0:
            self.operation(func, args, kwargs, out)
        return out

    def operation(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        labels, tensors = self.found.labels, [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.found.kept += [tensors, outs]
        self.found.foreign |= {self.owners[id(t)] for t in tensors if id(t) in self.owners}
        labelled = [t for t in tensors if id(t) in labels]
        name = func.overloadpacket.__name__
        rule: Callable[..., list[tuple[Tensor, Tensor]] | None] | None = RULES.get(name.removesuffix("_"))
        made = None
        # queries and keys pass through a softmax; the values go on
        if name in ATTENDED and len(labelled) > 1:
            for t in labelled:
                if t is not args[2]:
                    self.leak(t, f"its channels pass through {name}")
            labelled = [t for t in labelled if t is args[2]]
        if len(labelled) == 1 and rule is not None:
            source = labels[id(labelled[0])]
            made = rule(func, args, kwargs, labelled[0], source.channel, source.square, outs)
        if made is not None and all(_agree(c, sq) for c, sq in made):
            self.found.others.add(source.root)
            for t, (c, sq) in zip(outs, made, strict=False):
                labels[id(t)] = Label(source.root, c, sq)
            return
        for t in labelled:
            self.leak(t, f"its channels pass through {name}")
        if any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments):
            self.forget({t.untyped_storage().data_ptr() for t in outs}, name)

    def forget(self, storages: set[int], name: str) -> None:
        """A tensor was overwritten: what its memory was labelled as no longer holds."""
        stale = {
            id(t): t
            for group in self.found.kept
            for t in group
            if id(t) in self.found.labels and t.untyped_storage().data_ptr() in storages
        }
        for key, t in stale.items():
            self.leak(t, f"its channels are overwritten by {name}")
            del self.found.labels[key]

    def leak(self, t: Any, why: str) -> None:
        label = self.found.labels.get(id(t))
        if label is not None:
            self.found.leaks.setdefault(label.root, why)
            self.found.others.add(label.root)

    def enter(self, m: nn.Module, args: Any) -> None:
        self.inside += 1

    def leave(self, path: str, m: nn.Module, args: Any, out: Any) -> None:
        self.found.calls[path] = self.found.calls.get(path, 0) + 1
        x = args[0] if args and isinstance(args[0], Tensor) else None
        self.found.kept.append([t for t in (x, out) if isinstance(t, Tensor)])
        if x is not None and isinstance(out, Tensor):
            self.module(path, m, x, out)
        self.inside -= 1  # only now: what is computed above is not the model's

    def module(self, path: str, m: nn.Module, x: Tensor, out: Tensor) -> None:
        found, label = self.found, self.found.labels.get(id(x))
        dim = 1 if is_convolution(m) or isinstance(m, nn.modules.batchnorm._BatchNorm) else -1
        if is_layer(m):
            if id(x) == found.last_input and path not in (p for stage in found.stages for p in stage):
                found.stages[-1].append(path)
            elif found.calls[path] == 1:
                found.stages.append([path])
            found.last_input = id(x)
        if label is not None:
            channel = features(label, dim)
            direct = channel is not None and torch.equal(
                channel, torch.arange(found.sizes[label.root], device=channel.device)
            )
            if channel is not None and is_layer(m):
                found.reads[label.root].append((path, channel))
                found.others.add(label.root)
            elif direct and isinstance(m, nn.modules.batchnorm._BatchNorm) and x.shape[1] == found.sizes[label.root]:
                found.normed.setdefault(label.root, []).append(path)
            else:
                self.leak(x, f"its channels pass through {path}")
        if _makes_channels(m, x, out):
            size = out.shape[dim]
            shape = [size if d == dim % out.ndim else 1 for d in range(out.ndim)]
            channel = torch.arange(size, dtype=torch.float64, device=out.device).reshape(shape).expand(out.shape)
            found.labels[id(out)] = Label(path, channel, channel.square())
            found.sizes.setdefault(path, size)
            found.reads.setdefault(path, [])


def _makes_channels(m: Any, x: Tensor, out: Tensor) -> bool:
    """Is its output's channel axis where we take it to be, and are its outputs proportional
    to its parameters?"""
    if is_convolution(m):
        return bool(x.ndim == m.weight.ndim)  # not a single unbatched sample
    if isinstance(m, nn.modules.batchnorm._BatchNorm):
        return bool(m.running_mean is not None and m.affine)
    if isinstance(m, nn.Linear):
        return True
    if isinstance(m, nn.LayerNorm):
        return len(m.normalized_shape) == 1
    # an RMSNorm may multiply by 1 + weight: then twice the weight does not give twice the output
    m.weight.data.mul_(2)
    try:
        doubled = m.forward(x)
    finally:
        m.weight.data.mul_(0.5)  # exact
    return bool(torch.allclose(doubled.float(), 2 * out.float(), rtol=1e-5))


def _agree(channel: Tensor, square: Tensor) -> bool:
    return bool(((square - channel.square()).abs() <= 1e-6 * (1 + square.abs())).all())


def features(label: Label, dim: int) -> Tensor | None:
    """[I] int64: the producer's channel of each feature along `dim`;
    None if a feature holds several."""
    rows = label.channel.movedim(dim, -1).reshape(-1, label.channel.shape[dim])
    return rows[0].round().long() if len(rows) and bool((rows - rows[0]).abs().max() < 0.25) else None


def _conclude(module: nn.Module, found: _Found) -> Flow:
    names: dict[int, int] = {}
    for _, p in module.named_parameters(remove_duplicate=False):
        names[id(p)] = names.get(id(p), 0) + 1
    tied = {
        path
        for path, m in module.named_modules()
        if _is_known(m) and (path in found.foreign or any(names[id(p)] > 1 for p in m.parameters()))
    }
    repeated = {path for path, n in found.calls.items() if n > 1}
    unsafe = tied | repeated
    batch_norms = {
        layer: norms[0]
        for layer, norms in found.normed.items()
        if len(norms) == 1 and layer not in found.others | unsafe and norms[0] not in unsafe
    }
    behind = {norm: layer for layer, norm in batch_norms.items() if is_layer(module.get_submodule(layer))}
    pairs, left = [], {}
    for root, size in found.sizes.items():
        if root in behind.values():
            continue  # its batch norm stands for both
        producer, norm = behind.get(root, root), root if root in behind else ""
        consumers = tuple(Consumer(path, channel) for path, channel in found.reads[root])
        shared = [p for p in (producer, norm, *(c.path for c in consumers)) if p in unsafe]
        if root in found.leaks:
            left[producer] = found.leaks[root]
        elif root in found.normed:
            left[producer] = f"its channels pass through {found.normed[root][0]}"
        elif not consumers:
            left[producer] = "no layer reads it"
        elif shared:
            left[producer] = f"{shared[0]} is used more than once"
        else:
            pairs.append(Pair(producer, size, consumers, norm, not is_layer(module.get_submodule(producer))))
    layers_of_norms = {layer: norm for norm, layer in behind.items()}
    return Flow(
        tuple(pairs), left, layers_of_norms, tuple(tuple(s) for s in found.stages), frozenset(tied), frozenset(repeated)
    )
