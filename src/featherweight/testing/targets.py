"""What every runtime has to do: write files that give the model's outputs, at any batch, and say
what it cannot do before it tries.

Use it in the tests of a plug-in: `check_target(Target.parse("myruntime"), module, example)`.
It raises AssertionError with what went wrong.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..plan import Plan
from ..targets.base import Target

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_target(target: Target, module: nn.Module, example: dict[str, torch.Tensor], tolerance: float = 1e-3) -> None:
    """Export `module` (eval mode), load it at batch 1 and 3, and compare. example:
    one sample per input, batch 1."""
    import torch

    from ..models.package import Package

    runtime = target.load_runtime()
    assert str(Target.parse(str(target))) == str(target), "the target's text does not parse to itself"
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = runtime.export(Package(module), example, None, target, folder)
        files = [p for p in folder.iterdir() if p.is_file()]
        assert files, "the export wrote no file"
        assert "parity" in report, "the export does not report its parity with the PyTorch model"
        assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items()) and not module.training, (
            "the export changed the module"
        )
        for batch in (1, 3):
            rows = {k: torch.cat([v] * batch) for k, v in example.items()}
            with torch.inference_mode():
                wanted = module(*rows.values()).numpy()
            session = runtime.load(folder, target, batch)
            got = session.run({k: v.numpy() for k, v in rows.items()})
            turned = session.run({k: rows[k].numpy() for k in reversed(rows)})
            assert np.array_equal(got, turned), "inputs are told apart by their order, not by their names"
            assert got.shape == wanted.shape, f"batch {batch}: outputs {got.shape} where the model gives {wanted.shape}"
            scale = max(float(np.abs(wanted).max()), 1e-6)
            assert float(np.abs(got - wanted).max()) <= tolerance * scale, (
                f"batch {batch}: outputs differ from the model's"
            )
    odd = runtime.problem(
        target, Plan("no such scheme", bits=8, granularity="channel", group=0, symmetric=True, embeddings=32)
    )
    assert isinstance(odd, str) and odd, "a plan that nobody can realise is not refused"
