"""Finds methods by file name: `transforms/prune/__init__.py` holds the transform of kind `prune`.
There is no other list.

A plug-in package adds its own with an entry point of group `featherweight.GROUP`, as
`featherweight.transforms` or `featherweight.models.criteria` (`GROUPS` has them all), whose value
is `module:Class`. A name that a method has already is refused. The class of a transform or a net is
called as its entry point, or recipes could not name it: `shave = module:Shave`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
import traceback
from functools import cache, reduce
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from .errors import InputError, MissingExtra

GROUPS = {  # group -> what its methods are subclasses of
    "transforms": "recipe:Transform",
    "strategies": "strategies.base:Strategy",
    "stoppers": "stoppers.base:Stopper",
    "targets": "targets.base:Runtime",
    "nets": "nets.base:Net",
    "models.criteria": "models.criteria.base:Criterion",
    "models.proxies": "models.proxies.base:Proxy",
}
_SHARED = {"base", "shared"}  # what holds what the siblings share, no method


def class_name(kind: str) -> str:
    """`drop_blocks` -> `DropBlocks`."""
    return "".join(part.capitalize() for part in kind.split("_"))


@cache
def names(group: str) -> tuple[str, ...]:
    """The kinds of a group, sorted."""
    return tuple(sorted(built_in(group) | {e.name for e in plugged(group)}))


@cache
def find(group: str, kind: str) -> Any:
    """The class of a kind; InputError with the near names if there is none.

    InputError, too, if its author has made a mistake: its file or its plug-in cannot be imported or
    does not have the class, the class is none of the group, or a plug-in's has the name of another.
    Only this kind is unusable then."""
    if kind not in names(group):
        raise InputError(f"nothing in {group} is called {kind!r}", got=kind, allowed=", ".join(names(group)))
    entries = [e for e in plugged(group) if e.name == kind]
    _check_alone(group, kind, entries)
    found, whose, where = _from_plugin(entries[0]) if entries else _from_file(group, kind)
    _check_class(found, group, kind, whose, where)
    return found


def plugged(group: str) -> list[EntryPoint]:
    """The entry points by which plug-in packages add to a group."""
    return list(importlib.metadata.entry_points(group=f"featherweight.{group}"))


@cache
def built_in(group: str) -> frozenset[str]:
    """The kinds that have a file in the group's package."""
    # not loaded for this: Prune asks for criteria, whose room needs torch
    loaded = sys.modules.get(f"featherweight.{group}")
    folders = list(loaded.__path__) if loaded is not None else [str(Path(__file__).parent.joinpath(*group.split(".")))]
    return frozenset(
        m.name for m in pkgutil.iter_modules(folders) if m.name not in _SHARED and not m.name.startswith("_")
    )


def _check_alone(group: str, kind: str, entries: list[EntryPoint]) -> None:
    """InputError if a plug-in's method would take the place of another."""
    if not entries or (kind not in built_in(group) and len({e.value for e in entries}) == 1):
        return
    raise InputError(
        f"there is more than one method called {kind!r} in {group}",
        got="; ".join(sorted(map(_said, entries)))
        + (f"; built in: featherweight.{group}.{kind}" if kind in built_in(group) else ""),
        allowed="one method a name: a plug-in cannot take the place of another method",
        fix="give the plug-in's entry point (and its class) another name, or uninstall the plug-in",
    )


def _from_file(group: str, kind: str) -> tuple[Any, str, str]:
    """The class in the file of that name, how to call it in an error, and where it is."""
    whose = f"the method {kind!r} of {group}"
    module = _imported(f"featherweight.{group}.{kind}", whose, f"featherweight/{group.replace('.', '/')}/{kind}.py")
    where, wanted = str(module.__file__), class_name(kind)
    if not hasattr(module, wanted):
        classes = sorted(
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        )
        raise InputError(
            f"the file of {whose} does not have the class that it is named after",
            got=f"{where}: {'class ' + ', '.join(classes) if classes else 'no class'}",
            allowed=f"class {wanted}({GROUPS[group].split(':')[1]})",
            fix=(
                f"name the class {wanted}, or the file after its class; "
                "a file that holds no method has a name that begins with _"
            ),
        )
    return getattr(module, wanted), whose, where


