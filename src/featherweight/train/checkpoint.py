"""Training that pauses at rungs and goes on: what is saved, and who is asked.

A *rung* is a number of epochs after which the training saves itself, tells its score and asks whether it goes on.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


@dataclass(frozen=True)
class Position:
    """How far a training is: whole epochs, and optimizer steps."""

    epoch: int = 0
    step: int = 0


class Paused(Exception):
    """The training waits at `epoch`, its checkpoint saved. No error: who runs it says what becomes of it."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"paused after {epoch} epochs")
        self.epoch = epoch


@dataclass(frozen=True)
class Rungs:
    """path: of the checkpoint; epochs: the rungs; reported: those of them whose score was told in an earlier run of this training;
    score: of a module, less is better; ask: (epoch, of how many, score) -> does it go on?"""

    path: Path
    epochs: Collection[int]
    reported: Collection[int]
    score: Callable[[nn.Module], float]
    ask: Callable[[int, int, float], bool]

    def restore(self, learned: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator, seed: int, device: str) -> Position:
        """Set everything to what the checkpoint holds, if there is one. StoreError if it cannot be read or is another training's."""
        import torch

        if not self.path.exists():
            return Position()
        lost = f"delete {self.path}: the training then starts anew"
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)  # executes nothing that the file says
            if saved["seed"] != seed:
                raise StoreError("this checkpoint belongs to another training", got=str(self.path), fix=lost)
            learned.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            rng.bit_generator.state = json.loads(saved["order"])
            torch.random.set_rng_state(saved["torch"].cpu())
            if device.startswith("cuda"):
                torch.cuda.set_rng_state(saved["cuda"].cpu(), device)
            return Position(saved["epoch"], saved["step"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as e:
            raise StoreError("this checkpoint cannot be read", got=f"{self.path}: {e}", fix=lost) from e

    def visit(
        self,
        module: nn.Module,
        learned: nn.Module,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        at: Position,
        of: int,
        seed: int,
        device: str,
    ) -> None:
        """At a rung whose score nobody knows yet: save, tell the score, and go on or raise Paused. The training itself is not touched."""
        if at.epoch not in self.epochs or at.epoch in self.reported:
            return
        self._save(learned, optimizer, rng, at, seed, device)  # before the score is told: who was told may count on it
        score = self.score(module)
        module.to(device).train()
        if not self.ask(at.epoch, of, score):
            raise Paused(at.epoch)

    def _save(self, learned: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator, at: Position, seed: int, device: str) -> None:
        import torch

        state: dict[str, Any] = {
            "seed": seed,
            "epoch": at.epoch,
            "step": at.step,
            "model": learned.state_dict(),
            "optimizer": optimizer.state_dict(),
            "order": json.dumps(rng.bit_generator.state),
            "torch": torch.random.get_rng_state(),
        }
        if device.startswith("cuda"):
            state["cuda"] = torch.cuda.get_rng_state(device)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)
