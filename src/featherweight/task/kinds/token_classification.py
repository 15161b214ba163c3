"""Token classification: a Hugging Face directory, and sentences whose words have tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...deploy.predict import first_pieces, pieces, sentences
from ...errors import TaskError
from ..data import IGNORED, Batch, LazySplit
from ..tags import is_tags
from ..task import Task
from ._heads import Order, check_numbers, class_names, has_head, order
from ._pretrained import in_time, load_config, load_model, load_tokenizer, model_files, pad_token, token_limit
from ._tagged import Tagged, tagged_sentences
from .text_classification import EPOCHS, TOKENIZER, fine_tuning

if TYPE_CHECKING:
    import torch
    from torch import nn

HEAD = "ForTokenClassification"
_LOOKED_AT = 200  # sentences that the model is asked about first
_TRIED = [
    "A text.",
    "Ünïcode, 123 & punctuation!  Two  spaces\tand a tab",
    "U.S. don't (well-known) 東京へ",
    "word " * 3000,
]


def token_classification(
    model: str | Path,
    data: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    classes: str | Sequence[str] | None = None,
    new_head: bool = False,
    max_length: int = 128,
    epochs: int | None = None,
    check_labels: bool = True,
    split_seed: int = 0,
) -> Task:
    """A task from a Hugging Face directory, and a CoNLL file (a word and its tag a line, an empty
    line between sentences), or a .jsonl, .parquet, .csv or .tsv file of lists of words and tags.

    A word's first token has its tag; its others, and padding, do not count. Tags are those of the
    model's own head, by name (upper and lower case alike), or, if they are numbers, by number;
    otherwise it is an error, with the ways out: classes, the names of the tags in the order of the
    model's outputs; new_head, a linear head of its own, which is trained. A model without a head
    gets one. The metric is entity_f1 where tags mark spans (B-PER, I-PER), else token_accuracy.
    text_column, label_column: of words and tags; of CoNLL by number, the first and the last by
    default. epochs: of fine-tuning for the baseline; by default 3, or 0 if the head is the model's
    own. Sentences are cut at `max_length` tokens. check_labels: the model is asked about some
    sentences first; TaskError if another numbering of its outputs plainly fits the tags.
    """
    folder, file = Path(model).resolve(), Path(data).resolve()
    found = tagged_sentences(file, text_column, label_column)
    config = load_config(folder)
    own = has_head(config, HEAD) and not new_head
    tags = sorted({t for row in found.tags for t in row})
    placed = order(tags, found.numbered, config if own else None, class_names(classes), f"the tags of {file.name}")
    epochs = (0 if own else EPOCHS) if epochs is None else epochs
    words = _Words(folder, found, placed, max_length)
    notes = (*found.notes, *placed.notes, *words.notes())
    if own and check_labels:
        rows = np.arange(min(len(found.words), _LOOKED_AT))
        notes += check_numbers(
            tagger(folder, len(placed.names), own_head=True), words.split(), rows, placed, "tags", "texts"
        )
    marked = is_tags(placed.names)
    return Task(
        name=f"{folder.name}-{file.stem}",
        model=lambda: tagger(folder, len(placed.names), own_head=own),
        data=lambda: words.split(),
        metric="entity_f1" if marked else "token_accuracy",
        class_axis=-1,
        notes=notes,
        prepared=(
            f"Each text is cut into words at spaces; punctuation around a word is words of its own, as is each Chinese "
            f"or Japanese character. The words go through the tokenizer of {folder.name}, are cut at {max_length} "
            f"tokens, and padded to the width given here. The outputs are logits [tokens, classes]; a word's answer is "
            f"that at its first token. Classes: {', '.join(placed.names)}."
        ),
        baseline=fine_tuning(epochs) if epochs else None,
        split_seed=split_seed,
        deploy=lambda to: words.deploy(to, marked),
        ref={
            "kind": "token-classification",
            "options": {
                "model": str(folder),
                "data": str(file),
                "text_column": text_column,
                "label_column": label_column,
                "classes": None if classes is None else class_names(classes),
                "new_head": new_head,
                "max_length": max_length,
                "epochs": epochs,
                "check_labels": False,  # they are checked
                "split_seed": split_seed,
            },
        },
        sources=(*model_files(folder), file),
    )


def tagger(folder: Path, classes: int, *, own_head: bool = False) -> nn.Module:
    """forward(input_ids [n, length] int64, attention_mask [n, length] int64) -> logits [n, length,
    classes]. own_head: the directory's token-classification model; else its encoder and a new
    linear head (Devlin et al. 2019, section 5.3)."""
    from torch import nn
    from transformers import AutoModel, AutoModelForTokenClassification

    net = (
        load_model(AutoModelForTokenClassification, folder) if own_head else load_model(AutoModel, folder, pooler=False)
    )
    if not own_head and getattr(net, "pooler", None) is not None:
        net.pooler = None  # it has no use here

    class OwnHead(nn.Module):
        """A token-classification model that takes its inputs by position and gives a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.model = net

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]

    class NewHead(nn.Module):
        """Encoder, and a linear head at each token."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = net
            self.head = nn.Linear(net.config.hidden_size, classes)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return self.head(hidden)  # type: ignore[no-any-return]

    return OwnHead() if own_head else NewHead()


class _Words:
    """Tokenizes sentences once, when they are first asked for."""

    def __init__(self, folder: Path, found: Tagged, placed: Order, max_length: int) -> None:
        self.folder, self.found, self.placed, self.max_length = folder, found, placed, max_length
        self._split: LazySplit | None = None
        self._tokenizer: Any = None
        self._lost = 0
        limit = token_limit(folder, self._source())
        if isinstance(max_length, bool) or not isinstance(max_length, int) or not 3 <= max_length <= limit:
            raise TaskError("max_length does not fit the model", got=max_length, allowed=f"3 to {limit}")

    def _source(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.folder)
        return self._tokenizer

    def backend(self) -> Any:
        """The tokenizer for words that are cut already, each as if a space stood before it."""
        from tokenizers import Tokenizer

        source = getattr(self._source(), "backend_tokenizer", None)
        if source is None:
            raise TaskError(
                "this tokenizer does not say which word a token is a piece of",
                got=type(self._source()).__name__,
                allowed="a fast tokenizer (tokenizer.json)",
            )
        said = json.loads(source.to_str())
        for part in _parts(said.get("pre_tokenizer")):
            if part.get("type") == "ByteLevel":
                part["add_prefix_space"] = True
            if part.get("type") == "Metaspace":
                part["prepend_scheme"] = "always"
        return Tokenizer.from_str(json.dumps(said))

    def split(self) -> LazySplit:
        """input_ids, attention_mask: int64 [n, length]; targets: int64 [n, length], `IGNORED` where
        no word begins."""
        if self._split is None:
            backend, rows = self.backend(), self.found.words
            backend.no_padding()
            backend.enable_truncation(self.max_length)
            encoded: list[Any] = []
            for start in range(0, len(rows), 1024):
                encoded += _encoded(backend, rows[start : start + 1024])
            lengths = np.array([len(e.ids) for e in encoded])
            width = min(self.max_length, -(-int(lengths.max()) // 8) * 8)
            ids = np.full((len(rows), width), pad_token(self._source()), dtype=np.int32)
            targets = np.full((len(rows), width), IGNORED, dtype=np.int64)
            for i, (e, tags) in enumerate(zip(encoded, self.found.tags, strict=True)):
                begins = first_pieces(e.word_ids)
                ids[i, : len(e.ids)] = e.ids
                for word, token in begins.items():
                    targets[i, token] = self.placed.number[tags[word]]
                self._lost += len(tags) - len(begins)

            def read(index: np.ndarray) -> Batch:
                mask = np.arange(width)[None, :] < lengths[index][:, None]
                return (
                    {"input_ids": ids[index].astype(np.int64), "attention_mask": mask.astype(np.int64)},
                    targets[index],
                )

            self._split = LazySplit(len(rows), read, self.placed.names)
        return self._split

    def notes(self) -> tuple[str, ...]:
        self.split()
        if not self._lost:
            return ()
        return (f"{self._lost:,} words are behind the {self.max_length} tokens of their sentence, and do not count",)

    def deploy(self, to: Path, marked: bool) -> dict[str, Any]:
        """The tokenizer as one file, for `deploy.predict.tagged`. TaskError if it cuts otherwise
        when it is read from there."""
        backend = self.backend()
        backend.save(str(to / TOKENIZER))
        how = {"kind": "words", "tokenizer": TOKENIZER, "max_length": self.max_length, "pad": pad_token(self._source())}
        form = {"input_ids": {"shape": ["batch", self.max_length], "dtype": "int64"}}
        rows = [words for _, words, _ in sentences(_TRIED)]
        inputs, begins = pieces(rows, how, to, form)
        backend.no_padding()
        backend.enable_truncation(self.max_length)
        for e, ids, first in zip(
            backend.encode_batch(rows, is_pretokenized=True), inputs["input_ids"], begins, strict=True
        ):
            if ids[: len(e.ids)].tolist() != e.ids or first != first_pieces(e.word_ids):
                raise TaskError(
                    "this tokenizer cuts texts otherwise when it is read from one file", got=str(self.folder)
                )
        return {**how, "spans": marked}


def _encoded(backend: Any, rows: list[list[str]]) -> list[Any]:
    return list(in_time(lambda _: backend.encode_batch(rows, is_pretokenized=True), [" ".join(r) for r in rows]))


def _parts(said: Any) -> list[dict[str, Any]]:
    """A tokenizer's step, or the steps that it is a sequence of."""
    if not isinstance(said, dict):
        return []
    inner = said.get("pretokenizers")
    return [p for step in inner for p in _parts(step)] if isinstance(inner, list) else [said]
