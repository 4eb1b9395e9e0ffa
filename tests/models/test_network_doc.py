"""The example of docs/network.md works as it stands there: it trains, is saved, and answers the same when loaded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from networks import encoder, lay_backbone, scratch
from support import ROOT, preference_rows, write_artifacts

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import Split
from pipeline.errors import PodiumError
from pipeline.inference.predict import predict_member
from pipeline.members.context import Run, Start
from pipeline.members.encoder import train
from pipeline.models.network import encoder_network
from pipeline.training.checkpoint import Checkpoint

FILE = "external/my_network.py"


def example() -> str:
    """The page's one block of Python."""
    (found,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "network.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_example_trains_and_is_loaded_back(
    precision: str, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(24)
    artifacts = Artifacts(write_artifacts(tmp_path, rows, lmsys, np.zeros(24, dtype=np.int8)))
    lay_backbone(artifacts.root, "bert", scratch("deberta-v3", layers=2))
    Path(FILE).parent.mkdir()
    Path(FILE).write_text(example())
    training = {"schedule": {"rate": 1.0e-3}, "batches": {"rows_per_step": 16}}
    settings = encoder(training, max_tokens=48, network=FILE, inference={"precision": precision})
    folder, start = artifacts.model("mine", 0), Start("mine", settings, lmsys, 1, max_attempts=1)
    folder.mkdir(parents=True)
    run = Run("mine fold 0", artifacts, Checkpoint(tmp_path / "checkpoint"))
    record = train(Split(rows[:16], rows[16:20], rows[20:]), start, folder, run)
    assert len(record["curve"]) == 1 and (folder / "network.py").read_text() == example()
    Path(FILE).unlink()  # a fold model is read by the code that trained it
    found = predict_member(folder, artifacts, rows[16:], lmsys)
    assert found.shape == (8, 3) and np.allclose(found.sum(axis=1), 1) and np.ptp(found, axis=0).max() > 0
    assert np.array_equal(found, predict_member(folder, artifacts, rows[16:], lmsys))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def built(): pass", r"expected a function build\(backbone, task, classes\), found none"),
        ("def build(backbone, task, classes): return 3", r"expected build to return a torch\.nn\.Module, found int"),
        ("def build(backbone): return backbone", r"TypeError: build\(\) takes 1 positional argument"),
        ("def build(:", r"SyntaxError: "),
        ("import nowhere", r"ModuleNotFoundError: "),
    ],
)
def test_a_file_that_does_not_do_it_is_named_in_one_line(source: str, message: str, lmsys: Competition) -> None:
    with pytest.raises(PodiumError, match=rf"^{FILE}: {message}") as error:
        encoder_network(None, encoder(network=FILE), lmsys.kind, 3, source)
    assert "\n" not in str(error.value)
