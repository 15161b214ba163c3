"""Photos and texts, as people have them, go to a deployed model as its task reads them."""

import json

import numpy as np
import pytest

from featherweight.deploy.predict import Model, read
from featherweight.task.kinds import make_task
from featherweight.task.kinds.image_classification import image_classification
from featherweight.task.kinds.text_classification import saved_tokenizer, text_classification
from tests.deploy.test_predict import OURS, alone, deployed
from tests.task.test_audio import NET as SOUND_NET
from tests.task.test_audio import tone, tones, write
from tests.task.test_prepared import photos
from tests.task.test_tabular import houses, written


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photo_is_read_as_the_task_reads_it(tmp_path, mode):
    folder = photos(tmp_path, mode)
    task = image_classification(f"{tmp_path / 'nets.py'}:net", folder, size=(16, 12), epochs=0)
    to = deployed(tmp_path / "to", task)
    photo = sorted(folder.glob("cat/*.png"))[3]
    spec = json.loads((to / "deployment.json").read_text())
    mine = read(photo, spec, to)["image"][0]
    splits = task.splits()
    every = np.concatenate([b["image"] for s in (splits.train, splits.valid, splits.test) for b, _ in s.batches()])
    assert ((every == mine).all((1, 2, 3))).sum() == 1
    code, said, wrong = alone(to, str(photo), str(photo))
    assert code == 0, wrong
    assert json.loads(said.splitlines()[0])["label"] in ("cat", "dog") and len(said.splitlines()) == 2
    (tmp_path / "not.png").write_bytes(b"no image")
    code, _, wrong = alone(to, str(tmp_path / "not.png"))
    assert code == 2 and wrong.startswith("Error: no PNG")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny encoder with a word-piece tokenizer, as a Hugging Face directory."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "##s", "the", "."]
    raw = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bert")
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, **special).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_a_text_is_cut_as_the_task_cuts_it(tmp_path, bert):
    texts = [f"{'Good' if i % 2 else 'bad'} films, {'a ' * (i % 7)}the film {i}." for i in range(40)]
    lines = "\n".join(json.dumps({"text": t, "label": "pos" if i % 2 else "neg"}) for i, t in enumerate(texts))
    (tmp_path / "t.jsonl").write_text(lines)
    task = text_classification(bert, tmp_path / "t.jsonl", max_length=12, epochs=0)
    to = deployed(tmp_path / "to", task)
    spec = json.loads((to / "deployment.json").read_text())
    mine = read(texts, spec, to)
    splits = task.splits()
    rows = [b for s in (splits.train, splits.valid, splits.test) for b, _ in s.batches()]
    for name in ("input_ids", "attention_mask"):
        every = np.concatenate([b[name] for b in rows])
        assert mine[name].shape == every.shape
        assert sorted(map(bytes, mine[name])) == sorted(map(bytes, every))
    code, said, wrong = alone(to, texts[0], hidden=OURS)
    assert code == 0, wrong
    answer = json.loads(said)
    assert answer["label"] in ("pos", "neg")
    assert answer == Model(to)(texts[0])[0]
    (tmp_path / "notes.txt").write_text("good\nbad film\n")
    code, said, _ = alone(to, str(tmp_path / "notes.txt"))
    assert code == 0 and len(said.splitlines()) == 2


def test_the_tokenizer_file_is_held_to_the_tokenizer(tmp_path, bert, monkeypatch):
    from featherweight.deploy import predict
    from featherweight.errors import TaskError

    right = predict.texts
    monkeypatch.setattr(predict, "texts", lambda *a: {k: np.flip(v, 1) for k, v in right(*a).items()})
    with pytest.raises(TaskError, match="cuts texts otherwise"):
        saved_tokenizer(bert, tmp_path, 12)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "torch"])
