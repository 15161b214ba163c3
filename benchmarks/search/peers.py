"""The peers: Optuna's samplers, SMAC3, and the three plain searches that every paper has: random,
regularized evolution, local search.

Every peer gets the best form of a space that it can take: numbers among options are an ordered
scale (whole numbers 0 to n - 1), names are categories, conditional holes are asked for (Optuna) or
declared (SMAC) only where they are alive.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asker import Asker

from featherweight.seeding import derive, generator
from featherweight.space import Choice, Domain, Filling, Float, Int, Space
from featherweight.space.space import key


def scale(domain: Domain) -> list[Any] | None:
    """The options of a domain in order, if they are numbers; None if they are names or a range."""
    options = domain.options(None) if isinstance(domain, Choice) else None
    return (
        sorted(options)
        if options and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
        else None
    )


class Plain(Asker):
    """Abstract: a search written as a generator that yields a filling and is sent its value
    (the first objective)."""

    def __init__(self, space: Space, seed: int, evaluations: int) -> None:
        self.space, self.rng = space, generator(seed, type(self).__name__)
        self.steps, self.value = self.search(), None

    def search(self) -> Iterator[Filling]:
        raise NotImplementedError

    def ask(self) -> Filling | None:
        return next(self.steps, None) if self.value is None else self.steps.send(self.value)  # type: ignore[attr-defined]

    def tell(self, values: tuple[float, ...], cost_s: float, propose_s: float) -> None:
        self.value = values[0]  # type: ignore[assignment]


class PlainRandom(Plain):
    """Independent draws; repeats are run again."""

    def search(self) -> Any:
        while True:
            yield self.space.sample(self.rng)


class Evolution(Plain):
    """Regularized evolution (Real et al. 2019, arXiv:1802.01548, Algorithm 1) with a population of
    10 and samples of 3 (the setting of NAS-Bench-201, arXiv:2001.00326, section 5): the best of a
    sample is changed in one hole, the oldest dies; repeats are run again."""

    population, sample = 10, 3

    def search(self) -> Any:
        alive: deque[tuple[float, Filling]] = deque()
        while len(alive) < self.population:
            filling = self.space.sample(self.rng)
            alive.append(((yield filling), filling))
        while True:
            chosen = self.rng.choice(len(alive), self.sample, replace=False)
            parent = min((alive[int(i)] for i in chosen), key=lambda member: member[0])[1]
            child = self.changed(parent)
            alive.append(((yield child), child))
            alive.popleft()

    def changed(self, parent: Filling) -> Filling:
        path = list(parent)[int(self.rng.integers(len(parent)))]
        domain = self.space[path].domain
        value = parent[path]
        while value == parent[path] and domain.options(2) != [value]:
            value = domain.sample(self.rng)
        return self.space.complete({**parent, path: value}, self.rng)


class LocalSearch(Plain):
    """Local search (White et al. 2021, arXiv:2005.02960, "query until lower"): neighbours differ in
    one hole and come in random order; the first that is better is the next centre; where none is, a
    random start. Known fillings are not run again."""

    def search(self) -> Any:
        known: dict[str, float] = {}
        while True:
            centre = self.space.sample(self.rng)
            if key(centre) in known:
                continue
            best = known[key(centre)] = yield centre
            better = True
            while better:
                better = False
                around = list(self.neighbours(centre))
                for i in self.rng.permutation(len(around)):
                    name = key(around[i])
                    if name not in known:
                        known[name] = yield around[i]
                        if known[name] < best:
                            centre, best, better = around[i], known[name], True
                            break

    def neighbours(self, centre: Filling) -> Iterator[Filling]:
        for path, value in centre.items():
            domain = self.space[path].domain
            others = domain.near(value) if isinstance(domain, (Float, Int)) else domain.options(None) or []
            for other in others:
                if other != value:
                    yield self.space.complete({**centre, path: other}, self.rng)


class Optuna(Asker):
    """A sampler of Optuna, asked and told trial by trial."""

    def __init__(self, space: Space, sampler: Any, objectives: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self.study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)

    def ask(self) -> Filling:
        self.trial = trial = self.study.ask()

        def choose(path: str, domain: Domain) -> Any:
            if isinstance(domain, Float):
                return trial.suggest_float(path, domain.low, domain.high, step=domain.step, log=domain.log)
            if isinstance(domain, Int):
                return trial.suggest_int(
                    path, domain.low, domain.high, step=1 if domain.log else domain.step, log=domain.log
                )
            ordered = scale(domain)
            if ordered is not None:
                return ordered[trial.suggest_int(path, 0, len(ordered) - 1)]
            return json.loads(trial.suggest_categorical(path, [json.dumps(v) for v in domain.options(None) or []]))

        return self.space.walk(choose)

    def tell(self, values: tuple[float, ...], cost_s: float, propose_s: float) -> None:
        self.study.tell(self.trial, list(values))


def sampler(name: str, seed: int) -> Any:
    """Optuna's sampler of that name with its defaults, but `multivariate`,
    which is another sampler in effect."""
    import warnings

    from optuna import samplers

    warnings.filterwarnings("ignore", module="optuna")  # that some of its samplers are experimental
    if name == "auto":
        return _auto_sampler()(seed=seed)
    made: dict[str, Callable[[], Any]] = {
        "tpe": lambda: samplers.TPESampler(seed=seed),
        "tpe-multivariate": lambda: samplers.TPESampler(seed=seed, multivariate=True, group=True),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
        "gp": lambda: samplers.GPSampler(seed=seed, deterministic_objective=True),
        "random": lambda: samplers.RandomSampler(seed=seed),
    }
    return made[name]()


def _auto_sampler() -> Any:
    """AutoSampler from a clone of optunahub-registry, whose folder stands in
    OPTUNAHUB (see `--hub`)."""
    folder = Path(os.environ.get("OPTUNAHUB", "")) / "package" / "samplers" / "auto_sampler"
    if not (folder / "__init__.py").exists():
        raise SystemExit(
            "AutoSampler is not on PyPI: git clone https://github.com/optuna/optunahub-registry, then --hub FOLDER"
        )
    spec = importlib.util.spec_from_file_location(
        "auto_sampler", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} cannot be imported")
    import sys

    module = sys.modules["auto_sampler"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AutoSampler


class Smac(Asker):
    """SMAC3's random-forest search (HyperparameterOptimizationFacade; Lindauer et al. 2022,
    arXiv:2109.09831). `start`: configurations of the initial design; None for its default, 10 a
    hyperparameter and at most a quarter of the evaluations."""

    def __init__(self, space: Space, seed: int, evaluations: int, start: int | None) -> None:
        import warnings

        from smac import HyperparameterOptimizationFacade, Scenario

        self.space = space
        self.folder = tempfile.TemporaryDirectory()  # SMAC writes its own log
        declared, self.decode = _config_space(space, seed)
        scenario = Scenario(
            declared, deterministic=True, n_trials=evaluations, seed=seed, output_directory=Path(self.folder.name)
        )
        facade = HyperparameterOptimizationFacade
        design = facade.get_initial_design(scenario, **({} if start is None else {"n_configs": start}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.smac = facade(
                scenario, lambda config, seed=0: 0.0, initial_design=design, overwrite=True, logging_level=False
            )

    def ask(self) -> Filling | None:
        self.info = next((i for i in [self.smac.ask()] if i is not None), None)
        return (
            None
            if self.info is None
            else self.space.walk(lambda path, domain: self.decode[path](self.info.config[path]))
        )

    def tell(self, values: tuple[float, ...], cost_s: float, propose_s: float) -> None:
        from smac.runhistory.dataclasses import TrialValue

        self.smac.tell(self.info, TrialValue(cost=values[0], time=cost_s))


def _config_space(space: Space, seed: int) -> tuple[Any, dict[str, Callable[[Any], Any]]]:
    """A space as ConfigSpace has it, and how a value of each hole is read back."""
    import ConfigSpace as cs

    declared = cs.ConfigurationSpace(seed=derive(seed, "configspace") % 2**31)
    decode: dict[str, Callable[[Any], Any]] = {}
    for path, domain in ((h.path, h.domain) for h in space):
        ordered = scale(domain)
        if isinstance(domain, Float):
            declared.add(cs.UniformFloatHyperparameter(path, domain.low, domain.high, log=domain.log))
            decode[path] = lambda v, d=domain: min(max(float(v), d.low), d.high)  # type: ignore[misc]
        elif isinstance(domain, Int):
            declared.add(cs.UniformIntegerHyperparameter(path, domain.low, domain.high, log=domain.log))
            decode[path] = int
        elif ordered is not None:
            declared.add(
                cs.UniformIntegerHyperparameter(path, 0, len(ordered) - 1) if len(ordered) > 1 else cs.Constant(path, 0)
            )
            decode[path] = lambda v, o=ordered: o[int(v)]  # type: ignore[misc]
        else:
            declared.add(cs.CategoricalHyperparameter(path, [json.dumps(v) for v in domain.options(None) or []]))
            decode[path] = json.loads
    for hole in space:
        conditions = [cs.EqualsCondition(declared[hole.path], declared[p], json.dumps(v)) for p, v in hole.when]
        if conditions:
            declared.add(conditions[0] if len(conditions) == 1 else cs.AndConjunction(*conditions))
    return declared, decode


PLAIN: dict[str, type[Plain]] = {"plain-random": PlainRandom, "plain-evolution": Evolution, "plain-local": LocalSearch}
OPTUNA = ("tpe", "tpe-multivariate", "nsga2", "gp", "auto", "random")
SMAC: dict[str, int | None] = {"smac": None, "smac-10": 10}
