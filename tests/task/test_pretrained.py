"""What a Hugging Face directory may say, and what has to be in it."""

import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

import safetensors.torch
import transformers
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

from featherweight.errors import TaskError
from featherweight.task.kinds._pretrained import load_config, load_model, load_tokenizer, model_files
from featherweight.task.kinds._weights import weight_files

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def saved(folder: Path, kind=BertModel) -> Path:
    torch.manual_seed(0)
    kind(BertConfig(**SIZES)).save_pretrained(folder)
    return folder


def changed_config(folder: Path, **fields) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def changed_weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    weights = dict(change(safetensors.torch.load_file(file)))
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification])
def test_other_heads_are_left_out(kind, tmp_path):
    """And a pooler that mean pooling does without may be missing."""
    whole = saved(tmp_path, kind)
    weights = safetensors.torch.load_file(whole / "model.safetensors")
    for name, p in load_model(AutoModel, whole, pooler=False).named_parameters():
        if not name.startswith("pooler."):
            assert torch.equal(p, weights.get(name, weights.get(f"bert.{name}")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {k: v for k, v in w.items() if "layer.1" not in k}, "16 missing: encoder.layer.1"),
        (lambda w: {k.replace("encoder", "decoder"): v for k, v in w.items()}, "32 missing"),
        (lambda w: w | {"encoder.layer.2.output.dense.bias": torch.zeros(16)}, "1 left over: encoder.layer.2"),
        (lambda w: w | {"pooler.dense.bias": torch.zeros(3)}, r"pooler.dense.bias \[3\], wanted \[16\]"),
        (lambda w: w | {"pooler.dense.bias": torch.full((16,), math.nan)}, "1 not finite: pooler.dense.bias"),
        (
            lambda w: {"embeddings.word_embeddings.weight": w["embeddings.word_embeddings.weight"]},
            "38 missing: embeddings.LayerNorm.bias",
        ),
    ],
)
def test_weights_that_are_not_the_configurations_are_refused_by_name(change, words, tmp_path):
    changed_weights(saved(tmp_path), change)
    with pytest.raises(TaskError, match=words) as e:
        load_model(AutoModel, tmp_path)
    assert "not those that its config.json describes" in e.value.what


def test_buffers_of_older_versions_and_a_pooler_that_is_not_used_are_no_weights_left_over(tmp_path):
    changed_weights(saved(tmp_path), lambda w: w | {"embeddings.position_ids": torch.arange(32)[None]})
    assert isinstance(load_model(AutoModel, tmp_path), BertModel)


def test_weights_in_parts_and_links_of_a_cache_are_loaded(tmp_path):
    """As Hugging Face lays them out: links to files of other folders."""
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "whole", max_shard_size="8KB")
    cached = tmp_path / "snapshots" / "a"
    cached.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for number, file in enumerate(sorted((tmp_path / "whole").iterdir())):
        file.rename(tmp_path / "blobs" / str(number))
        (cached / file.name).symlink_to(f"../../blobs/{number}")
    assert isinstance(load_model(AutoModel, cached), BertModel)
    files = weight_files(cached)
    assert len(files) > 1 and set(files) <= set(model_files(cached))


def test_a_head_that_is_not_there_is_not_made_up(tmp_path):
    """Though the configuration names it."""
    changed_config(saved(tmp_path), architectures=["BertForSequenceClassification"])
    with pytest.raises(TaskError, match="2 missing: classifier.bias, classifier.weight"):
        load_model(AutoModelForSequenceClassification, tmp_path)


@pytest.mark.parametrize(
    "fields", [{"num_hidden_layers": 1_000_000}, {"vocab_size": 10**12}, {"intermediate_size": 10**9}]
)
def test_more_than_the_weights_can_fill_is_refused_before_it_is_made(fields, tmp_path):
    changed_config(saved(tmp_path), **fields)
    ((name, value),) = fields.items()
    with pytest.raises(TaskError, match=f"{name} {value}, of"):
        load_model(AutoModel, tmp_path)


def test_code_that_a_directory_brings_is_never_run_nor_asked_for(tmp_path, monkeypatch, capfd):
    changed_config(
        saved(tmp_path),
        model_type="its-own",
        auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokens", None]},
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokens", null]}}')
    (tmp_path / "vocab.txt").write_text("a")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    for load in (load_config, load_tokenizer, lambda folder: load_model(AutoModel, folder)):
        with pytest.raises(TaskError):
            load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_named(tmp_path):
    file = saved(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(TaskError, match=r"model\.safetensors"):
        load_model(AutoModel, tmp_path)


FAMILIES = {
    "Bert": {},
    "Roberta": {},
    "XLMRoberta": {},
    "Electra": {},
    "MPNet": {},
    "DebertaV2": {},
    "Albert": {"embedding_size": 8, "num_hidden_layers": 40},  # which share their weights
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "ModernBert": {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "cls_token_id": 3, "sep_token_id": 4},
}


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification"])
@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_all_kinds_are_read_and_none_with_fewer_layers_than_weights(family, head, tmp_path):
    sizes = {} if family == "DistilBert" else SIZES
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**sizes, "vocab_size": 40, **FAMILIES[family]})
    kind = getattr(transformers, family + head, None)
    if kind is None:
        pytest.skip(f"there is no {family}{head}")
    kind(config).save_pretrained(tmp_path)
    auto = AutoModel if head == "Model" else AutoModelForSequenceClassification
    load_model(auto, tmp_path, pooler=head != "Model")
    if family == "Albert":
        return
    name = "n_layers" if family == "DistilBert" else "num_hidden_layers"
    for layers in (1, -1):
        more = {"layer_types": config.layer_types[:1]} if hasattr(config, "layer_types") else {}
        changed_config(tmp_path, **{name: layers, **more})
        with pytest.raises(TaskError, match="left over|of 100|cannot be"):
            load_model(auto, tmp_path, pooler=head != "Model")
