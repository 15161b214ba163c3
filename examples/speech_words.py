"""Ten spoken words, by voices of espeak-ng (Debian's package of that name), in noise; and a net that knows them.

python examples/speech_words.py runs/speech-words     # writes 4,000 WAV files, one folder a word (2 minutes)
featherweight optimize --task audio-classification --model examples/speech_words.py:net --data runs/speech-words \
    --task-option features=log-mel-1d --task-option epochs=12 --max-drop 0.02 --minimize latency,size --target auto --minutes 12 --out runs/speech
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

import featherweight as fw

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
VOICES = (*(f"m{i}" for i in range(1, 9)), *(f"f{i}" for i in range(1, 6)), "klatt", "klatt2", "klatt3", "klatt4")
MANY, SECONDS = 400, 1.0  # files of each word
FOLDER = Path(os.environ.get("SPEECH_WORDS", "runs/speech-words"))


class Block(nn.Module):
    """Two convolutions over time with a shortcut; stride 2 halves the frames and a 1x1 convolution fits the shortcut."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(inside, outside, 9, 2, 4, bias=False),
            nn.BatchNorm1d(outside),
            nn.ReLU(),
            nn.Conv1d(outside, outside, 9, 1, 4, bias=False),
            nn.BatchNorm1d(outside),
        )
        self.shortcut = nn.Sequential(nn.Conv1d(inside, outside, 1, 2, bias=False), nn.BatchNorm1d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class WordNet(nn.Module):
    """mels: float32 [n, 40, frames] -> logits [n, classes]. Frequencies are channels, as in TC-ResNet (Choi et al. 2019,
    arXiv:1904.03814)."""

    def __init__(self, num_classes: int = len(WORDS), width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(40, width, 3, 1, 1, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, 2 * width), Block(2 * width, 3 * width), Block(3 * width, 4 * width))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(mels)).mean(dim=2))


net = WordNet


def spoken(word: str, number: int, folder: Path) -> None:
    """One WAV file: the word by a voice, at a speed and pitch, somewhere in a second of noise of some loudness."""
    rng = np.random.default_rng([WORDS.index(word), number])
    voice = f"{rng.choice(ACCENTS)}+{rng.choice(VOICES)}"
    with tempfile.NamedTemporaryFile(suffix=".wav") as raw:
        settings = ["-v", voice, "-s", str(rng.integers(120, 220)), "-p", str(rng.integers(15, 85)), "-w", raw.name]
        subprocess.run(["espeak-ng", *settings, word], check=True)
        with wave.open(raw.name) as f:
            rate, said = f.getframerate(), np.frombuffer(f.readframes(f.getnframes()), "<i2") / 32768
    n = int(SECONDS * rate)
    said = said[np.flatnonzero(np.abs(said) > 0.01)[0] :][:n]
    sound = np.zeros(n)
    start = rng.integers(0, n - len(said) + 1)
    sound[start : start + len(said)] = said
    noise = rng.normal(size=n)
    if rng.random() < 0.5:  # as a fan or a road, louder below
        noise = np.convolve(noise, np.exp(-np.arange(64) / 8), "same")
    noise *= np.sqrt((said**2).mean() / (noise**2).mean()) * 10 ** -(rng.uniform(0, 20) / 20)
    sound = (sound + noise) * rng.uniform(0.1, 0.5) / np.abs(said).max()
    with wave.open(str(folder / word / f"{number:04}.wav"), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def write(folder: Path) -> None:
    for word in WORDS:
        (folder / word).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: spoken(*job, folder), [(word, i) for word in WORDS for i in range(MANY)]))


def task() -> fw.Task:
    """What the command above says, as a task; the sounds are written where they are not there."""
    from featherweight.task.kinds import make_task

    if not (FOLDER / WORDS[-1] / f"{MANY - 1:04}.wav").is_file():
        write(FOLDER)
    return make_task("audio-classification", model=f"{__file__}:net", data=FOLDER, features="log-mel-1d", epochs=12)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
