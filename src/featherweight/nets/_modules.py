"""The torch modules that the descriptions build. Only imported when one is built.

Notation: n samples, C channels, H x W positions, L tokens, D model width, h heads of d channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import activation


def conv_norm(
    i: int, o: int, kernel: int, stride: int = 1, groups: int = 1, norm: str = "batch", dims: int = 2
) -> list[nn.Module]:
    """A convolution that keeps the size (divided by its stride), and its normalisation;
    with none it has a bias instead. dims: 2 of images, 1 of series.

    Group normalisation (Wu & He 2018, arXiv:1803.08494) with the largest number of groups up to 8
    that divides the channels."""
    make, batch = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv1d, nn.BatchNorm1d)
    conv = make(i, o, kernel, stride, kernel // 2, groups=groups, bias=norm == "none")
    if norm == "none":
        return [conv]
    return [conv, batch(o) if norm == "batch" else nn.GroupNorm(max(g for g in range(1, 9) if o % g == 0), o)]


def _two(i: int, hidden: int, o: int, kernel: int, stride: int, act: str, norm: str, dims: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm(i, hidden, kernel, stride, norm=norm, dims=dims),
        activation(act),
        *conv_norm(hidden, o, kernel, norm=norm, dims=dims),
    )


class Rows(nn.Module):
    """[n, ...] -> [n, features]. What is so already passes as it is: a runtime would rename the
    input after an operation that does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.ndim == 2 else x.flatten(1)


class Turned(nn.Module):
    """[n, T, C] -> [n, C, T]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Recurrent(nn.Module):
    """[n, C, T] (time_first: [n, T, C]) -> [n, classes]: recurrent layers, the end or the mean of
    what they give, one linear layer."""

    def __init__(
        self,
        cell: str,
        i: int,
        hidden: int,
        layers: int,
        both_ways: bool,
        time_first: bool,
        pool: str,
        dropout: float,
        classes: int,
    ) -> None:
        super().__init__()
        make = nn.LSTM if cell == "lstm" else nn.GRU
        self.cells = make(i, hidden, layers, batch_first=True, bidirectional=both_ways)
        self.time_first, self.pool, self.both_ways = time_first, pool, both_ways
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(hidden * (2 if both_ways else 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cells(x if self.time_first else x.transpose(1, 2))  # [n, T, ways * hidden]
        if self.pool == "mean":
            read = y.mean(1)
        elif self.both_ways:  # each way has read all of it at its own end
            h = self.cells.hidden_size  # as it is now: units may be cut
            read = torch.cat([y[:, -1, :h], y[:, 0, h:]], 1)
        else:
            read = y[:, -1]
        return self.head(self.drop(read))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """The basic block of ResNet (He et al. 2016, arXiv:1512.03385, figure 5 left); `hidden`
    channels between its two convolutions."""

    def __init__(
        self, i: int, hidden: int, o: int, kernel: int, stride: int, act: str, norm: str, dims: int = 2
    ) -> None:
        super().__init__()
        self.body = _two(i, hidden, o, kernel, stride, act, norm, dims)
        self.short = (
            nn.Identity()
            if stride == 1 and i == o
            else nn.Sequential(*conv_norm(i, o, 1, stride, norm=norm, dims=dims))
        )
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:  # [n, i, H, W] -> [n, o, H / stride, W / stride]
        return self.act(self.body(x) + self.short(x))  # type: ignore[no-any-return]


class Plain(nn.Module):
    """The same two convolutions without the skip connection: the plain net that He et al. compare
    with (arXiv:1512.03385, section 3.3)."""

    def __init__(
        self, i: int, hidden: int, o: int, kernel: int, stride: int, act: str, norm: str, dims: int = 2
    ) -> None:
        super().__init__()
        self.body, self.act = _two(i, hidden, o, kernel, stride, act, norm, dims), activation(act)

    def forward(self, x: Tensor) -> Tensor:  # [n, i, H, W] -> [n, o, H / stride, W / stride]
        return self.act(self.body(x))  # type: ignore[no-any-return]


class Inverted(nn.Module):
    """The inverted residual of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, section 3.3):
    expand, depthwise, project without activation."""

    def __init__(
        self, i: int, hidden: int, o: int, kernel: int, stride: int, act: str, norm: str, dims: int = 2
    ) -> None:
        super().__init__()
        expand = [*conv_norm(i, hidden, 1, norm=norm, dims=dims), activation(act)] if hidden != i else []
        depthwise = [*conv_norm(hidden, hidden, kernel, stride, hidden, norm, dims), activation(act)]
        self.body = nn.Sequential(*expand, *depthwise, *conv_norm(hidden, o, 1, norm=norm, dims=dims))
        self.residual = stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:  # [n, i, H, W] -> [n, o, H / stride, W / stride]
        y: Tensor = self.body(x)
        return x + y if self.residual else y


def relu_conv_norm(i: int, o: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Activation first, as in the cells of NAS-Bench-201 (Dong & Yang 2020,
    arXiv:2001.00326, section 2.1)."""
    return nn.Sequential(nn.ReLU(), *conv_norm(i, o, kernel, stride))


