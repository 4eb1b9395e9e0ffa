"""Tiny random networks with the keys of published configs, each with a tokenizer of its kind, as their folders are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from networks import HARD, TEXTS
from support import preference_rows
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from pipeline.models.backbones.deberta_v3 import DEBERTA_V3

_ROWS = preference_rows(60)
WORDS = TEXTS[:40] + HARD + [turn for name in ("prompt", "a", "b") for turns in _ROWS[name] for turn in turns]
VOCABULARY = 400


def word_pieces(specials: list[str]) -> Tokenizer:
    """As BERT's: lower case, words, pieces of words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def byte_pairs(specials: list[str]) -> Tokenizer:
    """As GPT-2's: pairs of bytes, the space before a word in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def numbered_pairs(specials: list[str]) -> Tokenizer:
    """As those of Llama 3, Qwen and Phi-4: pairs of bytes, and an expression that parts numbers into digits."""
    tokenizer = byte_pairs(specials)
    parts = Regex(r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(parts, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def fallback_pairs(specials: list[str]) -> Tokenizer:
    """As those of Gemma and Mistral: pairs of characters, spaces as ▁, and bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_of = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + 256, special_tokens=[*specials, *bytes_of], show_progress=False
    )
    tokenizer.train_from_iterator([text[:80] for text in WORDS], trainer)
    # The bytes are tokens for what the pieces do not know, no special ones.
    about = json.loads(tokenizer.to_str())
    about["added_tokens"] = [each for each in about["added_tokens"] if each["content"] not in bytes_of]
    return Tokenizer.from_str(json.dumps(about))


