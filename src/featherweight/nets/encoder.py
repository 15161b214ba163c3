"""Encoder: a transformer that classifies token sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..space import Choice, Float, Int, param
from .base import ACTIVATIONS, Net

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Encoder(Net):
    """token ids [n, L], attention_mask [n, L] (1: a token, 0: padding) -> [n, classes], for L up to `length`.

    Pre-norm blocks, learned positions, mean over the tokens. `heads` has to divide `width`: InputError when it is built, if not.
    """

    vocab: int = param(30522, legal=Int(1, 10_000_000), doc="number of different tokens")
    length: int = param(128, legal=Int(1, 1_000_000), doc="tokens of the longest sequence")
    classes: int = param(2, legal=Int(1, 1_000_000), doc="outputs")
    depth: int = param(2, search=Int(1, 8), legal=Int(0, 1000), doc="blocks")
    heads: int = param(4, search=Choice(1, 2, 4, 8), legal=Int(1, 1024), doc="attention heads of each block")
    width: int = param(128, search=Choice(64, 128, 256, 384), legal=Int(1, 65536), doc="channels of a token")
    mlp_ratio: float = param(4.0, search=Choice(1.0, 2.0, 4.0), legal=Float(0.01, 64.0), doc="inner width of the feed-forward layers, over `width`")
    activation: str = param("gelu", search=Choice("relu", "gelu", "silu"), legal=Choice(*ACTIVATIONS), doc="in the feed-forward layers")
    dropout: float = param(0.0, search=Float(0.0, 0.3), legal=Float(0.0, 0.99), doc="share of values dropped in training")

    def module(self) -> nn.Module:
        from ._modules import TokenEncoder

        if self.width % self.heads:
            raise InputError("the width of an encoder is no multiple of its heads", got=f"width={self.width}, heads={self.heads}")
        hidden = max(1, round(self.mlp_ratio * self.width))
        return TokenEncoder(self.vocab, self.length, self.width, self.depth, self.heads, hidden, self.classes, self.activation, self.dropout)
