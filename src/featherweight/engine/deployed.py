"""What an artifact's folder holds for who deploys it, besides the model: what its inputs are made
of, what its outputs mean, a sample with the output that it has to give, and a program that asks it.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..deploy import predict
from ..errors import InputError
from ..store.manifest import sound
from ..targets.base import Target
from ..task.task import Task
from ..task.tensors import as_tensor
from ..train.forms import fitting_form

FORMAT = 1
_ASKED = 64  # training samples on which the loss is asked what outputs stand for
# how far the sample's output may be off elsewhere, as a share of its largest value: integer kernels
# differ between processors
_FLOAT, _INTEGER = 1e-3, 0.1
_READERS = {"image": "pillow", "text": "tokenizers", "words": "tokenizers"}


def write_deployment(task: Task, artifact: Path, target: Target, to: Path) -> None:
    """deployment.json, sample.npz, predict.py and requirements.txt, and what the task adds (a
    tokenizer), into a folder."""
    manifest = sound(artifact)
    prepare = task.deploy(to) if task.deploy is not None else {"kind": "arrays"}
    spec = {
        "format": FORMAT,
        "task": task.name,
        "runtime": target.runtime,
        "file": _main_file(manifest),
        "threads": target.threads,
        "batch": target.batch,
        **target.load_runtime().deployed(target),
        "inputs": manifest["inputs"],
        "output": _output(task),
        "prepare": prepare,
        "tolerance": _FLOAT if not manifest["export"].get("quantization") and target.dtype == "fp32" else _INTEGER,
    }
    (to / predict.SPEC).write_text(json.dumps(spec, indent=1, ensure_ascii=False), encoding="utf-8")
    inputs, _ = task.splits().train.batch(np.array([0]))
    session = target.load_runtime().load(artifact, target, target.batch)
    output = predict.Model(to, session.run).outputs(inputs)
    kept: dict[str, Any] = {"output": output, **{f"input.{k}": v for k, v in inputs.items()}}
    np.savez(to / predict.SAMPLE, **kept)
    if target.runtime in predict.RUNTIMES:  # a plug-in's runs by `featherweight predict`
        shutil.copyfile(Path(predict.__file__), to / "predict.py")
        (to / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements(target, prepare)))


def _main_file(manifest: dict[str, Any]) -> str:
    """The file that the runtime is given; others, as weights, lie beside it."""
    named = manifest["export"].get("files") or sorted(manifest["files"])
    return str(named[0])


def _output(task: Task) -> dict[str, Any]:
    """{"means": logits, probabilities, labels, label probabilities, frames, numbers; "labels":
    names; "class_axis": of outputs with several places}."""
    report = task.splits().report
    names = report.get("class_names")
    axis = {} if task.class_axis is None else {"class_axis": task.class_axis}
    return {"means": _means(task), **({"labels": list(names)} if names else {}), **axis}


def _means(task: Task) -> str:
    train = task.splits().train
    inputs, targets = train.batch(np.arange(min(_ASKED, len(train))))
    with torch.no_grad():
        out = task.build()(*[as_tensor(v[:2]) for v in inputs.values()]) if task.model is not None else None
    several = np.ndim(targets) > 1 and targets.shape[1:] != (1,)
    if task.loss == "ctc":
        return "frames"
    if out is not None and out.ndim > 2 and np.ndim(targets) == out.ndim - 1 and np.size(targets[0]) < out[0].numel():
        several = False  # a class at each place
    if task.loss == "log_loss" or str(task.metric).endswith("@0.5"):
        return "label probabilities" if several else "probabilities"
    shape = tuple(out.shape[1:]) if out is not None else (task.outputs,)
    try:
        form, _ = fitting_form(task.loss, shape, as_tensor(np.asarray(targets)), task.axis_of_classes)
    except InputError:  # a loss of the user's that gives no gradients on made-up outputs
        return "numbers"
    if form == "softmax":
        return "logits"
    if form == "bernoulli":
        return "labels" if several else "logits"
    return "numbers"


def _requirements(target: Target, prepare: dict[str, Any]) -> list[str]:
    """Packages, of the versions that are installed here."""
    names = ["numpy", target.runtime, *([_READERS[prepare["kind"]]] if prepare["kind"] in _READERS else [])]
    out = []
    for name in names:
        try:
            out.append(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:  # a plug-in's runtime, called otherwise than its package
            out.append(name)
    return out
