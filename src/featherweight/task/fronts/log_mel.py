"""Log-mel features as a part of a model: products with fixed matrices, which every exporter and
runtime has."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .spectrum import FLOOR, Spectrum


class LogMel(nn.Module):
    """[n, samples] in [-1, 1] -> log(power in each mel band + 1e-8), natural, [n, 1, mels, frames]
    (planes) or [n, mels, frames]; centred: less the mean of all bands and frames, so that loudness
    does not matter.

    Nothing here is learned. No grid of 8 bits holds powers between 1e-8 and 1, so `stays_float`.
    """

    stays_float: ClassVar[bool] = True
    hann: Tensor
    first: Tensor
    turn: Tensor
    across: Tensor
    second: Tensor
    mels: Tensor

    def __init__(self, spectrum: Spectrum, planes: bool = True, centred: bool = True) -> None:
        super().__init__()
        self.spectrum, self.planes, self.centred = spectrum, planes, centred
        for name, value in spectrum.constants().items():
            # they follow from the settings, and need no place beside the weights
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        s = self.spectrum
        (p, q), f, c = s.factors, s.frames, s.factors[0] // 2 + 1
        length = s.block * (2 * (f - 1) + s.blocks)
        # a runtime would rename the input after a slice that is all of it
        used = waveform if length == s.samples else waveform[:, :length]
        blocks = used.reshape(-1, length // s.block, s.block)
        parts = [blocks[:, j : j + 2 * f - 1 : 2] for j in range(s.blocks)]  # [n, F, block] each
        x = torch.cat(parts, dim=2) * self.hann  # [n, F, N]
        y = x.reshape(-1, f, p, q).transpose(2, 3) @ self.first  # [n, F, Q, 2 C]
        y = y.reshape(-1, f, q, 2, c).permute(0, 4, 1, 3, 2).reshape(-1, c, f, 2 * q)
        y = y * self.turn + torch.cat([y[..., q:], y[..., :q]], dim=3) * self.across
        z = y @ self.second  # [n, C, F, 2 Q]
        power = z[..., :q] * z[..., :q] + z[..., q:] * z[..., q:]  # [n, C, F, Q]
        bands = power.permute(0, 2, 1, 3).reshape(-1, f, c * q) @ self.mels  # [n, F, mels]
        out = torch.log(bands + FLOOR).transpose(1, 2)
        out = out - out.mean(dim=(1, 2), keepdim=True) if self.centred else out
        return out.unsqueeze(1) if self.planes else out
