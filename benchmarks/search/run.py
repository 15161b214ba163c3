"""Searches compared: one command a table.

    python -m venv peers && peers/bin/pip install -e . -r benchmarks/search/requirements.txt
    peers/bin/python benchmarks/search/run.py nas201 [--seeds 20] [--evaluations 200]
        [--methods ours,peers] [--jobs 1] [--tag VERSION]
    peers/bin/python benchmarks/search/run.py report

Groups: nas201, hpolib, hpobench, sklearn, nas201-multi, tables (the first three), or one search
such as hpolib/protein_structure. Methods: names, `ours`, `peers`; NAME~blind is one of ours without
static features. Each (search, method, version, seed) is a line in results/*.jsonl, written as soon
as it is there and skipped when it is; `report` reads them all. Each method runs in a process of its
own, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import play  # noqa: E402 (siblings lie beside this file)
import problems  # noqa: E402

import featherweight  # noqa: E402


def rows(folder: Path, pattern: str = "*") -> Iterator[dict[str, Any]]:
    """Every result; a line that was cut off by a kill is left out."""
    for path in sorted(folder.glob(f"{pattern}.jsonl")):
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                print(f"{path.name}: a line is cut off, left out: {line[:60]}", file=sys.stderr)


def append(folder: Path, row: dict[str, Any]) -> None:
    """One write, so that lines of processes side by side do not mix."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row['problem'].replace('/', '-')}.jsonl"
    cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with open(path, "ab", buffering=0) as f:
        f.write((("\n" if cut else "") + json.dumps(row) + "\n").encode())


def run_method(names: list[str], method: str, args: argparse.Namespace) -> None:
    """All seeds of one method on all searches, those that are missing."""
    seeds, evaluations = args.seeds, args.evaluations
    if not args.uncapped and method in play.CAPS:
        seeds, evaluations = min(seeds, play.CAPS[method][0]), min(evaluations, play.CAPS[method][1])
    for name in names:
        wanted = play.version(method, args.tag)
        done = {
            r["seed"]
            for r in rows(args.out, name.replace("/", "-"))
            if (r["method"], r["version"]) == (method, wanted)
            and (r["asked"] >= evaluations or r["evaluations"] < r["asked"])
        }
        missing = [s for s in range(seeds) if s not in done]
        problem = problems.load(name) if missing else None
        for seed in missing:
            start = time.perf_counter()
            row = play.play(problem, method, seed, evaluations, args.tag)  # type: ignore[arg-type]
            append(args.out, row)
            print(
                f"{name} {method} seed {seed}: {row['steps'][-1][1]:.4g} in {time.perf_counter() - start:.1f} s",
                flush=True,
            )


def chosen(methods: str, names: list[str]) -> list[str]:
    several = any(len(problems.load(n).objectives) > 1 for n in names)
    out: list[str] = []
    for m in methods.split(","):
        more = play.ours() if m == "ours" else play.theirs(2 if several else 1) if m == "peers" else (m,)
        out += [n for n in more if n not in out]
    if not os.environ.get("OPTUNAHUB") and "optuna-auto" in out:
        out.remove("optuna-auto")
        print(
            "optuna-auto is left out: it needs --hub FOLDER, a clone of https://github.com/optuna/optunahub-registry",
            file=sys.stderr,
        )
    return out


def run_all(names: list[str], args: argparse.Namespace) -> int:
    """A process a method, `--jobs` at a time; the number that failed."""
    waiting = chosen(args.methods, names)
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed = 0
    argv = [
        "--seeds",
        str(args.seeds),
        "--evaluations",
        str(args.evaluations),
        "--tag",
        args.tag,
        "--out",
        str(args.out),
    ]
    argv += ["--uncapped"] if args.uncapped else []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < args.jobs:
            method = waiting.pop(0)
            running[method] = subprocess.Popen([sys.executable, __file__, args.what, "--one", method, *argv], env=env)
        time.sleep(0.05)
        for method, process in list(running.items()):
            if process.poll() is not None:
                del running[method]
                failed += process.returncode != 0
                if process.returncode:
                    print(f"{method} failed with status {process.returncode}", file=sys.stderr)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="a group, a search, or `report`")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--methods", default="ours,peers")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--tag", default=featherweight.__version__, help="the version that results of ours are kept under"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--hub", type=Path, help="a clone of optunahub-registry, for Optuna's AutoSampler")
    parser.add_argument("--uncapped", action="store_true", help="slow peers get all seeds and evaluations too")
    parser.add_argument(
        "--control", default="adaptive", help="of the report: the method that the others are tested against"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hub:
        os.environ["OPTUNAHUB"] = str(args.hub.resolve())
    if args.what == "report":
        import report

        print(report.write(list(rows(args.out)), args.out, args.tag, args.control))
        return
    groups = {
        **problems.GROUPS,
        "tables": tuple(n for g in ("nas201", "hpolib", "hpobench") for n in problems.GROUPS[g]),
    }
    names = list(groups.get(args.what, (args.what,)))
    if args.one:
        run_method(names, args.one, args)
    elif run_all(names, args):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
