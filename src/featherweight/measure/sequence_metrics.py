"""Metrics of sequences: what is read from frames, and spans of tokens. numpy only.

Notation: n samples, C classes, T frames or tokens; outputs [n, C, T], targets [n, ...].

Sources: Graves et al. 2006 (best-path decoding); Ramshaw & Marcus 1995 and CoNLL-2003 (spans are
right if their ends and their kind are).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..task.tags import is_tags
from .place_metrics import said_at

Names = Sequence[str]
SEPARATORS = (" ", "|", "_", "▁", "<space>")  # names of the class that stands between words


def decoded(outputs: np.ndarray) -> list[list[int]]:
    """Best path: the likeliest class of each frame, repeats taken together, then without class 0,
    the blank."""
    if outputs.ndim != 3:
        raise ValueError("frames are [n, classes, frames]")
    best = said_at(outputs)
    kept = np.ones_like(best, dtype=bool)
    kept[:, 1:] = best[:, 1:] != best[:, :-1]
    return [row[keep & (row > 0)].tolist() for row, keep in zip(best, kept, strict=True)]


def labelled(targets: np.ndarray) -> list[list[int]]:
    """The labels of each sample: [n, most], 0 or less where there is none."""
    if targets.ndim != 2 or not np.array_equal(targets, np.rint(targets)):
        raise ValueError("labels of sequences are whole numbers, [n, most]")
    return [row[row > 0].astype(np.int64).tolist() for row in targets]


def distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Levenshtein's: how many are to be put in, left out or changed to make b of a."""
    before = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        now = [i]
        for j, y in enumerate(b, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (x != y)))
        before = now
    return before[-1]


def character_errors(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[n, 2]: edits from what is said to what is right, labels that are right."""
    pairs = zip(decoded(outputs), labelled(targets), strict=True)
    return np.array([[distance(said, true), len(true)] for said, true in pairs], dtype=np.float64)


def word_errors(outputs: np.ndarray, targets: np.ndarray, names: Names | None = None) -> np.ndarray:
    """[n, 2]: edits of words, words that are right. Words are what stands between the class that
    is called as one of `SEPARATORS`."""
    between = [i for i, name in enumerate(names or ()) if name in SEPARATORS]
    if not between:
        raise ValueError(f"wer needs the names of the classes, one of them {', '.join(map(repr, SEPARATORS))}")

    def words(labels: list[int]) -> list[tuple[int, ...]]:
        out: list[list[int]] = [[]]
        for label in labels:
            if label in between:
                out.append([])
            else:
                out[-1].append(label)
        return [tuple(w) for w in out if w]

    pairs = ((words(a), words(b)) for a, b in zip(decoded(outputs), labelled(targets), strict=True))
    return np.array([[distance(said, true), len(true)] for said, true in pairs], dtype=np.float64)


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first, behind the last, kind) of tags as BIO, BIOES or IO have them: B-X or S-X begin a
    span, and so does I-X or E-X after another kind or none (as conlleval reads them)."""
    found, start, kind = set(), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, _, of = tag.partition("-")
        of = of if mark in ("B", "I", "E", "S", "L", "U") else ""
        if kind and (of != kind or mark in ("B", "S", "U") or _ended(tags[i - 1])):
            found.add((start, i, kind))
            kind = ""
        if of and not kind:
            start, kind = i, of
    return found


def _ended(tag: str) -> bool:
    return tag.partition("-")[0] in ("E", "S", "L", "U")


def span_counts(outputs: np.ndarray, targets: np.ndarray, names: Names | None = None) -> np.ndarray:
    """[n, 3]: spans that are right, said, true. names: of the classes, as B-PER; places whose
    target is below 0 (padding, parts of words) are left out."""
    if not is_tags(names):
        raise ValueError("entity_f1 needs the names of the classes: classes=['O', 'B-PER', 'I-PER', ..]")
    assert names is not None
    if outputs.ndim != 3 or outputs.shape[2:] != targets.shape[1:] or outputs.shape[1] != len(names):
        raise ValueError(f"outputs are [n, {len(names)}, tokens], targets [n, tokens]")
    rows = []
    for said, true in zip(said_at(outputs), targets.astype(np.int64), strict=True):
        counted = true >= 0
        a, b = (spans([names[c] for c in row[counted].tolist()]) for row in (said, true))
        rows.append([len(a & b), len(a), len(b)])
    return np.array(rows, dtype=np.float64)
