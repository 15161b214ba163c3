"""What a Hugging Face directory's preprocessor_config.json does to an image: size, crop, numbers.

The reader that is deployed resizes and cuts; means and deviations go into the exported model. Both
together are held to what transformers' own code makes of some images.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...deploy.predict import MOST_PIXELS, pixels
from ...errors import TaskError
from ...plain import read_text
from ...seeding import generator
from ._pretrained import quietly

if TYPE_CHECKING:
    import torch
    from torch import nn

FILE = "preprocessor_config.json"
_CONVNEXT_WHOLE = 384  # edge from which ConvNeXt's processor cuts nothing off
_LEVIT = 256 / 224  # times the edge, before LeViT's processor cuts out the middle
_FAR = 0.5 / 255  # of an image's range, that two readings may differ by


@dataclass(frozen=True)
class Processing:
    """size: height, width; fit: as `deploy.predict.fitted` takes it; scale, shift: of each channel,
    that make the model's numbers of [0, 1]; backwards: the model takes blue first."""

    size: tuple[int, int]
    channels: int
    fit: dict[str, Any]
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    backwards: bool = False

    def said(self) -> str:
        """In words."""
        resize = self.fit["resize"]
        to = (
            "stays in its size"
            if resize is None
            else f"gets a shorter edge of {resize} pixels"
            if isinstance(resize, int)
            else f"is resized to {resize[1]} x {resize[0]} pixels (width x height)"
        )
        height, width = self.size
        cut = "" if resize == [height, width] else f", of which the middle {width} x {height} is cut out"
        return f"{to} (Pillow's filter {self.fit['resample']}){cut}"


def processing(folder: Path, channels: int) -> Processing:
    """What the directory's image processor does. TaskError if there is none, or if it does what
    cannot be done here."""
    if not (folder / FILE).is_file():
        raise TaskError(
            "the model directory does not say how images are prepared",
            got=str(folder),
            allowed=f"a folder with {FILE}",
            fix="image_processor.save_pretrained(DIR)",
        )
    try:
        if "auto_map" in json.loads(read_text(folder / FILE)):
            raise TaskError(
                "the model's image processor asks for code from elsewhere",
                got=f"{folder / FILE}: auto_map",
                allowed="an image processor that transformers has",
                fix="make a torch module that takes images in [0, 1], and give it as FILE.py:net",
            )
        from transformers import AutoImageProcessor

        processor = quietly(
            lambda: AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
        )
        said = processor.to_dict()
        made = _made(said, type(processor).__name__, channels)
    except TaskError:
        raise
    except Exception as e:  # each processor has code of its own
        raise TaskError("the model's image processor cannot be used", got=f"{folder / FILE}: {e}"[:500]) from e
    _hold(made, processor, folder)
    return made


def _made(said: dict[str, Any], kind: str, channels: int) -> Processing:
    """The processor's settings, resolved to what is done."""
    size, crop, part = said.get("size") or {}, said.get("crop_size") or {}, said.get("crop_pct")
    edge = size.get("shortest_edge")
    resize: Any = [size["height"], size["width"]] if "height" in size else edge
    cut = [crop["height"], crop["width"]] if said.get("do_center_crop") and "height" in crop else None
    if kind.startswith("ConvNext") and edge is not None:
        whole = edge >= _CONVNEXT_WHOLE
        resize, cut = ([edge, edge], None) if whole else (int(edge / part), [edge, edge])
    elif part and edge is not None:
        resize = int(edge / part)
    elif kind.startswith("Levit") and edge is not None:
        resize = int(_LEVIT * edge)
    if not said.get("do_resize"):
        resize = None
    final = cut if cut is not None else resize
    if not isinstance(final, list):
        raise TaskError(
            "the model's image processor gives images of different sizes",
            got=f"{FILE}: size {size}, crop_size {crop}"[:300],
            allowed="a size with height and width, or a crop",
        )
    if not all(isinstance(v, int) and v > 0 for v in final) or final[0] * final[1] > MOST_PIXELS:
        raise TaskError("this is no size of an image", got=f"{FILE}: {final}")
    factor = 255 * float(said.get("rescale_factor") or 0) if said.get("do_rescale") else 255.0
    mean, std = (
        (_each(said["image_mean"], channels), _each(said["image_std"], channels))
        if said.get("do_normalize")
        else ([0.0] * channels, [1.0] * channels)
    )
    offset = 1.0 if said.get("rescale_offset") else 0.0
    twice = kind.startswith("EfficientNet") and said.get("include_top") and said.get("do_normalize")
    std2 = std if twice else [1.0] * channels
    return Processing(
        (final[0], final[1]),
        channels,
        {"resize": resize, "resample": 2 if said.get("resample") is None else int(said["resample"])},
        tuple(factor / s / t for s, t in zip(std, std2, strict=True)),
        tuple((-offset - m) / s / t for m, s, t in zip(mean, std, std2, strict=True)),
        bool(said.get("do_flip_channel_order")),
    )


def _each(given: Any, channels: int) -> list[float]:
    values = [float(v) for v in given] if isinstance(given, (list, tuple)) else [float(given)] * channels
    if len(values) != channels or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} means or deviations for {channels} channels")
    return values


def _hold(made: Processing, processor: Any, folder: Path) -> None:
    """TaskError if transformers makes other numbers of an image: wide, high, and small ones."""
    from PIL import Image

    rng, (height, width) = generator(0, "processor"), made.size
    for w, h in ((width + 37, 2 * height), (2 * width + 1, height + 8), (width // 2 + 3, height // 2 + 1)):
        coarse = rng.integers(0, 256, (9, 7, made.channels), dtype=np.uint8)
        mode = "RGB" if made.channels == 3 else "L"
        found = Image.fromarray(coarse if mode == "RGB" else coarse[..., 0], mode).resize((w, h))
        mine = pixels(found, made.size, made.channels, 255.0, made.fit)
        mine = mine * np.reshape(made.scale, (-1, 1, 1)) + np.reshape(made.shift, (-1, 1, 1))
        mine = mine[::-1] if made.backwards else mine
        try:
            theirs = np.asarray(processor(images=found, return_tensors="np")["pixel_values"][0])
        except Exception as e:  # each processor has code of its own
            raise TaskError("the model's image processor fails", got=f"{folder / FILE}: {e}"[:500]) from e
        if mine.shape != theirs.shape or np.abs(mine - theirs).max() > _FAR * max(made.scale):
            raise TaskError(
                "the model's image processor does what cannot be done outside of transformers",
                got=f"{folder / FILE}: {type(processor).__name__}, which makes other numbers of an image of {w} x {h}",
                allowed="resizing, a crop of the middle, rescaling, mean and deviation",
                fix="make a torch module that takes images in [0, 1], and give it as FILE.py:net",
            )


def prepared(net: nn.Module, made: Processing) -> nn.Module:
    """forward(image [n, channels, height, width] in [0, 1]) -> what `net` gives for the model's own
    numbers."""
    import torch
    from torch import nn

    class Prepared(nn.Module):
        """Scales an image as the model was trained on it."""

        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.register_buffer("scale", torch.tensor(made.scale).reshape(1, -1, 1, 1))
            self.register_buffer("shift", torch.tensor(made.shift).reshape(1, -1, 1, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            scaled = image * self.scale + self.shift
            return self.net(scaled.flip(1) if made.backwards else scaled)  # type: ignore[no-any-return]

    return Prepared()
