"""A Kaggle on the loopback interface, and repositories to deliver to it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import kaggle_world as world
import pytest
from kaggle_server import KaggleServer

REACHED: list[tuple] = []
"""Addresses that this very process connects to while a Kaggle server of the tests runs."""
sys.addaudithook(lambda event, given: REACHED.append(given[1]) if event == "socket.connect" else None)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The tests' Kaggle, with the environment set for it; fails the test where anything else was asked for."""
    REACHED.clear()
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    with KaggleServer(tmp_path) as server:
        for name, value in (server.environment | world.IDENTITY | {"DVC_NO_ANALYTICS": "1"}).items():
            monkeypatch.setenv(name, value)
        yield server
    assert server.contacted() == []
    assert [address for address in REACHED if address != ("127.0.0.1", server.port)] == []


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which everything is committed; not to be changed."""
    root = tmp_path_factory.mktemp("committed") / "repository"
    world.make_repository(root)
    return root


@pytest.fixture
def repository(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    root = tmp_path / "repository"
    shutil.copytree(committed, root, symlinks=True)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a package in it, for what needs no git."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    world.make_package(Path("artifacts/package"))
    return tmp_path / "here"
