"""How wide the vector of a category is."""

from __future__ import annotations

from collections.abc import Sequence


def widths(values: Sequence[int], widest: int) -> list[tuple[int, int]]:
    """(values, width) of each column: 1.6 values^0.56, as fast.ai's tables have it (Howard & Gugger
    2020, arXiv:2002.04688, section 3.4), at most `widest`."""
    return [(n, max(1, min(widest, round(1.6 * n**0.56)))) for n in values]