class Reduction(nn.Module):
    """The residual block between two stages (arXiv:2001.00326, section 2.1): half the size;
    its shortcut is 2x2 average pooling, then a 1x1 convolution. An odd size is rounded up
    on both ways."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.body = nn.Sequential(relu_conv_norm(i, o, 3, 2), relu_conv_norm(o, o, 3))
        self.short = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(i, o, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:  # [n, i, H, W] -> [n, o, H / 2, W / 2]
        return self.body(x) + self.short(x)  # type: ignore[no-any-return]


class CellBlock(nn.Module):
    """A cell: node 0 is its input, the last node its output, each node the sum of its edges.

    edges: (target, source) -> operation, no `none`; live: those that lead from the input to the
    output. Only these run, the others keep their weights, which count in the published numbers
    of parameters."""

    def __init__(self, channels: int, edges: dict[tuple[int, int], str], live: frozenset[tuple[int, int]]) -> None:
        super().__init__()
        make: dict[str, Callable[[], nn.Module]] = {
            "skip_connect": nn.Identity,
            "nor_conv_1x1": lambda: relu_conv_norm(channels, channels, 1),
            "nor_conv_3x3": lambda: relu_conv_norm(channels, channels, 3),
            "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        }
        self.edges = nn.ModuleDict({f"op_{t}_{s}": make[op]() for (t, s), op in edges.items()})
        self.live = sorted(live)  # by target, so that a node is whole before it is a source

    def forward(self, x: Tensor) -> Tensor:  # [n, C, H, W] -> [n, C, H, W]
        nodes = {0: x}
        for t, s in self.live:
            y = self.edges[f"op_{t}_{s}"](nodes[s])
            nodes[t] = nodes[t] + y if t in nodes else y
        return nodes[max(nodes)]


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2). The number
    of heads follows from the layers' widths, so that it stays right when heads are cut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # [n, L, D], [n, 1, 1, L] -> [n, L, D]
        n, length = x.shape[:2]
        q, k, v = (
            f(x).view(n, length, -1, self.attention_head_size).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )  # [n, h, L, d]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(n, length, -1))  # type: ignore[no-any-return]


class Feedforward(nn.Module):
    """D -> hidden -> D."""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(width, hidden), activation(act), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Pre-norm transformer block (Xiong et al. 2020, arXiv:2002.04745, table 1)."""

    def __init__(self, width: int, heads: int, hidden: int, act: str, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Feedforward(width, hidden, act)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.dropout(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class TokenEncoder(nn.Module):
    """Token and position embeddings, blocks, the mean over the tokens that are no
    padding, a linear head."""

    def __init__(
        self,
        vocab: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        classes: int,
        act: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(length, width)
        for table in (self.tokens, self.positions):
            # Devlin et al. 2019 (arXiv:1810.04805), as in the code that they published
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, hidden, act, dropout) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[n, L] whole numbers, [n, L] (1: a token, 0: padding) -> [n, classes].
        L is at most `length`."""
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        kept = attention_mask.to(x.dtype)
        # finite, so that a row of padding alone gives no NaN
        mask = (kept[:, None, None, :] - 1.0) * torch.finfo(x.dtype).max
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) * kept[:, :, None]
        return self.head(x.sum(1) / kept.sum(1, keepdim=True).clamp(min=1.0))  # type: ignore[no-any-return]
