"""Image classification: a network from a Python file or a Hugging Face directory, and a folder with
one subfolder a class or a table of paths and labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.predict import UNREADABLE, bits, image, opened
from ...errors import MissingExtra, TaskError
from ..data import Batch, LazySplit
from ..files import parse_ref
from ..sources import local_sources
from ..task import Task
from ._folders import refuse
from ._heads import check_numbers, class_names, has_head, order
from ._nets import EPOCHS, net_of, training
from ._numbering import some_of_each
from ._pictures import labelled_files
from ._pretrained import load_config, model_files
from ._processor import FILE as PROCESSOR
from ._processor import processing
from ._vision import HEAD, vision_model
from .text_classification import EPOCHS as FINE_EPOCHS
from .text_classification import fine_tuning

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
    path_column: str | None = None,
    label_column: str | None = None,
    classes: str | Sequence[str] | None = None,
    new_head: bool = False,
    check_labels: bool = True,
    epochs: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A task from `FILE.py:net` or a Hugging Face directory, and a folder with one subfolder of
    images a class, or a .csv, .tsv, .jsonl or .parquet file with their paths and labels.

    net: a function (or module class) without arguments, or of the number of classes, that gives an
    nn.Module from images [n, channels, height, width], float32 in [0, 1], to logits [n, classes].
    size: pixels, one number or (height, width); by default that of the images, which then
    all have the same.
    channels: 1 or 3; by default 1 if all images are grey. depth: bits of a sample that are used, of
    grey images with more than 8, such as 12 of the 16 that a file has room for; by default what the
    file says. Floating-point samples lie in [0, 1], or in [0, 2^depth - 1]. epochs: of training for
    the baseline, 10 by default, 0 if the network comes trained. Images are decoded when they are
    read, never all at once. path_column, label_column: of a table.

    Of a directory images are prepared as its preprocessor_config.json says. Labels are the model's
    own by name (id2label), or, if they are numbers, by number; otherwise it is an error, with the
    ways out: classes, the labels in the order of the model's outputs, or "order" if they are so as
    they are sorted; new_head, a head of its own, which is trained (epochs: 3). check_labels: the
    model is asked about some images first; TaskError if another numbering of its outputs plainly
    fits the labels.
    """
    try:
        import PIL  # noqa: F401 (said now, not in the middle of reading)
    except ImportError as e:
        raise MissingExtra("pillow", "image") from e
    _check_depth(depth)
    columns = (path_column, label_column)
    if Path(model).is_dir():
        _only(f"a model directory says it itself, in {PROCESSOR}", size=size, channels=channels)
        said = class_names(classes), new_head, check_labels
        return _of_directory(Path(model).resolve(), Path(data).resolve(), depth, columns, said, epochs, split_seed)
    if ".py" not in Path(model).name:
        raise TaskError(
            "there is no such model directory, and this names no Python file",
            got=str(model),
            allowed="a Hugging Face directory, or FILE.py:NAME (a network)",
        )
    _only("a network from a Python file has no names of classes", classes=classes, new_head=new_head or None)
    return _of_file(str(model), Path(data).resolve(), size, channels, depth, columns, epochs, split_seed)


def _only(why: str, **options: Any) -> None:
    """TaskError if one of the options was given."""
    if given := {name: value for name, value in options.items() if value is not None}:
        said = ", ".join(f"{name}={value}" for name, value in given.items())
        raise TaskError("this option does not fit the model", got=said, allowed=why, fix="leave it out")


