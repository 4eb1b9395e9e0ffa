"""Fixtures of all tests; see support.py for the small inputs that they use."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaged import mount, once

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition


@pytest.fixture(scope="session")
def lmsys() -> Competition:
    return load_competition("lmsys")


@pytest.fixture(scope="session")
def spooky() -> Competition:
    return load_competition("spooky")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: data/, params.yaml, artifacts/ with the package. Not to be changed."""
    return once(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/ with the backbones `bert` and `llama` of one small layer each, as pretrain leaves them unchanged."""
    from networks import lay_backbone, scratch  # torch is slow to load

    artifacts = tmp_path_factory.mktemp("backbones") / "artifacts"
    lay_backbone(artifacts, "bert", scratch("deberta-v3", positions=256))
    lay_backbone(artifacts, "llama", scratch("llama", positions=256))
    return artifacts


@pytest.fixture
def mounted(finished: Path, tmp_path: Path) -> Path:
    """An input tree with copies of package and competition files, which a test may change."""
    return mount(finished, tmp_path / "input")


@pytest.fixture
def package(mounted: Path) -> Path:
    """The package in `mounted`."""
    return mounted / "datasets" / "somebody" / "some-package"
