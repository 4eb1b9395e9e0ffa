"""Every head begins at the constant predictor, whatever an answer is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import encoder
from outcomes import COMPETITIONS
from torch import Tensor, nn

from pipeline.competitions.family import Bernoulli, Categorical, Family, Gaussian, Ordinal
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Task
from pipeline.models.heads import AnswerHead, ChoiceHead, EquivariantHead, PlainHead, Pooling, SymmetricHead
from pipeline.models.network import Network, encoder_network, start_at
from pipeline.training.prior import Prior

HIDDEN, ROWS = 16, 4000
THREE = load_competition("lmsys").kind
TWO = Task(("prompt", "a", "b"), "prompt", ("a", "b"), mirror=(1, 0))
quick = settings(max_examples=10, deadline=None)


def labels_of(family: Family, draw: np.random.Generator) -> np.ndarray:
    """Unbalanced labels: of three classes and more the last never occurs, of labels some are not known."""
    if isinstance(family, Categorical):
        count = family.outputs
        return draw.integers(0, max(2, count - 1), ROWS) * (draw.random(ROWS) < draw.random())
    if isinstance(family, Ordinal):
        return family.low + draw.integers(0, family.outputs, (ROWS, 1)).astype(np.float64)
    if isinstance(family, Bernoulli):
        labels = (draw.random((ROWS, family.outputs)) < draw.random(family.outputs) ** 3).astype(np.float64)
        labels[:, 0] = 0.0  # never
        labels[draw.random(labels.shape) < 0.1] = np.nan
        return labels
    return np.array([3.0, -1.0]) + np.array([2.0, 0.5]) * draw.normal(size=(ROWS, 2))


FAMILIES: dict[str, Family] = {
    "classes": Categorical(4),
    "two classes": Categorical(2),
    "labels": Bernoulli(3),
    "ordered": Ordinal(4, 1),
    "numbers": Gaussian((3.0, -1.0), (2.0, 0.5)),
}
HEADS: dict[str, tuple[Any, int]] = {
    "plain": (lambda outputs: PlainHead(HIDDEN, outputs, views=1), 1),
    "plain, two views": (lambda outputs: PlainHead(HIDDEN, outputs, views=2), 2),
    "symmetric": (lambda outputs: SymmetricHead(HIDDEN, outputs, views=2), 2),
}


class Given(nn.Module):
    """A backbone whose states are its input."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=input_ids)


def first_loss(head: nn.Module, prior: Prior, seed: int, views: int) -> tuple[float, float]:
    """The loss of a fresh network on rows without sense, once it has been told where to begin, and what of that its
    logits' spread may take: half their variance, as the loss bends no more than that."""
    states = torch.randn(ROWS * views, 1, HIDDEN, generator=torch.Generator().manual_seed(seed))
    network, mask = Network(Given(), Pooling("cls", HIDDEN), head, views), torch.ones(ROWS * views, 1)
    before = torch.get_rng_state()
    start_at(network, prior.eta, (states, mask))
    assert torch.equal(torch.get_rng_state(), before)
    logits = network(states, mask).detach()
    assert logits.std(dim=0).max() > 1e-3  # it can still be taught
    losses, _ = prior.family.loss_and_slope(logits.double().numpy(), prior.family.statistic(prior.labels))
    return float(losses.mean()), float(logits.var(dim=0).sum()) / 2 + 0.01  # and chance: labels and logits are drawn


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("form", HEADS)
@given(st.integers(0, 10**6))
@quick
def test_the_first_loss_is_that_of_the_prior(kind: str, form: str, seed: int) -> None:
    family, (made, views) = FAMILIES[kind], HEADS[form]
    torch.manual_seed(seed)
    prior = Prior(family, labels_of(family, np.random.default_rng(seed)))
    loss, allowed = first_loss(made(family.outputs), prior, seed, views)
    assert prior.loss - 0.01 < loss < prior.loss + allowed


@pytest.mark.parametrize("task", [THREE, TWO])
@given(st.integers(0, 10**6), st.booleans())
@quick
def test_an_equivariant_head_begins_with_equal_chances_of_both_sides(task: Task, seed: int, ties: bool) -> None:
    assert task.mirror
    torch.manual_seed(seed)
    outputs = len(task.mirror)
    labels = np.random.default_rng(seed).integers(0, 3 if ties and outputs == 3 else 2, ROWS)
    both = np.concatenate([labels, np.array(task.mirror)[labels]])
    even, own = Prior(Categorical(outputs), both), Prior(Categorical(outputs), labels)
    head = EquivariantHead(HIDDEN, task, outputs)
    loss, allowed = first_loss(head, own, seed, 2)
    expected = float(even.losses(labels).mean())
    assert expected - 0.01 < loss < expected + allowed


