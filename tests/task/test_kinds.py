"""The built-in task kinds, on tiny generated models, tables and images."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from featherweight.errors import MissingExtra, TaskError
from featherweight.recipe import Recipe
from featherweight.task.kinds import kinds, make_task
from featherweight.task.kinds._table import labelled_texts
from featherweight.task.kinds.image_classification import image_classification
from featherweight.task.kinds.text_classification import sorted_labels, text_classification
from featherweight.task.load import load_task

WORDS = ["good", "bad", "film", "a", "very", "the"]
NET = """
from torch import nn
def net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
def fixed():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
class Net(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        head = nn.Linear(width, num_classes)
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    def forward(self, image):
        return self.layers(image)
def strange(depth, width):
    return None
"""


def table(n: int = 40) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "text": " ".join([WORDS[i % 2], *rng.choice(WORDS[2:], size=1 + i % 9), "a" * (i + 1)]),
            "label": ["neg", "pos"][i % 2],
        }
        for i in range(n)
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("hf") / "tiny"
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *("a" * k for k in range(2, 50))])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def classifier(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with its own head, whose labels are in an order that is not the alphabet's."""
    from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("hf") / "own"
    config = AutoConfig.from_pretrained(bert, id2label={0: "POS", 1: "NEG"}, label2id={"POS": 0, "NEG": 1})
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


def test_the_kinds_are_found_by_their_files() -> None:
    assert kinds() == (
        "audio-classification",
        "image-classification",
        "model-file",
        "tabular",
        "text-classification",
        "text-embedding",
        "token-classification",
    )
    with pytest.raises(TaskError, match=r"missing: data, model|missing: model, data"):
        make_task("text-classification", colour="red")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_text_in_every_format_is_the_same_task(bert: Path, tmp_path: Path, suffix: str) -> None:
    import pandas as pd

    frame, file = pd.DataFrame(table()), tmp_path / f"films{suffix}"
    if suffix == ".jsonl":
        file.write_text("\n".join(json.dumps(r) for r in table()))
    elif suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="the extra llm is not installed")
        frame.to_parquet(file)
    else:
        frame.to_csv(file, sep="\t" if suffix == ".tsv" else ",", index=False)
    s = text_classification(bert, file).splits()
    reference = text_classification(bert, write_csv(tmp_path / "reference.csv", table())).splits()
    assert s.fingerprint == reference.fingerprint and s.report["class_names"] == ["neg", "pos"]
    assert s.report["samples"] == 40


def test_texts_are_padded_to_a_multiple_of_eight_and_masked(bert: Path, tmp_path: Path) -> None:
    task = text_classification(bert, write_csv(tmp_path / "t.csv", table()))
    inputs, targets = task.splits().train.batch(np.arange(5))
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (5, 16)  # the longest has 13 tokens
    assert {v.dtype for v in inputs.values()} == {np.dtype(np.int64)} and targets.dtype == np.int64
    assert np.array_equal(inputs["input_ids"] != 0, inputs["attention_mask"] == 1)
    assert text_classification(bert, tmp_path / "t.csv", max_length=6).example()["input_ids"].shape == (1, 6)


def test_padding_does_not_change_the_logits(bert: Path, tmp_path: Path) -> None:
    task = text_classification(bert, write_csv(tmp_path / "t.csv", table()))
    module, x = task.build(), task.example()
    ids, mask = torch.from_numpy(x["input_ids"]), torch.from_numpy(x["attention_mask"])
    n = int(mask.sum())
    with torch.no_grad():
        assert torch.allclose(module(ids, mask), module(ids[:, :n], mask[:, :n]), atol=1e-5)
        # oracle: the mean over the real tokens
        hidden = module.encoder(input_ids=ids[:, :n]).last_hidden_state
        assert torch.allclose(module(ids, mask), module.head(hidden.mean(dim=1)), atol=1e-5)
    assert module.encoder.pooler is None
    assert task.baseline is not None and task.baseline.to_json()["recipe"][0]["train"]["epochs"] == 3


