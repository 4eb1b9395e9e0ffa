"""Lays a preset and a data folder over params.yaml, and shows what that changes.

python -m pipeline.preset cpu ../shared/data/arena_real      # what `make repro PRESET=cpu DATA=...` does first
python -m pipeline.preset "" path/to/competition             # the data folder only
python -m pipeline.preset "" "" 1                            # `refit: true`: what `make repro REFIT=1` does first

The base is always the committed params.yaml, so that presets do not pile up; `git checkout params.yaml` restores it.
"""

from __future__ import annotations

import difflib
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config import Params
from pipeline.errors import PodiumError, nearest
from pipeline.files import read_json, sha256_file, write_json, write_text
from pipeline.ingest.tables import LONE_SURROGATE
from pipeline.stage import stage
from pipeline.validation import decoded, parse_yaml, validated

PRESETS = Path(__file__).parent / "presets"
LAST = Path("work/preset.json")
"""The hash of the params.yaml that this module wrote last: such a file holds no edits of the user's."""

OWN = "competition.yaml"
"""What `make new-competition` writes into a data folder."""
REPLACED = ("members", "students", "backbones")
"""Sections that a preset replaces as a whole; all others are merged key by key."""


def overlay(base: str, preset: str, data: str, refit: bool = False) -> str:
    """Returns the text of params.yaml with the preset's text, `data.path` and `refit` laid over it, comments kept.

    A folder with a competition.yaml of its own names that as `data.competition` too.
    """
    editor = YAML()
    editor.preserve_quotes, editor.width = True, 120
    params = editor.load(base)
    laid = editor.load(preset)
    if "members" in laid:
        params["students"] = {}  # they learn from the members that are replaced
    _merge(params, laid)
    if data:
        params["data"]["path"] = data
        if (own := Path(data) / OWN).is_file():
            params["data"]["competition"] = str(own)
    if refit:
        params["refit"] = True
    text = io.StringIO()
    editor.dump(params, text)
    return text.getvalue()


def _merge(target: Any, preset: Mapping[str, Any]) -> None:
    for key, value in preset.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), Mapping) and key not in REPLACED:
            _merge(target[key], value)
        else:
            target[key] = value


def refit_flag(value: str) -> bool:
    """Tells whether REFIT on the command line of make asks for a refit; nothing and 0 do not.

    Raises: PodiumError for anything but 0 and 1.
    """
    if value not in ("", "0", "1"):
        raise PodiumError(f'REFIT: expected 1, or nothing, found "{value}"')
    return value == "1"


def apply_preset(name: str, data: str, refit: bool = False, params: Path = Path("params.yaml")) -> None:
    """Rewrites params.yaml and prints the difference to what stood there.

    Raises: PodiumError for an unknown preset, a missing data folder, or edits of params.yaml that are not committed.
    """
    known = sorted(file.stem for file in PRESETS.glob("*.yaml"))
    if name and name not in known:
        raise PodiumError(f'PRESET: no preset "{name}"{nearest(name, known)}, known are {", ".join(known)}')
    if LONE_SURROGATE.search(data):  # bytes that are no text to Python, and could not stand in params.yaml
        raise PodiumError(f"DATA: {data}: expected a name in {sys.getfilesystemencoding()}; rename it, or link to it")
    if data and not Path(data).is_dir():
        raise PodiumError(f"DATA: {data}: no such folder")
    committed = _committed(params)
    now = decoded(params.read_bytes(), str(params))
    if now != committed and not (LAST.exists() and read_json(LAST) == sha256_file(params)):
        raise PodiumError(f"{params}: has uncommitted edits; `git commit {params}` or `git checkout {params}` first")
    text = overlay(committed, (PRESETS / f"{name}.yaml").read_text(encoding="utf-8") if name else "{}", data, refit)
    source = f"{params} under preset {name}" if name else str(params)
    validated(Params, parse_yaml(text.encode(), source), source)
    print("".join(difflib.unified_diff(now.splitlines(True), text.splitlines(True), "before", "after")), end="")
    write_text(params, text)
    write_json(LAST, sha256_file(params))


def _committed(params: Path) -> str:
    committed = subprocess.run(["git", "show", f"HEAD:./{params}"], capture_output=True, check=False)
    if committed.returncode:
        raise PodiumError(f"{params}: not committed to git yet; presets are laid over the committed file")
    if not isinstance(parse_yaml(committed.stdout, f"{params} as committed"), dict):
        raise PodiumError(f"{params} as committed: expected the sections of params.yaml")
    return decoded(committed.stdout, str(params))


if __name__ == "__main__":
    with stage("preset", keep_seconds=False):
        preset, folder, *wanted = sys.argv[1:]
        apply_preset(preset, folder, refit_flag("".join(wanted)))
