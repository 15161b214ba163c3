"""A folder with one subfolder of files a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import TaskError
from ...plain import check_unicode


def class_folders(
    folder: Path, suffixes: Sequence[str], what: str
) -> tuple[list[Path], np.ndarray, list[str], tuple[str, ...]]:
    """Files that end so, their class numbers, the class names (subfolders in order of name), and
    that files were left out, if some were: those of `_stray`. what: they are, as "images"."""
    if not folder.is_dir():
        raise TaskError(
            "there is no such folder", got=str(folder), allowed=f"a folder with one subfolder of {what} a class"
        )
    folders = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    classes = sorted(p.name for p in folders if not _stray(p))
    strays = [p for p in folders if _stray(p)]
    check_unicode("the name of the folder", folder)
    check_unicode("the name of a class", *classes)
    if len(classes) < 2:
        raise TaskError(
            "the folder has fewer than 2 classes",
            got=f"{folder}: {', '.join(classes) or 'no subfolders'}",
            allowed=f"one subfolder of {what} a class",
        )
    files: list[Path] = []
    targets: list[int] = []
    for i, name in enumerate(classes):
        inside = [p for p in (folder / name).iterdir() if p.suffix.lower() in suffixes and p.is_file()]
        found = sorted(p for p in inside if not _stray(p))
        strays += [p for p in inside if _stray(p)]
        if not found:
            nested = any(p.is_dir() for p in folder.glob("*/*"))
            raise TaskError(
                f"a class has no {what}",
                got=str(folder / name),
                allowed=f"files that end in {', '.join(suffixes)}",
                fix="give the folder whose subfolders are the classes (as .../train)"
                if nested
                else "remove the folder or fill it",
            )
        files += found
        targets += [i] * len(found)
    said = ", ".join(str(p.relative_to(folder)) for p in sorted(strays)[:3]) + (", .." if len(strays) > 3 else "")
    notes = (f"left out, as they are no {what} but what macOS writes beside them: {said}",) if strays else ()
    return files, np.array(targets, dtype=np.int64), classes, notes


def _stray(path: Path) -> bool:
    """Does macOS write it beside files, in its archives and on foreign disks?"""
    return path.name == "__MACOSX" or path.name.startswith("._")


def refuse(unreadable: Sequence[str], what: str) -> None:
    """TaskError if there are some. what: they are, as "image"."""
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise TaskError(
            f"{what} files cannot be read", got="; ".join(unreadable[:5]) + more, fix="repair or remove them"
        )
