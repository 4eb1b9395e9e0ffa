"""YAML to frozen objects, with errors that name the key, what was expected and what stood there."""

from __future__ import annotations

import json
import math
import re
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from pipeline.errors import PodiumError, nearest

T = TypeVar("T")
MOST_BYTES, MOST_VALUES = 4_000_000, 200_000
"""Of a YAML file. Some lines of aliases in aliases (&, *) stand for more values than there is memory."""
HALF = re.compile("[\ud800-\udfff]")


def read_yaml(path: Path) -> Any:
    """The parsed YAML of `path`.

    Raises: PodiumError where the file is missing or is not YAML.
    """
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise PodiumError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a link to itself, a name that none can have
        raise PodiumError(f"{path}: cannot be read: {error}") from None


def parse_yaml(content: bytes, source: str) -> Any:
    """The value of a YAML document, as DVC reads it: YAML 1.2, where 5e-05 is a number and `no` is a word.

    Raises: PodiumError in one line that starts with `source`, for a key that stands twice or is no text, too.
    """
    text = decoded(content, source)
    if len(content) > MOST_BYTES:
        raise PodiumError(f"{source}: expected at most {MOST_BYTES:,} bytes, found {len(content):,}")
    try:
        value = YAML(typ="safe").load(text)
    except DuplicateKeyError as error:
        line, key = error.problem_mark.line + 1, str(error.problem).partition(" with value ")[0]
        raise PodiumError(f"{source}: line {line}: {key.removeprefix('found ')}") from None
    except Exception as error:  # any type: a broken number or tag is a ValueError, KeyError or IndexError
        words = " ".join(str(error).split()) if isinstance(error, YAMLError) else f"{type(error).__name__}: {error}"
        raise PodiumError(f"{source}: not valid YAML: {words}") from None
    _check_values(value, source)
    return value


def _check_values(value: Any, source: str) -> None:
    """Raises PodiumError for more values than anybody writes, and for what JSON, through which values are checked, does
    not hold: a key that is no text, a number without bounds, half of a surrogate pair."""
    waiting: list[tuple[Any, Any]] = [((), value)]
    count = 0
    while waiting:
        steps, each = waiting.pop()  # steps: (those before, the last one), so that no depth makes them long to keep
        count += 1
        if isinstance(each, dict):
            if (odd := next((key for key in each if not isinstance(key, str)), None)) is not None:
                raise PodiumError(f"{source}: key {odd}: expected a text, found {type(odd).__name__}; put it in quotes")
            waiting += [((steps, key), inner) for key, inner in each.items()]
        elif isinstance(each, list):
            waiting += [((steps, place), inner) for place, inner in enumerate(each)]
        elif isinstance(each, float) and not math.isfinite(each):
            raise PodiumError(
                f"{source}: {_dotted(steps)}: expected a finite number, found {each}; or a word in quotes"
            )
        if any(isinstance(text, str) and HALF.search(text) for text in (each, *steps[1:])):
            raise PodiumError(f"{source}: {_dotted(steps)}: expected text, found half of a surrogate pair")
        if count + len(waiting) > MOST_VALUES:
            raise PodiumError(
                f"{source}: expected at most {MOST_VALUES:,} values; are there aliases in aliases (&, *)?"
            )


def _dotted(steps: Any) -> str:
    names: list[str] = []
    while steps:
        steps, name = steps
        names.insert(0, str(name))
    return ascii(".".join(names))[1:-1]


def decoded(content: bytes, source: str) -> str:
    """The text of a UTF-8 file, whose lines end in LF. Raises: PodiumError that names the first line that is none."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise PodiumError(f"{source}: line {line}: expected UTF-8, found the byte 0x{byte:02x}") from None


def validated(kind: type[T], value: Any, source: str) -> T:
    """`value` (as YAML gives it) as a `kind`; numbers are not read from strings, and an unknown key is an error.

    Raises: PodiumError with the first thing that is wrong, in one line that starts with `source`.
    """
    try:
        # Through JSON, where a list may become a tuple although the check of types is strict.
        checked: T = _adapter(kind).validate_json(json.dumps(value, default=str), strict=True)  # type: ignore[arg-type]
        return checked
    except ValidationError as error:
        raise PodiumError(f"{source}: {_in_words(kind, error.errors()[0])}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Is kept: to make one of all settings takes a tenth of a second."""
    return TypeAdapter(kind)


def _in_words(kind: Any, problem: ErrorDetails) -> str:
    key, known = _place(kind, problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f'unknown key "{key}"{nearest(str(problem["loc"][-1]), known)}'
    if problem["type"] in ("missing", "missing_argument"):
        return f'missing key "{key}"'
    found = json.dumps(problem["input"], ensure_ascii=False, default=str)
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, found {found[:80]}" if key else message


def _place(kind: Any, location: tuple[Any, ...]) -> tuple[str, list[str]]:
    """The dotted key of a pydantic location, and the names that were allowed at its last step.

    The tag of a union ("tabular" in members.words.tabular.seed) is a step of pydantic's, not of the user's file.
    """
    steps, names = [], []
    for step in location:
        kind = _bare(kind)
        if get_origin(kind) in (Union, UnionType):
            options = [_bare(option) for option in get_args(kind)]
            tagged = [option for option in options if step in _tags(option)]
            kind = (tagged or [option for option in options if option is not type(None)])[0]
            if tagged:
                continue
        fields_here = _fields(kind)
        steps.append(str(step))
        names = list(fields_here)
        kind = fields_here.get(step) if fields_here else (get_args(kind) or (None,))[-1]
    return ".".join(steps), names


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tags(kind: Any) -> tuple[Any, ...]:
    fields = _fields(kind)
    return get_args(fields.get("kind") or fields.get("source"))


def _fields(kind: Any) -> dict[str, Any]:
    """Field name -> annotation of a pydantic model or a dataclass; empty for everything else."""
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
        return get_type_hints(kind, include_extras=True)
    return {}
