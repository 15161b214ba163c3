"""DropBlocks: remove whole residual blocks or transformer layers.

Notation: x [.., D] what a block is given, y [.., D] what it gives; influence = 1 - cos(x, y), averaged over samples and positions
(Men et al. 2024, "ShortGPT", arXiv:2403.03853, eq. 1).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..recipe import Transform
from ..space import Choice, Int, param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package


def influence(x: Tensor, y: Tensor) -> float:
    """1 - cosine similarity of a block's input and output, over the last axis (tokens) or the channel axis (images)."""
    import torch.nn.functional as F

    axis = 1 if x.ndim == 4 else -1
    return float(1 - F.cosine_similarity(x.float(), y.float(), dim=axis).mean())


def measure_blocks(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, dict[int, float]]:
    """{path of a ModuleList or Sequential: {index of a droppable child: influence}}.

    Droppable: one of at least two children of the same class, called once, whose first output has its first input's shape.
    """
    import torch
    from torch import nn

    found: dict[str, dict[int, float]] = {}
    hooks = []
    for path, holder in module.named_modules():
        if not isinstance(holder, (nn.ModuleList, nn.Sequential)):
            continue
        kinds = [type(b) for b in holder]
        for i, block in enumerate(holder):
            if kinds.count(type(block)) < 2 or not list(block.children()):
                continue

            def watch(_: nn.Module, args: Any, kwargs: Any, out: Any, path: str = path, i: int = i) -> None:
                x = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)), None)
                y = out[0] if isinstance(out, tuple) else out
                if x is not None and isinstance(y, torch.Tensor) and x.shape == y.shape:
                    found.setdefault(path, {})[i] = influence(x, y)

            hooks.append(block.register_forward_hook(watch, with_kwargs=True))
    try:
        with torch.inference_mode():
            module(*inputs)
    finally:
        for h in hooks:
            h.remove()
    return found


@dataclass(frozen=True)
class DropBlocks(Transform):
    """Remove `drop` blocks: those of least influence, the last ones, evenly spaced ones, or random ones."""

    @property
    def refuses(self) -> dict[str, str]:
        return {"integer weights": "blocks must be dropped before the weights are bound to integer scales"}

    drop: int = param(1, search=Int(0, 4), legal=Int(0, 10_000), doc="how many blocks to remove")
    criterion: str = param(
        "influence",
        search=Choice("influence", "last", "spaced", "random"),
        legal=Choice("influence", "last", "spaced", "random"),
        doc="which blocks go",
    )
    samples: int = param(64, legal=Int(1, 100_000), doc="training samples that the influence is measured on")

    def apply(self, model: Package, context: Context) -> Package:
        from ..errors import InputError
        from ..models.surgery import edit, names_of

        if self.drop == 0:
            return model.noted(step="drop_blocks", dropped=[])
        module = copy.deepcopy(model.module).eval()
        blocks = [
            (path, i, v)
            for path, each in measure_blocks(module, tuple(context.calibration(self.samples).values())).items()
            for i, v in sorted(each.items())
        ]
        if self.drop >= len(blocks):
            raise InputError(
                "more blocks to drop than the model can lose",
                got=f"drop={self.drop}",
                allowed=f"at most {max(len(blocks) - 1, 0)}: at least one of its {len(blocks)} blocks stays",
            )
        gone = {blocks[i][:2] for i in self._pick([b[2] for b in blocks], context.seed)}
        edits, sparse = [], [module.get_parameter(name) for name in model.sparse]
        for path in dict.fromkeys(p for p, _ in gone):
            index = tuple(i for i in range(len(module.get_submodule(path))) if (path, i) not in gone)  # type: ignore[arg-type]
            edits.append({"edit": "keep_blocks", "path": path, "index": list(index)})
            edit(module, edits[-1])
        return (
            model.edited(module=module, sparse=names_of(module, sparse))
            .restructured(*edits)
            .noted(step="drop_blocks", dropped=sorted(map(list, gone)))
        )

    def _pick(self, influences: list[float], seed: int) -> list[int]:
        import numpy as np

        n, k = len(influences), self.drop
        if self.criterion == "influence":
            return sorted(range(n), key=lambda i: influences[i])[:k]
        if self.criterion == "last":
            return list(range(n - k, n))
        if self.criterion == "random":
            return [int(i) for i in np.random.default_rng(seed).permutation(n)[:k]]
        kept = {round(i * (n - 1) / max(n - k - 1, 1)) for i in range(n - k)}  # evenly spaced, the first always and the last if two are kept
        return [i for i in range(n) if i not in kept][:k]
