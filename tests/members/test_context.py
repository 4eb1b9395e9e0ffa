"""A start file is read before anything is trained, and a key that nobody knows is an error there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from networks import decoder, encoder

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import write_json
from pipeline.kinds import KINDS
from pipeline.members.context import Start, read_start
from pipeline.settings.external import External
from pipeline.settings.member import MemberSettings
from pipeline.settings.tabular import Ngrams, Tabular
from stages import finetune

WORDS = Ngrams(longest=2, max_features=100)
SETTINGS: dict[str, MemberSettings] = {
    "tabular": Tabular(kind="tabular", backbone="none", model="logistic", words=WORDS, folds=(0, 2)),
    "encoder": encoder({"smart": {"form": "sift"}}, folds=[1]),
    "decoder": decoder(precision="nf4"),
    "external": External(kind="external", backbone="none", file="external/friend.csv"),
}
MISSPELT = [
    ("tabular", "settings", "components", "componets", "tabular"),
    ("tabular", "settings.words", "longest", "longst", "ngrams"),
    ("encoder", "settings", "max_tokens", "max_tokns", "encoder"),
    ("encoder", "settings.training", "epochs", "epoch", "training"),
    ("encoder", "settings.training.smart", "ascents", "ascent", "smart"),
    ("decoder", "settings", "max_tokens", "max_tokns", "decoder"),
    ("decoder", "settings.lora", "alpha", "aplha", "lora"),
    ("external", "settings", "file", "fle", "external"),
    ("external", "competition", "metric", "metrik", "competition"),
    ("external", "", "threads", "thread", "start"),
]
"""Kind, where in its start file, the known key, what stands there, and what the line calls the place."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the start of the member `mine` stands; there are no rows to train on."""
    monkeypatch.chdir(tmp_path)
    return Artifacts().start("mine")


def test_every_kind_has_settings_here() -> None:
    assert set(SETTINGS) == set(KINDS) == {kind for kind, *_ in MISSPELT}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_start_comes_back_as_it_was(kind: str, file: Path, lmsys: Competition) -> None:
    start = Start("mine", SETTINGS[kind], lmsys, 2, code="c", libraries={"numpy": "2"}, files={"file": "f"})
    write_json(file, asdict(start))
    assert read_start(file) == start


@pytest.mark.parametrize(("kind", "where", "known", "key", "part"), MISSPELT)
def test_a_misspelt_key_is_one_line_before_training(
    kind: str, where: str, known: str, key: str, part: str, file: Path, lmsys: Competition
) -> None:
    written = asdict(Start("mine", SETTINGS[kind], lmsys, 1))
    place: dict[str, Any] = written
    for step in where.split(".") if where else ():
        place = place[step]
    place[key] = place.pop(known)
    write_json(file, written)
    with pytest.raises(PodiumError) as caught:
        finetune.main("mine", 0, None)
    assert str(caught.value) == f'{file}: {part}: unknown key "{key}" (did you mean "{known}"?)'


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("settings", "settings: kind: expected one of tabular, encoder, decoder, external, found "),
        ("competition", "competition: "),
        ("threads", "start: "),
    ],
)
def test_a_missing_key_is_one_line(missing: str, expected: str, file: Path, lmsys: Competition) -> None:
    written = asdict(Start("mine", SETTINGS["tabular"], lmsys, 1))
    del written[missing]
    write_json(file, written)
    with pytest.raises(PodiumError) as caught:
        read_start(file)
    assert str(caught.value).startswith(f"{file}: {expected}") and "\n" not in str(caught.value)
