"""What makes a network learn less of what it should forget: attacks on weights and embeddings, and penalties."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pipeline.section import Limits, section


class StepTechnique:
    """What the loop applies in its steps; a head that learns alone first does without all of them."""


@section
class Awp(StepTechnique):
    """Adversarial weight perturbation (Wu, Xia & Wang 2020, arXiv 2004.05884): learn where the loss is worst nearby."""

    form: Literal["competition", "paper"] = "competition"
    """`paper`: each matrix moves by `step` of its norm; `competition`: and no weight of it by more than `box`."""
    step: Annotated[float, Limits(gt=0)] = 1.0e-2
    """Length of the perturbation of a matrix, as a share of its norm."""
    box: Annotated[float, Limits(ge=0)] = 1.0e-2
    """Each weight moves by at most that share of itself."""
    floor: Annotated[float, Limits(ge=0)] = 1.0e-3
    """A weight counts as at least so large: adapters begin at 0, where a share of them is nothing."""
    clean: bool = False
    """Add the gradients of the attacked weights to those of the weights themselves, instead of replacing them."""
    start: Annotated[float, Limits(ge=0, lt=1)] = 0.0
    """Share of the steps that are left alone first."""


@section
class Fgm(StepTechnique):
    """Adversarial training on word embeddings (Miyato et al. 2017, arXiv 1605.07725), along the gradient."""

    radius: Annotated[float, Limits(gt=0)] = 0.02
    """L2 norm of the perturbation as a share of that of what it moves: a row's embedded words, or the table's rows that
    a step touches. The paper's own is about that; an absolute one, 1.0 in most public code, is as large as all
    embeddings of a short text in one network and nothing in another."""
    on: Literal["output", "table"] = "output"
    """`output`: each row's own words, as in the paper; `table`: the shared table, as in most public code."""
    clean: bool = True
    """Add the two gradients, instead of keeping that of the attack alone."""
    start: Annotated[float, Limits(ge=0, lt=1)] = 0.0
    """Share of the steps that are left alone first."""


@section
class Smart(StepTechnique):
    """Smoothness: the answer stays when the embedded words move (Jiang et al. 2020, arXiv 1911.03437, SIAR)."""

    form: Literal["smart", "sift"] = "smart"
    """Where the values come from that are not given here: the paper, or DeBERTa's scale-invariant fine-tuning."""
    weight: Annotated[float, Limits(gt=0)] = 1.0
    noise: Annotated[float, Limits(ge=0)] = 1.0e-5
    """Standard deviation of the first perturbation."""
    step: Annotated[float, Limits(gt=0)] = 1.0e-3
    """Of the ascent, in the largest component."""
    radius: Annotated[float, Limits(gt=0)] | None = 1.0e-5
    """No component of a perturbation is larger; none where it is null."""
    ascents: Annotated[int, Limits(ge=1)] = 1
    space: Literal["words", "normalised"] = "words"
    """Perturb word embeddings, or (encoders) all embeddings once they are normalised, so that their size does not
    matter."""


SIFT = {"space": "normalised", "noise": 1.0e-2, "step": 1.0e-4, "radius": None, "weight": 5.0}
"""microsoft/DeBERTa, DeBERTa/sift/sift.py and experiments/glue/mnli.sh."""


def with_values_of_the_form(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of `smart` with those of its form where none are given."""
    return (SIFT if given.get("form") == "sift" else {}) | given


@section
class Proximal(StepTechnique):
    """Bregman proximal point steps with a momentum teacher (Jiang et al. 2020): answer as the weights did before."""

    weight: Annotated[float, Limits(gt=0)] = 1.0
    momentum: Annotated[float, Limits(ge=0, le=1)] = 0.999
    """Of the teacher: its weights become momentum * theirs + (1 - momentum) * the network's after each step."""
    early: Annotated[float, Limits(ge=0, le=1)] = 0.99
    """Momentum in the first tenth of the steps."""


@section
class RDrop(StepTechnique):
    """Two passes with different dropout shall answer alike (Liang et al. 2021, arXiv 2106.14448)."""

    weight: Annotated[float, Limits(gt=0)] = 0.5
    """Of half the symmetric divergence, per row: the paper's alpha."""


@section
class Mixout:
    """Weights fall back to their pretrained values at random, the mean kept (Lee et al. 2020, arXiv 1909.11299)."""

    rate: Annotated[float, Limits(gt=0, lt=1)] = 0.1
    """Share of the weights that fall back: 0.9 in the paper, in place of dropout; 0.1 beside it."""


@section
class Dsgd(StepTechnique):
    """Dynamic scaled gradient descent (Bui & Wang 2026, arXiv 2604.27987): what is right moves the network less."""

    strength: Annotated[float, Limits(ge=0, le=1)] = 0.5
    """What a right row's gradient loses at the first step."""
    until: Annotated[float, Limits(gt=0, le=1)] = 1.0
    """Share of the steps by which it has come back, along a line. The form is ours: the paper's was not at hand."""


@section
class StableLora(StepTechnique):
    """Adapters whose A shrinks in the first steps, until B has caught up (Wu et al. 2026, arXiv 2603.05204)."""

    shrink: Annotated[float, Limits(ge=0, lt=1)] = 5.0e-4
    """What A loses with each step: the value of the authors' example, which is for thousands of steps."""


@section
class Soup(StepTechnique):
    """The mean of several moments of the run, chosen greedily on the inner slice (Wortsman et al. 2022)."""

    moments: Annotated[int, Limits(ge=2)] = 5
    """So many at most are kept in memory and in checkpoints, each a copy of what learns: the best on the slice."""


@section
class Deni(StepTechnique):
    """Delayed ensemble with noisy interpolation (Pecher et al. 2024, arXiv 2406.12471): noisy children of the network
    train beside it for a while and are averaged into it; those of the last phase vote with it."""

    children: Annotated[int, Limits(ge=1)] = 9
    """Beside the network itself."""
    variance: Annotated[float, Limits(ge=0)] = 0.15
    """Of the noise, in units of each matrix's own; while interpolating, divided by the number of the step."""
    noise: Literal["auto", "head", "trained"] = "auto"
    """What gets it: the head, or all that learns; auto: the head of encoders, everything of adapters."""
    begin: Annotated[float, Limits(ge=0, lt=1)] = 0.3
    end: Annotated[float, Limits(gt=0, le=1)] = 0.6
    """Shares of the steps between which children are interpolated."""
    alone: Annotated[float, Limits(gt=0, lt=1)] = 0.1
    """Share of the steps that the network trains by itself before each interpolation."""
    together: Annotated[float, Limits(gt=0, lt=1)] = 0.1
    """Share of the steps for which children of an interpolation train."""
    ensemble: Annotated[float, Limits(gt=0, lt=1)] = 0.9
    """Share of the steps after which the last children train, to the end."""
    rate: Literal["schedule", "peak"] = "schedule"
    """Of the children: that of the schedule, or the peak throughout, as in the published code."""
    answer: Literal["vote", "main"] = "vote"
    """The mean of everyone's probabilities, at as many times the kernel's cost; or the network alone."""
