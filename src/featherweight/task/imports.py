"""The modules of its user that a task imports: which files they are, and that these are what runs.

What is imported is compiled from its source each time: a file in `__pycache__` may say something
else than the source that somebody has read, and Python would believe it.
"""

from __future__ import annotations

import ast
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

_seen: dict[Path, set[Path]] = {}  # by a task's file: the modules that were imported as it ran


class _Source(SourceFileLoader):
    """Compiles what it loads, and keeps nothing."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _finder(path: str) -> FileFinder:
    if installed(Path(path)) or not Path(path or ".").is_dir():
        raise ImportError(path)
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Source, SOURCE_SUFFIXES))


@cache
def _roots() -> tuple[Path, ...]:
    named = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    return tuple({Path(p).resolve() for p in named} | {Path(__file__).resolve().parents[1]})


def installed(path: Path) -> bool:
    """Does it belong to Python, to an installed package, or to this one?"""
    found = path.resolve()
    return any(found.is_relative_to(root) for root in _roots())


@contextmanager
def noted(file: Path | None) -> Iterator[None]:
    """Users' modules that are imported inside count as modules of this file."""
    if file is None:
        yield
        return
    if _finder not in sys.path_hooks:
        sys.path_hooks.insert(0, _finder)
        for path in [p for p in tuple(sys.path_importer_cache) if not installed(Path(p))]:
            del sys.path_importer_cache[path]
    before = set(sys.modules)
    try:
        yield
    finally:
        new = [sys.modules[name] for name in set(sys.modules) - before]
        files = {Path(f) for m in new if isinstance(f := getattr(m, "__file__", None), str)}
        _seen.setdefault(file.resolve(), set()).update(f.resolve() for f in files if f.is_file() and not installed(f))


def imported(file: Path) -> tuple[Path, ...]:
    """The users' modules that were imported, from wherever, as a file ran in this process."""
    return tuple(sorted(_seen.get(file.resolve(), set()) - {file.resolve()}))


def local_sources(path: Path) -> tuple[Path, ...]:
    """The file and the modules of its own folder that it imports, directly or through each other,
    as they can be told without running any."""
    found: dict[Path, None] = {}
    queue, folder = [path.resolve()], path.resolve().parent
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found[file] = None
        try:
            tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else ast.Module([], [])
        except (SyntaxError, ValueError):
            # then nobody imported it either: the task file was loaded before this is called
            continue
        for node in ast.walk(tree):
            for base, name in _names(node, folder, file):
                queue += _files(base, name.split("."))
    return tuple(sorted(found))


def _names(node: Any, folder: Path, file: Path) -> Iterator[tuple[Path, str]]:
    """What a statement imports: (where it is looked for, dotted name)."""
    if isinstance(node, ast.Import):
        yield from ((folder, a.name) for a in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = folder
        if node.level:
            parents = file.parents
            base = parents[min(node.level, len(parents)) - 1]
        if node.module:
            yield base, node.module
        yield from ((base, f"{node.module}.{a.name}" if node.module else a.name) for a in node.names)


def _files(base: Path, parts: list[str]) -> list[Path]:
    """All files that Python could take for a module of this dotted name, or for the packages that
    it is in: which one it takes is for its rules to say, and may change with the next file."""
    if not parts[0] or parts[0] == "featherweight":
        return []
    out: list[Path] = []
    for n in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:n])
        out += [f for s in (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES) if (f := place.with_name(place.name + s)).is_file()]
        if (place / "__init__.py").is_file():
            out += sorted(place.rglob("*.py"))
    return [f.resolve() for f in out]
