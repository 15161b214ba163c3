"""Data as people have them, read batch by batch in one form: inputs by name or in order, and what
stands beside them.

`samples(data, ..)` takes arrays, tensors, lists, DataFrames, (inputs, targets), dictionaries,
torch Datasets and DataLoaders, Hugging Face datasets, and files of NumPy. torch, pandas and the
others are known by what their objects are, and never imported for data that are not theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TaskError
from ._arrays import array_of, is_a, numbers_of, rows_of, whole
from ._batches import TARGETS, Samples, Wanted, decoded, label_of
from ._fetched import Fetched, fetching, seeds
from ._ragged import evened
from ._spool import Spool

_INPUTS = ("x", "data", "inputs", "input", "features")
_BESIDE = ("target_names", "feature_names", "images", "frame", "DESCR", "filename")  # scikit-learn's
ALLOWED = (
    "(inputs, targets) as arrays, tensors or DataFrames; a torch Dataset or DataLoader; a Hugging Face dataset; a "
    'DataFrame with label="COLUMN"; an .npz file; an fw.Split; or a dictionary of these by "train", "valid" and "test"'
)


class Arrays(Samples):
    """In memory, or memory-mapped."""

    def __init__(self, inputs: dict[str, np.ndarray], targets: np.ndarray | None) -> None:
        self.inputs, self._targets = inputs, targets
        lengths = {k: len(v) for k, v in {**inputs, **({} if targets is None else {"targets": targets})}.items()}
        if len(set(lengths.values())) != 1:
            raise TaskError("inputs and targets have different lengths", got=lengths, allowed="one row a sample")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def read(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        rows = {name: numbers_of(np.asarray(v[index])) for name, v in self.inputs.items()}
        return rows, None if self._targets is None else np.asarray(self._targets[index])

    def targets(self) -> np.ndarray | None:
        return self._targets


def samples(data: Any, wanted: Wanted, label: str | None) -> Samples:
    """The data in one form. label: the name of the targets, where they have one. TaskError for what
    cannot be read, with what can."""
    data, notes = evened(data, TARGETS if label is None else (label,))
    found = _samples(data, wanted, label)
    found.notes += notes
    return found


def _samples(data: Any, wanted: Wanted, label: str | None) -> Samples:
    if is_a(data, "torch.utils.data", "DataLoader"):
        return _loader(data, wanted, label)
    if is_a(data, "datasets", "Dataset"):
        return _hugging(data, wanted, label)
    if is_a(data, "pandas", "DataFrame"):
        return _frame(data, wanted, label)
    if isinstance(data, (str, Path)):
        return _file(Path(data), wanted, label)
    if isinstance(data, Mapping):
        return _mapping(data, wanted, label)
    if (found := array_of(data)) is not None:
        return Arrays({"": found}, None)
    if isinstance(data, (tuple, list)) and len(data) in (1, 2) and all(rows_of(part) is not None for part in data):
        return _pair(data, wanted, label)
    if isinstance(data, tuple) and len(data) > 2 and all(array_of(part) is not None for part in data):
        full = len(data) == wanted.required  # as many as the model needs: there are no targets
        return _pair((data if full else data[:-1], None if full else data[-1]), wanted, label)
    if is_a(data, "torch.utils.data", "IterableDataset") or isinstance(data, Iterator) or is_a(data, "datasets", None):
        return _streamed(data, wanted, label)
    if callable(getattr(data, "__getitem__", None)) and callable(getattr(data, "__len__", None)):
        return Fetched(len(data), fetching(data, None), wanted, label)
    if callable(getattr(data, "__iter__", None)):
        return _streamed(data, wanted, label)
    raise TaskError("these are no data that can be read", got=type(data).__name__, allowed=ALLOWED)


def _pair(data: Sequence[Any], wanted: Wanted, label: str | None) -> Samples:
    """(inputs, targets), whole arrays; inputs may be several."""
    first, second = data[0], data[1] if len(data) == 2 else None
    inputs: dict[Any, Any] = {"": first}
    if isinstance(first, Mapping):
        inputs = dict(first)
    elif isinstance(first, (list, tuple)) and array_of(first) is None:  # nested lists of numbers are one array
        inputs = dict(enumerate(first))
    both = second is not None and is_a(first, "pandas", None) and is_a(second, "pandas", None)
    if both and second is not None and not first.index.equals(second.index):
        raise TaskError(
            "inputs and targets have other indexes",
            got=f"{first.index[:3].tolist()}, .. and {second.index[:3].tolist()}, ..",
            fix="y = y.loc[X.index], if rows of one index belong together; else X.to_numpy(), y.to_numpy()",
        )
    if is_a(first, "pandas", "DataFrame"):
        inputs = dict(_frame(first, wanted, None).inputs)
    made = {str(k): whole(v, f"the input {k!r}" if k != "" else "the inputs") for k, v in inputs.items()}
    known = _categories(second)
    found = Arrays(made, known[0] if known else None if second is None else _targets(second))
    found.classes = known[1] if known else None
    return found


def _targets(values: Any) -> np.ndarray:
    found = values.to_numpy() if is_a(values, "pandas", None) else array_of(values)
    if found is None:
        found = np.asarray(values)
    if found.ndim == 0 or found.dtype.kind not in "biufOUS":
        raise TaskError("these are no targets", got=f"{type(values).__name__} of {found.dtype}", allowed="one a sample")
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 and found.dtype.kind in "OUS" else found


def _categories(values: Any) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """The codes and the names of a pandas categorical, in its own order; None for anything else."""
    if not is_a(values, "pandas", "Series") or str(values.dtype) != "category":
        return None
    codes = np.asarray(values.cat.codes)
    if (codes < 0).any():
        raise TaskError(
            "labels are missing", got=f"{int((codes < 0).sum())} of {len(codes)}", fix="remove these samples"
        )
    return codes.astype(np.int64), tuple(map(str, values.cat.categories))


def _mapping(data: Mapping[Any, Any], wanted: Wanted, label: str | None) -> Samples:
    """Whole arrays by name, as an .npz file has them, or scikit-learn's {"data", "target"}."""
    arrays = {k: v for k, v in data.items() if isinstance(k, str) and rows_of(v) is not None}
    key = label_of(arrays, label)
    if key is None:
        inputs = arrays
    else:
        n = rows_of(arrays[key])
        inputs = {k: v for k, v in arrays.items() if k != key and rows_of(v) == n}
        odd = [k for k in arrays if k not in inputs and k != key and k not in _BESIDE]
        if odd:
            raise TaskError(
                "inputs and targets have different lengths", got=f"{', '.join(odd)}: not {n} rows, as {key}"
            )
    named = {k: v for k, v in inputs.items() if k in wanted.names}
    if not named and len(inputs) > 1:
        named = next(({"": v} for k, v in inputs.items() if k.lower() in _INPUTS), {})
    inputs = named or ({"": next(iter(inputs.values()))} if len(inputs) == 1 else inputs)
    if not inputs:
        raise TaskError(
            "these data have no inputs",
            got=f"a dictionary of {', '.join(map(repr, data)) or 'nothing'}",
            allowed=ALLOWED,
        )
    found = {k: whole(v, f"the input {k!r}") for k, v in inputs.items()}
    made = Arrays(found, None if key is None else _targets(arrays[key]))
    names = data.get("target_names")  # scikit-learn's
    if key == "target" and names is not None and len(names) and isinstance(names[0], str):
        made.classes = tuple(map(str, names))
    return made


