"""A distribution over the fillings of a space, and its stochastic natural gradient.

Notation: q probabilities of a hole's options (names), mu and sigma of a coordinate in [0, 1]
(numbers, ranks, places in an order), u utility of a trial in [-1, 1], G natural gradient, delta
step length, D the factor that adapts it, s and gamma its evidence, d degrees of freedom.

Sources: Akimoto et al. 2019, ASNG (arXiv:1905.08537), section 3 and Algorithm 2;
Wierstra et al. 2014, NES (arXiv:1106.4487), section 2.4; Kingma & Ba 2014, Adam (arXiv:1412.6980).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...space import Domain, Filling, Float, Int, Order, Space
from ...train.optimizers import Adam, State

NARROWEST, WIDEST = 0.02, 0.3  # of sigma
_ALPHA = 1.5  # ASNG, section 3.3: the signal-to-noise ratio that the step length holds
_SIGMA_RATE = 0.1


@dataclass(frozen=True)
class Beliefs:
    """The distribution: q by path, and of all coordinates mu, sigma [k]; then what the next update
    needs. Never changed in place."""

    q: dict[str, np.ndarray]
    mu: np.ndarray
    sigma: np.ndarray
    adam: State
    s: np.ndarray
    gamma: float = 0.0
    shrink: float = 1.0  # D


class Policy:
    """Independent distributions of a space's holes: categorical over names,
    Gaussian over what has an order."""

    def __init__(self, space: Space, lr: float, delta: float) -> None:
        self.space, self.delta, self.adam = space, delta, Adam(lr=lr, beta1=0.8, beta2=0.98)
        self.names: dict[str, list[Any]] = {}  # path -> options
        # path -> options in order, of a Choice of three numbers or more
        self.ranks: dict[str, list[Any]] = {}
        self.at: dict[str, int] = {}  # path -> its first coordinate
        self.width = 0
        for hole in space.holes:
            options = None if isinstance(hole.domain, (Float, Int, Order)) else hole.domain.options(None) or []
            if options is not None and not _ordered(options):
                self.names[hole.path] = options
                continue
            if options is not None:
                self.ranks[hole.path] = sorted(options)
            self.at[hole.path] = self.width
            self.width += len(hole.domain.names) if isinstance(hole.domain, Order) else 1
        self.free = sum(len(o) - 1 for o in self.names.values())  # d

    def start(self, guides: Sequence[Filling] = ()) -> Beliefs:
        """Uniform and centred; with `guides` (best first) half of the mass on them,
        by weights that fall with the rank."""
        q = {p: np.full(len(o), 1 / len(o)) for p, o in self.names.items()}
        mu, sigma = np.full(self.width, 0.5), np.full(self.width, WIDEST)
        w = np.log(len(guides) + 0.5) - np.log(np.arange(1, len(guides) + 1)) if guides else np.empty(0)
        cells, alive = self._encode(guides)
        for p in self.names:
            mass = (
                np.array([w[[_same(f.get(p), o) for f in guides]].sum() for o in self.names[p]])
                if guides
                else np.zeros(0)
            )
            if mass.sum() > 0:
                q[p] = 0.5 * q[p] + 0.5 * mass / mass.sum()
        total = (w[:, None] * alive).sum(0) if guides else np.zeros(self.width)
        known = total > 0
        if known.any():
            mu[known] = ((w[:, None] * np.where(alive, cells, 0.0)).sum(0) / np.where(known, total, 1.0))[known]
            sigma[known] = WIDEST / 2
        return Beliefs(q, mu, sigma, State(), np.zeros(self.free))

    def draw(self, beliefs: Beliefs, rng: np.random.Generator, loose: float = 0.0) -> Filling:
        """A filling; each hole with probability `loose` from its own domain instead."""

        def choose(path: str, domain: Domain) -> Any:
            if loose and rng.random() < loose:
                return domain.sample(rng)
            if path in self.names:
                return self.names[path][
                    min(int(np.searchsorted(np.cumsum(beliefs.q[path]), rng.random())), len(self.names[path]) - 1)
                ]
            at = self.at[path]
            n = len(domain.names) if isinstance(domain, Order) else 1
            x = np.clip(rng.normal(beliefs.mu[at : at + n], beliefs.sigma[at : at + n]), 0.0, 1.0)
            return self._decode(path, domain, x)

        return self.space.walk(choose)

    def update(self, beliefs: Beliefs, fillings: Sequence[Filling], u: np.ndarray) -> Beliefs:
        """One step up the expected utility: `u` [n] of the fillings [n]. Holes that are not alive
        in a filling learn nothing from it."""
        if not u.any():
            return beliefs
        return self._names_step(self._numbers_step(beliefs, fillings, u), fillings, u)

    def _numbers_step(self, b: Beliefs, fillings: Sequence[Filling], u: np.ndarray) -> Beliefs:
        """mu by Adam along the gradient in units of sigma (NES, eq. 10); log sigma along its
        natural gradient (NES, eq. 11)."""
        cells, alive = self._encode(fillings)
        z = np.where(alive, np.clip((cells - b.mu) / b.sigma, -3.0, 3.0), 0.0)  # [n, k]
        up = (u[:, None] * z).mean(0)
        mu, adam = self.adam.step(b.mu, -up, b.adam)
        wider = (u[:, None] * np.where(alive, z * z - 1, 0.0)).mean(0)
        sigma = np.clip(b.sigma * np.exp(_SIGMA_RATE * wider), NARROWEST, WIDEST)
        return replace(b, mu=np.clip(mu, 0.0, 1.0), sigma=sigma, adam=adam)

    def _names_step(self, b: Beliefs, fillings: Sequence[Filling], u: np.ndarray) -> Beliefs:
        """ASNG: G = mean of u (T(c) - q), a step of length delta / D in the Fisher norm, D adapted
        to the signal-to-noise ratio."""
        rise, roots = {}, list[Any]()
        for path, options in self.names.items():
            q = b.q[path]
            hot = np.array([[_same(f[path], o) for o in options] if path in f else q for f in fillings], dtype=float)
            g = rise[path] = (u[:, None] * (hot - q)).mean(0)
            # F(q)^(1/2) G, of the options but the last (ASNG, section 3.2:
            # the Fisher matrix of a categorical)
            root = np.sqrt(q[:-1])
            roots.append(g[:-1] / root + root * g[:-1].sum() / (q[-1] + np.sqrt(q[-1])))
        r = np.concatenate([*roots, np.empty(0)])
        norm = float(np.sqrt((r * r).sum()))
        if norm < 1e-12:
            return b
        delta = self.delta / b.shrink
        # eq. 8: a step of length delta
        moved = {p: _bounded(v + delta / norm * rise[p], len(self.names)) for p, v in b.q.items()}
        beta = min(delta / self.free**0.5, 1.0)
        s = (1 - beta) * b.s + (beta * (2 - beta)) ** 0.5 * r / norm  # eq. 10
        gamma = (1 - beta) ** 2 * b.gamma + beta * (2 - beta)  # eq. 11
        shrink = b.shrink * float(np.exp(beta * (gamma - (s * s).sum() / _ALPHA)))  # eq. 12
        return replace(b, q=moved, s=s, gamma=gamma, shrink=max(shrink, 1.0))

    def _encode(self, fillings: Sequence[Filling]) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates [n, k] (0 where not alive), and which are alive [n, k]."""
        cells, alive = np.zeros((len(fillings), self.width)), np.zeros((len(fillings), self.width), dtype=bool)
        for i, filling in enumerate(fillings):
            for path, at in self.at.items():
                if path not in filling:
                    continue
                domain: Any = self.space[path].domain
                if isinstance(domain, Order):
                    places = filling[path].split(">")
                    x = [places.index(n) / (len(places) - 1) for n in domain.names]
                else:
                    ranks = self.ranks.get(path)
                    x = [
                        domain.position(filling[path])
                        if ranks is None
                        else ranks.index(filling[path]) / (len(ranks) - 1)
                    ]
                cells[i, at : at + len(x)], alive[i, at : at + len(x)] = x, True
        return cells, alive

    def _decode(self, path: str, domain: Any, x: np.ndarray) -> Any:
        if isinstance(domain, Order):
            return ">".join(domain.names[i] for i in x.argsort(kind="stable"))
        if path in self.ranks:
            ranks = self.ranks[path]
            return ranks[round(float(x[0]) * (len(ranks) - 1))]
        value = domain.low + float(x[0]) * (domain.high - domain.low)
        if domain.log:
            value = domain.low * (domain.high / domain.low) ** float(x[0])
        return domain.check(min(max(value, domain.low), domain.high), path, snap=True)


def _ordered(options: list[Any]) -> bool:
    return (
        len(options) > 2
        and all(isinstance(o, (int, float)) and not isinstance(o, bool) for o in options)
        and len(set(options)) == len(options)
    )


def _same(a: Any, b: Any) -> bool:
    """1, 1.0 and True are different options."""
    return type(a) is type(b) and bool(a == b)


def _bounded(q: np.ndarray, holes: int) -> np.ndarray:
    """No option dies out: each keeps 1 / (D (C - 1)), D holes of C options (ASNG, section 3.4), or
    half of an even share if that is less."""
    c = len(q)
    if c == 1:
        return np.ones(1)
    low = min(1.0 / (holes * (c - 1)), 0.5 / c)
    q = np.maximum(q, low)
    bounded: np.ndarray = q - (q.sum() - 1) * (q - low) / max(float((q - low).sum()), 1e-300)
    return bounded
