"""Encoder: a transformer that classifies token sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..space import Choice, Float, Int, param
from ._tally import Tally
from .base import ACTIVATIONS, Cost, Net

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Encoder(Net):
    """token ids [n, L], attention_mask [n, L] (1: a token, 0: padding) -> [n, classes],
    for L up to `length`.

    Pre-norm blocks, learned positions, mean over the tokens. `heads` has to divide `width`:
    InputError when it is built, if not.
    """

    vocab: int = param(30522, legal=Int(1, 10_000_000), doc="number of different tokens")
    length: int = param(128, legal=Int(1, 1_000_000), doc="tokens of the longest sequence")
    classes: int = param(2, legal=Int(1, 1_000_000), doc="outputs")
    depth: int = param(2, search=Int(1, 8), legal=Int(0, 1000), doc="blocks")
    heads: int = param(4, search=Choice(1, 2, 4, 8), legal=Int(1, 1024), doc="attention heads of each block")
    width: int = param(128, search=Choice(64, 128, 256, 384), legal=Int(1, 65536), doc="channels of a token")
    mlp_ratio: float = param(
        4.0,
        search=Choice(1.0, 2.0, 4.0),
        legal=Float(0.01, 64.0),
        doc="inner width of the feed-forward layers, over `width`",
    )
    activation: str = param(
        "gelu", search=Choice("relu", "gelu", "silu"), legal=Choice(*ACTIVATIONS), doc="in the feed-forward layers"
    )
    dropout: float = param(
        0.0, search=Float(0.0, 0.3), legal=Float(0.0, 0.99), doc="share of values dropped in training"
    )

    def check(self) -> None:
        if self.width % self.heads:
            raise InputError(
                "the width of an encoder is no multiple of its heads",
                got=f"width={self.width}, heads={self.heads}",
                allowed=(
                    "heads that divide the width: "
                    f"{', '.join(str(h) for h in range(1, min(self.width, 64) + 1) if self.width % h == 0)}"
                ),
            )

    @property
    def _hidden(self) -> int:
        return max(1, round(self.mlp_ratio * self.width))

    def module(self) -> nn.Module:
        from ._modules import TokenEncoder

        return TokenEncoder(
            self.vocab,
            self.length,
            self.width,
            self.depth,
            self.heads,
            self._hidden,
            self.classes,
            self.activation,
            self.dropout,
        )

    def cost(self, shape: Sequence[int]) -> Cost:
        self.require(len(shape) == 1 and shape[0] <= self.length, shape, f"(L,) with L up to length = {self.length}")
        tokens, width = shape[0], self.width
        block, head = Tally(), Tally()
        for i, o in (*((width, width),) * 4, (width, self._hidden), (self._hidden, width)):
            block.linear(i, o, tokens)
        for tally in (block, block, head):
            tally.norm(width)
        head.linear(width, self.classes)
        # Q K^T and its product with V, all heads (arXiv:1706.03762, equation 1)
        attention = 2 * tokens * tokens * width
        return Cost(
            params=(self.vocab + self.length) * width + self.depth * block.params + head.params,
            macs=self.depth * (block.macs + attention) + head.macs,
            depth=4 * self.depth + 1,  # query (or key, or value), out, up, down
            layers=6 * self.depth + 1,
            widest=max(block.widest if self.depth else 0, head.widest),
            paths=2.0 * self.depth,
        )
