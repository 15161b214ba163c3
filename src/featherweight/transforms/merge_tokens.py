"""MergeTokens: behind a block, tokens that are alike become one, and later blocks have less to do.

Bolya et al. 2023, "Token Merging: Your ViT but Faster" (arXiv:2210.09461), who merge a few in every
layer; here the share goes in one place, as matching costs a small model nearly what a layer saves.
What follows the blocks sees as many tokens as before, so masks, pooling and answers at each token
stay as they are (Bolya & Hoffman 2023, arXiv:2303.17604, "unmerge"). `models/tokens.py` does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Float, param
from .base import FEW, Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package
    from ..models.tokens import Matched

_SAME = 1e-3  # of what an output's column spreads: rounding when tokens stand in another order
_FIX = "leave merge_tokens out of the recipe; Truncate shortens what the model is given"


@dataclass(frozen=True)
class Row:
    """path: of the blocks; tokens: how many each is given."""

    path: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class MergeTokens(Transform):
    """Merge a share of the tokens [n, t, d] before a block of each row of transformer layers.

    It is right only where layers do not care in which order tokens stand: that is tried, and
    InputError says so of others (windows, convolutions, causal masks, relative positions)."""

    says = "Merge tokens that are alike between layers"
    tried = True

    ratio: float = param(
        0.3,
        search=Choice(0.0, 0.125, 0.25, 0.375, 0.5),
        legal=Float(0.0, 0.5),
        doc="share of the tokens that are merged into others",
    )
    depth: float = param(
        0.5,
        search=Choice(0.25, 0.5, 0.75),
        legal=Float(0.0, 1.0),
        doc="share of the layers that still see all tokens",
    )

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the integer grids were chosen for tokens that were not merged"}

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS

    @property
    def idle(self) -> bool:
        return self.ratio == 0.0

    def apply(self, model: Package, context: Context) -> Package:
        from ..models.surgery import edit
        from .shared.entrance import problem

        if self.idle:
            return model.noted(step="merge_tokens", merged={})
        rows = tuple(v.cpu() for v in context.calibration(FEW).values())
        found, whole = rows_of(model.module, rows)
        if any(len(rows[0]) in row.tokens for row in found):  # a mask [t, t] would pass for one [n, t]
            rows = tuple(v[:-1] for v in rows)
            found, whole = rows_of(model.module, rows)
        edits: list[dict[str, Any]] = []
        for row in found:
            block = min(len(row.tokens) - 1, round(len(row.tokens) * self.depth))
            merged = min(round(row.tokens[block] * self.ratio), row.tokens[block] // 2 - 1)
            if merged < 1:
                whole[row.path] = f"it has {row.tokens[block]} tokens, too few to merge"
                continue
            if why := ordered(model, row.path, block, rows):
                whole[row.path] = why
                continue
            edits.append({"edit": "merge_tokens", "path": row.path, "block": block, "merged": merged})
        if not edits:
            raise InputError(
                "this model has no tokens to merge",
                got="; ".join(f"{path}: {why}" for path, why in whole.items()) or "no row of layers with tokens",
                allowed="two layers or more of one class in a ModuleList or Sequential, which take and give tokens "
                "[n, t, d], of which there are enough, and do not care in which order they stand",
                fix=_FIX,
            )
        module = model.copied().eval()
        for one in edits:
            edit(module, one)
        if why := problem(model.module, module, rows):
            raise InputError("this model does not run with fewer tokens", got=why, fix=_FIX)
        note = {e["path"]: [e["block"], e["merged"]] for e in edits}
        return (
            model.edited(module=module)
            .restructured(*edits)
            .noted(step="merge_tokens", merged=note, **({"whole": whole} if whole else {}))
        )


def rows_of(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Row], dict[str, str]]:
    """(rows of layers that run one after the other, each once, and take and give tokens [n, t, d];
    {path: why another row of layers is none}). Of rows in rows the outer one. One forward pass."""
    import torch
    from torch import nn

    from ..models.hooks import watched
    from ..models.tokens import merges

    seen: dict[str, list[tuple[int, Any]]] = {}
    n = len(inputs[0])

    def watch(path: str, i: int, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        x = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
        y = out[0] if isinstance(out, tuple) else out
        same = False
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) and x.ndim == y.ndim == 3 and len(x) == n:
            # a row that merges already gives back behind its last layer what it has merged
            same = x.shape == y.shape or (path in merging and x.shape[::2] == y.shape[::2])
        why = _odd(x, args, kwargs) if same else "its layers do not take and give tokens [n, t, d]"
        seen.setdefault(path, []).append((i, why if why else x.shape[1]))  # type: ignore[union-attr]

    after: dict[str, Any] = {}
    counts: dict[str, int] = {}
    merging = {path for path, m in module.named_modules() if merges(m)}
    for path, holder in module.named_modules():
        if not isinstance(holder, (nn.ModuleList, nn.Sequential)):
            continue
        children = dict(holder.named_children())
        if len(children) > 1 and len({type(c) for c in children.values()}) == 1 and list(holder[0].children()):
            counts[path] = len(children)
            after |= {f"{path}.{c}" if path else c: partial(watch, path, i) for i, c in enumerate(children)}
    with torch.inference_mode(), watched(module, after, with_kwargs=True):
        module(*inputs)
    found, whole = [], {}
    for path, calls in seen.items():
        if any(q != path and (q == "" or path.startswith(q + ".")) for q in seen):
            continue
        whys = [why for _, why in calls if isinstance(why, str)]
        if whys:
            whole[path] = whys[0]
        elif [i for i, _ in calls] != list(range(counts[path])):
            whole[path] = "its layers do not run one after the other, each once"
        elif len({t for _, t in calls}) > 1 and path not in merging:
            whole[path] = "its layers do not all have the same number of tokens"
        else:
            found.append(Row(path, tuple(t for _, t in calls)))
    return found, whole


def _odd(x: Any, args: Any, kwargs: Any) -> str | None:
    """Why a layer's other arguments do not fit fewer tokens; None if they do: masks, numbers."""
    import torch
    from torch.utils._pytree import tree_leaves

    from ..models.tokens import fits, unclear

    direct = [v for v in (*args, *kwargs.values()) if v is not x]
    for v in direct:
        inner = [t for t in tree_leaves(v) if isinstance(t, torch.Tensor)]
        if isinstance(v, torch.Tensor) and v.ndim and not fits(v, x):
            return f"its layers are given {list(v.shape)} beside tokens {list(x.shape)}, which is no mask"
        if isinstance(v, torch.Tensor) and unclear(v):
            return "its layers are given a mask of ones and zeros as floats: what hides a token is not clear"
        if not isinstance(v, torch.Tensor) and inner:
            return f"its layers are given tensors in a {type(v).__name__}, as positions that are turned into angles are"
    return None


def ordered(model: Package, path: str, block: int, inputs: tuple[Tensor, ...]) -> str | None:
    """Why tokens cannot be taken for one another from this block on: the outputs change if they
    stand in another order there and are put back behind the last block. None if they do not."""
    import torch

    from ..columns import spread
    from ..models.tokens import Matched, merge

    module = model.copied().eval()
    generator = torch.Generator().manual_seed(0)

    def shuffled(x: Tensor, sizes: Tensor | None) -> Matched:
        order = torch.stack([torch.randperm(x.shape[1], generator=generator) for _ in range(len(x))])
        return Matched(order, order.argsort(1), sizes)

    merge(module, path, block, shuffled)
    with torch.inference_mode():
        want = model.module(*inputs)
        try:
            got = module(*inputs)
        except Exception as e:  # whatever the model's own code raises
            return f"its layers fail on tokens in another order: {type(e).__name__}: {(str(e).splitlines() or [''])[0]}"
    if got.shape != want.shape:
        return f"its output would be {list(got.shape)}, and is {list(want.shape)}"
    off = ((got - want).abs().double().numpy() / (spread(want.double().numpy()) + 1e-12)).max()
    if not off <= _SAME:
        return "its layers give something else if tokens stand in another order"
    return None
