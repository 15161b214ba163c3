"""ReplaceActivations: activations that cost much become ones that cost little.

GELU and SiLU are as slow as a small layer where a runtime has no kernel of their own for them, and
keep integer layers from being joined; a ReLU is free. Accuracy comes back with training (Howard et
al. 2019, "MobileNetV3", arXiv:1905.02244, section 5.2, for hard swish; Mirzadeh et al. 2023, "ReLU
Strikes Back", arXiv:2310.04564).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Float, param
from .base import FEW, Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package


@dataclass(frozen=True)
class ReplaceActivations(Transform):
    """Put ReLU or hard swish in the place of a share of the smooth activations (GELU in its forms,
    SiLU, Mish, ELU, Softplus, hard swish): those first whose replacement alone changes the outputs
    least. What a model's code calls as a function is not replaced, but in
    nn.TransformerEncoderLayer. InputError if there is none."""

    says = "Put cheap activations in the place of costly ones"
    tried = True

    to: str = param("relu", search=Choice("relu", "hardswish"), legal=Choice("relu", "hardswish"), doc="what is put in")
    share: float = param(
        1.0,
        search=Choice(0.0, 0.5, 1.0),
        legal=Float(0.0, 1.0),
        doc="share of the activations that are replaced, the least important first",
    )

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the integer grids were chosen for the activations that are there"}

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS if self.share in (0.0, 1.0) else Shape.WEIGHTS

    @property
    def idle(self) -> bool:
        return self.share == 0.0

    def apply(self, model: Package, context: Context) -> Package:
        from ..models.activations import replaceable
        from ..models.surgery import edit

        if self.idle:
            return model.noted(step=self.kind, replaced=0)
        found = replaceable(model.module, self.to)
        if not found:
            raise InputError(
                "there is no activation to replace",
                got=f"{type(model.module).__name__}, none of whose modules is a costly activation",
                allowed="modules of GELU, SiLU, Mish, ELU, Softplus or hard swish; functions that the model's code "
                "calls are not seen",
                fix="make them modules (nn.GELU() for F.gelu), or leave this step out",
            )
        n = max(1, round(len(found) * self.share))
        order = list(found)
        if n < len(found):
            rows = tuple(v.cpu() for v in context.calibration(FEW).values())
            change = changes(model.module, order, self.to, rows)
            order = sorted(order, key=lambda path: change[path])
        edits = [{"edit": "replace_activation", "path": path, "to": self.to} for path in sorted(order[:n])]
        module = model.copied().eval()
        for one in edits:
            edit(module, one)
        return (
            model.edited(module=module)
            .restructured(*edits)
            .noted(step=self.kind, replaced={path: found[path] for path in sorted(order[:n])}, of=len(found))
        )


def changes(module: nn.Module, paths: list[str], to: str, rows: tuple[Tensor, ...]) -> dict[str, float]:
    """{path: mean squared change of the outputs if that activation alone is replaced}."""
    import torch

    from ..models.activations import replaced

    out: dict[str, Any] = {}
    with torch.inference_mode():
        before = module(*rows)
        for path in paths:
            with replaced(module, path, to):
                out[path] = float((module(*rows) - before).square().mean())
    return out
