"""What a task of texts needs no fine-tuning for: linear models' value of its metric, on the same
splits.

Sources: Salton & Buckley 1988 (TF-IDF); Alain & Bengio 2016, "Understanding intermediate layers
using linear classifier probes" (arXiv:1610.01644).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..seeding import generator
from .accuracy import evaluate, metric_of
from .yardsticks import Yardstick, refuse_if_long

if TYPE_CHECKING:
    from ..task.data import Split
    from ..task.task import Task

TFIDF = "TF-IDF of tokens, logistic regression"
PROBE = "frozen encoder, mean pooling, logistic regression"
INPUTS = {"input_ids", "attention_mask"}
MOST = 5_000  # training texts that the encoder embeds
_TINY = 1e-12  # the least probability that a logarithm is taken of
_TRIED = 2_000  # texts by which it is told how long all will take
_STEPS = 1000  # of the solver, at most


def text_yardsticks(task: Task, seed: int = 0, most: int = MOST, within_s: float = math.inf) -> list[Yardstick]:
    """Logistic regression (scikit-learn's, as it is set by default) on the training split of a task
    of texts: inputs input_ids and attention_mask [n, length], class numbers [n]. None for others.

    Its features are TF-IDF of the tokens, alone and in pairs, as the model is given them (cut at
    its length); and the mean over tokens of the last hidden state of the task's encoder as it comes
    (of a model that is fine-tuned already, the fine-tuned one's), if the model is one of
    transformers: of up to `most` training texts, drawn under `seed`; the name says so if there are
    more (0: not at all). Outputs are logarithms of probabilities. InputError if the first would
    take longer than `within_s`, going by some of the texts.
    """
    splits = task.splits()
    inputs, targets = splits.train.batch(np.arange(min(2, len(splits.train))))
    if task.loss != "cross_entropy" or targets.ndim != 1 or not set(inputs) >= INPUTS:
        return []
    classes = len(splits.report.get("class_names") or ()) or task.outputs
    if len(splits.train) > _TRIED and within_s < math.inf:
        begun = time.perf_counter()
        _tfidf(*_tokens(splits.train, np.arange(_TRIED)))
        refuse_if_long(TFIDF, (time.perf_counter() - begun) * len(splits.train) / _TRIED, within_s)
    found = [_judged(task, TFIDF, _tfidf, splits.train, classes, seed)]
    if most and task.model is not None and (encoder := _encoder(task.build())) is not None:
        rows = np.sort(generator(seed, "probe").permutation(len(splits.train))[:most])
        name = PROBE if len(rows) == len(splits.train) else f"{PROBE}, fitted to {len(rows):,} texts"
        found.append(_judged(task, name, lambda a, b: _probed(encoder, a, b), splits.train, classes, seed, rows))
    return found


def _judged(
    task: Task,
    name: str,
    fit: Callable[[list[Any], np.ndarray], Callable[[list[Any]], tuple[np.ndarray, np.ndarray]]],
    train: Split,
    classes: int,
    seed: int,
    rows: np.ndarray | None = None,
) -> Yardstick:
    """fit: (rows of token numbers, classes) -> (rows of token numbers -> probabilities, classes
    that these are of)."""
    splits = task.splits()
    begun = time.perf_counter()
    predict = fit(*_tokens(train, rows))
    texts, targets = _tokens(splits.valid)
    probabilities, known = predict(texts)
    seconds = time.perf_counter() - begun
    outputs = np.full((len(targets), classes), np.log(_TINY), dtype=np.float32)
    outputs[:, known.astype(int)] = np.log(np.maximum(probabilities, _TINY))
    found = evaluate(metric_of(task), outputs, targets, seed, splits.units.get("valid"))
    return Yardstick(name, found, seconds)


def _tokens(split: Split, rows: np.ndarray | None = None) -> tuple[list[np.ndarray], np.ndarray]:
    """The tokens of each text that are not padding, and its class."""
    texts, targets = [], []
    rows = np.arange(len(split)) if rows is None else rows
    for start in range(0, len(rows), 256):
        inputs, classes = split.batch(rows[start : start + 256])
        masks = inputs["attention_mask"].astype(bool)
        texts += [ids[mask] for ids, mask in zip(inputs["input_ids"], masks, strict=True)]
        targets.append(classes)
    return texts, np.concatenate(targets)


def _tfidf(texts: list[np.ndarray], targets: np.ndarray) -> Callable[[list[np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    features = TfidfVectorizer(analyzer=_words, sublinear_tf=True, min_df=2 if len(texts) > 100 else 1)
    made = LogisticRegression(max_iter=_STEPS).fit(features.fit_transform(texts), targets)
    return lambda other: (made.predict_proba(features.transform(other)), made.classes_)


def _words(ids: np.ndarray) -> list[str]:
    """Tokens, and pairs of neighbours."""
    alone = list(map(str, ids.tolist()))
    return [*alone, *(f"{a} {b}" for a, b in zip(alone, alone[1:], strict=False))]


def _probed(
    encoder: Any, texts: list[np.ndarray], targets: np.ndarray
) -> Callable[[list[np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS)).fit(_pooled(encoder, texts), targets)
    return lambda other: (made.predict_proba(_pooled(encoder, other)), made.classes_)


def _encoder(module: Any) -> Any:
    """The first part that is a model of transformers, without its head; None if there is none."""
    for part in module.modules():
        base = getattr(part, "base_model", None)
        if base is not None and hasattr(part, "config"):
            return base
    return None


def _pooled(encoder: Any, texts: list[np.ndarray]) -> np.ndarray:
    """[n, width]: the mean of the last hidden state over the tokens; texts of like lengths go
    through the encoder together."""
    import torch

    order = np.argsort([len(t) for t in texts], kind="stable")
    out: dict[int, np.ndarray] = {}
    encoder.eval()
    with torch.no_grad():
        for start in range(0, len(order), 32):
            rows = order[start : start + 32].tolist()
            width = max(1, max(len(texts[i]) for i in rows))
            ids = torch.zeros(len(rows), width, dtype=torch.long)
            mask = torch.zeros(len(rows), width, dtype=torch.long)
            for k, i in enumerate(rows):
                ids[k, : len(texts[i])], mask[k, : len(texts[i])] = torch.from_numpy(texts[i]), 1
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            means = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            out |= dict(zip(rows, means.numpy(), strict=True))
    return np.stack([out[i] for i in range(len(texts))])
