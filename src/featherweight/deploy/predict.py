#!/usr/bin/env python3
"""Asks the model in this folder.

    python predict.py photo.jpg          an image; word.wav; "a text", or notes.txt with one a line;
                                         rows.csv, samples.npz or samples.npy for numbers
    python predict.py --check            does the model give here what it gave where it was made?

    from predict import Model
    Model()("photo.jpg")                 [{"label": "cat", "probability": 0.98, ...}]

Needs what requirements.txt names: NumPy, the model's runtime, and, for images or texts, what reads
them. What the model takes and gives is in deployment.json. (One file, as long
as it is, because it goes alone into each folder.)
"""

from __future__ import annotations

import csv
import json
import re
import struct
import sys
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RUNTIMES = ("onnxruntime", "openvino", "torch")
SPEC, SAMPLE = "deployment.json", "sample.npz"
SHOWN = 5  # classes that an answer names, at most
# what an image is read as, whatever its name or content says: Pillow would start other programs
# for some of the others (Ghostscript for EPS)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 100_000_000  # of one image: a file of 100 KB can say billions
_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
RATES = (1_000, 768_000)  # samples a second of a sound, at least and at most
MOST_SAMPLES = 100_000_000  # that a sound may be filled up to
_WAVES = {(1, 1), (1, 2), (1, 3), (1, 4), (3, 4), (3, 8)}  # (1: whole numbers, 3: floating point; bytes of one)
_STREAMED = 0x7FFF0000  # bytes of sound from which on a WAV file has not so many, but any number
LARGEST = 3e38  # number that float32 holds
MISSING = ("", "na", "nan", "n/a", "null", "none", "-", "?")  # what a cell without a value says
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)(\.0*)?")  # a whole number, with or without a point
_LARGE = re.compile(r"-?[0-9](\.[0-9]+)?e\+[0-9]{2,3}")  # one as Python writes it from 1e16 on
_DIGITS = 1000  # of a number that is read as one: Python reads no more than 4,300
# words of the scripts that write no spaces, one a character; and of the others
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CHARACTERS = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}]+")
# what Pillow raises for files that are not what they should be (some of its readers only look for
# what they need)
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError),
    *(struct.error, zlib.error, csv.Error),
)

Inputs = dict[str, np.ndarray]  # by input name, the first axis is the sample


class Model:
    """The model in a folder. run: what gives its outputs for one batch of inputs (None: its
    runtime, loaded from the folder)."""

    def __init__(self, folder: str | Path = ".", run: Callable[[Inputs], np.ndarray] | None = None) -> None:
        self.folder = Path(folder)
        self.spec: dict[str, Any] = json.loads((self.folder / SPEC).read_text(encoding="utf-8"))
        self._run = run or session(self.folder, self.spec)

    def __call__(self, raw: Any) -> list[dict[str, Any]]:
        """An answer for each sample: of classes {"label", "probability", "probabilities"}, of
        labels that do not exclude each other {"labels", "probabilities"}, else {"output"}. Of a
        class at each place: of a row of places {"labels"}, of rows and columns {"map": class
        numbers, "shares"}; of frames that are read {"text"} or {"labels"}; of the words of a text
        {"words", "labels", "spans"}."""
        if self.spec["prepare"]["kind"] == "words":
            return tagged(raw, self)
        return answers(self.outputs(read(raw, self.spec, self.folder)), self.spec)

    def outputs(self, inputs: Inputs) -> np.ndarray:
        """What the model gives for inputs [n, ...] as they are in the model file: [n, ...]."""
        n, batch = len(next(iter(inputs.values()))), int(self.spec["batch"])
        parts = []
        for start in range(0, n, batch):
            rows = np.minimum(np.arange(start, start + batch), n - 1)  # the last batch is filled up
            parts.append(self._run({k: np.ascontiguousarray(v[rows]) for k, v in inputs.items()})[: n - start])
        return np.concatenate(parts)

    def check(self) -> tuple[bool, str]:
        """Does it give for the sample what it gave where it was made? (yes or no, in words)."""
        with np.load(self.folder / SAMPLE, allow_pickle=False) as kept:
            inputs = {name: kept[f"input.{name}"] for name in self.spec["inputs"]}
            expected = kept["output"]
        found = self.outputs(inputs)
        if found.shape != expected.shape:
            return False, f"the sample's output is {list(found.shape)}, and was {list(expected.shape)}"
        far, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max()) or 1.0
        allowed = float(self.spec["tolerance"])
        said = f"the sample's output differs by {far / scale:.2g} of its largest value, {allowed:g} is allowed"
        return bool(np.isfinite(found).all()) and far <= allowed * scale, said


