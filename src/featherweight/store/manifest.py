"""What an artifact's folder holds: its files, and a manifest.json that says what they are. Whoever
reads an artifact asks here first, so that nobody measures, judges or hands out a file that is not
the one that was made.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import InputError, StoreError
from ..plain import read_json
from .artifacts import sha256_file

MANIFEST = "manifest.json"
# folders whose files were hashed by this process, with what would show that one has changed since
_hashed: dict[Path, tuple[str | None, list[tuple[int, ...]]]] = {}


def combined_sha256(files: dict[str, str]) -> str:
    """The file's own sha256 if there is one file, else that of the `sha256sum` listing of all,
    in order of name."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())).encode()).hexdigest()


def sound(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """The manifest of an artifact all files of which are as it says. sha256: what the study's log
    says of the artifact; None: there is no log to ask. InputError if this is no artifact's folder,
    StoreError if it is not as it was made."""
    manifest = _manifest(folder)
    files: dict[str, Any] = manifest["files"]
    made = manifest.get("artifact_files", files)  # best/ has more
    if sha256 is not None and not (manifest.get("sha256") == sha256 == combined_sha256(made)):
        raise StoreError(
            "an artifact is not the one that was measured",
            got=f"{folder}: its manifest says sha256 {manifest.get('sha256')!s:.12}..",
            allowed=f"{sha256:.12}.., as the study's log says",
            fix="`featherweight resume` makes it anew",
        )
    unknown = [p.name for p in folder.glob("model.*") if p.is_file() and p.name not in {*files, *made}]
    if unknown:  # what a runtime would load is what was hashed
        raise StoreError(
            "a file of this artifact is not in its manifest",
            got=f"{folder}: {', '.join(unknown)}",
            fix="export it again; in a study's folder `featherweight resume` makes it anew",
        )
    stamp = [_stamp(folder, name) for name in sorted({*files, *made})]
    if _hashed.get(folder) == (sha256, stamp):
        return manifest
    for name, digest in {**made, **files}.items():
        if sha256_file(folder / name) != digest:
            raise StoreError(
                "a file of this artifact is not what its manifest says",
                got=f"{folder / name}: another sha256",
                fix="export it again; in a study's folder `featherweight resume` makes it anew",
            )
    _hashed[folder] = sha256, stamp
    return manifest


def _stamp(folder: Path, name: str) -> tuple[int, ...]:
    """What changes with a file. StoreError if it is not there, or not in the folder."""
    path = folder / name
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise StoreError("a file of this artifact is not there", got=str(path), fix="export it again")
    s = path.stat()
    return s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            "this is no artifact's folder: it has no manifest.json",
            got=str(folder),
            allowed="OUT/best, a folder of OUT/artifacts, or one that was exported",
        )
    try:
        data = read_json(path)
    except (OSError, ValueError) as e:
        raise StoreError("this manifest cannot be read", got=f"{path}: {e}"[:500]) from e
    kinds = {"target": str, "inputs": dict, "files": dict}
    odd = [
        k for k, kind in kinds.items() if not isinstance(data, dict) or not isinstance(data.get(k), kind) or not data[k]
    ]
    if odd:
        raise StoreError(
            "this manifest is not complete",
            got=f"{path} has no {', '.join(odd)} that can be used",
            allowed="a target, inputs and files by name",
        )
    if not isinstance(data.get("artifact_files", {}), dict) or not all(
        isinstance(v, str) for v in data["files"].values()
    ):
        raise StoreError(
            "this manifest is not complete", got=f"{path}: its files have no sha256", allowed="name: sha256"
        )
    return dict(data)