@given(st.integers(0, 10**6), st.integers(2, 6))
@quick
def test_a_choice_begins_with_equal_chances(seed: int, options: int) -> None:
    torch.manual_seed(seed)
    labels = np.random.default_rng(seed).integers(0, options, ROWS)
    prior = Prior(Categorical(options, exchangeable=True), labels)
    assert prior.loss == pytest.approx(np.log(options))
    loss, allowed = first_loss(ChoiceHead(HIDDEN), prior, seed, options)
    assert prior.loss - 0.01 < loss < prior.loss + allowed


ANSWERED = {
    name: (COMPETITIONS[name], family)
    for name, family in {
        "classes": Categorical(3),
        "labels": Bernoulli(2),
        "ordered": Ordinal(4, 1),
        "choices": Categorical(3, exchangeable=True),
    }.items()
}


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.parametrize("cap", [None, 30.0])
@given(st.integers(0, 10**6))
@quick
def test_answer_tokens_begin_at_the_prior_whatever_the_network_would_have_said(
    name: str, cap: float | None, seed: int
) -> None:
    competition, family = ANSWERED[name]
    torch.manual_seed(seed)
    labels = np.random.default_rng(seed).integers(0, 3, ROWS)
    prior = Prior(family, labels if name == "choices" else labels_of(family, np.random.default_rng(seed)))
    head = AnswerHead(HIDDEN, competition, cap)
    questions = list(head.questions)
    answers = questions[0].weight.shape[0]
    # A network that is sure of one answer, and tells rows apart a little.
    head.take(torch.randn(len(questions), answers, HIDDEN) / 20, torch.randn(len(questions), answers) * 2)
    frozen = [each.weight.clone() for each in questions]
    views = 3 if name == "choices" else len(questions)
    loss, allowed = first_loss(head, prior, seed, views)
    assert prior.loss - 0.02 < loss < prior.loss + allowed + 0.01
    assert all(torch.equal(each.weight, before) for each, before in zip(questions, frozen, strict=True))
    assert not any(each.weight.requires_grad for each in questions) and all(e.bias.requires_grad for e in questions)


CUSTOM = """
from torch import nn
class Mine(nn.Module):
    def __init__(self, backbone, outputs):
        super().__init__()
        self.out = nn.Linear(backbone.config.hidden_size, outputs)
        self.backbone = backbone
    def forward(self, input_ids, attention_mask):
        return self.out(self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])
def build(backbone, task, classes):
    return Mine(backbone, {})
"""


@pytest.mark.parametrize(("outputs", "told"), [("classes", True), ("classes + 1", False)])
def test_a_network_of_ones_own_begins_there_if_its_last_layer_gives_the_logits(outputs: str, told: bool) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    backbone = BertModel(BertConfig(vocab_size=9, **sizes))
    network: Any = encoder_network(backbone, encoder(network="external/x.py"), THREE, 3, CUSTOM.format(outputs))
    before = {name: each.clone() for name, each in network.state_dict().items()}
    ids = torch.arange(1, 9).view(4, 2)
    inputs = ids, torch.ones_like(ids)
    start_at(network, np.array([0.1, 0.2, 0.3]), inputs)
    changed = {name for name, each in network.state_dict().items() if not torch.equal(each, before[name])}
    assert changed == ({"out.bias"} if told else set())
    if told:
        assert torch.allclose(network(*inputs).mean(dim=0), torch.tensor([0.1, 0.2, 0.3]), atol=1e-6)


@given(st.integers(0, 10**6), st.integers(2, 5))
@quick
def test_options_and_the_sides_of_a_symmetric_pair_may_stand_in_any_order(seed: int, options: int) -> None:
    torch.manual_seed(seed)
    pooled, order = torch.randn(7, options, HIDDEN), torch.randperm(options)
    choice, symmetric = ChoiceHead(HIDDEN), SymmetricHead(HIDDEN, 3, views=2)
    assert choice(pooled).shape == (7, options)
    assert torch.allclose(choice(pooled)[:, order], choice(pooled[:, order]), atol=1e-5)
    assert torch.equal(symmetric(pooled[:, :2]), symmetric(pooled[:, :2].flip(1)))


def test_where_nothing_may_change_places_every_head_is_equivariant() -> None:
    backbone: Any = SimpleNamespace(config=SimpleNamespace(hidden_size=HIDDEN))
    for task in (Task(("text",), "text"), Task(("a", "b"), None, ("a", "b"))):
        network = encoder_network(backbone, encoder(head="equivariant"), task, 2, None)
        assert isinstance(network.head, PlainHead)


def test_gradients_reach_all_views() -> None:
    heads = SymmetricHead(HIDDEN, 2, views=2), EquivariantHead(HIDDEN, TWO, 2), ChoiceHead(HIDDEN)
    for head, views in zip(heads, (2, 2, 4), strict=True):
        pooled: Tensor = torch.randn(4, views, HIDDEN, requires_grad=True)
        head(pooled)[:, 0].sum().backward()
        assert pooled.grad is not None and (pooled.grad.abs().sum(dim=(0, 2)) > 0).all()
