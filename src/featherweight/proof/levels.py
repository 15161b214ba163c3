"""The levels of a study's certificates, so that all of them together are right with 95 %.

Looks at the test split are ordered before the first, by what the validation split says. Each has
a level, its share of `ALPHA`; one that certifies passes its level on to the next: fallback
(Wiens, "A fixed sequence Bonferroni procedure for testing multiple endpoints", Pharmaceutical
Statistics 2, 2003), whose infinite form (Tian & Ramdas, "Online control of the familywise error
rate", 2021, arXiv:1910.04900) lets a study that goes on test more. The probability that any
certificate is false is at most `ALPHA`, however the candidates depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence

ALPHA = 0.05  # the probability that a study has a false certificate, at most
FIRST = 0.9  # of it is the first look's own; the others share the rest


def next_level(passed: Sequence[bool]) -> float:
    """The level of the look after those that `passed`, or not, in their order. The own shares of
    the looks, `FIRST` and then (1 - FIRST) / (i (i - 1)) for i = 2, 3, .., sum to 1."""
    level = 0.0
    for i, before in enumerate((True, *passed), start=1):
        own = FIRST if i == 1 else (1 - FIRST) / (i * (i - 1))
        level = ALPHA * own + (level if before else 0.0)
    return level
