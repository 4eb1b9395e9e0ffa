"""What is wrong with the options of `make rows` is one line, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT

from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.generation.order import Order

GIVEN = {
    "name": "quiz",
    "model": "llama",
    "rows": 10,
    "batch": 8,
    "tokens": 64,
    "temperature": 1.0,
    "top_p": 0.9,
    "examples": 3,
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"name": "My quiz"}, 'NAME: expected small letters, digits and _, the name of a source, found "My quiz"'),
        ({"name": "../quiz"}, "NAME: expected small letters"),
        ({"model": ""}, r"MODEL: expected a backbone of params\.yaml or a folder with a decoder, found nothing"),
        ({"rows": 0}, "ROWS: expected a positive number, found 0"),
        ({"batch": 0}, "--batch: expected a positive number, found 0"),
        ({"tokens": -1}, "--tokens: expected a positive number, found -1"),
        ({"temperature": -0.1}, r"--temperature, --top-p, --examples: expected 0 or more, .*, found -0\.1, 0\.9 and 3"),
        ({"top_p": 0.0}, r"found 1, 0 and 3"),
        ({"examples": -1}, r"found 1, 0\.9 and -1"),
    ],
)
def test_lines_for_wrong_options(changed: dict[str, object], expected: str) -> None:
    Order(**GIVEN)  # type: ignore[arg-type]
    with pytest.raises(PodiumError, match=expected):
        Order(**GIVEN | changed)  # type: ignore[arg-type]


def test_who_writes_is_a_folder_or_a_backbone(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    assert Order("quiz", "llama").backbones(params) == ["llama"]
    assert Order("quiz", str(tmp_path), judge="llama").backbones(params) == ["llama"]
    with pytest.raises(PodiumError, match=r'JUDGE: expected a folder or a backbone, found "lama" \(did you mean "llam'):
        Order("quiz", "llama", judge="lama").backbones(params)
    with pytest.raises(PodiumError, match='MODEL: expected a folder or a backbone, found "none"'):
        Order("quiz", "none").backbones(params)
