"""Linear models of texts are fitted on the training split, judged on the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featherweight.measure.text_yardsticks import PROBE, TFIDF, text_yardsticks
from featherweight.task.data import ArraySplit
from featherweight.task.kinds import make_task
from featherweight.task.task import Task
from tests import toy
from tests.task.test_kinds import bert, table, write_csv  # noqa: F401 (a fixture)


def texts(task: Any, part: Any) -> tuple[list[str], np.ndarray]:
    """Token numbers of each text, between spaces, and its class."""
    inputs, targets = part.batch(np.arange(len(part)))
    masks = inputs["attention_mask"].astype(bool)
    return [" ".join(map(str, i[m])) for i, m in zip(inputs["input_ids"], masks, strict=True)], targets


def test_both_are_what_scikit_learn_says(bert: Path, tmp_path: Path) -> None:  # noqa: F811
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel

    rows = table(120)
    for i in range(0, 120, 3):  # so that not all can be told
        rows[i]["text"] = rows[i]["text"].replace("good", "film").replace("bad", "film")
    task = make_task("text-classification", model=bert, data=write_csv(tmp_path / "t.csv", rows))
    tfidf, probe = text_yardsticks(task)
    assert (tfidf.name, probe.name) == (TFIDF, PROBE)
    splits = task.splits()
    (x, y), (v, w) = texts(task, splits.train), texts(task, splits.valid)
    features = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True)
    expected = LogisticRegression(max_iter=1000).fit(features.fit_transform(x), y)
    assert tfidf.metric.value == pytest.approx(expected.score(features.transform(v), w))
    assert 0.5 < tfidf.metric.value < 1 and tfidf.metric.n == len(w) and tfidf.seconds > 0
    net = AutoModel.from_pretrained(bert).eval()

    def pooled(given: list[str]) -> np.ndarray:
        out = []
        for text in given:
            with torch.no_grad():
                ids = torch.tensor([[int(t) for t in text.split()]])
                hidden = net(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            out.append(hidden[0].mean(0).numpy())
        return np.stack(out)

    expected = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(pooled(x), y)
    assert probe.metric.value == pytest.approx(expected.score(pooled(v), w), abs=1 / len(w) + 1e-9)


def test_the_probe_sees_so_many_texts_at_most(bert: Path, tmp_path: Path) -> None:  # noqa: F811
    task = make_task("text-classification", model=bert, data=write_csv(tmp_path / "t.csv", table(60)))
    all_, few = (text_yardsticks(task, most=most)[1].metric.value for most in (5000, 6))
    assert 0 <= few <= 1 and 0 <= all_ <= 1
    assert text_yardsticks(task, most=6)[1].name == f"{PROBE}, fitted to 6 texts"
    assert text_yardsticks(task, most=6)[1].metric == text_yardsticks(task, most=6)[1].metric


def test_a_model_of_ones_own_has_no_encoder_to_probe() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 9, (90, 6))
    ids[:, 0] = 10 + np.arange(90) % 3
    data = ArraySplit({"input_ids": ids, "attention_mask": np.ones_like(ids)}, np.arange(90) % 3)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(16, 3)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.table(input_ids).mean(1)

    (found,) = text_yardsticks(Task(name="own", model=Net, data=lambda: data))
    assert found.name == TFIDF and found.metric.value == 1


def test_there_are_none_for_other_tasks() -> None:
    assert text_yardsticks(toy.task()) == []
