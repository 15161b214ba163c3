"""The layers of one model: which widths each may have, what they save,
and what they cost in accuracy.

Notation: saving is a share of the whole model's bytes or time.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from ...machine import saturates
from ...measure.ops import layer_macs
from ...models.quant.activations import InputGrid, chunks, input_grids
from ...models.quant.fake import Simulated, computes, quantizable
from ...models.quant.layers import sharing
from ...models.quant.sensitivity import by_formula, measured
from ...plan import LayerPlan, Plan
from ...task.data import calibration_rows
from ...train.loop import tensors
from ..base import Context

Options = dict[str, list[LayerPlan]]  # by layer, what a plan may say of it


class Layers:
    """The simulated model, what each of its layers may become, and what that saves.

    plan: one without layers; choices: the widths to choose from, rising; skip: module paths that
    stay in floating point; by_time: savings are of predicted time, else of bytes."""

    def __init__(
        self,
        module: nn.Module,
        context: Context,
        plan: Plan,
        choices: tuple[int, ...],
        skip: tuple[str, ...] = (),
        by_time: bool = False,
    ) -> None:
        self.plan, self.context, self.by_time = plan, context, by_time
        found = quantizable(module)
        self.tables = [path for path, m in found.items() if not computes(m)]
        users = {path: paths for path, paths in sharing(module).items() if path in found}
        self._computing = {
            path: [p for p in paths if computes(module.get_submodule(p))] for path, paths in users.items()
        }
        self.samples, _ = plan.draw()
        self.inputs = chunks({k: v.cpu() for k, v in context.calibration(self.samples).items()})
        grids: dict[str, InputGrid] = {}
        if plan.scheme == "int8-static":
            ranges = plan.ranges()
            grids = input_grids(
                module, sum(self._computing.values(), []), self.inputs, ranges.activations, ranges.calibrate
            )
        self.simulated = Simulated(module, plan.scheme, grids, saturates())
        self.left = self._left(found, users, grids, skip)
        self.options = {path: self._entries(path, choices) for path in found}
        self._weights: dict[str, Any] = {path: m.weight for path, m in found.items()}
        self.logits = context.task.loss == "cross_entropy"
        self._macs: dict[str, float] = {}
        if by_time:
            counts = macs(module, sum(self._computing.values(), []), self.inputs[0])
            self._macs = {path: sum(counts[p] for p in paths) for path, paths in self._computing.items()}

    def _left(
        self, found: dict[str, nn.Module], users: dict[str, list[str]], grids: dict[str, Any], skip: tuple[str, ...]
    ) -> dict[str, str]:
        """{path: why} of the layers that stay in floating point whatever is saved."""
        scheme = self.plan.scheme
        if unknown := [s for s in skip if not any(p == s or p.startswith(s + ".") for p in sum(users.values(), []))]:
            raise InputError("there are no such layers to skip", got=unknown, allowed=list(found)[:40])
        left = {}
        for path, m in found.items():
            if any(p == s or p.startswith(s + ".") for p in users[path] for s in skip):
                left[path] = "skipped"
            elif scheme == "int8-dynamic" and not isinstance(m, (nn.Linear, nn.Embedding)):
                left[path] = "convolutions have no dynamic int8"
            elif scheme == "int8-static" and not all(p in grids for p in self._computing[path]):
                left[path] = "no calibration sample reaches it"
        return left

    def _entries(self, path: str, choices: tuple[int, ...]) -> list[LayerPlan]:
        """What a plan may say of this layer, narrowest first, floating point last."""
        by = "channel" if path in self.tables else self.plan.granularity
        group = self.plan.group if by == "group" else 0
        widths = (32,) if path in self.left else choices
        return [LayerPlan(b, by, group, self.plan.symmetric) for b in widths]

    def losses(self, how: str, options: Options) -> dict[str, list[float]]:
        if how == "measured":
            return measured(self.simulated, options, self.inputs, self.logits)
        return by_formula(self.simulated, options, self._labelled(), self.context.task.loss_fn, how)

    def _labelled(self) -> list[tuple[list[Tensor], Tensor]]:
        """The calibration samples, which `Context.calibration` gives without targets,
        one a batch with theirs."""
        train = self.context.splits.train
        rows = calibration_rows(train, self.samples, self.context.seed)
        return [tensors(train, rows[i : i + 1], "cpu") for i in range(len(rows))]

    def saving(self, path: str, entry: LayerPlan) -> float:
        """The share of all weights' bytes, or of the predicted time,
        that this layer saves at this width.

        Bytes: n b / 8 and 4 for each scale. Time: multiply-accumulates times b / 32, as a vector
        register holds 32 / b times the values.
        """
        if self.by_time:
            return float(self._macs[path] * (1 - entry.bits / 32) / max(sum(self._macs.values()), 1))
        w = self._weights[path]
        rows = {"tensor": 1, "channel": w.shape[0], "group": w.shape[0] * -(-w[0].numel() // max(entry.group, 1))}
        scales = rows[entry.granularity] if entry.bits < 16 else 0
        return float(
            (4 * w.numel() - w.numel() * entry.bits / 8 - 4 * scales)
            / (4 * sum(v.numel() for v in self._weights.values()))
        )


def macs(module: nn.Module, paths: list[str], batch: tuple[Tensor, ...]) -> dict[str, float]:
    """Multiply-accumulates of one sample in each named layer;
    0 for an Embedding, and for a layer that does not run.

    batch: inputs [B, ...], of which the first is used.
    """
    counts = layer_macs(module, [v[:1] for v in batch])
    return {path: counts.get(path, 0.0) for path in paths}
