"""Which submodules of two models belong together.

Notation: a *holder* is a ModuleList or Sequential; a *block* is a child of a holder that has
children itself; a path is a submodule's dotted name; *origin* is the path that a submodule had
before any `keep_blocks` edit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import InputError

_MOST = 4  # blocks that are matched where none are named


def blocks(module: nn.Module, called: Collection[str] | None = None) -> list[str]:
    """Paths of the model's blocks, in order: those of holders with at least two blocks of one
    class, else of all holders; never one inside another. A model without any: its convolutions and
    linear layers but the last. called: paths of all others are left out (`taps.called`)."""
    holders = [(p, m) for p, m in module.named_modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]

    def of(at_least: int) -> list[str]:
        out: list[str] = []
        for path, holder in holders:
            kinds = [type(c) for c in holder if list(c.children())]
            for name, child in holder.named_children():
                where = f"{path}.{name}" if path else name
                if (
                    list(child.children())
                    and kinds.count(type(child)) >= at_least
                    and not any(where.startswith(o + ".") for o in out)
                    and (called is None or where in called)
                ):
                    out.append(where)
        return out

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    layers = [p for p, m in module.named_modules() if isinstance(m, kinds) and (called is None or p in called)]
    return of(2) or of(1) or layers[:-1]


def origin(path: str, edits: Sequence[dict[str, Any]]) -> str:
    """The path that the submodule at `path` had before `edits` (`Package.edits`) renumbered the
    blocks around it."""
    for change in reversed(edits):
        prefix = f"{change['path']}." if change.get("path") else ""
        if change.get("edit") != "keep_blocks" or not path.startswith(prefix):
            continue
        head, dot, rest = path[len(prefix) :].partition(".")
        if head.isdecimal() and int(head) < len(change["index"]):
            path = f"{prefix}{change['index'][int(head)]}{dot}{rest}"
    return path


def matched(
    student: nn.Module,
    teacher: nn.Module,
    layers: Sequence[str] = (),
    *,
    student_edits: Sequence[dict[str, Any]] = (),
    teacher_edits: Sequence[dict[str, Any]] = (),
    same_net: bool = True,
    called: tuple[Collection[str] | None, Collection[str] | None] = (None, None),
) -> list[tuple[str, str]]:
    """Pairs (student path, teacher path) of submodules that do the same work, in order.

    layers: the student's paths to match; none: the ends of at most four stages of blocks, evenly
    spaced. Two edits of one architecture (`same_net`), or two with the same blocks, are matched by
    origin; others by relative depth among the blocks (for a named layer that is no block: among the
    modules of its class), as in TinyBERT (Jiao et al. 2020, arXiv:1909.10351, section 4.1: uniform
    layer mapping). called: what the student and the teacher call as modules; layers that are not
    named are taken from those. InputError if nothing matches.
    """
    ours, theirs = blocks(student, called[0]), blocks(teacher, called[1])
    picked = list(layers) or [ours[i] for i in ends(len(ours))]
    names, known = dict(student.named_modules()), dict(teacher.named_modules())
    missing = [p for p in picked if p not in names]
    if missing or not picked:
        raise InputError(
            "the student has no such layers",
            got=missing or "no blocks at all",
            allowed=ours,
            fix="name layers of the student in `layers`",
        )
    there = {origin(p, teacher_edits): p for p in known}
    by_path = same_net or ours == theirs
    pairs = []
    for path in picked:
        twin = there.get(origin(path, student_edits)) if by_path else None
        if twin is None:
            kind = type(names[path])
            mine = ours if path in ours else [n for n, m in names.items() if type(m) is kind]
            other = theirs if path in ours else [n for n, m in known.items() if type(m) is kind]
            if not other:
                raise InputError(
                    "the teacher has no layer that matches", got=f"{path} ({kind.__name__})", allowed=theirs
                )
            twin = other[max(round((mine.index(path) + 1) / len(mine) * len(other)) - 1, 0)]
        pairs.append((path, twin))
    return pairs


def ends(n: int, most: int = _MOST) -> list[int]:
    """The last indices of min(n, most) equal parts of n things in a row."""
    k = min(n, most)
    return [round((i + 1) * n / k) - 1 for i in range(k)]  # n = 0: none


def channels_first(module: nn.Module, x: Tensor) -> Tensor:
    """What `module` gave, as [B, C, *positions]. Channels are taken to be the second axis of what
    convolutions give, and the last of what linear layers and attention give (tokens [B, L, D], and
    images [B, H, W, D] where there is no convolution)."""
    conv = any(isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for m in module.modules())
    linear = any(isinstance(m, nn.Linear) for m in module.modules())
    first = x.ndim == 2 or (conv and not linear if x.ndim == 3 else conv or not linear)
    return x if first else x.movedim(-1, 1)
