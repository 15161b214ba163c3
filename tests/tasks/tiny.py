"""A task that trains in a second, for tests of everything around it."""

import numpy as np
from torch import nn

import featherweight as fw


def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 4),
    )


def data():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    x = rng.normal(0, 0.5, (400, 1, 8, 8)).astype("float32")
    for i, c in enumerate(y):
        x[i, 0, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 1.0
    return fw.split(fw.ArraySplit({"image": x}, y))


recipe = fw.Recipe(
    fw.Prune(ratio=fw.Choice(0.0, 0.25, 0.5, 0.75), criterion=fw.Choice("magnitude", "random"), round_to=4),
    fw.Maybe(fw.Train(epochs=1)),
    fw.Maybe(fw.Quantize()),
)
task = fw.Task(
    name="tiny", model=net, data=data, baseline=fw.Recipe(fw.Train(epochs=4, lr=1e-2, batch_size=16)), recipe=recipe
)
