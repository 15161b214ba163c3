"""What `factorize` has to know of a model: which layers are candidates, what they see,
and how fast their factors are."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...measure.latency import faster
from ...measure.probe import time_pair
from ...models.copies import copied
from ...models.coupling import output_layers
from ...models.hooks import watched
from ...models.package import Package
from ...targets.base import Target

# Gram matrices held at once; more layers than fit are seen in several passes over the samples
GRAM_BYTES = 2**30
_CHUNK = 16  # samples in one forward pass
_SECONDS = 0.3  # at most, for timing one pair of layers


@dataclass
class Run:
    """What one forward pass of one sample showed of a layer: positions [n, ..] that it reads and
    writes, and its input's shape."""

    n_in: int = 0
    n_out: int = 0
    shape: tuple[int, ...] = ()


@dataclass
class Bench:
    """Times layers against their factors on a runtime; equal pairs are timed once."""

    on: str
    known: dict[str, tuple[bool, float, float]] = field(default_factory=dict)

    def race(self, layer: nn.Module, parts: nn.Module, shape: tuple[int, ...]) -> tuple[bool, float, float]:
        """(is the pair measured faster, ms of the layer, ms of the pair): processor time of one
        inference, interleaved, of ONNX files or whatever the runtime makes, in this process."""
        key = f"{layer} {parts} {shape}"
        if key not in self.known:
            target = Target.parse(self.on)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            feed = {"x": x.repeat(target.batch, *[1] * (x.ndim - 1)).numpy()}
            one, two = (_session(m, x, target) for m in (layer, parts))
            got = time_pair(lambda: one.run(feed), lambda: two.run(feed), "cpu", _SECONDS)
            self.known[key] = (
                faster(got["speedup"]) == "faster",
                got["reference_ms"]["cpu_median"],
                got["latency_ms"]["cpu_median"],
            )
        return self.known[key]


def _session(layer: nn.Module, x: Tensor, target: Any) -> Any:
    """A single layer, exported and loaded by the target's runtime."""
    runtime = target.load_runtime()
    with tempfile.TemporaryDirectory(prefix="featherweight-") as folder:
        runtime.export(Package(copied(layer).float()), {"x": x}, None, target, Path(folder))
        return runtime.load(Path(folder), target, target.batch)


def layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every Linear and convolution, those of derived classes too."""
    return ((p, m) for p, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)))


def form(layer: Any) -> str:
    """What `surgery.factorized` calls the factors of such a layer."""
    taps = math.prod(getattr(layer, "kernel_size", ()))
    return "linear" if not hasattr(layer, "kernel_size") else "pointwise" if taps == 1 else "tucker2"


def whole_layers(
    module: nn.Module, inputs: tuple[Tensor, ...], skip: tuple[str, ...], convolutions: str
) -> dict[str, str]:
    """{path: reason} of the layers that are no candidates. InputError if `skip` names nothing."""
    every = dict(layers(module))
    inside = {s: [p for p in every if p == s or p.startswith(s + ".")] for s in skip}
    if missing := [s for s, found in inside.items() if not found]:
        raise InputError("factorize.skip names no layer of this model", got=missing, allowed=list(every)[:40])
    skipped = {p for found in inside.values() for p in found}
    places = Counter(id(m) for _, m in module.named_modules(remove_duplicate=False))
    uses = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    with_output = output_layers(module, inputs)
    out = {}
    for path, m in every.items():
        plain = type(m) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d) and isinstance(
            m._parameters.get("weight"), nn.Parameter
        )
        reasons = {
            "it is skipped": path in skipped,
            "it makes the model's output": m in with_output or path == "",
            f"it is a {type(m).__name__}, whose weight others read or make": not plain,
            "it is a grouped convolution": getattr(m, "groups", 1) > 1,
            "its module reads its weight itself": isinstance(
                module.get_submodule(path.rpartition(".")[0]), nn.TransformerEncoderLayer
            ),
            "it is shared": places[id(m)] > 1 or uses[id(m.weight)] > 1,
            "convolutions are left whole": form(m) == "tucker2" and convolutions == "none",
        }
        if reason := next((r for r, holds in reasons.items() if holds), None):
            out[path] = reason
    return out


def read_elsewhere(module: nn.Module, paths: Iterable[str], inputs: tuple[Tensor, ...]) -> set[str]:
    """Those of the layers of which the model's code wants more than their output (their weight, or
    how wide they are), which would not be there any more: found by forward passes of one sample in
    which the layers are hidden behind modules that only compute."""
    hidden, read = {p: module.get_submodule(p) for p in paths}, set[str]()
    try:
        while True:
            found: set[str] = set()
            for path, layer in hidden.items():
                _put(module, path, layer if path in read else _OnlyComputes(layer, partial(found.add, path)))
            try:
                with torch.no_grad():
                    module(*inputs)
            except Exception:  # whatever a model's code makes of a layer that it does not know
                if not found:
                    return read  # none of these layers is what it misses
            if not found:
                return read
            read |= found
    finally:
        for path, layer in hidden.items():
            _put(module, path, layer)


class _OnlyComputes(nn.Module):
    """A layer's forward, and a word to `told` whenever something else of it is wanted."""

    def __init__(self, layer: nn.Module, told: Callable[[], None]) -> None:
        super().__init__()
        self._layer, self._told = (layer,), told  # in a tuple: no child

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._layer[0](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        self._told()
        raise AttributeError(name)


def _put(module: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)


def observe(module: nn.Module, paths: list[str], inputs: tuple[Tensor, ...]) -> dict[str, Run]:
    """One forward pass of one sample. A layer that is called several times has the
    positions of all calls."""
    runs = {p: Run() for p in paths}

    def watch(run: Run, m: Any, args: Any, kwargs: Any, y: Tensor) -> None:
        x: Tensor = (*args, *kwargs.values())[0]
        run.n_in, run.n_out = run.n_in + x.numel() // m.weight.shape[1], run.n_out + y.numel() // m.weight.shape[0]
        run.shape = tuple(x.shape)

    with torch.no_grad(), watched(module, {p: partial(watch, run) for p, run in runs.items()}, with_kwargs=True):
        module(*inputs)
    return runs


def groups(module: nn.Module, paths: list[str]) -> Iterator[list[str]]:
    """The paths in runs whose Gram matrices fit `GRAM_BYTES`; one at least."""
    group: list[str] = []
    held = 0
    for path in paths:
        layer: Any = module.get_submodule(path)
        size = 8 * layer.weight.shape[1] ** 2
        if group and held + size > GRAM_BYTES:
            yield group
            group, held = [], 0
        group.append(path)
        held += size
    if group:
        yield group


def grams_of(module: nn.Module, paths: list[str], samples: dict[str, Tensor]) -> dict[str, Tensor]:
    """{path: X X^T [I, I]}, float64, over all positions of all samples; of a strided 1x1
    convolution over the positions that it reads."""
    grams: dict[str, Tensor] = {}

    def add(path: str, m: Any, args: Any, kwargs: Any) -> None:
        x: Tensor = (*args, *kwargs.values())[0]
        if hasattr(m, "kernel_size"):
            if form(m) == "pointwise":
                pads = (0,) * (x.ndim - 2) if isinstance(m.padding, str) else m.padding
                read: Any = (..., *(slice(-p % s, None, s) for p, s in zip(pads, m.stride, strict=True)))
                x = x[read]
            x = x.movedim(1, -1) if x.ndim == len(m.kernel_size) + 2 else x.movedim(0, -1)
        rows = x.reshape(-1, x.shape[-1]).double()  # [N, I]
        grams[path] = grams[path] + rows.T @ rows if path in grams else rows.T @ rows

    with torch.no_grad(), watched(module, before={p: partial(add, p) for p in paths}, with_kwargs=True):
        for start in range(0, len(next(iter(samples.values()))), _CHUNK):
            module(*[v[start : start + _CHUNK] for v in samples.values()])
    return grams
