"""Featherweight: the best model in its weight class.

    import featherweight as fw
    study = fw.optimize("examples/digits.py", budget=fw.Budget(trials=40, minutes=3),
                        constraints=[fw.max_drop(0.01), fw.max_latency("0.5x")], out="runs/digits")

Everything here is loaded when it is first used: importing this package imports no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from . import registry

# read when onnxruntime is imported, by whoever does; its own switch comes too late
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

_WHERE = {  # what stands here besides the methods: those are found by name (`registry`)
    "space": ("Choice", "Float", "Int", "Maybe", "Order"),
    "recipe": ("Made", "Mark", "Recipe", "Shape", "Transform"),
    "limits": (
        "Budget",
        "Constraint",
        "max_drop",
        "max_latency",
        "max_macs",
        "max_memory",
        "max_params",
        "max_size",
        "min_metric",
    ),
    "warm.guess": ("Guess",),
    "optuna_sampler": ("OptunaSampler",),
    "task.task": ("Task",),
    "task.load": ("load_task",),
    "task.data": ("ArraySplit", "LazySplit", "Split", "Splits"),
    "task.splitting": ("presplit", "split"),
    "study.study": ("Study",),
    "study.calls": ("optimize", "search"),
    "engine.weights": ("load_model",),
    "targets.base": ("Target",),
    "errors": ("FeatherweightError",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}
_MODULES = ("recipes", "pareto", "registry")
_METHODS = ("transforms", "nets")  # groups whose classes stand here by their own names


def _methods() -> dict[str, tuple[str, str]]:
    """{class name: (group, kind)} of the methods that stand here, plug-ins' too."""
    return {registry.class_name(kind): (group, kind) for group in _METHODS for kind in registry.names(group)}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__all__":
        return sorted([*_HOME, *_methods(), "recipes"])
    if not name.startswith("_"):
        methods = _methods()
        if name in methods:
            return registry.find(*methods[name])
    raise AttributeError(f"module 'featherweight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__getattr__("__all__"), "__version__"]
