"""nn.MultiheadAttention with its projections apart: three Linear layers in the place of one packed
parameter, so that heads can be cut, and layers factorized, as those of any other attention.

Notation: n samples, t queries, s keys, E width, H heads of d channels; T [H] what a head gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..errors import StoreError
from .groups import owners
from .hooks import slow_attention
from .swaps import plain_tensors, swap

if TYPE_CHECKING:
    from .package import Package


class Attention(nn.Module):
    """Computes what an nn.MultiheadAttention computes, and is called as it is. Its heads need not
    fill its width."""

    # what torch's transformer layers ask before they fuse: these may not
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, of: nn.MultiheadAttention) -> None:
        super().__init__()
        weight = of.out_proj.weight
        like: dict[str, Any] = {"bias": of.in_proj_bias is not None, "device": weight.device, "dtype": weight.dtype}
        self.embed_dim, self.num_heads, self.head_dim = of.embed_dim, of.num_heads, of.head_dim
        self.dropout, self.batch_first = of.dropout, of.batch_first
        self.q_proj = nn.Linear(of.embed_dim, of.embed_dim, **like)
        self.k_proj = nn.Linear(of.kdim or of.embed_dim, of.embed_dim, **like)
        self.v_proj = nn.Linear(of.vdim or of.embed_dim, of.embed_dim, **like)
        self.out_proj = nn.Linear(of.embed_dim, of.embed_dim, bias=of.out_proj.bias is not None, **_without_bias(like))
        self._take(of)
        self.train(of.training)

    def _take(self, of: nn.MultiheadAttention) -> None:
        packed = of.in_proj_weight
        weights = (of.q_proj_weight, of.k_proj_weight, of.v_proj_weight) if packed is None else packed.chunk(3)
        biases = (None,) * 3 if of.in_proj_bias is None else of.in_proj_bias.chunk(3)
        learns = [(packed if packed is not None else w).requires_grad for w in weights]
        with torch.no_grad():
            layers = (self.q_proj, self.k_proj, self.v_proj)
            for layer, weight, bias, learn in zip(layers, weights, biases, learns, strict=True):
                layer.weight.copy_(weight)
                layer.weight.requires_grad_(learn)
                if bias is not None:
                    layer.bias.copy_(bias)
                    layer.bias.requires_grad_(of.in_proj_bias.requires_grad)
            for name, p in of.out_proj.named_parameters():
                self.out_proj.get_parameter(name).copy_(p)
                self.out_proj.get_parameter(name).requires_grad_(p.requires_grad)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention.forward: query [n, t, E], or [t, n, E], or [t, E]."""
        single = query.ndim == 2
        if single:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = (self._heads(layer(x)) for layer, x in self._asked(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q)
        rate = self.dropout if self.training else 0.0
        scores = None
        if need_weights:
            scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
            scores = F.dropout(torch.softmax(scores if mask is None else scores + mask, -1), rate)
            y = scores @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, rate)
        out = self.out_proj(y.transpose(1, 2).flatten(2))
        if scores is not None and average_attn_weights:
            scores = scores.mean(1)
        if single:
            return out[0], None if scores is None else scores[0]
        return (out if self.batch_first else out.transpose(0, 1)), scores

    def _asked(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[tuple[nn.Linear, Tensor], ...]:
        return (self.q_proj, query), (self.k_proj, key), (self.v_proj, value)

    def _heads(self, x: Tensor) -> Tensor:
        """[n, t, H d] as [n, H, t, d]."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, asked: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """What is added to scores [n, H, t, s]; bool masks are true where nothing is seen."""
        out = None
        if asked is not None:
            out = _added(asked, q)
            if out.ndim == 3:  # [n H, t, s], of the heads that there were
                if out.shape[0] != q.shape[0] * self.num_heads:
                    raise ValueError("a mask for each head does not fit heads that were cut")
                out = out.reshape(q.shape[0], self.num_heads, *out.shape[1:])
        if padding is not None:
            hidden = _added(padding, q)[:, None, None, :]
            out = hidden if out is None else out + hidden
        return out


def _added(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(mask, float("-inf"))
    return mask.to(q.dtype)


def _without_bias(like: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in like.items() if k != "bias"}


def put_apart(module: nn.Module, path: str) -> None:
    """An `Attention` in the place of the nn.MultiheadAttention at `path`, with its weights. In
    place."""
    packed = module.get_submodule(path)
    if not isinstance(packed, nn.MultiheadAttention):
        raise StoreError("no packed attention in this model", got=f"{path}: {type(packed).__name__}")
    swap(module, packed, Attention(packed))
    plain_tensors(module)


def apart(model: Package, inputs: Callable[[], tuple[Tensor, ...]]) -> Package:
    """The package with the projections of every nn.MultiheadAttention apart: another object if
    there are any. Those stay packed that add rows to keys and values, share parameters with others,
    have zeros that the package claims, or without which the model does not give the same on
    `inputs()` (its code reads what is packed)."""
    held = owners(model.module)
    sparse = {name.rpartition(".")[0] for name in model.sparse}
    edits = [
        {"edit": "put_apart", "path": path}
        for path, m in model.module.named_modules()
        if path and type(m) is nn.MultiheadAttention and _plain(m) and path not in sparse and _alone(m, held)
    ]
    if not edits:
        return model
    rows = inputs()
    module = _tried(model, edits, rows)
    if module is None:
        edits = [one for one in edits if _tried(model, [one], rows) is not None]
        module = _tried(model, edits, rows) if edits else None
    if module is None:
        return model
    return model.edited(module=module).restructured(*edits)


def _tried(model: Package, edits: list[dict[str, str]], inputs: tuple[Tensor, ...]) -> nn.Module | None:
    """A copy of the module with these apart; None if it does not give the same."""
    module = model.copied().eval()
    for one in edits:
        put_apart(module, one["path"])
    with torch.no_grad(), slow_attention():
        want = model.module(*inputs)
        try:
            got = module(*inputs)
        except Exception:  # whatever the model's own code raises
            return None
    same = isinstance(got, Tensor) and got.shape == want.shape
    return module if same and torch.allclose(got, want, rtol=1e-3, atol=1e-4, equal_nan=True) else None


def _plain(m: nn.MultiheadAttention) -> bool:
    hooked = any(part._forward_hooks or part._forward_pre_hooks or is_parametrized(part) for part in m.modules())
    return m.bias_k is None and m.bias_v is None and not m.add_zero_attn and not hooked


def _alone(m: nn.MultiheadAttention, held: Any) -> bool:
    return all(len(held[id(p)]) == 1 for p in m.parameters())
