"""Tokens merged between two blocks of a row, so that the blocks behind have fewer of them.

Half of the tokens, those at odd places, look for the most similar one among the others, and the
`merged` of them that are most alike become one with it, as the mean of all that it stands for
(Bolya et al. 2023, "Token Merging", arXiv:2210.09461, section 3: bipartite soft matching; alike is
the cosine of what the block is given, not of its keys). Behind the last block of the row each token
gets back what became of the one that it was merged into, so that whatever follows has the length
that it had. Padding goes first and weighs nothing, nothing is merged into padding, and into the
first token, which may stand for the whole, only what finds no other.

Hooks on the blocks do this, so that no path of a layer changes (docs/decisions/0025 says of the
model's inputs why). Notation: n samples, t tokens, d features; x [n, t, d]; a: tokens at odd
places, b: at even ones; sizes [n, t]: how many tokens each stands for, 0 for padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import InputError
from .swaps import plain_tensors

_MERGES, _WAY = "_featherweight_merges", "_featherweight_way"


@dataclass(frozen=True)
class Matched:
    """What becomes of the tokens of one place. kept [n, k]: which of them stand there now, in their
    new order; into [n, t]: where each went; sizes [n, t], or None: all are 1."""

    kept: Tensor
    into: Tensor
    sizes: Tensor | None

    def joined(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """([n, t, d] as [n, k, d]: the means of what is one now; its sizes [n, k]). By one product:
        means and the rest put together take as many operators again."""
        places = torch.arange(int(self.kept.shape[1]), device=x.device)
        parts = (self.into[:, None, :] == places[:, None]).to(x.dtype)  # [n, k, t]
        if self.sizes is not None:
            parts = parts * self.sizes[:, None, :].to(x.dtype)
        sums = parts.sum(2)
        return parts @ x / sums.clamp(min=1)[:, :, None], sums


def matched(x: Tensor, sizes: Tensor | None, merged: int) -> Matched:
    """`merged` tokens of a go into their likes of b; those of a that stay stand behind b. Few and
    plain operators: there are as many as a small layer has."""
    t = int(x.shape[1])
    a, b = t // 2, t - t // 2
    merged = min(merged, a - 1)
    unit = normalize(x.float(), dim=2)
    # cosines lie within 1 of 0: the first token comes after all others, padding after that
    first = torch.tensor([2.0] + [0.0] * (b - 1), device=x.device)
    alike = unit[:, 1::2] @ unit[:, ::2].transpose(1, 2) - first  # [n, a, b]
    if sizes is not None:
        none = (sizes <= 0).float()
        alike = alike - 4 * none[:, None, ::2]
    best, to = alike.max(2)  # [n, a]
    if sizes is not None:
        best = best + 8 * none[:, 1::2]  # padding goes before all others
    stays = best.topk(a - merged, largest=False).indices  # [n, a - merged]: places in a
    mine = stays[:, :, None] == torch.arange(a, device=x.device)
    found, slot = mine.float().max(1)  # [n, a]
    evens = torch.arange(b, device=x.device).expand(x.shape[0], b)
    kept = torch.cat([2 * evens, 2 * stays + 1], 1)
    return Matched(kept, _interleaved(evens, torch.where(found == 0, to, slot + b)), sizes)


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """[n, b], [n, a] as [n, t], b at even places."""
    b, a = int(even.shape[1]), int(odd.shape[1])
    filled = odd if a == b else torch.cat([odd, even[:, :1]], 1)
    return torch.stack([even, filled], 2).flatten(1)[:, : a + b]


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """The places `index` [n, k] of x [n, t] or [n, t, d]."""
    if x.ndim == 2:
        return x.gather(1, index)
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


# how many tokens are merged; or, for who tries a model, what takes the place of `matched`
Merge = int | Callable[[Tensor, Tensor | None], Matched]


class Way:
    """What the blocks of one row know of a pass that is under way. first, last: of those that take
    part."""

    def __init__(self) -> None:
        self.first: nn.Module | None = None
        self.last: nn.Module | None = None
        self.clear()

    def __getstate__(self) -> dict[str, Any]:
        # a pass that ended early has left tensors that cannot be copied
        return vars(self) | {"sizes": None, "kept": None, "undo": []}

    def clear(self) -> None:
        """Forget the last pass."""
        self.sizes: Tensor | None = None
        self.kept: Tensor | None = None  # [n, k]: of the tokens that the row was given
        self.undo: list[Tensor] = []

    def enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """A block's arguments: its merges done, and masks as short as its tokens."""
        if block is self.first:
            self.clear()
        leaves = [*args, *kwargs.values()]
        at = next((i for i, v in enumerate(leaves) if isinstance(v, Tensor)), None)
        if at is None:
            return None
        x = leaves[at]
        for merged in vars(block).get(_MERGES, ()):
            x = self._merge(x, merged, [(k, v) for k, v in self._named(args, kwargs) if v is not leaves[at]])
        leaves[at] = x
        if self.kept is not None:
            leaves = [v if i == at else self._narrowed(v) for i, v in enumerate(leaves)]
        return tuple(leaves[: len(args)]), dict(zip(kwargs, leaves[len(args) :], strict=True))

    def _merge(self, x: Tensor, merged: Merge, others: list[tuple[str, Any]]) -> Tensor:
        if not self.undo:
            told = [r for name, v in others if (r := _real(name, v, x)) is not None]
            self.sizes = torch.stack(told).all(0).float() if told else None
        found = matched(x, self.sizes, merged) if isinstance(merged, int) else merged(x, self.sizes)
        self.undo.append(found.into)
        self.kept = found.kept if self.kept is None else _taken(self.kept, found.kept)
        x, self.sizes = found.joined(x)
        return x

    def leave(self, block: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        """The output of the last block, with as many tokens as the row was given."""
        if block is not self.last or not self.undo:
            return out
        y = out[0] if isinstance(out, tuple) else out
        for into in reversed(self.undo):
            y = _taken(y, into)
        self.clear()
        return (y, *out[1:]) if isinstance(out, tuple) else y

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        yield from (("", v) for v in args)
        yield from kwargs.items()

    def _narrowed(self, mask: Any) -> Any:
        """A mask [n or 1, .., t], [n or 1, .., t, t] of the tokens that are left."""
        if not isinstance(mask, Tensor) or mask.ndim == 0 or self.kept is None:
            return mask
        n, k = self.kept.shape[0], int(self.kept.shape[1])
        mask = mask.expand(n, *mask.shape[1:])
        index = self.kept.reshape(n, *(1,) * (mask.ndim - 2), k).expand(*mask.shape[:-1], k)
        out = mask.gather(-1, index)
        if mask.ndim > 2 and int(mask.shape[-2]) > 1:
            rows = self.kept.reshape(n, *(1,) * (mask.ndim - 3), k, 1).expand(*mask.shape[:-2], k, k)
            out = out.gather(-2, rows)
        elif mask.ndim == 4:  # OpenVINO 2026.4 computes attention wrongly with one row that was gathered
            out = out.expand(-1, -1, k, -1)
        return out


def _real(name: str, mask: Any, x: Tensor) -> Tensor | None:
    """[n, t] bool: which tokens are no padding, by a mask of attention; None if it is none. Floats
    are added to scores; where true (1) there is a token, but in nn.Transformer's padding masks."""
    if not isinstance(mask, Tensor) or not fits(mask, x):
        return None
    row = mask
    while row.ndim > 2:
        row = row[:, 0]
    if row.is_floating_point():
        real = row > -100.0  # what masks add is far below any bias of a position
    else:
        real = row == 0 if "padding" in name else row != 0
    return real.expand(x.shape[0], -1)


def unclear(mask: Tensor) -> bool:
    """Are these floats 1 and 0, so that they may be what is kept, and not what is added?"""
    return mask.is_floating_point() and bool(((mask == 0) | (mask == 1)).all() & (mask == 1).any())


def fits(mask: Tensor, x: Tensor) -> bool:
    """Is it a mask of these tokens, as `Way` takes it?"""
    n, t = x.shape[:2]
    return (
        2 <= mask.ndim <= 4
        and mask.shape[0] in (1, n)
        and mask.shape[-1] == t
        and (mask.ndim == 2 or mask.shape[-2] in (1, t))
    )


def _entered(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    way: Way = vars(block)[_WAY]
    return way.enter(block, args, kwargs)


def _left(block: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
    way: Way = vars(block)[_WAY]
    return way.leave(block, args, kwargs, out)


def merge(module: nn.Module, path: str, block: int, merged: Merge) -> None:
    """Let the row at `path` merge so many tokens before its block number `block`, and give them
    back behind its last one. In place. InputError if there is no such block."""
    holder = module.get_submodule(path)
    blocks = list(holder.children())
    plain_tensors(module)
    if not isinstance(holder, (nn.ModuleList, nn.Sequential)) or not 0 <= block < len(blocks):
        raise InputError("no such block in this model", got=f"{path}: {block}", allowed=f"0 to {len(blocks) - 1}")
    way = next((vars(b)[_WAY] for b in blocks if _WAY in vars(b)), None) or Way()
    for b in blocks[block:]:
        if _WAY not in vars(b):
            setattr(b, _WAY, way)
            b.register_forward_pre_hook(_entered, with_kwargs=True)
            b.register_forward_hook(_left, with_kwargs=True)
    first = blocks[block]
    setattr(first, _MERGES, (*vars(first).get(_MERGES, ()), merged))
    settle(holder)


def merges(holder: nn.Module) -> bool:
    """Does this row of blocks merge tokens?"""
    return any(_WAY in vars(b) for b in holder.children())


def merges_inside(module: nn.Module, path: str) -> bool:
    """Is the submodule at `path` a block of a row that merges tokens, or a part of one?"""
    parts = path.split(".")
    return any(_WAY in vars(module.get_submodule(".".join(parts[:i]))) for i in range(1, len(parts) + 1))


def settle(holder: nn.Module, gone: tuple[int, ...] = ()) -> None:
    """Which blocks of a row are the first and the last to take part, those of `gone` left out,
    whose merges the next one does. In place; nothing where tokens are not merged."""
    if not merges(holder):
        return
    due: tuple[Any, ...] = ()
    left = []
    for i, b in enumerate(holder.children()):
        if _WAY not in vars(b):
            continue
        mine = (*due, *vars(b).get(_MERGES, ()))
        if i in gone:
            due = mine
            continue
        due = ()
        setattr(b, _MERGES, mine)
        # whole numbers of the block's, as widths are: what its speed hangs on
        vars(b)["featherweight_merged"] = tuple(m for m in mine if isinstance(m, int)) or (0,)
        left.append(b)
    if left:
        way: Way = vars(left[0])[_WAY]
        way.first, way.last = left[0], left[-1]
