"""Resize: the model looks at smaller images. What is deployed takes the images that the original
takes, and makes them smaller itself, first of all: at half the side, a convolution has a quarter of
its work.

Smaller images want other weights: recover after it (Touvron et al. 2019, "Fixing the train-test
resolution discrepancy", arXiv:1906.06423). Work by side: Tan & Le 2019 (arXiv:1905.11946), section
3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Float, param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.package import Package

_FIX = (
    "resize models whose last layers take any size: nn.AdaptiveAvgPool2d or a mean over positions before the first "
    "Linear, and no position embedding that is made for one size; or leave resize out"
)


def side(length: int, scale: float) -> int:
    """The new length of a side: the nearest whole number, at least 1."""
    return max(1, round(length * scale))


@dataclass(frozen=True)
class Resize(Transform):
    """Shrink the images inside the model, before its first layer: all inputs [n, C, H, W], and
    [n, C, D, H, W], of which height and width shrink."""

    says = "Look at smaller images"
    tried = True

    scale: float = param(
        0.5,
        search=Choice(1.0, 0.875, 0.75, 0.625, 0.5),
        legal=Float(1e-3, 1.0),
        doc="new side, as a share of the side that the model is given",
    )
    how: str = param(
        "area",
        search=Choice("area", "bilinear"),
        legal=Choice("area", "bilinear"),
        doc="mean of what a new pixel covers (area), or the antialiased triangle filter (bilinear)",
    )

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the integer grids were chosen for images of another size"}

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS

    @property
    def idle(self) -> bool:
        return self.scale == 1.0

    def apply(self, model: Package, context: Context) -> Package:
        from ..models.entry import changed
        from ..models.surgery import edit
        from .shared.entrance import problem

        if self.idle:
            return model.noted(step="resize", images={})
        names = list(context.calibration(1))
        rows = tuple(v.cpu() for v in context.calibration(2).values())
        now = changed(model.module, rows)
        edits: list[dict[str, Any]] = []
        for i in images(names, now):
            of = list(now[i].shape[-2:])
            to = [side(n, self.scale) for n in of]
            if to != of:
                change = {"edit": "resize_input", "input": i, "name": names[i], "of": of, "to": to, "how": self.how}
                edits.append(change)
        module = model.copied().eval()
        for change in edits:
            edit(module, change)
        why = problem(model.module, module, rows)
        if why is not None:
            told = ", ".join(f"{change['name']}: {change['of']} to {change['to']}" for change in edits)
            raise InputError("this model takes no smaller images", got=f"{told}; {why}", fix=_FIX)
        note = {change["name"]: [change["of"], change["to"]] for change in edits}
        return model.edited(module=module).restructured(*edits).noted(step="resize", images=note)


def images(names: list[str], inputs: tuple[Tensor, ...]) -> list[int]:
    """Which of the inputs are images. InputError if none is, or they are not of one size."""
    from .shared.entrance import described

    found = [i for i, x in enumerate(inputs) if x.is_floating_point() and x.ndim in (4, 5)]
    if not found or len({tuple(inputs[i].shape[-2:]) for i in found}) > 1:
        raise InputError(
            "resize does not know which inputs are images" if found else "this model takes no images to resize",
            got=described(names, inputs),
            allowed="floating-point inputs [n, C, H, W] or [n, C, D, H, W], all of one height and width",
            fix="leave resize out of the recipe",
        )
    return found
