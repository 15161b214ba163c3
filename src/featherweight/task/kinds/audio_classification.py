"""Audio classification: a network from a Python file, and WAV files: a folder with one subfolder a
class, or a table of paths and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...deploy.predict import MOST_SAMPLES, RATES, UNREADABLE, Heading, heading, waveform
from ...errors import TaskError
from ..data import Batch, LazySplit, Split, Splits
from ..files import parse_ref
from ..fronts.spectrum import Spectrum
from ..sources import local_sources
from ..splitting import split
from ..task import Task
from ._folders import class_folders, refuse
from ._nets import EPOCHS, net_of, training
from ._table import LABEL_COLUMNS, SUFFIXES, class_numbers, labels_of, names_of, pick, read_table

if TYPE_CHECKING:
    from torch import nn

PATH_COLUMNS = ("path", "file", "filename", "audio", "wav")
FEATURES = ("log-mel", "log-mel-1d", "waveform")
RATE = 16_000  # samples a second, at most unless more are asked for: what speech needs
_DIFFER = 1.5  # the longest file is so many times the middle one: it is said
_KEPT = 512 * 2**20  # bytes of waveforms that are kept once they were read


def audio_classification(
    data: str | Path,
    *,
    model: str | Path | None = None,
    seconds: float | None = None,
    rate: int | None = None,
    features: str = "log-mel",
    mels: int = 40,
    window_ms: float = 25.0,
    hop_ms: float = 10.0,
    centred: bool = True,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    epochs: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A task from `FILE.py:net` and WAV files: a folder with one subfolder a class, or a .csv,
    .tsv, .jsonl or .parquet file with their paths and labels.

    net: a function (or module class) without arguments, or of the number of classes, that gives an
    nn.Module to logits [n, classes]; without one, `search` finds it. What it is given is computed
    inside the exported model, which takes waveforms [n, samples], float32 in [-1, 1]. features:
    log-mel, [n, 1, mels, frames]; log-mel-1d, [n, mels, frames]; or waveform. mels, window_ms,
    hop_ms: of the spectrum; centred: less its mean, so that loudness does not matter.
    seconds: that all sounds are cut or filled up to; by default those of the longest. rate: samples
    a second that all get; by default the least of the files', at most 16,000. group_column: files
    with one value, as those of one speaker, are in one split. epochs: of training for the baseline,
    10 by default. Several channels are mixed to one.
    """
    place = Path(data).resolve()
    ref = None if model is None else parse_ref(str(model), "net")
    file = None if ref is None else ref[0].resolve()  # before it runs: it may change the current folder
    files, targets, classes, groups, notes = _find(place, path_column, label_column, group_column)
    rate, samples, said = _form(_headings(files), rate, seconds)
    spectrum = None if _check(features) == "waveform" else Spectrum.of(rate, samples, mels, window_ms, hop_ms)
    made = None if ref is None or file is None else net_of(file, ref[1], len(classes))
    read = _Waves(files, targets, rate, samples)
    epochs = EPOCHS if epochs is None else epochs
    options = {"rate": rate, "seconds": samples / rate, "features": features, "mels": mels, "window_ms": window_ms}
    options |= {"hop_ms": hop_ms, "centred": centred, "epochs": epochs, "split_seed": split_seed}
    columns = {"path_column": path_column, "label_column": label_column, "group_column": group_column}
    options |= {k: v for k, v in columns.items() if v is not None}

    def parts() -> Split | Splits:
        whole = LazySplit(len(files), read, classes)
        return whole if groups is None else split(whole, seed=split_seed, groups=groups)

    front = _front(spectrum, features, centred)
    return Task(
        name=f"{file.stem}-{place.stem}" if file else place.stem,
        model=None if made is None else lambda: _model(made(), spectrum, features, centred),
        data=parts,
        baseline=training(epochs) if epochs and made is not None else None,
        split_seed=split_seed,
        ref={
            "kind": "audio-classification",
            "options": {"data": str(place), **({"model": f"{file}:{ref[1]}"} if ref else {}), **options},
        },
        sources=() if file is None else local_sources(file),
        identity=(f"{features} {mels} {window_ms:g} {hop_ms:g} {centred} {rate} {samples}",),
        notes=(*notes, *said),
        prepared=_prepared(rate, samples, classes),
        deploy=lambda to: {"kind": "audio", "rate": rate, "samples": samples},
        front=None if front is None else lambda: front,
    )


def _prepared(rate: int, samples: int, classes: Sequence[str]) -> str:
    """What `waveform` does, in words."""
    return (
        f"Each WAV file is mixed to one channel, resampled to {rate:,} samples a second (windowed sinc, as "
        f"scipy.signal.resample_poly) if it has another rate, cut or filled up with zeros at its end to {samples:,} "
        f"samples ({samples / rate:.3g} s), as float32 in [-1, 1]. Spectra are computed inside the model. The outputs "
        f"are logits, one a class: {', '.join(classes)}."
    )


def _check(features: str) -> str:
    if features not in FEATURES:
        raise TaskError("there are no such features", got=repr(features), allowed=", ".join(FEATURES))
    return features


