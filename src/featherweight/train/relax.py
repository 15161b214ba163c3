"""Architecture search by gradients and by shared weights: a supernet is trained on `train` only,
and its best fillings are given back.

Notation: w weights, a alphas, p = softmax(a), m mixture weights, g Gumbel noise, tau temperature,
c costs of options.

Sources: DARTS (arXiv:1806.09055); GDAS (arXiv:1910.04465), eq. 5-7, and Jang et al. 2017
(arXiv:1611.01144) for the straight-through estimator; ProxylessNAS (arXiv:1812.00332), section 3.3;
SPOS (arXiv:1904.00420).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..seeding import derive, generator
from ..space import Filling
from ..task.data import Split, Subset
from ..task.task import Task
from ._darts import search_mixtures
from ._oneshot import search_paths
from .relax_settings import Relax, Report


def run_relax(
    task: Task,
    net: Any,
    settings: Relax | Mapping[str, Any],
    seed: int,
    report: Report = lambda _: None,
    *,
    costs: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Train a supernet of `net`, a description with holes, on the task's `train` split,
    and give back its best fillings.

    net: for darts and gumbel a `featherweight.nets._supernet.SuperNet`, or a description with a
    method `supernet()` that gives one; for oneshot the description itself. costs: of each option by
    hole, any unit (measured latency_ms), in the place of `settings.cost`.

    Returns JSON data: "filling": the best; "ranked": up to `top` fillings, best first (with
    `json.dumps` each the `ranked` of the strategies gradient and oneshot); "scores": theirs, more
    is better (sum of log p; one-shot: accuracy on held-out training samples, else minus the
    loss); "log": what happened, epoch by epoch, and why it ended; "stopped": the name of the
    guard, or None.
    Deterministic for a seed on one machine unless `minutes` ends it. The caller's supernet is
    trained in place. InputError if the loss is not finite.
    """
    made = settings if isinstance(settings, Relax) else _settings(settings)
    train = task.splits().train
    if len(train) < 4:
        raise InputError("too few training samples to be cut in two", got=len(train), allowed="4 or more")
    devices = [made.device] if made.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, "relax") % 2**63)
        if made.method == "oneshot":
            if isinstance(net, torch.nn.Module):
                net = net.net
            found, log = search_paths(task, net, *_cut(train, 0.2, seed), made, seed, report)
        else:
            found, log = search_mixtures(
                task.loss_fn, _supernet(net), *_cut(train, 0.5, seed), made, seed, report, costs
            )
    ranked = [_prefixed(filling, made.prefix) for filling, _ in found]
    stopped = next((e["guard"] for e in log if e["event"] == "stopped"), None)
    return {
        "filling": ranked[0],
        "ranked": ranked,
        "scores": [score for _, score in found],
        "log": log,
        "stopped": stopped,
    }


def ranked_texts(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The field `ranked` of the strategies, from what `run_relax` gave."""
    return tuple(json.dumps(f, sort_keys=True) for f in result["ranked"])


def _settings(given: Mapping[str, Any]) -> Relax:
    names = [f.name for f in dataclasses.fields(Relax)]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InputError("relax has no such setting", got=unknown, allowed=", ".join(names))
    return Relax(**given)


def _supernet(net: Any) -> Any:
    if isinstance(net, nn.Module) and hasattr(net, "arch_parameters"):
        return net
    if not hasattr(net, "supernet"):
        raise InputError(
            "this net cannot be relaxed into mixtures",
            got=getattr(net, "kind", type(net).__name__),
            allowed="a SuperNet, or a description with a method supernet()",
            fix='method="oneshot" shares the weights of any family',
        )
    return net.supernet()


def _cut(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Two disjoint parts of the training split, the second with this share: the search sees no
    other data (DARTS, section 3.1)."""
    order = generator(seed, "relax", "halves").permutation(len(train))
    held = min(max(2, round(share * len(train))), len(train) - 2)
    return Subset(train, order[held:]), Subset(train, order[:held])


def _prefixed(filling: Filling, prefix: str) -> Filling:
    return {f"{prefix}.{path}" if prefix else path: value for path, value in filling.items()}