def test_an_own_head_keeps_its_label_order_and_needs_no_training(classifier: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    task = text_classification(classifier, write_csv(tmp_path / "t.csv", table()))
    assert task.baseline is None and task.splits().train.classes == ("pos", "neg")
    inputs, targets = task.splits().train.batch(np.arange(4))
    # odd rows begin with "bad" and are "pos"
    is_good = inputs["input_ids"][:, 1] == 4 + WORDS.index("bad")
    assert np.array_equal(targets == 0, is_good)
    reference = BertForSequenceClassification.from_pretrained(classifier).eval()
    ids, mask = torch.from_numpy(inputs["input_ids"]), torch.from_numpy(inputs["attention_mask"])
    with torch.no_grad():
        assert torch.allclose(task.build()(ids, mask), reference(input_ids=ids, attention_mask=mask).logits, atol=1e-6)


def test_a_head_of_another_size_is_replaced(classifier: Path, tmp_path: Path) -> None:
    rows = [{**r, "label": str(i % 3)} for i, r in enumerate(table())]
    task = text_classification(classifier, write_csv(tmp_path / "t.csv", rows))
    x = task.example()
    assert task.build()(*map(torch.from_numpy, x.values())).shape == (1, 3) and isinstance(task.baseline, Recipe)


def test_a_text_task_is_made_again_from_its_ref(bert: Path, tmp_path: Path) -> None:
    task = make_task(
        "text_classification", model=str(bert), data=str(write_csv(tmp_path / "t.csv", table())), split_seed=4, epochs=0
    )
    assert task.baseline is None
    again = load_task(json.loads(json.dumps(task.ref)))
    assert again.fingerprint == task.fingerprint and again.ref == task.ref
    a, b = task.build().state_dict(), again.build().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    write_csv(tmp_path / "t.csv", table(41))
    assert load_task(task.ref).fingerprint != task.fingerprint


def test_a_missing_package_is_named_with_its_extra(
    bert: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("transformers", "PIL"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"featherweight\[llm\]"):
        text_classification(bert, write_csv(tmp_path / "t.csv", table()))
    with pytest.raises(MissingExtra, match=r"featherweight\[image\]"):
        image_classification(f"{net}:Net", tmp_path)


def test_labels_are_sorted_as_numbers_where_they_are_numbers() -> None:
    assert sorted_labels(["10", "9", "9", "-1"]) == ["-1", "9", "10"] and sorted_labels(["10", "9", "x"]) == [
        "10",
        "9",
        "x",
    ]


def test_words_that_look_missing_are_words(bert: Path, tmp_path: Path) -> None:
    rows = [{**r, "label": ["None", "NA"][i % 2]} for i, r in enumerate(table())]
    assert text_classification(bert, write_csv(tmp_path / "t.csv", rows)).splits().report["class_names"] == [
        "NA",
        "None",
    ]


def reviews(mark: str) -> str:
    """60 rows of text and label, tab between; two texts begin with a quotation mark."""
    lines = [f"{mark if i in (10, 20) else ''}text {i} is so\t{['neg', 'pos'][i % 2]}" for i in range(60)]
    return "\n".join(["text\tlabel", *lines]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        reviews('"'),
        reviews('"').replace("text 20", 'inch"'),
        reviews('"').replace("text 20 is so", 'a closing one"'),
        reviews('"').replace("\n", "\r\n"),
        "\ufeff" + reviews('"'),
    ],
)
def test_a_mark_that_is_never_closed_swallows_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "reviews.TSV").write_bytes(text.encode())
    texts, labels = labelled_texts(tmp_path / "reviews.TSV", None, None)
    assert len(texts) == 60 and texts[10] == '"text 10 is so' and labels[:3] == ["neg", "pos", "neg"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_quoted_tables_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    words = ['"quoted"', 'an inch: 1"', "tab\tor, comma", "two\nlines\n", "plain", "x" * 200_000]
    rows = [{"text": w, "label": ["a", "b"][i % 2]} for i, w in enumerate(words)]
    for some in (rows, rows[:3] + rows[4:]):  # with and without a text of several lines
        pd.DataFrame(some).to_csv(tmp_path / f"t{suffix}", sep="\t" if suffix == ".tsv" else ",", index=False)
        assert labelled_texts(tmp_path / f"t{suffix}", None, None)[0] == [r["text"] for r in some]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", reviews('"').replace("\t", ","), "line 12 to 22"),
        ("t.csv", 'text,label\na,1\n"b,1\n', "line 3"),
        ("t.csv", "text,label\na,1\nb,1,2\n", r"line 3: 3 fields[\s\S]*2 fields: text, label"),
        ("t.csv", "text,label\na\n", "line 2: 1 fields"),
        ("t.tsv", reviews('"').replace("text 30 is so", "one\ttoo many"), "line 12 to 22"),
        ("t.csv", "", "empty"),
    ],
)
def test_a_row_that_cannot_be_told_is_named_by_its_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TaskError, match=says):
        labelled_texts(tmp_path / name, None, None)


