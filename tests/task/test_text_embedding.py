"""Embeddings of texts, on tiny generated encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featherweight.deploy.predict import Model
from featherweight.errors import TaskError
from featherweight.task.kinds import make_task
from featherweight.task.kinds.text_embedding import text_embedding
from featherweight.task.load import load_task
from tests.deploy.test_predict import OURS, alone, deployed
from tests.task.test_kinds import bert, table, write_csv  # noqa: F401 (a fixture)

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

MODULES = ["Transformer", "Pooling", "Normalize"]


def sentence_folder(folder: Path, encoder: Path, modules: list[str], pooling: dict[str, Any]) -> Path:
    """An encoder's directory as sentence-transformers writes it."""
    shutil.copytree(encoder, folder)
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(modules) if i)]
    said = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(zip(paths, modules, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(said))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    for path in {"1_Pooling", *paths[1:]}:
        (folder / path).mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def hidden(encoder: Path, text: str, length: int) -> torch.Tensor:
    """The last hidden state of one text, [tokens, width]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    net = transformers.AutoModel.from_pretrained(encoder).eval()
    given = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        return net(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state[0]


def embeddings(task: Any) -> dict[bytes, np.ndarray]:
    """By the text's tokens: what the task's model gives."""
    out = {}
    for part in (task.splits().train, task.splits().valid, task.splits().test):
        for inputs, _ in part.batches():
            with torch.no_grad():
                found = task.build()(*[torch.from_numpy(v) for v in inputs.values()]).numpy()
            masks = inputs["attention_mask"].astype(bool)
            out |= {ids[mask].tobytes(): row for ids, mask, row in zip(inputs["input_ids"], masks, found, strict=True)}
    return out


POOLED = {
    "cls": lambda h: h[0],
    "mean": lambda h: h.mean(0),
    "max": lambda h: h.amax(0),
    "mean_sqrt_len": lambda h: h.sum(0) / len(h) ** 0.5,
}


@pytest.mark.parametrize(
    ("said", "modes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ["mean"]),
        ({"pooling_mode_cls_token": True}, ["cls"]),
        ({"pooling_mode_max_tokens": True}, ["max"]),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ["mean_sqrt_len"]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ["cls", "mean"]),
        ({"pooling_mode": "mean"}, ["mean"]),
    ],
)
@pytest.mark.parametrize("normalised", [True, False])
def test_pooling_is_what_the_directory_says(
    tmp_path: Path,
    bert: Path,  # noqa: F811
    said: dict[str, Any],
    modes: list[str],
    normalised: bool,
) -> None:
    folder = sentence_folder(tmp_path / "s", bert, MODULES[: 3 if normalised else 2], said)
    rows = table()
    task = text_embedding(folder, write_csv(tmp_path / "t.csv", rows))
    found = embeddings(task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    for row in rows[:6]:
        expected = torch.cat([POOLED[m](hidden(bert, row["text"], 12)) for m in modes])
        expected = expected / expected.norm() if normalised else expected
        ids = tokenizer(row["text"], truncation=True, max_length=12)["input_ids"]
        assert np.allclose(found[np.array(ids).tobytes()], expected.numpy(), atol=1e-5)


def test_without_labels_the_originals_embeddings_are_kept(tmp_path: Path, bert: Path) -> None:  # noqa: F811
    file = write_csv(tmp_path / "t.csv", table())
    task = text_embedding(bert, file)
    assert task.metric == task.loss == "cosine" and task.baseline is None
    assert any("no modules.json" in n for n in task.notes) and any("label_column=label" in n for n in task.notes)
    inputs, targets = task.splits().valid.batch(np.array([2, 0, 2]))
    with torch.no_grad():
        out = task.build()(*[torch.from_numpy(v) for v in inputs.values()]).numpy()
    assert np.allclose(out, targets, atol=1e-5) and np.allclose(np.linalg.norm(targets, axis=1), 1, atol=1e-5)
    again = load_task(task.ref)
    assert again.fingerprint == task.fingerprint
    (tmp_path / "t.txt").write_text("\n\n".join(r["text"] for r in table()))
    lines = text_embedding(bert, tmp_path / "t.txt")
    assert lines.splits().fingerprint == task.splits().fingerprint


def test_with_labels_texts_of_one_kind_are_to_be_near(tmp_path: Path, bert: Path) -> None:  # noqa: F811
    task = text_embedding(bert, write_csv(tmp_path / "t.csv", table()), label_column="label", epochs=1)
    assert (task.metric, task.loss) == ("recall_at_1", "contrastive") and task.baseline is not None
    assert set(np.unique(task.splits().train.all_targets())) == {0, 1}
    assert load_task(task.ref).fingerprint == task.fingerprint


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"modules": ["Transformer", "Pooling", "Dense"]}, "parts that cannot be loaded"),
        ({"modules": ["Transformer"]}, "parts that cannot be loaded"),
        ({"pooling": {"pooling_mode_weightedmean_tokens": True}}, "pooling of a sentence encoder is not known"),
        ({"pooling": {"pooling_mode": "lasttoken"}}, "pooling of a sentence encoder is not known"),
        ({"pooling": {}}, "pooling of a sentence encoder is not known"),
        ({"file": ("modules.json", "{")}, "cannot be read"),
        ({"file": ("modules.json", "{}")}, "no list of parts"),
        ({"file": ("modules.json", '[{"type": "a.Transformer", "path": ".."}, {"type": "a.Pooling"}]')}, "no folder"),
        ({"file": ("sentence_bert_config.json", '{"do_lower_case": true}')}, "lower case"),
        ({"options": {"epochs": 2}}, "without labels"),
        ({"options": {"max_length": 1000}}, "max_length does not fit"),
        ({"options": {"label_column": "none"}}, "no column 'none'"),
        ({"options": {"text_column": "none"}}, "no column 'none'"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path,
    bert: Path,  # noqa: F811
    change: dict[str, Any],
    problem: str,
) -> None:
    pooling = change.get("pooling", {"pooling_mode_mean_tokens": True})
    folder = sentence_folder(tmp_path / "s", bert, change.get("modules", MODULES), pooling)
    if "file" in change:
        (folder / change["file"][0]).write_text(change["file"][1])
    with pytest.raises(TaskError, match=problem):
        text_embedding(folder, write_csv(tmp_path / "t.csv", table()), **change.get("options", {})).splits()


def test_texts_and_models_that_are_not_there(tmp_path: Path, bert: Path) -> None:  # noqa: F811
    with pytest.raises(TaskError, match="no Hugging Face model directory"):
        text_embedding(tmp_path / "none", write_csv(tmp_path / "t.csv", table()))
    (tmp_path / "t.txt").write_text("\n \n")
    with pytest.raises(TaskError, match="has no texts"):
        text_embedding(bert, tmp_path / "t.txt")
    with pytest.raises(TaskError, match="no such data file"):
        text_embedding(bert, tmp_path / "gone.txt")
    with pytest.raises(TaskError, match="has no columns"):
        text_embedding(bert, tmp_path / "t.txt", text_column="text")
    with pytest.raises(TaskError, match="missing: data"):
        make_task("text-embedding", model=bert)


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
def test_a_deployed_folder_gives_the_vector(tmp_path: Path, bert: Path, target: str) -> None:  # noqa: F811
    task = text_embedding(bert, write_csv(tmp_path / "t.csv", table()))
    to = deployed(tmp_path / "to", task, target)
    hidden_ = frozenset({"featherweight", "transformers"}) if target == "torch" else OURS
    code, said, wrong = alone(to, "good film", hidden=hidden_)
    assert code == 0, wrong
    vector = np.array(json.loads(said)["output"])
    expected = hidden(bert, "good film", 128).mean(0)
    assert np.allclose(vector, (expected / expected.norm()).numpy(), atol=1e-5)
    assert np.allclose(Model(to)(["good film", "bad"])[0]["output"], vector, atol=1e-5)
    assert alone(to, "--check", hidden=hidden_)[0] == 0
