"""Everything that a training run is, beside its settings: what a checkpoint holds, and what metrics and page tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.training.checkpoint import Checkpoint
from pipeline.training.guard import Seen
from pipeline.training.techniques.averaging import Average, put
from pipeline.training.techniques.deni import Children
from pipeline.training.techniques.proximal import Teacher
from pipeline.training.techniques.soup import Moment, Moments
from pipeline.training.techniques.stable_lora import Shrinkage

POINTS = 200
"""A learning curve keeps that many points at most."""


@dataclass
class Record:
    """What happened, for metrics and page."""

    losses: list[float] = field(default_factory=list)
    """Plain loss of each step's rows, before the step."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, plain loss on the inner slice)"""
    best: int | None = None
    """Steps done when the kept weights were reached; None for the last."""
    skipped: int = 0
    """Steps that an fp16 overflow cost."""
    seen: list[Seen] = field(default_factory=list)
    """What the guard looks at; empty where it does not watch."""
    attacks: list[float] = field(default_factory=list)
    """||v|| / ||w|| of each attack on the weights."""
    soup: list[int] = field(default_factory=list)
    """Steps done at the moments whose mean was kept; empty where none was asked for."""
    stopped: str | None = None
    """Why the guard ended the run, or found at its end that it had learned nothing."""

    def curve(self, own: Sequence[int] | None = None) -> list[tuple[int, float]]:
        """Returns (steps done, mean loss since the point before), at most 200 of them, of the steps `own` or of all."""
        steps = range(len(self.losses)) if own is None else [step for step in own if step < len(self.losses)]
        width = max(1, math.ceil(len(steps) / POINTS))
        windows = [steps[start : start + width] for start in range(0, len(steps), width)]
        return [(each[-1] + 1, round(float(np.mean([self.losses[step] for step in each])), 5)) for each in windows]


class State:
    """Weights, optimiser, scaler, average, best weights and record of one run."""

    def __init__(
        self,
        weights: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: Average | None,
        teacher: Teacher | None = None,
        deni: Children | None = None,
        shrinkage: Shrinkage | None = None,
        moments: Moments | None = None,
    ) -> None:
        self.weights, self.optimizer, self.scaler, self.average = weights, optimizer, scaler, average
        self.teacher, self.deni, self.shrinkage, self.moments = teacher, deni, shrinkage, moments
        self.best: dict[str, Tensor] = {}
        self.record = Record()
        self.finished = False

    def judge(self, step: int, evaluate: Callable[[], float], network: nn.Module) -> None:
        """Scores the (averaged) weights on the inner slice, and keeps them where they are the best so far."""
        network.eval()
        with self.average.in_place() if self.average else nullcontext():
            score = evaluate()
            if score < min((each for _, each in self.record.scores), default=math.inf):
                self.best = {name: each.detach().clone() for name, each in self.weights.items()}
                self.record.best = step
            if self.moments:
                self.moments.take(score, step, self.weights)
        self.record.scores.append((step, score))
        network.train()

    def finish(self, evaluate: Callable[[], float] | None, network: nn.Module) -> None:
        """Puts the weights in place that the run was for."""
        if not self.finished and self.moments and self.moments.kept and evaluate:
            network.eval()
            self.record.soup = self.moments.cook(self.weights, evaluate)
        elif not self.finished and (self.best or self.average):
            put(self.weights, self.best or self.average.mean)  # type: ignore[union-attr]
        self.finished = True

    def save(self, checkpoint: Checkpoint, part: str, done: int) -> None:
        """Writes the state; a run that came to its end, or was stopped, keeps its weights alone."""
        tensors = {f"weight {name}": each for name, each in self.weights.items()}
        for number, voter in enumerate(self.deni.voters if self.deni else ()):
            tensors |= {f"voter{number} {name}": each for name, each in voter.items()}
        if not (self.finished or self.record.stopped):
            names = {id(each): name for name, each in self.weights.items()}
            for parameter, values in self.optimizer.state.items():
                # The moments in 8 bits count their steps in an int, and share a table of what a byte means.
                values = {key: torch.as_tensor(each) for key, each in values.items()}
                tensors |= {
                    f"{key} {names[id(parameter)]}": each.clone() if key.startswith("qmap") else each
                    for key, each in values.items()
                }
            tensors |= {f"best {name}": each for name, each in self.best.items()}
            tensors |= {f"mean {name}": each for name, each in (self.average.mean if self.average else {}).items()}
            tensors |= {f"children {name}": each for name, each in (self.deni.mean if self.deni else {}).items()}
            tensors |= {f"teacher {name}": each for name, each in (self.teacher.mean if self.teacher else {}).items()}
            going = self.shrinkage.going if self.shrinkage else {}
            tensors |= {f"shrinking {name}": each for name, each in going.items()}
            for number, moment in enumerate(self.moments.kept if self.moments else ()):
                tensors |= {f"moment{number} {name}": each for name, each in moment.weights.items()}
        facts = {
            "done": done,
            "finished": self.finished,
            "scaler": self.scaler.state_dict(),
            "record": vars(self.record),
            "moments": [moment[:2] for moment in self.moments.kept] if self.moments else [],
        }
        checkpoint.save(part, tensors, facts)

    def restore(self, checkpoint: Checkpoint, part: str) -> int:
        """Steps done by the run that the checkpoint is of; 0 without one."""
        found = checkpoint.load(part)
        if found is None:
            return 0
        tensors, facts = found
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, each in tensors.items():
            kind, name = key.split(" ", 1)
            kinds.setdefault(kind, {})[name] = each
        self.record = Record(**facts["record"])
        self.record.seen = [Seen(*each) for each in self.record.seen]
        self.finished = facts["finished"]
        if "weight" in kinds:  # another attempt has taken the place of a run without
            put(self.weights, kinds.pop("weight"))
        device = {name: each.device for name, each in self.weights.items()}
        self.best = {name: each.to(device[name]) for name, each in kinds.pop("best", {}).items()}
        if self.average and "mean" in kinds:
            put(self.average.mean, kinds.pop("mean"))
        if self.teacher and "teacher" in kinds:
            put(self.teacher.mean, kinds.pop("teacher"))
        if self.moments and "moment0" in kinds:
            for number, (score, step) in enumerate(facts["moments"]):
                kept = {name: each.to(device[name]) for name, each in kinds.pop(f"moment{number}").items()}
                self.moments.kept.append(Moment(score, step, kept))
        if self.shrinkage and "shrinking" in kinds:
            put(self.shrinkage.going, kinds.pop("shrinking"))
        if self.deni:
            self.deni.mean = {name: each.to(device[name]) for name, each in kinds.pop("children", {}).items()}
            for kind in sorted((each for each in kinds if each.startswith("voter")), key=lambda each: int(each[5:])):
                self.deni.voters.append({name: each.to(device[name]) for name, each in kinds.pop(kind).items()})
        for kind, values in kinds.items():
            for name, each in values.items():
                # The fused AdamW keeps its step counts beside the weights, too.
                count = kind == "step" and not isinstance(self.optimizer, torch.optim.AdamW)
                self.optimizer.state[self.weights[name]][kind] = int(each) if count else each.to(device[name])
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        return int(facts["done"])
