"""What may stand in params.yaml as a name that becomes a file's, and as a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pipeline.section import Checked, Limits

Name = Annotated[str, Limits(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""Of a member, a backbone, a source: a part of DVC's stage names, and of files' names with more behind it."""
MOST_BYTES, MOST_IN_A_NAME = 4000, 255
"""Of a path and of each name in it: what Linux takes."""


def possible_path(path: str) -> str:
    """Returns `path`. Raises: ValueError for what can name no file of this machine."""
    if not path.strip():
        raise ValueError("expected a path")
    if "\0" in path or "://" in path:
        raise ValueError("expected a path of this machine")
    if len(path.encode()) > MOST_BYTES or any(len(part.encode()) > MOST_IN_A_NAME for part in Path(path).parts):
        raise ValueError(f"expected names of at most {MOST_IN_A_NAME} bytes, {MOST_BYTES} in all")
    return path


def apart(path: str) -> str:
    """Returns `path`; raises ValueError where it is this folder or one above it: DVC watches all that is there."""
    if Path.cwd().is_relative_to(Path(possible_path(path)).resolve()):
        raise ValueError("expected a folder with the competition's files alone, in this one or elsewhere")
    return path


def below_external(*suffixes: str) -> Callable[[str], str]:
    """Returns a check that a path lies under external/, the folder that DVC watches, and has one of the endings."""

    def check(file: str) -> str:
        parts = Path(possible_path(file)).parts
        if parts[:1] != ("external",) or ".." in parts or (suffixes and not file.endswith(suffixes)):
            what = f"{' or '.join(suffixes)} file" if suffixes else "file"
            raise ValueError(f"expected a {what} under external/, the folder that DVC watches")
        return file

    return check


def known_or_external(name: str) -> str:
    """Returns `name`; raises ValueError where it is a path to a YAML file that DVC does not watch."""
    return below_external()(name) if name.endswith((".yaml", ".yml")) else name


SomePath = Annotated[str, Checked(possible_path)]
BelowExternal = Annotated[str, Checked(below_external())]
