"""Weight-level pruning: which weights become zero, and SparseGPT's update of those that stay.

Notation: w weight [O, I, *k] of a layer, s its scores (large: the weight matters), mask True where
a weight is to be zero; G convolution groups, n = I * k inputs of a row; N:M: at most N of M
consecutive inputs of a row are not zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..registry import find
from .computed import computed
from .coupling import output_layers
from .criteria.base import Criterion, Seen
from .hooks import watched
from .observe import Batches, observe
from .sparsegpt import nm_mask, sparsegpt


def parse_pattern(granularity: str) -> tuple[int, int] | None:
    """`weight` -> None; `2:4` -> (2, 4). InputError for anything else."""
    if granularity == "weight":
        return None
    found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", granularity)
    n, m = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < n < m:
        raise InputError(
            "this is no granularity of weight pruning",
            got=repr(granularity),
            allowed="weight, or N:M with 0 < N < M such as 2:4",
        )
    return n, m


def lowest(scores: list[Tensor], count: int) -> list[Tensor]:
    """Masks of the `count` lowest of all scores together; among equal ones, the first.
    scores: tensors of any shapes, finite."""
    if count <= 0:
        return [torch.zeros_like(s, dtype=torch.bool) for s in scores]
    cut = torch.cat([s.flatten() for s in scores]).kthvalue(count).values
    ties = count - sum(int((s < cut).sum()) for s in scores)
    masks = []
    for s in scores:
        equal = (s == cut).flatten()
        taken = equal & (equal.cumsum(0) <= ties)
        ties -= int(taken.sum())
        masks.append((s < cut) | taken.reshape(s.shape))
    return masks


def ratio_mask(scores: Tensor, ratio: float, *, by_row: bool = False) -> Tensor:
    """The mask of the lowest `ratio` of the scores [O, ...] of one layer, to the nearest whole
    number; `by_row`: of each output's."""
    if not by_row:
        return lowest([scores], round(ratio * scores.numel()))[0]
    rows = scores.flatten(1)  # [O, n]
    count = round(ratio * rows.shape[1])
    order = rows.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order, True).reshape(scores.shape)


def pattern_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """The mask that keeps the `n` highest scores in each run of `m` consecutive inputs
    (Mishra et al. 2021, arXiv:2104.08378).

    scores: [O, I, *k]. The runs of a convolution lie along its input channels, at each kernel
    position and in each convolution group on their own; a last run of fewer than `m` keeps `n` too,
    or all it has.
    """
    last = scores.movedim(1, -1)  # [O, *k, I]
    return nm_mask(last.reshape(-1, last.shape[-1]), n, m).reshape(last.shape).movedim(-1, 1)