# --- what people have, as inputs ------------------------------------------------------------------


def read(raw: Any, spec: dict[str, Any], folder: Path) -> Inputs:
    """raw: a path or a list of paths, a text or a list of texts, of a table also {column: cell} or
    a list of such rows, or arrays by name. ValueError for what cannot be read."""
    how = spec["prepare"]
    if isinstance(raw, np.ndarray) or (isinstance(raw, dict) and set(spec["inputs"]) <= set(raw)):
        return arrays(raw, spec["inputs"])
    if isinstance(raw, dict) and how["kind"] != "table":
        return arrays(raw, spec["inputs"])
    many = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    if how["kind"] == "image":
        name = next(iter(spec["inputs"]))
        settings = how["size"], how["channels"], how.get("depth"), how.get("fit")
        return {name: np.stack([image(_there(one), *settings) for one in many])}
    if how["kind"] == "words":
        return pieces([words for _, words, _ in sentences(many)], how, folder, spec["inputs"])[0]
    if how["kind"] == "text":
        return texts(_lines(many), how, folder, spec["inputs"])
    if how["kind"] == "audio":
        name = next(iter(spec["inputs"]))
        return {name: np.stack([waveform(_there(one), how["rate"], how["samples"]) for one in many])}
    if how["kind"] == "table":
        rows = [row for one in many for row in ([one] if isinstance(one, dict) else named_rows(_there(one)))]
        return columns({c["name"]: _cells(rows, c["name"]) for c in how["columns"]}, how["columns"])
    return _joined([arrays(_file(_there(one), spec["inputs"]), spec["inputs"]) for one in many])


def _there(one: Any) -> Path:
    """The path of a file. ValueError if there is none."""
    if not isinstance(one, (str, Path)) or not Path(one).is_file():
        raise ValueError(f"there is no file {str(one)[:300]!r}")
    return Path(one)


def arrays(given: Any, inputs: dict[str, Any]) -> Inputs:
    """Arrays by name, each [n, ...]; the only input may come without its name, and one sample
    without its axis."""
    if isinstance(given, np.ndarray):
        if len(inputs) != 1:
            raise ValueError(f"the model takes several inputs, by name: {', '.join(inputs)}")
        given = {next(iter(inputs)): given}
    missing = [name for name in inputs if name not in given]
    if missing:
        raise ValueError(f"the model takes {', '.join(inputs)}; not there: {', '.join(missing)}")
    out = {}
    for name, form in inputs.items():
        shape, value = list(form["shape"][1:]), np.asarray(given[name])
        if list(value.shape) == shape:
            value = value[None]
        if list(value.shape[1:]) != shape:
            raise ValueError(f"{name} is [n, {', '.join(map(str, shape))}]; got {list(value.shape)}")
        out[name] = _cast(name, value, np.dtype(form["dtype"]))
    return out


