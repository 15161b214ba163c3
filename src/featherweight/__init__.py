"""Featherweight: the best model in its weight class.

    import featherweight as fw
    study = fw.optimize("examples/digits.py", constraints=[fw.max_drop(0.01), fw.max_latency("0.5x")],
                        budget=fw.Budget(trials=40, minutes=3), out="runs/digits")

Everything here is loaded when it is first used: importing this package imports no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported, by whoever does; its own switch comes too late

__version__ = "0.1.0"

_WHERE = {
    "space": ("Choice", "Float", "Int", "Maybe", "Order"),
    "recipe": ("Recipe", "Transform"),
    "limits": ("Budget", "Constraint", "max_drop", "max_latency", "max_macs", "max_memory", "max_params", "max_size", "min_metric"),
    "transforms.train": ("Train",),
    "transforms.prune": ("Prune",),
    "transforms.distill": ("Distill",),
    "transforms.distill_blocks": ("DistillBlocks",),
    "transforms.gate": ("Gate",),
    "transforms.cut_randomly": ("CutRandomly",),
    "transforms.qat": ("Qat",),
    "transforms.mixed_precision": ("MixedPrecision",),
    "transforms.quantize": ("Quantize",),
    "transforms.drop_blocks": ("DropBlocks",),
    "transforms.build": ("Build",),
    "transforms.factorize": ("Factorize",),
    "nets.conv_net": ("ConvNet",),
    "nets.encoder": ("Encoder",),
    "nets.mlp": ("Mlp",),
    "nets.cell": ("Cell",),
    "warm": ("Guess",),
    "optuna_sampler": ("OptunaSampler",),
    "task.task": ("Task",),
    "task.load": ("load_task",),
    "task.data": ("ArraySplit", "LazySplit", "Split", "Splits"),
    "task.splitting": ("presplit", "split"),
    "study.study": ("Study",),
    "study.calls": ("optimize", "search"),
    "targets.base": ("Target",),
    "errors": ("FeatherweightError",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted([*_HOME, "recipes"])  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in ("recipes", "pareto", "registry"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'featherweight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
