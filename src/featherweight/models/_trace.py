"""Following channels through one run of a model, number by number.

Every layer marks the channels that it makes (`_labels`); what the model's code does with them is
watched below the level of modules, one operation at a time (`_operations`). So what a layer reads
at each of its inputs is known, whatever came between.

Shapes: x [.., C, ..] with channels on any axis; labels are shaped as what they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from . import recurrent
from ._labels import Memory, Ties, key
from ._operations import Following, along
from .cutting import can_narrow, channel_axis, depthwise
from .groups import HEADS, owners
from .heads import packs_heads, projections
from .hooks import tensors, watched
from .learning import learning, learns_apart

OUTPUT = "it is coupled to the model's output"
_SIDES = (  # attributes that have the widths of a layer
    ("in_features", "out_features"),
    ("in_channels", "out_channels"),
    ("num_features", ""),
    ("num_channels", ""),
    ("input_size", "hidden_size"),
)
_OPAQUE = (nn.RNNCellBase, nn.MultiheadAttention, nn.Embedding, nn.EmbeddingBag, nn.Bilinear)


class Trace:
    """What a run of `module` on `inputs` shows of its channels.

    ties: all that is known of labels; rows, columns, norms: {path of a layer: the labels [O] of
    what it makes, [I] of what it reads, [C] of what it normalises}; held: {path of another
    parameter or buffer: the labels of its numbers}; places: {layer: when it first ran}; whole:
    {path: why a layer cannot be cut whatever comes before and after}; outputs: labels in the
    model's output; unreached: {path: widths} of layers that did not run, of a model whose code
    looks at values: other rows may reach them. A pass in training mode that does something else is
    followed, too. Whatever the model's own code raises is raised.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.ties, self.memory = Ties(), Memory()
        self.rows: dict[str, Tensor] = {}
        self.columns: dict[str, Tensor] = {}
        self.norms: dict[str, Tensor] = {}
        self.held: dict[str, Tensor] = {}
        self.places: dict[str, int] = {}
        self.whole: dict[str, str] = {}
        self.outputs = torch.zeros(0, dtype=torch.long)
        self.chosen = False  # did the model's code look at a value, by which it may have chosen its way?
        self.seen: set[tuple[int, int]] = set()  # the memory of what operations took
        self.own = False  # is it the trace itself that computes?
        self.inside = 0  # how many layers, whose insides are no business of ours, are running
        self._spoilt: dict[str, str] = {}  # {path of a parameter or buffer: why it cannot be cut}
        self._layers = self._watch(module)
        self._tensors = self._find(module)
        self._run(module, inputs)
        if learns_apart(module, inputs):
            with learning(module), torch.random.fork_rng(devices=[]):
                self._run(module, inputs)
        self._conclude()
        unseen = [path for at, (path, _) in self._tensors.items() if at not in self.seen]
        self.unreached = self._names(module, unseen) if self.chosen else {}

    def labels(self, t: Tensor) -> Tensor:
        """The labels of `t`. Memory that has none gets some: a parameter or buffer one for each
        number, a constant 0, all else a fixed one."""
        found = self.memory.get(t)
        if found is not None:
            return found
        held = self._tensors.get(key(t)) if t.layout == torch.strided else None
        if held is not None and held[1].is_floating_point():
            path, whole = held
            self.held[path] = self.ties.new(whole.numel()).view(whole.shape)
            self.memory.put(whole, self.held[path])
            return self.memory.get(t)  # type: ignore[return-value]
        made = torch.zeros(t.shape, dtype=torch.long)
        if t.numel() and t.layout == torch.strided and not bool((t == t.flatten()[0]).all()):
            made += self.ties.new(1, "it is joined with a tensor of a fixed width")
            self.memory.put(t.as_strided(t.size(), t.stride(), t.storage_offset()), made)
        return made

    def close(self, t: Tensor, reason: str) -> None:
        """What `t` holds can be cut no more."""
        held = self._tensors.get(key(t)) if t.layout == torch.strided else None
        if held is not None:
            self._spoilt[held[0]] = reason  # without a label for each of its numbers
        elif self.knows(t):
            self.ties.fix(self.labels(t), reason)

    def knows(self, t: Tensor) -> bool:
        return self.memory.get(t) is not None

    def is_held(self, t: Tensor) -> bool:
        return t.layout == torch.strided and key(t) in self._tensors

    def _run(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for x in inputs:
            self.memory.put(x, self.ties.new(1, "it is joined with the model's input"))
        after = {path: partial(self._after, path, hook) for path, hook in self._layers.items()}
        before = {path: self._enter for path in self._layers}
        with torch.no_grad(), watched(module, after, before=before, with_kwargs=True), Following(self):
            out = module(*inputs)
        found = [self.labels(t).flatten() for t in tensors(out) if self.knows(t)]
        self.outputs = torch.cat([self.outputs, *found])

    def _after(self, path: str, hook: Callable[..., None], *args: Any) -> None:
        self.own = True
        hook(path, *args)
        self.own = False

    def _conclude(self) -> None:
        self.ties.fix(self.outputs, OUTPUT)
        for path, reason in self._spoilt.items():
            layer = path.rpartition(".")[0]
            mine = [self.held.get(path), self.rows.get(layer), self.columns.get(layer), self.norms.get(layer)]
            for labels in mine if layer in self._layers else mine[:1]:
                if labels is not None:
                    self.ties.fix(labels, reason)

    def _find(self, module: nn.Module) -> dict[tuple[int, int], tuple[str, Tensor]]:
        """{memory: (path, tensor)} of all parameters and buffers."""
        found: dict[tuple[int, int], tuple[str, Tensor]] = {}
        saved = module.state_dict(keep_vars=True)
        for items in (module.named_parameters, module.named_buffers):
            for path, t in items(remove_duplicate=False):
                if t.layout != torch.strided or t.numel() == 0:
                    continue
                if key(t) in found:
                    self._spoilt[found[key(t)][0]] = f"it shares its weights with {path}"
                    continue
                found[key(t)] = path, t.detach()
                if path not in saved:
                    self._spoilt[path] = f"it is coupled to the buffer {path}, which is not saved with the model"
        return found

    def _names(self, module: nn.Module, unseen: Iterable[str]) -> dict[str, set[int]]:
        """{path of a layer, or of a parameter of none, that has run in no pass: its widths}."""
        found: dict[str, set[int]] = {}
        learned = dict(module.named_parameters())
        for path in (p for p in unseen if p in learned):
            parent = path.rpartition(".")[0]
            layer: Any = module.get_submodule(parent)
            sides = [(a, b) for a, b in _SIDES if hasattr(layer, a)]
            name = parent if parent and not list(layer.children()) else path
            widths = {getattr(layer, n) for n in sides[0] if n} if sides else set(learned[path].shape)
            found.setdefault(name, set()).update(widths - {1})
        return found

    def _watch(self, module: nn.Module) -> dict[str, Callable[..., None]]:
        """{path: what follows the labels through it} of all layers that are followed as a whole."""
        held, heads = owners(module), {id(m) for m in projections(module)}
        found: dict[str, Callable[..., None]] = {}
        for path, m in module.named_modules():
            layer = isinstance(m, (nn.Linear, _ConvNd, nn.RNNBase))
            norm = isinstance(m, (_NormBase, nn.GroupNorm))
            if isinstance(m, _OPAQUE):
                found[path] = partial(self._opaque, reason=_why_opaque(m))
            if not (layer or norm):
                continue
            shared = sorted({o for p in m.parameters(recurse=False) for o in held[id(p)]} - {path})
            reason = f"it shares its weights with {shared[0]}" if shared else can_narrow(m)
            if reason is None and list(m.children()):
                continue  # a layer of the model's own around others: its operations are followed
            if reason is not None:
                self.whole[path] = reason
                found[path] = partial(self._opaque, reason=reason)
            elif norm:
                found[path] = self._norm
            elif isinstance(m, nn.RNNBase):
                found[path] = self._recurrent
            else:
                if id(m) in heads or packs_heads(module.get_submodule(path.rpartition(".")[0])):
                    self.whole[path] = HEADS
                found[path] = self._layer
        return found

    def _enter(self, *_: Any) -> None:
        self.inside += 1

    def _leave(self, path: str, args: Any, kwargs: Any) -> Tensor:
        """The layer's input."""
        self.inside -= 1
        self.places.setdefault(path, len(self.places))
        return next(t for t in tensors((args, kwargs)))

    def _layer(self, path: str, m: Any, args: Any, kwargs: Any, out: Any) -> None:
        """A linear layer or a convolution: reads columns, makes rows."""
        if not isinstance(out, Tensor):
            self.whole[path] = "it gives something else than a tensor"
            return self._opaque(path, m, args, kwargs, out, self.whole[path])
        x = next(tensors((args, kwargs)))
        axis = channel_axis(m, x.ndim)
        wide = (m.in_features, m.out_features) if isinstance(m, nn.Linear) else (m.in_channels, m.out_channels)
        if out.ndim != x.ndim or (x.shape[axis], out.shape[axis]) != wide:
            self.whole[path] = "it reads or gives another number of channels than its weight has"
            return self._opaque(path, m, args, kwargs, out, self.whole[path])
        self._leave(path, args, kwargs)
        labels = self.labels(x)
        read = self.ties.tie_along(labels, [d for d in range(x.ndim) if d != axis]).flatten()  # [I]
        width, groups = out.shape[axis - x.ndim], getattr(m, "groups", 1)
        if path not in self.rows:
            self.rows[path], self.columns[path] = self.ties.new(width), self.ties.new(len(read))
            if path in self.whole:
                self.ties.fix(self.rows[path], self.whole[path])
            if depthwise(m):  # each input makes width / groups outputs
                self.ties.tie(self.columns[path].repeat_interleave(width // groups), self.rows[path])
            elif groups > 1:  # all groups stay equally wide if they lose the same
                for side in (self.rows[path], self.columns[path]):
                    self.ties.tie(side, side[: len(side) // groups].repeat(groups))
        self.ties.tie(self.columns[path], read)
        self.memory.put(out, along(self.rows[path], out.ndim, axis - x.ndim).expand(out.shape))

    def _recurrent(self, path: str, m: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Recurrent layers: they read columns and make rows, which are outputs [.., D H] and last
        states [.., H]. Unit h of each direction is one channel (see `recurrent`)."""
        if (reason := recurrent.unfit(args, kwargs)) is not None:
            self.whole[path] = reason
            return self._opaque(path, m, args, kwargs, out, reason)
        labels = self.labels(self._leave(path, args, kwargs))
        read = self.ties.tie_along(labels, range(labels.ndim - 1)).flatten()  # [I]
        if path not in self.rows:
            self.rows[path], self.columns[path] = self.ties.new(recurrent.width(m)), self.ties.new(len(read))
            self.ties.tie(self.rows[path].view(-1, m.hidden_size), self.rows[path][: m.hidden_size])
        self.ties.tie(self.columns[path], read)
        for t in tensors(out):
            self.memory.put(t, along(self.rows[path][: t.shape[-1]], t.ndim, -1).expand(t.shape))

    def _norm(self, path: str, m: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        """A normalisation of each channel by itself, or of groups of them."""
        x = self._leave(path, args, kwargs)
        axis = channel_axis(m, x.ndim)
        read = self.ties.tie_along(self.labels(x), [d for d in range(x.ndim) if d != axis]).flatten()
        if path not in self.norms:
            self.norms[path] = mine = self.ties.new(len(read))
            if isinstance(m, nn.GroupNorm):
                same = torch.arange(len(mine)) // (len(mine) // m.num_groups) * (len(mine) // m.num_groups)
                self.ties.tie(mine, mine[same], "a GroupNorm is coupled to it, whose statistics would change")
        self.ties.tie(self.norms[path], read)
        self.memory.put(out, along(self.norms[path], out.ndim, axis).expand(out.shape))

    def _opaque(self, path: str, m: Any, args: Any, kwargs: Any, out: Any, reason: str) -> None:
        """A layer that is not cut: neither what it reads, nor what it makes."""
        self.inside -= 1
        self.places.setdefault(path, len(self.places))
        for t in tensors((args, kwargs)):
            if t.is_floating_point() and (self.knows(t) or self.is_held(t)):
                self.close(t, reason)
        for t in tensors(out):
            self.memory.put(t, self.ties.new(1, reason))
        if isinstance(m, (nn.Linear, _ConvNd, nn.RNNBase)):
            for labels in (self.rows.get(path), self.columns.get(path)):  # of a run that was followed
                if labels is not None:
                    self.ties.fix(labels, reason)
            self.rows[path] = self.ties.new(1, reason)
            for t in tensors(out):
                self.memory.put(t, self.rows[path])


def _why_opaque(m: nn.Module) -> str:
    if isinstance(m, (nn.Embedding, nn.EmbeddingBag)):
        return "it is the residual stream that starts at an embedding"
    return HEADS if isinstance(m, nn.MultiheadAttention) else f"a {type(m).__name__} is coupled to it"
