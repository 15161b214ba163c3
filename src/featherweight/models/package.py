"""A model on its way through a recipe: an ordinary torch module, how it differs from what its builder makes, and its plan.

Saved as architecture spec (JSON) + safetensors. Nothing is pickled, so a saved package can be opened without trust.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError

if TYPE_CHECKING:
    from torch import nn

SPEC, WEIGHTS = "spec.json", "model.safetensors"


@dataclass(frozen=True)
class Package:
    """module: in eval mode, on the CPU; keeps: [[path of a ModuleList or Sequential, kept indices], ...] in the order
    applied; plan: how the target must quantize (`transforms.quantize`), or None; notes: what each step reports."""

    module: nn.Module
    keeps: tuple[tuple[str, tuple[int, ...]], ...] = ()
    plan: dict[str, Any] | None = None
    notes: tuple[dict[str, Any], ...] = field(default=())

    def edited(self, **changes: Any) -> Package:
        return replace(self, **changes)

    def noted(self, **note: Any) -> Package:
        """This package with one more report of a step."""
        return replace(self, notes=(*self.notes, note))

    def save(self, folder: Path, build: Callable[[], nn.Module]) -> None:
        """Write `spec.json` and `model.safetensors` into an existing folder. `build`: what makes the unedited model."""
        import safetensors.torch

        from .surgery import differences

        fresh = build()
        spec = {"format": 1, "keeps": self.keeps, "edits": differences(fresh, self.module, self.keeps), "plan": self.plan, "notes": self.notes}
        (folder / SPEC).write_text(json.dumps(spec, indent=1))
        safetensors.torch.save_model(self.module, str(folder / WEIGHTS))

    @classmethod
    def load(cls, folder: Path, build: Callable[[], nn.Module]) -> Package:
        """Read what `save` wrote. StoreError if the files do not belong to what `build` makes."""
        import safetensors
        import safetensors.torch

        from .surgery import rebuild

        try:
            spec = json.loads((folder / SPEC).read_text())
            with safetensors.safe_open(str(folder / WEIGHTS), framework="pt") as f:
                shapes = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118 (no mapping)
            keeps = tuple((path, tuple(index)) for path, index in spec["keeps"])
            module = rebuild(build(), keeps, spec["edits"], shapes)
            safetensors.torch.load_model(module, str(folder / WEIGHTS), strict=True)
        except (OSError, KeyError, ValueError, AttributeError, RuntimeError, safetensors.SafetensorError) as e:
            raise StoreError(
                "this saved model cannot be loaded", got=f"{folder}: {e}", fix="was the model's builder changed since it was saved?"
            ) from e
        return cls(module.eval(), keeps, spec["plan"], tuple(spec["notes"]))
