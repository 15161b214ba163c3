"""Folders into which anybody may have put something, or a link that leads elsewhere: what is not
ours is neither removed nor written to.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import InputError, StoreError
from ..plain import kind


def opened(path: str | Path, flags: int) -> int:
    """A descriptor of a regular file, for `open(.., opener=opened)`: nothing behind a link, and
    nothing that waits, as a pipe does. StoreError if the path is anything else."""
    odd = kind(Path(path), follow=False)
    if odd is None:
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as e:
            if e.errno != errno.ELOOP:
                raise
            odd = "a symbolic link"  # that was put there meanwhile
    raise StoreError("this is no file of a study", got=f"{path} is {odd}", allowed="a file", fix="move it away")


def check_output(path: Path) -> None:
    """InputError if what is at a path that somebody named for a file to be written is none."""
    if odd := kind(path):
        raise InputError("this cannot be written over", got=f"{path} is {odd}", allowed="a file, new or old")


def check_within(root: Path, path: Path) -> None:
    """StoreError if links lead from `path`, which lies below `root`, out of it."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise StoreError(
            "a link leads out of the folder, and nothing is written or removed there",
            got=f"{path} leads to {path.resolve()}",
            allowed=f"what is in {root}",
            fix="put the folder itself in the place of the link (the whole of it may be reached by one)",
        )


def check_links(root: Path, names: Iterable[str]) -> None:
    """StoreError if a link leads out of the folder `root`, of those below these names."""
    for name in names:
        check_within(root, root / name)
        for here, folders, files in os.walk(root / name):
            for path in (Path(here) / n for n in (*folders, *files)):
                if path.is_symlink():
                    check_within(root, path)


def clear(folder: Path, names: Iterable[str], aside: Path | None = None) -> Path | None:
    """Remove the files of a folder that are named, and make its place free: what else is in it
    moves to `aside` (default: its own path) with `.kept1`, which is returned."""
    if not os.path.lexists(folder):
        return None
    if not remove(folder, names):
        return None
    aside = aside or folder
    n = next(n for n in range(1, 1_000_000) if not os.path.lexists(f"{aside}.kept{n}"))
    os.rename(folder, kept := Path(f"{aside}.kept{n}"))
    return kept


def remove(folder: Path, names: Iterable[str]) -> bool:
    """Remove the files of a folder that are named, and folders that are empty then. Is anything
    left?"""
    if folder.is_symlink() or not folder.is_dir():
        return True
    ours = set(names)
    for here, _, files in os.walk(folder, topdown=False):  # of what is there: names may be anything
        for path in (Path(here) / name for name in files):
            if str(path.relative_to(folder)) in ours:
                path.unlink()
        if not os.listdir(here):
            os.rmdir(here)
    return folder.exists()


def filled(to: Path, write: Callable[[Path], None]) -> None:
    """Make a folder, or take one that is empty, and have all in it that `write` puts there, or
    nothing of it: a part of it would look like the whole."""
    new = not to.exists()
    to.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(dir=to.parent if new else to, prefix=".incoming-"))
    try:
        write(temp)
        os.chmod(temp, 0o755)
        if new:
            os.rename(temp, to)
        else:
            for path in sorted(temp.iterdir()):
                os.rename(path, to / path.name)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
