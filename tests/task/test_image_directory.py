"""Image classifiers from Hugging Face directories, and images from tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from featherweight.deploy.predict import Model
from featherweight.errors import TaskError
from featherweight.task.kinds import make_task
from featherweight.task.kinds._processor import prepared, processing
from featherweight.task.kinds.image_classification import image_classification
from featherweight.task.load import load_task
from tests.deploy.test_predict import alone, deployed

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
CROP = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 20},
    "crop_size": {"height": 16, "width": 16},
    "image_mean": MEAN,
    "image_std": STD,
}


def photos(folder: Path, names: dict[str, tuple[int, int, int]] | None = None, n: int = 8) -> Path:
    """n images of each colour, of different sizes."""
    rng = np.random.default_rng(0)
    for name, colour in (COLOURS if names is None else names).items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            shape = (24 + i, 30 - i, 3)
            values = np.clip(np.array(colour) + rng.integers(-25, 26, shape), 0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows the three colours, as outputs blue, red, green."""
    order = ["blue", "red", "green"]
    torch.manual_seed(0)
    net = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=16,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            id2label=dict(enumerate(order)),
            label2id={n: i for i, n in enumerate(order)},
        )
    )
    step = torch.optim.Adam(net.parameters(), 0.01)
    plain = (torch.tensor([COLOURS[n] for n in order]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    for _ in range(60):
        given = plain[:, :, None, None] + 0.3 * torch.randn(3, 3, 16, 16)
        step.zero_grad()
        net(pixel_values=given, labels=torch.arange(3)).loss.backward()
        step.step()
    folder = tmp_path_factory.mktemp("vision") / "vit"
    net.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(CROP))
    return folder


def changed(vit: Path, folder: Path, names: list[str] | None = None, **processor: Any) -> Path:
    """A copy with other names of its outputs, or another processor."""
    folder.mkdir()
    for file in vit.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if names is not None:
        said = json.loads((folder / "config.json").read_text())
        said["id2label"] = {str(i): n for i, n in enumerate(names)}
        said["label2id"] = {n: i for i, n in enumerate(names)}
        (folder / "config.json").write_text(json.dumps(said))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps({**CROP, **processor}))
    return folder


def right(task: Any) -> float:
    inputs, targets = task.splits().train.batch(np.arange(len(task.splits().train)))
    with torch.no_grad():
        return float((task.build()(torch.from_numpy(inputs["image"])).argmax(1).numpy() == targets).mean())


@pytest.mark.parametrize(
    "said",
    [
        {"image_processor_type": "ViTImageProcessor"},
        {"image_processor_type": "ViTImageProcessor", "resample": 0, "size": {"height": 30, "width": 17}},
        {"image_processor_type": "ViTImageProcessor", "do_normalize": False, "do_rescale": False},
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 32},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 40}},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 25, "width": 18},
        },
        {"image_processor_type": "CLIPImageProcessor"},
        {"image_processor_type": "MobileNetV2ImageProcessor"},
        {"image_processor_type": "MobileViTImageProcessor"},
        {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True, "do_center_crop": True},
        {"image_processor_type": "DeiTImageProcessor"},
        {"image_processor_type": "LevitImageProcessor"},
        {"image_processor_type": "PoolFormerImageProcessor"},
    ],
)
def test_images_are_prepared_as_transformers_prepares_them(tmp_path: Path, said: dict[str, Any]) -> None:
    from featherweight.deploy.predict import image

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    made = processing(tmp_path, 3)
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (11, 8, 3), dtype=np.uint8)).resize((123, 77))
    photo.save(tmp_path / "photo.png")
    mine = torch.from_numpy(image(tmp_path / "photo.png", list(made.size), 3, None, made.fit)[None])
    from transformers import AutoImageProcessor

    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=photo, return_tensors="np")
    found = prepared(torch.nn.Identity(), made)(mine).numpy()
    assert np.allclose(found, theirs["pixel_values"], atol=1e-3 * max(made.scale))


