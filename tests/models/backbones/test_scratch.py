from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import HARD, TEXTS, scratch
from support import ROOT
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from pipeline.errors import PodiumError
from pipeline.models.backbones.scratch import _evenly, build_scratch

ARCHITECTURES = ("deberta-v3", "llama")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of each architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    build_scratch(scratch(request.param), TEXTS, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
def test_equal_settings_and_texts_give_equal_bytes_in_another_process(built: Path, tmp_path: Path) -> None:
    architecture = "llama" if AutoConfig.from_pretrained(built).model_type == "llama" else "deberta-v3"
    script = (
        "import pathlib; from networks import *; "
        f"build_scratch(scratch('{architecture}'), TEXTS, pathlib.Path({str(tmp_path)!r}))"
    )
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}", "PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, "-c", script], env=paths, check=True, capture_output=True, timeout=120)
    assert contents(tmp_path) == contents(built)


def test_another_seed_gives_other_weights_and_the_same_tokenizer(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        build_scratch(scratch("deberta-v3", seed=seed), TEXTS, tmp_path / str(seed))
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one["tokenizer.json"] == two["tokenizer.json"]
    assert one["model.safetensors"] != two["model.safetensors"]


def test_building_leaves_the_random_state_of_the_process_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    build_scratch(scratch("llama"), TEXTS, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_ids_survive_saving_and_loading(built: Path, tmp_path: Path) -> None:
    first = AutoTokenizer.from_pretrained(built)
    first.save_pretrained(tmp_path)
    second = AutoTokenizer.from_pretrained(tmp_path)
    assert first(HARD)["input_ids"] == second(HARD)["input_ids"]


def test_every_class_finds_every_tensor_of_the_network(built: Path) -> None:
    encoder = AutoConfig.from_pretrained(built).model_type == "deberta-v2"
    for kind in (AutoModel, AutoModelForMaskedLM if encoder else AutoModelForCausalLM):
        network, report = kind.from_pretrained(built, output_loading_info=True)
        assert {key for key in report["missing_keys"] if not key.startswith("cls.predictions.")} == set()
        assert not report["unexpected_keys"]
        assert network.dtype == torch.float32


def test_deberta_has_the_shape_of_the_published_ones(tmp_path: Path) -> None:
    build_scratch(scratch("deberta-v3", positions=512), TEXTS, tmp_path)
    config, tokenizer = AutoConfig.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert config.relative_attention and config.share_att_key and not config.position_biased_input
    assert config.pos_att_type == ["p2c", "c2p"] and config.norm_rel_ebd == "layer_norm"
    assert (config.intermediate_size, config.position_buckets, config.type_vocab_size) == (128, 128, 0)
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[CLS]", "[SEP]", "[UNK]"]) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1 < config.vocab_size
    ids = tokenizer("what is", "an answer")["input_ids"]
    assert ids[0] == 1 and ids[-1] == 2 and ids.count(2) == 2


def test_llama_starts_texts_with_bos_and_knows_every_character(tmp_path: Path) -> None:
    build_scratch(scratch("llama", hidden=100, heads=5), TEXTS, tmp_path)
    config, tokenizer = AutoConfig.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert config.intermediate_size == 288 and config.num_key_value_heads == 5 and config.tie_word_embeddings
    assert {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id} == {0, 1, 2}
    for text in HARD:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_little_text_gives_a_small_vocabulary_and_none_is_an_error(architecture: str, tmp_path: Path) -> None:
    build_scratch(scratch(architecture, vocabulary=8000), ["hi"], tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) < 300
    with pytest.raises(PodiumError, match="no text outside the holdout to build a tokenizer from"):
        build_scratch(scratch(architecture), ["", " \n"], tmp_path)


def test_texts_are_drawn_evenly_where_there_are_too_many() -> None:
    assert _evenly(["a" * 4_000_000] * 2) == ["a" * 4_000_000] * 2
    assert len(_evenly(["a" * 1_000_000] * 80)) == 8