def _file(path: Path, wanted: Wanted, label: str | None) -> Samples:
    if not path.is_file():
        raise TaskError("there is no such file of data", got=str(path), allowed="an .npz or .npy file")
    if path.suffix not in (".npz", ".npy"):
        raise TaskError(
            "data files for a model are NumPy's",
            got=str(path),
            allowed=".npz with one array an input, and `labels`; .npy of inputs",
            fix="for tables, texts and images: featherweight optimize --task KIND --data ..",
        )
    try:
        found = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        arrays = {"": found} if path.suffix == ".npy" else {name: found[name] for name in found.files}
    except Exception as e:  # a damaged file fails in many ways: zip's, NumPy's and the system's
        raise TaskError("this file cannot be read as NumPy's", got=f"{path}: {type(e).__name__}: {e}") from e
    if path.suffix == ".npy":
        return Arrays(arrays, None)
    return _mapping(arrays, wanted, label)


def _frame(frame: Any, wanted: Wanted, label: str | None) -> Arrays:
    """A DataFrame: the columns that the model takes by name, or all of numbers as one array."""
    if frame.columns.has_duplicates:
        raise TaskError(
            "columns of the DataFrame have one name", got=list(frame.columns[frame.columns.duplicated()])[:5]
        )
    columns = [c for c in frame.columns if c != label]
    if label is not None and label not in frame.columns:
        raise TaskError("the DataFrame has no such column", got=label, allowed=", ".join(map(str, frame.columns))[:500])
    numeric = [c for c in columns if frame[c].dtype.kind in "biuf"]
    named = [c for c in columns if c in wanted.names]
    if not named and len(numeric) < len(columns):
        odd = [str(c) for c in columns if c not in numeric]
        raise TaskError(
            "these columns are no numbers",
            got=", ".join(odd)[:300],
            allowed="columns of numbers, and one of labels",
            fix='name the column of the targets: label="..", and encode the others as the model takes them',
        )
    known = None if label is None else _categories(frame[label])
    targets = known[0] if known else None if label is None else frame[label].to_numpy()
    whole_frame = len(named) < len(numeric) and len(named) < wanted.required + 1 and len(wanted.names) == 1
    inputs = {str(c): frame[c].to_numpy() for c in named} if named and not whole_frame else None
    found = Arrays(inputs or {"": np.ascontiguousarray(frame[numeric].to_numpy(dtype=np.float32))}, targets)
    found.classes = known[1] if known else None
    return found