def test_a_byte_order_mark_and_capitals_in_a_suffix_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "t.JSONL").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": 1}\n{"text": "b", "label": 0.0}\n')
    (tmp_path / "t.CSV").write_bytes(b"\xef\xbb\xbftext,label\na,1\nb,0.0\n")
    for name in ("t.JSONL", "t.CSV"):
        assert labelled_texts(tmp_path / name, None, None) == (["a", "b"], ["1", "0"])


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["0", "1", "1.0", "1"], ["0", "1", "1", "1"]),
        (["1.0", "0.0"], ["1", "0"]),
        (["1.0", "1.1"], ["1.0", "1.1"]),  # versions
        (["01", "02"], ["01", "02"]),
        (["--1", "1"], ["--1", "1"]),
    ],
)
def test_labels_that_are_one_number_are_one_class(tmp_path: Path, labels: list[str], found: list[str]) -> None:
    rows = [{"text": f"w{i}", "label": v} for i, v in enumerate(labels * 3)]
    assert labelled_texts(write_csv(tmp_path / "t.csv", rows), None, None)[1] == found * 3
    assert sorted_labels(["--1", "1"]) == ["--1", "1"]


@pytest.mark.parametrize("labels", [["01", "1", "2"], ["1", "1.0", "none"]])
def test_labels_that_may_be_one_class_or_two_are_refused(tmp_path: Path, labels: list[str]) -> None:
    rows = [{"text": f"w{i}", "label": v} for i, v in enumerate(labels * 3)]
    with pytest.raises(TaskError, match="the same number"):
        labelled_texts(write_csv(tmp_path / "t.csv", rows), None, None)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"words": "a", "kind": "x"}] * 4, {}, r"surely the text[\s\S]*words, kind[\s\S]*text_column"),
        ([{"text": "a", "kind": "x"}] * 4, {}, r"surely the label[\s\S]*label_column"),
        (table(), {"text_column": "Text"}, r"no column 'Text'[\s\S]*text, label"),
        (table(), {"text_column": "label"}, "same column"),
        ([*table(4), {"text": "", "label": "pos"}, {"text": "  ", "label": "pos"}], {}, r"no text[\s\S]*rows 5, 6"),
        ([*table(4), {"text": "x", "label": ""}], {}, r"no usable label[\s\S]*rows 5"),
        ([{"text": f"a {i}", "label": f"id {i}"} for i in range(9)], {}, "does not look like classes"),
        (table(), {"max_length": 1000}, "1 to 128"),
        (table(), {"max_length": 0}, "1 to 128"),
    ],
)
def test_tables_that_cannot_be_used(
    bert: Path, tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(TaskError, match=says):
        text_classification(bert, write_csv(tmp_path / "t.csv", rows), **options).splits()


def test_files_that_cannot_be_read(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "label": 1}\n[1]\n')
    (tmp_path / "worse.jsonl").write_text('{"text": "a"\n')
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "latin.csv").write_bytes(b"text,label\n\xe9t\xe9,1\n")
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "table.xlsx").write_text("")
    says = {
        "bad.jsonl": "bad.jsonl:2",
        "worse.jsonl": "cannot be read",
        "bad.parquet": "cannot be read",
        "latin.csv": "cannot be read",
        "empty.csv": "no rows",
        "table.xlsx": "unknown format",
        "absent.csv": "no such data file",
    }
    for name, message in says.items():
        with pytest.raises(TaskError, match=message):
            text_classification(bert, tmp_path / name)


