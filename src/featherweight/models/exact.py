"""Is a cut exact? The model without some channels has to compute what it computes with these
channels silenced, and nothing else is taken as a proof.

Both are run on example rows and on random ones, in training mode where that does something else,
and once more with every channel that a layer makes brought to life: so that channels which the
examples leave dead are seen, too. Each column of an output is held to what it spreads by itself;
where single precision cannot tell a difference from rounding, double precision does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..columns import magnitude, spread
from . import recurrent
from .cutting import channel_axis, removed, silenced, without
from .groups import Group
from .hooks import tensors, watched
from .learning import learning, learns_apart

RELATIVE = 1e-5  # of how far a column spreads; of the largest output in float32, as many roundings in other types
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


@dataclass(frozen=True)
class _Pass:
    """One run of the model. training: in training mode, as `learning` has it; chance: its outputs
    are drawn anew each time, so that their shapes alone can be compared."""

    inputs: Inputs
    noise: _Noise | None = None
    training: bool = False
    chance: bool = False
    seed: int = 0


def _difference(
    module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]], rows: list[_Pass], seed: int
) -> str | None:
    """How the cut model differs from the silenced one; None if it does not."""
    every = [replace(rows[seed % len(rows)], noise=_Noise(module, groups, seed))]
    every += rows if seed == 0 else rows[:1]
    try:
        want = _silent(module, groups, drops, every)
    except Exception as e:  # whatever the model's own code raises
        return f"the model does not run with its channels brought to life ({_told(e)})"
    try:
        got = _cut(module, groups, drops, every)
    except Exception as e:
        return f"the model does not run with fewer of its channels ({_told(e)})"
    for a, b in zip(want, got, strict=True):
        if [t.shape for t in a] != [t.shape for t in b]:
            return "the model's output changes its shape with it"
    differs = "cutting its channels is not the same as silencing them"
    passes = [p for p in every if not p.chance]
    want, got = ([x for x, p in zip(side, every, strict=True) if not p.chance] for side in (want, got))
    example = next(i for i, p in enumerate(passes) if p.noise is None)
    if not all(_same(x, y) for a, b in zip(want, got, strict=True) for x, y in zip(a, b, strict=True)):
        return differs
    if all(_near(x, y, 0.0, of) for x, y, of in _with_columns(want, got, example)):
        return None
    # what is small beside the rest of the output: only more digits tell a difference from rounding
    try:
        with doubled(module):
            passes = [replace(p, inputs=tuple(_double(x) for x in p.inputs)) for p in passes]
            more = _silent(module, groups, drops, passes), _cut(module, groups, drops, passes)
    except Exception:  # the model is not made for double precision
        rounding = [
            8 * torch.finfo(x.dtype).eps * magnitude(_array(x)) for x, _, _ in _with_columns(want, got, example)
        ]
        fine = all(
            _near(x, y, r, of) for (x, y, of), r in zip(_with_columns(want, got, example), rounding, strict=True)
        )
        return None if fine else differs
    rough = [x for x, _, _ in _with_columns(want, got, example)]
    found = [
        _near(x, y, _rounding(x, r), of) for (x, y, of), r in zip(_with_columns(*more, example), rough, strict=True)
    ]
    return None if all(found) else differs


def _silent(
    module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]], passes: list[_Pass]
) -> list[list[Tensor]]:
    with ExitStack() as silence:
        for group, drop in zip(groups, drops, strict=True):
            silence.enter_context(silenced(module, group, drop))
        return [_run(module, p, {}) for p in passes]


def _cut(
    module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]], passes: list[_Pass]
) -> list[list[Tensor]]:
    with without(module, groups, drops):
        return [_run(module, p, removed(groups, drops)) for p in passes]


def _told(e: Exception) -> str:
    return f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"


def _same(want: Tensor, got: Tensor) -> bool:
    """To the rounding of the largest output."""
    if not want.is_floating_point() or want.numel() == 0:
        return True  # it is a choice made from numbers that may be equal but for rounding
    eps = torch.finfo(want.dtype).eps / torch.finfo(torch.float32).eps
    a, b = want.double(), got.double()
    largest = float(a[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0
    return torch.allclose(b, a, rtol=0, atol=min(RELATIVE * eps, 0.05) * largest, equal_nan=True)


def _near(want: Tensor, got: Tensor, rounding: np.ndarray | float, of: np.ndarray) -> bool:
    """To a small share of what each column spreads, and rounding. of: whose columns."""
    a, b = _array(want), _array(got)
    far = np.abs(np.where(np.isfinite(a) & np.isfinite(b), a - b, 0))
    relative = RELATIVE * max(1.0, torch.finfo(want.dtype).eps / torch.finfo(torch.float32).eps)
    return bool((far <= relative * spread(of) + rounding).all())


def _rounding(want: Tensor, rough: Tensor) -> np.ndarray:
    """What may be put down to rounding in double precision: some of what single precision was seen
    to lose of each column."""
    a = _array(want)
    lost = np.abs(np.nan_to_num(a - _array(rough), posinf=0, neginf=0)).max(initial=0.0, axis=0, keepdims=True)
    largest = np.abs(np.where(np.isfinite(a), a, 0)).max(initial=0.0)
    found: np.ndarray = np.minimum(4 * lost, RELATIVE * magnitude(a)) + 1e-11 * largest
    return found


def _with_columns(
    want: list[list[Tensor]], got: list[list[Tensor]], example: int
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """(wanted, got, the output by whose columns they are judged) of every output that is judged: by
    its own, or a single row by those of the pass `example`."""
    for a, b in zip(want, got, strict=True):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x.is_floating_point() and x.numel():
                many = want[example][i] if i < len(want[example]) else x
                alike = x.ndim > 0 and len(x) == 1 and many.shape[1:] == x.shape[1:]
                yield _row(x), _row(y), _array(_row(many if alike else x))


def _row(x: Tensor) -> Tensor:
    return x if x.ndim else x.view(1)


def _array(x: Tensor) -> np.ndarray:
    return x.double().numpy()


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


@contextmanager
def doubled(module: nn.Module) -> Iterator[None]:
    """Within the block the module computes in double precision; afterwards it is as before, with
    the very numbers that it had."""
    own = (t for m in module.modules() for t in vars(m).values() if isinstance(t, Tensor))
    every = {id(t): t for t in (*module.parameters(), *module.buffers(), *own) if t.is_floating_point()}
    saved = [(t, t.data) for t in every.values()]
    try:
        for t, data in saved:
            t.data = data.double()
        yield
    finally:
        for t, data in saved:
            t.data = data


class _Noise:
    """What makes channels alive: those that the layers of some groups make are moved, each by
    about as much as it is large, up or down."""

    def __init__(self, module: nn.Module, groups: Iterable[Group], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.module = module
        self.of: dict[str, Tensor] = {}
        for path in dict.fromkeys(m.path for g in groups for m in g.members if m.axis == 0):
            self.of[path] = torch.randn(_width(module.get_submodule(path)), generator=generator)

    def hooks(self, gone: Mapping[tuple[str, int], set[int]]) -> dict[str, Any]:
        """What moves the channels of the module without those that are gone."""
        kept = {p: [i for i in range(len(t)) if i not in gone.get((p, 0), ())] for p, t in self.of.items()}
        return {path: partial(_enliven, noise=noise[kept[path]]) for path, noise in self.of.items()}


def _width(layer: Any) -> int:
    """Channels that it makes."""
    if isinstance(layer, nn.RNNBase):
        return recurrent.width(layer)
    names = ("out_features", "out_channels", "num_features", "num_channels")
    return next(int(getattr(layer, n)) for n in names if hasattr(layer, n))


def _enliven(layer: nn.Module, _: Any, out: Any, noise: Tensor) -> Any:
    if isinstance(layer, nn.RNNBase):  # its outputs [.., D H], and its last states [.., H]
        return tree_map(lambda t: _moved(t, -1, noise[: t.shape[-1]]), out)
    return _moved(out, channel_axis(layer, out.ndim), noise)


def _moved(out: Tensor, axis: int, noise: Tensor) -> Tensor:
    axis %= out.ndim
    shape = [1] * out.ndim
    shape[axis] = -1
    size = out.abs().amax([d for d in range(out.ndim) if d != axis], keepdim=True)
    size = torch.where(size > 0, size, 1)
    return (out + size * noise.to(out).view(shape)) / 2  # half: it stays of one size in deep models


@torch.no_grad()
def _run(module: nn.Module, one: _Pass, gone: Mapping[tuple[str, int], set[int]]) -> list[Tensor]:
    """gone: what was cut of the module."""
    with ExitStack() as around:
        around.enter_context(watched(module, one.noise.hooks(gone) if one.noise else {}))
        around.enter_context(torch.random.fork_rng(devices=[]))
        if one.training:
            around.enter_context(learning(module))
        torch.manual_seed(one.seed)  # for models that draw numbers while they run
        return [t.clone() for t in tensors(module(*one.inputs))]


def _rows(module: nn.Module, inputs: Inputs) -> list[_Pass]:
    """The example rows, as many random ones, and a single one: those on which the model runs. And
    the example rows in training, if it does something else there."""
    every = [inputs, tuple(_random(x) for x in inputs), tuple(x[:1] for x in inputs)]
    found = list(_that_run(module, [_Pass(x) for x in every]))
    if not learns_apart(module, inputs):
        return found
    training = _Pass(inputs, training=True)
    a, b = _run(module, training, {}), _run(module, replace(training, seed=1), {})
    same = len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    return [*found, replace(training, chance=not same)]


def _that_run(module: nn.Module, every: list[_Pass]) -> Iterator[_Pass]:
    yield every[0]
    for one in every[1:]:
        try:
            _run(module, one, {})
        except Exception:  # noqa: S112 (the model is not made for such rows, which says nothing of a cut)
            continue
        yield one


def _random(x: Tensor) -> Tensor:
    """Numbers of the same mean and spread; whole numbers (of which a model may take only some) in
    another order."""
    generator = torch.Generator().manual_seed(1)
    if x.is_floating_point():
        spread = x.std(correction=0) if x.numel() else 1.0
        return (torch.randn(x.shape, generator=generator) * (spread + 1e-3) + x.mean()).to(x)
    return x.flatten()[torch.randperm(x.numel(), generator=generator)].view(x.shape)
