"""What a deployed model with an answer at each place of a sample says."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.cli.predict import _said
from featherweight.deploy.predict import answers
from featherweight.engine.deployed import _output
from featherweight.task.accept import task_of
from tests.deploy.test_predict import alone, deployed


def answer(means, outputs, labels=None, axis=None):
    output = {"means": means, **({"labels": labels} if labels else {}), **({"class_axis": axis} if axis else {})}
    return answers(np.asarray(outputs, dtype=np.float32), {"output": output})[0]


def test_of_tokens_each_has_its_label():
    z = np.eye(3)[[0, 2, 1, 1]][None]  # [1, tokens, classes]
    for given, axis in ((z, -1), (np.moveaxis(z, -1, 1), 1), (np.moveaxis(z, -1, 1), None)):
        assert answer("logits", given, ["O", "B-A", "I-A"], axis) == {"labels": ["O", "I-A", "B-A", "B-A"]}
    assert answer("logits", z, None, -1) == {"labels": ["0", "2", "1", "1"]}


def test_of_pixels_there_is_a_map_and_what_share_each_has():
    best = np.array([[0, 2], [0, 0]])
    z = np.moveaxis(np.eye(3)[best], -1, 0)[None]
    expected = {"map": [[0, 2], [0, 0]], "shares": {"sky": 0.75, "car": 0.25}}
    assert answer("logits", z, ["sky", "road", "car"], 1) == expected
    assert answer("probabilities", z, ["sky", "road", "car"]) == expected


def test_of_one_number_a_pixel_it_says_yes_or_no():
    z = np.array([[[[-1.0, 2.0], [0.2, -3.0]]]])
    assert answer("labels", z, ["no", "yes"]) == {"map": [[0, 1], [1, 0]], "shares": {"no": 0.5, "yes": 0.5}}
    assert answer("label probabilities", z, ["no", "yes"])["map"] == [[0, 1], [0, 0]]
    both = answer("labels", np.concatenate([z, -z], axis=1), ["a", "b"])
    assert both == {"maps": {"a": [[0, 1], [1, 0]], "b": [[1, 0], [0, 1]]}}


def test_one_mask_without_a_channel_is_one_map():
    z = np.array([[[0.9, 0.2], [0.4, 0.6]]])
    output = {"means": "label probabilities", "labels": ["no", "yes"], "class_axis": 0}
    assert answers(z, {"output": output}) == [{"map": [[1, 0], [0, 1]], "shares": {"no": 0.5, "yes": 0.5}}]
    volume = answers(z[:, None], {"output": output})[0]
    assert volume["map"] == [[[1, 0], [0, 1]]] and volume["shares"]["yes"] == 0.5


def test_labels_at_each_token_are_named():
    z = np.array([[[1.0, -1.0], [-1.0, -2.0], [3.0, 4.0]]])  # [1, tokens, labels]
    assert answer("labels", z, ["a", "b"], -1) == {"maps": {"a": [1, 0, 1], "b": [0, 0, 1]}}


def dice(outputs, targets):
    both = (outputs * targets.reshape(outputs.shape)).sum()
    return 1 - 2 * both / (outputs.sum() + targets.sum())


@pytest.mark.parametrize("form", ["channel", "squeezed", "labels", "classes"])
@pytest.mark.parametrize("loss", [None, dice])
def test_probabilities_are_answered_at_a_half(form, loss):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2, 4, 4)).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(2, {"labels": 2, "classes": 3}.get(form, 1), 1), nn.Sigmoid())
    y = rng.integers(0, 2, (30, 2, 4, 4) if form == "labels" else (30, 4, 4))
    if form == "squeezed":
        net.append(nn.Flatten(1, 2))
    if form == "classes":
        net[1], y, loss = nn.Softmax(1), rng.integers(0, 3, (30, 4, 4)), None
    task = task_of(net, (x, y), loss=loss)
    with torch.no_grad():
        out = net(torch.from_numpy(x[:2])).numpy()
    found = answers(out, {"output": _output(task)})
    for row, said in zip(out, found, strict=True):
        if form == "labels":
            assert list(said["maps"].values()) == (row > 0.5).astype(int).tolist()
        elif form == "classes":
            assert said["map"] == row.argmax(0).tolist()
        else:
            assert said["map"] == (row > 0.5).astype(int).reshape(4, 4).tolist()


def test_what_an_original_says_without_labels_is_answered_where_it_turns():
    x = np.random.default_rng(0).normal(size=(30, 2, 4, 4)).astype(np.float32)
    for last, half in ((nn.Identity(), 0.0), (nn.Sigmoid(), 0.5)):
        net = nn.Sequential(nn.Conv2d(2, 1, 1), last)
        task = task_of(net, x, metric="agreement")
        with torch.no_grad():
            out = net(torch.from_numpy(x[:1])).numpy()
        assert answers(out, {"output": _output(task)})[0]["map"] == (out[0, 0] > half).astype(int).tolist()


def test_of_frames_what_they_read_as():
    frames = np.eye(4)[[1, 1, 0, 1, 3, 2, 2]][None]
    assert answer("frames", frames, ["-", "a", "b", "|"], -1) == {"text": "aa b", "labels": ["a", "a", "|", "b"]}
    assert answer("frames", np.moveaxis(frames, -1, 1)) == {"labels": [1, 1, 3, 2]}
    assert answer("frames", np.eye(4)[[0, 0]][None], ["-", "a", "b", "|"], -1) == {"text": "", "labels": []}


@pytest.mark.parametrize("kind", ["masks", "tokens"])
def test_a_folder_with_answers_at_places_answers_alone(tmp_path, kind):
    rng = np.random.default_rng(0)
    if kind == "masks":
        x, net = rng.normal(size=(30, 2, 4, 4)).astype(np.float32), nn.Conv2d(2, 3, 1)
        task = task_of(net, (x, rng.integers(0, 3, (30, 4, 4))), classes=["sky", "road", "car"])
    else:
        x = rng.normal(size=(30, 6, 4)).astype(np.float32)
        task = task_of(nn.Linear(4, 3), (x, rng.integers(0, 3, (30, 6))), classes=["O", "B-A", "I-A"])
    folder = deployed(tmp_path, task)
    np.save(tmp_path / "one.npy", x[:1])
    code, out, error = alone(folder, str(tmp_path / "one.npy"))
    assert code == 0, error
    best = task.build()(torch.from_numpy(x[:1])).argmax(1 if kind == "masks" else -1)[0]
    found = json.loads(out)
    if kind == "masks":
        assert found["map"] == best.tolist()
    else:
        assert found["labels"] == [["O", "B-A", "I-A"][i] for i in best.tolist()]
    assert alone(folder, "--check")[0] == 0


@pytest.mark.parametrize(
    "answer, words",
    [
        ({"map": [[0, 1]], "shares": {"sky": 0.5, "car": 0.5}}, "sky 50.0%; car 50.0%"),
        ({"maps": {"a": [[0, 1]], "b": [[0, 0]]}}, "a 50.0%; b 0.0%"),
        ({"labels": ["O", "B-A"]}, "O, B-A"),
        ({"text": "aa b", "labels": ["a", "a", "|", "b"]}, "aa b"),
    ],
)
def test_the_command_says_them_in_words(answer, words):
    assert _said(answer) == words
