"""The modules of its user that a task imports: which files they are, and that these are what runs.

What is imported is compiled from its source each time: a file in `__pycache__` may say something
else than the source that somebody has read, and Python would believe it. And a file of a user's
folder stands before a module of Python or of an installed package only where the user's code names
it: what others import on their way (`time.strptime` imports `_strptime`) nobody has looked at.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType

from .sources import named

_seen: dict[Path, set[Path]] = {}  # by a task's file: the modules that were imported as it ran
_searched: dict[Path, set[Path]] = {}  # and the folders in which modules were, or might be, found
_said: dict[str, frozenset[str]] = {}  # by a user's file: the names that its import statements say
LOADED = "_featherweight_file_"  # how the names of modules begin whose files were named
_PACKAGES = ("site-packages", "dist-packages")


class _Source(SourceFileLoader):
    """Compiles what it loads, and keeps nothing."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        text = self.get_data(path)
        _listen(path, text)
        return self.source_to_code(text, path)


def _finder(path: str) -> FileFinder:
    if installed(Path(path)) or not Path(path or ".").is_dir():
        raise ImportError(path)
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Source, SOURCE_SUFFIXES))


class _Guard(MetaPathFinder):
    """Finds what is installed first, but for what the user's code names; and believes no cached
    bytecode of a user's module, whichever finder has it (those of editable installs do not look at
    sys.path)."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        tried = (f.find_spec(name, path, target) for f in tuple(sys.meta_path) if f is not self)
        spec = next((found for found in tried if found is not None), None)
        if spec is None or not _is_users(spec):
            return spec
        if not any(name in names for names in _said.values()):
            ours = [p for p in (sys.path if path is None else path) if installed(Path(p))]
            if (found := PathFinder.find_spec(name, ours)) is not None:
                return found
        if type(spec.loader) is SourceFileLoader:
            spec.loader, spec.cached = _Source(name, spec.loader.path), None
        return spec


def _is_users(spec: ModuleSpec) -> bool:
    places = [spec.origin] if spec.has_location and spec.origin else spec.submodule_search_locations or []
    return not all(installed(Path(p)) for p in places)


_guard = _Guard()


def guarded() -> None:
    """From now on in this process, what is imported is found as inside `noted`."""
    if _guard not in sys.meta_path:
        sys.meta_path.insert(0, _guard)


@cache
def _roots() -> tuple[Path, ...]:
    """Where Python and its packages lie. Other folders of packages count if Python itself has found
    them (through a .pth file): what a task puts on the path is its own."""
    paths = sysconfig.get_paths()
    places = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [p for p in sys.path if Path(p).name in _PACKAGES and p not in given]
    zipped = Path(paths["stdlib"]).with_name("python{}{}.zip".format(*sys.version_info[:2]))
    places += [*others, *site.getsitepackages(), site.getusersitepackages(), str(zipped)]
    return tuple({Path(p).resolve() for p in places} | {Path(__file__).resolve().parents[1]})


def installed(path: Path) -> bool:
    """Does it belong to Python, to an installed package, or to this one?"""
    return _installed(path.absolute())


@cache
def _installed(path: Path) -> bool:
    found = path.resolve()
    return any(found.is_relative_to(root) for root in _roots())


@contextmanager
def noted(file: Path | None) -> Iterator[None]:
    """The folder of this file is on sys.path inside, and users' modules that are imported count as
    its modules."""
    if file is None:
        yield
        return
    _roots()  # as they are before the task has a say
    if _finder not in sys.path_hooks:
        sys.path_hooks.insert(0, _finder)
        for path in [p for p in tuple(sys.path_importer_cache) if not installed(Path(p))]:
            del sys.path_importer_cache[path]
    for module in [file.resolve(), *(f for _, f in _users(tuple(sys.modules)) if str(f) not in _said)]:
        _listen(module)
    first, own = _guard not in sys.meta_path, str(file.parent)
    guarded()
    before, paths = set(sys.modules), set(sys.path)
    sys.path.insert(0, own)
    try:
        yield
    finally:
        found, seen = _searched.setdefault(file.resolve(), set()), _seen.setdefault(file.resolve(), set())
        found |= {Path(p).resolve() for p in set(sys.path) - paths - {own} if not installed(Path(p))}
        for name, module in _users(tuple(set(sys.modules) - before)):
            seen.add(module)
            found |= _top(name, module)
        if own in sys.path:
            sys.path.remove(own)
        if first and _guard in sys.meta_path:
            sys.meta_path.remove(_guard)


def _users(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Of these modules that are loaded those of users: name, and the file (or archive) in which it
    is. The program that runs is none: what a task has of it, it imports by another name."""
    main = sys.modules.get("__main__")
    for name in names:
        module = sys.modules.get(name)
        # of its own: some of PyTorch's have a class that says one
        said = None if module is None or module is main else getattr(module, "__dict__", {}).get("__file__")
        if isinstance(said, str) and not name.startswith(LOADED) and (file := _users_file(said)) is not None:
            yield name, file


@cache  # there are thousands
def _users_file(said: str) -> Path | None:
    """The file, or the archive, in which a module is that says this of itself; None of one that is
    installed."""
    if installed(Path(said)):
        return None
    path = Path(said).resolve()
    return next((p for p in (path, *path.parents) if p.is_file()), None)


def _top(name: str, file: Path) -> set[Path]:
    """The folder in which Python has looked for a module of this dotted name (none for an
    archive)."""
    above = name.count(".") + (file.stem == "__init__")
    known = file.name.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)) and above < len(file.parents)
    return {file.parents[above]} if known else set()


def _listen(file: str | Path, text: bytes | None = None) -> None:
    """Remember what a user's file names in its import statements."""
    if str(file).endswith(".py"):
        try:
            _said[str(file)] = named(Path(file).read_bytes() if text is None else text, Path(file))
        except (OSError, SyntaxError, ValueError, RecursionError):
            _said[str(file)] = frozenset()  # what is wrong with it is said when it is loaded


def imported(file: Path) -> tuple[Path, ...]:
    """The users' modules that were imported, from wherever, as a file ran in this process; and
    those which it, or they, name, that were there before."""
    start = file.resolve()
    found: dict[Path, None] = {}
    queue = [start, *_seen.get(start, ())]
    while queue:
        if (one := queue.pop()) in found:
            continue
        found[one] = None
        _listen(one)
        for name, module in _users([n for n in _said.get(str(one), ()) if n in sys.modules]):
            queue.append(module)
            _searched.setdefault(start, set()).update(_top(name, module))
    return tuple(sorted(set(found) - {start}))


def searched(file: Path) -> tuple[Path, ...]:
    """The folders besides its own in which modules of this file are found, or would be if they
    were put there."""
    return tuple(sorted(p for p in _searched.get(file.resolve(), set()) - {file.resolve().parent} if p.is_dir()))
