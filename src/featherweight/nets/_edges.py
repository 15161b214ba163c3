"""The operations and edges of a NAS-Bench-201 cell (Dong & Yang 2020, arXiv:2001.00326)."""

from __future__ import annotations

# section 2.1; the order of the published tables
OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# (target, source), in the order of the paper's text form
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
Edge = tuple[int, int]
