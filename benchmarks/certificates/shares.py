"""How the level is best shared among a study's looks at test, and how often a study ends without
any certificate.

    python benchmarks/certificates/shares.py --studies 300
    python benchmarks/certificates/shares.py --studies 200 --valid 359 --test 717 --floor 0.02

Studies as in simulate.py (40 candidates, from 1.2 to 3 times as fast, half of the samples shared),
looked at in the order of `study.certify`: its chain, then what else is likely. "none": studies
without a certificate; worth: the mean of the log of the speed that is certified. Shares: "now" is
what `proof.levels` gives; "0.5" gives each look a half of what is left.
"""

from __future__ import annotations

import argparse

import numpy as np
import simulate

from featherweight.proof.chance import chance
from featherweight.proof.levels import ALPHA, next_level
from featherweight.study.certify import LEAST, chain
from featherweight.study.clock import LOOKS

GAIN = np.log(np.linspace(1.2, 3, simulate.CANDIDATES))
DROPS = {"spread": (-0.005, 0.04), "gentle": (-0.005, 0.012), "better": (-0.008, 0.02)}


def halving(share):
    """The level of the next look if each has this share of what is left, and passes it on."""

    def level(passed):
        at, rest = 0.0, 1.0
        for before in (True, *passed):
            at, rest = ALPHA * share * rest + (at if before else 0.0), rest * (1 - share)
        return at

    return level


def order(chances):
    """The looks, as `study.certify.to_certify` orders them."""
    able = [i for i in range(simulate.CANDIDATES) if chances[i] >= LEAST]
    first = [able[k] for k in chain([(chances[i], GAIN[i]) for i in able])]
    rest, best = [], -1
    for i in sorted((i for i in able if i not in first), key=lambda i: -chances[i]):
        if i > best:
            rest.append(i)
            best = i
    return first + rest[: max(0, LOOKS - len(first))]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--valid", type=int, default=360)
    parser.add_argument("--test", type=int, default=717)
    parser.add_argument("--floor", type=float, default=simulate.LIMIT)
    args = parser.parse_args()
    simulate.LIMIT = args.floor
    rules = {"now": next_level} | {f"{s:g}": halving(s) for s in (0.4, 0.5, 0.6, 0.7, 0.8)}
    for kind, (low, high) in DROPS.items():
        rng, found = np.random.default_rng(0), {name: [] for name in rules}
        for _ in range(args.studies):
            drops, base = np.sort(rng.uniform(low, high, len(GAIN))), rng.uniform(0.002, 0.01, len(GAIN))
            lost, won = base + np.maximum(drops, 0), base - np.minimum(drops, 0)
            seen = zip(*simulate.draws(rng, args.valid, lost, won, 0.5), strict=True)
            test = list(zip(*simulate.draws(rng, args.test, lost, won, 0.5), strict=True))
            looks = order([chance(simulate.counted(b, c, args.valid), args.test, args.floor) for b, c in seen])
            for name, level in rules.items():
                passed = []
                for i in looks:
                    passed.append(simulate.p_of(*map(int, test[i]), args.test) <= level(passed))
                found[name].append(max((GAIN[i] for i, ok in zip(looks, passed, strict=True) if ok), default=0.0))
        said = (
            f"{name}: worth {np.mean(v):.3f}, none {100 * np.mean(np.array(v) == 0):.0f} %" for name, v in found.items()
        )
        print(f"{kind:8} {'; '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
