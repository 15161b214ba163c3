"""The content-addressed store: every step's result under the hash of all that it was made from.

An entry is a folder with its files and a `sums.json` (sha256 of each). It appears in one rename
after everything in it was flushed to disk, so a killed run leaves no half entry. The least recently
used entries go first when the limit is reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError, StoreError
from ..plain import read_json
from .places import check_output, check_within

SUMS = "sums.json"
DEFAULT_LIMIT = 20 * 10**9  # bytes
# an entry touched this recently may be open in another process:
# evicted only when nothing else is left
_IN_USE_S = 600
_KEY = re.compile("[0-9a-f]{32,}")


def default_root() -> Path:
    """$FEATHERWEIGHT_CACHE, or featherweight/ in the user's cache folder; absolute. StoreError if
    the user has none."""
    if named := os.environ.get("FEATHERWEIGHT_CACHE"):
        return Path(named).absolute()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return (Path(cache) / "featherweight").absolute()
    try:
        return (Path.home() / ".cache" / "featherweight").absolute()
    except RuntimeError as e:
        raise StoreError(
            "there is no place for the artifact store: this user has no home",
            got=str(e),
            fix="set FEATHERWEIGHT_CACHE to a folder that can be written",
        ) from e


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Flush a folder's files and the folder itself to the disk."""
    for p in [*path.rglob("*"), path]:
        fd = os.open(p, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _stamp(folder: Path) -> list[tuple[int, ...]]:
    """What changes with any of a folder's files; empty if it cannot be seen."""
    try:
        found = [p.lstat() for p in sorted(folder.rglob("*")) if not p.is_dir()]
    except OSError:
        return []
    return [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found]


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part of it. Of a
    link, the file that it leads to. InputError if what is there is no file."""
    check_output(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as f:  # names of files may be no text
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temp, 0o644)
        os.replace(temp, path)
    except OSError as e:
        Path(temp).unlink(missing_ok=True)
        raise StoreError(
            "a file cannot be written", got=f"{path}: {e.strerror}", fix="is the disk full, or the folder read-only?"
        ) from e


class ArtifactStore:
    """Entries by key under `root` (default: `default_root()`), at most `limit_bytes` of them
    (default: the limit last set)."""

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self._settings = self.root / "settings.json"
        try:
            (self.root / "entries").mkdir(parents=True, exist_ok=True)
        except OSError as e:
            at = next((p for p in (self.root / "entries", *self.root.parents, self.root) if p.is_file()), None)
            raise StoreError(
                "the artifact store cannot be made",
                got=f"{self.root}: {f'{at} is a file' if at else e.strerror}",
                fix="set FEATHERWEIGHT_CACHE to a folder that can be written",
            ) from e
        check_within(self.root, self.root / "entries")
        self.limit_bytes = limit_bytes if limit_bytes is not None else self._limit()
        # entries that this process has hashed, with what would show that a file has changed since
        self._known_good: dict[str, list[tuple[int, ...]]] = {}
        self._written = 0

    def _limit(self) -> int:
        """The limit that was set. StoreError if the file that holds it says none: it may be
        somebody else's, and is not written over."""
        try:
            limit = read_json(self._settings)["limit_bytes"]
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
                raise ValueError(f"limit_bytes is {limit!r:.80}")
            return limit
        except FileNotFoundError:
            return DEFAULT_LIMIT
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise StoreError(
                "the artifact store's settings cannot be read",
                got=f"{self._settings}: {type(e).__name__}: {e}"[:500],
                allowed='{"limit_bytes": 20000000000}',
                fix="remove the file (then the limit is 20 GB), or set FEATHERWEIGHT_CACHE to another folder",
            ) from e

    def set_limit(self, limit_bytes: int) -> None:
        """Keep at most this many bytes from now on, in every later run too; evicts what is over."""
        if limit_bytes < 0:
            raise InputError("the cache's limit cannot be negative", got=limit_bytes)
        write_atomic(self._settings, json.dumps({"limit_bytes": limit_bytes}))
        self.limit_bytes = limit_bytes
        self.shrink(limit_bytes)

    def folder(self, key: str) -> Path:
        return self.root / "entries" / key[:2] / key

    def get(self, key: str) -> Path | None:
        """The entry's folder, or None. A damaged entry (a file missing or changed) is removed and
        counts as absent."""
        folder = self.folder(key)
        if not folder.is_dir():
            return None
        check_within(self.root, folder)
        stamp = _stamp(folder)
        if not stamp or self._known_good.get(key) != stamp:
            if not self._intact(folder):
                shutil.rmtree(folder, ignore_errors=True)
                return None
            self._known_good[key] = stamp
        os.utime(folder)
        return folder

    @staticmethod
    def _intact(folder: Path) -> bool:
        try:
            sums = read_json(folder / SUMS)
            files = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()} - {SUMS}
            return files == set(sums) and all(sha256_file(folder / name) == digest for name, digest in sums.items())
        except (OSError, ValueError, AttributeError, TypeError):
            return False

    def put(self, key: str, write: Callable[[Path], None]) -> Path:
        """The entry's folder, filled by `write(temporary folder)` if it is not there
        yet. All or nothing."""
        present = self.get(key)
        if present is not None:
            return present
        final = self.folder(key)
        check_within(self.root, final)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            temp = Path(tempfile.mkdtemp(dir=self.root, prefix=".incoming-"))
            try:
                write(temp)
                sums = {str(p.relative_to(temp)): sha256_file(p) for p in sorted(temp.rglob("*")) if p.is_file()}
                (temp / SUMS).write_text(json.dumps(sums, indent=1))
                os.chmod(temp, 0o755)
                sync_folder(temp)
                # someone else may have been faster; what they wrote is the same
                if not final.is_dir():
                    os.rename(temp, final)
            finally:
                shutil.rmtree(temp, ignore_errors=True)
        except OSError as e:
            if not final.is_dir():
                raise StoreError(
                    "a result cannot be stored",
                    got=f"{final}: {e.strerror or e}",
                    fix="is the disk full? `featherweight cache --clear` frees the store",
                ) from e
        self._known_good[key] = _stamp(final)
        self._written += sum(p.stat().st_size for p in final.iterdir())
        # measuring the whole store costs time: only after it has grown
        if self._written > self.limit_bytes / 20:
            self._written = 0
            self.shrink(self.limit_bytes, spare=key)
        return final

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, folder) of each entry, longest unused first; what has no key for a name
        is somebody else's."""
        found = []
        for folder in (self.root / "entries").glob("*/*"):
            if not _KEY.fullmatch(folder.name) or folder.parent.name != folder.name[:2]:
                continue
            check_within(self.root, folder)
            try:
                found.append((folder.stat().st_mtime, sum(p.stat().st_size for p in folder.iterdir()), folder))
            except FileNotFoundError:  # evicted by another process meanwhile
                continue
        return sorted(found)

    def stats(self) -> dict[str, Any]:
        entries = self._entries()
        return {
            "root": str(self.root),
            "entries": len(entries),
            "bytes": sum(e[1] for e in entries),
            "limit_bytes": self.limit_bytes,
        }

    def shrink(self, to_bytes: int, spare: str = "") -> int:
        """Evict the longest unused entries until at most `to_bytes` are left;
        returns the bytes freed."""
        self._sweep()
        entries = self._entries()
        total, freed = sum(e[1] for e in entries), 0
        for used, size, folder in entries:
            if total - freed <= to_bytes:
                break
            if folder.name == spare or (time.time() - used < _IN_USE_S and to_bytes > 0):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            self._known_good.pop(folder.name, None)
            freed += size
        return freed

    def clear(self) -> int:
        """Remove every entry; returns the bytes freed."""
        return self.shrink(0)

    def _sweep(self) -> None:
        """Remove what killed processes left half-written more than an hour ago."""
        for temp in self.root.glob(".incoming-*"):
            try:
                if not temp.is_symlink() and time.time() - temp.stat().st_mtime > 3600:
                    shutil.rmtree(temp, ignore_errors=True)
            except FileNotFoundError:
                continue
