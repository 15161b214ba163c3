"""Where images and their labels are: a folder with one subfolder a class, or a table of paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import TaskError
from ._folders import class_folders
from ._table import LABEL_COLUMNS, SUFFIXES, class_numbers, labels_of, names_of, pick, read_table, shown

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "filepath")


def labelled_files(
    place: Path, suffixes: Sequence[str], path_column: str | None, label_column: str | None
) -> tuple[list[Path], np.ndarray, list[str], tuple[str, ...]]:
    """Images, their class numbers [n], the class names, and what is to be said of them. TaskError
    for a folder or table that has none, or files that are not there."""
    if place.suffix.lower() not in SUFFIXES or place.is_dir():
        if (given := [name for name in (path_column, label_column) if name]) and place.is_dir():
            raise TaskError(
                "a folder has no columns", got=", ".join(given), fix="give a table of paths and labels, or no columns"
            )
        return class_folders(place, suffixes, "images")
    table = read_table(place)
    path_name = pick("path", path_column, PATH_COLUMNS, table, place)
    label_name = pick("label", label_column, LABEL_COLUMNS, table, place)
    if path_name == label_name:
        raise TaskError("path and label are the same column", got=path_name, allowed=shown(table.names))
    targets, classes = class_numbers(labels_of(place, table, label_name))
    if len(classes) < 2:
        raise TaskError(
            f"{place.name} has fewer than 2 classes", got=f"{label_name}: {classes[0]}", allowed="2 labels or more"
        )
    # an absolute path stays as it is
    files = [place.parent / name for name in names_of(place, table, path_name, "path")]
    if gone := [str(p) for p in files if not p.is_file()]:
        raise TaskError(
            "files that the table names are not there",
            got="; ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else ""),
            allowed=f"paths from {place.parent}, or from the root",
        )
    return files, targets, classes, ()
