"""AdaptBatchNorms: the running statistics of batch norms, estimated anew on training samples.

After a cut the layers behind it see other numbers than those that their batch norms remember; much
of what a cut loses without recovery comes back with the statistics alone (Li et al. 2020,
"EagleEye", arXiv:2007.02491). The average is over all batches alike, as in Wu & Johnson 2021,
"Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..seeding import generator
from ..space import Int, param
from .base import Context

if TYPE_CHECKING:
    from ..models.package import Package


@dataclass(frozen=True)
class AdaptBatchNorms(Transform):
    """Estimate the running mean and variance of each batch norm anew, on `samples` training samples
    in batches of `batch_size`; nothing is trained. The new statistics are kept if they lower the
    task's loss on as many other training samples, else the old ones. InputError if the model has no
    batch norm with running statistics."""

    says = "Estimate the statistics of batch norms anew, without training"

    samples: int = param(
        1024,
        search=Int(256, 4096, log=True),
        legal=Int(2, 10_000_000),
        doc="training samples, at most half of the split",
    )
    batch_size: int = param(128, legal=Int(2, 2**20), doc="samples whose statistics are taken together")

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the layers' scales were chosen with the statistics that are there"}

    @property
    def shape(self) -> Shape:
        return Shape.KEEPS

    def apply(self, model: Package, context: Context) -> Package:
        from ..task.data import Subset
        from ..train.batch_norms import reestimate, with_statistics
        from ..train.loop import mean_loss

        module = model.copied().eval()
        if not with_statistics(module):
            raise InputError(
                "there is no batch norm to adapt",
                got=f"{type(module).__name__}, none of whose layers has running statistics",
                allowed="models with batch norms that track their statistics",
                fix="leave this step out",
            )
        train = context.splits.train
        if len(train) < 4:
            raise InputError("there are too few samples for statistics", got=len(train), allowed="4 at least")
        rows = generator(context.seed, "batch norms").permutation(len(train))
        half = min(self.samples, len(train) // 2)
        seen, other = Subset(train, rows[:half]), Subset(train, rows[half : 2 * half])
        before = mean_loss(module, other, context.task.loss_fn, context.device)
        reestimate(module, seen, self.batch_size, context.device)
        after = mean_loss(module, other, context.task.loss_fn, context.device)
        kept = after < before
        told = {"step": self.kind, "loss_before": before, "loss_after": after, "kept": kept}
        return (model.edited(module=module) if kept else model).noted(**told)