def layers_of(module: nn.Module, inputs: tuple[Tensor, ...], *, called: bool) -> dict[str, nn.Module]:
    """{path: layer} of the Linear and convolution layers to prune: each weight once, without the
    layers that make the model's output, weights that are computed from others, and weights that are
    shared with those layers or with layers of other kinds (embeddings). called: only layers that
    the model calls."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    ran: set[nn.Module] = set()
    before = {path: lambda m, _: ran.add(m) for path, m in module.named_modules() if isinstance(m, kinds)}
    mode = {m: m.training for m in module.modules()}
    try:
        with torch.no_grad(), watched(module, before=before):
            outputs = output_layers(module.eval(), inputs)
    finally:
        for m, training in mode.items():
            m.training = training
    taken = {
        id(p) for m in module.modules() if not isinstance(m, kinds) or m in outputs for p in m.parameters(recurse=False)
    }
    found: dict[str, nn.Module] = {}
    for path, m in module.named_modules():
        if (
            isinstance(m, kinds)
            and not computed(m)
            and m not in outputs
            and id(m.weight) not in taken
            and (m in ran or not called)
        ):
            taken.add(id(m.weight))
            found[path] = m
    return found


def sparsify(
    module: nn.Module,
    *,
    granularity: str = "weight",
    ratio: float = 0.5,
    threshold: float = 0.0,
    criterion: str = "magnitude",
    scope: str = "global",
    update: bool = False,
    batches: Batches,
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None,
    rng: torch.Generator,
    max_bytes: int = 2**30,
) -> dict[str, float]:
    """Set weights of `module` to zero, in place: {layer path: its share of zeros}. Zeros that are
    there stay and count towards the ratio.

    granularity: `weight`, or an N:M pattern such as `2:4`, which fixes the ratio by itself (`ratio`
    and `scope` have no say).
    ratio: share of the weights, of each layer (scope `uniform`; of each row where the criterion
    compares by row) or of all (`global`).
    threshold: above 0, all |w| < threshold go, and `ratio` must be 0. criterion: a kind of
    `models.criteria` that scores weights. Under `global`, scores that are not comparable over
    layers are divided by their layer's mean; one float32 score a weight is held.
    update: SparseGPT (criterion `obs`): the weights that stay are adjusted; layers observed in a
    later pass (max_bytes) see the earlier ones already pruned. Without it all scores are those of
    the model as it came.
    Layers: `layers_of`; where the criterion has to see inputs or outputs, only those that
    the model calls.

    InputError: settings that contradict each other, a criterion of whole channels, no batches, and
    whatever `observe` refuses.
    """
    pattern = parse_pattern(granularity)
    judge: Criterion = find("models.criteria", criterion)()
    _check(pattern, ratio, threshold, criterion, scope, update, judge)
    first = next(iter(batches()), None)
    if first is None:
        raise InputError(
            "weights cannot be pruned without seeing the model run", got="no batches", fix="give at least one batch"
        )
    by_size = threshold > 0
    seen_needs = frozenset({"hessian"}) if update else frozenset[str]() if by_size else judge.needs
    layers = layers_of(module, tuple(first[0]), called=bool(seen_needs - {"gradient"}))

    def watch(needs: frozenset[str]) -> Iterator[tuple[str, Seen]]:
        return observe(module, layers, needs, batches, loss_fn, max_bytes=max_bytes)

    def score(seen: Seen) -> Tensor:  # zeros that are there rank below everything
        return judge.score(seen, rng).masked_fill(seen.weight == 0, -1.0)

    masks: dict[str, Tensor] = {}
    ratios = dict.fromkeys(layers, ratio)
    if by_size:
        masks = {path: seen.weight.abs() < threshold for path, seen in watch(frozenset())}
    elif pattern and not update:
        masks = {path: pattern_mask(score(seen), *pattern) for path, seen in watch(judge.needs)}
    elif not pattern and scope == "global":
        masks = _globally({path: score(seen) for path, seen in watch(judge.needs)}, ratio, judge.comparable)
        ratios = {path: float(mask.float().mean()) for path, mask in masks.items()}
    elif not update:
        masks = {path: ratio_mask(score(seen), ratio, by_row=judge.by_row) for path, seen in watch(judge.needs)}
    if update:
        for path, seen in watch(seen_needs):
            _update(layers[path], seen.need("hessian"), pattern, ratios[path], masks[path] if by_size else None)
    else:
        for path, mask in masks.items():
            _weight(layers[path]).masked_fill_(mask, 0.0)
    return {path: float((_weight(layer) == 0).float().mean()) for path, layer in layers.items()}


def _check(
    pattern: Any, ratio: float, threshold: float, criterion: str, scope: str, update: bool, judge: Criterion
) -> None:
    if scope not in ("global", "uniform"):
        raise InputError("no such scope", got=repr(scope), allowed="global, uniform")
    if not 0 <= ratio <= 1:
        raise InputError("the ratio is out of range", got=ratio, allowed="0 to 1")
    if not threshold >= 0:
        raise InputError("the threshold is out of range", got=threshold, allowed="0 or more")
    if threshold > 0 and (ratio or pattern):
        raise InputError(
            "a threshold decides by itself how many weights go",
            got=f"threshold={threshold}, ratio={ratio}, pattern={pattern}",
            fix="set ratio=0 and granularity='weight', or threshold=0",
        )
    if update and criterion != "obs":
        raise InputError(
            "updating the weights that stay is part of OBS",
            got=f"criterion={criterion!r}",
            fix="set criterion='obs', or update=False",
        )
    if not judge.per_weight:
        raise InputError(
            "this criterion judges whole channels, not weights",
            got=criterion,
            fix="use magnitude, taylor, wanda or obs",
        )


def _globally(scores: dict[str, Tensor], ratio: float, comparable: bool) -> dict[str, Tensor]:
    """One ranking over all layers. The scores are used up."""
    if not scores:
        return {}
    if not comparable:
        for s in scores.values():
            s.div_(s.clamp(min=0).mean().clamp(min=1e-30)).masked_fill_(s < 0, -1.0)
    total = sum(s.numel() for s in scores.values())
    return dict(zip(scores, lowest(list(scores.values()), round(ratio * total)), strict=True))


def _weight(layer: Any) -> Tensor:
    return layer.weight.detach()  # type: ignore[no-any-return]


def _update(
    layer: nn.Module, hessian: Tensor, pattern: tuple[int, int] | None, ratio: float, mask: Tensor | None
) -> None:
    """SparseGPT on one layer, group by group; columns are put in the order (position, input) so
    that N:M runs lie along inputs."""
    w = _weight(layer)
    groups, inputs, n = len(hessian), w.shape[1], hessian.shape[-1]
    order = torch.arange(n, device=w.device).reshape(inputs, -1).T.flatten()
    rows = w.float().reshape(groups, -1, n)  # [G, O / G, n]; a copy, or the weight itself
    chosen = None if mask is None else mask.reshape(rows.shape)
    new, size = torch.empty_like(rows), rows[0].numel()
    for g in range(groups):
        part = None if chosen is None else chosen[g][:, order]
        # so that the groups add up to the layer's ratio
        count = round(ratio * size * (g + 1)) - round(ratio * size * g)
        share = 0.0 if pattern else count / max(size, 1)
        h = hessian[g][order][:, order]
        new[g][:, order] = sparsegpt(rows[g][:, order], h, ratio=share, pattern=pattern, mask=part, run=inputs)
    w.copy_(new.reshape(w.shape))
