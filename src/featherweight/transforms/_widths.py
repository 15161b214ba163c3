"""What MixedPrecision does to one model: which widths each layer may have, what they save, and the way back from those that hurt.

Notation: a level is the place of an entry in a layer's options, narrowest first; saving is a share of the whole model's bytes or time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .base import Context
from .common import baseline_scores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .mixed_precision import MixedPrecision

Options = dict[str, list[dict[str, Any]]]  # by layer, what a plan may say of it


class Trial:
    """One application of the step: the simulated model, what each layer may become, what that saves, and the search back."""

    def __init__(self, step: MixedPrecision, module: nn.Module, context: Context) -> None:
        from ..machine import saturates
        from ..models.quant.activations import InputGrid, chunks, input_grids
        from ..models.quant.fake import Simulated, computes, quantizable

        self.step, self.context = step, context
        found = quantizable(module)
        self.tables = [path for path, m in found.items() if not computes(m)]
        self._inputs = chunks({k: v.cpu() for k, v in context.calibration(step.samples).items()})
        grids: dict[str, InputGrid] = {}
        if step.scheme == "int8-static":
            grids = input_grids(module, [p for p in found if p not in self.tables], self._inputs, step.activations, step.calibrate)
        self.simulated = Simulated(module, step.scheme, grids, saturates())
        self.left = self._left(found, grids)
        self.options = {path: self._entries(path) for path in found}
        self._weights: dict[str, Any] = {path: m.weight for path, m in found.items()}
        self._logits = context.task.loss == "cross_entropy"
        self._macs = macs(module, list(found), self._inputs[0]) if step.limit == "latency" else {}

    def _left(self, found: dict[str, nn.Module], grids: dict[str, Any]) -> dict[str, str]:
        """{path: why} of the layers that stay in floating point whatever is saved."""
        from torch import nn

        skip = self.step.skip
        if unknown := [s for s in skip if not any(p == s or p.startswith(s + ".") for p in found)]:
            raise InputError("there are no such layers to skip", got=unknown, allowed=list(found)[:40])
        left = {}
        for path, m in found.items():
            if any(path == s or path.startswith(s + ".") for s in skip):
                left[path] = "skipped"
            elif self.step.scheme == "int8-dynamic" and not isinstance(m, (nn.Linear, nn.Embedding)):
                left[path] = "convolutions have no dynamic int8"
            elif self.step.scheme == "int8-static" and path not in self.tables and path not in grids:
                left[path] = "no calibration sample reaches it"
        return left

    def _entries(self, path: str) -> list[dict[str, Any]]:
        """What a plan may say of this layer, narrowest first, floating point last."""
        by = "channel" if path in self.tables else self.step.granularity
        group = self.step.group if by == "group" else 0
        choices = (32,) if path in self.left else self.step.choices()
        return [{"bits": b, "granularity": by, "group": group, "symmetric": self.step.symmetric} for b in choices]

    def losses(self, how: str, options: Options) -> dict[str, list[float]]:
        from ..models.quant.sensitivity import by_formula, measured

        if how == "measured":
            return measured(self.simulated, options, self._inputs, self._logits)
        return by_formula(self.simulated, options, self._labelled(), self.context.task.loss_fn, how)

    def _labelled(self) -> list[tuple[list[Tensor], Tensor]]:
        """The calibration samples, which `Context.calibration` gives without targets, one a batch with theirs."""
        import numpy as np

        from ..seeding import derive
        from ..train.loop import tensors

        train = self.context.splits.train
        pick = np.sort(np.random.default_rng(derive(self.context.seed, "calibration")).permutation(len(train))[: self.step.samples])
        return [tensors(train, pick[i : i + 1], "cpu") for i in range(len(pick))]

    def saving(self, path: str, entry: dict[str, Any]) -> float:
        """The share of all weights' bytes, or of the predicted time, that this layer saves at this width.

        Bytes: n b / 8 and 4 for each scale. Time: multiply-accumulates times b / 32, as a vector register holds 32 / b times the values.
        """
        if self.step.limit == "latency":
            return float(self._macs[path] * (1 - entry["bits"] / 32) / max(sum(self._macs.values()), 1))
        w = self._weights[path]
        rows = {"tensor": 1, "channel": w.shape[0], "group": w.shape[0] * -(-w[0].numel() // max(entry["group"], 1))}
        scales = rows[entry["granularity"]] if entry["bits"] < 16 else 0
        return float((4 * w.numel() - w.numel() * entry["bits"] / 8 - 4 * scales) / (4 * sum(v.numel() for v in self._weights.values())))

    def roll_back(
        self, levels: dict[str, int], options: Options, saving: dict[str, list[float]], known: dict[str, list[float]]
    ) -> tuple[dict[str, int], dict[str, Any]]:
        """The levels after the worst layers were widened, and the story for the note: every step's drop and saving, why it ended, whether the
        floor holds. If it does not, the levels with the least drop that were seen (of equal drops, the largest saving).

        known: measured sensitivities, of the layers that have them; others are measured when they are needed.
        """
        step = self.step
        floor, levels, measured = self._score(), dict(levels), {path: dict(enumerate(values)) for path, values in known.items()}
        self.simulated.apply({path: options[path][level] for path, level in levels.items()})
        steps: list[dict[str, Any]] = []
        seen: list[dict[str, int]] = []
        reverted: str | None = None
        while True:
            drop, saved = floor - self._score(), sum(saving[path][level] for path, level in levels.items())
            steps.append({"drop": drop, "saving": saved, "reverted": reverted})
            seen.append(dict(levels))
            if drop <= step.max_drop:
                why = "the floor holds"
                break
            worst = self._worst(levels, options, measured)
            if worst is None:
                why = "nothing is quantized"
                break
            after = saved - saving[worst][levels[worst]] + saving[worst][levels[worst] + 1]
            if after < step.stop_below or after <= 0:
                why = f"widening {worst} would leave a saving of {after:.3g}, below {step.stop_below:.3g}"
                break
            levels[worst] += 1
            self.simulated.set(worst, options[worst][levels[worst]])
            reverted = f"{worst} to {options[worst][levels[worst]]['bits']} bits"
        best = len(steps) - 1 if drop <= step.max_drop else min(range(len(steps)), key=lambda i: (steps[i]["drop"], -steps[i]["saving"]))
        story = {
            "enough": steps[0]["saving"] >= step.save * (1 - 1e-6),
            "drop": steps[best]["drop"],
            "saving": steps[best]["saving"],
            "floor_holds": drop <= step.max_drop,
            "max_drop": step.max_drop,
            "why": why,
            "reverted": [s["reverted"] for s in steps[1 : best + 1]],
            "steps": steps,
        }
        return seen[best], story

    def _worst(self, levels: dict[str, int], options: Options, known: dict[str, dict[int, float]]) -> str | None:
        """The quantized layer with the largest measured sensitivity at its width; None if no layer is quantized."""
        quantized = [path for path, level in levels.items() if options[path][level]["bits"] < 32]
        return max(quantized, key=lambda path: self._measured(path, levels[path], options, known), default=None)

    def _score(self) -> float:
        """The task's metric of the simulated model on the validation split, with the sign that makes more better."""
        import numpy as np

        from ..measure.accuracy import metric

        value = float(np.mean(baseline_scores(self.simulated.module, self.context)))
        return value if metric(self.context.task.metric).higher_is_better else -value

    def _measured(self, path: str, level: int, options: Options, known: dict[str, dict[int, float]]) -> float:
        from ..models.quant.sensitivity import measured

        values = known.setdefault(path, {})
        if level not in values:
            values[level] = measured(self.simulated, {path: [options[path][level]]}, self._inputs, self._logits)[path][0]
        return values[level]


def macs(module: nn.Module, paths: list[str], batch: tuple[Tensor, ...]) -> dict[str, int]:
    """Multiply-accumulates of one sample in each named layer; 0 for an Embedding, and for a layer that does not run.

    A Linear or convolution has, for each of its outputs, as many as one row of its weight. batch: inputs [B, ...], of which the first is used.
    """
    import torch

    from ..models.quant.fake import computes

    counts = dict.fromkeys(paths, 0)

    def count(path: str) -> Any:
        def hook(layer: Any, _: Any, out: Tensor) -> None:
            counts[path] += out.numel() * layer.weight[0].numel() if computes(layer) else 0

        return hook

    handles = [module.get_submodule(path).register_forward_hook(count(path)) for path in paths]
    try:
        with torch.no_grad():
            module(*[v[:1] for v in batch])
    finally:
        for handle in handles:
            handle.remove()
    return counts
