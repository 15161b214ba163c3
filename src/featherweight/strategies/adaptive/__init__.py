"""A portfolio of strategies on one shared history: the next trial goes to the one whose trials have
lately been worth most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import registry
from ...errors import InputError
from ...records import History
from ...space import Space
from ..base import Fresh, Proposal, Strategy
from .arms import Account, Ledger, ledger
from .chooser import screen

# so it climbs from the best trial of all arms
SETTINGS: dict[str, dict[str, Any]] = {"greedy": {"restart": 0.0, "patience": 1}}
SCREENED = ("greedy", "genetic")  # arms that have no model: one chooses among what they propose
LONG = 1000  # trials; in a longer history fewer candidates are asked for, because each costs more
PAIRS, ENOUGH_PAIRS = 30, 10  # screened trials by which the model is judged
# credit below which an arm is dropped; its trials before; what is left of its floor
DROP, ENOUGH, RETRY = 0.2, 10, 0.1


@dataclass(frozen=True)
class Adaptive(Strategy):
    """Strategies ("arms") share one history: each sees all trials, and the notes of its own. An arm
    is chosen for each proposal:

    1. A trial earns 1 / (1 + d), where d earlier trials are as good as it: 1 if it improves the
       front or the best (a rank-based reward, so scales do not matter; Fialho, Schoenauer and
       Sebag, "Toward comparison-based adaptive operator selection", 2010).
    2. An arm's credit is the mean over its trials, recent ones counting more, for their mean cost
       (to run and to propose, in powers of 2).
    3. The first of `arms` has the first `start` trials (bayesian spreads them), then each other arm
       has one. After that the first arm has the probability `lead`, each other one `floor`, and the
       rest is shared by credit^`greed`: 1 is probability matching (Thierens, "An adaptive pursuit
       strategy for allocating operator probabilities", 2005).
    4. An arm whose credit is under a fifth of the mean, after 10 of the last 200 trials, is
       dropped: a tenth of its floor (or lead) remains.
    5. Greedy and genetic propose `screen` candidates (fewer beyond 1,000 trials, two at least);
       a surrogate takes the most promising one. What it believed is noted; where that is not borne
       out (rank correlation with the outcomes below 0) the arm's first candidate is taken.

    arms: names of strategies, or strategies with settings of their own. Notes: {"arm": its name,
    "why": {"p": {arm: probability}, "credit": {arm: credit}, "dropped", "screened", "believed",
    "trust"} as far as there is something to say, "note": the arm's own note}.
    """

    expects = True  # through its arm

    arms: tuple[str | Strategy, ...] = ("bayesian", "greedy", "genetic", "tpe", "random")
    start: int = 8
    lead: float = 0.7
    floor: float = 0.03
    greed: float = 1.0
    screen: int = 8

    def __post_init__(self) -> None:
        names = [_name(a) for a in self.arms]
        if not names or len(set(names)) < len(names) or "adaptive" in names:
            raise InputError("adaptive needs arms, each once, and is none itself", got=", ".join(names) or "none")
        others = len(names) - 1
        if (
            not 0 < self.floor <= self.lead
            or not self.lead + others * self.floor <= 1
            or not self.greed >= 0
            or self.screen < 1
            or self.start < 0
        ):
            raise InputError(
                "adaptive cannot work with these settings",
                got=(
                    f"start={self.start}, lead={self.lead}, floor={self.floor}, greed={self.greed}, "
                    f"screen={self.screen}"
                ),
                allowed=(
                    f"0 < floor <= lead, lead + {others} * floor <= 1 (with these arms), greed >= 0, "
                    "screen >= 1, start >= 0"
                ),
            )
        for arm in self.arms:
            _strategy(arm)  # says so if there is none of this name

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        names = [_name(a) for a in self.arms]
        book, fresh = ledger(history, names), Fresh(space, history)
        chosen = self._choose(book.accounts(), n, rng)
        out: list[Proposal] = []
        for name, why in dict(chosen).items():
            out += self._asked(name, [a for a, _ in chosen].count(name), why, book, fresh, rng)
        for name in names:  # an arm that had nothing left: the others take its turn
            if len(out) < n:
                out += self._asked(
                    name, n - len(out), {"instead of": "an arm with nothing to propose"}, book, fresh, rng
                )
        return out

    def _choose(
        self, accounts: dict[str, Account], n: int, rng: np.random.Generator
    ) -> list[tuple[str, dict[str, Any]]]:
        """An arm for each of `n` proposals, and why."""
        begun = sum(a.tried for a in accounts.values())
        out: list[tuple[str, dict[str, Any]]] = [(next(iter(accounts)), {"start": True})] * min(
            n, max(0, self.start - begun)
        )
        out += [(name, {"first": True}) for name, a in accounts.items() if a.tried == 0 and name not in dict(out)][
            : n - len(out)
        ]
        p, dropped = self.probabilities(accounts)
        why: dict[str, Any] = {"p": _short(p), "credit": _short({name: a.credit for name, a in accounts.items()})}
        if dropped:
            why["dropped"] = dropped
        drawn = rng.choice(len(p), size=n - len(out), p=np.array(list(p.values())))
        return out + [(list(p)[int(i)], why) for i in drawn]

    def probabilities(self, accounts: dict[str, Account]) -> tuple[dict[str, float], list[str]]:
        """{arm: probability}, summing to 1, and the arms that are dropped."""
        best = max(a.credit for a in accounts.values())
        dropped = [n for n, a in accounts.items() if a.ended >= ENOUGH and a.credit < DROP]
        floors = {
            n: (self.floor if i else self.lead) * (RETRY if n in dropped else 1.0) for i, n in enumerate(accounts)
        }
        power = {n: 0.0 if n in dropped or best <= 0 else (a.credit / best) ** self.greed for n, a in accounts.items()}
        if sum(power.values()) <= 0:
            power = dict.fromkeys(accounts, 1.0)
        rest, total = 1.0 - sum(floors.values()), sum(power.values())
        p = {n: floors[n] + rest * power[n] / total for n in accounts}
        return {n: v / sum(p.values()) for n, v in p.items()}, dropped

    def _asked(
        self, name: str, n: int, why: dict[str, Any], book: Ledger, fresh: Fresh, rng: np.random.Generator
    ) -> list[Proposal]:
        """Up to `n` fresh proposals of an arm."""
        arm = _strategy(next(a for a in self.arms if _name(a) == name))
        model = screen(fresh.space, fresh.history) if name in SCREENED and self.screen > 1 and n > 0 else None
        want = n + len(fresh.taken)  # it does not know what the others have proposed in this call
        many = max(2, self.screen * LONG // max(LONG, len(fresh.history)))
        offered = arm.propose(fresh.space, book.views[name], want if model is None else max(want, many), rng)
        offered = [p for p in offered if fresh.unseen(p.filling)]
        reasons = [why] * len(offered)
        if model is not None and offered:
            trust = book.trust(PAIRS, ENOUGH_PAIRS)
            scores, means = model.judge([p.filling for p in offered])
            order = sorted(range(len(offered)), key=lambda i: -scores[i] if trust is None or trust >= 0 else i)
            more = {"screened": len(offered)} | ({} if trust is None else {"trust": round(trust, 3)})
            reasons = [{**why, **more, "believed": float(f"{means[i]:.4g}")} for i in order]
            offered = [offered[i] for i in order]
        return [
            fresh.take(p.filling, {"arm": name, "why": r, "note": p.note})
            for p, r in zip(offered[:n], reasons, strict=False)
        ]


def _name(arm: str | Strategy) -> str:
    return arm if isinstance(arm, str) else type(arm).__name__.lower()


def _strategy(arm: str | Strategy) -> Strategy:
    if isinstance(arm, Strategy):
        return arm
    found: Strategy = registry.find("strategies", arm)(**SETTINGS.get(arm, {}))
    return found


def _short(numbers: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in numbers.items()}
