"""A model on its way through a recipe: an ordinary torch module, how it differs from what its
builder makes, and its plan.

Saved as architecture spec (JSON) + safetensors (weights, and the scales of the plan). Nothing is
pickled: a saved package needs no trust.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..errors import InputError, RecipeError, StoreError
from ..plain import read_json
from ..plan import Plan
from ..recipe import decode
from .copies import copied
from .surgery import differences, rebuild, resized

SPEC, WEIGHTS, SCALES = "spec.json", "model.safetensors", "scales.safetensors"


@dataclass(frozen=True)
class Package:
    """module: in eval mode, on the CPU; net: the architecture description that it was built from,
    as JSON, or None: the task's own builder; edits: what was done to its structure since, in order
    (`surgery.EDITS`); sparse: parameters that have zeros, which stay zero in every later step, or
    are claimed no more (`zeros.Zeros`); plan: how the target must quantize, or None;
    scales: the plan's tensors, by name; notes: what each step reports."""

    module: nn.Module
    net: dict[str, Any] | None = None
    edits: tuple[dict[str, Any], ...] = ()
    sparse: tuple[str, ...] = ()
    plan: Plan | None = None
    scales: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.plan, Plan | None):
            raise InputError(
                "a package's plan is a Plan",
                got=f"a {type(self.plan).__name__}: {self.plan!r:.200}",
                allowed="a featherweight.plan.Plan, or None",
                fix="build one; Plan.from_json makes one of JSON",
            )

    def copied(self) -> nn.Module:
        """A copy of the module, which a step may change."""
        return copied(self.module)

    def edited(self, **changes: Any) -> Package:
        return replace(self, **changes)

    def restructured(self, *edits: dict[str, Any]) -> Package:
        """This package with `edits` recorded; the module must have had them already
        (`surgery.edit`)."""
        return replace(self, edits=(*self.edits, *edits))

    def noted(self, **note: Any) -> Package:
        """This package with one more report of a step."""
        return replace(self, notes=(*self.notes, note))

    def told(self, **more: Any) -> Package:
        """This package with more in its last report."""
        return replace(self, notes=(*self.notes[:-1], self.notes[-1] | more))

    def save(self, folder: Path, build: Callable[[], nn.Module]) -> None:
        """Write `spec.json`, `model.safetensors` and, if there are scales, `scales.safetensors`
        into an existing folder.

        build: what makes the task's unedited model (a package with a `net` builds that)."""
        fresh = _fresh(self.net, build)
        sizes = differences(fresh, self.module, self.edits)
        plan = None if self.plan is None else self.plan.to_json()
        spec = {
            "format": 2,
            "net": self.net,
            "edits": self.edits,
            "sizes": sizes,
            "cut": resized(fresh, self.module),
            "sparse": self.sparse,
            "plan": plan,
            "notes": self.notes,
        }
        (folder / SPEC).write_text(json.dumps(spec, indent=1))
        safetensors.torch.save_model(self.module, str(folder / WEIGHTS))
        if self.scales:
            safetensors.torch.save_file({k: v.contiguous() for k, v in self.scales.items()}, str(folder / SCALES))
        for name in (WEIGHTS, SCALES):  # safetensors writes for the owner's eyes alone
            if (folder / name).exists():
                (folder / name).chmod((folder / SPEC).stat().st_mode & 0o777)

    @classmethod
    def load(cls, folder: Path, build: Callable[[], nn.Module]) -> Package:
        """Read what `save` wrote. StoreError if the files do not belong to what `build` makes."""
        try:
            spec = read_json(folder / SPEC)
            with safetensors.safe_open(str(folder / WEIGHTS), framework="pt") as f:
                shapes = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118 (no mapping)
            edits = tuple(spec["edits"])
            module = rebuild(_fresh(spec["net"], build), edits, spec["sizes"], shapes, spec.get("cut"))
            safetensors.torch.load_model(module, str(folder / WEIGHTS), strict=True)
            scales = safetensors.torch.load_file(str(folder / SCALES)) if (folder / SCALES).is_file() else {}
            plan = None if spec["plan"] is None else Plan.from_json(spec["plan"])
            package = cls(module.eval(), spec["net"], edits, tuple(spec["sparse"]), plan, scales, tuple(spec["notes"]))
        except StoreError:
            raise
        except (
            OSError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            RuntimeError,
            InputError,
            RecipeError,
            safetensors.SafetensorError,
        ) as e:
            raise StoreError(
                "this saved model cannot be loaded",
                got=f"{folder}: {e}",
                fix="was the model's builder changed since it was saved?",
            ) from e
        return package


def _fresh(net: dict[str, Any] | None, build: Callable[[], nn.Module]) -> nn.Module:
    """The unedited module that a package started from."""
    if net is None:
        return build()
    described = decode(net)
    return described.build()  # type: ignore[no-any-return]
