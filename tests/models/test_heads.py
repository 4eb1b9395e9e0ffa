from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.models.backbones.loading import without_dropout
from pipeline.models.heads import EquivariantHead, PlainHead, Pooling
from pipeline.models.network import Network

HIDDEN = 16
PREFERENCE = load_competition("lmsys").kind
quick = settings(max_examples=30, deadline=None)


def states(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, length, HIDDEN, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 10**6), st.floats(0.1, 5.0))
@quick
def test_the_equivariant_head_turns_with_the_sides_exactly(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    head = EquivariantHead(HIDDEN, PREFERENCE, 3)
    pooled = scale * torch.randn(7, 2, HIDDEN)
    straight = head(pooled).softmax(dim=1)
    mirrored = head(pooled.flip(1)).softmax(dim=1)
    assert straight.shape == (7, 3)
    assert (straight - mirrored[:, list(PREFERENCE.mirror)]).abs().max() < 1e-6  # type: ignore[arg-type]
    difference = head(pooled)[:, 0] - head(pooled)[:, 1]
    assert torch.allclose(difference, -(head(pooled.flip(1))[:, 0] - head(pooled.flip(1))[:, 1]), atol=1e-6)


def test_equal_sides_have_equal_chances_and_unequal_ones_differ() -> None:
    torch.manual_seed(0)
    head = EquivariantHead(HIDDEN, PREFERENCE, 3)
    one = torch.randn(4, 1, HIDDEN)
    same = head(one.expand(4, 2, HIDDEN))
    assert torch.equal(same[:, 0], same[:, 1])
    assert not torch.allclose(head(torch.randn(4, 2, HIDDEN))[:, 0], head(torch.randn(4, 2, HIDDEN))[:, 1])


@pytest.mark.parametrize("kind", ["mean", "cls", "attention", "last"])
@given(length=st.integers(1, 12), padding=st.integers(0, 20), seed=st.integers(0, 1000))
@quick
def test_pooling_ignores_padding(kind: str, length: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    pooling = Pooling(kind, HIDDEN)
    real = states(3, length, seed)
    filled = torch.cat([real, 100 * states(3, padding, seed + 1)], dim=1)
    mask = torch.cat([torch.ones(3, length), torch.zeros(3, padding)], dim=1).long()
    found = pooling(filled, mask)
    assert (found - pooling(real, torch.ones(3, length).long())).abs().max() < 1e-5


def test_each_pooling_takes_what_its_name_says() -> None:
    hidden, mask = states(2, 5), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert torch.equal(Pooling("cls", HIDDEN)(hidden, mask), hidden[:, 0])
    assert torch.equal(Pooling("last", HIDDEN)(hidden, mask), torch.stack([hidden[0, 2], hidden[1, 4]]))
    wanted = torch.stack([hidden[0, :3].mean(dim=0), hidden[1].mean(dim=0)])
    assert torch.allclose(Pooling("mean", HIDDEN)(hidden, mask), wanted, atol=1e-6)


def test_attention_weights_sum_to_one_and_follow_the_score() -> None:
    torch.manual_seed(1)
    pooling = Pooling("attention", HIDDEN)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    # Equal states come back as they are if and only if the weights sum to 1.
    assert torch.allclose(pooling(torch.ones(2, 4, HIDDEN), mask), torch.ones(2, HIDDEN), atol=1e-6)
    assert pooling.score is not None
    hidden = states(1, 3)
    nn.init.zeros_(pooling.score.bias)
    pooling.score.weight.data = 1000 * hidden[:1, 1]
    assert torch.allclose(pooling(hidden, torch.ones(1, 3).long()), hidden[:, 1], atol=1e-4)


@pytest.mark.parametrize("head", [PlainHead(HIDDEN, 3, views=2), EquivariantHead(HIDDEN, PREFERENCE, 3)])
def test_gradients_reach_both_sides(head: nn.Module) -> None:
    pooled = states(4, 2).requires_grad_()
    head(pooled)[:, 0].sum().backward()
    assert pooled.grad is not None
    assert (pooled.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_heads_for_one_vector_give_one_logit_per_class() -> None:
    assert PlainHead(HIDDEN, 5, views=1)(states(4, 1)).shape == (4, 5)


@pytest.mark.parametrize("views", [1, 2])
def test_a_network_keeps_a_rows_views_together(views: int, lmsys: Competition) -> None:
    class Echo(nn.Module):
        """States that are the token ids."""

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=input_ids[:, :, None].float().expand(-1, -1, HIDDEN))

    seen: list[torch.Tensor] = []

    class Spy(PlainHead):
        def forward(self, pooled: torch.Tensor) -> torch.Tensor:
            seen.append(pooled)
            return super().forward(pooled)

    ids = torch.arange(1, 7).repeat_interleave(8).view(6, 8)
    network = Network(Echo(), Pooling("cls", HIDDEN), Spy(HIDDEN, 3, views), views)
    assert network(ids, torch.ones_like(ids)).shape == (6 // views, 3)
    assert torch.equal(seen[0][:, :, 0], torch.arange(1.0, 7.0).view(6 // views, views))


def test_dropout_is_replaced_wherever_a_config_keeps_it() -> None:
    from transformers import DebertaV2Config, LlamaConfig

    config = without_dropout(DebertaV2Config(pooler_dropout=0.2), 0.0)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == config.pooler_dropout == 0.0
    assert without_dropout(LlamaConfig(attention_dropout=0.3), 0.25).attention_dropout == 0.25
    assert without_dropout(DebertaV2Config(), None).hidden_dropout_prob == 0.1
