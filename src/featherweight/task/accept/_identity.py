"""What a model, a loss or a metric computes, as a hash: its code, the functions that it calls, and
what they hold. Two that differ in any of it are two tasks.

What is installed (PyTorch, NumPy) is known by its name. Objects of other kinds count by their class
and their attributes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..files import code_text

_DEEPEST = 40
_HIDDEN = ("_parameters", "_buffers", "_modules", "training", "__weakref__", "__dict__", "__doc__", "__annotations__")


def identity(value: Any) -> str:
    """sha256 of what a value is."""
    h = hashlib.sha256()
    _add(h, value, set(), 0)
    return h.hexdigest()


def _add(h: Any, value: Any, seen: set[int], deep: int) -> None:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        h.update(f"{type(value).__name__} {value!r};".encode())
        return
    if id(value) in seen or deep > _DEEPEST:
        h.update(f"again {type(value).__qualname__};".encode())
        return
    seen.add(id(value))
    more = [(k, v) for k, v in _parts(h, value)]
    for name, part in more:
        h.update(f"{name}=".encode())
        _add(h, part, seen, deep + 1)


def _parts(h: Any, value: Any) -> Iterable[tuple[str, Any]]:
    """What is inside a value, by name; what it is itself goes to the hash."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        h.update(f"array {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        return []
    if hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        found = value.detach().cpu().contiguous()
        h.update(f"tensor {found.dtype} {tuple(found.shape)}".encode() + _bytes(found))
        return []
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [("self", value.__self__), ("function", value.__func__)]
    if isinstance(value, types.FunctionType):
        return _function(h, value)
    if isinstance(value, type):
        return _class(h, value)
    if isinstance(value, Mapping):
        h.update(kind.__qualname__.encode())
        return [(f"{k!r}"[:200], v) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        h.update(f"{kind.__qualname__} {len(value)}".encode())
        return [(str(i), v) for i, v in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        h.update(f"{kind.__qualname__} {sorted(map(repr, value))}".encode())
        return []
    h.update(f"{kind.__module__}.{kind.__qualname__}".encode())
    held = getattr(value, "__dict__", None)
    inside = [] if held is None or isinstance(value, types.ModuleType) else sorted(held.items(), key=lambda i: i[0])
    if hasattr(value, "named_modules") and hasattr(value, "state_dict"):
        return [("class", kind), *_module(value)]
    return [("class", kind), *((k, v) for k, v in inside if k not in _HIDDEN)]


def _module(module: Any) -> Iterable[tuple[str, Any]]:
    """A module of PyTorch: its tensors, and of each submodule its class and plain attributes, hooks
    among them."""
    out: list[tuple[str, Any]] = [(f"state {k}", v) for k, v in module.state_dict(keep_vars=True).items()]
    out += [(f"buffer {k}", v) for k, v in module.named_buffers()]  # those that no state has, too
    for path, m in module.named_modules():
        out.append((f"class {path}", type(m)))
        held = [(k, v) for k, v in sorted(vars(m).items()) if k not in _HIDDEN and not _empty(v)]
        # hooks are kept by numbers that count all hooks of the process
        out += [(f"{path}.{k}", list(v.values()) if "_hooks" in k and isinstance(v, dict) else v) for k, v in held]
    return out


def _empty(value: Any) -> bool:
    return isinstance(value, (dict, list, set)) and not value


def _bytes(tensor: Any) -> bytes:
    import torch

    flat = tensor.reshape(-1)
    raw: bytes = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return raw


def _function(h: Any, function: types.FunctionType) -> Iterable[tuple[str, Any]]:
    """Its code, defaults, what it has closed over, and the users' globals that its code names."""
    if _installed(function.__module__):
        h.update(f"def {function.__module__}.{function.__qualname__}".encode())
        return []
    code = function.__code__
    h.update(f"def {code_text(code)}".encode())
    cells = [c for c in function.__closure__ or ()]
    closed = [(name, _held(cell)) for name, cell in zip(code.co_freevars, cells, strict=False)]
    named = [(n, function.__globals__[n]) for n in sorted(_names(code)) if n in function.__globals__]
    defaults = [("defaults", function.__defaults__), ("kwdefaults", function.__kwdefaults__)]
    return [*defaults, *closed, *((n, v) for n, v in named if not isinstance(v, types.ModuleType))]


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _names(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner)) if inner else set(code.co_names)


def _class(h: Any, kind: type) -> Iterable[tuple[str, Any]]:
    """Of a user's class its methods and plain attributes, those of its users' bases, too."""
    h.update(f"class {kind.__module__}.{kind.__qualname__}".encode() if _installed(kind.__module__) else b"class")
    out: list[tuple[str, Any]] = []
    for owner in kind.__mro__:
        if _installed(owner.__module__):
            continue
        for name, value in sorted(vars(owner).items()):
            found = inspect.unwrap(value) if callable(value) and hasattr(value, "__wrapped__") else value
            found = getattr(found, "__func__", getattr(found, "fget", found))
            if name not in _HIDDEN and name not in ("__module__", "__qualname__") and not isinstance(found, property):
                out.append((f"{owner.__qualname__}.{name}", found))
    return out


def _installed(name: str | None) -> bool:
    """Is a module Python's own, an installed package's, or ours?"""
    if not name or name == "__main__":
        return False
    if name.partition(".")[0] == __name__.partition(".")[0] or name.partition(".")[0] in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and ("site-packages" in file or "dist-packages" in file)
