"""Distill: train the model to give the teacher's outputs.

Notation: s student logits [B, C], t teacher logits [B, C], T temperature, a share of the soft term.
KL form: Hinton, Vinyals & Dean 2015 (arXiv:1503.02531), section 2, with the factor T^2 so that both terms keep their scale.
MSE form: Ba & Caruana 2014 (arXiv:1312.6184), eq. 1; Kim et al. 2021 (arXiv:2105.08919) on why it is the limit of large T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..space import Choice, Float, param
from .base import Context, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.package import Package


def soft_loss(s: Tensor, t: Tensor, form: str, temperature: float) -> Tensor:
    """The distance of student from teacher logits: T^2 KL(softmax(t/T) || softmax(s/T)), or the mean squared difference."""
    import torch.nn.functional as F

    if form == "mse":
        return F.mse_loss(s, t)
    log_s, log_t = F.log_softmax(s / temperature, dim=-1), F.log_softmax(t / temperature, dim=-1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


@dataclass(frozen=True)
class Distill(Trained):
    """Train on (1 - alpha) * task loss + alpha * distance to the teacher. The teacher is the baseline, or what `teacher` (a recipe) makes."""

    alpha: float = param(0.7, search=Float(0.3, 1.0), legal=Float(0.0, 1.0), doc="share of the teacher's term")
    form: str = param("kl", search=Choice("kl", "mse"), legal=Choice("kl", "mse"), doc="distance between logits")
    temperature: float = param(2.0, search=Float(1.0, 8.0, log=True), legal=Float(1e-3, 1e3), doc="softens both outputs (kl)")
    teacher: Any = param(None, doc="a recipe whose model is the teacher; none: the baseline")

    def apply(self, model: Package, context: Context) -> Package:
        import torch

        teacher = torch.from_numpy(context.teacher_outputs(self.teacher))  # [N, C]
        task_loss = context.task.loss_fn

        def objective(out: Tensor, y: Tensor, index: Any) -> Tensor:
            soft = soft_loss(out, teacher[index].to(out.device), self.form, self.temperature)
            return soft if self.alpha == 1.0 else (1 - self.alpha) * task_loss(out, y) + self.alpha * soft

        return self.fit(model, context, objective)
