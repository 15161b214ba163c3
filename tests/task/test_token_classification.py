"""Tags of words, on tiny generated models and sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from featherweight.deploy.predict import Model, read, sentences
from featherweight.deploy.predict import spans as deployed_spans
from featherweight.errors import TaskError
from featherweight.measure.sequence_metrics import spans
from featherweight.task.data import IGNORED
from featherweight.task.kinds import make_task
from featherweight.task.kinds.token_classification import token_classification
from featherweight.task.load import load_task
from tests.deploy.test_predict import alone, deployed

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

TAGS = ["O", "B-PER", "I-PER", "B-LOC"]
WORDS = {"Ann": "B-PER", "Bob": "B-PER", "Smiths": "I-PER", "Rome": "B-LOC", "goes": "O", "to": "O", ".": "O"}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Ann", "Bob", "Smith", "##s", "Rome", "go", "##es", "to", "."]


def rows(n: int = 60) -> list[tuple[list[str], list[str]]]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        who = [["Ann", "Bob"][i % 2], *(["Smiths"] if i % 3 == 0 else [])]
        words = [*who, "goes", "to", *(["Rome"] if i % 4 else []), *rng.choice(["to", "goes", "."], size=1 + i % 5)]
        found.append(([str(w) for w in words], [WORDS[str(w)] for w in words]))
    return found


def conll(path: Path, found: list[tuple[list[str], list[str]]] | None = None, sep: str = " ") -> Path:
    found = rows() if found is None else found
    lines = ["\n".join(f"{w}{sep}X{sep}{t}" for w, t in zip(*row, strict=True)) for row in found]
    path.write_text("-DOCSTART- X O\n\n" + "\n\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    raw = Tokenizer(models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("tags") / "encoder"
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=128, **special).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertModel(config()).save_pretrained(folder)
    return folder


def config(**more: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
        **more,
    )


@pytest.fixture(scope="session")
def taggers(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories with a head that is trained: "named", whose outputs are in an order of its own;
    "unnamed", the same without names."""
    out: dict[str, Path] = {}
    order = ["B-LOC", "I-PER", "O", "B-PER"]
    torch.manual_seed(0)
    net = transformers.BertForTokenClassification(
        config(id2label=dict(enumerate(order)), label2id={n: i for i, n in enumerate(order)})
    )
    first = {VOCABULARY.index(w): t for w, t in (*WORDS.items(), ("Smith", "I-PER"), ("go", "O")) if w in VOCABULARY}
    ids = torch.tensor([[2, *first, 3]] * 8)
    goal = torch.tensor([[order.index("O"), *(order.index(t) for t in first.values()), order.index("O")]] * 8)
    step = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        rest = torch.randperm(len(first)) + 1
        at = torch.cat([torch.tensor([0]), rest, torch.tensor([len(first) + 1])])
        step.zero_grad()
        net(input_ids=ids[:, at], labels=goal[:, at]).loss.backward()
        step.step()
    for name in ("named", "unnamed"):
        out[name] = tmp_path_factory.mktemp("tags") / name
        if name == "unnamed":
            net.config.id2label = {i: f"LABEL_{i}" for i in range(4)}
            net.config.label2id = {f"LABEL_{i}": i for i in range(4)}
        net.save_pretrained(out[name])
        transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(out[name])
    return out


def right(task: Any) -> float:
    """The share of words whose tag the task's model says."""
    whole = task.splits().train
    inputs, targets = whole.batch(np.arange(len(whole)))
    with torch.no_grad():
        said = task.build()(*[torch.from_numpy(v) for v in inputs.values()]).argmax(-1).numpy()
    return float((said == targets)[targets >= 0].mean())


