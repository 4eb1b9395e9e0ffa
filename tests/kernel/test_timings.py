"""The timings that `publish` puts beside a package: what no machine takes is no timing, and nominal figures count."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.kernel.serve import read_timings

RIGHT = {"load": 30.0, "a": 0.02, "b": 1e-4, "c": 1e-9}


@pytest.mark.parametrize(
    "changed", [{"load": 9e9}, {"a": 9e9}, {"b": 9}, {"c": 9}, {"b": math.nan}, {"load": -1.0}, {"c": math.inf}]
)
def test_a_figure_that_no_machine_takes_is_passed_over(changed: dict[str, Any], tmp_path: Path) -> None:
    told = {"large": {"t4": RIGHT | changed, "cpu": RIGHT}, "small": {"t4": RIGHT}}
    (tmp_path / "timings.json").write_text(json.dumps(told))
    assert read_timings(tmp_path) == {"large": {"cpu": RIGHT}, "small": {"t4": RIGHT}}


@pytest.mark.parametrize("text", ["[]", "3", '{"large": 3}', '{"large": {"t4": {"load": "x"}}}', "{", '{"a": null}'])
def test_a_file_that_holds_no_timings_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_text(text)
    assert read_timings(tmp_path) is None
