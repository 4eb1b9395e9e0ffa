"""What a student has still to learn of its teachers' answers (Hinton et al. 2015, arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, normalize

from pipeline.competitions.family import Categorical, Family, Gaussian
from pipeline.models.network import Network
from pipeline.settings.teachers import Teachers


class Lesson(NamedTuple):
    """What the teachers say of a batch."""

    answers: Tensor
    """(rows, outputs) probabilities at the temperature; of numbers standardised ones."""
    states: Tensor | None
    """(rows, views, width) mean of the teachers' pooled states, each of length 1."""


@contextmanager
def pooled(network: nn.Module, wanted: bool) -> Iterator[list[Tensor]]:
    """Collects the pooled states (rows * views, width) of forward passes inside, with their gradients, if `wanted`."""
    if not wanted:
        yield []
        return
    network = getattr(network, "scored", network)  # beside auxiliary tasks
    assert isinstance(network, Network)
    found: list[Tensor] = []
    hook = network.pooling.register_forward_hook(lambda _, __, states: found.append(states))
    try:
        yield found
    finally:
        hook.remove()


def distance(family: Family, logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(teacher || student) at temperature T, (rows,) in nats; 0 where both say the same.

    Of several labels, and of the steps of an ordered score, it is the mean of their KL; of numbers half the squared
    difference, and no temperature. logits, answers (rows, outputs).
    """
    if isinstance(family, Gaussian):
        return 0.5 * ((logits - answers) ** 2).mean(dim=1)
    if isinstance(family, Categorical):
        apart = kl_div((logits / temperature).log_softmax(dim=1), answers, reduction="none")
        return temperature**2 * apart.sum(dim=1)
    surprise = binary_cross_entropy_with_logits(logits / temperature, answers, reduction="none")
    entropy = torch.special.entr(answers) + torch.special.entr(1 - answers)
    return temperature**2 * (surprise - entropy).mean(dim=1)


def taught(family: Family, logits: Tensor, states: list[Tensor], lesson: Lesson, settings: Teachers) -> Tensor:
    """Returns the weighted loss of what the teachers say, (rows,).

    states: the student's pooled ones (rows * views, width), where they are compared, else none.
    """
    loss = settings.weight * distance(family, logits, lesson.answers, settings.temperature)
    if lesson.states is None:
        return loss
    own = normalize(states[-1].float(), dim=1).view_as(lesson.states)
    return loss + settings.cosine * (1 - (own * lesson.states).sum(dim=2)).mean(dim=1)
