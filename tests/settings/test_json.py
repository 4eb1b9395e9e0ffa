"""Settings come back from JSON as they were, without pydantic: what a start file holds is what was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import training_settings
from support import ROOT

from pipeline.config import Params
from pipeline.kinds import KINDS, settings_from_json
from pipeline.preset import PRESETS, overlay
from pipeline.section import from_json
from pipeline.settings.backbones import Backbone, Folder, Hub
from pipeline.settings.external import External
from pipeline.settings.optimisation import RateSchedule, Reference
from pipeline.settings.recipes import recipes, with_recipe
from pipeline.validation import validated

BASE = (ROOT / "params.yaml").read_text(encoding="utf-8")
TEXTS = [BASE, *(overlay(BASE, file.read_text(encoding="utf-8"), "") for file in sorted(PRESETS.glob("*.yaml")))]
FILES = [validated(Params, yaml.safe_load(text), "params.yaml") for text in TEXTS]
TECHNIQUES = ("head_first", "awp", "fgm", "smart", "proximal", "r_drop", "mixout", "deni", "dsgd")


def examples() -> Iterator[Any]:
    """Settings of every class: those of all files, of all recipes, and what none of them uses."""
    for params in FILES:
        yield from (*params.members.values(), *params.backbones.values())
    encoder = {"kind": "encoder", "backbone": "bert", "max_tokens": 64}
    for name, recipe in recipes().items():
        member = encoder | {"kind": "decoder" if "lora" in recipe else "encoder", "recipe": name}
        yield validated(KINDS[member["kind"]].settings_class(), with_recipe(member), name)
    tasks = {"sts": {"path": "external/sts", "competition": "sts", "weight": 0.5}}
    beside = encoder | {"training": {"schedule": {"rate": 1.0e-3}}, "auxiliary": {"tasks": tasks}}
    beside |= {"teachers": {"members": ["one", "other"], "cosine": 0.5}, "extra": ["more"]}
    yield validated(KINDS["encoder"].settings_class(), beside, "auxiliary")
    yield from (training_settings(dropout=0.1, **{name: {}}) for name in TECHNIQUES)
    yield from (training_settings(stable_lora={}), training_settings(soup={}, inner=0.2))
    yield Hub(source="hub", repository="a/b", revision="f" * 40)
    yield External(kind="external", backbone="none", file="external/friend.csv")
    yield Folder(source="path", path="somewhere")
    yield RateSchedule(rate=2.0e-5, reference=Reference(rate=1.0e-5, rows=8, rule="linear"))


def parts(value: Any) -> Iterator[Any]:
    """The settings and all settings within them."""
    yield value
    for each in vars(value).values():
        for inner in each.values() if isinstance(each, dict) else [each]:
            if is_dataclass(inner):
                yield from parts(inner)


def classes(hint: Any) -> Iterator[Any]:
    """All classes of settings that a type names."""
    if is_dataclass(hint):
        yield hint
    for each in get_type_hints(hint).values() if is_dataclass(hint) else get_args(hint):
        yield from classes(each)


EXAMPLES = {type(part): part for whole in examples() for part in parts(whole)}
"""Of each class the last one."""
CLASSES: set[Any] = {
    each for whole in (*(kind.settings_class() for kind in KINDS.values()), Backbone) for each in classes(whole)
}


def back(value: Any) -> Any:
    """The settings after a journey through JSON."""
    return from_json(type(value), json.loads(json.dumps(asdict(value))))


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type, whether or not params.yaml may hold it."""
    if is_dataclass(hint):
        return st.just(EXAMPLES[hint])  # type: ignore[index]
    if get_origin(hint) in (Union, UnionType):
        return st.one_of([values(each) for each in get_args(hint)])
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(), values(get_args(hint)[1]))
    numbers = {float: st.floats(allow_nan=False), int: st.integers(min_value=1)}
    return numbers.get(hint, st.from_type(hint))


def test_all_members_and_backbones_of_params_presets_and_recipes_come_back_as_they_were() -> None:
    for each in examples():
        assert back(each) == each
    for member in (each for params in FILES for each in params.members.values()):
        assert settings_from_json(json.loads(json.dumps(asdict(member)))) == member


def test_there_is_an_example_of_every_class() -> None:
    assert set(EXAMPLES) == CLASSES


@pytest.mark.parametrize("kind", sorted(CLASSES, key=lambda each: each.__name__), ids=lambda each: each.__name__)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_changed_settings_come_back_as_they_were(kind: type, data: st.DataObject) -> None:
    hints = get_type_hints(kind)
    name = data.draw(st.sampled_from([each.name for each in fields(kind)]))
    value = data.draw(values(hints[name]))
    try:
        changed = replace(EXAMPLES[kind], **{name: value})
    except ValueError:  # the other settings contradict it
        return
    assert back(changed) == changed
