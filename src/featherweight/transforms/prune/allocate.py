"""How many units of each group stay where that is decided by measuring: the least rise of the loss
for the saving that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...models.allocate import choose
from ...models.groups import Group
from ...models.package import Package
from .cost import Batches, Clock, Macs, levels, losses
from .widths import least

_ROUNDS = 20  # of asking for more where groups together save less than each alone


def by_macs(
    module: nn.Module,
    groups: Sequence[Group],
    importance: Sequence[Tensor],
    goal: float,
    round_to: int,
    batches: Batches,
    loss_fn: Any,
    macs: Macs,
) -> tuple[list[int], dict[str, Any]]:
    """(units that stay in each group, report) so that they save at least `goal` MACs together and
    the losses' sum rises least.

    The rises are measured one group at a time. What a level saves is known one group at a time too,
    and a layer between two cut groups is then counted by both; so the saving that is asked of the
    solver is raised until all together save enough.
    """
    keeps = [levels(g, round_to) for g in groups]
    rises = losses(module, groups, importance, keeps, batches, loss_fn)
    now = macs.left(groups, [row[0] for row in keeps])
    whole = [len(g.units) for g in groups]
    saving = [[now - macs.left(groups, [*whole[:i], k, *whole[i + 1 :]]) for k in row] for i, row in enumerate(keeps)]
    need = goal
    most = sum(max(row) for row in saving)
    chosen = whole
    for _ in range(_ROUNDS):
        chosen = [row[i] for row, i in zip(keeps, choose(rises, saving, need), strict=True)]
        saved = now - macs.left(groups, chosen)
        if saved >= goal * (1 - 1e-6) or need > most:
            break
        need += max(goal - saved, 1e-3 * goal)
    else:
        chosen = [row[i] for row, i in zip(keeps, choose(rises, saving, most), strict=True)]
    report = {
        g.name: {str(k): s for k, s in zip(row, each, strict=True)}
        for g, row, each in zip(groups, keeps, saving, strict=True)
    }
    rise = {
        g.name: {str(k): v for k, v in zip(row, each, strict=True)}
        for g, row, each in zip(groups, keeps, rises, strict=True)
    }
    reached = now - macs.left(groups, chosen)
    return chosen, {
        "saves_macs": report,
        "loss_rise": rise,
        "macs": [now, now - reached],
        "enough": reached >= goal * (1 - 1e-6),
    }


def by_latency(
    package: Package,
    module: nn.Module,
    groups: Sequence[Group],
    importance: Sequence[Tensor],
    share: float,
    round_to: int,
    batches: Batches,
    loss_fn: Any,
    on: str,
    example: dict[str, Tensor],
) -> tuple[list[int], dict[str, Any]]:
    """(units that stay in each group, report) so that at least `share` of the latency on the target
    `on` is saved, as far as the savings of groups cut alone add up, and the losses' sum rises
    least. The report says what all cuts together were measured to save."""
    keeps = [levels(g, round_to) for g in groups]
    rises = losses(module, groups, importance, keeps, batches, loss_fn)
    with Clock(package, module, on, example) as clock:
        saving = [
            [0.0, *(clock.saved([g], [least(s, k)]) for k in row[1:])]
            for g, s, row in zip(groups, importance, keeps, strict=True)
        ]
        picked = choose(rises, saving, share)
        chosen = [row[i] for row, i in zip(keeps, picked, strict=True)]
        expected = sum(row[i] for row, i in zip(saving, picked, strict=True))
        together = clock.saved(groups, [least(s, k) for s, k in zip(importance, chosen, strict=True)])
        ms = clock.base_ms
    report = {
        g.name: {str(k): s * ms for k, s in zip(row, each, strict=True)}
        for g, row, each in zip(groups, keeps, saving, strict=True)
    }
    rise = {
        g.name: {str(k): v for k, v in zip(row, each, strict=True)}
        for g, row, each in zip(groups, keeps, rises, strict=True)
    }
    latency = {"on": on, "cpu_ms": ms, "expected_saving": expected, "measured_saving": together}
    return chosen, {"saves_ms": report, "loss_rise": rise, "latency": latency, "enough": expected >= share * (1 - 1e-6)}
