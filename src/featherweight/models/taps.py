"""Reading what named submodules give and take while a model runs, by hooks that are gone
afterwards. A path is a submodule's dotted name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .hooks import submodules, watched

_PARTS = (  # the names that queries, keys and values go by
    ("q_proj", "query", "q_lin", "to_q", "q", "wq"),
    ("k_proj", "key", "k_lin", "to_k", "k", "wk"),
    ("v_proj", "value", "v_lin", "to_v", "v", "wv"),
)
_FUSED = ("qkv", "c_attn")  # one projection that gives the three, one after the other


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in what a module gives or takes: a tensor, a tuple, a list or a mapping of
    them; None if there is none."""
    if isinstance(value, torch.Tensor):
        return value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return next((t for t in map(first_tensor, inside) if t is not None), None)


class Taps:
    """While it is entered: keeps the outputs and inputs of the submodules at `paths`, and the
    inputs of the whole module, of the last forward pass.

    outputs, calls: by path, what it gave (first tensor) and was given (args, kwargs); inputs:
    the arguments of the module itself. InputError if there is no such submodule, or (`output`) if
    it did not run.
    """

    def __init__(self, module: nn.Module, paths: Iterable[str]) -> None:
        self._module, self._paths = module, tuple(dict.fromkeys(paths))
        submodules(module, self._paths)
        self.outputs: dict[str, Tensor] = {}
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.inputs: tuple[Any, ...] = ()
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> Taps:
        def begin(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
            self.clear()
            self.inputs = args

        def watch(path: str, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            found = first_tensor(out)
            if found is not None:
                self.outputs[path] = found
                self.calls[path] = (args, kwargs)

        after = {path: partial(watch, path) for path in self._paths}
        self._hooks.enter_context(watched(self._module, after, before={"": begin}, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self.clear()

    def clear(self) -> None:
        """Forget what was kept, so that its memory can go."""
        self.outputs, self.calls, self.inputs = {}, {}, ()

    def output(self, path: str) -> Tensor:
        """What the submodule at `path` gave in the last pass."""
        if path not in self.outputs:
            raise InputError(
                "this submodule gave no tensor when the model ran",
                got=path,
                fix="name a layer that the forward pass calls as a module",
            )
        return self.outputs[path]


def attention_paths(module: nn.Module, inside: str) -> tuple[str, ...]:
    """The submodules of the block `inside` that make queries, keys and values: three
    projections, one fused, or one nn.MultiheadAttention; () if there are none. The last
    attention of the block counts."""
    block = module.get_submodule(inside)
    names = {f"{inside}.{n}" if n and inside else n or inside: m for n, m in block.named_modules()}
    for path, m in reversed(list(names.items())):
        children = dict(m.named_children())
        if isinstance(m, nn.MultiheadAttention):
            return (path,)
        separate = [next((c for c in part if c in children), None) for part in _PARTS]
        if all(c is not None for c in separate):
            return tuple(f"{path}.{c}" if path else str(c) for c in separate)
        fused = next((c for c in _FUSED if c in children), None)
        if fused is not None:
            return (f"{path}.{fused}" if path else fused,)
    return ()


def queries_keys_values(module: nn.Module, taps: Taps, paths: tuple[str, ...]) -> list[Tensor]:
    """[B, L, D] each, of the last pass. paths: `attention_paths`, all of them tapped."""
    if len(paths) == 3:
        return [taps.output(p) for p in paths]
    m = module.get_submodule(paths[0])
    if not isinstance(m, nn.MultiheadAttention):
        return list(taps.output(paths[0]).chunk(3, dim=-1))
    taps.output(paths[0])  # it ran
    args, kwargs = taps.calls[paths[0]]
    given = [args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key", "value"))]
    weights = (
        m.in_proj_weight.chunk(3)
        if m.in_proj_weight is not None
        else (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)
    )
    biases = m.in_proj_bias.chunk(3) if m.in_proj_bias is not None else (None, None, None)
    out = [F.linear(x, w, b) for x, w, b in zip(given, weights, biases, strict=True)]
    return out if m.batch_first else [x.transpose(0, 1) for x in out]


def called(module: nn.Module, inputs: Sequence[Tensor]) -> frozenset[str]:
    """The paths of the submodules that the forward pass calls as modules and that give a tensor."""
    found: set[str] = set()

    def note(path: str, _: nn.Module, __: Any, out: Any) -> None:
        if first_tensor(out) is not None:
            found.add(path)

    with torch.no_grad(), watched(module, {path: partial(note, path) for path, _ in module.named_modules()}):
        module(*inputs)
    return frozenset(found)


def last_linear(module: nn.Module, inputs: Sequence[Tensor]) -> str | None:
    """The path of the linear layer that runs last, which makes the outputs from the penultimate
    features; None if none runs."""
    ran: list[str] = []
    after = {p: lambda *_, path=p: ran.append(path) for p, m in module.named_modules() if isinstance(m, nn.Linear)}
    with torch.no_grad(), watched(module, after):
        module(*inputs)
    return ran[-1] if ran else None


class Stop(Exception):
    """Ends a forward pass early: raised and caught by `part`."""


def part(
    module: nn.Module, inputs: Sequence[Tensor], start: str, end: str
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """One pass that ends after the submodule `end`: (args, kwargs) that `start` was given, and the
    first tensor that `end` gave.

    No gradients. start and end may be the same, and must run in this order;
    InputError if they do not run.
    """
    call: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    given: list[Tensor] = []

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not call:
            call.append((args, kwargs))

    def stop(_: nn.Module, __: Any, ___: Any, out: Any) -> None:
        found = first_tensor(out)
        if call and found is not None:
            given.append(found)
            raise Stop

    with (
        torch.no_grad(),
        contextlib.suppress(Stop),
        watched(module, {end: stop}, before={start: begin}, with_kwargs=True),
    ):
        module(*inputs)  # it ends where it was meant to
    if not given:
        raise InputError(
            "these blocks do not run one after the other",
            got=f"{start} to {end}",
            allowed="blocks that the forward pass calls as modules",
        )
    return *call[0], given[0]
