"""The real CLI behind `kaggle(...)`: what is tried again, what is not, and what never shows."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from kaggle_server import KEY, KaggleServer
from kaggle_world import COMPETITION, IMPATIENT

from pipeline.errors import PodiumError
from pipeline.kaggle.cli import KaggleError, Patience, json_in, kaggle
from pipeline.kaggle.credentials import NO_CREDENTIALS, find_credentials
from pipeline.kaggle.waiting import wait
from pipeline.ledger.ledger import clock

LIST = ("competitions", "submissions", COMPETITION, "--format", "json")


def ask() -> str:
    return kaggle(*LIST, patience=IMPATIENT).strip()


def one_line(caught: pytest.ExceptionInfo[PodiumError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert KEY not in text
    return text


@pytest.mark.parametrize(("status", "message"), [(429, "slow down"), (500, None)])
def test_a_busy_server_is_asked_again(
    server: KaggleServer, folder: Path, status: int, message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault("ListSubmissions", status=status, message=message)
    assert ask() == "No submissions found"
    assert len(server.called("ListSubmissions")) == 2
    told = capsys.readouterr().out
    assert f"{status}" in told
    assert "attempt 2 of 3 in 0.05 s" in told


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (401, "Unauthenticated", "kaggle competitions submissions: 401: Kaggle does not accept these credentials"),
        (403, "You must accept the rules", "kaggle competitions submissions: 403: You must accept the rules"),
        (404, None, "404 Client Error: Not Found for url"),
    ],
)
def test_a_refusal_is_final(
    server: KaggleServer, folder: Path, status: int, message: str | None, expected: str
) -> None:
    server.fault("ListSubmissions", status=status, message=message, times=9)
    with pytest.raises(KaggleError) as caught:
        ask()
    assert expected in one_line(caught)
    assert caught.value.status == status
    assert len(server.called("ListSubmissions")) == 1


def test_a_server_that_stays_busy_is_given_up(server: KaggleServer, folder: Path) -> None:
    server.fault("ListSubmissions", status=503, message="come back tomorrow", times=9)
    with pytest.raises(KaggleError) as caught:
        ask()
    assert one_line(caught) == "kaggle competitions submissions: 503: come back tomorrow"
    assert len(server.called("ListSubmissions")) == IMPATIENT.attempts


def test_a_lost_connection_is_tried_again(
    server: KaggleServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hang_up = threading.Event()
    hang_up.set()
    server.fault("ListSubmissions", hold=hang_up)
    assert ask() == "No submissions found"
    assert "attempt 2 of 3" in capsys.readouterr().out


def test_a_server_that_says_nothing_is_left(server: KaggleServer, folder: Path) -> None:
    hold = threading.Event()
    server.fault("ListSubmissions", hold=hold)
    with pytest.raises(KaggleError, match="no sign of life for 2 s, stopped"):
        kaggle(*LIST, patience=Patience(silence=2.0))
    hold.set()


def test_a_failure_that_had_its_effect_is_no_failure(server: KaggleServer, folder: Path) -> None:
    server.fault("ListSubmissions", status=500)
    assert kaggle(*LIST, patience=IMPATIENT, finished=lambda: True) == ""
    assert len(server.called("ListSubmissions")) == 1


def test_secrets_show_nowhere(
    server: KaggleServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERBOSE", "1")  # with which the CLI prints its requests, the key among them
    server.fault("ListSubmissions", status=429, message=f"key {KEY}, see http://user:{KEY}@host/x?signature=abc now")
    server.fault("ListSubmissions", status=400, message=f"still {KEY}")
    with pytest.raises(KaggleError, match=r"400: still \*\*\*"):
        kaggle(*LIST, patience=IMPATIENT, echo=True)
    told = capsys.readouterr()
    assert "see http://***@host/x?*** now" in told.out
    assert KEY not in told.out + told.err
    kept = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_without_credentials_nothing_is_asked(
    server: KaggleServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(PodiumError) as caught:
        ask()
    assert one_line(caught) == NO_CREDENTIALS
    assert server.requests == []


def test_a_token_is_enough_and_a_bad_one_is_named(
    server: KaggleServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_token")
    assert ask() == "No submissions found"
    assert server.called("IntrospectToken")[0] == {"token": "KGAT_token"}
    server.fault("IntrospectToken", status=404, message="unknown token", times=9)
    with pytest.raises(KaggleError, match="Kaggle does not accept these credentials"):
        ask()


@pytest.mark.parametrize(
    ("file", "content", "user", "secret"),
    [
        (".kaggle/kaggle.json", '{"username": "me", "key": "k-e-y"}', "me", "k-e-y"),
        (".config/kaggle/kaggle.json", '{"username": "me", "key": "k-e-y"}', "me", "k-e-y"),
        (".kaggle/access_token", "tok-en\n", None, "tok-en"),
        (".kaggle/credentials.json", '{"username": "me", "refresh_token": "r-e"}', "me", "r-e"),
    ],
)
def test_credentials_are_found_where_the_cli_looks(
    tmp_path: Path, file: str, content: str, user: str | None, secret: str
) -> None:
    assert find_credentials({"HOME": str(tmp_path)}) is None
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    found = find_credentials({"HOME": str(tmp_path)})
    assert found is not None
    assert found.username == user
    assert found.mask(f"a {secret} b") == "a *** b"


def test_the_environment_overrules_the_file_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "kaggle.json").write_text('{"username": "me", "key": "k-e-y"}')
    found = find_credentials({"HOME": "/nowhere", "KAGGLE_CONFIG_DIR": str(tmp_path), "KAGGLE_USERNAME": "you"})
    assert found is not None
    assert found.username == "you"
    assert "k-e-y" in found.secrets


def test_json_is_found_behind_warnings() -> None:
    assert json_in("Warning: an outdated version\n" + json.dumps([{"ref": 1}], indent=2)) == [{"ref": 1}]
    with pytest.raises(KaggleError, match="expected JSON, found 'hello'"):
        json_in("hello")


def interrupted() -> tuple[str, None]:
    raise KeyboardInterrupt


def test_waiting_says_how_it_stands_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    states = iter([("queued", None), ("queued", None), ("running", None), ("done", 7)])
    assert wait("kernel", lambda: next(states), 600, 0.0) == 7
    told = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in told] == ["kernel: queued", "kernel: running", "kernel: done"]
    assert told[0].endswith(" of at most 10 min 00 s")
    with pytest.raises(PodiumError, match=r"kernel: still queued after \d+ s; run the same command again"):
        wait("kernel", lambda: ("queued", None), 0.01, 0.02)
    with pytest.raises(PodiumError, match="kernel: not waited for any longer; run the same command again"):
        wait("kernel", interrupted, 600, 0.0)
    assert [clock(seconds) for seconds in (59.4, 3725.0)] == ["59 s", "1 h 02 min"]
