"""The way back from widths that hurt: the worst layer is widened, again and again,
until the floor holds.

Notation: a level is the place of an entry in a layer's options, narrowest first; saving is a share
of the whole model's bytes or time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...measure.accuracy import metric_of
from ..shared.drop import baseline_scores
from .layers import Layers, Options


def roll_back(
    layers: Layers,
    levels: dict[str, int],
    options: Options,
    saving: dict[str, list[float]],
    known: dict[str, list[float]],
    *,
    save: float,
    max_drop: float,
    stop_below: float,
) -> tuple[dict[str, int], dict[str, Any]]:
    """The levels after the worst layers were widened, and the story for the note: every step's drop
    and saving, why it ended, whether the floor holds. If it does not, the levels with the least
    drop that were seen (of equal drops, the largest saving).

    known: measured sensitivities, of the layers that have them;
    others are measured when they are needed.
    """
    floor, levels, measured = (
        _score(layers),
        dict(levels),
        {path: dict(enumerate(values)) for path, values in known.items()},
    )
    layers.simulated.apply({path: options[path][level] for path, level in levels.items()})
    steps: list[dict[str, Any]] = []
    seen: list[dict[str, int]] = []
    reverted: str | None = None
    while True:
        drop, saved = floor - _score(layers), sum(saving[path][level] for path, level in levels.items())
        steps.append({"drop": drop, "saving": saved, "reverted": reverted})
        seen.append(dict(levels))
        if drop <= max_drop:
            why = "the floor holds"
            break
        worst = _worst(layers, levels, options, measured)
        if worst is None:
            why = "nothing is quantized"
            break
        after = saved - saving[worst][levels[worst]] + saving[worst][levels[worst] + 1]
        if after < stop_below or after <= 0:
            why = f"widening {worst} would leave a saving of {after:.3g}, below {stop_below:.3g}"
            break
        levels[worst] += 1
        layers.simulated.set(worst, options[worst][levels[worst]])
        reverted = f"{worst} to {options[worst][levels[worst]].bits} bits"
    best = (
        len(steps) - 1
        if drop <= max_drop
        else min(range(len(steps)), key=lambda i: (steps[i]["drop"], -steps[i]["saving"]))
    )
    story = {
        "enough": steps[0]["saving"] >= save * (1 - 1e-6),
        "drop": steps[best]["drop"],
        "saving": steps[best]["saving"],
        "floor_holds": drop <= max_drop,
        "max_drop": max_drop,
        "why": why,
        "reverted": [s["reverted"] for s in steps[1 : best + 1]],
        "steps": steps,
    }
    return seen[best], story


def _worst(layers: Layers, levels: dict[str, int], options: Options, known: dict[str, dict[int, float]]) -> str | None:
    """The quantized layer with the largest measured sensitivity at its width;
    None if no layer is quantized."""
    quantized = [path for path, level in levels.items() if options[path][level].bits < 32]
    return max(quantized, key=lambda path: _measured(layers, path, levels[path], options, known), default=None)


def _score(layers: Layers) -> float:
    """The task's metric of the simulated model on the validation split,
    with the sign that makes more better."""
    return metric_of(layers.context.task).sign * float(
        np.mean(baseline_scores(layers.simulated.module, layers.context))
    )


def _measured(layers: Layers, path: str, level: int, options: Options, known: dict[str, dict[int, float]]) -> float:
    from ...models.quant.sensitivity import measured

    values = known.setdefault(path, {})
    if level not in values:
        values[level] = measured(layers.simulated, {path: [options[path][level]]}, layers.inputs, layers.logits)[path][
            0
        ]
    return values[level]
