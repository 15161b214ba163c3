"""An artifact's files and its manifest, as they are written."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from torch import nn

from .. import machine, registry
from ..graphs.parity import ROWS
from ..measure.ops import macs, params
from ..models.package import Package
from ..models.surgery import whole_numbers
from ..recipe import Recipe, encode
from ..store.artifacts import sha256_file
from ..store.manifest import MANIFEST, combined_sha256
from ..targets.base import Target
from ..task.data import calibration_rows
from ..task.task import Task
from ..task.tensors import as_tensor

WRITTEN = 4  # raised when the same model would give another file


def write_artifact(task: Task, package: Package, target: Target, recipe: Recipe, folder: Path) -> None:
    """Export a model into an existing empty folder, with its manifest. recipe:
    all that made it, for the manifest."""
    example = {k: as_tensor(v) for k, v in task.example().items()}
    train = task.splits().train
    # without a plan nothing is calibrated, but parity is checked on real samples
    n, seed = (ROWS, 0) if package.plan is None else package.plan.draw()
    inputs, _ = train.batch(calibration_rows(train, n, seed))
    calibration = {k: as_tensor(v) for k, v in inputs.items()}
    report = target.load_runtime().export(package, example, calibration, target, folder)
    files = {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file()}
    manifest = {
        "format": 1,
        "task": task.name,
        "target": str(target),
        "recipe": recipe.to_json(),
        "files": files,
        "sha256": combined_sha256(files),
        "graph": graph(package.module, recipe, report, target),
        "size_bytes": sum((folder / name).stat().st_size for name in files),
        "inputs": {k: {"shape": ["batch", *v.shape[1:]], "dtype": str(v.numpy().dtype)} for k, v in example.items()},
        "params": params(package.module),
        "macs": macs(package.module, example),
        "notes": package.notes,
        "export": report,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def graph(module: nn.Module, recipe: Recipe, report: dict[str, Any], target: Target) -> str:
    """The same for files that compute the same operations on the same sizes, whatever their
    weights, and so take the same time: a hash of the modules' classes, whole numbers and sizes, of
    how each layer is held and run, and of the net that the recipe builds."""
    starts = [encode(step) for step in recipe.steps if step.starts]
    tensors = [(k, list(v.shape), str(v.dtype)) for k, v in module.state_dict(keep_vars=True).items()]
    classes = [(name, type(m).__qualname__) for name, m in module.named_modules()]
    told = [classes, whole_numbers(module), tensors, report.get("coverage", {}), starts, str(target)]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def versions(runtime: str) -> str:
    """What else decides the file's bytes: versions, that of this way of writing it among them, and
    whether this processor's 8-bit products saturate (then weights get 7 bits)."""
    found = [f"written={WRITTEN}", f"saturates={machine.saturates()}"]
    for name in registry.find("targets", runtime).packages:
        try:
            found.append(f"{name}={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name}=none")
    return ",".join(found)
