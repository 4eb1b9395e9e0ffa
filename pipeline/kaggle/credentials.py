"""Finds the credentials that the kaggle CLI will use, so that a lack is told early and their contents never printed."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError

NO_CREDENTIALS = (
    "no Kaggle credentials found: put kaggle.json into ~/.kaggle/ (kaggle.com/settings, `chmod 600` it), "
    "or set KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN, or run `kaggle auth login`"
)

QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]+")
USER_INFO = re.compile(r"(\w+://)[^/@\s]+@")


@dataclass(frozen=True)
class Credentials:
    """The user's name where it stands beside the key, and every secret text."""

    username: str | None
    secrets: tuple[str, ...]

    def mask(self, text: str) -> str:
        """Returns `text` without secrets, in any encoding, and without the queries of addresses: they may be signed."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return USER_INFO.sub(r"\1***@", QUERY.sub(r"\1?***", text))


def find_credentials(environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Returns the credentials that the CLI would use, in its order of search; None where it would find none."""
    home = Path(environment.get("HOME") or "~").expanduser()
    token = environment.get("KAGGLE_API_TOKEN", "")
    if os.path.isfile(token):  # unlike Path's, it takes a text that is too long for a file name
        token = Path(token).read_text(encoding="utf-8").strip()
    for name in ("access_token", "access_token.txt"):
        if not token and (home / ".kaggle" / name).is_file():
            token = (home / ".kaggle" / name).read_text(encoding="utf-8").strip()
    secrets, username = [token], None
    legacy = _legacy(environment, home)
    if legacy.get("username") and legacy.get("key"):
        username = str(legacy["username"])
        pair = f"{username}:{legacy['key']}"
        secrets += [str(legacy["key"]), base64.b64encode(pair.encode()).decode()]
    login = _json(home / ".kaggle" / "credentials.json")  # what `kaggle auth login` leaves
    if login.get("refresh_token"):
        username = username or login.get("username")
        secrets += [str(login["refresh_token"]), str(login.get("access_token") or "")]
    found = tuple(sorted({secret for secret in secrets if secret}, key=len, reverse=True))
    return Credentials(username, found) if found else None


def require_credentials() -> Credentials:
    """Returns the credentials. Raises: PodiumError that says where to put them, where there are none."""
    if (found := find_credentials()) is None:
        raise PodiumError(NO_CREDENTIALS)
    return found


def _legacy(environment: Mapping[str, str], home: Path) -> dict[str, Any]:
    """Returns user name and key: those of kaggle.json, overruled key by key by the environment."""
    folder = Path(environment.get("KAGGLE_CONFIG_DIR") or home / ".kaggle")
    if not environment.get("KAGGLE_CONFIG_DIR") and not folder.exists():
        folder = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    found = _json(folder / "kaggle.json")
    named = {"username": environment.get("KAGGLE_USERNAME"), "key": environment.get("KAGGLE_KEY")}
    return found | {key: value for key, value in named.items() if value}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
