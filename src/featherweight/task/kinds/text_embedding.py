"""Text embedding: a sentence encoder's directory, and texts, with or without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TaskError
from ..data import ArraySplit, Batch, LazySplit, Split, Splits, Subset
from ..splitting import split
from ..task import Task
from ._pretrained import load_config, load_tokenizer, token_limit
from ._sentences import Encoder, embedder, sentence_encoder
from ._table import (
    LABEL_COLUMNS,
    LONGEST_TEXT,
    SUFFIXES,
    check_memory,
    class_numbers,
    complain,
    labelled_texts,
    read_table,
    texts_of,
)
from .text_classification import fine_tuning, saved_tokenizer, tokenized

_LENGTH = 128  # tokens, where the encoder's files name none
_ROWS = 32  # that the original embeds at once


def text_embedding(
    model: str | Path,
    data: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
    epochs: int = 0,
    split_seed: int = 0,
) -> Task:
    """A task from a sentence encoder's directory (as sentence-transformers or transformers writes
    it), and a .txt file with a text a line, or a .csv, .tsv, .jsonl or .parquet file.

    Without label_column the original's embeddings are what is to be kept: loss and metric are the
    cosine of the angle to them. With it, texts with the same label are to be near each other: the
    metric is recall_at_1, the loss contrastive. Pooling and normalisation are those of modules.json
    and 1_Pooling/config.json; without such files the mean over tokens, put to length 1. Texts are
    cut at `max_length` tokens; by default at what the directory says, else at 128. epochs: of
    training for the baseline (with labels).
    """
    folder, file = Path(model).resolve(), Path(data).resolve()
    texts, labels, notes = _read(file, text_column, label_column)
    encoder = sentence_encoder(folder) if folder.is_dir() else Encoder(folder, (), False, None, ())
    load_config(encoder.folder)
    limit = token_limit(encoder.folder, load_tokenizer(encoder.folder))
    length = min(encoder.longest or _LENGTH, limit) if max_length is None else max_length
    if epochs and labels is None:
        raise TaskError(
            "without labels the original's embeddings are kept, and it is not trained",
            got=f"epochs={epochs}",
            fix="leave epochs out, or name label_column",
        )
    return Task(
        name=f"{folder.name}-{file.stem}",
        model=lambda: embedder(encoder),
        data=lambda: _data(encoder, texts, labels, length, split_seed),
        loss="cosine" if labels is None else "contrastive",
        metric="cosine" if labels is None else "recall_at_1",
        baseline=fine_tuning(epochs) if epochs else None,
        split_seed=split_seed,
        notes=(*encoder.notes, *notes),
        identity=(f"{encoder.pooling} {encoder.normalise}",),
        prepared=(
            f"Each text goes through the tokenizer of {folder.name}, is cut at {length} tokens, and padded to the "
            f"width given here. The outputs are its embedding: {encoder.said()}."
        ),
        deploy=lambda to: saved_tokenizer(encoder.folder, to, length),
        ref={
            "kind": "text-embedding",
            "options": {
                "model": str(folder),
                "data": str(file),
                "text_column": text_column,
                "label_column": label_column,
                "max_length": length,
                "epochs": epochs,
                "split_seed": split_seed,
            },
        },
        sources=(*encoder.files, file),
    )


def _read(
    file: Path, text_column: str | None, label_column: str | None
) -> tuple[list[str], list[str] | None, tuple[str, ...]]:
    """Texts, their labels, and what is to be said of them."""
    if file.suffix.lower() == ".txt":
        if text_column or label_column:
            raise TaskError("a .txt file has no columns", got=file.name, fix=f"give one of {', '.join(SUFFIXES)}")
        return _lines(file), None, ()
    if label_column is not None:
        return *labelled_texts(file, text_column, label_column), ()
    table = read_table(file)
    texts = texts_of(file, table, text_column)
    near = [name for name in table.names if name.strip().lower() in LABEL_COLUMNS]
    notes = (f"the labels in column {near[0]!r} are not used (label_column={near[0]} would)",) if near else ()
    return texts, None, ("there are no labels: the original's embeddings are what is to be kept", *notes)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise TaskError("there is no such data file", got=str(file), allowed=f".txt, {', '.join(SUFFIXES)}")
    try:
        check_memory(file, file.stat().st_size)
        texts = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as e:
        raise TaskError("the data file cannot be read", got=f"{file}: {e}"[:300], allowed="UTF-8 text") from e
    found = [t for t in texts if t]
    if not found:
        raise TaskError("the data file has no texts", got=str(file), allowed="a text a line")
    complain(file, f"more than {LONGEST_TEXT:,} characters", [i for i, t in enumerate(texts) if len(t) > LONGEST_TEXT])
    return found


def _data(encoder: Encoder, texts: list[str], labels: list[str] | None, length: int, seed: int) -> Split | Splits:
    if labels is not None:
        targets, classes = class_numbers(labels)
        return tokenized(encoder.folder, texts, targets, length, classes)
    whole = tokenized(encoder.folder, texts, np.zeros(len(texts), dtype=np.float32), length, None)
    inputs, targets = whole.batch(np.arange(len(whole)))
    # cut by the texts alone: the last bits of embeddings differ between machines
    cut = split(ArraySplit(inputs, targets), seed=seed)
    beside = LazySplit(len(whole), _Beside(encoder, whole))
    train, valid, test = (Subset(beside, _rows(part)) for part in (cut.train, cut.valid, cut.test))
    return replace(cut, train=train, valid=valid, test=test)


def _rows(part: Split) -> np.ndarray:
    assert isinstance(part, Subset)
    return part.index


class _Beside:
    """Reads texts with the original's embeddings as targets, which are computed when they are first
    asked for."""

    def __init__(self, encoder: Encoder, whole: Split) -> None:
        self.encoder, self.whole = encoder, whole
        self._net: Any = None
        self._known = np.zeros(len(whole), dtype=bool)
        self._found: np.ndarray | None = None

    def __call__(self, index: np.ndarray) -> Batch:
        inputs, _ = self.whole.batch(index)
        new = np.unique(index[~self._known[index]])
        if self._found is None and not len(new):
            new = np.arange(1)  # says how wide embeddings are
        for start in range(0, len(new), _ROWS):
            self._embed(new[start : start + _ROWS])
        assert self._found is not None
        return inputs, self._found[index]

    def _embed(self, rows: np.ndarray) -> None:
        import torch

        from ..tensors import as_tensor

        if self._net is None:
            self._net = embedder(self.encoder).eval()
        inputs, _ = self.whole.batch(rows)
        # behind the longest of these texts there is only padding
        end = max(1, int(inputs["attention_mask"].sum(1).max()))
        with torch.no_grad():
            out = self._net(*[as_tensor(v[:, :end]) for v in inputs.values()]).numpy()
        if self._found is None:
            self._found = np.zeros((len(self.whole), out.shape[1]), dtype=np.float32)
        self._found[rows], self._known[rows] = out, True