def _front(spectrum: Spectrum | None, features: str, centred: bool) -> tuple[str, dict[str, Any]] | None:
    """What stands before a net that a search builds: a description in `nets`, and its fields."""
    if spectrum is None:
        return None
    fields = {name: getattr(spectrum, name) for name in ("rate", "samples", "mels", "block", "blocks")}
    return "log_mel", {**fields, "planes": features == "log-mel", "centred": centred}


def _model(net: nn.Module, spectrum: Spectrum | None, features: str, centred: bool) -> nn.Module:
    if spectrum is None:
        return net
    from ..fronts.around import Around
    from ..fronts.log_mel import LogMel

    return Around(LogMel(spectrum, features == "log-mel", centred), net)


def _find(
    place: Path, path_column: str | None, label_column: str | None, group_column: str | None
) -> tuple[list[Path], np.ndarray, list[str], list[str] | None, tuple[str, ...]]:
    """Files, their class numbers, the class names, the group of each if there are some, notes."""
    if place.suffix.lower() not in SUFFIXES:
        given = [name for name in (path_column, label_column, group_column) if name]
        if given and place.is_dir():
            raise TaskError(
                "a folder has no columns", got=", ".join(given), fix="give a table of paths and labels, or no columns"
            )
        found, numbers, names, notes = class_folders(place, (".wav", ".wave"), "WAV files")
        return found, numbers, names, None, notes
    table = read_table(place)
    path_name = pick("path", path_column, PATH_COLUMNS, table, place)
    label_name = pick("label", label_column, LABEL_COLUMNS, table, place)
    if path_name == label_name:
        raise TaskError("path and label are the same column", got=path_name, allowed=", ".join(table.names)[:500])
    targets, classes = class_numbers(labels_of(place, table, label_name))
    groups = None
    if group_column is not None:
        groups = names_of(place, table, pick("group", group_column, (), table, place), "group")
    files = [place.parent / p for p in names_of(place, table, path_name, "path")]  # an absolute path stays as it is
    if gone := [str(p) for p in files if not p.is_file()]:
        raise TaskError(
            "files that the table names are not there",
            got="; ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else ""),
            allowed=f"paths from {place.parent}, or from the root",
        )
    return files, targets, classes, groups, ()


def _headings(files: list[Path]) -> list[Heading]:
    out, unreadable = [], []
    for path in files:
        try:
            out.append(heading(path))
        except UNREADABLE as e:
            unreadable.append(str(e))
    refuse(unreadable, "WAV")
    return out


def _form(found: list[Heading], rate: int | None, seconds: float | None) -> tuple[int, int, tuple[str, ...]]:
    """Samples a second and samples that all get, and what is to be said of it."""
    rates = sorted({h.rate for h in found})
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]):
        raise TaskError(
            "this is no sample rate", got=repr(rate), allowed=f"{RATES[0]:,} to {RATES[1]:,} samples a second"
        )
    own = rate if rate is not None else min(RATE, rates[0])
    notes = []
    if rates != [own]:
        notes.append(f"sounds of {', '.join(f'{r:,}' for r in rates[:5])} samples a second are resampled to {own:,}")
    lengths = np.array([h.frames / h.rate for h in found])
    if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < np.inf):
        raise TaskError("this is no length of a sound", got=repr(seconds), allowed="seconds, above 0")
    length = float(lengths.max()) if seconds is None else float(seconds)
    middle = float(np.median(lengths))
    if seconds is None and length > _DIFFER * middle:
        notes.append(
            f"all sounds are filled up to the {length:.3g} s of the longest, and half of them are shorter than "
            f"{middle:.3g} s: seconds={middle:.2g} would cut the others"
        )
    if cut := int((lengths > length + 1 / own).sum()):
        notes.append(f"{cut:,} of {len(lengths):,} sounds are cut to {length:.3g} s")
    if length * own > MOST_SAMPLES:
        raise TaskError(
            "the sounds are too long to be filled up to the longest",
            got=f"{length:,.0f} s at {own:,} samples a second",
            allowed=f"{MOST_SAMPLES:,} samples",
            fix="give the length that they all get: seconds=10",
        )
    return own, max(1, round(length * own)), tuple(notes)


class _Waves:
    """Reads waveforms [n, samples], and keeps them if there is room."""

    def __init__(self, files: list[Path], targets: np.ndarray, rate: int, samples: int) -> None:
        self.files, self.targets, self.rate, self.samples = files, targets, rate, samples
        keeps = 4 * len(files) * samples <= _KEPT
        self.kept = np.zeros((len(files), samples), dtype=np.float32) if keeps else None
        self.read = np.zeros(len(files), dtype=bool)

    def __call__(self, index: np.ndarray) -> Batch:
        out, unreadable = np.empty((len(index), self.samples), dtype=np.float32), []
        for row, i in enumerate(index.tolist()):
            if self.kept is not None and self.read[i]:
                out[row] = self.kept[i]
                continue
            try:
                out[row] = waveform(self.files[i], self.rate, self.samples)
            except UNREADABLE as e:
                unreadable.append(f"{self.files[i]}: {e}")
                continue
            if self.kept is not None:
                self.kept[i], self.read[i] = out[row], True
        refuse(unreadable, "WAV")
        return {"waveform": out}, self.targets[index]
