"""One search: a method on a problem with a seed, as one line of results."""

from __future__ import annotations

import importlib.metadata
import math
import time
from typing import Any

import peers
import problems
from asker import Asker, Ours

from featherweight import registry
from featherweight.seeding import derive
from featherweight.space.space import key

NEED_NETS = {"oneshot"}  # of ours: it ranks by a trained supernet, so a table cannot judge it
BLIND = "~blind"  # after the name of one of ours: without the static features
SEVERAL = {
    "optuna-tpe",
    "optuna-tpe-multivariate",
    "optuna-nsga2",
    "optuna-gp",
    "optuna-auto",
    "optuna-random",
    "plain-random",
}
# (seeds, evaluations) that a slow peer gets at most
CAPS = {"optuna-gp": (10, 100), "smac": (10, 100), "smac-10": (10, 100)}


def ours() -> tuple[str, ...]:
    return tuple(n for n in registry.names("strategies") if n not in NEED_NETS)


def theirs(objectives: int = 1) -> tuple[str, ...]:
    """Every peer; with several objectives those that know them."""
    every = (*(f"optuna-{s}" for s in peers.OPTUNA), *peers.SMAC, *peers.PLAIN)
    return every if objectives == 1 else tuple(n for n in every if n in SEVERAL)


def version(method: str, tag: str) -> str:
    """What a result is kept under: a peer's own release, the tag for ours."""
    if method.startswith("optuna-"):
        return f"optuna {importlib.metadata.version('optuna')}"
    if method in peers.SMAC:
        return f"smac {importlib.metadata.version('smac')}"
    return "1" if method in peers.PLAIN else tag


def asker(method: str, problem: problems.Problem, seed: int, evaluations: int) -> Asker:
    """The method by name, on a new space. SystemExit if there is none of this name."""
    kind = method.removesuffix(BLIND)
    space = problem.space(kind == method)
    if method in peers.PLAIN:
        return peers.PLAIN[method](space, seed, evaluations)
    if method in peers.SMAC:
        return peers.Smac(space, seed, evaluations, peers.SMAC[method])
    name = method.removeprefix("optuna-")
    if name != method and name in peers.OPTUNA:
        return peers.Optuna(space, peers.sampler(name, derive(seed, method) % 2**31), len(problem.objectives))
    if kind not in registry.names("strategies"):
        raise SystemExit(f"there is no method {method!r}: {', '.join((*registry.names('strategies'), *theirs()))}")
    return Ours(kind, space, seed)


def play(problem: problems.Problem, method: str, seed: int, evaluations: int, tag: str) -> dict[str, Any]:
    """The search, run. `steps`: [evaluation, score] where the score fell; `evaluations`: done,
    fewer if the space was exhausted;
    `duplicates`: evaluations of a filling that had been evaluated; `propose_s`: seconds proposing
    and telling; `cost_s`: of the trials."""
    search = asker(method, problem, seed, evaluations)
    seen: set[str] = set()
    outcomes: list[Any] = []
    proposing, slowest = 0.0, 0.0
    for _ in range(evaluations):
        start = time.perf_counter()
        filling = search.ask()
        asked = time.perf_counter() - start
        if filling is None:
            break
        seen.add(key(filling))
        outcome = problem.outcome(filling)
        outcomes.append(outcome)
        start = time.perf_counter()
        # the score counts evaluations, so to the method each costs the same
        search.tell(problem.values(outcome), 1.0, 0.0)
        took = asked + time.perf_counter() - start
        proposing, slowest = proposing + took, max(slowest, took)
    curve = problem.curve(outcomes)
    steps = [[i + 1, float(f"{v:.9g}")] for i, v in enumerate(curve) if i == 0 or v < curve[i - 1]]
    return {
        "problem": problem.name,
        "method": method,
        "version": version(method, tag),
        "seed": seed,
        "asked": evaluations,
        "evaluations": len(outcomes),
        "duplicates": len(outcomes) - len(seen),
        "propose_s": round(proposing, 4),
        "slowest_s": round(slowest, 4),
        "cost_s": round(math.fsum(o["cost_s"] for o in outcomes), 3),
        "steps": steps,
    }
