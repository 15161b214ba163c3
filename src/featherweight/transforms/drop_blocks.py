"""DropBlocks: remove whole residual blocks or transformer layers.

Notation: x [.., D] what a block is given, y [.., D] what it gives; influence = 1 - cos(x, y),
averaged over samples and positions (Men et al. 2024, "ShortGPT", arXiv:2403.03853, eq. 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Int, param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package


def influence(x: Tensor, y: Tensor) -> float:
    """1 - cosine similarity of a block's input and output, over the last axis (tokens) or the
    channel axis (images)."""
    import torch.nn.functional as F

    axis = 1 if x.ndim == 4 else -1
    return float(1 - F.cosine_similarity(x.float(), y.float(), dim=axis).mean())


def measure_blocks(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """({path of a ModuleList or Sequential: {index of a droppable child: influence}}, {path: why
    its blocks have to stay}), as `models.blocks.examined` has it."""
    import torch

    from ..models.blocks import examined
    from ..models.hooks import watched
    from ..models.tokens import merges

    found: dict[str, dict[int, float]] = {}

    def watch(path: str, i: int, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        x = next(a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor))
        found.setdefault(path, {})[i] = influence(x, out[0] if isinstance(out, tuple) else out)

    able, whole = examined(module, inputs)
    for path in whole:
        if merges(module.get_submodule(path)):
            whole[path] = "its blocks merge tokens: drop blocks before that"
    blocks = [(path, i) for path, index in able.items() for i in index]
    after = {f"{path}.{i}" if path else str(i): partial(watch, path, i) for path, i in blocks}
    with torch.inference_mode(), watched(module, after, with_kwargs=True):
        module(*inputs)
    return found, whole


@dataclass(frozen=True)
class DropBlocks(Transform):
    """Remove `drop` blocks: those of least influence, the last ones,
    evenly spaced ones, or random ones."""

    says = "Leave out whole blocks of layers"

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "blocks must be dropped before the weights are bound to integer scales"}

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS if self.criterion in ("last", "spaced") else Shape.WEIGHTS

    version = 3

    drop: int = param(1, search=Int(0, 4), legal=Int(0, 10_000), doc="how many blocks to remove")
    criterion: str = param(
        "influence",
        search=Choice("influence", "last", "spaced", "random"),
        legal=Choice("influence", "last", "spaced", "random"),
        doc="which blocks go",
    )
    samples: int = param(64, legal=Int(1, 100_000), doc="training samples that the influence is measured on")

    @property
    def idle(self) -> bool:
        return self.drop == 0

    def apply(self, model: Package, context: Context) -> Package:
        from ..models.surgery import edit, names_of

        if self.idle:
            return model.noted(step="drop_blocks", dropped=[])
        module = model.copied().eval()
        measured, whole = measure_blocks(module, tuple(context.calibration(self.samples).values()))
        blocks = [(path, i, v) for path, each in measured.items() for i, v in sorted(each.items())]
        held = {path: len(module.get_submodule(path)) for path in dict.fromkeys(b[0] for b in blocks)}  # type: ignore[arg-type]
        # of a row that could go whole, one stays
        most = len(blocks) - sum(n == sum(b[0] == path for b in blocks) for path, n in held.items())
        if self.drop > most:
            raise InputError(
                "more blocks to drop than the model can lose",
                got=f"drop={self.drop}",
                allowed=(
                    f"at most {most}: {len(blocks)} blocks keep their input's shape, "
                    "and of each row of blocks at least one stays"
                    + "".join(f"; {path} stays whole: {why}" for path, why in whole.items())
                ),
            )
        gone: set[tuple[str, int]] = set()
        left = dict(held)
        for path, i, _ in (blocks[k] for k in self._order([b[2] for b in blocks], context.seed)):
            if len(gone) < self.drop and left[path] > 1:
                gone.add((path, i))
                left[path] -= 1
        edits, sparse = [], [module.get_parameter(name) for name in model.sparse]
        for path in dict.fromkeys(p for p, _ in gone):
            index = tuple(i for i in range(len(module.get_submodule(path))) if (path, i) not in gone)  # type: ignore[arg-type]
            edits.append({"edit": "keep_blocks", "path": path, "index": list(index)})
            edit(module, edits[-1])
        return (
            model.edited(module=module, sparse=names_of(module, sparse))
            .restructured(*edits)
            .noted(step="drop_blocks", dropped=sorted(map(list, gone)), **({"whole": whole} if whole else {}))
        )

    def _order(self, influences: list[float], seed: int) -> list[int]:
        """The blocks, those that go first."""
        n, k = len(influences), self.drop
        if self.criterion == "influence":
            return sorted(range(n), key=lambda i: influences[i])
        if self.criterion == "last":
            return list(range(n))[::-1]
        if self.criterion == "random":
            return [int(i) for i in np.random.default_rng(seed).permutation(n)]
        # evenly spaced, the first always and the last if two are kept
        kept = {round(i * (n - 1) / max(n - k - 1, 1)) for i in range(n - k)}
        return sorted(range(n), key=lambda i: (i in kept, i))
