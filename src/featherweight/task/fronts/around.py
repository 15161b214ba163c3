"""A net between what makes its input and what reads its output."""

from __future__ import annotations

from torch import Tensor, nn


class Around(nn.Module):
    """front: the model's inputs -> x; net: x -> y; back: y -> the model's outputs (None: y)."""

    def __init__(self, front: nn.Module, net: nn.Module, back: nn.Module | None = None) -> None:
        super().__init__()
        self.front, self.net, self.back = front, net, back

    def forward(self, *inputs: Tensor) -> Tensor:
        y: Tensor = self.net(self.front(*inputs))
        return y if self.back is None else self.back(y)
