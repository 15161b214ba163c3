"""The bi-level loop of DARTS and its Gumbel variant. Notation and sources as in `relax.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..seeding import derive, generator
from ..space import Filling
from ..task.data import Split
from ._bilevel import Loss, largest_eigenvalue, unrolled_gradient
from ._guards import hessian_verdict, skip_verdict
from .loop import batches, tensors
from .relax_settings import Relax, Report

Batch = tuple[list[Tensor], Tensor]


def search_mixtures(
    loss_fn: Any,
    net: Any,
    inner: Split,
    outer: Split,
    s: Relax,
    seed: int,
    report: Report,
    costs: Mapping[str, Sequence[float]] | None = None,
) -> tuple[list[tuple[Filling, float]], list[dict[str, Any]]]:
    """(the `top` fillings with sum log p, the log). Weights learn on `inner`, alphas on `outer`."""
    search = _Search(loss_fn, net.to(s.device).train(), outer, s, seed, costs)
    log: list[dict[str, Any]] = []
    kept, eigenvalues = [search.alphas_now()], list[float]()
    began = time.monotonic()
    for epoch in range(s.epochs):
        if s.minutes is not None and epoch and time.monotonic() - began > 60 * s.minutes:
            log.append({"event": "out of time", "epoch": epoch, "minutes": s.minutes})
            break
        entry = search.epoch(epoch, inner)
        kept.append(search.alphas_now())
        if s.hessian:
            eigenvalues.append(search.eigenvalue())
            entry["eigenvalue"] = eigenvalues[-1]
        log.append(entry)
        report({"step": "relax", "epoch": epoch + 1, "of": s.epochs, "loss": entry["loss"]})
        moved = epoch >= s.warmup
        verdict = skip_verdict(entry["p"], net.options, s.most_skips) if moved else None
        verdict = verdict or hessian_verdict(eigenvalues[s.warmup :], s.window, s.ratio)
        if verdict is not None:
            search.restore(kept[-1 - verdict["keep"]])
            log.append(
                {"event": "stopped", "epoch": epoch + 1, **verdict, "alphas of epoch": len(kept) - 1 - verdict["keep"]}
            )
            break
    found = net.to("cpu").eval().ranked(s.top)
    log.append({"event": "derived", "filling": found[0][0], "score": found[0][1]})
    return found, log


class _Search:
    def __init__(
        self, loss_fn: Any, net: Any, outer: Split, s: Relax, seed: int, costs: Mapping[str, Sequence[float]] | None
    ) -> None:
        self.loss_fn, self.net, self.s, self.outer = loss_fn, net, s, outer
        self.alphas, self.weights = net.arch_parameters(), net.weight_parameters()
        self.w_optimizer = torch.optim.SGD(self.weights, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
        # DARTS, appendix A.1.1
        self.a_optimizer = torch.optim.Adam(self.alphas, lr=s.alpha_lr, betas=(0.5, 0.999), weight_decay=s.alpha_decay)
        self.noise = torch.Generator().manual_seed(derive(seed, "gumbel") % 2**63)
        self.rng_w, self.rng_a = generator(seed, "relax", "inner"), generator(seed, "relax", "outer")
        self.power_seed = derive(seed, "hessian")
        self.costs = self._costs(costs)
        self.dearest = sum((float(c.max()) for c in self.costs.values()), 0.0)
        self.valid = self._forever()

    def epoch(self, number: int, inner: Split) -> dict[str, Any]:
        """One pass over the weights' samples, a step of the alphas before each of the weights
        (DARTS, Algorithm 1)."""
        s = self.s
        rate = 0.5 * s.lr * (1 + math.cos(math.pi * number / s.epochs))
        done = number / max(1, s.epochs - 1)
        # GDAS, section 4.2: linear
        tau = s.temperature[0] + (s.temperature[1] - s.temperature[0]) * done
        for group in self.w_optimizer.param_groups:
            group["lr"] = rate
        total, seen, outer = 0.0, 0, math.nan
        for inputs, targets, _ in batches(inner, s.batch_size, self.rng_w, s.device):
            batch = (inputs, targets)
            if number >= s.warmup:
                outer = self.alpha_step(batch, next(self.valid), rate if s.unrolled else 0.0, tau)
            loss = self.loss(batch, self.mix(tau, learn=False))
            self.w_optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.weights, 5.0)
            self.w_optimizer.step()
            total, seen = total + float(loss.detach()) * len(targets), seen + len(targets)
        mean = total / max(seen, 1)
        if not math.isfinite(mean):
            raise InputError(
                "the supernet diverged",
                got=f"loss {mean} in epoch {number + 1}",
                fix=f"lower the learning rate (now {s.lr})",
            )
        entry = {
            "event": "epoch",
            "epoch": number + 1,
            "loss": mean,
            "p": {k: p.tolist() for k, p in self.net.probabilities().items()},
        }
        if math.isfinite(outer):
            entry["outer_loss"] = outer
        if self.costs:
            entry["expected_cost"] = float(self.expected().detach())
        return entry

    def alpha_step(self, inner: Batch, outer: Batch, xi: float, tau: float) -> float:
        """One step of Adam along the bi-level gradient; the loss of the alphas' batch."""
        noise = self.noise.get_state()

        def at(batch: Batch, extra: bool) -> Loss:
            def loss() -> Tensor:
                self.noise.set_state(noise)  # the same draw for every loss of this step
                out = self.loss(batch, self.mix(tau, learn=True))
                return out + self.penalty() if extra else out

            return loss

        grads, value = unrolled_gradient(at(inner, False), at(outer, True), self.weights, self.alphas, xi)
        for a, g in zip(self.alphas, grads, strict=True):
            a.grad = g
        self.a_optimizer.step()
        return value

    def mix(self, tau: float, learn: bool) -> dict[str, Tensor]:
        """m of every hole: p (darts), or one-hot of argmax(log p + g) with the gradient of
        softmax((log p + g) / tau) (gumbel; GDAS, eq. 5-7)."""
        if self.s.method == "darts":
            p: dict[str, Tensor] = self.net.probabilities()
            return p if learn else {k: v.detach() for k, v in p.items()}
        out = {}
        for path, a in zip(self.net.options, self.alphas, strict=True):
            u = torch.rand(a.shape, generator=self.noise).clamp(1e-9, 1 - 1e-7).to(a.device)
            soft = torch.softmax((torch.log_softmax(a, 0) - torch.log(-torch.log(u))) / tau, 0)
            hard = torch.zeros_like(soft).index_fill_(0, soft.argmax(), 1.0)
            out[path] = hard - soft.detach() + soft if learn else hard
        return out

    def loss(self, batch: Batch, mix: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.loss_fn(self.net(*batch[0], mix), batch[1])
        return loss

    def expected(self) -> Tensor:
        """E_p[cost] as a share of the dearest path's: a sum over the edges
        (ProxylessNAS, eq. 2)."""
        p = self.net.probabilities()
        total = torch.stack([(p[k] * c).sum() for k, c in self.costs.items()]).sum()
        return total / self.dearest if self.dearest > 0 else total

    def penalty(self) -> Tensor | float:
        if not self.costs or self.s.cost_weight == 0:
            return 0.0
        return self.s.cost_weight * torch.relu(self.expected() - self.s.cost_target)

    def eigenvalue(self) -> float:
        """Of the Hessian of the loss of the first batch of the alphas' samples,
        at the mixture p (R-DARTS, section 4.1)."""
        index = generator(0).permutation(len(self.outer))[: self.s.batch_size]
        loss = self.loss(tensors(self.outer, index, self.s.device), self.net.probabilities())
        return largest_eigenvalue(loss, self.alphas, self.power_seed)

    def alphas_now(self) -> list[Tensor]:
        return [a.detach().clone() for a in self.alphas]

    def restore(self, alphas: list[Tensor]) -> None:
        with torch.no_grad():
            for a, value in zip(self.alphas, alphas, strict=True):
                a.copy_(value)

    def _forever(self) -> Iterator[Batch]:
        while True:
            for inputs, targets, _ in batches(self.outer, self.s.batch_size, self.rng_a, self.s.device):
                yield inputs, targets

    def _costs(self, given: Mapping[str, Sequence[float]] | None) -> dict[str, Tensor]:
        if given is not None:
            wrong = {k for k, o in self.net.options.items() if len(given.get(k, ())) != len(o)} | (
                set(given) - set(self.net.options)
            )
            if wrong:
                raise InputError(
                    "costs need one number for each option of each hole",
                    got=sorted(wrong),
                    allowed=dict(self.net.options),
                )
            found = {k: torch.tensor([float(v) for v in given[k]]) for k in self.net.options}
        elif self.s.cost is not None:
            image = next(iter(self.outer.batch(generator(0).permutation(1))[0].values()))
            found = self.net.costs(image.shape[1:], self.s.cost)
        elif self.s.cost_weight > 0:
            raise InputError(
                "a cost weight needs a cost",
                got=f"cost_weight={self.s.cost_weight}",
                fix='cost="macs", or costs={hole: [..]}',
            )
        else:
            return {}
        return {k: v.to(self.s.device) for k, v in found.items()}
