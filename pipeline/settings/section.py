"""What every part of params.yaml is: frozen, and strict about its keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of params.yaml that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def with_tuples(given: Any) -> Any:
    """`given` with its lists as tuples: what a validator of mode `before` returns is no longer read as JSON."""
    if not isinstance(given, dict):
        return given
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