def _cast(name: str, value: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The values in the model's type. ValueError if they are not what it has."""
    if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise ValueError(f"{name} has values that are no finite numbers")
    if dtype.kind == "f" and value.dtype == np.uint8:
        raise ValueError(f"{name} is {value.dtype}, and the model takes {dtype}: scale it as in training")
    found = value.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(found, value):
        raise ValueError(f"{name} has values that are none of {dtype}")
    return found


def _file(path: Path, inputs: dict[str, Any]) -> Any:
    """The arrays in a file of numbers."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".csv":
        return _table(path, inputs)
    raise ValueError(f"{path} cannot be read; .npz, .npy and .csv can")


def _table(path: Path, inputs: dict[str, Any]) -> np.ndarray:
    """Rows of numbers, one a sample; a first row of names is left out. ValueError for a cell that
    is none."""
    with path.open(newline="", encoding="utf-8-sig") as f:
        rows = list(csv.reader(f, strict=True))
    shape = next(iter(inputs.values()))["shape"][1:]
    wanted = int(np.prod(shape))
    while rows and not rows[-1]:  # the end of the file
        rows.pop()
    # of one number a row an empty line is a row, too: left out, it would shift the answers
    rows = [row or [""] for row in rows] if wanted == 1 else [row for row in rows if row]
    if rows and _names(rows[0]):
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{path} has no rows of numbers")
    values = np.empty((len(rows), wanted))
    for i, row in enumerate(rows):
        if len(row) != wanted:
            said = "; are they separated by commas?" if len(row) == 1 else ""
            raise ValueError(f"{path}: row {i + 1} has {len(row)} cells, and the model takes {wanted} numbers{said}")
        for k, cell in enumerate(row):
            if (found := _number(cell)) is None:
                raise ValueError(f"{path}: row {i + 1}, cell {k + 1} is no number: {cell[:40]!r}")
            values[i, k] = found
    return values.reshape(len(rows), *shape)


def _number(cell: str) -> float | None:
    try:
        found = float(cell)
    except ValueError:
        return None
    return found if np.isfinite(found) and "_" not in cell else None


def _names(row: list[str]) -> bool:
    """Is it a row of names: texts that are not empty, or 0, 1, 2, .. as pandas numbers columns?"""
    if len(row) > 1 and row == [str(i) for i in range(len(row))]:
        return True
    return all(_number(c) is None and c.strip().lower() not in MISSING for c in row)


def _joined(parts: list[Inputs]) -> Inputs:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _lines(given: list[Any]) -> list[str]:
    """Texts; of a .txt file its lines."""
    out = []
    for one in given:
        is_file = str(one).endswith(".txt") and Path(str(one)).is_file()
        out += Path(str(one)).read_text(encoding="utf-8").splitlines() if is_file else [str(one)]
    return out


def texts(given: list[str], how: dict[str, Any], folder: Path, inputs: dict[str, Any]) -> Inputs:
    """Token numbers and masks, cut and padded to the width that the model was made for."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / how["tokenizer"]))
    tokenizer.no_padding()
    tokenizer.enable_truncation(how["max_length"])
    width = int(next(iter(inputs.values()))["shape"][1])
    ids = np.full((len(given), width), how["pad"], dtype=np.int64)
    mask = np.zeros((len(given), width), dtype=np.int64)
    for row, text in enumerate(given):
        found = tokenizer.encode(text).ids[:width]
        ids[row, : len(found)], mask[row, : len(found)] = found, 1
    known = {"input_ids": ids, "attention_mask": mask}
    return {name: known[name].astype(form["dtype"]) for name, form in inputs.items()}


Place = tuple[int, int]  # first character, behind the last


def sentences(given: list[Any]) -> list[tuple[str, list[str], list[Place]]]:
    """(text, its words, where they stand in it) of each text; of a list of words these words, with
    spaces between them. Words are what stands between spaces, without the punctuation around it,
    which are words, too, as is each Chinese or Japanese character."""
    out = []
    for one in given:
        if isinstance(one, (list, tuple)):
            words = [str(w) for w in one]
            ends = np.cumsum([len(w) + 1 for w in words]).tolist()
            out.append((" ".join(words), words, [(e - 1 - len(w), e - 1) for e, w in zip(ends, words, strict=True)]))
            continue
        for text in _lines([one]):
            places = [p for run in re.finditer(r"\S+", text) for p in _words(text, run.start(), run.end())]
            out.append((text, [text[a:b] for a, b in places], places))
    return out


def _words(text: str, start: int, end: int) -> list[Place]:
    """The words of text[start:end], which has no space in it."""

    def mark(at: int) -> bool:
        return unicodedata.category(text[at])[0] in "PS"

    first, behind = start, end
    while first < behind and mark(first):
        first += 1
    while behind > first and mark(behind - 1):
        behind -= 1
    inner = [(first + m.start(), first + m.end()) for m in _CHARACTERS.finditer(text[first:behind])]
    return [*((i, i + 1) for i in range(start, first)), *inner, *((i, i + 1) for i in range(behind, end))]


def pieces(
    rows: list[list[str]], how: dict[str, Any], folder: Path, inputs: dict[str, Any]
) -> tuple[Inputs, list[dict[int, int]]]:
    """Token numbers and masks of words, cut and padded to the width that the model was made for,
    and at which token each word begins ({word: token}; a word that was cut off has none)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / how["tokenizer"]))
    tokenizer.no_padding()
    tokenizer.enable_truncation(how["max_length"])
    width = int(next(iter(inputs.values()))["shape"][1])
    ids = np.full((len(rows), width), how["pad"], dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    begins = []
    for row, words in enumerate(rows):
        found = tokenizer.encode(words, is_pretokenized=True)
        ids[row, : len(found.ids)], mask[row, : len(found.ids)] = found.ids[:width], 1
        begins.append(first_pieces(found.word_ids[:width]))
    known = {"input_ids": ids, "attention_mask": mask}
    return {name: known[name].astype(form["dtype"]) for name, form in inputs.items()}, begins


def first_pieces(word_ids: list[int | None]) -> dict[int, int]:
    """{word: its first token}, of the word that each token is a piece of."""
    return {word: i for i, word in reversed(list(enumerate(word_ids))) if word is not None}


def image(
    path: Path, size: list[int], channels: int, depth: int | None, fit: dict[str, Any] | None = None
) -> np.ndarray:
    """[channels, height, width], float32 in [0, 1]. fit: as `fitted` takes it. One of `UNREADABLE`
    if it cannot be read."""
    from PIL import ImageOps

    with opened(path) as found:
        whole = found.mode != "F" or depth is not None
        top = 2.0 ** (depth or bits(found)) - 1 if whole else 1.0
        ImageOps.exif_transpose(found, in_place=True)
        return pixels(found, (size[0], size[1]), channels, top, fit)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An image whose header is read, as one of `FORMATS`. One of `UNREADABLE` if that fails, or if
    it has more pixels than `MOST_PIXELS`."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more than 89 million pixels, of tags that are cut
        try:
            found = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError as e:
            raise ValueError(f"no {', '.join(FORMATS)} that can be read, whatever its name says") from e
        except Image.DecompressionBombError as e:
            raise ValueError(f"more pixels than the {MOST_PIXELS:,} that are read") from e
        with found:
            if found.width * found.height > MOST_PIXELS:
                raise ValueError(f"{found.width} x {found.height} pixels; at most {MOST_PIXELS:,} are read")
            yield found


def bits(found: Any) -> int:
    """Of a whole-number sample with more than 8 bits, as the file says."""
    tags: Any = getattr(found, "tag_v2", None)  # only TIFF has others than 16
    return 16 if tags is None else int(tags.get(_BITS_PER_SAMPLE, (16,))[0])


def pixels(
    found: Any, size: tuple[int, int], channels: int, top: float, fit: dict[str, Any] | None = None
) -> np.ndarray:
    """[channels, height, width] in [0, 1]; grey with more than 8 bits keeps its depth. top: the
    largest such sample. ValueError if samples lie outside."""
    deep = found.mode == "F" or found.mode.startswith("I")
    top = top if deep else 255.0
    if deep:
        samples = np.asarray(found)
        low, high = float(samples.min()), float(samples.max())
        if not (low >= 0 and high <= top):
            said = "; depth=8 takes them as 0 to 255" if top == 1 < high <= 255 and low >= 0 else ""
            raise ValueError(f"samples from {low:g} to {high:g}; allowed: 0 to {top:g}{said}")
    mode = "F" if deep else "L" if channels == 1 else "RGB"
    found = found if found.mode == mode else found.convert(mode)
    found = fitted(found, size, fit or {"resize": list(size), "resample": 2})
    values = np.asarray(found, dtype=np.float32) / np.float32(top)
    return np.broadcast_to(values, (channels, *size)) if values.ndim == 2 else values.transpose(2, 0, 1)


def fitted(found: Any, size: tuple[int, int], fit: dict[str, Any]) -> Any:
    """An image of Pillow in (height, width). fit: {"resize": [height, width], or the shorter edge,
    or None; "resample": Pillow's number of a filter}; then its middle is cut out, or filled up with
    black around it."""
    from PIL import Image

    resize, (height, width) = fit["resize"], size
    if isinstance(resize, int):
        short, long = sorted(found.size)
        other = int(resize * long / short)
        resize = [resize, other] if found.width >= found.height else [other, resize]
    if resize is not None and found.size != (resize[1], resize[0]):
        if resize[0] * resize[1] > MOST_PIXELS:
            raise ValueError(f"{resize[1]} x {resize[0]} pixels once its shorter edge fits; at most {MOST_PIXELS:,}")
        found = found.resize((resize[1], resize[0]), Image.Resampling(fit["resample"]))
    if found.size == (width, height):
        return found
    black = Image.new(found.mode, (width, height))
    left, upper = _middle(found.width, width), _middle(found.height, height)
    black.paste(found.crop((max(left, 0), max(upper, 0), found.width, found.height)), (max(-left, 0), max(-upper, 0)))
    return black


def _middle(has: int, wanted: int) -> int:
    """Where the middle begins, which is so wide; below 0 if it is wider than all."""
    return (has - wanted) // 2 if has >= wanted else -((wanted - has + 1) // 2)


# --- rows with named columns ----------------------------------------------------------------------


def named_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .csv or .tsv file by the names in its first line."""
    if path.suffix not in (".csv", ".tsv"):
        raise ValueError(f"{path} is no .csv or .tsv file")
    with path.open(newline="", encoding="utf-8-sig") as f:
        rows = list(csv.reader(f, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True))
    while rows and not rows[-1]:  # the end of the file
        rows.pop()
    at = next((i for i, r in enumerate(rows) if r), len(rows))
    names, rows = (rows[at], rows[at + 1 :]) if at < len(rows) else ([], [])
    # of one column an empty line is a row without a value: left out, it would shift the answers
    rows = [r or [""] for r in rows] if len(names) == 1 else [r for r in rows if r]
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(f"{path}: row {i + 1} has {len(row)} cells, and the first line has {len(names)} names")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _cells(rows: list[dict[str, Any]], name: str) -> list[Any]:
    if not rows:
        raise ValueError("there are no rows")
    if any(name not in row for row in rows):
        raise ValueError(f"there is no column {name!r}; the columns are {', '.join(map(str, rows[0]))}"[:500])
    return [row[name] for row in rows]


def columns(cells: dict[str, list[Any]], how: list[dict[str, Any]]) -> Inputs:
    """Cells by column as the model takes them: `numbers`, float32 [n, C + M], the columns of
    numbers and dates (less their origin and divided by their unit, where float32 would blur
    them), then for the first M of them whether the cell has no value; `categories`,
    int64 [n, K], each the place of the cell's text among the column's values, from 1 on (0: it is
    none of them)."""
    numbers: list[np.ndarray] = []
    flags: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    for column in how:
        name, given = column["name"], cells[column["name"]]
        if column["type"] == "category":
            # as first named: folders of before may list "7.0" and "7"
            place = {text_of(v) or v: i for i, v in reversed(list(enumerate(column["values"], 1)))}
            codes.append(np.array([place.get(text_of(c) or "", 0) for c in given], dtype=np.int64))
            continue
        value_of = day if column["type"] == "date" else number_of
        found = [value_of(c) for c in given]
        for i, (value, cell) in enumerate(zip(found, given, strict=True)):
            if value is None and text_of(cell) is not None:
                raise ValueError(f"row {i + 1}, column {name!r} is no {column['type']}: {str(cell)[:40]!r}")
        if column["missing"]:
            flags.append(np.array([value is None for value in found], dtype=np.float32))
        known = np.array([column["fill"] if value is None else value for value in found], dtype=np.float64)
        numbers.append(((known - column.get("origin", 0.0)) / column.get("unit", 1.0)).astype(np.float32))
    made = {"numbers": [*numbers, *flags], "categories": codes}
    return {name: np.stack(v, axis=1) for name, v in made.items() if v}


def text_of(cell: Any) -> str | None:
    """A cell as the text of a category, whatever wrote it: 1.0 and "1.0" are "1" ("01" is a name),
    True and "TRUE" are "true"; None if it has no value."""
    text = "" if cell is None else str(cell).strip()
    if text.lower() in MISSING:
        return None
    if text.lower() in ("true", "false"):
        return text.lower()
    if len(text) <= _DIGITS and _WHOLE.fullmatch(text):
        return str(int(text.partition(".")[0]))
    return str(int(float(text))) if _LARGE.fullmatch(text) else text


def number_of(cell: Any) -> float | None:
    """A cell as a number that float32 holds; None if it is none."""
    found = None if cell is None or isinstance(cell, (date, bool)) else _number(str(cell).strip())
    return found if found is not None and abs(found) <= LARGEST else None


def day(cell: Any) -> float | None:
    """A date or time (ISO 8601; without a zone in UTC) as days since 1970; None if it is none."""
    try:
        found = cell if isinstance(cell, date) else datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return None
    if not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.timestamp() / 86_400


# --- sounds ---------------------------------------------------------------------------------------


def waveform(path: Path, rate: int, samples: int) -> np.ndarray:
    """[samples] of a WAV file, float32 in [-1, 1]: the mean of its channels, at `rate` samples a
    second, cut or filled up with zeros at its end. ValueError or OSError if it cannot be read."""
    found, own = sound(path)
    # what follows the cut reaches as far as the filter
    found = found[: -(-samples * own // rate) + 11 + 10 * own // rate]
    found = resampled(found, own, rate)[:samples]
    return np.pad(found, (0, samples - len(found))).astype(np.float32)


def sound(path: Path) -> tuple[np.ndarray, int]:
    """The mean of a WAV file's channels [n], and its samples a second."""
    form = heading(path)
    with path.open("rb") as f:
        f.seek(form.start)
        body = f.read(form.frames * form.channels * form.width)
    return _samples(body, form.floating, form.width).reshape(-1, form.channels).mean(1), form.rate


class Heading(NamedTuple):
    """What a WAV file says of its samples: bytes of one, where they start, and how many each
    channel has."""

    floating: bool
    width: int
    channels: int
    rate: int
    start: int
    frames: int


def heading(path: Path) -> Heading:
    """Of a WAV file with whole numbers of 8 to 32 bits, or floating point; else ValueError."""
    form, whole = None, path.stat().st_size
    with path.open("rb") as f:
        begins = f.read(12)
        if begins[:4] != b"RIFF" or begins[8:] != b"WAVE":
            raise ValueError(f"{path} is no WAV file, whatever its name says")
        while len(chunk := f.read(8)) == 8:
            name, size, start = chunk[:4], int.from_bytes(chunk[4:], "little"), f.tell()
            if name == b"data":
                break
            if name == b"fmt " and size >= 16:
                said = f.read(min(size, 40))
                form = struct.unpack_from("<HHIIHH", said)
                if form[0] == 0xFFFE and size >= 26:  # extensible: the format stands further on
                    form = (struct.unpack_from("<H", said, 24)[0], *form[1:])
            f.seek(start + size + size % 2)
        else:
            size = start = whole
    left = whole - start
    if size == 0 or size >= _STREAMED:  # written by what did not know how long it would be
        size = left
    if form is None or left <= 0:
        raise ValueError(f"{path} has no sound in it")
    if left < size:
        raise ValueError(f"{path} ends before the {size:,} bytes of sound that it says it has")
    kind, channels, rate, _, align, _ = form
    width = align // channels if channels else 0
    if (kind, width) not in _WAVES or not RATES[0] <= rate <= RATES[1] or size < align:
        what = f"format {kind} with {8 * width} bits, {rate} samples a second"
        raise ValueError(f"{path} is WAV of {what}; whole numbers of 8 to 32 bits and floating point are read")
    return Heading(kind == 3, width, channels, rate, start, size // align)


def _samples(body: bytes, floating: bool, width: int) -> np.ndarray:
    """In [-1, 1]."""
    if floating:
        found = np.frombuffer(body, f"<f{width}").astype(np.float64)
        if not np.isfinite(found).all():
            raise ValueError("the sound has samples that are no finite numbers")
        return found
    if width == 1:
        return (np.frombuffer(body, np.uint8).astype(np.float64) - 128) / 128
    if width == 3:  # with a lowest byte of zeros before each
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        body, width = wide.tobytes(), 4
    found = np.frombuffer(body, f"<i{width}").astype(np.float64)
    whole: np.ndarray = found / 2.0 ** (8 * width - 1)
    return whole


def resampled(x: np.ndarray, own: int, rate: int) -> np.ndarray:
    """x [n] at `own` samples a second, at `rate`: [n rate / own, rounded up]. By a windowed sinc
    (Kaiser, beta 5, ten zero crossings), as scipy.signal.resample_poly does."""
    divisor = int(np.gcd(own, rate))
    up, down = rate // divisor, own // divisor
    if up == down or not len(x):
        return x
    filters, first = _filters(up, down)
    taps = filters.shape[1]
    out = np.empty(-(-len(x) * up // down))
    before = int(-first.min())
    padded = np.concatenate([np.zeros(before), x, np.zeros(taps + down)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    for start in range(0, len(out), 16_384):
        at = np.arange(start, min(start + 16_384, len(out)))
        phase, turns = at % up, at // up
        found = windows[first[phase] + before + turns * down]
        out[start : start + len(at)] = np.einsum("ij,ij->i", filters[phase], found)
    return out


@lru_cache(maxsize=8)
def _filters(up: int, down: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the first `up` outputs, after which all begins anew `down` samples further on: what the
    samples that the filter reaches are multiplied by [up, taps], and which is the first of them."""
    half = 10 * max(up, down)
    h = np.sinc(np.arange(-half, half + 1) / max(up, down)) * np.kaiser(2 * half + 1, 5.0)
    h = np.append(h * (up / h.sum()), 0.0)  # the last for what is further off than the filter reaches
    centre = np.arange(up) * down
    first = -(-(centre - half) // up)
    place = half + centre[:, None] - (first[:, None] + np.arange(2 * half // up + 1)) * up
    return h[np.where(place < 0, 2 * half + 1, place)], first


# --- outputs, as answers --------------------------------------------------------------------------


def answers(outputs: np.ndarray, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """What each row of outputs says."""
    means, labels = spec["output"]["means"], spec["output"].get("labels")
    axis = spec["output"].get("class_axis", 1)
    if (origin := spec.get("prepare", {}).get("answers_from", 0.0)) and means == "numbers":
        outputs = np.asarray(outputs, dtype=np.float64) + origin
    if outputs.ndim > 2 and means != "numbers":
        if axis == 0:  # one number at each place
            return [_at_places(row[None], means, labels) for row in outputs]
        rows = np.moveaxis(outputs, axis, 1)
        return [_read_frames(row, labels) if means == "frames" else _at_places(row, means, labels) for row in rows]
    return [_answer(np.asarray(row, dtype=np.float64), means, labels) for row in outputs]


def _at_places(row: np.ndarray, means: str, labels: list[str] | None) -> dict[str, Any]:
    """The answers at the places of a sample: row [classes, ...]."""
    if means.startswith("label"):
        yes = (row > (0.5 if "prob" in means else 0.0)).astype(int)
        named = bool(labels) and len(labels or ()) == len(row)
        if len(yes) > 1 and (row.ndim > 2 or named):
            names = labels if labels and named else [str(i) for i in range(len(row))]
            return {"maps": {n: m.tolist() for n, m in zip(names, yes, strict=True)}}
        best = yes.reshape(yes.shape[1:]) if len(yes) == 1 else yes
        many = 2
    else:
        best, many = row.argmax(0), len(row)
    names = labels if labels and len(labels) == many else [str(i) for i in range(many)]
    if best.ndim == 1:
        return {"labels": [names[i] for i in best.tolist()]}
    shares = np.bincount(best.ravel(), minlength=many) / best.size
    return {
        "map": best.tolist(),
        "shares": {n: round(float(s), 6) for n, s in zip(names, shares, strict=True) if s > 0},
    }


def tagged(raw: Any, model: Model) -> list[dict[str, Any]]:
    """What each word of each text is: {"words", "labels" (None: it was cut off), "spans": [{"text",
    "label", "start", "end" (characters), "probability"}]}."""
    how, names = model.spec["prepare"], model.spec["output"]["labels"]
    # a list of lists is rows of words; arrays have no words
    if isinstance(raw, (np.ndarray, dict)):
        return answers(model.outputs(read(raw, model.spec, model.folder)), model.spec)
    given = sentences(list(raw) if isinstance(raw, (list, tuple)) else [raw])
    if not given:
        raise ValueError("no text")
    inputs, begins = pieces([words for _, words, _ in given], how, model.folder, model.spec["inputs"])
    outputs = np.asarray(model.outputs(inputs), dtype=np.float64)  # [n, tokens, classes]
    p = np.exp(outputs - outputs.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = []
    for (text, words, places), first, row in zip(given, begins, p, strict=True):
        labels = [names[int(row[first[w]].argmax())] if w in first else None for w in range(len(words))]
        sure = [float(row[first[w]].max()) if w in first else 0.0 for w in range(len(words))]
        found = [
            {
                "text": text[places[a][0] : places[b - 1][1]],
                "label": label,
                "start": places[a][0],
                "end": places[b - 1][1],
                "probability": round(sum(sure[a:b]) / (b - a), 6),
            }
            for a, b, label in sorted(spans([label or "O" for label in labels]))
        ]
        out.append({"words": words, "labels": labels, **({"spans": found} if how["spans"] else {})})
    return out


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """(first, behind the last, kind) of tags as BIO, BIOES or IO have them (as conlleval reads
    them)."""
    found, start, kind = set(), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, _, of = tag.partition("-")
        of = of if mark in ("B", "I", "E", "S", "L", "U") else ""
        if kind and (of != kind or mark in ("B", "S", "U") or tags[i - 1][0] in "ESLU"):
            found.add((start, i, kind))
            kind = ""
        if of and not kind:
            start, kind = i, of
    return found


def _read_frames(row: np.ndarray, labels: list[str] | None) -> dict[str, Any]:
    """What is read from frames [classes, frames]: the best class of each, repeats taken together,
    without class 0, the blank."""
    best = row.argmax(0)
    kept = best[np.r_[True, best[1:] != best[:-1]] & (best > 0)].tolist()
    if labels and len(labels) == len(row):
        names = [labels[i] for i in kept]
        return {"text": "".join(" " if n == "|" else n for n in names), "labels": names}
    return {"labels": kept}


def _answer(row: np.ndarray, means: str, labels: list[str] | None) -> dict[str, Any]:
    if means not in ("logits", "probabilities", "labels", "label probabilities"):
        return {"output": row.tolist()}
    flat = row.reshape(-1)
    if means.startswith("label") or flat.size == 1:
        p = flat if "prob" in means else np.where(flat >= 0, 1, np.exp(-np.abs(flat))) / (1 + np.exp(-np.abs(flat)))
    elif means == "logits":
        e = np.exp(flat - flat.max())
        p = e / e.sum()
    else:
        p = flat
    if flat.size == 1:  # one number says which of two it is
        p = np.array([1 - p[0], p[0]])
    names = labels if labels and len(labels) == len(p) else [str(i) for i in range(len(p))]
    order = np.argsort(-p, kind="stable")[:SHOWN]
    shown = {names[i]: round(float(p[i]), 6) for i in order}
    if means.startswith("label") and flat.size > 1:
        return {"labels": [names[i] for i in np.flatnonzero(p > 0.5)], "probabilities": shown}
    return {"label": names[order[0]], "probability": round(float(p[order[0]]), 6), "probabilities": shown}


# --- the runtime ----------------------------------------------------------------------------------


def session(folder: Path, spec: dict[str, Any]) -> Callable[[Inputs], np.ndarray]:
    """The model's runtime with its file loaded: (inputs of one batch) -> outputs."""
    file, threads = str(folder / spec["file"]), int(spec["threads"])
    if spec["runtime"] == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        loaded = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda inputs: np.asarray(loaded.run(None, inputs)[0])
    if spec["runtime"] == "openvino":
        return _openvino(file, threads, spec)
    if spec["runtime"] == "torch":
        return _torch(file, threads, spec)
    raise ValueError(f"this file runs on {spec['runtime']}, which predict.py does not know")


def _openvino(file: str, threads: int, spec: dict[str, Any]) -> Callable[[Inputs], np.ndarray]:
    import openvino

    model = openvino.Core().read_model(file)
    model.reshape({name: [int(spec["batch"]), *form["shape"][1:]] for name, form in spec["inputs"].items()})
    group = ["featherweight", "dynamic_quantization_group_size"]  # left alone, the runtime chooses one
    settings = {
        "INFERENCE_PRECISION_HINT": spec["precision"],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": int(model.get_rt_info(group).astype(int)) if model.has_rt_info(group) else 0,
    }
    compiled = openvino.compile_model(model, "CPU", settings)
    return lambda inputs: np.array(compiled(inputs)[0])


def _torch(file: str, threads: int, spec: dict[str, Any]) -> Callable[[Inputs], np.ndarray]:
    import torch

    torch.set_num_threads(threads)
    module: Any = torch.export.load(file).module(check_guards=False)
    if spec.get("compile"):
        module = torch.compile(module)

    def run(inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = module(*(torch.from_numpy(inputs[name]) for name in spec["inputs"])).float().numpy()
        return found

    return run


def main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    model = Model(Path(__file__).resolve().parent)
    if words == ["--check"]:
        fine, said = model.check()
        print(("As it was made: " if fine else "NOT as it was made: ") + said)
        return 0 if fine else 1
    try:
        for answer in model(words):
            print(json.dumps(answer, ensure_ascii=False))
    except UNREADABLE as e:
        print(f"Error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
