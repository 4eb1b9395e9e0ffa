"""Several tasks on one backbone: the steps of auxiliary tasks stand between those of the scored one.

Each step of the optimiser is of one task, so that memory, packing and attacks are as with one task. Only the scored
task's steps have logits for the guard and the penalties (SMART, R-Drop, Bregman); auxiliary ones have their weighted
loss alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from pipeline.competitions.family import Family
from pipeline.data.split import Beside
from pipeline.models.network import Network, network_on
from pipeline.settings.auxiliary import Auxiliary
from pipeline.settings.decoder import Decoder
from pipeline.settings.encoder import Encoder
from pipeline.training.objectives.objective import Batch, Loss
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.seeds import seed_of

ANNEALED = 0.8
"""What the power of a task's size has lost by the last epoch (Stickland & Murray 2019)."""
ROUNDING = 1.0e-9


class MultiTask(nn.Module):
    """The network of the scored task, and one on the same backbone for each auxiliary task."""

    def __init__(self, scored: Network, auxiliary: Mapping[str, Network]) -> None:
        super().__init__()
        self.scored, self.auxiliary = scored, nn.ModuleList(auxiliary.values())
        self.places = {name: place for place, name in enumerate(auxiliary)}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the scored task's logits."""
        logits: Tensor = self.scored(input_ids, attention_mask)
        return logits

    def of(self, task: str) -> nn.Module:
        """Returns the network of an auxiliary task."""
        return self.auxiliary[self.places[task]]


def with_auxiliary(network: nn.Module, settings: Encoder | Decoder, tasks: Mapping[str, Beside]) -> nn.Module:
    """Returns `network` with fresh poolings and heads for further tasks; as it is where there are none."""
    if not tasks:
        return network
    assert isinstance(network, Network)
    asked = {name: each.competition for name, each in tasks.items()}
    heads = {name: network_on(network.backbone, settings, each.kind, len(each.outputs)) for name, each in asked.items()}
    return MultiTask(network, heads)


def scored_part(network: nn.Module, voters: list[dict[str, Tensor]]) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Returns the network of the scored task, and what of the voters' weights is its."""
    if not isinstance(network, MultiTask):
        return network, voters
    own = "scored."
    kept = [{name.removeprefix(own): each for name, each in v.items() if name.startswith(own)} for v in voters]
    return network.scored, kept


@dataclass(frozen=True)
class Interleaved:
    """The scored task's rows, and those of auxiliary tasks, whose numbers come after them; see loop.Objective."""

    scored: Supervised
    tasks: Mapping[str, Supervised]
    """The auxiliary ones."""
    settings: Auxiliary
    epochs: int
    """Of the scored task, in the whole run."""

    @property
    def family(self) -> Family:
        """The scored task's."""
        return self.scored.family

    @property
    def labels(self) -> np.ndarray:
        """The scored task's."""
        return self.scored.labels

    def planned(self, order: int, epochs: int) -> Interleaved:
        """Returns the same rows in another order, for a run of so many epochs."""
        tasks = {
            name: replace(each, order=seed_of(order, place))
            for place, (name, each) in enumerate(self.tasks.items(), start=1)
        }
        return replace(self, scored=replace(self.scored, order=order), tasks=tasks, epochs=epochs)

    def parts(self, network: nn.Module) -> list[tuple[nn.Module, Supervised]]:
        """Returns the network of each task, and what it learns."""
        assert isinstance(network, MultiTask)
        return [(network.scored, self.scored), *((network.of(name), each) for name, each in self.tasks.items())]

    @cached_property
    def between(self) -> list[list[str]]:
        """The tasks of the auxiliary steps before each step of the scored task, for the whole run.

        The last step of a run is one of the scored task.
        """
        total = self.scored.steps * self.epochs
        epoch, begun = np.arange(total) // self.scored.steps, np.arange(total) < self.settings.until * total
        power = np.full(total, 0.0 if self.settings.sampling == "round_robin" else 1.0)
        if self.settings.sampling == "annealed":
            power -= ANNEALED * epoch / max(1, self.epochs - 1)
        places: list[list[tuple[float, str]]] = [[] for _ in range(total)]
        for name, each in self.tasks.items():
            rates = (len(each.labels) / len(self.labels)) ** power * begun
            due = np.floor(np.cumsum(rates) + ROUNDING).astype(np.int64)
            for place, count in zip(places, np.diff(due, prepend=0).tolist(), strict=True):
                place += [((number + 0.5) / count, name) for number in range(count)]
        return [[name for _, name in sorted(place)] for place in places]

    def steps_of(self, task: str | None) -> list[int]:
        """Returns the numbers of a task's steps in the run; None asks for the scored one's."""
        owners = [name for names in self.between for name in (*names, None)]
        return [step for step, name in enumerate(owners) if name == task]

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Returns every scored row once, and what of the auxiliary tasks stands between; those begin again and again,
        each time in another order."""
        begin = number * self.scored.steps
        done = {name: sum(names.count(name) for names in self.between[:begin]) for name in self.tasks}
        rounds: dict[tuple[str, int], list[list[np.ndarray]]] = {}
        steps: list[list[np.ndarray]] = []
        for place, batches in enumerate(self.scored.epoch(number), start=begin):
            for name in self.between[place]:
                turn, step = divmod(done[name], self.tasks[name].steps)
                if (name, turn) not in rounds:
                    rounds[name, turn] = self.tasks[name].epoch(turn)
                steps.append([rows + self._first[name] for rows in rounds[name, turn][step]])
                done[name] += 1
            steps.append(batches)
        return steps

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """Returns the tensors of rows of one task."""
        name = next((name for name, first in reversed(self._first.items()) if rows[0] >= first), None)
        if name is None:
            return self.scored.batch(rows, step)
        return self.tasks[name].batch(rows - self._first[name], step)._replace(task=name)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Returns the loss of the batch's task, minimised by its weight."""
        if batch.task is None:
            return self.scored.loss(network, batch)
        assert isinstance(network, MultiTask)
        minimised, plain, _ = self.tasks[batch.task].loss(network.of(batch.task), batch)
        return Loss(self.settings.tasks[batch.task].weight * minimised, plain)

    @cached_property
    def _first(self) -> dict[str, int]:
        """The number of each auxiliary task's first row."""
        ends = np.cumsum([len(self.labels), *(len(each.labels) for each in self.tasks.values())])
        return dict(zip(self.tasks, ends.tolist(), strict=False))
