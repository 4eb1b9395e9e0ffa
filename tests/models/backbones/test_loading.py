"""How backbones come into memory: on a CPU, and as on a GPU (helpers/fake_gpu.py says what is real there)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import CONFIGS, GPU, pretend, questions
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from pipeline.errors import PodiumError
from pipeline.models.backbones import loading, masks
from pipeline.models.backbones.loading import fresh_backbone, load_backbone
from pipeline.models.backbones.masks import RIGHT_PADDED, use_right_padding

CAUSAL = ("llama-3", "qwen-2.5", "qwen-3", "gemma-2")


def test_nothing_is_kept_for_a_next_token(backbones: Path) -> None:
    for precision in ("fp32", "nf4"):
        network = load_backbone(backbones / "backbones/llama", precision, "cpu")
        answer: Any = network(input_ids=torch.arange(3, 9)[None])
        assert answer.past_key_values is None


def test_a_base_on_a_gpu_computes_in_the_half_precision_asked_for(
    backbones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    codes = []
    for device, half, expected in (
        ("cpu", torch.bfloat16, torch.float32),
        (GPU, torch.float16, torch.float16),
        (GPU, torch.bfloat16, torch.bfloat16),
    ):
        network: Any = load_backbone(backbones / "backbones/llama", "nf4", device, half=half)
        layer = network.layers[0].mlp.up_proj
        dtypes = {layer.compute_dtype, layer.weight.quant_state.dtype, network.embed_tokens.weight.dtype}
        assert dtypes | {network.norm.weight.dtype} == {expected}
        assert network.rotary_emb.inv_freq.dtype == torch.float32
        codes.append(layer.weight.data)
        implementation = network.config._attn_implementation
        assert implementation == ("sdpa" if device == "cpu" else RIGHT_PADDED)
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])  # the same base for every adapter


def test_its_name_for_attention_stays_out_of_what_is_saved(
    backbones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    network: Any = load_backbone(backbones / "backbones/llama", "nf4", GPU)
    network.save_pretrained(tmp_path)
    assert RIGHT_PADDED not in (tmp_path / "config.json").read_text()


def test_cudnn_has_no_part_in_attention() -> None:
    assert loading and not torch.backends.cuda.cudnn_sdp_enabled()


def test_memory_that_runs_out_in_loading_is_no_broken_file(backbones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(loading.AutoModel, "from_pretrained", full)
    error: Exception = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        load_backbone(backbones / "backbones/llama", "nf4", "cpu")
    error = RuntimeError("a tensor is missing")
    with pytest.raises(PodiumError, match="not loadable as a backbone: a tensor is missing"):
        load_backbone(backbones / "backbones/llama", "nf4", "cpu")


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_weights_that_are_replaced_are_not_drawn_before(name: str, backbones: Path) -> None:
    folder = backbones / "backbones" / name
    before = torch.get_rng_state()
    network = fresh_backbone(folder, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    loaded = load_backbone(folder, "fp32", "cpu", 0.0)
    network.load_state_dict(loaded.state_dict())
    ids = torch.arange(3, 19)[None]
    with torch.inference_mode():
        answers = [each(input_ids=ids, attention_mask=ids * 0 + 1).last_hidden_state for each in (network, loaded)]
    assert torch.equal(*answers)  # with all that is no weight: positions, frequencies


def batch(rows: int = 5, length: int = 40) -> tuple[Tensor, Tensor]:
    """Ids and mask of rows of several lengths, one of which is whole, and longer than CONFIGS' windows."""
    ids = torch.randint(0, 96, (rows, length), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([length, 33, 17, 5, 1])
    return ids, (torch.arange(length) < lengths[:, None]).long()


def told(network: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The states of all tokens, and the gradients of their squares."""
    network.zero_grad()
    states = network(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    states.square().sum().backward()
    return states.detach(), {
        name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None
    }


@pytest.mark.parametrize("grouped", [False, True], ids=["repeated", "grouped"])
@pytest.mark.parametrize("name", [*CAUSAL, "mistral", "modernbert"])
def test_right_padding_needs_no_mask_to_change_no_answer(
    name: str, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = {"model_type": "mistral", "sliding_window": 16, "hidden_act": "silu"}
    config = AutoConfig.for_model(**CONFIGS.get(name, CONFIGS["qwen-3"] | window), use_cache=False)
    torch.manual_seed(0)
    network = AutoModel.from_config(config).eval()
    expected, gradients = told(network, *batch())
    monkeypatch.setattr(masks, "takes_groups", lambda device: grouped)
    use_right_padding(network)
    assert (network.config._attn_implementation == RIGHT_PADDED) == (name != "gemma-2")
    states, own = told(network, *batch())
    assert torch.equal(states, expected)
    assert all((own[each] - gradients[each]).abs().max() < 1e-5 for each in gradients)


@pytest.mark.parametrize("name", ["llama-3", "qwen-2.5", "modernbert"])
def test_masks_ask_the_gpu_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = AutoModel.from_config(AutoConfig.for_model(**CONFIGS[name], use_cache=False)).train()
    asked = []
    for switch in (False, True):
        if switch:
            use_right_padding(network)
        with questions(monkeypatch) as counted:
            network(*batch())
        asked.append(counted.total())
    assert asked[0] > 0 == asked[1]


def test_a_card_without_a_kernel_for_groups_gets_as_many_keys_as_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        seen.append((query.shape[1], key.shape[1], value.shape[1], options.get("is_causal")))
        return attend(query, key, value, **options)

    attend = masks.scaled_dot_product_attention
    monkeypatch.setattr(masks, "scaled_dot_product_attention", spy)
    network = AutoModel.from_config(AutoConfig.for_model(**CONFIGS["llama-3"], use_cache=False))
    use_right_padding(network)
    network(*batch())
    assert seen == [(4, 4, 4, True)] * 2
