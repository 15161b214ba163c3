"""Image classification: a network from a Python file and a folder with one subfolder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.predict import UNREADABLE, bits, image, opened
from ...errors import MissingExtra, TaskError
from ..data import Batch, LazySplit
from ..files import parse_ref
from ..sources import local_sources
from ..task import Task
from ._folders import class_folders, refuse
from ._nets import EPOCHS, net_of, training

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
Size = tuple[int, int]  # height, width
_LOOKED_AT = 64  # images of more than 8 bits that are decoded to see how many are used


def image_classification(
    model: str | Path,
    data: str | Path,
    *,
    size: int | Size | None = None,
    channels: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A task from `FILE.py:net` and a folder with one subfolder of images a class.

    net: a function (or module class) without arguments, or of the number of classes, that gives an
    nn.Module from images [n, channels, height, width], float32 in [0, 1], to logits [n, classes].
    size: pixels, one number or (height, width); by default that of the images, which then
    all have the same.
    channels: 1 or 3; by default 1 if all images are grey. depth: bits of a sample that are used, of
    grey images with more than 8, such as 12 of the 16 that a file has room for; by default what the
    file says. Floating-point samples lie in [0, 1], or in [0, 2^depth - 1]. epochs: of training for
    the baseline, 10 by default, 0 if the network comes trained. Images are decoded when they are
    read, never all at once.
    """
    file, name = parse_ref(str(model), "net")
    file = file.resolve()  # before it runs: it may change the current folder
    folder = Path(data).resolve()
    try:
        import PIL  # noqa: F401 (said now, not in the middle of reading)
    except ImportError as e:
        raise MissingExtra("pillow", "image") from e
    files, targets, classes, notes = class_folders(folder, SUFFIXES, "images")
    _check_depth(depth)
    shape, planes = _form(files, _size(size), channels, depth)
    net = net_of(file, name, len(classes))
    epochs = EPOCHS if epochs is None else epochs
    return Task(
        name=f"{file.stem}-{folder.name}",
        model=net,
        data=lambda: LazySplit(len(files), lambda index: _read(files, targets, index, shape, planes, depth), classes),
        baseline=training(epochs) if epochs else None,
        split_seed=split_seed,
        ref={
            "kind": "image-classification",
            "options": {
                "model": f"{file.resolve()}:{name}",
                "data": str(folder),
                "size": list(shape),
                "channels": planes,
                **({} if depth is None else {"depth": depth}),
                "epochs": epochs,
                "split_seed": split_seed,
            },
        },
        sources=local_sources(file),
        notes=notes,
        prepared=_prepared(shape, planes, depth, classes),
        deploy=lambda to: {"kind": "image", "size": list(shape), "channels": planes, "depth": depth},
    )


def _prepared(shape: Size, planes: int, depth: int | None, classes: Sequence[str]) -> str:
    """What `_pixels` does, in words."""
    mode, layout = ("grey (L)", "") if planes == 1 else ("RGB", ", channels before rows and columns")
    deep = f"; grey of more than 8 bits keeps its depth, divided by 2^{depth} - 1" if depth else ""
    height, width = shape
    return (
        f"Each image is converted to {mode}, resized to {width} x {height} pixels (width x height, bilinear, with "
        f"Pillow) if it has another size, and divided by 255 as float32{layout}{deep}. Nothing is subtracted. The "
        f"outputs are logits, one a class: {', '.join(classes)}."
    )


def _size(size: Any) -> Size | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise TaskError("this is no image size", got=repr(size), allowed="pixels: one whole number, or (height, width)")
    return pair


def _check_depth(depth: int | None) -> None:
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or not 8 <= depth <= 32):
        raise TaskError("this is no depth of an image", got=repr(depth), allowed="8 to 32 bits of a sample")


def _form(files: list[Path], size: Size | None, channels: int | None, depth: int | None) -> tuple[Size, int]:
    """Height, width and channels that all images get, from their headers; only of images with more
    than 12 bits are some decoded."""
    if channels not in (None, 1, 3):
        raise TaskError("images have 1 or 3 channels", got=channels, allowed="1 (grey), 3 (colour)")
    sizes: dict[Size, Path] = {}
    grey, unreadable, deep = True, [], dict[int, list[Path]]()
    for path in files:
        try:
            with opened(path) as found:
                # orientations 5 to 8 lie on their side
                turned = found.width != found.height and found.getexif().get(0x0112, 1) >= 5
                sizes.setdefault(found.size if turned else (found.height, found.width), path)
                grey = grey and (found.mode in ("1", "L", "F") or found.mode.startswith("I"))
                if found.mode.startswith("I") and (used := bits(found)) > 12:
                    deep.setdefault(used, []).append(path)
        except UNREADABLE as e:
            unreadable.append(f"{path}: {e}")
    refuse(unreadable, "image")
    for used in sorted(deep) if depth is None else ():
        _refuse_dark(deep[used], used)
    if size is None and len(sizes) > 1:
        shown = ", ".join(f"{h}x{w} ({p.name})" for (h, w), p in list(sizes.items())[:4])
        raise TaskError(
            "the images have different sizes",
            got=f"{len(sizes)} sizes: {shown}",
            fix="give the size that they all get: size=224",
        )
    return size or next(iter(sizes)), channels or (1 if grey else 3)


def _refuse_dark(deep: list[Path], of_bits: int) -> None:
    """TaskError if images of so many bits use four less at most, and would be read as next to
    black: cameras and scanners store 10 or 12 bits in 16, programs 8 or 16 in 32. Up to
    `_LOOKED_AT` of them are decoded."""
    top = 0
    for i in np.unique(np.linspace(0, max(len(deep) - 1, 0), _LOOKED_AT).astype(int)) if deep else ():
        try:
            with opened(deep[i]) as found:
                top = max(top, int(np.asarray(found).max()))
        except UNREADABLE as e:
            refuse([f"{deep[i]}: {e}"], "image")
    if deep and top < 2 ** (of_bits - 4):
        used = min(max(8, top.bit_length()), of_bits - 4)
        used = 12 if of_bits == 16 else next(n for n in (8, 12, 16, of_bits - 4) if n >= used)
        raise TaskError(
            f"these {of_bits}-bit images use {used} bits at most, and would be read as next to black",
            got=f"no sample above {top} of {2**of_bits - 1}, as in {deep[0]}",
            fix=f"say how many bits are used: depth={used}, or depth={of_bits} if they are that dark",
        )


def _read(
    files: list[Path], targets: np.ndarray, index: np.ndarray, size: Size, channels: int, depth: int | None
) -> Batch:
    """images: float32 [n, channels, height, width] in [0, 1]."""
    out = np.empty((len(index), channels, *size), dtype=np.float32)
    unreadable = []
    for row, i in enumerate(index.tolist()):
        try:
            out[row] = image(files[i], list(size), channels, depth)
        except UNREADABLE as e:
            unreadable.append(f"{files[i]}: {e}")
    refuse(unreadable, "image")
    return {"image": out}, targets[index]
