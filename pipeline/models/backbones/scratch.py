"""A small network and its tokenizer, built from text and a seed: a backbone for where no downloaded one is at hand.

python -m stages.backbone --backbone NAME        # for a backbone with `source: scratch`
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    DebertaV2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pipeline.errors import PodiumError
from pipeline.models.backbones.deberta_v3 import DEBERTA_V3
from pipeline.settings.backbones import Scratch

CHARACTERS = 8_000_000
"""A tokenizer learns its pieces from about that much text, evenly drawn: more changes little and takes minutes."""

SPARE = 64
"""The embedding table has a multiple of that many rows, with some to spare for added tokens, as published ones have."""


def build_scratch(settings: Scratch, texts: list[str], folder: Path) -> None:
    """Writes config, fp32 weights (safetensors) and tokenizer of `settings` into `folder`.

    Equal settings and texts give equal bytes. Where the text has too few different words, the vocabulary is smaller
    than asked for.

    Raises: PodiumError where `texts` hold nothing but white space.
    """
    chosen = _evenly(texts)
    if not any(text.strip() for text in chosen):
        raise PodiumError("artifacts/competition/train.parquet: no text outside the holdout to build a tokenizer from")
    train_tokenizer, build = ARCHITECTURES[settings.architecture]
    tokenizer = train_tokenizer(chosen, settings.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build(settings, tokenizer)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _evenly(texts: list[str]) -> list[str]:
    """Returns every n-th text, with the smallest n that keeps them under CHARACTERS on average."""
    step = max(1, -(-sum(map(len, texts)) // CHARACTERS))
    return texts[::step]


def _unigram_tokenizer(texts: list[str], vocabulary: int) -> DebertaV2Tokenizer:
    """Trains a Unigram tokenizer with the special tokens where microsoft/deberta-v3-* have them: [MASK] last."""
    # Trained by sentencepiece: the trainer of `tokenizers` sums in the order of a hash table, so that its scores differ
    # from run to run.
    normalizer = DebertaV2Tokenizer().backend_tokenizer.normalizer
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(normalizer.normalize_str(text) for text in texts),
        model_writer=trained,
        model_type="unigram",
        vocab_size=vocabulary - 1,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        max_sentence_length=1 << 30,
        num_threads=1,
        minloglevel=2,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    # Rounded, since `tokenizers` reads a long number back with another last bit.
    pieces = [(model.id_to_piece(i), round(model.get_score(i), 6)) for i in range(model.get_piece_size())]
    return DebertaV2Tokenizer(vocab=[*pieces, ("[MASK]", 0.0)], unk_id=3)


def _deberta(settings: Scratch, tokenizer: DebertaV2Tokenizer) -> PreTrainedModel:
    """Builds the base network, without a masked-LM head: every class of transformers finds all its tensors."""
    shape = DEBERTA_V3 | {
        "vocab_size": _rows(len(tokenizer) + SPARE // 4),
        "hidden_size": settings.hidden,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.hidden,
        "max_position_embeddings": settings.positions,
        "position_buckets": settings.positions // 4,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return DebertaV2Model(DebertaV2Config(**shape))


def _bytes_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer, which knows every text; it puts <s> in front, as those of Llama do."""
    specials = ["<pad>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", specials.index("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _llama(settings: Scratch, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=_rows(len(tokenizer)),
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        # bitsandbytes packs 4-bit weights in blocks of 32 outputs.
        intermediate_size=-(-8 * settings.hidden // 3 // 32) * 32,
        max_position_embeddings=settings.positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def _rows(tokens: int) -> int:
    return -(-tokens // SPARE) * SPARE


ARCHITECTURES: dict[str, tuple[Callable[..., Any], Callable[..., PreTrainedModel]]] = {
    "deberta-v3": (_unigram_tokenizer, _deberta),
    "llama": (_bytes_tokenizer, _llama),
}