@pytest.mark.parametrize("form", ["tab", "jsonl", "ner_tags", "parquet", "csv", "tsv"])
def test_every_format_is_the_same_task(encoder: Path, tmp_path: Path, form: str) -> None:
    found = rows()
    if form == "tab":
        file = conll(tmp_path / "t.tsv", sep="\t")
    elif form in ("jsonl", "ner_tags"):
        name, number = ("ner_tags", TAGS.index) if form == "ner_tags" else ("tags", str)
        file = tmp_path / "t.jsonl"
        file.write_text("\n".join(json.dumps({"tokens": w, name: [number(t) for t in tags]}) for w, tags in found))
    else:
        file = tmp_path / f"t.{form}"
        listed = form == "parquet"
        frame = pd.DataFrame(
            [{"tokens": w if listed else " ".join(w), "tags": t if listed else " ".join(t)} for w, t in found]
        )
        if listed:
            pytest.importorskip("pyarrow", reason="the extra llm is not installed")
            frame.to_parquet(file)
        else:
            frame.to_csv(file, sep="\t" if form == "tsv" else ",", index=False)
    options = {"classes": ",".join(TAGS)}
    made = token_classification(encoder, file, **options).splits()
    reference = token_classification(encoder, conll(tmp_path / "reference.conll"), **options).splits()
    assert made.fingerprint == reference.fingerprint
    assert made.report["class_names"] == TAGS and made.report["samples"] == 60


def test_the_first_token_of_a_word_has_its_tag_as_transformers_aligns_it(encoder: Path, tmp_path: Path) -> None:
    task = token_classification(encoder, conll(tmp_path / "t.conll"), max_length=9)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    names = task.splits().report["class_names"]
    expected = set()
    cut = 0
    for words, tags in rows():
        found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=9)
        before, goal = None, []
        for word in found.word_ids():
            goal.append(IGNORED if word is None or word == before else names.index(tags[word]))
            before = word
        cut += len(tags) - len({w for w in found.word_ids() if w is not None})
        pad = 9 - len(goal)
        expected.add((*found["input_ids"], *[0] * pad, *goal, *[IGNORED] * pad))
    splits = task.splits()
    mine = set()
    for part in (splits.train, splits.valid, splits.test):
        inputs, targets = part.batch(np.arange(len(part)))
        mine |= {(*a.tolist(), *b.tolist()) for a, b in zip(inputs["input_ids"], targets, strict=True)}
        assert (inputs["attention_mask"].sum(1) == (inputs["input_ids"] != 0).sum(1)).all()
    assert mine == expected
    assert cut and any(f"{cut} words are behind" in note for note in task.notes)


def test_a_trained_head_is_taken_by_name(taggers: dict[str, Path], tmp_path: Path) -> None:
    task = token_classification(taggers["named"], conll(tmp_path / "t.conll"))
    assert task.baseline is None and task.metric == "entity_f1" and task.class_axis == -1
    assert task.splits().report["class_names"] == ["B-LOC", "I-PER", "O", "B-PER"]
    assert right(task) == 1 and task.notes == ()
    again = load_task(task.ref)
    assert again.fingerprint == task.fingerprint and again.ref == task.ref


def test_another_numbering_is_seen_before_anything_is_trained(taggers: dict[str, Path], tmp_path: Path) -> None:
    file = conll(tmp_path / "t.conll")
    with pytest.raises(TaskError, match="plainly numbers its classes otherwise") as said:
        token_classification(taggers["unnamed"], file)
    assert "classes=B-LOC,I-PER,O,B-PER" in str(said.value)  # what it says helps
    assert right(token_classification(taggers["unnamed"], file, classes="B-LOC,I-PER,O,B-PER")) == 1
    assert right(token_classification(taggers["unnamed"], file, check_labels=False)) < 0.5
    fresh = token_classification(taggers["unnamed"], file, new_head=True)
    assert fresh.baseline is not None and fresh.splits().report["class_names"] == sorted(TAGS)
    assert fresh.build()(*[torch.from_numpy(v) for v in fresh.example().values()]).shape[2] == 4


