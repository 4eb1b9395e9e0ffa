"""The one error that a user can cause: it ends a stage with one clear line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PodiumError(Exception):
    """Says in one line which file, column or key is wrong, what was expected and what was found."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`' (did you mean "x"?)'` for the known name closest to `name`, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""
