"""Archives that are damaged, of another kind, or made to do harm: one line each, and nothing outside the folder."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import stat
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.ingest.prepare import prepare
from pipeline.kaggle.archive import unpack

TABLE = "".join(f"{row},some words {row * 7919 % 1000},EAP\n" for row in range(2000)).encode()


def packed(method: int = zipfile.ZIP_DEFLATED, **files: bytes | str) -> bytes:
    """A zip archive; `_` in a name stands for a dot, `__` for a slash."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return made.getvalue()


def named(name: str, mode: int = 0) -> bytes:
    """An archive with one file of that very name, and maybe a mode of Unix."""
    made, entry = io.BytesIO(), zipfile.ZipInfo("x" * len(name))
    entry.external_attr = mode << 16
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(entry, b"/etc/passwd")
    return made.getvalue().replace(b"x" * len(name), name.encode())


def patched(content: bytes, flag: int = 0, method: int | None = None) -> bytes:
    """The archive with other bytes in the headers of its files: both places say the same."""
    changed = bytearray(content)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(magic) + at
        changed[place] |= flag
        changed[place + 2] = changed[place + 2] if method is None else method
    return bytes(changed)


def damaged(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 255
    return bytes(changed)


def refusal(folder: Path, content: bytes) -> str:
    """What `unpack` says of an archive; nothing may be left of its contents."""
    archive = folder / "x.zip"
    archive.write_bytes(content)
    with pytest.raises(PodiumError) as caught:
        unpack(archive, folder / "out")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(archive))
    assert [path.name for path in folder.iterdir() if path != archive] == []
    return line.removeprefix(str(archive)) + ("" if archive.exists() else "; it is gone")


@pytest.mark.parametrize(
    "content",
    [
        damaged(packed(train_csv=TABLE), 300),  # zlib.error
        damaged(packed(zipfile.ZIP_STORED, train_csv=TABLE), 300),  # the CRC is wrong
        damaged(packed(zipfile.ZIP_LZMA, train_csv=TABLE), 300),
        damaged(packed(zipfile.ZIP_BZIP2, train_csv=TABLE), 100),
        packed(train_csv=TABLE)[:-400],
        b"",
        b"<html>try again later</html>",
    ],
)
def test_a_damaged_archive_is_deleted(tmp_path: Path, content: bytes) -> None:
    line = refusal(tmp_path, content)
    assert line.startswith(": not a whole archive (")
    assert line.endswith("deleted, run `make download` again; it is gone")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (patched(packed(train_csv=TABLE), method=9), "'train.csv': packed by method 9, which Python lacks; unpack it"),
        (patched(packed(train_csv=TABLE), flag=1), "'train.csv': is encrypted; unpack it by hand"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04" + TABLE, "expected a zip archive, found a 7z archive; unpack it by hand"),
        (gzip.compress(TABLE), "expected a zip archive, found a gzip archive; unpack it by hand"),
        (named("../../escaped"), "'../../escaped': leads out of the archive's folder; nothing was unpacked"),
        (named("/tmp/escaped"), "'/tmp/escaped': leads out of"),
        (named("a/../../b"), "'a/../../b': leads out of"),
        (named("..\\escaped"), "leads out of"),
        (named("C:escaped"), "leads out of"),
        (named("train.csv", stat.S_IFLNK | 0o777), "'train.csv': a link or a device, not a file"),
        (named("train.csv", stat.S_IFIFO | 0o777), "'train.csv': a link or a device, not a file"),
        (packed(a_csv="1", b_csv="2").replace(b"b.csv", b"a.csv"), "'a.csv': stands in it twice"),
        (named("x" * 300), "File name too long"),
        (packed(train_csv=bytes(150_000_000)), "times its size, which no text does; unpack it by hand"),
        (packed(train_csv_zip=b"no archive"), "train.csv.zip in it: not a whole archive (File is not a zip file); the"),
        (packed(train_csv_zip=damaged(packed(train_csv=TABLE), 300)), "train.csv.zip in it: not a whole archive ("),
        (packed(train_csv_zip=packed(train_csv=bytes(150_000_000))), "train.csv.zip in it: unpacks to "),
        (packed(train_csv_zip=named("../train.csv")), "train.csv.zip in it: '../train.csv': leads out of"),
    ],
)
def test_what_another_download_would_not_mend_stays(tmp_path: Path, content: bytes, expected: str) -> None:
    line = refusal(tmp_path, content)
    assert expected in line
    assert "it is gone" not in line
    assert "make download" not in line


def test_more_than_the_disk_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1000))
    assert "unpacks to 0.0 GB, 0.0 GB of disk are free" in refusal(tmp_path, packed(train_csv=TABLE))


def test_the_plain_file_is_taken_and_other_archives_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = packed(train_csv="packed", more_csv="more")
    images = damaged(packed(zipfile.ZIP_STORED, first_png="1", second_png=TABLE), 300)
    content = packed(train_csv="plain", train_csv_zip=inner, data__test_csv_zip=packed(test_csv="x"), images_zip=images)
    (tmp_path / "x.zip").write_bytes(content)
    unpack(tmp_path / "x.zip", tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert sorted(found) == ["data/test.csv", "images.zip", "more.csv", "train.csv"]
    assert found["train.csv"].read_text() == "plain"
    told = capsys.readouterr().out
    assert "x.zip: train.csv.zip in it: train.csv is there in plain too, which is taken\n" in told
    assert "x.zip: images.zip in it: not a whole archive (Bad CRC-32 for file 'second.png'); it is left as" in told


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("train.csv.gz", "; unpack train.csv.gz beside it"),
        ("data/train.csv", "; data/train.csv is below it: move it up, or name it in the competition's YAML file"),
        ("data/train.csv.zip", "; data/train.csv.zip is below it: move it up"),
        ("other.csv", ""),
    ],
)
def test_a_table_that_stands_elsewhere_is_hinted_at(tmp_path: Path, lmsys: Competition, place: str, hint: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("x")
    with pytest.raises(PodiumError) as caught:
        prepare(tmp_path, lmsys, tmp_path / "competition")
    assert str(caught.value).startswith(f"{tmp_path}/train.csv: no such file{hint}")
    assert hint or str(caught.value).endswith("no such file")


def test_whatever_is_wrong_is_one_line(tmp_path: Path) -> None:
    whole, draw = packed(train_csv=TABLE, test_csv=TABLE[:500], train_csv_zip=packed(a_csv="1")), random.Random(3)
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.choice([draw.randrange(len(content)), draw.randrange(-300, 0)])] = draw.randrange(256)
        (tmp_path / "x.zip").write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        try:
            unpack(tmp_path / "x.zip", tmp_path / "out")
        except PodiumError as error:
            assert "\n" not in str(error)
        assert not list(tmp_path.glob(".out.*"))
        assert {path.name for path in tmp_path.iterdir()} <= {"x.zip", "out"}
