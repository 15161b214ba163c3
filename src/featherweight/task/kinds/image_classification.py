"""Image classification: a network from a Python file and a folder with one subfolder a class."""

from __future__ import annotations

import inspect
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import MissingExtra, TaskError
from ...recipe import Recipe
from ..data import Batch, LazySplit
from ..files import load_file, parse_ref, user_code
from ..sources import local_sources
from ..task import Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

EPOCHS = 10
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# what a file is read as, whatever its name or content says: Pillow would start other programs for
# some of the others (Ghostscript for EPS)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 100_000_000  # of one image: a file of 100 KB can say billions
Size = tuple[int, int]  # height, width
_LOOKED_AT = 64  # 16-bit images that are decoded to see how many bits are used
_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
# what Pillow raises for files that are not what they should be (some of its readers only look for
# what they need)
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError),
    *(struct.error, zlib.error),
)


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
    files, targets, classes, notes = _find(folder)
    _check_depth(depth)
    shape, planes = _form(files, _size(size), channels, depth)
    net = _net(file, name, len(classes))
    epochs = EPOCHS if epochs is None else epochs
    return Task(
        name=f"{file.stem}-{folder.name}",
        model=net,
        data=lambda: LazySplit(len(files), lambda index: _read(files, targets, index, shape, planes, depth), classes),
        baseline=_training(epochs) if epochs else None,
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


def _training(epochs: int) -> Recipe:
    settings = {
        "epochs": epochs,
        "lr": 2e-3,
        "batch_size": 64,
        "optimizer": "adamw",
        "schedule": "cosine",
        "weight_decay": 0.01,
    }
    return Recipe.from_json([{"train": settings}])


def _net(file: Path, name: str, classes: int) -> Any:
    """A function without arguments that makes the network."""
    module = load_file(file)
    with user_code(f"{file.name} cannot be asked for {name!r}", file):
        make = getattr(module, name, None)
    if not callable(make):
        functions = sorted(
            k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        )
        raise TaskError(
            f"{file.name} has no function {name!r}",
            got=f"{file}:{name}",
            allowed=f"its functions and classes: {', '.join(functions) or 'none'}",
        )
    given = inspect.signature(make).parameters
    needed = [k for k, p in given.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or (
        needed and given[needed[0]].kind == inspect.Parameter.KEYWORD_ONLY and needed[0] != "num_classes"
    ):
        raise TaskError(
            f"{name} in {file.name} has the wrong arguments",
            got=f"{name}({', '.join(needed)})",
            allowed=f"{name}() or {name}(num_classes)",
        )

    def build() -> nn.Module:
        if "num_classes" in given:
            return make(num_classes=classes)  # type: ignore[no-any-return]
        return make(classes) if needed else make()  # type: ignore[no-any-return]

    return build


def _find(folder: Path) -> tuple[list[Path], np.ndarray, list[str], tuple[str, ...]]:
    """Image files, their class numbers, the class names (subfolders in order of name), and that
    files were left out, if some were: those of `_stray`."""
    if not folder.is_dir():
        raise TaskError(
            "there is no such folder", got=str(folder), allowed="a folder with one subfolder of images a class"
        )
    folders = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    classes = sorted(p.name for p in folders if not _stray(p))
    strays = [p for p in folders if _stray(p)]
    if len(classes) < 2:
        raise TaskError(
            "the folder has fewer than 2 classes",
            got=f"{folder}: {', '.join(classes) or 'no subfolders'}",
            allowed="one subfolder of images a class",
        )
    files: list[Path] = []
    targets: list[int] = []
    for i, name in enumerate(classes):
        images = [p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
        found = sorted(p for p in images if not _stray(p))
        strays += [p for p in images if _stray(p)]
        if not found:
            nested = any(p.is_dir() for p in folder.glob("*/*"))
            raise TaskError(
                "a class has no images",
                got=str(folder / name),
                allowed=f"files that end in {', '.join(SUFFIXES)}",
                fix="give the folder whose subfolders are the classes (as .../train)"
                if nested
                else "remove the folder or fill it",
            )
        files += found
        targets += [i] * len(found)
    what = ", ".join(str(p.relative_to(folder)) for p in sorted(strays)[:3]) + (", .." if len(strays) > 3 else "")
    notes = (f"left out, as they are no images but what macOS writes beside them: {what}",) if strays else ()
    return files, np.array(targets, dtype=np.int64), classes, notes


def _stray(path: Path) -> bool:
    """Does macOS write it beside images, in its archives and on foreign disks?"""
    return path.name == "__MACOSX" or path.name.startswith("._")


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
    """Height, width and channels that all images get, from their headers; only of images with 16
    bits are some decoded."""
    if channels not in (None, 1, 3):
        raise TaskError("images have 1 or 3 channels", got=channels, allowed="1 (grey), 3 (colour)")
    sizes: dict[Size, Path] = {}
    grey, unreadable, deep = True, [], []
    for path in files:
        try:
            with _opened(path) as image:
                # orientations 5 to 8 lie on their side
                turned = image.width != image.height and image.getexif().get(0x0112, 1) >= 5
                sizes.setdefault(image.size if turned else (image.height, image.width), path)
                grey = grey and (image.mode in ("1", "L", "F") or image.mode.startswith("I"))
                if image.mode.startswith("I") and _bits(image) == 16:
                    deep.append(path)
        except UNREADABLE as e:
            unreadable.append(f"{path}: {e}")
    _refuse(unreadable)
    if depth is None:
        _refuse_dark(deep)
    if size is None and len(sizes) > 1:
        shown = ", ".join(f"{h}x{w} ({p.name})" for (h, w), p in list(sizes.items())[:4])
        raise TaskError(
            "the images have different sizes",
            got=f"{len(sizes)} sizes: {shown}",
            fix="give the size that they all get: size=224",
        )
    return size or next(iter(sizes)), channels or (1 if grey else 3)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """An image whose header is read, as one of `FORMATS`. One of `UNREADABLE` if that fails, or if
    it has more pixels than `MOST_PIXELS`."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more than 89 million pixels, of tags that are cut
        try:
            image = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError as e:
            raise ValueError(f"no {', '.join(FORMATS)} that can be read, whatever its name says") from e
        except Image.DecompressionBombError as e:
            raise ValueError(f"more pixels than the {MOST_PIXELS:,} that are read") from e
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are read")
            yield image


def _refuse_dark(deep: list[Path]) -> None:
    """TaskError if 16-bit images use 12 bits at most: cameras and scanners store 10 or 12 so, which
    would be read as next to black. Up to `_LOOKED_AT` of them are decoded."""
    top = 0
    for i in np.unique(np.linspace(0, max(len(deep) - 1, 0), _LOOKED_AT).astype(int)) if deep else ():
        try:
            with _opened(deep[i]) as image:
                top = max(top, int(np.asarray(image).max()))
        except UNREADABLE as e:
            _refuse([f"{deep[i]}: {e}"])
    if deep and top < 2**12:
        raise TaskError(
            "these 16-bit images use 12 bits at most, and would be read as next to black",
            got=f"no sample above {top} of 65535, as in {deep[0]}",
            fix="say how many bits are used: depth=12, or depth=16 if they are that dark",
        )


def _bits(image: Image) -> int:
    """Of a whole-number sample with more than 8 bits, as the file says."""
    tags: Any = getattr(image, "tag_v2", None)  # only TIFF has others than 16
    return 16 if tags is None else int(tags.get(_BITS_PER_SAMPLE, (16,))[0])


def _read(
    files: list[Path], targets: np.ndarray, index: np.ndarray, size: Size, channels: int, depth: int | None
) -> Batch:
    """images: float32 [n, channels, height, width] in [0, 1]."""
    from PIL import ImageOps

    out = np.empty((len(index), channels, *size), dtype=np.float32)
    unreadable = []
    for row, i in enumerate(index.tolist()):
        try:
            with _opened(files[i]) as image:
                whole = image.mode != "F" or depth is not None
                top = 2.0 ** (depth or _bits(image)) - 1 if whole else 1.0
                ImageOps.exif_transpose(image, in_place=True)
                out[row] = _pixels(image, size, channels, top)
        except UNREADABLE as e:
            unreadable.append(f"{files[i]}: {e}")
    _refuse(unreadable)
    return {"image": out}, targets[index]


def _pixels(image: Image, size: Size, channels: int, top: float) -> np.ndarray:
    """[channels, height, width] in [0, 1]; grey with more than 8 bits keeps its depth. top: the
    largest such sample. ValueError if samples lie outside."""
    from PIL import Image as pil

    height, width = size
    deep = image.mode == "F" or image.mode.startswith("I")
    top = top if deep else 255.0
    if deep:
        samples = np.asarray(image)
        low, high = float(samples.min()), float(samples.max())
        if not (low >= 0 and high <= top):
            said = "; depth=8 takes them as 0 to 255" if top == 1 else ""
            raise ValueError(f"samples from {low:g} to {high:g}; allowed: 0 to {top:g}{said}")
    mode = "F" if deep else "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), pil.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / np.float32(top)
    return np.broadcast_to(values, (channels, height, width)) if values.ndim == 2 else values.transpose(2, 0, 1)


def _refuse(unreadable: list[str]) -> None:
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise TaskError("image files cannot be read", got="; ".join(unreadable[:5]) + more, fix="repair or remove them")