def _loader(loader: Any, wanted: Wanted, label: str | None) -> Samples:
    """A DataLoader's samples, without its order: what it would draw from, batched as it does."""
    from torch.utils.data import IterableDataset

    if isinstance(loader.dataset, IterableDataset):
        return _streamed(loader, wanted, label)
    rows = _sampled(loader)
    found = Fetched(
        len(loader.dataset) if rows is None else len(rows),
        fetching(loader.dataset, loader.collate_fn, rows),
        wanted,
        label,
    )
    found.classes = _classes(loader.dataset)
    if rows is not None:
        found.notes += (f"the loader's sampler draws {len(rows)} of {len(loader.dataset)} samples: those are the data",)
    return found


def _sampled(loader: Any) -> list[int] | None:
    """The rows that a loader's sampler draws, each once, in order; None: all of them."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

    batches = loader.batch_sampler
    sampler = loader.sampler if type(batches) in (BatchSampler, type(None)) else batches
    if type(batches) is BatchSampler and batches.sampler is not loader.sampler:
        sampler = batches.sampler
    if isinstance(sampler, (RandomSampler, SequentialSampler)):
        return None
    if isinstance(sampler, WeightedRandomSampler):
        drawn = np.flatnonzero(np.asarray(sampler.weights) > 0).tolist()
    else:
        with seeds(0):
            found = [np.atleast_1d(np.asarray(one)).tolist() for one in sampler]
        drawn = sorted({int(i) for one in found for i in one})
    return None if len(drawn) == len(loader.dataset) else drawn


def _hugging(data: Any, wanted: Wanted, label: str | None) -> Samples:
    """A Hugging Face dataset: the columns that the model takes, as NumPy arrays, or what its own
    transform gives."""
    own = data.format.get("type") == "custom"
    if own:
        found = Fetched(len(data), lambda rows: data[rows], wanted, label)
        key = label
    else:
        names = list(data.column_names)
        key = label if label is not None else next((k for k in TARGETS if k in names), None)
        inputs = [c for c in names if c in wanted.names] or [c for c in names if c != key]
        texts = [c for c in inputs if str(getattr(data.features[c], "dtype", "")) in ("string", "large_string")]
        if texts:
            raise TaskError(
                "the dataset holds texts, and the model takes numbers",
                got=", ".join(texts),
                fix="dataset.map(lambda rows: tokenizer(rows['text'], padding='max_length', truncation=True), "
                "batched=True), or featherweight optimize --task text-classification",
            )
        plain = data.with_format("numpy", columns=[*inputs, *([key] if key in names else [])])
        found = Fetched(len(data), lambda rows: plain[rows], wanted, key)
    known = getattr((data.features or {}).get(key or "", None), "names", None)
    if known:
        found.classes = tuple(map(str, known))
    return found


def _streamed(data: Any, wanted: Wanted, label: str | None) -> Samples:
    """What can only be read from its beginning to its end: batches (of a DataLoader) or samples,
    read once and kept in files."""
    from torch.utils.data import default_collate

    if is_a(data, "torch.utils.data", "DataLoader") and data.num_workers:  # each worker would give all of it
        from torch.utils.data import DataLoader

        data = DataLoader(data.dataset, batch_size=data.batch_size, collate_fn=data.collate_fn)
    whole_batches = is_a(data, "torch.utils.data", "DataLoader")
    spool, names = Spool(), list[np.ndarray]()  # names have no fixed width, and stay in memory
    for item in data:
        batch = item if whole_batches else default_collate([item])
        inputs, targets = decoded(batch, wanted, label, -1)
        if targets is not None and targets.dtype.kind in "OUS":
            names.append(targets)
            targets = None
        spool.add({**{f"i{k}": v for k, v in inputs.items()}, **({} if targets is None else {"t": targets})})
    arrays = spool.arrays() | ({"t": np.concatenate(names)} if names else {})
    if not arrays:
        raise TaskError("the data are empty", got=f"{type(data).__name__} that gave nothing", allowed=ALLOWED)
    return Arrays({k[1:]: v for k, v in arrays.items() if k[0] == "i"}, arrays.get("t"))


def _classes(dataset: Any) -> tuple[str, ...] | None:
    """The names of the classes, where a dataset says them (`classes`, as torchvision's do)."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None
