"""What to do after a study: the next command to type."""

from __future__ import annotations

import shlex
from pathlib import Path

from .rows import Json, lacks_proof


def next_command(front: Json, out: str | Path) -> str:
    """The command that a user would most likely want now; where none helps, what to do. A budget is
    never made smaller."""
    folder = shlex.quote(str(out))
    best = front.get("best")
    if best is not None and not front.get("finished", True) and not (Path(out) / "best").is_dir():
        return _call_again(front["call"], []) if front.get("call") else f"featherweight resume {folder}"
    if front.get("running"):
        return f"featherweight front {folder}, when it has ended"
    verdict = ((best or {}).get("certificate") or {}).get("verdict")
    if best is None and str(front.get("ended") or "").startswith("no candidate that may run"):
        return "loosen the limits, and search again into another --out"
    if best is None and _unprovable(front):
        return "give the test split more samples, or loosen the floor: more trials cannot be proven either"
    lacks = verdict is None and front.get("uncertified") is not None
    if best is None or verdict == "refuted" or lacks:
        more = _more(front, lacks and best is not None)
        if more is None:
            return "loosen the limits, or give the recipe more to choose from, and search again into another --out"
        if front.get("call"):
            return _call_again(front["call"], more)
        return " ".join(["featherweight resume", folder, *more])
    return f"featherweight export {folder} --to {shlex.quote(str(Path(out).name or 'best') + '-best')}"


def _unprovable(front: Json) -> bool:
    """Is all that the nearest candidate lacks a proof, which test has too few samples for?"""
    outlook, broken = front.get("proof") or {}, (front.get("nearest") or {}).get("violations") or []
    most = outlook.get("provable")
    able = most is not None and (most >= 0 if "max_drop" in outlook else True)
    return bool(broken) and not able and "samples" in outlook and all(lacks_proof(v) for v in broken)


def _call_again(call: str, more: list[str]) -> str:
    """What goes on with a study of a task that no command can load. more: options of `resume`."""
    ends = [option.removeprefix("--").replace(" ", "=") for option in more]
    changed = f" but {', '.join(ends)}" if ends else ""
    return f"call fw.{call} again with the same arguments{changed}: it goes on where it was"


def _more(front: Json, ending: bool) -> list[str] | None:
    """The options with which a study goes on: none where budget is left, else what is used up
    doubled. None if it would not go on. ending: trials are not what it lacks."""
    budget, ended = front.get("budget") or {}, str(front.get("ended") or "")
    tried = sum(int((front.get("trials") or {}).get(k, 0)) for k in ("complete", "failed", "stopped"))
    trials, minutes = budget.get("trials"), budget.get("minutes")
    late = minutes is not None and float(budget.get("spent_s") or 0.0) >= 60 * float(minutes)
    full = trials is not None and tried >= int(trials) and not ending
    if not full and not late and not front.get("finished", True):
        return []
    out = [f"--trials {2 * max(tried, int(trials))}"] if full and trials is not None else []
    needed = max(2 * float(minutes), float(front.get("needed_minutes") or 0)) if minutes is not None else 0
    out += [f"--minutes {needed:g}"] if minutes is not None else []
    out += [f"--stall {2 * int(budget['stall'])}"] if "brought nothing" in ended and budget.get("stall") else []
    return out or ([] if ending else None)
