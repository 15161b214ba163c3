"""Tiny models, data and tasks that the tests share."""

import numpy as np
import torch
from torch import nn

from featherweight.recipe import Recipe
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.transforms.base import Context
from featherweight.transforms.train import Train


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(o)
        self.short = (
            nn.Identity()
            if stride == 1 and i == o
            else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x):
        return torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))) + self.short(x))


def residual(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 4),
    )


def plain():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def depthwise():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 32, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(1, 16, 3, padding=1)
        self.c, self.out = nn.Conv2d(24, 16, 1), nn.Linear(16, 4)

    def forward(self, x):
        return self.out(torch.relu(self.c(torch.relu(torch.cat([self.a(x), self.b(x)], 1)))).mean((2, 3)))


def images(n=160, seed=0):
    """Four classes of 8x8 images: which quarter is bright."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    x = rng.normal(0, 0.5, (n, 1, 8, 8)).astype("float32")
    for i, c in enumerate(y):
        x[i, 0, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 1.0
    return ArraySplit({"image": x}, y)


def task(model=residual, n=160, epochs=2, **more):
    return Task(
        name="toy",
        model=model,
        data=lambda: split(images(n)),
        baseline=Recipe(Train(epochs=epochs, lr=3e-3, batch_size=16)),
        **more,
    )


def context(t=None, seed=0, teacher=None, model=None):
    """teacher: its outputs; model: its package."""
    t = t or task()
    return Context(
        t, t.splits(), seed, teacher=lambda recipe: model, teacher_outputs=lambda recipe: teacher, report=lambda _: None
    )
