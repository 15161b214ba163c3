"""Adds up what layers cost, by the rules of `measure.ops`, without making them.

Notation: i, o channels in and out; k size of the kernel; H x W positions (of an image;
L x 1 of a sequence).
"""

from __future__ import annotations

Size = tuple[int, int]  # H, W


class Tally:
    """Parameters and multiply-accumulates of the layers so far; `widest`: the most numbers that one
    weighted layer gives for a sample."""

    def __init__(self) -> None:
        self.params = self.macs = self.widest = 0

    def conv(
        self,
        i: int,
        o: int,
        k: int,
        size: Size,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        runs: bool = True,
        dims: int = 2,
    ) -> Size:
        """A convolution padded by k // 2, k odd; the size that it gives. `runs` False: it has
        weights but nothing asks for its result. dims: of its kernel, 1 of series."""
        # floor((n + 2 (k // 2) - k) / stride) + 1
        h, w = (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1
        weights = o * (i // groups) * k**dims
        self.params += weights + (o if bias else 0)
        if runs:
            self.macs += weights * h * w  # padding counts as any other input
            self.widest = max(self.widest, o * h * w)
        return h, w

    def linear(self, i: int, o: int, rows: int = 1) -> None:
        """A linear layer with bias, applied to `rows` vectors of a sample."""
        self.params += i * o + o
        self.macs += rows * i * o
        self.widest = max(self.widest, rows * o)

    def recurrent(self, i: int, hidden: int, gates: int, moments: int, ways: int) -> None:
        """An LSTM (4 gates) or GRU (3) with both its biases, over so many moments, one or both
        ways."""
        weights = ways * gates * hidden * (i + hidden)
        self.params += weights + ways * 2 * gates * hidden
        self.macs += moments * weights
        self.widest = max(self.widest, moments * ways * hidden)

    def norm(self, channels: int) -> None:
        """A scale and a shift a channel; elementwise work is not counted."""
        self.params += 2 * channels
