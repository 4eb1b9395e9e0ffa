"""The guard of these tests: whatever is asked for besides the tests' server is refused, and fails the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kaggle_server import KaggleServer

from pipeline.kaggle.cli import CLI


@pytest.fixture
def watched(tmp_path: Path):
    """A server whose guard is looked at by the test itself."""
    with KaggleServer(tmp_path) as server:
        yield server


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('import socket; socket.create_connection(("192.0.2.1", 443), timeout=5)', "192.0.2.1"),
        ('import socket; socket.create_connection(("127.0.0.1", 9), timeout=5)', "connect 127.0.0.1 9"),
        ('import socket; socket.getaddrinfo("api.kaggle.com", 443)', "api.kaggle.com"),
        ('import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))', "192.0.2.1"),
        ('import requests; requests.get("http://example.com/x")', "GET http://example.com/x"),
        ('import requests; requests.get("https://api.kaggle.com/x")', "CONNECT api.kaggle.com:443"),
        (
            'import requests; requests.get("https://api.kaggle.com/x", proxies={"https": ""})',
            "getaddrinfo api.kaggle.com",
        ),
    ],
)
def test_other_addresses_are_refused_and_written_down(watched: KaggleServer, code: str, expected: str) -> None:
    python(code, watched.environment)
    assert any(expected in line for line in watched.contacted()), watched.contacted()


def test_a_subprocess_is_guarded_too(watched: KaggleServer) -> None:
    inner = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=5)"
    python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])", watched.environment)
    assert watched.contacted()


def test_the_cli_left_to_itself_would_be_caught(watched: KaggleServer) -> None:
    environment = watched.environment | {"KAGGLE_API_ENVIRONMENT": "PROD", "PODIUM_ANSWERS": "/dev/null"}
    command = [*CLI, "competitions", "list"]
    subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)
    assert any("api.kaggle.com" in line for line in watched.contacted())
    assert not watched.requests


def test_what_is_for_the_server_passes(watched: KaggleServer) -> None:
    done = python('import requests; print(requests.put("http://localhost/upload/x").status_code)', watched.environment)
    assert done.stdout.strip() == "404", done.stderr
    assert watched.requests == ["PUT /upload/x"]
    assert watched.contacted() == []
