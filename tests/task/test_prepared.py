"""What the card says of inputs is what the task does to them."""

import re

import numpy as np
from PIL import Image

from featherweight.task.kinds.image_classification import image_classification

NET = """
from torch import nn

def net(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""


def photos(tmp_path, mode):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            shape = (20, 24) if mode == "L" else (20, 24, 3)
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels, mode).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "nets.py").write_text(NET)
    return tmp_path / "photos"


def test_following_the_words_gives_the_tasks_inputs(tmp_path):
    for mode, channels in (("RGB", 3), ("L", 1)):
        folder = photos(tmp_path / mode, mode)
        task = image_classification(f"{tmp_path / mode / 'nets.py'}:net", folder, size=(16, 12), epochs=0)
        said = task.prepared
        size = re.search(r"resized to (\d+) x (\d+) pixels", said)
        assert size and "divided by 255" in said and said.endswith("one a class: cat, dog.")
        assert ("converted to RGB" if channels == 3 else "converted to grey (L)") in said
        image = Image.open(sorted(folder.glob("cat/*.png"))[0]).convert(mode)
        image = image.resize((int(size[1]), int(size[2])), Image.Resampling.BILINEAR)
        mine = np.asarray(image, dtype=np.float32) / 255
        mine = mine[None] if channels == 1 else mine.transpose(2, 0, 1)
        every = np.concatenate(
            [b["image"] for s in (task.splits().train, task.splits().valid, task.splits().test) for b, _ in s.batches()]
        )
        assert every.shape[1:] == mine.shape and (np.abs(every - mine).max((1, 2, 3)) < 1e-6).sum() == 1
