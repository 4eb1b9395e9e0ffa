"""Frozen settings: dataclasses that need the standard library alone, because the kernel ships them.

pydantic reads them once, at the door (pipeline/validation.py). The marks below tell it what to check there; they do
nothing where pydantic is not installed. After that a setting is an attribute, and a misspelt one is an error of mypy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from pipeline.errors import PodiumError, nearest

T = TypeVar("T")
Handler = Callable[[Any], dict[str, Any]]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(kind: type[T]) -> type[T]:
    """Makes a class a part of params.yaml: frozen, built by names, and strict about unknown keys."""
    kind.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(kind)


@dataclass(frozen=True)
class Limits:
    """Bounds of a number, or lengths and form of a text or a collection: `Annotated[float, Limits(gt=0, le=1)]`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> dict[str, Any]:
        return handler(source) | {name: bound for name, bound in vars(self).items() if bound is not None}


@dataclass(frozen=True)
class Checked:
    """A check of one value: `check` returns it, or raises ValueError with what was expected."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> dict[str, Any]:
        function = {"type": "no-info", "function": self.check}
        return {"type": "function-after", "function": function, "schema": handler(source)}


@dataclass(frozen=True)
class Prepared:
    """A raw value goes through `prepare` before it is checked; what is no mapping is left to the check."""

    prepare: Callable[[dict[str, Any]], dict[str, Any]]

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> dict[str, Any]:
        function = {"type": "no-info", "function": self._apply}
        return {"type": "function-before", "function": function, "schema": handler(source)}

    def _apply(self, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # What a function returns is no longer read as JSON, where a list may become a tuple.
        return {key: _with_tuples(each) for key, each in self.prepare(given).items()}


def _with_tuples(value: Any) -> Any:
    """Returns `value` with a tuple in place of each list, however deep."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(_with_tuples(each) for each in value) if isinstance(value, list | tuple) else value


def from_json(kind: type[T], value: Mapping[str, Any]) -> T:
    """The dataclass `kind` that `dataclasses.asdict` and JSON have made `value` of: the inverse, without pydantic.

    Raises: PodiumError for a key that is missing or that `kind` does not know.
    """
    hints = _hints(kind)  # type: ignore[arg-type]
    for name in value:
        if name not in hints:
            raise PodiumError(f'{kind.__name__.lower()}: unknown key "{name}"{nearest(name, hints)}')
    try:
        return kind(**{name: _read(hints[name], each) for name, each in value.items()})
    except TypeError as error:
        raise PodiumError(f"{kind.__name__.lower()}: {error}") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Field name -> type, without the marks of Annotated."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _read(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, UnionType) and value is not None:
        hint = next((each for each in get_args(hint) if is_dataclass(each)), get_args(hint)[0])
    if is_dataclass(hint) and isinstance(value, Mapping):
        return from_json(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) in (dict, Mapping) and value is not None:
        return {name: _read(get_args(hint)[1], each) for name, each in value.items()}
    if get_origin(hint) is tuple and value is not None:
        return tuple(_read(get_args(hint)[0], each) for each in value)
    return value
