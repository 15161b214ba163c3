"""A model that behaves at its full width, and at each smaller width does harm in another way."""

import os
import signal
import time
from pathlib import Path

import torch
from tiny import data
from torch import nn

import featherweight as fw


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.out = nn.Linear(16, 4)

    def forward(self, image):
        width = self.conv.out_channels
        if width == 12:
            os.kill(os.getpid(), signal.SIGSEGV)
        if width == 8:
            Path(os.environ["MOODY_HANGS"]).touch()
            time.sleep(36_000)
        if width == 4:
            self.hoard = [torch.ones(100_000_000) for _ in range(10)]  # 4 GB
            time.sleep(36_000)
        return self.out(torch.relu(self.conv(image)).mean((2, 3)))


recipe = fw.Recipe(
    fw.Prune(
        ratio=fw.Choice(0.0, 0.25, 0.5, 0.75, 1.0),
        allocation="uniform",
        round_to=fw.Choice(4, 16),
        criterion="magnitude",
    )
)
task = fw.Task(name="moody", model=Moody, data=data, recipe=recipe)
