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
LETTER = "PreTrainedTokenizerFast"
"""The class that takes tokenizer.json by the letter; those of the networks' own build its parts anew when they load."""
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
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    find_vocabulary(folder)
    try:
        # Of some architectures AutoTokenizer takes another class than the folder names.
        kind = PreTrainedTokenizerFast if _by_the_letter(folder) else AutoTokenizer
        return kind.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare Exceptions for broken files
        raise PodiumError(f"{folder}: its tokenizer does not load: {' '.join(str(error).split())[:200]}") from None


def save_encoder_tokenizer(source: Path, folder: Path) -> Any:
    """Writes the tokenizer of `source`, with a token for each of MARKERS, into `folder`; returns it as it loads there.

    The markers are no special tokens: a masked model learns to guess them, and decoding keeps them.

    Raises: PodiumError where it does not load, or gives no single token for a marker.
    """
    from tokenizers import AddedToken

    tokenizer = load_tokenizer(source)
    _as_published(source, tokenizer)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in MARKERS])
    tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        _set(folder, tokenizer_class=LETTER, model_input_names=tokenizer.model_input_names)
    saved = load_tokenizer(folder)
    for marker in MARKERS:
        ids = saved(marker, add_special_tokens=False)["input_ids"]
        if saved.convert_ids_to_tokens(ids) != [marker]:
            raise PodiumError(f"{source}: its tokenizer takes no added token: {marker} becomes {ids}")
    return saved


def _as_published(source: Path, tokenizer: Any) -> None:
    """Gives `tokenizer` its authors' own normal forms and division into words.

    Classes of transformers 5 build theirs anew: of DeBERTa's they drop the table, and "…" becomes [UNK] by that, of
    XLM-R's they drop spaces at the end.
    """
    from tokenizers import Regex, normalizers
    from transformers import DebertaV2Tokenizer

    if (own := _published(source)) is not None:
        tokenizer.backend_tokenizer.normalizer = own.normalizer
        tokenizer.backend_tokenizer.pre_tokenizer = own.pre_tokenizer
    elif isinstance(tokenizer, DebertaV2Tokenizer):
        from transformers.convert_slow_tokenizer import SentencePieceExtractor

        table = SentencePieceExtractor(str(source / "spm.model")).proto.normalizer_spec.precompiled_charsmap
        if table:
            forms = normalizers.Precompiled(table), normalizers.Replace(Regex(" {2,}"), " ")
            tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), *forms])


def _published(folder: Path) -> Any:
    """Returns what tokenizer.json says by the letter, a tokenizers.Tokenizer; None where there is no such file."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    return Tokenizer.from_file(str(file)) if file.exists() else None


def finish_decoder_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of `folder`, its end-of-text token to pad with where it has no other, on disk too.

    Where its class would build it otherwise than tokenizer.json has it, the folder names another class from now on.

    Raises: PodiumError where it does not load, or has neither.
    """
    tokenizer = load_tokenizer(folder)
    own = _published(folder)
    if own is not None and _parts(own) != _parts(tokenizer.backend_tokenizer):
        named = {name: token for name, token in tokenizer.special_tokens_map.items() if token in own.get_vocab()}
        _set(folder, **named, tokenizer_class=LETTER)
        tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token is not None:
        return tokenizer
    if tokenizer.eos_token is None:
        raise PodiumError(
            f"{folder}: its tokenizer has neither pad_token nor eos_token; set one in tokenizer_config.json"
        )
    _set(folder, pad_token=tokenizer.eos_token)
    return load_tokenizer(folder)


def _by_the_letter(folder: Path) -> bool:
    """Returns whether the folder says that tokenizer.json is all there is to know."""
    about = folder / "tokenizer_config.json"
    named = about.exists() and (folder / "tokenizer.json").exists() and read_json(about).get("tokenizer_class")
    return named in (LETTER, "TokenizersBackend")


def _parts(backend: Any) -> tuple[str, str, int]:
    """Returns what decides which ids a tokenizers.Tokenizer gives."""
    return str(backend.normalizer), str(backend.pre_tokenizer), backend.get_vocab_size()


def _set(folder: Path, **entries: Any) -> None:
    """Changes tokenizer_config.json: as a new file, since the old one may be a link into somebody's cache."""
    file = folder / "tokenizer_config.json"
    known = read_json(file) if file.exists() else {}
    write_json(file, dict(sorted((known | entries).items())))