def test_a_trained_head_is_taken_by_name(vit: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    task = image_classification(vit, folder)
    assert task.baseline is None and task.notes == () and right(task) == 1
    assert task.splits().report["class_names"] == ["blue", "red", "green"]
    assert task.example()["image"].shape == (1, 3, 16, 16)
    again = load_task(task.ref)
    assert again.fingerprint == task.fingerprint and again.ref == task.ref
    few = image_classification(vit, photos(tmp_path / "few", {n: COLOURS[n] for n in ("red", "green")}))
    assert right(few) == 1 and len(few.splits().report["class_names"]) == 3


def test_names_are_compared_as_people_write_them(vit: Path, tmp_path: Path) -> None:
    folder = photos(
        tmp_path / "photos", {"Deep_Blue": COLOURS["blue"], "rot": COLOURS["red"], "GREEN": COLOURS["green"]}
    )
    other = changed(vit, tmp_path / "other", ["deep blue", "red, rot", "green"])
    task = image_classification(other, folder)
    assert right(task) == 1 and task.splits().report["class_names"] == ["Deep_Blue", "rot", "GREEN"]


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], ["green", "blue", "red"]])
def test_another_numbering_is_seen_before_anything_is_trained(vit: Path, tmp_path: Path, names: list[str]) -> None:
    """Outputs without names are taken in order; names may be wrong."""
    folder = photos(tmp_path / "photos")
    other = changed(vit, tmp_path / "other", names)
    with pytest.raises(TaskError, match="plainly numbers its classes otherwise than the labels") as said:
        image_classification(other, folder)
    assert "classes=blue,red,green" in str(said.value) and "new_head=true" in str(said.value)
    assert right(image_classification(other, folder, classes="blue,red,green")) == 1
    assert right(image_classification(other, folder, check_labels=False)) < 0.5
    fresh = image_classification(other, folder, new_head=True)
    assert fresh.baseline is not None and fresh.splits().report["class_names"] == ["blue", "green", "red"]
    assert fresh.build()(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert load_task(fresh.ref).fingerprint == fresh.fingerprint


def test_labels_that_are_numbers_are_those_of_the_outputs(vit: Path, tmp_path: Path) -> None:
    by = {"0": COLOURS["blue"], "1": COLOURS["red"], "2": COLOURS["green"]}
    task = image_classification(vit, photos(tmp_path / "photos", by))
    assert right(task) == 1 and "0 is 'blue'" in task.notes[0]
    swapped = {"0": COLOURS["red"], "1": COLOURS["green"], "2": COLOURS["blue"]}
    with pytest.raises(TaskError, match="plainly numbers"):
        image_classification(vit, photos(tmp_path / "swapped", swapped))


def test_classes_of_another_model_are_refused_with_the_ways_out(vit: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", {"cat": COLOURS["red"], "dog": COLOURS["green"], "ant": COLOURS["blue"]})
    with pytest.raises(TaskError, match="classes are not those of the data") as said:
        image_classification(vit, folder)
    assert all(way in str(said.value) for way in ("classes=..", "classes=order", "new_head=true"))
    assert right(image_classification(vit, folder, classes=["ant", "cat", "dog"])) == 1
    assert right(image_classification(vit, folder, classes="order")) == 1
    with pytest.raises(TaskError, match="another number of outputs"):
        image_classification(vit, folder, classes="ant,cat,dog,elk")
    with pytest.raises(TaskError, match="not those of the data"):
        image_classification(vit, folder, classes="ant,cat,elk")


def test_a_model_that_guesses_is_said(vit: Path, tmp_path: Path) -> None:
    alike = {n: (128, 128, 128) for n in COLOURS}
    task = image_classification(vit, photos(tmp_path / "photos", alike))
    assert any("about what guessing gives" in note for note in task.notes)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_images_from_a_table_are_the_same_task(vit: Path, tmp_path: Path, suffix: str) -> None:
    folder = photos(tmp_path / "photos")
    rows = [{"path": str(p.relative_to(tmp_path)), "label": p.parent.name} for p in sorted(folder.glob("*/*.png"))]
    file, frame = tmp_path / f"t{suffix}", pd.DataFrame(rows)
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="the extra llm is not installed")
        frame.to_parquet(file)
    elif suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        frame.to_csv(file, index=False)
    task = image_classification(vit, file)
    assert task.splits().fingerprint == image_classification(vit, folder).splits().fingerprint
    assert load_task(task.ref).fingerprint == task.fingerprint
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef net(n):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n))\n"
    )
    plain = make_task("image-classification", model=f"{tmp_path / 'nets.py'}:net", data=file, size=8, epochs=0)
    assert plain.splits().report["class_names"] == ["blue", "green", "red"]
    assert plain.build()(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
    assert load_task(plain.ref).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("rows", "options", "problem"),
    [
        ([{"path": "gone.png", "label": "a"}, {"path": "x.png", "label": "b"}], {}, "are not there"),
        ([{"path": "x.png", "label": "a"}, {"path": "x.png", "label": "a"}], {}, "fewer than 2 classes"),
        ([{"path": None, "label": "a"}, {"path": "x.png", "label": "b"}], {}, "no path in column"),
        ([{"path": "x.png", "label": "a"}], {"path_column": "file"}, "no column 'file'"),
        ([{"path": "x.png", "label": "a"}], {"label_column": "path"}, "same column"),
        ([{"where": "x.png", "label": "a"}], {}, "no column that is surely the path"),
    ],
)
def test_tables_that_do_not_fit_are_said(
    vit: Path, tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], problem: str
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "x.png")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TaskError, match=problem):
        image_classification(vit, tmp_path / "t.jsonl", **options)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("{", "cannot be used"),
        ('{"image_processor_type": "NoSuchProcessor"}', "cannot be used"),
        ('{"image_processor_type": "ViTImageProcessor", "do_resize": false}', "different sizes"),
        ('{"image_processor_type": "ViTImageProcessor", "image_mean": [0.5]}', "cannot be used"),
        (
            '{"image_processor_type": "ViTImageProcessor", "size": {"height": 0, "width": 4}}',
            "no size of an image|fails|cannot",
        ),
        ('{"image_processor_type": "PerceiverImageProcessor"}', "cannot be done outside"),
        ('{"auto_map": {"AutoImageProcessor": "code.Mine"}}', "asks for code from elsewhere"),
        ('{"image_processor_type": "ViTImageProcessor"}', "does not run on what its directory makes of images"),
    ],
)
def test_processors_that_cannot_be_followed_are_refused(vit: Path, tmp_path: Path, said: str, problem: str) -> None:
    other = changed(vit, tmp_path / "other")
    (other / "preprocessor_config.json").write_text(said)
    with pytest.raises(TaskError, match=problem):
        image_classification(other, photos(tmp_path / "photos", n=2))


