"""Studies with known true drops: how often a certificate is false, and what is certified at all.

    python benchmarks/certificates/simulate.py --studies 2000

A study has 40 candidates, each faster than the one before and, as a rule, with a larger true drop.
A sample is lost (only the baseline is right) or won with the candidate's own probabilities; two
candidates share a part of their samples (`--shared`), because they come from one model. The
validation split picks: candidates are feasible by their chance (0.5), the front's entries are
looked at on the test split by each rule. A certificate is false if the true drop is above the
limit. Worth: the place (0 to 1, the fastest is 1) of the fastest certified candidate, 0 if none.

Rules: "looks" is five looks at most, best first, each with its own 97.5 % bound (what Featherweight
did before); "bonferroni" the same five at 1 % each; "ordered" the certificates of this version;
"first": with another share of the level for the first look; "chance": only candidates with at least
this chance are looked at.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np

from featherweight.measure.paired import p_value
from featherweight.proof import levels
from featherweight.proof.chance import chance
from featherweight.proof.tango import tango
from featherweight.records import Paired
from featherweight.study.certify import LEAST

LIMIT, CANDIDATES = 0.01, 40


def draws(rng, n, lost, won, shared):
    """Counts (lost, won) [K] of a split of n samples; `shared` of the samples are decided by the
    same draw for all candidates."""
    u = rng.random((n, 1))
    own = rng.random((n, len(lost)))
    x = np.where(rng.random((n, 1)) < shared, u, own)  # [n, K]
    return (x < lost).sum(0), (x > 1 - won).sum(0)


def counted(b, c, n):
    return Paired((b - c) / n, n, float(np.sqrt(max(0.0, (b + c) / n - ((b - c) / n) ** 2))), int(b), int(c))


@cache
def p_of(b, c, n):
    return p_value(counted(b, c, n), LIMIT)


@cache
def upper_of(b, c, n):
    return tango(b, c, n)[1]


def true_drops(kind, rng):
    """[K], of candidates from the slowest to the fastest."""
    if kind == "spread":
        return np.sort(rng.uniform(-0.005, 0.04, CANDIDATES))
    if kind == "at the limit":
        return np.full(CANDIDATES, LIMIT + 1e-9)
    if kind == "just beyond":
        return np.full(CANDIDATES, 0.013)
    if kind == "steep":
        return np.where(np.arange(CANDIDATES) < 20, 0.0, 0.03)
    raise ValueError(kind)


def one(rng, kind, n_valid, n_test, shared, rules):
    drops = true_drops(kind, rng)
    base = rng.uniform(0.004, 0.012, CANDIDATES)  # differs so often besides
    lost, won = base + np.maximum(drops, 0), base - np.minimum(drops, 0)
    vb, vc = draws(rng, n_valid, lost, won, shared)
    tb, tc = draws(rng, n_test, lost, won, shared)
    valid = [counted(b, c, n_valid) for b, c in zip(vb, vc, strict=True)]
    chances = np.array([chance(p, n_test, LIMIT) for p in valid])
    plain = [i for i in range(CANDIDATES) if valid[i].drop <= LIMIT]  # as was: the point estimate
    front, least = [], np.inf
    for i in reversed(range(CANDIDATES)):  # the fastest first; on the front if nothing faster is as good
        if valid[i].drop < least:
            front.append(i)
            least = valid[i].drop
    out = {}
    for name, rule in rules.items():
        out[name] = rule(front, plain, chances, valid, tb, tc, n_test)
    true = {name: any(drops[i] > LIMIT for i in found) for name, found in out.items()}
    worth = {name: max((i for i in found), default=-1) + 1 for name, found in out.items()}
    return true, {k: v / CANDIDATES for k, v in worth.items()}


def looks(level):
    def rule(front, plain, chances, valid, tb, tc, n):
        order, found, seen = [i for i in front if i in set(plain)], [], []
        while order and len(seen) < 5:
            i = 0
            if seen:
                arm = np.mean([u - d for u, d, _ in seen])
                beyond = max(0.0, np.mean([d - v for _, d, v in seen]))
                room = [k for k, j in enumerate(order) if valid[j].drop + beyond + arm <= LIMIT]
                i = room[0] if room else 0
            j = order.pop(i)
            b, c = int(tb[j]), int(tc[j])
            high = upper_of(b, c, n)
            seen.append((high, (b - c) / n, valid[j].drop))
            if (high <= LIMIT) if level is None else (p_of(b, c, n) <= level):
                found.append(j)
        return found

    return rule


def ordered(first, confidence, most=8):
    def rule(front, plain, chances, valid, tb, tc, n):
        able = sorted((i for i in front if chances[i] >= confidence), key=lambda i: -chances[i])
        while len(able) > most:  # as `study.certify.to_certify`
            gaps = [chances[a] - chances[b] for a, b in zip(able, able[1:], strict=False)]
            k = int(np.argmin(gaps))
            del able[k if able[k] < able[k + 1] else k + 1]
        passed, found = [], []
        own = levels.FIRST
        levels.FIRST = first
        try:
            for i in able:
                level = levels.next_level(passed)
                passed.append(p_of(int(tb[i]), int(tc[i]), n) <= level)
                found += [i] if passed[-1] else []
        finally:
            levels.FIRST = own
        return found

    return rule


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--shared", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rules = {"looks": looks(None), "bonferroni": looks(0.01)}
    rules |= {"ordered": ordered(levels.FIRST, LEAST)}
    rules |= {f"ordered, first {f:g}": ordered(f, LEAST) for f in (0.5, 1.0)}
    rules |= {f"ordered, chance {c}": ordered(levels.FIRST, c) for c in (0.5, 0.8)}
    rows = []
    for kind in ("at the limit", "just beyond", "spread", "steep"):
        for n_valid, n_test in ((360, 360), (360, 720), (2000, 2000)):
            rng = np.random.default_rng(args.seed)
            false, worth = {r: 0 for r in rules}, {r: [] for r in rules}
            for _ in range(args.studies):
                f, w = one(rng, kind, n_valid, n_test, args.shared, rules)
                for r in rules:
                    false[r] += f[r]
                    worth[r].append(w[r])
            for r in rules:
                rows.append(
                    {
                        "drops": kind,
                        "valid": n_valid,
                        "test": n_test,
                        "rule": r,
                        "false": false[r] / args.studies,
                        "worth": float(np.mean(worth[r])),
                    }
                )
                print(
                    f"{kind:14} {n_valid:5} {n_test:5}  {r:24} false {100 * false[r] / args.studies:5.1f} %  "
                    f"worth {np.mean(worth[r]):.3f}",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
