"""Cell: the search space of NAS-Bench-201, exactly (Dong & Yang 2020, arXiv:2001.00326)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import InputError
from ..space import Choice, Int, param
from ..space.node import require_filled
from ._edges import EDGES, OPS, Edge
from ._tally import Tally
from .base import Cost, Net

if TYPE_CHECKING:
    from torch import nn

_KERNEL = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


def _edge(default: str, target: int, source: int) -> str:
    made: str = param(
        default, search=Choice(*OPS), legal=Choice(*OPS), doc=f"operation from node {source} to node {target}"
    )
    return made


@dataclass(frozen=True)
class Cell(Net):
    """[n, in_channels, H, W] -> [n, classes]: stem, 3 stages of `cells` equal cells, global average
    pooling, one linear layer. Any H and W.

    A residual block between two stages halves H and W and doubles the channels. A cell has 4 nodes;
    `op_t_s` is the operation on the way from node s to node t (node 0: its input, node 3:
    its output), so the fields in their order are those of the text form
    |op_1_0~0|+|op_2_0~0|op_2_1~1|+|op_3_0~0|op_3_1~1|op_3_2~2|. Operations: activation,
    convolution, batch normalisation, in this order. A cell whose output does not depend on its
    input is refused (`check`): its net would be a constant.
    """

    in_channels: int = param(3, legal=Int(1, 65536), doc="channels of the images")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    width: int = param(16, legal=Int(1, 16384), doc="channels of the first stage")
    cells: int = param(5, legal=Int(1, 1000), doc="cells of each stage")
    op_1_0: str = _edge("nor_conv_3x3", 1, 0)
    op_2_0: str = _edge("none", 2, 0)
    op_2_1: str = _edge("nor_conv_3x3", 2, 1)
    op_3_0: str = _edge("skip_connect", 3, 0)
    op_3_1: str = _edge("none", 3, 1)
    op_3_2: str = _edge("skip_connect", 3, 2)

    @classmethod
    def parse(cls, text: str, in_channels: int = 3, classes: int = 10, width: int = 16, cells: int = 5) -> Cell:
        """From the paper's text form. InputError if it is none."""
        parts = [p.partition("~") for p in text.strip().replace("|+|", "|").strip("|").split("|")]
        if [(t, p[2]) for (t, _), p in zip(EDGES, parts, strict=False)] != [(t, str(s)) for t, s in EDGES] or len(
            parts
        ) != len(EDGES):
            raise InputError(
                "this is no cell in text form", got=text[:200], allowed="|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
            )
        return cls(in_channels, classes, width, cells, *(p[0] for p in parts))

    @property
    def ops(self) -> tuple[str, ...]:
        """The six operations in the order of `EDGES`."""
        return (self.op_1_0, self.op_2_0, self.op_2_1, self.op_3_0, self.op_3_1, self.op_3_2)

    def __str__(self) -> str:
        """The paper's text form."""
        named = [f"{op}~{s}" for op, (_, s) in zip(self.ops, EDGES, strict=True)]
        return "|" + "|+|".join(["|".join(named[:1]), "|".join(named[1:3]), "|".join(named[3:])]) + "|"

    def check(self) -> None:
        if not _live(self.ops):
            raise InputError(
                "the output of this cell does not depend on its input, so its net would be a constant",
                got=str(self),
                fix="let operations other than none lead from node 0 to node 3",
            )

    def canonical(self) -> Cell:
        """The same net without the operations that lead nowhere (their edges become none): the same
        function with fewer parameters.

        RecipeError if a field is still a hole."""
        require_filled(self, self.kind)
        live = _live(self.ops)
        ops = (op if e in live else "none" for e, op in zip(EDGES, self.ops, strict=True))
        return Cell(self.in_channels, self.classes, self.width, self.cells, *ops)

    def signature(self) -> str:
        """Text that is equal for two descriptions if they are the same net up to the names of inner
        nodes: skip_connect is the identity, none and what leads nowhere are left out, and one
        convolution whose result is used twice is told from two convolutions of the same input.

        The paper counts 6,466 unique cells of 15,625 (section 2.1). Its published code takes shared
        for separate convolutions, which are other functions, and keeps some sums of nothing but
        zeros apart, which are the same. RecipeError if a field is still a hole."""
        require_filled(self, self.kind)
        return f"{self.in_channels}:{self.classes}:{self.width}:{self.cells}:{_signature(self.ops)}"

    def module(self) -> nn.Module:
        from torch import nn

        from ._modules import CellBlock, Reduction, conv_norm

        edges, live = {e: op for e, op in zip(EDGES, self.ops, strict=True) if op != "none"}, _live(self.ops)
        parts: list[nn.Module] = [nn.Sequential(*conv_norm(self.in_channels, self.width, 3))]
        for stage in range(3):
            c = self.width * 2**stage
            parts += [Reduction(c // 2, c)] if stage else []
            parts.append(nn.Sequential(*(CellBlock(c, edges, live) for _ in range(self.cells))))
        last = 4 * self.width
        return nn.Sequential(
            *parts,
            nn.Sequential(nn.BatchNorm2d(last), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, self.classes),
        )

    def supernet(self) -> nn.Module:
        from ._supernet import SuperNet

        return SuperNet(self)

    def cost(self, shape: Sequence[int]) -> Cost:
        """As `Net.cost`: `params` counts all operations, as the published tables do; the rest only
        what leads from the input to the output."""
        self.require(
            len(shape) == 3 and shape[0] == self.in_channels,
            shape,
            f"(C, H, W) with C = in_channels = {self.in_channels}",
        )
        tally, live, (longest, ways) = Tally(), _live(self.ops), _longest(self.ops)
        convs = [(_KERNEL[op], e in live) for e, op in zip(EDGES, self.ops, strict=True) if op in _KERNEL]
        size = tally.conv(self.in_channels, self.width, 3, (shape[1], shape[2]))
        tally.norm(self.width)
        for stage in range(3):
            c, one = self.width * 2**stage, Tally()
            if stage:
                size = tally.conv(c // 2, c, 3, size, 2)
                tally.conv(c, c, 3, size)
                tally.conv(c // 2, c, 1, size)  # after the pooling
                tally.norm(2 * c)  # of both
            for kernel, runs in convs:
                one.conv(c, c, kernel, size, runs=runs)
                one.norm(c)
            tally.params, tally.macs = tally.params + self.cells * one.params, tally.macs + self.cells * one.macs
        tally.norm(4 * self.width)
        tally.linear(4 * self.width, self.classes)
        n = 3 * self.cells
        layers = n * sum(runs for _, runs in convs) + 8  # stem, twice three of a reduction, linear
        # widest: every cell gives as much as the stem or the reduction before it
        return Cost(tally.params, tally.macs, n * longest + 6, layers, tally.widest, n * ways + 2.0)


@lru_cache(maxsize=15625)
def _live(ops: tuple[str, ...]) -> frozenset[Edge]:
    """The edges on a path from node 0 to node 3; empty if there is none."""
    used = [e for e, op in zip(EDGES, ops, strict=True) if op != "none"]
    fed, asked = {0}, {3}
    for t, s in used:
        fed |= {t} if s in fed else set()
    for t, s in reversed(used):
        asked |= {s} if t in asked else set()
    return frozenset((t, s) for t, s in used if s in fed and t in asked)


@lru_cache(maxsize=15625)
def _longest(ops: tuple[str, ...]) -> tuple[int, float]:
    """(convolutions on the longest path, log2 of the number of paths) from node 0 to node 3 of a
    cell that is connected."""
    live, named = _live(ops), dict(zip(EDGES, ops, strict=True))
    far, ways = {0: 0}, {0: 1}
    for t, s in sorted(live):
        far[t] = max(far.get(t, 0), far[s] + (named[t, s] in _KERNEL))
        ways[t] = ways.get(t, 0) + ways[s]
    return far[3], math.log2(ways[3])


@lru_cache(maxsize=15625)
def _signature(ops: tuple[str, ...]) -> str:
    """The output as a sum of terms, written out; each convolution has a number, the numbers are
    those that make the text the least.

    Convolutions of the same size on the same (unnumbered) input are the only ones whose numbers can
    be exchanged without changing the rest."""
    live, named = sorted(_live(ops)), dict(zip(EDGES, ops, strict=True))
    alike: dict[str, list[Edge]] = {}
    for e in live:
        if named[e] in _KERNEL:
            alike.setdefault(_written(live, named, {})[e], []).append(e)
    groups = [alike[text] for text in sorted(alike)]
    orders = itertools.product(*(itertools.permutations(range(len(g))) for g in groups))
    numbered = (
        {e: n for g, order in zip(groups, o, strict=True) for e, n in zip(g, order, strict=True)} for o in orders
    )
    return min(_written(live, named, numbers)[3, 3] for numbers in numbered)


def _written(live: list[Edge], named: dict[Edge, str], numbers: dict[Edge, int]) -> dict[Edge, str]:
    """The term that each edge adds, as text; at (3, 3) the whole output."""
    nodes: dict[int, list[str]] = {0: ["x"]}
    out: dict[Edge, str] = {}
    for t, s in live:
        inside = "+".join(sorted(nodes[s]))
        if named[t, s] == "skip_connect":
            terms = nodes[s]
        else:
            terms = [f"{named[t, s]}{numbers.get((t, s), '')}({inside})"]
        out[t, s] = "+".join(terms)
        nodes[t] = nodes.get(t, []) + terms
    out[3, 3] = "+".join(sorted(nodes.get(3, [])))
    return out