def test_directories_that_are_no_models(bert: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "t.csv", table())
    with pytest.raises(TaskError, match="no Hugging Face"):
        text_classification(tmp_path, data)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text((bert / "config.json").read_text())
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(TaskError, match="never loaded"):
        text_classification(tmp_path / "pickled", data)
    (tmp_path / "pickled" / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    with pytest.raises(TaskError, match="tokenizer"):
        text_classification(tmp_path / "pickled", data).splits()


def draw(folder: Path, mode: str = "L", size: tuple[int, int] = (8, 6), n: int = 6, suffix: str = ".png") -> Path:
    rng = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 128, size=(size[1], size[0], 3), dtype=np.uint8) + np.uint8(100 * k)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i}{suffix}")
    return folder


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def test_images_are_read_as_they_are(net: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "pets")
    task = image_classification(f"{net}:Net", folder)
    s = task.splits()
    assert s.report["class_names"] == ["cat", "dog"] and s.report["sizes"] == {"train": 8, "valid": 2, "test": 2}
    x, y = s.train.batch(np.arange(8))
    assert x["image"].shape == (8, 1, 6, 8) and x["image"].dtype == np.float32
    stored = {np.asarray(Image.open(p)).tobytes(): p.parent.name for p in folder.glob("*/*.png")}
    for image, target in zip(x["image"], y, strict=True):
        assert stored[np.round(image[0] * 255).astype(np.uint8).tobytes()] == ("cat", "dog")[target]
    assert task.build()(torch.from_numpy(x["image"])).shape == (8, 2)
    assert load_task(json.loads(json.dumps(task.ref))).fingerprint == task.fingerprint


@pytest.mark.parametrize(
    ("mode", "channels", "found"),
    [("L", None, 1), ("RGB", None, 3), ("P", None, 3), ("RGBA", None, 3), ("RGB", 1, 1), ("L", 3, 3)],
)
def test_channels(net: Path, tmp_path: Path, mode: str, channels: int | None, found: int) -> None:
    task = image_classification(f"{net}:net", draw(tmp_path / "pets", mode), size=5, channels=channels)
    assert task.example()["image"].shape == (1, found, 5, 5)


def test_sixteen_bit_grey_keeps_its_depth(net: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "pets", n=3)
    for i, p in enumerate(sorted(folder.glob("*/*.png"))):
        Image.fromarray(np.full((6, 8), 10_000 * (i + 1), dtype=np.uint16)).save(p)
    x = image_classification(f"{net}:Net", folder).splits().train.batch(np.arange(2))[0]["image"]
    assert set(np.round(np.unique(x) * 65535).astype(int)) <= {10_000 * (i + 1) for i in range(6)} and x.max() <= 1


def deep(folder: Path, values: np.ndarray) -> Path:
    """TIFF images of one value each, typed as `values` [6]."""
    for k, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i, v in enumerate(values.reshape(2, 3)[k]):
            Image.fromarray(np.full((6, 8), v)).save(folder / name / f"{i}.tif")
    return folder


