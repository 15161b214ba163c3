"""DistillBlocks: train every block of the student on its own, to do what the teacher's block does.

Notation: block i of the student stands for the *span* of teacher blocks from `start` to `end`:
itself, and the blocks dropped behind it (before it, for the first). x_i is the teacher's input of
`start`, y_i the teacher's output of `end`, s_i the student's block.
Loss: L_i = mean |s_i(x_i) - y_i|^2 (block-wise distillation of DNA, Li et al. 2020,
arXiv:1911.13053): the input is the teacher's, so blocks are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..recipe import Recipe
from ..seeding import derive
from ..space import Domain, param
from .base import Context, Trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..models.package import Package


@dataclass(frozen=True)
class Span:
    """student: path of its block; start, end: paths of the first and last teacher block
    that it stands for."""

    student: str
    start: str
    end: str


@dataclass(frozen=True)
class DistillBlocks(Trained):
    """Train each of the student's blocks against the teacher's, `epochs` each, one at a time; what
    is no block keeps its weights.

    Only blocks whose input and output have the teacher's shapes are trained; the notes name the
    others. InputError if there is no such block. The teacher runs up to the block for every batch,
    so that no activations of the data set are kept.
    """

    says = "Train each block of the smaller model to give what the original's block gives"
    teaches = True

    teacher: Any = param(None, doc="a recipe whose model is the teacher; none: the baseline")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None and not isinstance(self.teacher, (Recipe, Domain)):
            raise InputError("this is no teacher for blocks", got=repr(self.teacher)[:200], allowed="none or a recipe")

    @property
    def pauses(self) -> bool:
        return False

    def apply(self, model: Package, context: Context) -> Package:
        from ..train.loop import tensors

        module, teacher = model.copied(), context.teacher(self.teacher)
        example, _ = tensors(context.splits.train, np.arange(min(2, len(context.splits.train))), "cpu")
        found = spans(model, teacher)
        fitting = [s for s in found if same_shapes(module, teacher.module, s, example)]
        if not fitting:
            raise InputError(
                "student and teacher share no block with equal shapes of input and output",
                got=f"{len(found)} blocks under the same path: {', '.join(s.student for s in found[:8])}",
                fix="prune inside the blocks only, or use distill with features=1, which projects one width on another",
            )
        losses: dict[str, float] = {}
        teacher.module.to(context.device)
        try:
            for span in fitting:
                losses[span.student] = self._block(module, teacher.module, span, model.sparse, context)
        finally:
            teacher.module.to("cpu")
        skipped = [s.student for s in found if s not in fitting]
        return model.edited(module=module).noted(step=self.kind, epochs=self.epochs, losses=losses, skipped=skipped)

    def _block(
        self, module: nn.Module, teacher: nn.Module, span: Span, sparse: Sequence[str], context: Context
    ) -> float:
        """Train one block in place; the mean loss of its last epoch."""
        import torch.nn.functional as F

        from ..train.loop import fit

        learner = learn(module.get_submodule(span.student), teacher, span)
        prefix = span.student + "."
        mine = [f"block.{name[len(prefix) :]}" for name in sparse if name.startswith(prefix)]

        def objective(out: Tensor, _: Tensor, __: Any) -> Tensor:
            return F.mse_loss(out, learner.target)  # L_i

        seed = derive(context.seed, span.student)
        return fit(
            learner,
            context.splits.train,
            objective,
            self.training(),
            seed=seed,
            device=context.device,
            report=context.report,
            sparse=mine,
        )


def learn(block: nn.Module, teacher: nn.Module, span: Span) -> Any:
    """A module that takes the model's inputs, gives block(x_i), and keeps y_i as `target`. Its only
    parameters are the block's."""
    from torch import nn

    from ..models.taps import first_tensor, part

    class Learner(nn.Module):
        target: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, *inputs: Tensor) -> Tensor | None:
            args, kwargs, self.target = part(teacher, inputs, span.start, span.end)
            return first_tensor(self.block(*args, **kwargs))

    return Learner()


def spans(student: Package, teacher: Package) -> list[Span]:
    """The blocks of the ModuleLists and Sequentials that both have under the same path, each with
    the teacher blocks it stands for.

    Two edits of one architecture are matched by the blocks' numbers before the edits; others by
    relative depth: block j of n stands for blocks floor(j m / n) to floor((j + 1) m / n) - 1 of m.
    """
    from torch import nn

    from ..models.matching import blocks, origin

    ours = [b for b in blocks(student.module) if list(student.module.get_submodule(b).children())]
    out: list[Span] = []
    for holder in dict.fromkeys(b.rpartition(".")[0] for b in ours):
        there = dict(teacher.module.named_modules()).get(holder)
        if not isinstance(there, (nn.ModuleList, nn.Sequential)) or not len(there):
            continue
        here = student.module.get_submodule(holder)
        n, m = len(here), len(there)  # type: ignore[arg-type]
        prefix = f"{holder}." if holder else ""
        names = [f"{prefix}{name}" for name, _ in there.named_children()]
        numbers = [_number(origin(f"{prefix}{j}", student.edits)) for j in range(n)]
        known = [_number(origin(f"{prefix}{i}", teacher.edits)) for i in range(m)]
        for j, (name, _) in enumerate(here.named_children()):
            path = f"{prefix}{name}"
            if path not in ours:
                continue
            if student.net == teacher.net or n == m:
                last = numbers[j + 1] if j + 1 < n else max(known) + 1
                first = 0 if j == 0 else numbers[j]
                inside = [i for i, k in enumerate(known) if first <= k < last]
            else:
                inside = list(range(j * m // n, (j + 1) * m // n))
            if inside:
                out.append(Span(path, names[inside[0]], names[inside[-1]]))
    return out


def _number(path: str) -> int:
    return int(path.rpartition(".")[2])


def same_shapes(student: nn.Module, teacher: nn.Module, span: Span, example: Sequence[torch.Tensor]) -> bool:
    """Whether the student's block takes and gives what the teacher's span does,
    on `example` inputs."""
    from ..models.taps import first_tensor, part

    shapes = []
    for module, start, end in ((student, span.student, span.student), (teacher, span.start, span.end)):
        args, kwargs, out = part(module, example, start, end)
        given = first_tensor((*args, *kwargs.values()))
        shapes.append((None if given is None else given.shape, out.shape))
    return shapes[0] == shapes[1]