def test_a_sound_is_read_as_the_task_reads_it(tmp_path, target):
    if target == "openvino":
        pytest.importorskip("openvino")
    (tmp_path / "nets.py").write_text(SOUND_NET)
    folder = tones(tmp_path / "tones")
    task = make_task("audio-classification", model=f"{tmp_path / 'nets.py'}:net", data=folder, epochs=0, rate=6000)
    to = deployed(tmp_path / "to", task, target)
    spec = json.loads((to / "deployment.json").read_text())
    mine = read(folder / "low" / "3.wav", spec, to)["waveform"][0]
    splits = task.splits()
    every = np.concatenate([b["waveform"] for s in (splits.train, splits.valid, splits.test) for b, _ in s.batches()])
    assert (every == mine).all(1).sum() == 1
    other = write(tmp_path / "long.wav", tone(2000, 100_000, 44_100), 44_100)
    hidden = OURS | {"scipy"} if target != "torch" else {"featherweight", "scipy"}
    code, said, wrong = alone(to, str(folder / "low" / "3.wav"), str(other), hidden=hidden)
    assert code == 0, wrong
    answers = [json.loads(line) for line in said.splitlines()]
    assert len(answers) == 2 and set(answers[0]["probabilities"]) == {"low", "high"}
    assert answers[0]["label"] == Model(to)(folder / "low" / "3.wav")[0]["label"]
    assert alone(to, "--check", hidden=hidden)[0] == 0
    (tmp_path / "no.wav").write_bytes(b"no sound")
    code, _, wrong = alone(to, str(tmp_path / "no.wav"), hidden=hidden)
    assert code == 2 and "is no WAV file" in wrong


@pytest.mark.parametrize("options", [{"ignore": "price"}, {"label_column": "price"}])
def test_rows_are_read_by_the_names_of_their_columns(tmp_path, options):
    frame = houses()
    task = make_task("tabular", data=written(tmp_path / "t.csv", frame), **options)
    to = deployed(tmp_path / "to", task)
    spec = json.loads((to / "deployment.json").read_text())
    assert spec["prepare"]["kind"] == "table"
    mine = read(tmp_path / "t.csv", spec, to)
    for part in (task.splits().train, task.splits().valid):
        for name, value in part.batch(np.arange(len(part)))[0].items():
            assert np.array_equal(mine[name][part.index], value)
    # in any order, with any others, and without the target
    shuffled = frame[["colour", "built", "area", "code", "note", *(["label"] if "ignore" not in options else [])]]
    few = written(tmp_path / "few.csv", shuffled[:6])
    code, said, wrong = alone(to, str(few))
    assert code == 0, wrong
    answers = [json.loads(line) for line in said.splitlines()]
    rows = [{k: None if v != v else v for k, v in row.items()} for row in shuffled[:6].to_dict("records")]
    assert len(answers) == 6 and answers == Model(to)(few) == Model(to)(rows)
    if "ignore" in options:
        assert {a["label"] for a in answers} <= {"cheap", "dear"}
    else:  # in its own units
        assert 1e5 < answers[0]["output"][0] < 1e6
    assert alone(to, "--check")[0] == 0
    for change, problem in (
        (shuffled.drop(columns="area"), "no column 'area'"),
        (shuffled.assign(area="big"), "no number"),
    ):
        code, _, wrong = alone(to, str(written(tmp_path / "bad.csv", change)))
        assert code == 2 and problem in wrong
    unseen = shuffled[:1].assign(colour="pink", area=np.nan)
    assert Model(to)(written(tmp_path / "new.csv", unseen))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_what_is_whole_keeps_the_names_of_its_inputs(tmp_path, target):
    """A runtime leaves out a slice that is all of an input, and the input's name with it."""
    if target == "openvino":
        pytest.importorskip("openvino")
    frame = houses()[["label"]].assign(x=np.arange(120.0) ** 2, y=np.arange(120.0) ** 3)
    table = make_task("tabular", data=written(tmp_path / "t.csv", frame), epochs=0)
    (tmp_path / "nets.py").write_text(SOUND_NET)
    folder = tones(tmp_path / "tones")
    sounds = make_task(
        "audio-classification", model=f"{tmp_path / 'nets.py'}:net", data=folder, epochs=0, seconds=0.485, hop_ms=10
    )
    assert (sounds.example()["waveform"].shape[1] - 200) % 80 == 0  # frames that fill it
    for name, task in (("table", table), ("sounds", sounds)):
        to = deployed(tmp_path / name, task, target)
        assert alone(to, "--check")[0] == 0