def twelve_bit(value: int) -> bytes:
    """A grey TIFF of 8 x 6 samples of 12 bits, packed, by hand (TIFF 6.0)."""
    row = int(f"{value:012b}" * 8, 2).to_bytes(12, "big") * 6
    entries = [(256, 4, 8), (257, 4, 6), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 6), (279, 4, len(row))]
    ifd = len(entries).to_bytes(2, "little")
    for tag, kind, v in entries:
        ifd += (
            tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + v.to_bytes(4, "little")
        )
    return b"II*\0" + (8 + len(row)).to_bytes(4, "little") + row + ifd + bytes(4)


def test_floating_point_images_are_read_as_they_are_or_refused(net: Path, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 6, dtype=np.float32)
    task = image_classification(f"{net}:Net", deep(tmp_path / "unit", values))
    x = np.concatenate([b["image"] for s in ("train", "valid", "test") for b, _ in getattr(task.splits(), s).batches()])
    assert set(np.unique(x)) == set(values)
    with pytest.raises(TaskError, match=r"samples from \d+ to \d+; allowed: 0 to 1; depth=8"):
        image_classification(f"{net}:Net", deep(tmp_path / "bytes", 255 * values)).splits()
    x = image_classification(f"{net}:Net", tmp_path / "bytes", depth=8).splits().train.batch(np.arange(2))[0]["image"]
    assert set(np.unique(x)) <= set(values)


def test_images_of_twelve_bits_are_not_black(net: Path, tmp_path: Path) -> None:
    folder = deep(tmp_path / "pets", np.arange(6, dtype=np.uint16) * 819)
    with pytest.raises(TaskError, match=r"no sample above 4095[\s\S]*depth=12"):
        image_classification(f"{net}:Net", folder)
    for bits, top in ((12, 1.0), (16, 4095 / 65535)):
        task = image_classification(f"{net}:Net", folder, depth=bits)
        again = load_task(json.loads(json.dumps(task.ref)))
        seen = [b["image"].max() for s in ("train", "valid", "test") for b, _ in getattr(again.splits(), s).batches()]
        assert max(seen) == pytest.approx(top)
    with pytest.raises(TaskError, match="allowed: 0 to 1023"):
        image_classification(f"{net}:Net", folder, depth=10).splits()
    with pytest.raises(TaskError, match="8 to 32"):
        image_classification(f"{net}:Net", folder, depth=7)
    for i, p in enumerate(sorted(folder.glob("*/*.tif"))):  # the file itself says 12 bits
        p.write_bytes(twelve_bit(i * 819))
    splits = image_classification(f"{net}:Net", folder).splits()
    seen = [b["image"].max() for s in ("train", "valid", "test") for b, _ in getattr(splits, s).batches()]
    assert max(seen) == pytest.approx(1.0)


def test_a_turned_photo_stands_upright(net: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "pets", "RGB", size=(8, 6), suffix=".jpg")
    for path in folder.glob("*/*.jpg"):
        image = Image.open(path).transpose(Image.Transpose.ROTATE_90)  # 6 wide, 8 high
        exif = Image.Exif()
        exif[0x0112] = 6  # "turn right by 90 degrees to view"
        image.save(path, exif=exif)
    assert image_classification(f"{net}:net", folder).example()["image"].shape == (1, 3, 6, 8)


