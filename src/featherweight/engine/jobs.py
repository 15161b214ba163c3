"""What a worker can be asked to do, by name: make and measure a candidate, certify one,
write one out, train a supernet."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import FeatherweightError, InputError, StoreError
from ..measure.accuracy import evaluate, metric_of
from ..measure.certificate import certify
from ..measure.differences import differences
from ..measure.paired import compare
from ..models.package import Package
from ..recipe import Recipe, decode
from ..records import Entry
from ..store.artifacts import sha256_file
from ..store.manifest import MANIFEST, sound
from ..store.places import clear
from ..targets.base import Target
from .deployed import write_deployment
from .messages import CertifyJob, Job, Made, PackageJob, RelaxJob, TrialJob
from .runner import Runner, chain
from .screen import screen

_FICLONE = 0x40049409  # ioctl_ficlone(2)


def run_trial(runner: Runner, job: TrialJob) -> dict[str, Any]:
    """Make, export and measure one candidate on the validation split. Returns what became of it:
    {"entry", "steps", "reused", "notes", "outputs": {file: sha256} of those that were written}.

    OverLimits if it breaks one of the limits that are checked first; `train.checkpoint.Paused` if
    it has to wait at a rung.
    """
    started = time.monotonic()
    runner.steps = runner.reused = 0
    recipe, target = Recipe.from_json(job.recipe), Target.parse(job.target)
    if job.screen:
        screen(runner, job, recipe, target)
    artifact = keep(runner.artifact(recipe, target, runner.rungs(job.rungs)), Path(job.keep))
    manifest, ref, written = sound(artifact), job.reference, dict[str, str]()
    if ref is not None:
        sound(Path(ref.artifact), ref.sha256)
    reference = (Path(ref.artifact), Target.parse(ref.target)) if ref is not None else (artifact, target)
    work = Path(tempfile.mkdtemp(prefix="featherweight-"))
    try:
        got = runner.probe(
            artifact, target, "valid", work, reference=reference, seconds=job.seconds, timeout_s=job.timeout_s
        )
        m, outputs, targets = metric_of(runner.task), np.load(str(got.outputs)), runner.targets("valid")
        value = evaluate(m, outputs, targets, runner.seed, runner.units("valid"))
        paired = None
        if job.outputs and ref is None:
            written |= _place(got.outputs, Path(job.outputs))
        elif job.outputs and ref is not None and not job.alone:
            base = _outputs(runner, ref, "valid", job.timeout_s, written)
            paired, _ = compare(m, base, outputs, targets, runner.seed, runner.units("valid"))
        if job.alone:
            paired, _ = compare(m, None, outputs, targets, runner.seed, runner.units("valid"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if got.speedup is None:
        raise FeatherweightError("the candidate was not timed against its reference", got=str(reference[0]))
    if not math.isfinite(value.value):
        raise FeatherweightError(
            "the metric is not a number", got=value.value, fix="does the model give NaN? See its training loss"
        )
    entry = Entry(
        label=job.label,
        trial=job.trial,
        recipe=job.recipe,
        target=str(target),
        metric=dataclasses.replace(value, split="valid"),
        latency_ms=got.latency_ms,
        speedup=got.speedup,
        size_bytes=manifest["size_bytes"],
        peak_memory_bytes=got.peak_memory_bytes,
        params=manifest["params"],
        macs=manifest["macs"],
        artifact=str(artifact),
        sha256=manifest["sha256"],
        parity=manifest["export"].get("parity", {}),
        coverage=_coverage(manifest["export"].get("coverage", {})),
        seconds=time.monotonic() - started,
        filling=job.filling,
        paired=paired,
        graph=manifest.get("graph"),
    )
    told = {"entry": entry.to_json(), "steps": runner.steps, "reused": runner.reused, "notes": manifest["notes"]}
    return told | {"outputs": written}


def _coverage(report: dict[str, Any]) -> dict[str, Any]:
    """The target's coverage with its layers counted by what became of them;
    the manifest names each."""
    return {**report, "layers": dict(Counter(report["layers"].values()))} if "layers" in report else report


def write_outputs(runner: Runner, made: Made, split: str, timeout_s: float) -> dict[str, str]:
    """An artifact's outputs on a split, written to `made.to`; {file: sha256}."""
    sound(Path(made.artifact), made.sha256)
    work = Path(tempfile.mkdtemp(prefix="featherweight-"))
    try:
        target = Target.parse(made.target)
        got = runner.probe(Path(made.artifact), target, split, work, reference=None, seconds=0.05, timeout_s=timeout_s)
        return _place(got.outputs, Path(made.to))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_certify(runner: Runner, job: CertifyJob) -> dict[str, Any]:
    """{"certificate": of an artifact against the baseline's, on the test split; "outputs": {file:
    sha256} of those that were written}."""
    written: dict[str, str] = {}
    base, mine = (_outputs(runner, side, "test", job.timeout_s, written) for side in (job.baseline, job.candidate))
    m, targets = metric_of(runner.task), runner.targets("test")
    units = runner.units("test")
    said = certify(m, base, mine, targets, job.max_drop, runner.seed, job.level, units, job.min_metric)
    differ = differences(m, base, mine, targets, runner.split("test").classes)
    return {"certificate": {**said, "differences": differ}, "outputs": written}


