"""Quantiles that the intervals need, without SciPy (the probe and the study stay light).
Tests hold them to SciPy's."""

from __future__ import annotations

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
# 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom
_T = (
    12.706204736432095,
    4.302652729911275,
    3.182446305284263,
    2.7764451051977987,
    2.5705818366147395,
    2.4469118487916806,
    2.3646242515927844,
    2.306004135033371,
    2.2621571628540993,
)


def t975(df: int) -> float:
    """The 97.5 % quantile of Student's t. From ten degrees on by the expansion in 1/df, to 4e-6
    (Abramowitz & Stegun 26.7.5)."""
    if df < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {df}")
    if df <= len(_T):
        return _T[df - 1]
    x = Z95
    g1 = (x**3 + x) / 4
    g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    g4 = (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160
    return x + g1 / df + g2 / df**2 + g3 / df**3 + g4 / df**4
