"""Prune: remove whole channels from the model, with everything that is coupled to them. What comes out is an ordinary smaller model.

Notation: a group has C coupled channels with importance s [C]; `ratio` is the share of all cuttable channels to remove.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..recipe import Transform
from ..space import Choice, Float, Int, param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.coupling import Coupling
    from ..models.package import Package


def choose(importance: list[Tensor], ratio: float, scope: str, round_to: int) -> list[list[int]]:
    """Which channels of each group go: [group][channel index].

    scope `layer`: the same ratio in every group; `global`: one ranking over all groups, each group's importance divided by its
    mean so that groups of different scale can be compared. Every group keeps a multiple of `round_to` channels (as near to
    what the ranking says as can be), at least one such multiple; a group of fewer channels than `round_to` is left whole.
    """
    import torch

    keep = [len(s) * (1 - ratio) for s in importance]
    if scope == "global" and importance:
        scaled = [s / s.mean().clamp(min=1e-30) for s in importance]
        ranked, _ = torch.cat(scaled).sort()
        n_cut = round(ratio * len(ranked))
        floor = ranked[n_cut] if n_cut < len(ranked) else torch.tensor(float("inf"))
        keep = [float((s >= floor).sum()) for s in scaled]
    out = []
    for s, k in zip(importance, keep, strict=True):
        rounded = min(max(round(k / round_to) * round_to, round_to), len(s))
        n_drop = 0 if ratio == 0 else len(s) - rounded
        out.append(sorted(s.argsort()[:n_drop].tolist()))
    return out


@dataclass(frozen=True)
class Prune(Transform):
    """Cut the least important channels. Layers that cannot be coupled are named in the notes and left whole."""

    @property
    def refuses(self) -> dict[str, str]:
        return {"integer weights": "channels must be cut before their weights are bound to integer scales"}

    ratio: float = param(0.5, search=Float(0.0, 0.8), legal=Float(0.0, 1.0), doc="share of the channels to remove")
    criterion: str = param(
        "magnitude", search=Choice("magnitude", "taylor", "random"), legal=Choice("magnitude", "taylor", "random"), doc="which channels matter least"
    )
    scope: str = param(
        "global", search=Choice("global", "layer"), legal=Choice("global", "layer"), doc="one ranking over all layers, or the ratio in each"
    )
    round_to: int = param(8, search=Choice(1, 4, 8, 16), legal=Int(1, 1024), doc="widths are multiples of this")
    batches: int = param(8, legal=Int(1, 100_000), doc="training batches of 64 that the taylor criterion sees")

    def apply(self, model: Package, context: Context) -> Package:
        import torch

        from ..models.coupling import couple, cut

        module = copy.deepcopy(model.module).eval()
        inputs = tuple(context.calibration(2).values())
        before = module(*inputs).shape
        coupling = couple(module, inputs)
        drops = choose(self._importance(module, coupling, context), self.ratio, self.scope, self.round_to)
        widths = {}
        for group, drop in zip(coupling.groups, drops, strict=True):
            if drop:
                cut(coupling, group, drop)
            widths[group.name] = [group.channels, group.channels - len(drop)]
        with torch.no_grad():
            after = module.eval()(*inputs).shape
        if after != before:
            from ..errors import InputError

            raise InputError(
                "pruning would change the shape of the model's output",
                got=f"{tuple(before)} became {tuple(after)}",
                fix="the last layer's output must be the model's output, with no arithmetic in between",
            )
        return model.edited(module=module).noted(step="prune", widths=widths, whole=coupling.whole)

    def _importance(self, module: nn.Module, coupling: Coupling, context: Context) -> list[Tensor]:
        import torch

        from ..models.coupling import scores
        from ..models.importance import magnitude, taylor
        from ..train.loop import tensors

        if self.criterion == "random":
            generator = torch.Generator().manual_seed(context.seed)
            return [torch.rand(g.channels, generator=generator) for g in coupling.groups]
        weights = {name: p for name, p in module.named_parameters() if name.endswith("weight")}
        if self.criterion == "magnitude":
            value = {name: magnitude(p) for name, p in weights.items()}
            return [scores(module, g, value) for g in coupling.groups]
        total = [torch.zeros(g.channels) for g in coupling.groups]
        generator = torch.Generator().manual_seed(context.seed)
        order = torch.randperm(len(context.splits.train), generator=generator).numpy()
        for start in range(0, min(len(order), 64 * self.batches), 64):
            x, y = tensors(context.splits.train, order[start : start + 64], "cpu")
            grads = torch.autograd.grad(context.task.loss_fn(module(*x), y), list(weights.values()), allow_unused=True)
            value = {name: taylor(p, g) for (name, p), g in zip(weights.items(), grads, strict=True) if g is not None}
            total = [t + scores(module, g, value) for t, g in zip(total, coupling.groups, strict=True)]
        return total