def _place(outputs: Path | str | None, to: Path) -> dict[str, str]:
    """Copy a file to where others look for it, whole or not at all; {its folder and name: its
    sha256}."""
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.{os.getpid()}.part")
    shutil.copyfile(str(outputs), part)
    digest = sha256_file(part)
    part.replace(to)
    return {f"{to.parent.name}/{to.name}": digest}


def _outputs(runner: Runner, made: Made, split: str, timeout_s: float, written: dict[str, str]) -> np.ndarray:
    """What an artifact gives on a split: as written before, if that is what the study's log says of
    it; else anew, and noted in `written`."""
    to = Path(made.to)
    if not made.said or not to.is_file() or sha256_file(to) != made.said:
        written |= write_outputs(runner, made, split, timeout_s)
    found: np.ndarray = np.load(to)
    return found


def run_package(runner: Runner, job: PackageJob) -> dict[str, Any]:
    """Write a candidate as architecture spec + safetensors, which reloads to the same outputs or
    this fails, and beside it what deploys its artifact."""
    package, _ = runner.model(Recipe.from_json(job.recipe))
    folder = Path(job.to)
    folder.mkdir(parents=True, exist_ok=True)
    package.save(folder, runner.task.build)
    example = tuple(torch.from_numpy(v.copy()) for v in runner.task.example().values())
    with torch.inference_mode():
        error = float((Package.load(folder, runner.task.build).module(*example) - package.module(*example)).abs().max())
    if not error <= 1e-5:
        raise StoreError("the saved model does not reload to the same function", got=f"outputs differ by {error:.2e}")
    if job.artifact:
        write_deployment(runner.task, Path(job.artifact), Target.parse(job.target), folder.parent)
    return {"reload_error": error}


def run_relax(runner: Runner, job: RelaxJob) -> dict[str, Any]:
    """{"relaxed": the fillings of a net with holes, ranked by one net with shared weights}."""
    from ..train.relax import run_relax

    return {"relaxed": run_relax(runner.task, decode(job.net), job.settings, job.seed, runner.report)}


JOBS: dict[str, tuple[type[Job], Callable[[Runner, Any], dict[str, Any]]]] = {
    "trial": (TrialJob, run_trial),
    "certify": (CertifyJob, run_certify),
    "package": (PackageJob, run_package),
    "relax": (RelaxJob, run_relax),
}


def run(runner: Runner, data: dict[str, Any]) -> dict[str, Any]:
    """The result of the job that the data are."""
    kind, work = JOBS[data["job"]]
    return work(runner, kind.from_json({k: v for k, v in data.items() if k != "job"}))


def keep(artifact: Path, folder: Path) -> Path:
    """The artifact's files copied into `folder`/<hash>, where no eviction reaches them; what is
    there already, if it is as it was made."""
    manifest = sound(artifact)
    final = folder / chain(manifest["sha256"], manifest["target"])[:16]
    with contextlib.suppress(InputError, StoreError):
        sound(final, manifest["sha256"])
        return final
    folder.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(dir=folder, prefix=".incoming-"))
    for name in [*manifest["files"], MANIFEST]:
        _copy(artifact / name, temp / name)
    os.chmod(temp, 0o755)
    clear(final, [*manifest["files"], MANIFEST])  # of which something is missing, or was changed
    os.rename(temp, final)
    sound(final, manifest["sha256"])
    return final


def _copy(source: Path, to: Path) -> None:
    """A copy that shares its blocks with the source where the file system can do that, and never
    its inode: who edits the one does not change the other."""
    with source.open("rb") as a, to.open("wb") as b, contextlib.suppress(OSError):  # where it cannot
        fcntl.ioctl(b.fileno(), _FICLONE, a.fileno())
        return
    shutil.copyfile(source, to)
