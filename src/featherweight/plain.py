"""YAML and JSON that people write, read within limits: nothing in it is executed, a key stands once
in YAML, and what it says stays as large as it looks (an alias of an alias of an alias is
gigabytes). And what is at a path: not all that has a name is a file."""

from __future__ import annotations

import json
import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

from .errors import TaskError

LONGEST, LARGEST, DEEPEST = 10_000_000, 200_000, 100  # characters; values, aliases followed; levels


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


def kind(path: Path, follow: bool = True) -> str | None:
    """What is at a path, in words; None of a regular file, or if nothing is there. follow: a link
    counts as what it leads to."""
    try:
        mode = path.stat(follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def check_unicode(what: str, *texts: object) -> None:
    """TaskError if a text holds bytes that are no Unicode, as names of files can: reports and logs
    could not tell of it."""
    for text in map(str, texts):
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise TaskError(
                f"{what} is no Unicode",
                got=text.encode("utf-8", "backslashreplace").decode(),
                allowed="names in UTF-8",
                fix="rename it",
            ) from e


def read_text(path: Path) -> str:
    """A text file that somebody wrote. ValueError (of which a UnicodeDecodeError is one) says why
    it is none: a pipe or a device may never come to an end, whatever size it says."""
    if odd := kind(path):
        raise ValueError(f"it is {odd}; only files are read")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as f:
        size = os.fstat(f.fileno()).st_size
        data = f.read(LONGEST + 1) if size <= LONGEST else b""
    if max(size, len(data)) > LONGEST:
        raise ValueError(f"it has {max(size, len(data))} bytes or more; at most {LONGEST} are read")
    return data.decode()


def read_json(path: Path) -> Any:
    """The data in a JSON file that somebody wrote. ValueError says why it cannot be taken."""
    try:
        return json.loads(read_text(path))
    except RecursionError as e:
        raise ValueError("its values are too deep within each other") from e


@cache
def _loader() -> Any:
    """A class that reads plain data and refuses a mapping with a key twice: of two values one would
    be dropped without a word. Made when it is first asked for: YAML takes as long to load as all
    else that `--help` needs."""
    import yaml

    class Once(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                name = f"{key.tag} {key.value}" if isinstance(key, yaml.ScalarNode) else ""
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        "in a mapping", node.start_mark, f"the key {key.value!r} stands twice", key.start_mark
                    )
                if name and key.value != "<<":
                    seen.add(name)
            return super().construct_mapping(node, deep)

    return Once


def read_yaml(text: str) -> Any:
    """The plain data that a YAML (or JSON) text says. ValueError, yaml.YAMLError and RecursionError
    say why it cannot be taken."""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters; at most {LONGEST} are read")
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, 0)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: Any, known: dict[int, int], depth: int) -> int:
    """How many values a node is, each alias counted as what it stands for."""
    import yaml

    if depth > DEEPEST:
        raise ValueError(f"it is more than {DEEPEST} levels deep")
    if known.get(id(node)) == 0:
        raise ValueError("an alias stands within what it stands for")
    if id(node) not in known:
        known[id(node)] = 0
        parts = [p for pair in node.value for p in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = [] if isinstance(node, yaml.ScalarNode) else parts
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in inner)
    if known[id(node)] > LARGEST:
        raise ValueError(f"it says more than {LARGEST} values")
    return known[id(node)]
