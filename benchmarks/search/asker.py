"""What the harness asks of every method, ours and theirs: fillings one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod

from featherweight import registry
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Filling, Space


class Asker(ABC):
    """Abstract: one search by one method. `ask` gives None when the method has no more to try."""

    @abstractmethod
    def ask(self) -> Filling | None: ...

    @abstractmethod
    def tell(self, values: tuple[float, ...], cost_s: float, propose_s: float) -> None:
        """The outcome of what was asked last: objectives, all to be minimised, and seconds that the
        trial and the proposal took."""


class Ours(Asker):
    """A strategy of the registry with its defaults, asked as a study does:
    one proposal at a time, none running."""

    def __init__(self, kind: str, space: Space, seed: int) -> None:
        self.strategy, self.space, self.seed = registry.find("strategies", kind)(), space, seed
        self.history = History()

    def ask(self) -> Filling | None:
        number = len(self.history)
        proposals = self.strategy.propose(self.space, self.history, 1, generator(self.seed, "propose", number))
        if not proposals:
            return None
        filling = proposals[0].filling
        self.history.add(Trial(number, filling, note=proposals[0].note, features=self.space.features(filling)))
        return filling

    def tell(self, values: tuple[float, ...], cost_s: float, propose_s: float) -> None:
        trial = self.history[len(self.history) - 1]
        trial.values, trial.cost_s, trial.propose_s, trial.state = values, cost_s, propose_s, "complete"
