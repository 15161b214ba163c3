"""A user's Python file: executed, told apart from others, and its errors shown with the
user's own line."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FeatherweightError, TaskError, Whole
from ..plain import check_unicode
from .imports import LOADED, noted

_LONGEST = 2000  # characters of an error's own words


def parse_ref(text: str, default: str) -> tuple[Path, str]:
    """`FILE.py` or `FILE.py:NAME` as (path, name)."""
    head, colon, tail = text.rpartition(":")
    path, name = (head, tail) if colon and head.endswith(".py") else (text, default)
    if not path.endswith(".py") or not name.isidentifier():
        raise TaskError(
            "this names no Python file", got=text, allowed=f"FILE.py or FILE.py:NAME (NAME is {default!r} if left out)"
        )
    return Path(path), name


def load_file(path: Path) -> types.ModuleType:
    """Execute a user's file under a private module name, with its folder on sys.path meanwhile."""
    path = path.resolve()
    check_unicode("the path of this file", path)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py"))[:20] if path.parent.is_dir() else []
        raise TaskError(
            "there is no such file", got=str(path), allowed=f"in this folder: {', '.join(near)}" if near else None
        )
    module = types.ModuleType(LOADED + hashlib.sha256(str(path).encode()).hexdigest()[:12])
    module.__file__ = str(path)
    _folders.pop(path, None)  # it chooses anew
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses look their module up while it is executed
    try:
        with user_code(f"{path.name} cannot be loaded", path, mine=True):
            exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except TaskError:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise
    return module


@contextmanager
def user_code(what: str, file: Path | None, mine: bool = False) -> Iterator[None]:
    """Errors inside become a TaskError that shows the user's line; the file's folder is on
    sys.path, and what is imported counts as its modules. What the code sets for the whole process
    is put back. `mine`: ours too."""
    try:
        with noted(file), _put_back(file), _open_streams():
            yield
    except FeatherweightError as e:
        if not mine:
            raise
        raise TaskError(
            f"{what}: {e.what}",
            got=f"{where(e, file)} (got {e.got})" if e.got is not None else where(e, file),
            allowed=e.allowed,
            fix=e.fix,
        ) from e
    except KeyboardInterrupt:  # its user's, most likely
        raise
    except BaseException as e:  # a file may end itself, or raise what is no Exception
        raise TaskError(what, got=Whole(where(e, file))) from e


_folders: dict[Path, str] = {}  # the current folder that a file has chosen, for all that it does


@contextmanager
def _put_back(file: Path | None) -> Iterator[None]:
    """The current folder and PyTorch's defaults: others, who see them too, were written for those
    that they have. What a file's code does later finds the folder that it has chosen."""
    folder, was = os.getcwd(), _defaults()
    if file is not None and Path(_folders.get(file, folder)).is_dir():
        os.chdir(_folders.get(file, folder))
    try:
        yield
    finally:
        try:
            now = os.getcwd()
        except FileNotFoundError:  # it was removed
            now = folder
        if file is not None:
            _folders[file] = now
        os.chdir(folder)
        torch = sys.modules.get("torch")
        if torch is not None and _defaults() != was:
            dtype, device, grad = was
            torch.set_default_dtype(getattr(torch, dtype))
            torch.set_default_device(None if device == "cpu" else device)
            torch.set_grad_enabled(grad)


def _defaults() -> tuple[str, str, bool]:
    """PyTorch's type, device and whether it keeps gradients; what it begins with where it is not
    loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "float32", "cpu", True
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    return dtype, str(torch.get_default_device()), bool(torch.is_grad_enabled())


@contextmanager
def _open_streams() -> Iterator[None]:
    """Standard output and error cannot be closed inside: what comes after has something to say."""

    def close() -> None:
        raise ValueError("sys.stdout and sys.stderr are the program's, and cannot be closed here")

    streams = [s for s in (sys.stdout, sys.stderr) if "close" not in getattr(s, "__dict__", {"close": None})]
    for stream in streams:
        stream.__dict__["close"] = close
    try:
        yield
    finally:
        for stream in streams:
            stream.__dict__.pop("close", None)


def where(error: BaseException, file: Path | None) -> str:
    """`digits.py:12: net = Net(1 / 0): ZeroDivisionError: division by zero`,
    with the user's own line."""
    said = type(error).__name__ if isinstance(error, FeatherweightError) else _said(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {(error.text or '').strip()}: {said}"
    package = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f
        for f in frames
        if (f.filename == str(file) if file else "-packages" not in f.filename and not f.filename.startswith(package))
    ]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}: {said}" if own else said


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # which the user's code has written, too
        text = "(it cannot be shown)"
    rest = f" [.. {len(text) - _LONGEST:,} characters more]" if len(text) > _LONGEST else ""
    return f"{type(error).__name__}: {text[:_LONGEST]}{rest}"


def name_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "def " + str(
        getattr(value, "__qualname__", None) or getattr(value, "name", None) or type(value).__qualname__
    )


def code_text(code: Any) -> str:
    """What a function does, as text: two lambdas of a notebook have the same name."""
    if not isinstance(code, types.CodeType):
        return (
            repr(code) if isinstance(code, str | int | float | bool | bytes | tuple | None) else type(code).__qualname__
        )
    return f"{code.co_code.hex()} {code.co_names} [{', '.join(map(code_text, code.co_consts))}]"


def source_digest(path: Path) -> str:
    """sha256 of what a source file says. Of Python code: of its syntax tree without comments,
    layout, and the recipes of its tasks, whose steps have hashes of their own, so that reformatting
    a file or opening a hole in its recipe trains nothing anew."""
    try:
        with path.open("rb") as f:
            if path.suffix != ".py":
                return hashlib.file_digest(f, "sha256").hexdigest()
            text = f.read()
    except OSError as e:
        raise TaskError("a source file of the task cannot be read", got=f"{path}: {e}") from e
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as e:
        raise TaskError("a source file of the task is not Python", got=f"{path}: {e}") from e
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Task":
            node.keywords = [k for k in node.keywords if k.arg not in ("baseline", "recipe")]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