def test_numbers_are_those_of_the_models_outputs(taggers: dict[str, Path], tmp_path: Path) -> None:
    order = ["B-LOC", "I-PER", "O", "B-PER"]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps({"tokens": w, "ner_tags": [order.index(x) for x in t]}) for w, t in rows()))
    task = token_classification(taggers["named"], file)
    assert right(task) == 1 and "0 is 'B-LOC'" in task.notes[0] and task.metric == "entity_f1"
    file.write_text("\n".join(json.dumps({"tokens": w, "ner_tags": [TAGS.index(x) for x in t]}) for w, t in rows()))
    with pytest.raises(TaskError, match="plainly numbers its classes otherwise"):
        token_classification(taggers["named"], file)


def test_a_model_that_guesses_is_said(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "random"
    torch.manual_seed(1)
    net = transformers.BertForTokenClassification(
        config(id2label=dict(enumerate(TAGS)), label2id={n: i for i, n in enumerate(TAGS)})
    )
    torch.nn.init.zeros_(net.classifier.weight)  # it always says the same
    net.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    task = token_classification(folder, conll(tmp_path / "t.conll"))
    assert any("about what guessing gives" in note for note in task.notes)


def test_tags_that_mark_no_spans_are_judged_one_by_one(encoder: Path, tmp_path: Path) -> None:
    found = [(w, ["NAME" if t != "O" else "OTHER" for t in tags]) for w, tags in rows()]
    task = token_classification(encoder, conll(tmp_path / "t.conll", found))
    assert task.metric == "token_accuracy" and task.baseline is not None


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("Ann B-PER\nBob\n", {}, "is no word and its tag"),
        ("Ann\n", {}, "is no word and its tag"),
        ("\n\n", {}, "has no words"),
        ("Ann B-PER\n", {"text_column": "word"}, "have no names"),
        ("Ann B-PER\n", {"label_column": "3"}, "has no such column"),
        ("Ann\t \n", {}, "without a usable word or tag"),
        ("Ann B-PER\n", {"max_length": 256}, "max_length does not fit"),
        ("Ann B-PER\n", {"max_length": 2}, "max_length does not fit"),
        ("Ann B-PER\nRome O\n", {"classes": "O,B-LOC"}, "not those of the data"),
        ("Ann B-PER\nRome O\n", {"classes": "O,O"}, "cannot be told apart"),
    ],
)
def test_what_does_not_fit_is_said(
    encoder: Path, tmp_path: Path, text: str, options: dict[str, Any], problem: str
) -> None:
    file = tmp_path / "t.conll"
    file.write_text(text)
    with pytest.raises(TaskError, match=problem):
        token_classification(encoder, file, **options)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"tokens": ["Ann", "Bob"], "tags": ["O"]}, "another number of tags than of words"),
        ({"tokens": ["Ann", None], "tags": ["O", "O"]}, "no words in column"),
        ({"tokens": ["Ann"], "tags": [["O"]]}, "no tags in column"),
        ({"tokens": ["Ann"], "tags": None}, "no tags in column"),
        ({"tokens": ["Ann"], "kind": ["O"]}, "no column that is surely the label"),
    ],
)
def test_rows_that_do_not_fit_are_named(encoder: Path, tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(TaskError, match=problem):
        token_classification(encoder, file)


def test_classes_of_another_model_are_refused_with_the_ways_out(taggers: dict[str, Path], tmp_path: Path) -> None:
    file = conll(tmp_path / "t.conll", [(w, ["B-ORG" if t != "O" else "O" for t in tags]) for w, tags in rows()])
    with pytest.raises(TaskError, match="classes are not those of the data") as said:
        token_classification(taggers["named"], file)
    assert "new_head=true" in str(said.value) and "classes=" in str(said.value)
    with pytest.raises(TaskError, match="another number of outputs"):
        token_classification(taggers["named"], file, classes="O,B-ORG")
    with pytest.raises(TaskError, match="no Hugging Face model directory"):
        token_classification(tmp_path, file)
    with pytest.raises(TaskError, match="no such data file"):
        token_classification(taggers["named"], tmp_path / "none.conll")
    with pytest.raises(TaskError, match="unknown format"):
        (tmp_path / "t.xml").write_text("x")
        token_classification(taggers["named"], tmp_path / "t.xml")
    with pytest.raises(TaskError, match="missing: data"):
        make_task("token-classification", model="x")


def test_comments_and_a_given_column(encoder: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.conll"
    one = "# text = Ann goes\n1\tAnn\tB-PER\n2\tgoes\tO\n\n#\n\n"
    file.write_text("".join(one + "1\tBob\tB-PER\n" * i + "\n" for i in range(1, 6)))
    task = token_classification(encoder, file, text_column="2")
    assert task.splits().report["class_names"] == ["B-PER", "O"] and task.splits().report["samples"] == 10


def test_a_deployed_folder_says_the_tags_of_words(taggers: dict[str, Path], tmp_path: Path) -> None:
    task = token_classification(taggers["named"], conll(tmp_path / "t.conll"), max_length=16)
    to = deployed(tmp_path / "to", task)
    spec = json.loads((to / "deployment.json").read_text())
    splits = task.splits()
    every = np.concatenate([b["input_ids"] for s in (splits.train, splits.valid, splits.test) for b, _ in s.batches()])
    mine = read([w for w, _ in rows()], spec, to)
    assert sorted(map(bytes, mine["input_ids"])) == sorted(map(bytes, every))
    code, said, wrong = alone(to, "Ann Smiths goes to Rome.")
    assert code == 0, wrong
    answer = json.loads(said)
    assert answer["words"] == ["Ann", "Smiths", "goes", "to", "Rome", "."]
    assert answer["labels"] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    assert [(s["text"], s["label"], s["start"], s["end"]) for s in answer["spans"]] == [
        ("Ann Smiths", "PER", 0, 10),
        ("Rome", "LOC", 19, 23),
    ]
    assert all(0.25 < s["probability"] <= 1 for s in answer["spans"])
    model = Model(to)
    assert model("Ann Smiths goes to Rome.")[0] == answer == model([answer["words"]])[0] | {"spans": answer["spans"]}
    long = model("Ann " + "goes " * 30)[0]
    assert long["labels"][0] == "B-PER" and long["labels"][-1] is None and len(long["labels"]) == 31
    assert alone(to, "--check")[0] == 0
    assert "tokenizers==" in (to / "requirements.txt").read_text()


def test_words_are_cut_at_spaces_and_punctuation() -> None:
    (text, words, places), (_, listed, at) = sentences(["(Don't!) go to 東京 well-known  U.S.", ["a b", "c"]])
    assert words == ["(", "Don't", "!", ")", "go", "to", "東", "京", "well-known", "U.S", "."]
    assert [text[a:b] for a, b in places] == words
    assert listed == ["a b", "c"] and at == [(0, 3), (4, 5)]
    assert sentences([""]) == [("", [], [])]


def test_spans_are_those_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    kinds = ["O", *(f"{m}-{k}" for m in "BIESLU" for k in "XY")]
    for _ in range(300):
        tags = [str(t) for t in rng.choice(kinds, size=rng.integers(1, 9))]
        assert deployed_spans(tags) == spans(tags)


def test_a_byte_level_tokenizer_puts_a_space_before_each_word(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(["<pad>", *alphabet, "ĠA", "ĠB"])}
    raw = Tokenizer(models.BPE(vocabulary, merges=[("Ġ", "A"), ("Ġ", "B")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    folder = tmp_path / "bytes"
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", model_max_length=128).save_pretrained(
        folder
    )
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=128,
        )
    ).save_pretrained(folder)
    found = [(["A", "B", *"AB"[: i % 3]], ["X", "Y", *"XY"[: i % 3]]) for i in range(30)]
    inputs = token_classification(folder, conll(tmp_path / "t.conll", found)).example()["input_ids"][0]
    assert inputs[:2].tolist() == [vocabulary["ĠA"], vocabulary["ĠB"]]