def test_options_that_do_not_fit_the_model_are_refused(vit: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", n=2)
    for options in ({"size": 8}, {"channels": 1}):
        with pytest.raises(TaskError, match="does not fit the model"):
            image_classification(vit, folder, **options)
    with pytest.raises(TaskError, match="does not fit the model"):
        image_classification("nets.py:net", folder, classes="a,b")
    with pytest.raises(TaskError, match="no such model directory, and this names no Python file"):
        image_classification(tmp_path / "none", folder)
    with pytest.raises(TaskError, match="a folder has no columns"):
        image_classification(vit, folder, label_column="label")
    other = changed(vit, tmp_path / "other")
    (other / "preprocessor_config.json").unlink()
    with pytest.raises(TaskError, match="how images are prepared"):
        image_classification(other, folder)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "torch"])
def test_a_photo_is_asked_as_transformers_asks_it(vit: Path, tmp_path: Path, target: str) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    folder = photos(tmp_path / "photos")
    to = deployed(tmp_path / "to", image_classification(vit, folder), target)
    photo = folder / "green" / "3.png"
    processor = transformers.AutoImageProcessor.from_pretrained(vit, backend="pil")
    net = transformers.AutoModelForImageClassification.from_pretrained(vit).eval()
    with torch.no_grad():
        logits = net(**processor(images=Image.open(photo).convert("RGB"), return_tensors="pt")).logits[0]
    expected = dict(zip(["blue", "red", "green"], logits.softmax(0).tolist(), strict=True))
    (answer,) = Model(to)(photo)
    assert answer["label"] == "green"
    assert all(abs(answer["probabilities"][n] - p) < 1e-4 for n, p in expected.items())
    if target != "torch":
        code, said, wrong = alone(to, str(photo))
        assert code == 0 and json.loads(said) == answer, wrong


def test_a_convolutional_directory_and_a_new_head(tmp_path: Path) -> None:
    folder = tmp_path / "resnet"
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}})
    )
    data = photos(tmp_path / "photos")
    task = image_classification(folder, data, new_head=True, epochs=2)
    assert task.baseline is not None and task.build()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(TaskError, match="classes are not those of the data"):
        image_classification(folder, data)
