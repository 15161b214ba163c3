"""FoldBatchNorms: batch norms become part of the layers before them.

Runtimes do this when they load a file; as a step it comes before training, which then learns with
fixed statistics (small batches, few samples) and, before trained quantization, on the weights that
are deployed (Jacob et al. 2018, arXiv:1712.05877, section 3.2; Nagel et al. 2021, arXiv:2106.08295,
section 2.3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from .base import Context

if TYPE_CHECKING:
    from ..models.package import Package


@dataclass(frozen=True)
class FoldBatchNorms(Transform):
    """Fold each batch norm that alone reads a Linear or convolution into it: W <- gamma W / sigma,
    the rest into the layer's bias. The function stays as it is in eval mode; batch norms that stand
    elsewhere stay. InputError if none can be folded."""

    says = "Make batch norms part of the layers before them"
    tried = True

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the weights are bound to integer grids, which folding would move"}

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS

    def apply(self, model: Package, context: Context) -> Package:
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        from ..models.quant.fold import fold
        from ..models.quant.pairs import check_unchanged
        from ..models.quant.trace import trace
        from ..models.surgery import edit, names_of

        module = model.copied().eval()
        few = context.few(module)
        every = [path for path, m in module.named_modules() if isinstance(m, _BatchNorm)]
        # without a scale of its own a norm is no layer that is followed
        norms = trace(module, tuple(v[:2] for v in few)).batch_norms if every else {}
        if not norms:
            raise InputError(
                "there is no batch norm to fold",
                got=f"{', '.join(every[:5])}: behind no Linear or convolution that only the norm reads"
                if every
                else f"{type(module).__name__}, which has none",
                allowed="batch norms with a scale and running statistics, each right behind a Linear or convolution",
                fix="leave this step out",
            )
        sparse = [module.get_parameter(name) for name in model.sparse]
        with torch.no_grad():
            before = module(*few)
        fold(module, norms)
        edits = []
        for path, norm in norms.items():
            layer, shift = module.get_submodule(path), module.get_submodule(norm).bias.detach().clone()  # type: ignore[operator]
            own = layer.bias is not None
            edits.append({"edit": "fold_norm", "layer": path, "norm": norm})
            edit(module, edits[-1])
            if not own:
                layer.bias.data.copy_(shift)  # type: ignore[operator]
        try:
            with torch.no_grad():
                after = module(*few)
        except Exception as e:  # whatever the model's own code raises
            raise InputError(
                "the model's code reads its batch norms, so they cannot be folded",
                got=f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}",
                fix="leave this step out",
            ) from e
        check_unchanged(before, after, "folding batch norms")
        left = sorted(set(every) - set(norms.values()))
        return (
            model.edited(module=module, sparse=names_of(module, sparse))
            .restructured(*edits)
            .noted(step=self.kind, folded=len(norms), **({"left": left} if left else {}))
        )
