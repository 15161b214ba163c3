"""What a worker can be asked to do, by name: make and measure a candidate, certify one, write one out, train a supernet."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FeatherweightError
from ..recipe import Recipe
from ..targets.base import Target
from .export import MANIFEST
from .runner import Runner, chain
from .screen import screen


def run_trial(runner: Runner, job: dict[str, Any]) -> dict[str, Any]:
    """Make, export and measure one candidate on the validation split. Returns what became of it: {"entry", "steps", "reused", "notes"}.

    job: {"recipe", "target", "label", "trial", "filling", "reference": {"artifact", "target"} or None (it is its own),
    "seconds", "timeout_s", "keep": folder that the artifact is linked into; "rungs": as `Runner.rungs`; "screen": limits as JSON that are
    checked on the untrained candidate first}. OverLimits if it breaks one; `train.checkpoint.Paused` if it has to wait at a rung.
    """
    import numpy as np

    from ..measure.accuracy import evaluate, metric
    from ..records import Entry

    started = time.monotonic()
    runner.steps = runner.reused = 0
    recipe, target = Recipe.from_json(job["recipe"]), Target.parse(job["target"])
    if job.get("screen"):
        screen(runner, job, recipe, target)
    artifact = keep(runner.artifact(recipe, target, runner.rungs(job)), Path(job["keep"]))
    manifest = json.loads((artifact / MANIFEST).read_text())
    ref = job.get("reference")
    reference = (Path(ref["artifact"]), Target.parse(ref["target"])) if ref else (artifact, target)
    work = Path(tempfile.mkdtemp(prefix="featherweight-"))
    try:
        got = runner.probe(artifact, target, "valid", work, reference=reference, seconds=job["seconds"], timeout_s=job["timeout_s"])
        value = evaluate(metric(runner.task.metric), np.load(got["outputs"]), runner.targets("valid"), seed=runner.seed)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not math.isfinite(value["value"]):
        raise FeatherweightError("the metric is not a number", got=value["value"], fix="does the model give NaN? See its training loss")
    entry = Entry(
        label=job["label"],
        trial=job.get("trial"),
        recipe=job["recipe"],
        target=str(target),
        metric={**value, "split": "valid"},
        latency_ms=got["latency_ms"],
        speedup=got["speedup"],
        size_bytes=manifest["size_bytes"],
        peak_memory_bytes=got["peak_memory_bytes"],
        params=manifest["params"],
        macs=manifest["macs"],
        artifact=str(artifact),
        sha256=manifest["sha256"],
        parity=manifest["export"].get("parity", {}),
        coverage=_coverage(manifest["export"].get("coverage", {})),
        seconds=time.monotonic() - started,
        filling=job.get("filling") or {},
    )
    return {"entry": entry.to_json(), "steps": runner.steps, "reused": runner.reused, "notes": manifest["notes"]}


def _coverage(report: dict[str, Any]) -> dict[str, Any]:
    """The target's coverage with its layers counted by what became of them; the manifest names each."""
    return {**report, "layers": dict(Counter(report["layers"].values()))} if "layers" in report else report


def run_outputs(runner: Runner, job: dict[str, Any]) -> dict[str, Any]:
    """An artifact's outputs on a split, written to job["to"]: {"artifact", "target", "split", "to", "timeout_s"}."""
    work = Path(tempfile.mkdtemp(prefix="featherweight-"))
    try:
        target = Target.parse(job["target"])
        got = runner.probe(Path(job["artifact"]), target, job["split"], work, reference=None, seconds=0.05, timeout_s=job["timeout_s"])
        Path(job["to"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(got["outputs"], job["to"])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"outputs": job["to"]}


def run_certify(runner: Runner, job: dict[str, Any]) -> dict[str, Any]:
    """The certificate of an artifact against the baseline's, on the test split: {"baseline", "candidate": {artifact, target, to}, "max_drop"}."""
    import numpy as np

    from ..measure.accuracy import metric
    from ..measure.certificate import certify

    for side in ("baseline", "candidate"):
        if not Path(job[side]["to"]).exists():
            run_outputs(runner, {**job[side], "split": "test", "timeout_s": job["timeout_s"]})
    return {
        "certificate": certify(
            metric(runner.task.metric),
            np.load(job["baseline"]["to"]),
            np.load(job["candidate"]["to"]),
            runner.targets("test"),
            job["max_drop"],
            seed=runner.seed,
        )
    }


def run_package(runner: Runner, job: dict[str, Any]) -> dict[str, Any]:
    """Write a candidate as architecture spec + safetensors into the folder job["to"]; it reloads to the same outputs or this fails."""
    import torch

    from ..errors import StoreError
    from ..models.package import Package

    package, _ = runner.model(Recipe.from_json(job["recipe"]))
    folder = Path(job["to"])
    folder.mkdir(parents=True, exist_ok=True)
    package.save(folder, runner.task.build)
    example = tuple(torch.from_numpy(v.copy()) for v in runner.task.example().values())
    with torch.inference_mode():
        error = float((Package.load(folder, runner.task.build).module(*example) - package.module(*example)).abs().max())
    if not error <= 1e-5:
        raise StoreError("the saved model does not reload to the same function", got=f"outputs differ by {error:.2e}")
    return {"reload_error": error}


def run_supernet(runner: Runner, job: dict[str, Any]) -> dict[str, Any]:
    """Train a net with holes as one net with shared weights, and rank its fillings: {"net": JSON, "settings", "seed"}."""
    from ..recipe import decode
    from ..train.relax import run_relax

    return {"relaxed": run_relax(runner.task, decode(job["net"]), job["settings"], job["seed"], runner.report)}
JOBS: dict[str, Callable[[Runner, dict[str, Any]], dict[str, Any]]] = {
    "trial": run_trial,
    "certify": run_certify,
    "package": run_package,
    "relax": run_supernet,
}


def keep(artifact: Path, folder: Path) -> Path:
    """The artifact's files linked (copied, if it is another disk) into `folder`/<hash>, where no eviction reaches them."""
    manifest = json.loads((artifact / MANIFEST).read_text())
    final = folder / chain(manifest["sha256"], manifest["target"])[:16]
    if final.is_dir():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(dir=folder, prefix=".incoming-"))
    for name in [*manifest["files"], MANIFEST]:
        try:
            os.link(artifact / name, temp / name)
        except OSError:  # another file system, or one without links
            shutil.copy2(artifact / name, temp / name)
    os.chmod(temp, 0o755)
    os.rename(temp, final)
    return final
