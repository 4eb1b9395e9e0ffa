"""Tokenizers of backbones: one that gives the same ids wherever it is loaded, with the markers of rendered text.

python -m stages.backbone --backbone NAME        # saves the backbone's tokenizer by these rules
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.text import MARKERS
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How transformers opens a backbone's files: nothing is downloaded, and no code that came with them is run."""
VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")
VOCABULARY_NAMES = "tokenizer.json, spm.model, vocab.json, vocab.txt"


def find_vocabulary(folder: Path) -> None:
    """Raises PodiumError where there is none: without it, some classes make up a tokenizer that knows no word."""
    if not any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        raise PodiumError(f"{folder}: no tokenizer: expected one of {VOCABULARY_NAMES}")


def load_tokenizer(folder: Path) -> Any:
    """Returns the transformers tokenizer of a local folder in Hugging Face layout; nothing is downloaded.

    Raises: PodiumError where it does not load.
    """
    from transformers import AutoTokenizer

    find_vocabulary(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare Exceptions for broken files
        raise PodiumError(f"{folder}: its tokenizer does not load: {' '.join(str(error).split())[:200]}") from None


def save_encoder_tokenizer(source: Path, folder: Path) -> Any:
    """Writes the tokenizer of `source`, with a token for each of MARKERS, into `folder`; returns it as it loads there.

    The markers are no special tokens: a masked model learns to guess them, and decoding keeps them.

    Raises: PodiumError where it does not load, or gives no single token for a marker.
    """
    from tokenizers import AddedToken
    from transformers import DebertaV2Tokenizer

    tokenizer = load_tokenizer(source)
    if isinstance(tokenizer, DebertaV2Tokenizer):
        tokenizer.backend_tokenizer.normalizer = _own_normalizer(source, tokenizer)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in MARKERS])
    tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        # A class of the network's own builds its parts anew when it loads; this one takes tokenizer.json by the letter.
        inputs = tokenizer.model_input_names
        _set(folder, tokenizer_class="PreTrainedTokenizerFast", model_input_names=inputs)
    saved = load_tokenizer(folder)
    for marker in MARKERS:
        ids = saved(marker, add_special_tokens=False)["input_ids"]
        if saved.convert_ids_to_tokens(ids) != [marker]:
            raise PodiumError(f"{source}: its tokenizer takes no added token: {marker} becomes {ids}")
    return saved


def _own_normalizer(source: Path, tokenizer: Any) -> Any:
    """Returns the authors' own normalisation: transformers 5 drops their table, and "…" becomes [UNK] by that."""
    from tokenizers import Regex, Tokenizer, normalizers

    if (source / "tokenizer.json").exists():
        return Tokenizer.from_file(str(source / "tokenizer.json")).normalizer
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    table = SentencePieceExtractor(str(source / "spm.model")).proto.normalizer_spec.precompiled_charsmap
    if not table:
        return tokenizer.backend_tokenizer.normalizer
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    return normalizers.Sequence([normalizers.Strip(), normalizers.Precompiled(table), spaces])


def finish_decoder_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of `folder`, its end-of-text token to pad with where it has no other, on disk too.

    Raises: PodiumError where it does not load, or has neither.
    """
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token is not None:
        return tokenizer
    if tokenizer.eos_token is None:
        raise PodiumError(
            f"{folder}: its tokenizer has neither pad_token nor eos_token; set one in tokenizer_config.json"
        )
    _set(folder, pad_token=tokenizer.eos_token)
    return load_tokenizer(folder)


def _set(folder: Path, **entries: Any) -> None:
    """Changes tokenizer_config.json: as a new file, since the old one may be a link into somebody's cache."""
    file = folder / "tokenizer_config.json"
    known = read_json(file) if file.exists() else {}
    write_json(file, dict(sorted((known | entries).items())))