def _of_file(
    model: str,
    folder: Path,
    size: int | Size | None,
    channels: int | None,
    depth: int | None,
    columns: tuple[str | None, str | None],
    epochs: int | None,
    split_seed: int,
) -> Task:
    file, name = parse_ref(model, "net")
    file = file.resolve()  # before it runs: it may change the current folder
    files, targets, classes, notes = labelled_files(folder, SUFFIXES, *columns)
    shape, planes = _form(files, _size(size), channels, depth)
    net = net_of(file, name, len(classes))
    epochs = EPOCHS if epochs is None else epochs
    return Task(
        name=f"{file.stem}-{folder.name if folder.is_dir() else folder.stem}",
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
                **_given(columns),
                "epochs": epochs,
                "split_seed": split_seed,
            },
        },
        sources=(*local_sources(file), *((folder,) if folder.is_file() else ())),
        notes=notes,
        prepared=_prepared(shape, planes, depth, classes),
        deploy=lambda to: {"kind": "image", "size": list(shape), "channels": planes, "depth": depth},
    )


def _given(columns: tuple[str | None, str | None]) -> dict[str, str]:
    named = zip(("path_column", "label_column"), columns, strict=True)
    return {name: value for name, value in named if value is not None}


def _of_directory(
    folder: Path,
    place: Path,
    depth: int | None,
    columns: tuple[str | None, str | None],
    said: tuple[list[str] | str | None, bool, bool],
    epochs: int | None,
    split_seed: int,
) -> Task:
    """said: classes, new_head, check_labels."""
    config = load_config(folder)
    made = processing(folder, int(getattr(config, "num_channels", 3)))
    files, numbers, labels, notes = labelled_files(place, SUFFIXES, *columns)
    _form(files, made.size, made.channels, depth)
    own = has_head(config, HEAD) and not said[1]
    placed = order(labels, all(v.isdecimal() for v in labels), config if own else None, said[0], "the labels")
    targets = np.array([placed.number[v] for v in labels], dtype=np.int64)[numbers]
    epochs = (0 if own else FINE_EPOCHS) if epochs is None else epochs
    whole = LazySplit(
        len(files),
        lambda index: _read(files, targets, index, made.size, made.channels, depth, made.fit),
        placed.names,
    )
    net = partial(vision_model, folder, made, len(placed.names), own_head=own)
    notes = (*notes, *placed.notes)
    if own and said[2]:
        notes += check_numbers(net(), whole, some_of_each(targets, split_seed), placed, "labels", "images")
    return Task(
        name=f"{folder.name}-{place.name if place.is_dir() else place.stem}",
        model=net,
        data=lambda: whole,
        baseline=fine_tuning(epochs) if epochs else None,
        split_seed=split_seed,
        ref={
            "kind": "image-classification",
            "options": {
                "model": str(folder),
                "data": str(place),
                **({} if depth is None else {"depth": depth}),
                **_given(columns),
                "classes": said[0],
                "new_head": said[1],
                "check_labels": False,  # they are checked
                "epochs": epochs,
                "split_seed": split_seed,
            },
        },
        sources=(*model_files(folder), *((place,) if place.is_file() else ())),
        notes=notes,
        prepared=(
            f"Each image is converted to {'grey (L)' if made.channels == 1 else 'RGB'}, {made.said()}, and is divided "
            f"by 255 as float32, channels before rows and columns. Means and deviations of {PROCESSOR} are inside the "
            f"model. The outputs are logits, one a class: {', '.join(placed.names[:100])}."
        ),
        deploy=lambda to: {
            "kind": "image",
            "size": list(made.size),
            "channels": made.channels,
            "depth": depth,
            "fit": made.fit,
        },
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
    files: list[Path],
    targets: np.ndarray,
    index: np.ndarray,
    size: Size,
    channels: int,
    depth: int | None,
    fit: dict[str, Any] | None = None,
) -> Batch:
    """images: float32 [n, channels, height, width] in [0, 1]."""
    out = np.empty((len(index), channels, *size), dtype=np.float32)
    unreadable = []
    for row, i in enumerate(index.tolist()):
        try:
            out[row] = image(files[i], list(size), channels, depth, fit)
        except UNREADABLE as e:
            unreadable.append(f"{files[i]}: {e}")
    refuse(unreadable, "image")
    return {"image": out}, targets[index]
