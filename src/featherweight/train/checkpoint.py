"""Training that pauses at rungs and goes on: what is saved, and who is asked.

A *rung* is a number of epochs after which the training saves itself, tells its score and asks
whether it goes on; 0.25 is a quarter of the samples, seen once.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import StoreError


@dataclass(frozen=True)
class Position:
    """How far a training is: whole epochs, batches of the one after them, and optimizer steps;
    seen: samples of that epoch, total: the sum of their losses."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    total: float = 0.0
    seen: int = 0


@dataclass(frozen=True)
class Training:
    """What a checkpoint is of. learned: the module and what is trained along with it; order: the
    generator that shuffles the samples; epochs: of all of it, of per_epoch batches each."""

    module: nn.Module
    learned: nn.Module
    optimizer: torch.optim.Optimizer
    order: np.random.Generator
    seed: int
    device: str
    epochs: int
    per_epoch: int


class Paused(Exception):
    """The training waits at `epoch`, its checkpoint saved. No error:
    who runs it says what becomes of it."""

    def __init__(self, epoch: float) -> None:
        super().__init__(f"paused after {epoch:g} epochs")
        self.epoch = epoch


@dataclass(frozen=True)
class Rungs:
    """path: of the checkpoint; epochs: the rungs; reported: those of them whose score was told in
    an earlier run of this training;
    score: of a module, less is better; ask: (epoch, of how many, score) -> does it go on?"""

    path: Path
    epochs: Collection[float]
    reported: Collection[float]
    score: Callable[[nn.Module], float]
    ask: Callable[[float, int, float], bool]

    def restore(self, training: Training) -> Position:
        """Set everything to what the checkpoint holds, if there is one. StoreError if it cannot be
        read or is another training's."""
        if not self.path.exists():
            return Position()
        lost, device = f"delete {self.path}: the training then starts anew", training.device
        try:
            # executes nothing that the file says
            saved = torch.load(self.path, map_location=device, weights_only=True)
            if saved["seed"] != training.seed:
                raise StoreError("this checkpoint belongs to another training", got=str(self.path), fix=lost)
            training.learned.load_state_dict(saved["model"])
            training.optimizer.load_state_dict(saved["optimizer"])
            # before the samples of the epoch were shuffled
            training.order.bit_generator.state = json.loads(saved["order"])
            torch.random.set_rng_state(saved["torch"].cpu())
            if device.startswith("cuda"):
                torch.cuda.set_rng_state(saved["cuda"].cpu(), device)
            return Position(**{f.name: saved[f.name] for f in fields(Position)})
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as e:
            raise StoreError("this checkpoint cannot be read", got=f"{self.path}: {e}", fix=lost) from e

    def visit(self, training: Training, before: dict[str, Any], at: Position) -> None:
        """At a rung whose score nobody knows yet: save, tell the score, and go on or raise Paused.
        The training itself is not touched.

        before: state of the generator before it shuffled the epoch's samples."""
        for epoch in sorted(set(self.epochs) - set(self.reported)):
            if _place(epoch, training.per_epoch) != (at.epoch, at.batch):
                continue
            # before the score is told: who was told may count on it
            self._save(training, before, at)
            score = self.score(training.module)
            training.module.to(training.device).train()
            if not self.ask(epoch, training.epochs, score):
                raise Paused(epoch)

    def _save(self, training: Training, before: dict[str, Any], at: Position) -> None:
        state: dict[str, Any] = {
            "seed": training.seed,
            **asdict(at),
            "model": training.learned.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "order": json.dumps(before),
            "torch": torch.random.get_rng_state(),
        }
        if training.device.startswith("cuda"):
            state["cuda"] = torch.cuda.get_rng_state(training.device)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)


@dataclass(frozen=True)
class Saves(Rungs):
    """A training that nobody stops, saved after an epoch now and then, so that a killed one goes on
    near where it was. every_s: seconds from one checkpoint to the next."""

    epochs: Collection[float] = ()
    reported: Collection[float] = ()
    score: Callable[[nn.Module], float] = field(default=lambda _: math.nan)
    ask: Callable[[float, int, float], bool] = field(default=lambda *_: True)
    every_s: float = 20.0
    _last: list[float] = field(default_factory=lambda: [time.monotonic()])

    def visit(self, training: Training, before: dict[str, Any], at: Position) -> None:
        """Save, if an epoch has just ended and the last checkpoint is old enough."""
        if at.batch == 0 and at.epoch > 0 and time.monotonic() - self._last[0] >= self.every_s:
            self._save(training, before, at)
            self._last[0] = time.monotonic()

    def forget(self) -> None:
        """The training has ended."""
        self.path.unlink(missing_ok=True)


def _place(epoch: float, per_epoch: int) -> tuple[int, int]:
    """Whole epochs, and batches of the next, that a rung is reached after; at least one batch."""
    whole = math.floor(epoch)
    batch = round((epoch - whole) * per_epoch)
    if (whole, batch) == (0, 0):
        batch = 1
    return (whole, batch) if batch < per_epoch else (whole + 1, 0)
