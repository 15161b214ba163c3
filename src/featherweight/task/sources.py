"""The files of a user's code, as its import statements tell them: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import Any


def local_sources(path: Path, others: Iterable[Path] = (), folders: Iterable[Path] = ()) -> tuple[Path, ...]:
    """The file and the modules of its own folder that it imports, directly or through each other,
    as they can be told without running any. others: files that it is known to import, folders:
    where else modules are looked for."""
    found: dict[Path, None] = {}
    queue, places = [path.resolve(), *others], [path.resolve().parent, *folders]
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found[file] = None
        try:
            tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else ast.Module([], [])
        except (OSError, SyntaxError, ValueError):
            # then nobody imported it either: the task file was loaded before this is called
            continue
        for node in ast.walk(tree):
            for folder in places:
                for base, name in _names(node, folder, file):
                    queue += _files(base, name.split("."))
    return tuple(sorted(found))


def named(text: bytes, file: Path) -> frozenset[str]:
    """The modules that a source names in its import statements, and the packages that they are in;
    but for those that it names by where it lies itself."""
    names: set[str] = set()
    anywhere = Path()
    for node in ast.walk(ast.parse(text)):
        for base, name in _names(node, anywhere, file):
            if base is anywhere:
                parts = name.split(".")
                names |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return frozenset(names)


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
