"""One-shot search: weights shared by all paths are trained on paths drawn uniformly,
then the paths are ranked.

Source: Guo et al. 2020, SPOS (arXiv:1904.00420): eq. 6 (uniform single paths),
eq. 4 (ranking by held-out accuracy).
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..seeding import generator
from ..space import Filling
from ..space.space import Space, key
from ..task.data import Split
from ..task.task import Task
from .loop import batches, tensors
from .relax_settings import Relax, Report
from .shared_net import SharedNet

# held-out samples that rank the paths, and how many at a time (batch statistics need many)
_JUDGED, _CHUNK = 1024, 256


def search_paths(
    task: Task, net: Any, inner: Split, held: Split, s: Relax, seed: int, report: Report
) -> tuple[list[tuple[Filling, float]], list[dict[str, Any]]]:
    """(the `top` fillings of a pool with their scores on `held`, the log)."""
    pool = draw_pool(net, s.pool, seed)
    shared = SharedNet(net, pool).to(s.device).train()
    optimizer = torch.optim.SGD(shared.parameters(), lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
    rng, choose, log = generator(seed, "relax", "inner"), generator(seed, "relax", "paths"), list[dict[str, Any]]()
    began = time.monotonic()
    for epoch in range(s.epochs):
        if s.minutes is not None and epoch and time.monotonic() - began > 60 * s.minutes:
            log.append({"event": "out of time", "epoch": epoch, "minutes": s.minutes})
            break
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * s.lr * (1 + math.cos(math.pi * epoch / s.epochs))
        total, seen = 0.0, 0
        for inputs, targets, _ in batches(inner, s.batch_size, rng, s.device):
            loss = task.loss_fn(shared(pool[int(choose.integers(len(pool)))], *inputs), targets)
            # layers that the path does not have get no gradient and stay
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(shared.parameters(), 5.0)
            optimizer.step()
            total, seen = total + float(loss.detach()) * len(targets), seen + len(targets)
        mean = total / max(seen, 1)
        if not math.isfinite(mean):
            raise InputError(
                "the supernet diverged",
                got=f"loss {mean} in epoch {epoch + 1}",
                fix=f"lower the learning rate (now {s.lr})",
            )
        log.append({"event": "epoch", "epoch": epoch + 1, "loss": mean})
        report({"step": "relax", "epoch": epoch + 1, "of": s.epochs, "loss": mean})
    judged = [judge(task, shared, filling, held, s.device) for filling in pool]
    order = sorted(range(len(pool)), key=lambda i: (*(-v for v in judged[i]), i))
    log.append(
        {"event": "ranked", "of": len(pool), "best": judged[order[0]][0], "median": judged[order[len(order) // 2]][0]}
    )
    return [(pool[i], judged[i][0]) for i in order[: s.top]], log


def draw_pool(net: Any, n: int, seed: int) -> list[Filling]:
    """Up to `n` distinct fillings, drawn uniformly, whose nets can be built. InputError if none
    can, or if there is no hole."""
    space, rng = Space(net), generator(seed, "relax", "pool")
    if not len(space):
        raise InputError(
            "a net without holes has nothing to search",
            got=getattr(net, "kind", type(net).__name__),
            fix="ConvNet.space(..)",
        )
    found: dict[str, Filling] = {}
    refused: set[str] = set()
    for _ in range(50 * n):
        filling = space.sample(rng)
        name = key(filling)
        if name in found or name in refused:
            continue
        if _buildable(space, filling):
            found[name] = filling
        else:
            refused.add(name)
        if len(found) == n or len(found) + len(refused) >= space.size:
            break
    if not found:
        raise InputError("no filling of this net can be built", got=repr(net))
    return list(found.values())


def judge(task: Task, shared: SharedNet, filling: Filling, held: Split, device: str) -> tuple[float, float]:
    """(accuracy, -loss) of a path on the held-out samples, or (-loss, -loss) where the loss is
    not cross-entropy."""
    shared.eval()
    right, loss, n = 0.0, 0.0, min(len(held), _JUDGED)
    with torch.no_grad():
        for start in range(0, n, _CHUNK):
            inputs, targets = tensors(held, np.arange(start, min(start + _CHUNK, n)), device)
            out = shared(filling, *inputs)
            loss += float(task.loss_fn(out, targets)) * len(targets)
            right += float((out.argmax(-1) == targets).sum()) if task.loss == "cross_entropy" else 0.0
    shared.train()
    less = -loss / n if math.isfinite(loss) else -math.inf
    return (right / n if task.loss == "cross_entropy" else less), less


def _buildable(space: Space, filling: Filling) -> bool:
    try:
        net = space.fill(filling)
        net.check()
    except InputError:
        return False
    return True