def test_image_problems_name_the_file_and_the_fix(net: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "pets")
    Image.new("L", (9, 9)).save(folder / "cat" / "big.png")
    with pytest.raises(TaskError, match=r"different sizes[\s\S]*9x9 \(big.png\)[\s\S]*size=224"):
        image_classification(f"{net}:Net", folder)
    assert image_classification(f"{net}:Net", folder, size=(4, 6)).example()["image"].shape == (1, 1, 4, 6)
    (folder / "cat" / "big.png").write_bytes(b"no image")
    with pytest.raises(TaskError, match="big.png"):
        image_classification(f"{net}:Net", folder)
    whole = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "big.png").write_bytes(whole[: len(whole) // 2])  # the header is fine
    with pytest.raises(TaskError, match="big.png"):
        image_classification(f"{net}:Net", folder).splits()


def test_image_folders_and_networks_that_do_not_fit(net: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "pets")
    for ref, says in [
        (f"{net}:absent", "net, strange|Net, fixed"),
        (f"{net}:strange", "wrong arguments"),
        (f"{tmp_path}/none.py:net", "no such file"),
        ("net", "names no Python file"),
    ]:
        with pytest.raises(TaskError, match=says):
            image_classification(ref, folder)
    with pytest.raises(TaskError, match="does not run"):
        image_classification(f"{net}:fixed", folder).build()  # wants 3 channels
    for bad, says in [(tmp_path / "nowhere", "no such folder"), (folder / "cat", "fewer than 2 classes")]:
        with pytest.raises(TaskError, match=says):
            image_classification(f"{net}:Net", bad)
    (tmp_path / "split").mkdir()
    folder.rename(tmp_path / "split" / "train")
    (tmp_path / "split" / "test").mkdir()
    with pytest.raises(TaskError, match="as .../train"):
        image_classification(f"{net}:Net", tmp_path / "split")
    for options in ({"size": 0}, {"size": "big"}, {"channels": 2}):
        with pytest.raises(TaskError, match=re.compile("size|channels")):
            image_classification(f"{net}:Net", tmp_path / "split" / "train", **options)


@pytest.mark.parametrize(
    ("delimiter", "said", "fix"),
    [(";", "';' between them", "with commas"), ("\t", "tabs between them", "name it .tsv")],
)
@pytest.mark.parametrize("quoted", [True, False])
def test_another_delimiter_in_a_csv_is_named(tmp_path, delimiter, said, fix, quoted):
    rows = [["text", "label"], ["a film, good", "1"], ["bad", "0"]]
    lines = [delimiter.join(f'"{cell}"' if quoted else cell.replace(",", "") for cell in row) for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(TaskError, match="not separated by commas") as e:
        labelled_texts(tmp_path / "t.csv", None, None)
    assert e.value.got == said and fix in e.value.fix


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("text,label,label\na,1,0\nb,0,1\n")
    with pytest.raises(TaskError, match="the same name") as e:
        labelled_texts(tmp_path / "t.csv", None, None)
    assert "'label'" in e.value.got


def test_what_macos_writes_beside_images_is_left_out_and_said(tmp_path):
    folder = draw(tmp_path / "photos")
    net = tmp_path / "net.py"
    net.write_text(NET)
    whole = image_classification(f"{net}:Net", folder)
    assert whole.notes == ()
    some = next(p for p in folder.iterdir() if p.is_dir())
    (some / "._x.png").write_bytes(b"\x00\x05\x16\x07")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._y.png").write_bytes(b"\x00")
    made = image_classification(f"{net}:Net", folder)
    assert made.fingerprint == whole.fingerprint and made.splits().report["samples"] == 12
    assert "._x.png" in made.notes[0] and "__MACOSX" in made.notes[0]


@pytest.mark.parametrize(("most", "depth"), [(255, 8), (4095, 12), (65535, 16)])
def test_images_of_32_bits_are_not_black(net: Path, tmp_path: Path, most: int, depth: int) -> None:
    values = (np.linspace(0, 1, 6) * most).astype(np.int32)
    folder = deep(tmp_path / "deep", values)
    with pytest.raises(TaskError, match=rf"32-bit images use {depth} bits[\s\S]*above {most} of[\s\S]*depth={depth}"):
        image_classification(f"{net}:Net", folder)
    splits = image_classification(f"{net}:Net", folder, depth=depth).splits()
    assert max(s.batch(np.arange(len(s)))[0]["image"].max() for s in (splits.train, splits.valid, splits.test)) == 1.0
    assert image_classification(f"{net}:Net", folder, depth=32).splits()
    bright = deep(tmp_path / "bright", values * (2**31 // (most + 1)))
    assert image_classification(f"{net}:Net", bright).splits()


def test_floats_that_are_no_numbers_get_no_advice_that_does_not_help(net: Path, tmp_path: Path) -> None:
    folder = deep(tmp_path / "nan", np.full(6, np.nan, np.float32))
    with pytest.raises(TaskError, match="samples from nan to nan") as e:
        image_classification(f"{net}:Net", folder).splits()
    assert "depth" not in str(e.value)


def test_photos_named_jfif_are_photos(net: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "photos", "RGB")
    for p in folder.glob("*/*.png"):
        with Image.open(p) as image:
            image.save(p.with_suffix(".jfif"), format="JPEG")
        p.unlink()
    assert image_classification(f"{net}:fixed", folder).splits().report["samples"] == 12


def test_long_numbers_are_compared_exactly(tmp_path: Path) -> None:
    """As floats they are one, and Python reads no number of 5,000 digits."""
    for labels in (
        ["9007199254740992", "9007199254740993", "x"],
        ["9" * 400, "8" * 400, "x"],
        ["9" * 5000, "8" * 5000],
    ):
        lines = "".join(f"w{i},{label}\n" for i, label in enumerate(labels * 4))
        (tmp_path / "t.csv").write_text(f"text,label\n{lines}")
        found = labelled_texts(tmp_path / "t.csv", None, None)[1]
        assert found == labels * 4 and sorted(sorted_labels(found)) == sorted(set(labels))


TEXTS = [f"w{i}" for i in range(8)]


def parquet(folder: Path, label: Any, text: Any = None, twice: bool = False) -> Path:
    pa = pytest.importorskip("pyarrow", reason="the extra llm is not installed")
    import pyarrow.parquet as pq

    columns = [pa.array(TEXTS) if text is None else text, label(pa), *([label(pa)] if twice else [])]
    names = ["text", "label", *(["label"] if twice else [])]
    pq.write_table(pa.Table.from_arrays(columns, names=names), folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize(
    ("kind", "value"), [("timestamp", 2**61), ("date32", 2**30), ("duration", 2**62)], ids=["time", "date", "duration"]
)
def test_times_that_there_are_none_of_in_python(tmp_path: Path, kind: str, value: int) -> None:
    def label(pa: Any) -> Any:
        unit = {"timestamp": ("us",), "date32": (), "duration": ("s",)}[kind]
        whole = pa.array([value, 1] * 4, pa.int32() if kind == "date32" else pa.int64())
        return whole.cast(getattr(pa, kind)(*unit))

    with pytest.raises(TaskError, match="cannot be read"):
        labelled_texts(parquet(tmp_path, label), None, None)


def test_columns_of_a_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra llm is not installed")

    def whole(pa: Any) -> Any:
        return pa.array([0, 1] * 4)

    with pytest.raises(TaskError, match="(?s)same name.*'label'"):
        labelled_texts(parquet(tmp_path, whole, twice=True), None, None)
    for kind in (pa.string_view(), pa.large_string()):
        texts, labels = labelled_texts(parquet(tmp_path, whole, pa.array(TEXTS, kind)), None, None)
        assert texts == TEXTS and labels == ["0", "1"] * 4
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        with pytest.raises(TaskError, match="(?s)holds bytes.*'text'.*cast"):
            labelled_texts(parquet(tmp_path, whole, pa.array([t.encode() for t in TEXTS], kind)), None, None)


def test_a_key_that_stands_twice_in_a_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "w{i}", "label": 1, "label": {i % 2}}}\n' for i in range(8)))
    with pytest.raises(TaskError, match="(?s)line 1.*'label' stands twice"):
        labelled_texts(tmp_path / "t.jsonl", None, None)
