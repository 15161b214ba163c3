"""A model in a file, with data in a file: an ONNX model, a program of torch.export or a module in
Python code, and arrays."""

from __future__ import annotations

from pathlib import Path

from ...errors import TaskError
from ..accept import task_of
from ..files import parse_ref
from ..sources import local_sources
from ..task import Task


def model_file(
    model: str | Path,
    data: str | Path,
    *,
    loss: str | None = None,
    metric: str | None = None,
    label_column: str | None = None,
    output: str | int | None = None,
    epochs: int = 0,
    split_seed: int = 0,
) -> Task:
    """A task from an .onnx or .pt2 file or FILE.py:NET, and an .npz file (or .npy of inputs).

    The arrays of an .npz file are inputs by the model's own names; labels, label, target, targets,
    y or class holds the targets (label_column: another name). Without targets the model's own
    behaviour is kept. loss, metric: by name; by default what suits targets and outputs. output:
    which of several outputs counts, by name or place. epochs: of training for the baseline (0: the
    model comes trained). An ONNX file is converted by onnx2torch, and has to give the same, as
    has a program of torch.export.
    """
    code, file = ".py" in Path(model).name, Path(data).resolve()
    path, name = parse_ref(str(model), "net") if code else (Path(model), "")
    if not code and path.suffix not in (".onnx", ".pt2"):
        raise TaskError("this is no model file that can be read", got=str(model), allowed=".onnx, .pt2, or FILE.py:NET")
    full = f"{path.resolve()}:{name}" if code else str(path.resolve())
    made = task_of(
        full,
        file,
        loss=loss,
        metric=metric,
        label=label_column,
        output=output,
        baseline=epochs or None,
        name=f"{path.stem}-{file.stem}",
        split_seed=split_seed,
    )
    made.sources = (*(local_sources(path) if code else (path.resolve(),)), file)
    options = {"loss": loss, "metric": metric, "label_column": label_column, "output": output}
    made.ref = {
        "kind": "model-file",
        "options": {
            "model": full,
            "data": str(file),
            **{k: v for k, v in options.items() if v is not None},
            "epochs": epochs,
            "split_seed": split_seed,
        },
    }
    return made
