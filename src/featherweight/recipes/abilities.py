"""What can be done to a model at all, found by trying: which blocks can go, which channels can be
cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from ..task.task import Task


@dataclass(frozen=True)
class Abilities:
    """convolutional, attentive, recurrent: has it such layers; blocks: how many can be dropped;
    cuts: of the granularities of Prune those that find something to cut (`all`: only if there is
    more than in `mlp`); tables: it has embeddings, and all of them can be stored in 4 bits."""

    convolutional: bool
    attentive: bool
    recurrent: bool
    blocks: int
    cuts: tuple[str, ...]
    tables: bool


def abilities(task: Task) -> Abilities:
    """Of the task's own model, from one run of its example inputs and a trace of its channels."""
    import torch
    from torch import nn

    from ..models.blocks import droppable
    from ..models.coupling import couple
    from ..models.heads import projections

    module = task.build().eval()
    example = tuple(torch.from_numpy(v.copy()) for v in task.example().values())
    rows = {path: len(index) for path, index in droppable(module, example).items()}
    whole = {path: len(module.get_submodule(path)) for path in rows}  # type: ignore[arg-type]
    try:
        kinds = {g.kind for g in couple(module, example, "all").groups}
    except InputError:  # it cannot be followed, so it is not cut
        kinds = set()
    return Abilities(
        any(isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for m in module.modules()),
        bool(projections(module)),
        any(isinstance(m, nn.RNNBase) for m in module.modules()),
        sum(n - (n == whole[path]) for path, n in rows.items()),  # of a row that could go whole, one stays
        (*(("all",) if kinds - {"mlp"} else ()), *(("mlp",) if "mlp" in kinds else ())),
        _small_tables(module),
    )


def _small_tables(module: nn.Module) -> bool:
    """Can every embedding be stored in 4 bits: two codes a byte, and no layer computes with it?"""
    from torch import nn

    from ..models.quant.layers import sharing

    tables = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    tied = any(
        len({type(module.get_submodule(p)) for p in paths}) > 1 for paths in sharing(module).values() if len(paths) > 1
    )
    return bool(tables) and not tied and all(m.embedding_dim % 2 == 0 for m in tables)
