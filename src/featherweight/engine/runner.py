"""Runs one candidate: each step looks its key up in the artifact store, or computes and stores.

A key is the hash of everything that a result was made from: the task's fingerprint, the study's
seed, and every step up to there with its version. So two candidates that begin alike share their
beginnings, in one run, across runs and after a kill.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..errors import FeatherweightError, TargetError
from ..measure.accuracy import metric_of
from ..models.package import Package
from ..recipe import Recipe, Transform, content_hash
from ..records import Measured
from ..seeding import derive, generator
from ..store.artifacts import ArtifactStore
from ..targets.base import Target
from ..task.data import Split, Subset
from ..task.task import Task
from ..train.checkpoint import Rungs, Saves
from ..train.loop import predict
from ..transforms.base import Context, Trained, applied
from .export import versions, write_artifact
from .messages import RungPlan

OUTPUTS = "outputs.npy"
# validation samples that a score at a rung is made of, at most: it is told often, and compared with
# others of the same samples
SCORED = 2000


def chain(*parts: str) -> str:
    """The key of what `parts` make together."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


@dataclass
class Runner:
    """task: what the models are for; store: where results are kept; seed: the study's;
    report: takes progress events; baseline: how the baseline is made (None: the task's own way);
    ask: tells a score at a rung to whoever coordinates the trials, and hears whether the training
    goes on (None: nobody coordinates)."""

    task: Task
    store: ArtifactStore
    seed: int
    device: str = "cpu"
    report: Callable[[dict[str, Any]], None] = lambda _: None
    baseline: Recipe | None = None
    ask: Callable[[float, int, float], bool] | None = None
    # of each reference, the processor ms that the last measurements found
    quick: dict[tuple[Path, Target] | None, deque[float]] = field(default_factory=dict, init=False)
    # of the current trial: looked up or computed, and of them found in the store
    steps: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)

    def full(self, recipe: Recipe) -> Recipe:
        """The recipe with what makes the baseline before it,
        unless it starts from a model of its own."""
        own = bool(recipe.steps) and recipe.steps[0].starts
        before = self.baseline if self.baseline is not None else self.task.baseline
        return Recipe(*([before] if before is not None and not own else []), recipe)

    def done(self, recipe: Recipe) -> list[Transform]:
        """The steps of the full recipe that do something: two recipes that differ in others alone
        make one model, and share what is stored."""
        return [step for step in self.full(recipe).steps if not step.idle]

    def keys(self, recipe: Recipe) -> list[str]:
        """One key a step of `done`, after the key of the untouched model."""
        out = [chain("model", self.task.fingerprint, str(self.seed))]
        for step in self.done(recipe):
            out.append(chain(out[-1], content_hash(step), *([step.depends] if step.depends else [])))
        return out

    def model(self, recipe: Recipe, rungs: Rungs | None = None) -> tuple[Package, str]:
        """What the full recipe makes, and its key. The longest stored beginning is loaded; what
        follows is computed and stored.

        rungs: where the first training step of `recipe` itself that can pause may have to;
        it raises `Paused` then."""
        keys, steps = self.keys(recipe), self.done(recipe)
        own = sum(not step.idle for step in recipe.steps)
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
        paused = next(
            (i for i, s in enumerate(steps) if isinstance(s, Trained) and s.pauses and i >= len(steps) - own),
            None,
        )
        for i, (step, key) in enumerate(zip(steps[start:], keys[start + 1 :], strict=True), start):
            self.report({"step": step.kind})
            saves = (
                Saves(self.store.root / "checkpoints" / f"{key}.pt")
                if step.stored and isinstance(step, Trained) and step.pauses
                else None
            )
            context = Context(
                self.task,
                self.task.splits(),
                derive(self.seed, key),
                self.teacher,
                self.teacher_outputs,
                self.report,
                self.device,
                rungs if i == paused and rungs is not None else saves,
            )
            package = applied(step, package, context)
            if step.stored:
                self.store.put(key, partial(self._save, package))
            if saves is not None:
                saves.forget()
        if package is None:
            raise FeatherweightError(
                "there is no model to begin with", got=str(recipe), fix="begin the recipe with Build(..)"
            )
        return package, keys[-1]

    def rungs(self, plan: RungPlan | None) -> Rungs | None:
        """Where a training has to tell its score, for the training loop;
        None where nobody asks or coordinates."""
        if plan is None or self.ask is None:
            return None
        return Rungs(Path(plan.checkpoint), set(plan.epochs), set(plan.reported), self.score, self.ask)

    def score(self, module: nn.Module) -> float:
        """The task's metric of a module on the same at most `SCORED` validation samples for every
        trial, turned so that less is better."""
        m, valid = metric_of(self.task), self.task.splits().valid
        some = Subset(valid, np.sort(generator(self.seed, "rungs").permutation(len(valid))[:SCORED]))
        return -m.sign * float(np.mean(m.scores(predict(module, some, self.device), some.all_targets())))

    def _save(self, package: Package, folder: Path) -> None:
        package.save(folder, self.task.build)

    def teacher(self, recipe: Recipe | None) -> Package:
        """A teacher's model, stored as any other; looking it up does not count as a
        step of the trial."""
        steps, reused = self.steps, self.reused
        self.report({"step": "teacher"})
        package, _ = self.model(recipe or Recipe())
        self.steps, self.reused = steps, reused
        return package

    def teacher_outputs(self, recipe: Recipe | None) -> np.ndarray:
        """A teacher's outputs [N, ...] on the training split;
        computed once for all candidates that learn from it."""
        key = chain(self.keys(recipe or Recipe())[-1], "train outputs")

        def write(folder: Path) -> None:
            np.save(folder / OUTPUTS, predict(self.teacher(recipe).module, self.task.splits().train, self.device))

        return np.load(self.store.put(key, write) / OUTPUTS)  # type: ignore[no-any-return]

    def artifact(self, recipe: Recipe, target: Target, rungs: Rungs | None = None) -> Path:
        """The exported candidate: a folder with the deployable files and `manifest.json`."""
        runtime = target.load_runtime()
        plan_key = self.keys(recipe)[-1]
        key = chain(plan_key, "artifact", str(target), versions(target.runtime))
        found = self.store.get(key)
        self.steps += 1
        if found is not None:
            self.reused += 1
            self.steps += len(self.done(recipe))
            self.reused += len(self.done(recipe))
            return found
        package, _ = self.model(recipe, rungs)
        problem = runtime.problem(target, package.plan)
        if problem is not None:
            raise TargetError(f"{target} cannot run this candidate", got=problem)
        self.report({"step": "export"})
        return self.store.put(key, lambda folder: write_artifact(self.task, package, target, self.full(recipe), folder))

    def inputs(self, name: str) -> Path:
        """A folder with one .npy per input of a split, for a process that knows
        nothing of the task."""
        split = self.split(name)

        def write(folder: Path) -> None:
            example, _ = split.batch(np.arange(1))
            arrays = {
                k: np.lib.format.open_memmap(
                    folder / f"{k}.npy", mode="w+", dtype=v.dtype, shape=(len(split), *v.shape[1:])
                )
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

    def units(self, name: str) -> np.ndarray | None:
        """Which rows of a split are one sample (`Splits.units`); None: each is."""
        return self.task.splits().units.get(name)

    def targets(self, name: str) -> np.ndarray:
        """The targets [N] of a split, read batch by batch."""
        return self.split(name).all_targets()

    def probe(
        self,
        artifact: Path,
        target: Target,
        split: str,
        work: Path,
        *,
        reference: tuple[Path, Target] | None,
        seconds: float,
        timeout_s: float,
    ) -> Measured:
        """Measure an artifact in a fresh process: memory, outputs on a split,
        latency against the reference."""
        from ..measure.run import measure

        self.report({"step": "measure"})
        # the last ones only: a machine may be slower from now on
        quick = self.quick.setdefault(reference, deque(maxlen=20))
        found = measure(
            artifact,
            target,
            reference=reference,
            example=self.task.example(),
            inputs=self.inputs(split),
            seconds=seconds,
            timeout_s=timeout_s,
            workdir=work,
            quick_ms=min(quick, default=None),
        )
        if found.reference_ms is not None:
            quick.append(found.reference_ms.cpu_median)
        return found
