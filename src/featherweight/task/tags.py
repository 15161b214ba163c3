"""Names of classes that mark spans of words, as B-PER and I-PER do (Ramshaw & Marcus 1995)."""

from __future__ import annotations

from collections.abc import Sequence

MARKS = ("B-", "I-", "E-", "S-", "L-", "U-")


def is_tags(names: Sequence[str] | None) -> bool:
    """Do all of them mark spans, but for O?"""
    marked = [n for n in names or () if n != "O"]
    return bool(marked) and all(n[:2] in MARKS and len(n) > 2 for n in marked)
