"""Runs one candidate: each step looks its key up in the artifact store, or computes and stores.

A key is the hash of everything that a result was made from: the task's fingerprint, the study's seed, and every step up to
there with its version. So two candidates that begin alike share their beginnings, in one run, across runs and after a kill.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FeatherweightError
from ..recipe import Recipe, content_hash
from ..seeding import derive, generator
from ..store.artifacts import ArtifactStore, sha256_file
from ..targets.base import Target
from .screen import screen

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ..data import Split
    from ..models.package import Package
    from ..task import Task
    from ..train.checkpoint import Rungs

MANIFEST = "manifest.json"
OUTPUTS = "outputs.npy"
SCORED = 2000  # validation samples that a score at a rung is made of, at most: it is told often, and compared with others of the same samples


def chain(*parts: str) -> str:
    """The key of what `parts` make together."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def combined_sha256(files: dict[str, str]) -> str:
    """The file's own sha256 if there is one file, else that of the `sha256sum` listing of all, in order of name."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())).encode()).hexdigest()


@dataclass
class Runner:
    """task: what the models are for; store: where results are kept; seed: the study's; report: takes progress events; baseline: how the
    baseline is made (None: the task's own way); ask: tells a score at a rung to whoever coordinates the trials, and hears whether the
    training goes on (None: nobody coordinates)."""

    task: Task
    store: ArtifactStore
    seed: int
    device: str = "cpu"
    report: Callable[[dict[str, Any]], None] = lambda _: None
    baseline: Recipe | None = None
    ask: Callable[[float, int, float], bool] | None = None
    steps: int = field(default=0, init=False)  # of the current trial: looked up or computed, and of them found in the store
    reused: int = field(default=0, init=False)

    def full(self, recipe: Recipe) -> Recipe:
        """The recipe with what makes the baseline before it, unless it starts from a model of its own."""
        own = bool(recipe.steps) and recipe.steps[0].starts
        before = self.baseline if self.baseline is not None else self.task.baseline
        return Recipe(*([before] if before is not None and not own else []), recipe)

    def keys(self, recipe: Recipe) -> list[str]:
        """One key a step of the full recipe, after the key of the untouched model."""
        out = [chain("model", self.task.fingerprint, str(self.seed))]
        for step in self.full(recipe).steps:
            out.append(chain(out[-1], content_hash(step), *([step.depends] if step.depends else [])))
        return out

    def model(self, recipe: Recipe, rungs: Rungs | None = None) -> tuple[Package, str]:
        """What the full recipe makes, and its key. The longest stored beginning is loaded; what follows is computed and stored.

        rungs: where the first training step of `recipe` itself that can pause may have to; it raises `Paused` then."""
        from ..models.package import Package
        from ..transforms.base import Context, Trained

        keys, steps = self.keys(recipe), self.full(recipe).steps
        start, package = 0, None
        for i in range(len(steps), 0, -1):
            folder = self.store.get(keys[i])
            if folder is not None:
                package, start = Package.load(folder, self.task.build), i
                break
        self.steps += len(steps)
        self.reused += start
        if package is None and not (steps and steps[0].starts):
            package = Package(self.task.build())
        paused = next((i for i, s in enumerate(steps) if isinstance(s, Trained) and s.pauses and i >= len(steps) - len(recipe.steps)), None)
        for i, (step, key) in enumerate(zip(steps[start:], keys[start + 1 :], strict=True), start):
            self.report({"step": step.kind})
            context = Context(
                self.task, self.task.splits(), derive(self.seed, key), self.teacher, self.teacher_outputs, self.report, self.device,
                rungs if i == paused else None,
            )  # fmt: skip
            package = step.apply(package, context)
            if step.stored:
                self.store.put(key, partial(self._save, package))
        if package is None:
            raise FeatherweightError("there is no model to begin with", got=str(recipe), fix="begin the recipe with Build(..)")
        return package, keys[-1]

    def rungs(self, job: dict[str, Any]) -> Rungs | None:
        """Where the trial of a job has to tell its score: job["rungs"] is {"epochs", "reported", "checkpoint"}, or None."""
        from ..train.checkpoint import Rungs

        told = job.get("rungs")
        if told is None or self.ask is None:
            return None
        return Rungs(Path(told["checkpoint"]), set(told["epochs"]), set(told["reported"]), self.score, self.ask)

    def score(self, module: nn.Module) -> float:
        """The task's metric of a module on the same at most `SCORED` validation samples for every trial, turned so that less is better."""
        import numpy as np

        from ..data import Subset
        from ..measure.accuracy import metric
        from ..train.loop import predict

        m, valid = metric(self.task.metric), self.task.splits().valid
        some = Subset(valid, np.sort(generator(self.seed, "rungs").permutation(len(valid))[:SCORED]))
        targets = np.concatenate([y for _, y in some.batches()])
        value = float(np.mean(m.scores(predict(module, some, self.device), targets)))
        return -value if m.higher_is_better else value

    def _save(self, package: Package, folder: Path) -> None:
        package.save(folder, self.task.build)

    def teacher(self, recipe: Recipe | None) -> Package:
        """A teacher's model, stored as any other; looking it up does not count as a step of the trial."""
        steps, reused = self.steps, self.reused
        self.report({"step": "teacher"})
        package, _ = self.model(recipe or Recipe())
        self.steps, self.reused = steps, reused
        return package

    def teacher_outputs(self, recipe: Recipe | None) -> np.ndarray:
        """A teacher's outputs [N, ...] on the training split; computed once for all candidates that learn from it."""
        import numpy as np

        key = chain(self.keys(recipe or Recipe())[-1], "train outputs")

        def write(folder: Path) -> None:
            from ..train.loop import predict

            np.save(folder / OUTPUTS, predict(self.teacher(recipe).module, self.task.splits().train, self.device))

        return np.load(self.store.put(key, write) / OUTPUTS)  # type: ignore[no-any-return]

    def artifact(self, recipe: Recipe, target: Target, rungs: Rungs | None = None) -> Path:
        """The exported candidate: a folder with the deployable files and `manifest.json`."""
        runtime = target.load_runtime()
        plan_key = self.keys(recipe)[-1]
        key = chain(plan_key, "artifact", str(target), _versions(target.runtime))
        found = self.store.get(key)
        self.steps += 1
        if found is not None:
            self.reused += 1
            self.steps += len(self.full(recipe))
            self.reused += len(self.full(recipe))
            return found
        package, _ = self.model(recipe, rungs)
        problem = runtime.problem(target, package.plan)
        if problem is not None:
            from ..errors import TargetError

            raise TargetError(f"{target} cannot run this candidate", got=problem)
        self.report({"step": "export"})
        return self.store.put(key, lambda folder: self._export(package, target, folder, recipe))

    def _export(self, package: Package, target: Target, folder: Path, recipe: Recipe) -> None:
        import numpy as np
        import torch

        from ..measure.ops import macs, params

        splits = self.task.splits()
        example = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in self.task.example().items()}
        calibration = None
        if package.plan is not None:
            rng = np.random.default_rng(derive(package.plan["seed"], "calibration"))
            pick = np.sort(rng.permutation(len(splits.train))[: package.plan["samples"]])
            calibration = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in splits.train.batch(pick)[0].items()}
        report = target.load_runtime().export(package, example, calibration, target, folder)
        files = {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file()}
        manifest = {
            "format": 1,
            "task": self.task.name,
            "target": str(target),
            "recipe": self.full(recipe).to_json(),
            "files": files,
            "sha256": combined_sha256(files),
            "size_bytes": sum((folder / name).stat().st_size for name in files),
            "inputs": {k: {"shape": ["batch", *v.shape[1:]], "dtype": str(v.numpy().dtype)} for k, v in example.items()},
            "params": params(package.module),
            "macs": macs(package.module, example),
            "notes": package.notes,
            "export": report,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))

    def inputs(self, name: str) -> Path:
        """A folder with one .npy per input of a split, for a process that knows nothing of the task."""
        import numpy as np

        split = self.split(name)

        def write(folder: Path) -> None:
            example, _ = split.batch(np.arange(1))
            arrays = {
                k: np.lib.format.open_memmap(folder / f"{k}.npy", mode="w+", dtype=v.dtype, shape=(len(split), *v.shape[1:]))
                for k, v in example.items()
            }
            for start in range(0, len(split), 256):
                index = np.arange(start, min(start + 256, len(split)))
                for k, v in split.batch(index)[0].items():
                    arrays[k][start : start + len(index)] = v
            for a in arrays.values():
                a.flush()

        return self.store.put(chain("inputs", self.task.splits().fingerprint, name), write)

    def split(self, name: str) -> Split:
        return getattr(self.task.splits(), name)  # type: ignore[no-any-return]

    def targets(self, name: str) -> np.ndarray:
        """The targets [N] of a split, read batch by batch."""
        import numpy as np

        split = self.split(name)
        return np.concatenate([split.batch(np.arange(s, min(s + 1024, len(split))))[1] for s in range(0, len(split), 1024)])

    def probe(
        self, artifact: Path, target: Target, split: str, work: Path, *, reference: tuple[Path, Target] | None, seconds: float, timeout_s: float
    ) -> dict[str, Any]:
        """Measure an artifact in a fresh process: memory, outputs on a split, latency against the reference."""
        from ..measure.run import measure

        self.report({"step": "measure"})
        return measure(
            artifact,
            target,
            reference=reference,
            example=self.task.example(),
            inputs=self.inputs(split),
            seconds=seconds,
            timeout_s=timeout_s,
            workdir=work,
        )


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


def _versions(runtime: str) -> str:
    """What else decides the file's bytes: versions, and whether this processor's 8-bit products saturate (then weights get 7 bits)."""
    import importlib.metadata as m

    from ..targets._cpu import saturates

    names = {"onnxruntime": ("torch", "onnxruntime"), "openvino": ("torch", "openvino", "nncf")}.get(runtime, ("torch", runtime))
    found = [f"saturates={saturates()}"]
    for name in names:
        try:
            found.append(f"{name}={m.version(name)}")
        except m.PackageNotFoundError:
            found.append(f"{name}=none")
    return ",".join(found)
