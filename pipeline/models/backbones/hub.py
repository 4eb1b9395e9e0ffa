"""Brings the files of a network and its tokenizer here, from the Hugging Face hub or from a folder.

python -m stages.backbone --backbone NAME        # for a backbone with `source: hub` or `source: path`
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.errors import PodiumError
from pipeline.files import link

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "vocab*",
    "merges.txt",
    "chat_template.jinja",
)
DESCRIPTION = ("config.json", *TOKENIZER)
# By their full form: a repository may also hold other weights (pytorch_model.generator.bin, model.fp16.safetensors).
SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
BINARIES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
# A pattern's `*` also matches slashes: original/, onnx/ and the like are left out here.
SUBFOLDERS = "*/*"

SECONDS = 15
"""How long the hub may take to list a repository's files."""


def fetch(name: str, repository: str, revision: str, folder: Path) -> None:
    """Downloads one commit of `repository` into the user's Hugging Face cache, and links its files into `folder`.

    Of the weights, the safetensors where there are any, else the .bin files. What the cache holds is not asked for
    again; HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they always mean.

    Raises: PodiumError that names backbones.`name`, where the hub is out of reach, the repository or its revision is
    unknown, or its licence is not accepted.
    """
    where = f"backbones.{name}: {repository}"
    try:
        snapshot = _snapshot(repository, revision)
    except GatedRepoError:
        page = f"{constants.ENDPOINT}/{repository}"
        raise PodiumError(
            f"{where}: its authors ask for a licence; accept it on {page} and set HF_TOKEN to a token of that account"
        ) from None
    except RevisionNotFoundError:
        raise PodiumError(f"{where}: no revision {revision}; take the full commit from its page") from None
    except RepositoryNotFoundError:
        raise PodiumError(
            f"{where}: no such repository at {constants.ENDPOINT} (a private one needs HF_TOKEN)"
        ) from None
    except HfHubHTTPError as error:
        raise PodiumError(f"{where}: {constants.ENDPOINT} answers {error.response.status_code}; try later") from None
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError):
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        raise PodiumError(
            f"{where}: {reason} and the cache {constants.HF_HUB_CACHE} does not hold all files of {revision}; "
            "connect, or use `source: path`"
        ) from None
    # The cache never rewrites a file, so a link is as safe as a copy.
    for file in _wanted(snapshot):
        link(file, folder / file.name)


def copy_folder(name: str, path: Path, folder: Path) -> None:
    """Copies the files of a backbone from the user's folder `path` into `folder`: what fetch would take, no more.

    Raises: PodiumError where `path` is no folder.
    """
    if not path.is_dir():
        raise PodiumError(f"backbones.{name}.path: {path}: no such folder")
    # Not linked: what the user later writes into his own file would reach DVC's cache through the link.
    for file in _wanted(path):
        shutil.copyfile(file, folder / file.name)


def _snapshot(repository: str, revision: str) -> Path:
    """Returns the folder of the user's cache that holds the wanted files of this commit."""
    try:
        patterns = [*DESCRIPTION, *_weights(_listed(repository, revision))]
    except HfHubHTTPError:
        raise
    except (HTTPError, OfflineModeIsEnabled):
        # Out of reach. An older library may have left the files in the cache without their list: take what is there.
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=[SUBFOLDERS]))


def _listed(repository: str, revision: str) -> list[str]:
    """Returns the names of the files of this commit: as the cache remembers them, else as the hub says (asked once)."""
    try:
        return [file.path for file in get_cached_repo_tree(repository, revision=revision)]
    except CachedRepoTreeNotFoundError:
        files = HfApi().model_info(repository, revision=revision, timeout=SECONDS).siblings
        return [file.rfilename for file in files or []]


def _weights(names: Iterable[str]) -> tuple[str, ...]:
    return SAFETENSORS if any(_matches(name, SAFETENSORS) for name in names) else BINARIES


def _wanted(folder: Path) -> Iterator[Path]:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    patterns = (*DESCRIPTION, *_weights(names))
    return (folder / name for name in names if _matches(name, patterns))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return not fnmatch(name, SUBFOLDERS) and any(fnmatch(name, pattern) for pattern in patterns)
