"""The folder of a study, before anything is written to it: what else is there is its user's."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, StoreError
from ..plain import check_unicode, kind
from ..store.places import check_links

LOGS = ("study.db", "study.db-wal", "study.db-shm", "study.db-journal", "study.db.new")
RESULTS = ("front.json", "run.yaml", "report.html")
# best/ while it is written, and as it was before: hidden, so that nobody keeps anything there
BEST, NEW, OLD = "best", ".best.new", ".best.old"
FOLDERS = ("artifacts", BEST, NEW, OLD, "valid-outputs", "test-outputs", "logs", "checkpoints")


def check_folder(folder: Path, study: bool) -> None:
    """InputError if no study was begun in this folder, and one would write over what is there;
    StoreError if what is called as a part of a study is none, or a link out of the folder."""
    check_unicode("the path of the study's folder", folder.absolute())
    if not folder.is_dir():
        return
    mine = [name for name in (*RESULTS, *FOLDERS) if _filled(folder / name)]
    if mine and not study:
        raise InputError(
            "this folder holds no study, but what a study would write over",
            got=f"{folder} has {', '.join(mine)}",
            allowed="a new folder, or one with other files",
            fix="name another one with --out, or move them away",
        )
    for name in (".lock", *LOGS, *RESULTS, *FOLDERS):
        odd = kind(folder / name)
        if odd not in (None, "a folder") if name in FOLDERS else odd is not None:
            raise StoreError("this is no part of a study", got=f"{folder / name} is {odd}", fix="move it away")
        if name in FOLDERS and odd is None and (folder / name).exists():
            raise StoreError("this is no part of a study", got=f"{folder / name} is a file", fix="move it away")
    check_links(folder, (*LOGS, *RESULTS, *FOLDERS))


def _filled(path: Path) -> bool:
    """Is there something that can be lost? An empty folder is nothing."""
    return any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()
