"""A tiny real decoder through transformers: the same bits for the same seed, and each reply as if it were alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.generation.decoder import Generator, _positions, _Whole, open_decoder
from pipeline.models.backbones.tokenizer import load_tokenizer

ASKED = [("Tell me of </s> alpha", '{"answer": "x", "text":'), ("Question 3: what is a good answer?", "{"), ("b", "")]
HOW: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "tokens": 12}


@pytest.fixture(scope="module")
def decoder(backbones: Path) -> Generator:
    return open_decoder("llama", backbones / "backbones" / "llama", "auto", 1)


def test_the_seed_decides_and_what_stood_in_the_generator_before_does_not(decoder: Generator) -> None:
    torch.manual_seed(1)
    first = decoder.write(ASKED, 5, **HOW)
    state = torch.random.get_rng_state()
    assert decoder.write(ASKED, 5, **HOW) == first and decoder.write(ASKED, 6, **HOW) != first
    assert torch.equal(torch.random.get_rng_state(), state)
    for reply, (_, begin) in zip(first, ASKED, strict=True):
        assert reply is not None and reply.startswith(begin)
    assert sum(map(len, filter(None, first))) > sum(len(begin) for _, begin in ASKED)


def test_the_likeliest_tokens_are_the_same_alone_and_among_others(decoder: Generator) -> None:
    how = HOW | {"temperature": 0.0}
    together = decoder.write(ASKED, 0, **how)
    assert [decoder.write([each], 1, **how)[0] for each in ASKED] == together


def test_a_judge_answers_each_alone_as_among_others(decoder: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [decoder.tokenizer.encode(each, add_special_tokens=False)[0] for each in ("Q", "a")]
    monkeypatch.setattr("pipeline.generation.decoder.answer_tokens", lambda *_: answers)
    texts = [text for text, _ in ASKED] + ["word " * 400]
    together = decoder.yes(texts)
    assert np.isnan(together[3]) and ((together[:3] > 0) & (together[:3] < 1)).all()
    np.testing.assert_allclose([decoder.yes([text])[0] for text in texts[:3]], together[:3], atol=1e-5)
    assert len(set(together[:3].round(6))) == 3


def test_the_first_token_of_a_text_has_the_first_position_whatever_padding_stands_before_it() -> None:
    assert _positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_what_is_too_long_is_not_asked(decoder: Generator) -> None:
    assert decoder.limit == 256
    replies = decoder.write([("word " * 300, "{"), *ASKED], 5, **HOW)
    assert replies[0] is None and None not in replies[1:]
    assert decoder.write([("word " * 300, "{")], 5, **HOW) == [None]


def test_special_tokens_in_a_text_are_text(decoder: Generator) -> None:
    (ids,) = decoder._prompts([("a </s> b", "")])
    assert decoder.tokenizer.eos_token_id not in ids and ids[0] == decoder.tokenizer.bos_token_id


def test_a_reply_ends_with_its_first_whole_object(backbones: Path) -> None:
    tokenizer = load_tokenizer(backbones / "backbones" / "llama")
    begins = ['{"a":', '{"a":', '{"a":']
    texts = [' "x"}', ' "}', ' "x"}']
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    width = max(map(len, ids))
    padded = torch.tensor([[tokenizer.eos_token_id] * (width - len(each)) + each for each in ids])
    stop, seen = _Whole(begins, 0, tokenizer), []
    for end in range(1, width + 1):
        seen.append(stop(padded[:, :end], torch.empty(0)).tolist())
    assert seen[-1] == [True, False, True] and seen[0] == [False] * 3
    assert json.loads(begins[0] + texts[0]) == {"a": "x"}


def test_lines_for_what_cannot_write_or_judge(backbones: Path, decoder: Generator, tmp_path: Path) -> None:
    headless = Path(shutil.copytree(backbones / "backbones" / "llama", tmp_path / "headless"))
    write_json(headless / "config.json", read_json(headless / "config.json") | {"tie_word_embeddings": False})
    with pytest.raises(
        PodiumError, match="headless: head tokens and `make rows` need the network's language head, and"
    ):
        open_decoder("headless", headless, "auto", 1)
    with pytest.raises(PodiumError, match="bert: expected a decoder, which writes, found an encoder"):
        open_decoder("bert", backbones / "backbones" / "bert", "auto", 1)
    with pytest.raises(PodiumError, match="nowhere: no such folder"):
        open_decoder("x", backbones / "nowhere", "auto", 1)
    with pytest.raises(PodiumError, match="llama: its tokenizer has no token of its own for Yes or No: take another"):
        decoder.yes(["x"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "nf4", "int8"])
def test_every_precision_writes(precision: str, backbones: Path) -> None:
    made = open_decoder("llama", backbones / "backbones" / "llama", precision, 1)
    first = made.write(ASKED, 5, **HOW)
    assert None not in first and made.write(ASKED, 5, **HOW) == first
