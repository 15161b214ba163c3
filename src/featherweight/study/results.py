"""What a study leaves in its folder: front.json, run.yaml, report.html,
best/ and the artifacts of the front."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from ..deploy.predict import SPEC
from ..engine.messages import PackageJob
from ..errors import StoreError
from ..plain import read_json
from ..records import Entry
from ..report import html
from ..report.analysis import Analysis, analyse
from ..report.card import model_card
from ..store.artifacts import sha256_file, write_atomic
from ..store.manifest import MANIFEST, sound
from ..store.places import clear, remove
from .command import command, goes_on
from .folder import BEST, NEW, OLD
from .jobs import Jobs
from .reading import chosen_manifest
from .state import ARTIFACTS, StudyState

# names that only a study gives to what is in artifacts/: of those that are whole, and of others
_ARTIFACT, _UNFINISHED = re.compile("[0-9a-f]{16}"), re.compile(r"\.incoming-[a-z0-9_]{8}")


def package_best(jobs: Jobs) -> None:
    """Write the best (or nearest) candidate's architecture spec and weights where `write_results`
    takes them from."""
    entry = jobs.log.state.best() or jobs.log.state.nearest()
    if entry is None:
        return
    restore(jobs)
    shutil.rmtree(jobs.folder / NEW, ignore_errors=True)  # of a run that was killed
    to = str(jobs.folder / NEW / "model")
    job = PackageJob(recipe=entry.recipe, to=to, artifact=entry.artifact, target=entry.target)
    outcome = jobs.run_one(job, 600.0, closing=True)
    if outcome.kind != "finished":
        jobs.log.warn(f"the best model's weights could not be written: {outcome.reason}", entry.trial)


def restore(jobs: Jobs) -> None:
    """Make the artifacts of the front and the best candidate anew that are not in the study's
    folder, or not as they were: an earlier run dropped them, as they were not on its front, or
    something damaged them."""
    state = jobs.log.state
    best = state.best() or state.nearest()
    for entry in [*state.front(), *([best] if best else [])]:
        jobs.restored(entry, 600.0)


def analysed(state: StudyState) -> Analysis:
    """What the report says of the trials: that which takes time to write it."""
    return analyse(state.front_json(), [t.to_json() for t in state.trials], state.begun.to_json())


def write_results(out: Path, state: StudyState, found: Analysis | None = None) -> dict[str, str]:
    """Write front.json, run.yaml, best/ and report.html; drop artifacts that are not on the front.
    Returns {file of best/: its sha256}, none if there is no best. found: of `analysed`."""
    front, info, config = state.front_json(), {**state.info, "phases_s": state.phases}, state.begun.to_json()
    write_atomic(out / "front.json", json.dumps(front, indent=1))
    write_atomic(out / "run.yaml", yaml.safe_dump(config, sort_keys=False))
    entry = state.best() or state.nearest()
    packaged = _write_best(out, entry, state, front, info, config) if entry is not None else {}
    html.write(
        out / "report.html",
        front,
        [t.to_json() for t in state.trials],
        info,
        {**config, "command": command(state.begun, out), "manifest": chosen_manifest(state)},
        found,
    )
    kept = [*state.baselines.values(), *state.front(), *filter(None, (entry, state.nearest()))]
    _drop_others(out / ARTIFACTS, {Path(e.artifact).name for e in kept})
    return packaged


def _drop_others(artifacts: Path, kept: set[str]) -> None:
    """Remove the artifacts that are not kept: what their manifests list, for somebody may have put
    something beside it, and what killed runs left of some."""
    for folder in artifacts.glob("*"):
        if _UNFINISHED.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.name not in kept and _ARTIFACT.fullmatch(folder.name):
            remove(folder, _listed(folder))


def _listed(folder: Path) -> list[str]:
    """The files that the manifest of a folder lists, and itself; none if it cannot be read."""
    try:
        return [*map(str, read_json(folder / MANIFEST)["files"]), MANIFEST]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _write_best(
    out: Path, entry: Entry, state: StudyState, front: dict[str, Any], info: dict[str, Any], config: dict[str, Any]
) -> dict[str, str]:
    """best/: the artifact's files, model/ (spec and safetensors), recipe.json, MODEL_CARD.md,
    manifest.json over all of them, which are returned."""
    if not Path(entry.artifact).is_dir():
        fix = f"{goes_on(state.config, out)}: it is made anew"
        raise StoreError("the best candidate's file is not in the study's folder", got=entry.artifact, fix=fix)
    manifest = sound(Path(entry.artifact), entry.sha256)
    final, new, old = out / BEST, out / NEW, out / OLD
    new.mkdir(exist_ok=True)
    for name in manifest["files"]:
        shutil.copy2(Path(entry.artifact) / name, new / name)
    if (new / SPEC).is_file():
        spec = json.loads((new / SPEC).read_text(encoding="utf-8"))
        spec["measured"] = {"latency_ms": entry.latency_ms.median, "cpu": (info.get("machine") or {}).get("cpu")}
        (new / SPEC).write_text(json.dumps(spec, indent=1, ensure_ascii=False), encoding="utf-8")
    (new / "recipe.json").write_text(json.dumps(entry.recipe, indent=1))
    (new / "MODEL_CARD.md").write_text(
        model_card(front, entry.to_json(), info, config), encoding="utf-8", errors="backslashreplace"
    )
    manifest["artifact_files"] = manifest.pop("files")
    files = sorted(p for p in new.rglob("*") if p.is_file() and p.name != MANIFEST)
    manifest["files"] = {str(p.relative_to(new)): sha256_file(p) for p in files}
    (new / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _clear_best(old, final, state)  # of a run that was killed
    if final.exists():
        os.rename(final, old)
    os.rename(new, final)
    _clear_best(old, final, state)
    return dict(manifest["files"])


def _clear_best(old: Path, final: Path, state: StudyState) -> None:
    """Remove a best/ that was; what no study has put into it stays, as best.kept1."""
    clear(old, [*_listed(old), *state.packaged, MANIFEST], aside=final)
