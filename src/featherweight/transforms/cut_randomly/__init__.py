"""CutRandomly: cut at random, keep the cuts that do not hurt.

Random search in the space of what may be left out: a proposal removes a few units (coupled
channels, or whole blocks) drawn at random and is kept if the model is no worse for it. It is the
control that every cleverer criterion has to beat (Mittal et al. 2018,
"Recovering from random pruning", arXiv:1801.10447), here with a test after each cut.

Notation: G groups of units that can be cut, an item (g, u) is unit u of group g, n items in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...recipe import Made, Mark, Shape, Transform
from ...seeding import generator
from ...space import Choice, Float, Int, param
from ..base import Context
from ..shared.drop import baseline_scores, evaluate_drop

if TYPE_CHECKING:
    from torch import nn

    from ...models.package import Package

Item = tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """removed: the items cut, sorted; proposals: how many were tried; kept: how many of them;
    stopped: which rule ended it."""

    removed: tuple[Item, ...]
    proposals: int
    kept: int
    stopped: str


def cut_while_harmless(
    sizes: list[int],
    accept: Callable[[list[Item]], bool],
    ratio: float,
    share: float,
    patience: int,
    proposals: int,
    rng: np.random.Generator,
) -> Outcome:
    """Propose cuts until `ratio` of all items is gone, `patience` proposals in a row were refused,
    or `proposals` were made.

    sizes: [G] units in each group; accept: cuts the items proposed, for good if it says True.
    A proposal has share * n items (at least one, never more than the ratio allows), dealt from a
    shuffled deck of those left, so that every item is proposed before one is again. A group keeps
    one unit at least.
    """
    total = sum(sizes)
    target, size = int(ratio * total + 1e-9), max(1, round(share * total))
    removed: set[Item] = set()
    left, deck = list(sizes), _deck(sizes, removed, rng)
    made = kept = refused = 0
    while True:
        stopped = (
            "ratio"
            if len(removed) >= target
            else "patience"
            if refused >= patience
            else "proposals"
            if made >= proposals
            else ""
        )
        proposal = [] if stopped else _deal(deck, left, min(size, target - len(removed)))
        if not stopped and not proposal:  # the deck is used up: shuffle what is left
            deck = _deck(sizes, removed, rng)
            proposal = _deal(deck, left, min(size, target - len(removed)))
            stopped = "" if proposal else "nothing left"
        if stopped:
            return Outcome(tuple(sorted(removed)), made, kept, stopped)
        made += 1
        if accept(proposal):
            removed.update(proposal)
            for g, _ in proposal:
                left[g] -= 1
            kept, refused = kept + 1, 0
        else:
            refused += 1


def _deck(sizes: list[int], removed: set[Item], rng: np.random.Generator) -> Iterator[Item]:
    items = [(g, u) for g, n in enumerate(sizes) for u in range(n) if (g, u) not in removed]
    return iter([items[i] for i in rng.permutation(len(items))])


def _deal(deck: Iterator[Item], left: list[int], size: int) -> list[Item]:
    """The next `size` items (fewer at the deck's end) that leave one unit in each group."""
    proposal: list[Item] = []
    gone = [0] * len(left)
    for g, u in deck:
        if left[g] - gone[g] > 1:
            proposal.append((g, u))
            gone[g] += 1
        if len(proposal) == size:
            break
    return proposal


@dataclass(frozen=True)
class CutRandomly(Transform):
    """Cut random channels or blocks, a few at a time, and keep each cut after which the model is
    still no worse than `tolerance` allows.

    All damage counts together: every proposal is held against the incoming model, not against the
    one before. Channels are silent while they are tried and are cut from the model once, at the
    end; where a silent channel is not a missing one (layer norm) the layer is left whole.
    """

    version = 6

    says = "Remove random parts of the model and keep the removals that do not hurt"

    @property
    def refuses(self) -> dict[Mark, str]:
        return {
            Made.INTEGER_WEIGHTS: "channels and blocks must be cut before weights are bound to integer scales",
            Made.NM_PATTERN: "cutting inputs would move the zeros out of their groups",
        }

    @property
    def shape(self) -> Shape:
        return Shape.WEIGHTS

    ratio: float = param(
        0.3, search=Float(0.0, 0.8), legal=Float(0.0, 1.0), doc="share of the channels or blocks to remove at most"
    )
    unit: str = param("channel", search=Choice("channel", "block"), legal=Choice("channel", "block"), doc="what is cut")
    share: float = param(
        0.02,
        search=Float(0.005, 0.1, log=True),
        legal=Float(0.0, 1.0),
        doc="size of one proposal, as a share of all channels or blocks",
    )
    judge: str = param(
        "loss",
        search=Choice("loss", "metric"),
        legal=Choice("loss", "metric"),
        doc="what must not get worse: the loss on training batches, or the task's metric on the validation split",
    )
    tolerance: float = param(
        0.05,
        search=Float(1e-3, 1.0, log=True),
        legal=Float(0.0, 1e9),
        doc="how much worse than the incoming model, in all, in the judge's own unit",
    )
    patience: int = param(
        20, search=Int(3, 30), legal=Int(1, 1_000_000), doc="stop after so many proposals in a row that hurt"
    )
    proposals: int = param(100, legal=Int(1, 10_000_000), doc="proposals at most")
    batches: int = param(
        4, legal=Int(1, 100_000), doc="training batches of 64 that the loss is taken on, the same for all proposals"
    )

    def apply(self, model: Package, context: Context) -> Package:
        from ...models.attention import apart
        from ...models.surgery import names_of
        from ...models.zeros import holding
        from .cuts import BlockCuts, ChannelCuts

        model = apart(model, lambda: context.few(model.module)) if self.unit == "channel" else model
        module = model.copied().eval()
        inputs = context.few(module)
        sparse = [module.get_parameter(name) for name in model.sparse]
        cuts = ChannelCuts(module, inputs) if self.unit == "channel" else BlockCuts(module, inputs)
        harmless, report = self._judge(module, context)

        def accept(items: list[Item]) -> bool:
            undo = cuts.make(items)
            kept = harmless()
            if not kept:
                undo()
            return kept

        before = report()
        outcome = cut_while_harmless(
            cuts.sizes,
            accept,
            self.ratio,
            self.share,
            self.patience,
            self.proposals,
            generator(context.seed, "proposals"),
        )
        edits, done = cuts.finish()
        return (
            model.edited(
                module=module,
                sparse=holding(module, model.sparse) if self.unit == "channel" else names_of(module, sparse),
            )
            .restructured(*edits)
            .noted(
                step=self.kind,
                unit=self.unit,
                judge=self.judge,
                **done,
                removed=len(outcome.removed),
                of=sum(cuts.sizes),
                proposals=outcome.proposals,
                kept=outcome.kept,
                stopped=outcome.stopped,
                before=before,
                after=report(),
            )
        )

    def _judge(self, module: nn.Module, context: Context) -> tuple[Callable[[], bool], Callable[[], float]]:
        """(is the module as it is now no worse than at first?, its value now:
        mean loss or mean metric)."""
        if self.judge == "metric":
            first = baseline_scores(module, context)
            count = iter(range(self.proposals + 1))

            def still() -> bool:
                return evaluate_drop(module, first, context.child("race", next(count)), self.tolerance).held

            return still, lambda: float(np.mean(baseline_scores(module, context)))
        value = self._loss(module, context)
        limit = value() + self.tolerance
        return lambda: value() <= limit, value

    def _loss(self, module: nn.Module, context: Context) -> Callable[[], float]:
        """A function that gives the module's mean loss on `batches` training batches,
        always the same ones."""
        import torch

        from ...train.loop import tensors

        train = context.splits.train
        order = generator(context.seed, "loss").permutation(len(train))[: 64 * self.batches]

        def value() -> float:
            total = 0.0
            module.to(context.device)
            with torch.inference_mode():
                for start in range(0, len(order), 64):
                    x, y = tensors(train, order[start : start + 64], context.device)
                    total += float(context.task.loss_fn(module(*x), y)) * len(y)
            module.to("cpu")
            return total / len(order)

        return value
