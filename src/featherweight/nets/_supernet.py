"""The relaxed supernet of a Cell with holes: every open edge is a mixture of its operations,
the mixture is learned.

Notation: a alphas of an edge [options], p = softmax(a), m mixture weights of an edge [options];
C channels, H x W positions.

Sources: Liu et al. 2019, DARTS (arXiv:1806.09055), eq. 2; Cai et al. 2019, ProxylessNAS
(arXiv:1812.00332), eq. 2 of section 3.3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..space import Filling
from ..space.space import Space
from ..train.shared_net import batch_statistics
from ._edges import EDGES
from ._modules import CellBlock, Reduction, conv_norm

Mix = Mapping[str, Tensor]  # hole -> weights of its options


class SuperNet(nn.Module):
    """[n, in_channels, H, W] -> [n, classes]: the net that `net`, a Cell with open operations,
    would build, each open edge the sum of its options weighted by m. All cells share their alphas;
    every cell has weights of its own for each option.

    Convolutions of options have no learned scale (it would undo m; DARTS, appendix A.1.1); batch
    normalisation uses the batch's statistics. Initial weights come from torch's default generator;
    alphas start at 0. InputError if `net` is no Cell, has no open operation, or has other holes.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        if getattr(net, "kind", None) != "cell":
            raise InputError(
                "only a Cell can be relaxed into mixtures",
                got=getattr(net, "kind", net),
                allowed="Cell(..)",
                fix='method="oneshot"',
            )
        self.net, self.space = net, Space(net)
        self.options: dict[str, tuple[str, ...]] = {h.path: tuple(h.domain.options(None) or ()) for h in self.space}
        wrong = sorted(p for p in self.options if not p.startswith("op_"))
        if wrong or not self.options:
            raise InputError(
                "the holes of a relaxed Cell are its operations",
                got=wrong or "no hole",
                fix="Cell.space(width=.., cells=..)",
            )
        self.alphas = nn.ParameterDict({p: nn.Parameter(torch.zeros(len(o))) for p, o in self.options.items()})
        fields: Any = net
        edges = {e: self.options.get(name, (getattr(fields, name),)) for e in EDGES for name in [f"op_{e[0]}_{e[1]}"]}
        self.stem = nn.Sequential(*conv_norm(fields.in_channels, fields.width, 3))
        self.body = nn.ModuleList()
        for stage in range(3):
            c = fields.width * 2**stage
            if stage:
                self.body.append(Reduction(c // 2, c))
            self.body.extend(MixedCell(c, edges) for _ in range(fields.cells))
        last = 4 * fields.width
        self.head = nn.Sequential(
            nn.BatchNorm2d(last), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, fields.classes)
        )
        batch_statistics(self)

    def forward(self, x: Tensor, mix: Mix | None = None) -> Tensor:
        """mix: m of every hole; None: p = softmax(a) (DARTS, eq. 2). An option whose weight is
        exactly 0 and has no gradient is not run."""
        mix = self.probabilities() if mix is None else mix
        x = self.stem(x)
        for part in self.body:
            x = part(x, mix) if isinstance(part, MixedCell) else part(x)
        out: Tensor = self.head(x)
        return out

    def arch_parameters(self) -> list[nn.Parameter]:
        """The alphas, [options] each, in the order of the holes."""
        return [self.alphas[p] for p in self.options]

    def weight_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        own = {id(a) for a in self.arch_parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def probabilities(self) -> dict[str, Tensor]:
        """p of every hole."""
        return {p: torch.softmax(self.alphas[p], 0) for p in self.options}

    def path(self, filling: Filling) -> dict[str, Tensor]:
        """The mixture that is one sub-net: weight 1 for the option chosen, 0 for the others."""
        values = self.space.walk(lambda p, _: filling[p])
        like = self.arch_parameters()[0]
        return {
            p: torch.tensor([float(o == values[p]) for o in opts], dtype=like.dtype, device=like.device)
            for p, opts in self.options.items()
        }

    def sample(self, rng: Any) -> Filling:
        """A sub-net drawn uniformly with a numpy generator."""
        return self.space.sample(rng)

    def derive(self) -> Filling:
        """The most probable filling whose net can be built."""
        return self.ranked(1)[0][0]

    def ranked(self, k: int) -> list[tuple[Filling, float]]:
        """The `k` fillings of highest joint probability, sum log p, whose nets can be built, with
        that; the first options of equals first."""
        logs = [torch.log_softmax(self.alphas[p].detach().double().cpu(), 0) for p in self.options]
        total = logs[0]
        for more in logs[1:]:
            total = (total[:, None] + more).reshape(-1)
        out: list[tuple[Filling, float]] = []
        for index in torch.argsort(total, descending=True, stable=True).tolist():
            filling = self._unranked(index)
            if len(out) < k and self._valid(filling):
                out.append((filling, float(total[index])))
            if len(out) == k:
                break
        if not out:
            raise InputError("no filling of this Cell connects its output with its input", got=repr(self.net))
        return out

    def costs(self, shape: Sequence[int], what: str) -> dict[str, Tensor]:
        """What each option adds to `params` or `macs` of the net for one image of `shape`
        (C, H, W), by hole [options]: costs are sums over the edges, so the expectation over p is
        exact (ProxylessNAS, eq. 2; FBNet, arXiv:1812.03443, eq. 9)."""
        if what not in ("params", "macs"):
            raise InputError("no such cost", got=what, allowed="params, macs")
        fields: Any = self.net
        macro = {n: getattr(fields, n) for n in ("in_channels", "classes", "width", "cells")}

        def cost(path: str, option: str) -> float:
            chosen: dict[str, Any] = {f"op_{t}_{s}": "skip_connect" for t, s in EDGES} | {path: option}
            return float(getattr(type(fields)(**macro, **chosen).cost(shape), what))

        least = {p: cost(p, "skip_connect") for p in self.options}
        return {
            p: torch.tensor([0.0 if o == "none" else cost(p, o) - least[p] for o in opts])
            for p, opts in self.options.items()
        }

    def _unranked(self, index: int) -> Filling:
        out: Filling = {}
        for path in reversed(list(self.options)):
            index, i = divmod(index, len(self.options[path]))
            out[path] = self.options[path][i]
        return self.space.walk(lambda p, _: out[p])

    def _valid(self, filling: Filling) -> bool:
        try:
            self.space.fill(filling).check()
        except InputError:
            return False
        return True


class MixedCell(nn.Module):
    """A cell whose edges are weighted sums of operations; an edge with one option
    is that operation."""

    def __init__(self, channels: int, edges: Mapping[tuple[int, int], tuple[str, ...]]) -> None:
        super().__init__()
        self.edges, self.operations = dict(edges), nn.ModuleDict()
        for (t, s), options in edges.items():
            made = {
                op: CellBlock(channels, {(t, s): op}, frozenset()).edges[f"op_{t}_{s}"]
                for op in options
                if op != "none"
            }
            if len(options) > 1:
                for m in (m for op in made.values() for m in op.modules() if isinstance(m, nn.BatchNorm2d)):
                    m.affine, m.weight, m.bias = False, None, None  # type: ignore[assignment]
            self.operations[f"op_{t}_{s}"] = nn.ModuleDict(made)

    def forward(self, x: Tensor, mix: Mix) -> Tensor:  # [n, C, H, W] -> [n, C, H, W]
        nodes = {0: x}
        for (t, s), options in self.edges.items():
            nodes.setdefault(t, torch.zeros_like(x))
            made: Any = self.operations[f"op_{t}_{s}"]
            m = mix.get(f"op_{t}_{s}")
            for op, weight in _weighted(options, m):
                if op != "none":
                    y = made[op](nodes[s])
                    nodes[t] = nodes[t] + (y if weight is None else weight * y)
        return nodes[max(nodes)]


def _weighted(options: Sequence[str], m: Tensor | None) -> Iterator[tuple[str, Tensor | None]]:
    """The options to run with their weights, None for 1."""
    if len(options) == 1 or m is None:
        yield options[0], None
        return
    for i, op in enumerate(options):
        if m.requires_grad or float(m[i]) != 0.0:
            yield op, m[i]
