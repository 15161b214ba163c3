"""Is a cut exact? The model without some channels has to compute what it computes with these
channels silenced, and nothing else is taken as a proof.

Both are run on example rows and on random ones, and once more with every channel that a layer makes
brought to life: so that channels which the examples leave dead are seen, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .cutting import channel_axis, removed, silenced, without
from .groups import Group
from .hooks import tensors, watched

RELATIVE = 1e-5  # of the largest output, in float32; as many roundings in other types
_TRIALS = 3
Inputs = tuple[Tensor, ...]


def inexact(
    module: nn.Module,
    groups: Sequence[Group],
    inputs: Inputs,
    *,
    drops: Sequence[Sequence[int]] | None = None,
    given: Sequence[Group] = (),
) -> dict[str, str]:
    """{name of a group: why it must not be cut}; all others are exact, together and with `given`.

    drops: units of each group; None: units drawn at random, in three ways. The module, which is in
    eval mode, is as before afterwards. All are cut at once first, and halved only where that is
    wrong.
    """
    rows = _rows(module, inputs)
    every = [_some([*given, *groups], n) for n in range(_TRIALS)]
    trials = [trial[len(given) :] for trial in every] if drops is None else [drops]
    known = [trial[: len(given)] for trial in every]
    found: dict[str, str] = {}

    def search(sure: list[int], doubtful: list[int]) -> list[int]:
        """Those of `doubtful` that are exact together with `sure`."""
        taken = sure + doubtful
        reason = None
        for n, (trial, base) in enumerate(zip(trials, known, strict=False)):
            cuts = [*zip(given, base, strict=True), *((groups[i], trial[i]) for i in taken)]
            reason = reason or _difference(module, [g for g, _ in cuts], [d for _, d in cuts], rows, n)
        if reason is None:
            return doubtful
        if len(doubtful) == 1:
            found[groups[doubtful[0]].name] = reason
            return []
        half = len(doubtful) // 2
        first = search(sure, doubtful[:half])
        return first + search(sure + first, doubtful[half:])

    if groups:
        search([], list(range(len(groups))))
    return found


def _some(groups: Sequence[Group], trial: int) -> list[list[int]]:
    """Units of each group drawn at random: as many as chance has it, but at least one goes, and one
    stays. Then an odd half of every second group, with both its ends, and nothing of the others,
    and the other way round: widths that have to be equal, or even, are so by luck where as much or
    an even number is lost, and what is rolled or sliced shows at the ends."""
    out = []
    for i, group in enumerate(groups):
        n = len(group.units)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{trial} {group.name}".encode()))
        order = torch.randperm(n, generator=generator)
        count = int(torch.randint(1, n, (), generator=generator))
        if trial:
            order = torch.cat([torch.tensor([n - 1, 0]), order[(order > 0) & (order < n - 1)]])
            count = min(n // 2 | 1, n - 1) if i % 2 == trial % 2 else 0
        out.append(sorted(order[:count].tolist()))
    return out


def _difference(
    module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]], rows: list[Inputs], seed: int
) -> str | None:
    """How the cut model differs from the silenced one; None if it does not."""
    noise = _Noise(module, groups, seed)
    runs: list[tuple[Inputs, _Noise | None]] = [(rows[seed % len(rows)], noise)]
    runs += [(x, None) for x in (rows if seed == 0 else rows[:1])]
    with ExitStack() as silence:
        for group, drop in zip(groups, drops, strict=True):
            silence.enter_context(silenced(module, group, drop))
        want = [_run(module, *run) for run in runs]
    gone = removed(groups, drops)
    with without(module, groups, drops):
        noise.cut(gone)
        try:
            got = [_run(module, *run) for run in runs]
        except Exception as e:  # whatever the model's own code raises
            return f"the model does not run with fewer of its channels ({type(e).__name__}: {str(e).splitlines()[0]})"
    for a, b in zip(want, got, strict=True):
        if [t.shape for t in a] != [t.shape for t in b]:
            return "the model's output changes its shape with it"
        if not all(_same(x, y) for x, y in zip(a, b, strict=True)):
            return "cutting its channels is not the same as silencing them"
    return None


def _same(want: Tensor, got: Tensor) -> bool:
    if not want.is_floating_point() or want.numel() == 0:
        return True  # it is a choice made from numbers that may be equal but for rounding
    eps = torch.finfo(want.dtype).eps / torch.finfo(torch.float32).eps
    a, b = want.double(), got.double()
    largest = float(a[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0
    return torch.allclose(b, a, rtol=0, atol=min(RELATIVE * eps, 0.05) * largest, equal_nan=True)


class _Noise:
    """What makes channels alive: those that the layers of some groups make are moved, each by
    about as much as it is large, up or down."""

    def __init__(self, module: nn.Module, groups: Iterable[Group], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.module = module
        self.of: dict[str, Tensor] = {}
        for path in dict.fromkeys(m.path for g in groups for m in g.members if m.axis == 0):
            layer: Any = module.get_submodule(path)
            width = next(
                getattr(layer, n)
                for n in ("out_features", "out_channels", "num_features", "num_channels")
                if hasattr(layer, n)
            )
            self.of[path] = torch.randn(width, generator=generator)

    def cut(self, gone: dict[tuple[str, int], set[int]]) -> None:
        for (path, axis), positions in gone.items():
            if axis == 0:
                kept = [i for i in range(len(self.of[path])) if i not in positions]
                self.of[path] = self.of[path][kept]

    def hooks(self) -> dict[str, Any]:
        return {path: partial(_enliven, noise=noise) for path, noise in self.of.items()}


def _enliven(layer: nn.Module, _: Any, out: Tensor, noise: Tensor) -> Tensor:
    axis = channel_axis(layer, out.ndim)
    shape = [1] * out.ndim
    shape[axis] = -1
    size = out.abs().amax([d for d in range(out.ndim) if d != axis], keepdim=True)
    size = torch.where(size > 0, size, 1)
    return (out + size * noise.to(out).view(shape)) / 2  # half: it stays of one size in deep models


@torch.no_grad()
def _run(module: nn.Module, inputs: Inputs, noise: _Noise | None) -> list[Tensor]:
    with watched(module, noise.hooks() if noise else {}), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for models that draw numbers while they run
        return [t.clone() for t in tensors(module(*inputs))]


def _rows(module: nn.Module, inputs: Inputs) -> list[Inputs]:
    """The example rows, as many random ones, and a single one: those on which the model runs."""
    every = [inputs, tuple(_random(x) for x in inputs), tuple(x[:1] for x in inputs)]
    return list(_that_run(module, every))


def _that_run(module: nn.Module, every: list[Inputs]) -> Iterator[Inputs]:
    yield every[0]
    for x in every[1:]:
        try:
            _run(module, x, None)
        except Exception:  # noqa: S112 (the model is not made for such rows, which says nothing of a cut)
            continue
        yield x


def _random(x: Tensor) -> Tensor:
    """Numbers of the same mean and spread; whole numbers (of which a model may take only some) in
    another order."""
    generator = torch.Generator().manual_seed(1)
    if x.is_floating_point():
        spread = x.std(correction=0) if x.numel() else 1.0
        return (torch.randn(x.shape, generator=generator) * (spread + 1e-3) + x.mean()).to(x)
    return x.flatten()[torch.randperm(x.numel(), generator=generator)].view(x.shape)
