"""Images of a bright row or column, and no model."""

import numpy as np

import featherweight as fw


def data():
    rng = np.random.default_rng(0)
    images = rng.normal(0.0, 0.6, (600, 1, 8, 8)).astype(np.float32)
    labels = rng.integers(4, size=600)
    for image, label in zip(images, labels, strict=True):
        place = int(rng.integers(8))
        image[0, place if label % 2 else slice(None), slice(None) if label % 2 else place] += 1.2 if label < 2 else -1.2
    return fw.split(fw.ArraySplit({"image": images}, labels), fractions=(0.5, 0.2, 0.3))


task = fw.Task("bare", model=None, data=data)
