"""How a waveform is cut into frames, and what their spectra are made of. numpy only.

Notation: N samples of a window, F frames, P Q = N the two factors of its Fourier transform, C the
first transform's outputs, M mels.

A transform of N points by one matrix has 2 N (N / 2 + 1) constants: 0.6 MB for 25 ms at 16 kHz,
more than most nets that recognise a word. So it is taken in two steps (Cooley & Tukey 1965). With
n = Q a + b and k = c + P d,

    X[c + P d] = sum_b e(b d / Q) e(b c / N) sum_a x[Q a + b] e(a c / P),   e(t) = exp(-2 pi i t),

Q real transforms of P points, then C complex ones of Q points: a sixtieth of the constants, and a
quarter of the multiplications. x is real, so |X[N - k]| = |X[k]|, and c = 0 .. P / 2 reach every k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import TaskError

FLOOR = 1e-8  # power below which all is silence: 80 dB under a full-scale tone
_LOWEST_HZ = 20.0


@dataclass(frozen=True)
class Spectrum:
    """rate: samples a second; samples: of a waveform; mels: bands; block: half of what a frame lies
    after the one before it, in samples; blocks: of a frame."""

    rate: int
    samples: int
    mels: int
    block: int
    blocks: int

    @classmethod
    def of(cls, rate: int, samples: int, mels: int, window_ms: float, hop_ms: float) -> Spectrum:
        """With frames of about window_ms every hop_ms; the window is a whole number of half hops.
        TaskError if these do not go together."""
        if not (0 < hop_ms <= 2 * window_ms and mels >= 1):
            raise TaskError(
                "these settings make no spectrum",
                got=f"window_ms={window_ms}, hop_ms={hop_ms}, mels={mels}",
                allowed="positive ones; hop_ms up to twice window_ms",
            )
        block = max(1, round(rate * hop_ms / 2000))
        found = cls(rate, samples, mels, block, max(1, round(window_ms * rate / 1000 / block)))
        found.check()
        return found

    def check(self) -> None:
        """TaskError if the waveform has no frame, or a band no frequency."""
        if self.window > self.samples:
            raise TaskError(
                "the sounds are shorter than a window",
                got=f"{1000 * self.samples / self.rate:.3g} ms, window_ms={1000 * self.window / self.rate:g}",
                fix="a smaller window_ms, or more seconds",
            )
        if not self.filters().any(axis=0).all():
            raise TaskError(
                "so many mels have no frequency of their own in so short a window",
                got=f"mels={self.mels}, window_ms={1000 * self.window / self.rate:g}, {self.rate:,} samples a second",
                fix="fewer mels, or a larger window_ms",
            )

    @property
    def window(self) -> int:
        return self.block * self.blocks

    @property
    def hop(self) -> int:
        return 2 * self.block

    @property
    def frames(self) -> int:
        return 1 + (self.samples - self.window) // self.hop

    @property
    def factors(self) -> tuple[int, int]:
        """P and Q, by which there is least to multiply."""
        n = self.window
        found = [(p, n // p) for p in range(1, n + 1) if n % p == 0]
        return min(found, key=lambda f: f[1] * f[0] * 2 * (f[0] // 2 + 1) + (f[0] // 2 + 1) * 4 * f[1] ** 2)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the products for one waveform."""
        p, q = self.factors
        c = p // 2 + 1
        return self.frames * (q * p * 2 * c + c * 4 * q * q + c * q * self.mels)

    def filters(self) -> np.ndarray:
        """[N // 2 + 1, mels]: triangles of height 1, evenly on the mel scale,
        2595 log10(1 + f / 700) (O'Shaughnessy 1987), from 20 Hz to half the rate."""
        low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (_LOWEST_HZ, self.rate / 2))
        corners = 700 * (10 ** (np.linspace(low, high, self.mels + 2) / 2595) - 1)
        f = np.arange(self.window // 2 + 1)[:, None] * self.rate / self.window
        rising = (f - corners[:-2]) / (corners[1:-1] - corners[:-2])
        falling = (corners[2:] - f) / (corners[2:] - corners[1:-1])
        made: np.ndarray = np.maximum(0, np.minimum(rising, falling))
        return made

    def hann(self) -> np.ndarray:
        """[N], periodic, of sum 1: a full-scale tone has the power 1 / 4."""
        w = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(self.window) / self.window)
        return np.asarray(w / w.sum())

    def constants(self) -> dict[str, np.ndarray]:
        """hann [N]; first [P, 2 C] and second [2 Q, 2 Q], the transforms of P and Q points with
        real parts before imaginary ones; turn and across [C, 1, 2 Q], by which what is between
        them is turned: y turn + swapped(y) across; mels [C Q, mels], the filters on the power."""
        (p, q), n = self.factors, self.window
        c, b, d = np.arange(p // 2 + 1), np.arange(q), np.arange(q)
        first = np.exp(-2j * math.pi * np.arange(p)[:, None] * c / p)
        turn = np.exp(-2j * math.pi * b * c[:, None, None] / n)  # [C, 1, Q]
        second = np.exp(-2j * math.pi * b[:, None] * d / q)
        k = c[:, None] + p * d  # [C, Q]
        k = np.where(k <= n // 2, k, n - k)
        weights = self.filters()[k]  # [C, Q, mels]
        # a frequency that both halves reach counts once
        weights = weights / np.bincount(k.ravel(), minlength=n // 2 + 1)[k][..., None]
        found = {
            "hann": self.hann(),
            "first": np.concatenate([first.real, first.imag], axis=1),
            "turn": np.concatenate([turn.real, turn.real], axis=2),
            "across": np.concatenate([-turn.imag, turn.imag], axis=2),
            "second": np.block([[second.real, second.imag], [-second.imag, second.real]]),
            "mels": weights.reshape(-1, self.mels),
        }
        return {name: v.astype(np.float32) for name, v in found.items()}