def unigrams(specials: list[str]) -> Tokenizer:
    """As XLM-R's: a sentencepiece Unigram with its table of normal forms; the last of `specials` comes last."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_writer=trained, vocab_size=300, hard_vocab_limit=False, minloglevel=2,
        num_threads=1, bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0,
    )  # fmt: skip
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto.FromString(trained.getvalue())
    pieces = [(each.piece, round(each.score, 6)) for each in model.pieces[1:]]
    vocabulary = [*((name, 0.0) for name in specials[:-1]), *pieces, (specials[-1], 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=[name for name, _ in vocabulary].index(specials[-2])))
    table = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.normalizer = normalizers.Sequence([table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
GROUPED = {"num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_dropout": 0.0}
ROBERTA = BERT | {"layer_norm_eps": 1e-5, "max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1}
ROBERTA |= {"bos_token_id": 0, "eos_token_id": 2}
DISTANT = DEBERTA_V3 | BERT | {"max_position_embeddings": 32, "position_buckets": 8, "pad_token_id": 0}
GEMMA = GROUPED | {"hidden_activation": "gelu_pytorch_tanh", "head_dim": 16, "query_pre_attn_scalar": 16}
GEMMA |= {"hidden_act": "gelu_pytorch_tanh", "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
CLS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
CLS_FIRST = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BOS = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
BOS |= {"unk_token": "<unk>", "mask_token": "<mask>"}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
SIGHT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@dataclass(frozen=True)
class Family:
    """A published network made small."""

    config: dict[str, Any]
    """Of config.json, beside sizes and vocabulary."""
    train: Callable[[list[str]], Tokenizer]
    specials: list[str]
    tokens: dict[str, Any]
    """Of tokenizer_config.json."""
    positions: int | None
    """The longest sequence that it can read."""
    sizes: dict[str, Any] = field(default_factory=lambda: SIZES)


ENCODERS = {
    "bert": Family(
        BERT | {"model_type": "bert", "max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0},
        word_pieces, CLS_FIRST, CLS | {"do_lower_case": True, "tokenizer_class": "BertTokenizer"}, 64,
    ),
    "electra": Family(
        BERT | {"model_type": "electra", "max_position_embeddings": 64, "type_vocab_size": 2, "embedding_size": 16,
                "summary_type": "first", "summary_use_proj": True, "pad_token_id": 0},
        word_pieces, CLS_FIRST, CLS | {"do_lower_case": True, "tokenizer_class": "ElectraTokenizer"}, 64,
    ),
    "mpnet": Family(
        ROBERTA | {"model_type": "mpnet", "relative_attention_num_buckets": 32},
        word_pieces, ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
        BOS | {"unk_token": "[UNK]", "tokenizer_class": "MPNetTokenizer", "do_lower_case": True}, 64,
    ),
    "roberta": Family(
        ROBERTA | {"model_type": "roberta"}, byte_pairs, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        BOS | {"tokenizer_class": "RobertaTokenizer"}, 64,
    ),
    "xlm-r": Family(
        ROBERTA | {"model_type": "xlm-roberta", "output_past": True},
        unigrams, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], BOS | {"tokenizer_class": "XLMRobertaTokenizer"}, 64,
    ),
    "modernbert": Family(
        {"model_type": "modernbert", "max_position_embeddings": 96, "local_attention": 16, "pad_token_id": 3,
         "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
         "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "norm_bias": False,
         "tie_word_embeddings": True, "hidden_activation": "gelu", "position_embedding_type": "absolute"},
        byte_pairs, ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"],
        CLS | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}, 96,
    ),
    "deberta-v1": Family(
        BERT | {"model_type": "deberta", "max_position_embeddings": 32, "relative_attention": True,
                "max_relative_positions": -1, "position_biased_input": False, "pos_att_type": "c2p|p2c",
                "type_vocab_size": 0, "layer_norm_eps": 1e-7, "padding_idx": 0, "pad_token_id": 0},
        byte_pairs, ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], CLS | {"tokenizer_class": "DebertaTokenizer"}, None,
    ),
    "deberta-v2": Family(
        DISTANT | {"conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 8},
        unigrams, ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], CLS | {"tokenizer_class": "DebertaV2Tokenizer"}, None,
    ),
    "deberta-v3": Family(
        DISTANT, unigrams, ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
        CLS | {"tokenizer_class": "DebertaV2Tokenizer"}, None,
    ),
}  # fmt: skip
TURNS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
DECODERS = {
    "llama": Family(
        GROUPED | {"model_type": "llama", "max_position_embeddings": 256, "tie_word_embeddings": True, "head_dim": 16,
                   "rope_theta": 500000.0, "pretraining_tp": 1, "bos_token_id": 0, "eos_token_id": [1, 2],
                   "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                    "original_max_position_embeddings": 64, "rope_type": "llama3"}},
        numbered_pairs, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast"},
        256,
    ),
    "qwen2.5": Family(
        GROUPED | {"model_type": "qwen2", "max_position_embeddings": 128, "tie_word_embeddings": False,
                   "sliding_window": 128, "use_sliding_window": False, "max_window_layers": 2, "bos_token_id": 0,
                   "eos_token_id": 2, "use_mrope": False, "rope_theta": 1000000.0},
        numbered_pairs, TURNS,
        {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
         "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "split_special_tokens": False},
        128,
    ),
    "qwen3": Family(
        GROUPED | {"model_type": "qwen3", "max_position_embeddings": 128, "tie_word_embeddings": True, "head_dim": 16,
                   "attention_bias": False, "sliding_window": None, "use_sliding_window": False, "bos_token_id": 0,
                   "eos_token_id": 2, "rope_theta": 1000000, "rope_scaling": None, "max_window_layers": 2},
        numbered_pairs, TURNS,
        {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
         "tokenizer_class": "Qwen2Tokenizer"},
        128,
    ),
    "gemma-2": Family(
        GEMMA | {"model_type": "gemma2", "max_position_embeddings": 128, "sliding_window": 16,
                 "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "cache_implementation": "hybrid"},
        fallback_pairs, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
         "tokenizer_class": "GemmaTokenizer", "padding_side": "left"},
        128,
    ),
    "gemma-3-1b": Family(
        GEMMA | {"model_type": "gemma3_text", "max_position_embeddings": 128, "sliding_window": 16,
                 "sliding_window_pattern": 2, "rope_theta": 1000000, "rope_local_base_freq": 10000},
        fallback_pairs, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
         "tokenizer_class": "GemmaTokenizer", "padding_side": "left"},
        128,
    ),
    "gemma-3": Family(
        {"model_type": "gemma3", "boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7,
         "mm_tokens_per_image": 4, "eos_token_id": [1, 6],
         "vision_config": SIGHT | {"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4},
         "text_config": GEMMA | SIZES | {"model_type": "gemma3_text", "sliding_window": 16,
                                         "max_position_embeddings": 128, "sliding_window_pattern": 2,
                                         "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}},
        fallback_pairs, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_image>", "<end_of_image>", "<image>"],
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
         "tokenizer_class": "GemmaTokenizer", "padding_side": "left"},
        128, {},
    ),
    "phi-3": Family(
        GROUPED | {"model_type": "phi3", "max_position_embeddings": 256, "original_max_position_embeddings": 64,
                   "rope_scaling": LONGROPE, "rope_theta": 10000.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
                   "sliding_window": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
        fallback_pairs, ["<unk>", "<s>", "<|endoftext|>", "<|end|>"],
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
         "tokenizer_class": "LlamaTokenizer", "padding_side": "left", "legacy": False},
        64,
    ),
    "phi-4": Family(
        GROUPED | {"model_type": "phi3", "max_position_embeddings": 128, "original_max_position_embeddings": 128,
                   "rope_scaling": None, "rope_theta": 250000, "bos_token_id": 0, "eos_token_id": 2,
                   "pad_token_id": 3, "sliding_window": None, "tie_word_embeddings": False},
        numbered_pairs, [*TURNS, "<|dummy_85|>"],
        {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|dummy_85|>",
         "unk_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer"},
        128,
    ),
    "deepseek-distilled": Family(
        GROUPED | {"model_type": "qwen2", "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
                   "tie_word_embeddings": False},
        numbered_pairs, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"],
        {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>", "legacy": True,
         "pad_token": "<｜end▁of▁sentence｜>", "tokenizer_class": "LlamaTokenizerFast"},
        128,
    ),
    "mistral": Family(
        GROUPED | {"model_type": "mistral", "max_position_embeddings": 128, "sliding_window": 16,
                   "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False},
        fallback_pairs, ["<unk>", "<s>", "</s>"],
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None, "unk_token": "<unk>", "legacy": True,
         "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False},
        128,
    ),
}  # fmt: skip
FAMILIES = ENCODERS | DECODERS


def publish(family: Family, folder: Path) -> None:
    """Fills `folder` as a repository of the hub is: config.json, weights with the language head, tokenizer."""
    folder.mkdir(parents=True)
    tokenizer = family.train(family.specials)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in family.specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(family.tokens))
    size = -(-tokenizer.get_vocab_size() // 8) * 8
    config = family.config | family.sizes
    inner = config.get("text_config", config)
    inner["vocab_size"] = size
    (folder / "config.json").write_text(json.dumps(config))
    kind = AutoModelForCausalLM if family in DECODERS.values() else AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind.from_config(AutoConfig.from_pretrained(folder))
    network.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [type(network).__name__]}))