def _from_plugin(entry: EntryPoint) -> tuple[Any, str, str]:
    """What the entry point of a plug-in names, how to call it in an error, and where it is."""
    whose, where = f"the plug-in's method {entry.name!r}", _said(entry)
    match = EntryPoint.pattern.match(entry.value)
    if match is None or not match["attr"]:
        raise InputError(
            f"the entry point of {whose} names no class", got=where, allowed=f"{entry.name} = package.module:Class"
        )
    loaded = _imported(match["module"], whose, where)
    try:
        return reduce(getattr, match["attr"].split("."), loaded), whose, where
    except AttributeError as e:
        raise InputError(
            f"the entry point of {whose} names what its module does not have",
            got=f"{where}: {e}",
            allowed=", ".join(
                sorted(n for n, v in vars(loaded).items() if isinstance(v, type) and v.__module__ == loaded.__name__)
            )
            or "no class",
            fix=f"{entry.name} = {match['module']}:Class, with a class of {loaded.__file__}",
        ) from e


def _imported(name: str, whose: str, where: str) -> Any:
    """The module of a method; InputError says what keeps it from being imported."""
    try:
        return importlib.import_module(name)
    except MissingExtra:
        raise
    except Exception as e:  # whatever the file's own code raises
        raise InputError(
            f"{whose} cannot be imported",
            got=f"{where}: {_raised(e)}",
            fix=f"python -c 'import {name}' shows the traceback; mend or remove it",
        ) from e


def _check_class(found: Any, group: str, kind: str, whose: str, where: str) -> None:
    """InputError if what was found is no method of the group that recipes can name."""
    home, _, name = GROUPS[group].partition(":")
    base: Any = getattr(importlib.import_module(f"featherweight.{home}"), name)
    if not isinstance(found, type) or not issubclass(found, base):
        got = f"class {found.__name__}" if isinstance(found, type) else f"{type(found).__name__} {found!r}"
        raise InputError(
            f"{whose} is no {name}", got=f"{where}: {got}", allowed=f"a subclass of featherweight.{home}.{name}"
        )
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise InputError(
            f"{whose} is not finished",
            got=f"{where}: class {found.__name__} without {', '.join(missing)}",
            fix="write them",
        )
    if hasattr(base, "kind"):
        _check_node(found, kind, whose, where)


def _check_node(found: Any, kind: str, whose: str, where: str) -> None:
    """InputError if a class that is written into recipes, by its kind and its
    fields, could not be."""
    if found.kind != kind:
        raise InputError(
            f"{whose} is called otherwise by its class",
            got=f"{where}: {found.__name__}, whose kind is {found.kind!r}: a recipe with it could not be read again",
            allowed=f"class {class_name(kind)}",
            fix=f"call it {found.kind!r}, or its class {class_name(kind)}",
        )
    # its own, not those of a class that it inherits from
    parameters = vars(found).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        wrong = f"{where}: class {found.__name__}"
        raise InputError(
            f"{whose} is no frozen dataclass",
            got=wrong,
            fix=f"write @dataclass(frozen=True) above class {found.__name__}",
        )


def _said(entry: EntryPoint) -> str:
    """An entry point as its package states it, and whose it is."""
    return f"{entry.name} = {entry.value}" + (f" of the package {entry.dist.name}" if entry.dist is not None else "")


def _raised(error: Exception) -> str:
    """An exception with the place in the author's file, and the one that raised it if that is
    another: `NameError: .. (shave.py:3)`."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    ours = ("<frozen", str(importlib.__file__), __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    ends = [frames[0], frames[-1]] if frames and frames[0].filename != frames[-1].filename else frames[-1:]
    places = ", raised at ".join(f"{f.filename}:{f.lineno}" for f in ends)
    return f"{type(error).__name__}: {' '.join(str(error).split())}" + (f" ({places})" if places else "")
