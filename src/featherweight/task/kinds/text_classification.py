"""Text classification: a Hugging Face directory and a table of texts and labels."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ...recipe import Recipe
from ..data import Batch, LazySplit
from ..task import Task
from ._pretrained import in_time, load_config, load_model, load_tokenizer, model_files, pad_token, token_limit
from ._table import labelled_texts, sorted_labels

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["classifier", "model_files", "sorted_labels", "text_classification", "tokenized"]

EPOCHS = 3
TOKENIZER = "tokenizer.json"
_TRIED = ["A text.", "Ünïcode, 123 & punctuation!  Two  spaces\tand a tab", "", "word " * 3000]


def text_classification(
    model: str | Path,
    data: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    max_length: int = 128,
    epochs: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A task from a Hugging Face directory and a .csv, .tsv, .jsonl or .parquet file.

    The model's own classification head is used if it has one output a class; otherwise its encoder
    with masked mean pooling and a new linear head. epochs: of fine-tuning for the baseline;
    by default 3, or 0 if the head is the model's own and its label names are those of the data
    (such a model is trained already).
    Texts are cut at `max_length` tokens and padded to the longest one, rounded up to
    a multiple of 8.
    """
    folder, file = Path(model).resolve(), Path(data).resolve()
    texts, labels = labelled_texts(file, text_column, label_column)
    config = load_config(folder)
    own_head = _has_head(config, len(set(labels)))
    classes, trained = _class_order(sorted_labels(labels), config if own_head else None)
    number = {name: i for i, name in enumerate(classes)}
    targets = np.array([number[v] for v in labels], dtype=np.int64)
    epochs = (0 if trained else EPOCHS) if epochs is None else epochs
    return Task(
        name=f"{folder.name}-{file.stem}",
        model=lambda: classifier(folder, len(classes), own_head=own_head),
        data=lambda: tokenized(folder, texts, targets, max_length, classes),
        prepared=(
            f"Each text goes through the tokenizer of {folder.name}, is cut at {max_length} tokens, and padded to the "
            f"width given here. The outputs are logits, one a class: {', '.join(classes)}."
        ),
        baseline=fine_tuning(epochs) if epochs else None,
        split_seed=split_seed,
        deploy=lambda to: saved_tokenizer(folder, to, max_length),
        ref={
            "kind": "text-classification",
            "options": {
                "model": str(folder),
                "data": str(file),
                "text_column": text_column,
                "label_column": label_column,
                "max_length": max_length,
                "epochs": epochs,
                "split_seed": split_seed,
            },
        },
        sources=(*model_files(folder), file),
    )


def fine_tuning(epochs: int) -> Recipe:
    """The usual fine-tuning of an encoder: AdamW, 5e-5, a tenth of warmup, linear decay
    (Devlin et al. 2019, appendix A.3)."""
    settings = {
        "epochs": epochs,
        "lr": 5e-5,
        "batch_size": 32,
        "optimizer": "adamw",
        "schedule": "linear",
        "warmup": 0.1,
        "weight_decay": 0.01,
    }
    return Recipe.from_json([{"train": settings}])


def classifier(folder: Path, classes: int, *, own_head: bool = False) -> nn.Module:
    """forward(input_ids [n, length] int64, attention_mask [n, length]
    int64) -> logits [n, classes].

    own_head: use the sequence-classification model that the directory holds;
    else encoder + mean pooling + new head.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    if own_head:
        return _own(load_model(AutoModelForSequenceClassification, folder))
    return _pooled(load_model(AutoModel, folder, pooler=False), classes)  # which mean pooling does without


def _own(net: Any) -> nn.Module:
    from torch import nn

    class OwnHead(nn.Module):
        """A sequence-classification model that takes its inputs by position and gives a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.model = net

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]

    return OwnHead()


def _pooled(net: Any, classes: int) -> nn.Module:
    from torch import nn

    if getattr(net, "pooler", None) is not None and _pooler_is_optional(net):
        net.pooler = None  # mean pooling does not use it; such models skip a pooler that is None

    class PooledHead(nn.Module):
        """Encoder, mean over the tokens that are not padding,
        linear head (Reimers & Gurevych 2019, section 3)."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = net
            self.head = nn.Linear(net.config.hidden_size, classes)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            # [n, length, width]
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
            return self.head(pooled)  # type: ignore[no-any-return]

    return PooledHead()


def _pooler_is_optional(net: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(type(net).__init__).parameters


def tokenized(
    folder: Path, texts: Sequence[str], targets: np.ndarray, max_length: int, classes: Sequence[str] | None
) -> LazySplit:
    """The texts as input_ids and attention_mask, int64 [n, length];
    kept as int32 without the mask until they are read."""
    tokenizer = load_tokenizer(folder)
    limit = token_limit(folder, tokenizer)
    if not 1 <= max_length <= limit:
        raise TaskError("max_length does not fit the model", got=max_length, allowed=f"1 to {limit}")
    rows: list[np.ndarray] = []
    for start in range(0, len(texts), 1024):
        chunk = list(texts[start : start + 1024])
        found = in_time(
            lambda some: tokenizer(some, truncation=True, max_length=max_length, padding=False)["input_ids"], chunk
        )
        rows += [np.asarray(ids, dtype=np.int32) for ids in found]
    lengths = np.array([len(r) for r in rows])
    width = min(max_length, -(-int(lengths.max()) // 8) * 8)
    ids = np.full((len(rows), width), pad_token(tokenizer), dtype=np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row

    def read(index: np.ndarray) -> Batch:
        mask = np.arange(width)[None, :] < lengths[index][:, None]
        return {"input_ids": ids[index].astype(np.int64), "attention_mask": mask.astype(np.int64)}, targets[index]

    return LazySplit(len(rows), read, classes)


def saved_tokenizer(folder: Path, to: Path, max_length: int) -> dict[str, Any]:
    """The model directory's tokenizer as one file, for `deploy.predict.texts`. TaskError if it has
    no such form, or cuts texts otherwise in it."""
    from ...deploy.predict import texts

    tokenizer = load_tokenizer(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TaskError(
            "this tokenizer cannot be written as one file", got=type(tokenizer).__name__, allowed="a fast tokenizer"
        )
    backend.save(str(to / TOKENIZER))
    how = {"kind": "text", "tokenizer": TOKENIZER, "max_length": max_length, "pad": pad_token(tokenizer)}
    form = {"input_ids": {"shape": ["batch", max_length], "dtype": "int64"}}
    expected = tokenizer(_TRIED, truncation=True, max_length=max_length, padding=False)["input_ids"]
    found = texts(_TRIED, how, to, form)["input_ids"]
    if any(row[: len(ids)].tolist() != ids for row, ids in zip(found, expected, strict=True)):
        raise TaskError("this tokenizer cuts texts otherwise when it is read from one file", got=str(folder))
    return how


def _has_head(config: Any, classes: int) -> bool:
    named = any(str(a).endswith("ForSequenceClassification") for a in config.architectures or ())
    return bool(named and config.num_labels == classes)


def _class_order(found: list[str], config: Any) -> tuple[list[str], bool]:
    """Class names by number, and whether the model's head is already trained for them (its names,
    or 0, 1, ... are used)."""
    if config is None:
        return found, False
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    by_lower = {v.lower(): v for v in found}
    if sorted(n.lower() for n in names) == sorted(by_lower):
        return [by_lower[n.lower()] for n in names], True
    return found, found == [str(i) for i in range(len(found))]
