"""The net of a table for which none is given."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

HIDDEN = (128, 128, 128)


class Perceptron(nn.Module):
    """[n, features] -> [n, outputs]: hidden layers with batch norm (Ioffe & Szegedy 2015,
    arXiv:1502.03167) and dropout. As good on tables as nets with shortcuts (Gorishniy et al. 2021,
    arXiv:2106.11959, table 2), and every runtime runs it."""

    def __init__(self, features: int, outputs: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in zip((features, *hidden), hidden, strict=False):
            layers += [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU(), nn.Dropout(0.1)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]
