"""Image classifiers from a Hugging Face directory, with their own head or a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._pretrained import load_model
from ._processor import Processing, prepared

if TYPE_CHECKING:
    import torch
    from torch import nn

HEAD = "ForImageClassification"


def vision_model(folder: Path, made: Processing, classes: int, *, own_head: bool) -> nn.Module:
    """forward(image [n, channels, height, width], float32 in [0, 1]) -> logits [n, classes].
    own_head: the directory's image-classification model; else its backbone, the mean over places,
    and a new linear head."""
    from torch import nn
    from transformers import AutoModel, AutoModelForImageClassification

    class OwnHead(nn.Module):
        """An image-classification model that takes its input by position and gives a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.model = load_model(AutoModelForImageClassification, folder)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values=pixels).logits  # type: ignore[no-any-return]

    class NewHead(nn.Module):
        """Backbone, mean over rows and columns (or patches), linear head."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone: Any = load_model(AutoModel, folder, pooler=False)
            self.head = nn.Linear(_width(self.backbone, made), classes)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            hidden = self.backbone(pixel_values=pixels).last_hidden_state
            pooled = hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else hidden.mean(dim=1)
            return self.head(pooled)  # type: ignore[no-any-return]

    return prepared(OwnHead() if own_head else NewHead(), made)


def _width(backbone: Any, made: Processing) -> int:
    """Numbers that the backbone gives for a place."""
    import torch

    backbone.eval()
    with torch.no_grad():
        hidden = backbone(pixel_values=torch.zeros(1, made.channels, *made.size)).last_hidden_state
    return int(hidden.shape[1] if hidden.ndim == 4 else hidden.shape[-1])
