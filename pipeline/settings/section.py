"""What every part of params.yaml is: frozen, and strict about its keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of params.yaml that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
