"""What may be wrong when a finished kernel runs: hidden files unlike ours, a damaged package, odd surroundings.

`faults(given)` is the list; each entry damages a scene and, where that changes what is to be answered, says so with
`scene.expect`. docs/kernel.md names them all.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import MANIFEST
from pipeline.files import read_json, write_json
from pipeline.kernel.faults import FAULTS_VARIABLE, KNOWN
from pipeline.package.scene import Given, Scene, accept, flip, replace_file, write_csv

Cause = Callable[[Scene], None]
NUMBERS = {
    **{"kill": "0.1", "kills": "0.1", "hang": "2", "memory": "1", "slow": "5", "devices": "2", "lost": "0"},
    **{"clock": "-86400", "nan": "1", "stumble": "6", "fall": "4"},
}
"""The number of each of the kernel's own faults; one that is not here has 1."""


def faults(given: Given) -> dict[str, dict[str, Cause]]:
    """Returns section -> name of a fault -> what causes it."""
    found = {"rows": ROWS, "ids": IDS, "texts": TEXTS, "columns": COLUMNS}
    if given.is_csv:
        found["CSV file"] = CSV
    found |= {"any file": FILE, "sample": SAMPLE, "package": PACKAGE, "machine": MACHINE}
    return found | {"workers": {WORKERS.get(name, KNOWN[name]): partial_fault(name) for name in KNOWN} | COMBINED}


# Rows


def fewer(scene: Scene, rows: int) -> None:
    """A test file of so many rows, and its sample."""
    scene.both(scene.given.rows[:rows])


def more(scene: Scene) -> None:
    """Ten times as many rows, each under an id of its own."""
    turns = [with_ids(scene, f"{{}}-{turn}".format) for turn in range(10)]
    scene.both([row for rows in turns for row in rows])


def shuffled(scene: Scene) -> None:
    """The test file in another order than the sample's."""
    scene.test(random.Random(3).sample(scene.given.rows, len(scene.given.rows)))


def more_than_the_sample(scene: Scene) -> None:
    """The sample is that of the public rows, the test file is the hidden one."""
    rows = scene.given.rows + with_ids(scene, lambda old, _: f"8{old}")
    scene.test(rows)
    scene.expect(ids_of(scene, rows), scene.given.sample[0])


def with_ids(scene: Scene, name: Callable[[str, int], str]) -> list[list[str]]:
    """The given rows under other ids."""
    place = scene.given.place
    return [[*row[:place], name(row[place], n), *row[place + 1 :]] for n, row in enumerate(scene.given.rows)]


def ids_of(scene: Scene, rows: Sequence[Sequence[str]]) -> list[str]:
    """The ids of rows of the test file."""
    return [row[scene.given.place] for row in rows]


def twice(scene: Scene, both: bool) -> None:
    """An id stands twice, in the test file alone or in the sample too."""
    rows = [*scene.given.rows, scene.given.rows[3]]
    scene.both(rows) if both else scene.test(rows)


ROWS: dict[str, Cause] = {
    "no fault at all": lambda scene: None,
    "no rows": lambda scene: fewer(scene, 0),
    "one row": lambda scene: fewer(scene, 1),
    "two rows": lambda scene: fewer(scene, 2),
    "ten times as many rows": more,
    "rows in another order than the sample's": shuffled,
    "the same row again and again": lambda scene: scene.both(same_texts(scene)),
    "half of the sample's rows": lambda scene: scene.test(scene.given.rows[::2]),
    "more rows than the sample": more_than_the_sample,
}


def same_texts(scene: Scene) -> list[list[str]]:
    """The texts of the first row in all rows."""
    place, first = scene.given.place, scene.given.rows[0]
    return [[*first[:place], row[place], *first[place + 1 :]] for row in scene.given.rows]


# Ids


def named(name: Callable[[str, int], str]) -> Cause:
    """Other ids in the test file and in the sample."""
    return lambda scene: scene.both(with_ids(scene, name))


def other_writing(theirs: Callable[[int], str], samples: Callable[[int], str]) -> Cause:
    """Ids that the test file writes in one way and the sample in another: the sample's are answered."""

    def cause(scene: Scene) -> None:
        ids = [samples(n) for n in range(len(scene.given.rows))]
        scene.test(with_ids(scene, lambda _, n: theirs(n)))
        scene.sample(ids)
        scene.expect(ids, scene.given.sample[0])

    return cause


def all_new(scene: Scene) -> None:
    """The sample belongs to other rows altogether: the test file's ids are answered."""
    rows = with_ids(scene, lambda old, _: f"hidden-{old}")
    scene.test(rows)
    scene.expect(ids_of(scene, rows), scene.given.sample[0])


IDS: dict[str, Cause] = {
    "whole numbers as ids": named(lambda _, n: str(n)),
    "ids with zeros in front": named(lambda _, n: f"{n:05d}"),
    "ids of 30 digits": named(lambda _, n: str(10**30 + n)),
    "negative numbers and exponents as ids": named(lambda _, n: f"-{n}" if n % 2 else f"{n + 1}e5"),
    "words for nothing as ids": named(lambda _, n: ("nan", "inf", "None", "null", "true", "NA", "-")[n % 7] + "x" * n),
    "letters as ids": named(lambda _, n: f"row_{n}"),
    "quotes, commas and line breaks in ids": named(lambda _, n: f'"{n}", it\nis'),
    "ids in other scripts": named(lambda _, n: f"ряд-行-صف-{n}"),
    "ids of 10,000 characters": named(lambda _, n: f"{n}-" + "x" * 10_000),
    "ids 7 for the sample's 00007": other_writing(str, lambda n: f"{n:05d}"),
    "ids 7.0 for the sample's 7": other_writing(lambda n: f"{n}.0", str),
    "ids 7 for the sample's 7.0": other_writing(str, lambda n: f"{n}.0"),
    "blanks around ids": other_writing(lambda n: f" {n} ", str),
    "an id twice in the test file": lambda scene: twice(scene, False),
    "an id twice in both files": lambda scene: twice(scene, True),
    "a row without an id": lambda scene: scene.test(with_ids(scene, lambda old, n: "" if n == 4 else old)),
    "no id that the sample knows": all_new,
}


# Texts


def texts(make: Callable[[str, int], str], encode: bool = True, only: int | None = None) -> Cause:
    """Other texts: `make` gets a cell and its row's number; `only` names a single row."""

    def cause(scene: Scene) -> None:
        json_cells = encode and scene.given.competition.turns == "json"
        rows = [list(row) for row in scene.given.rows]
        for n, row in enumerate(rows):
            for place in scene.given.texts if only in (None, n) else []:
                made = make(row[place], n)
                row[place] = json.dumps([made], ensure_ascii=False) if json_cells else made
        scene.test(rows)

    return cause


TEXTS: dict[str, Cause] = {
    "empty texts": texts(lambda old, n: ""),
    "empty cells for texts": texts(lambda old, n: "", encode=False),
    "one row with empty cells": texts(lambda old, n: "", encode=False, only=3),
    "blanks for texts": texts(lambda old, n: " \t " * (n + 1)),
    "one character each": texts(lambda old, n: chr(97 + n)),
    "digits alone": texts(lambda old, n: str(10**n)),
    "punctuation alone": texts(lambda old, n: "?!… " * n),
    "one word of a million characters": texts(lambda old, n: "x" * 1_000_000, only=2),
    "200,000 words in one row": texts(lambda old, n: "many words " * 100_000, only=2),
    "words that training has never seen": texts(lambda old, n: f"qzx{n}vj wkq{n} " * 20),
    "another language": texts(lambda old, n: "Это другой язык, 这是另一种语言, زبان دیگر. " * (1 + n % 4)),
    "emoji, marks and right-to-left": texts(lambda old, n: "👩‍👩‍👧‍👦 e\u0301 \u202eabc \ufeff\u200b שלום " * 3),
    "line breaks of every kind": texts(lambda old, n: "one\ntwo\r\nthree\rfour\u2028five\x85six"),
    "NUL and control characters": texts(lambda old, n: "a\x00b\x01c\x1bd\x7f"),
    "quotes and backslashes": texts(lambda old, n: '"a" ""b"" \\"c\\" \\\\ \'d\', e;f\tg'),
    "tags and shell commands": texts(lambda old, n: "<script>alert(1)</script> $(exit 3) `exit 4`; rm -rf ./no"),
    "tokens of tokenizers": texts(lambda old, n: "[CLS] [SEP] [MASK] <s> </s> <pad> <|endoftext|> <|eot_id|> [INST]"),
    "words for nothing": texts(lambda old, n: ("null", "NaN", "None", "NA", "[]", "{}", "undefined")[n % 7]),
    "cells that are no JSON": texts(lambda old, n: '["never closed', encode=False),
    "cells of JSON that are no texts": texts(
        lambda old, n: ("null", "[]", "[null]", "17", '{"a": 1}', "[[1]]", "[" * 5000)[n % 7], encode=False
    ),
    "halves of surrogate pairs": texts(lambda old, n: '["\\ud83d", "\\ude00 x"]', encode=False),
    "sides of other lengths": lambda scene: scene.test(
        [[cell if at != scene.given.texts[-1] else "[]" for at, cell in enumerate(row)] for row in scene.given.rows]
    ),
}


# Columns


def columns(change: Callable[[list[str], list[int]], list[str]], of_header: bool = True) -> Cause:
    """The same change to the header and every row; `change` gets the cells, and where texts stand."""

    def cause(scene: Scene) -> None:
        header, *rows = (change(list(row), scene.given.texts) for row in [scene.given.header, *scene.given.rows])
        scene.test(rows, header if of_header else None)

    return cause


def renamed(name: Callable[[str], str]) -> Cause:
    """Other names of columns."""
    return lambda scene: scene.test(scene.given.rows, [name(each) for each in scene.given.header])


def no_id_column(scene: Scene) -> None:
    """The test file has no ids."""
    place = scene.given.place
    header, *rows = ([*row[:place], *row[place + 1 :]] for row in [scene.given.header, *scene.given.rows])
    scene.test(rows, header)


def with_answers(scene: Scene) -> None:
    """Somebody has left the training file's answers in."""
    asked = list(scene.given.manifest["prior_cells"])
    scene.test([[*row, *["1"] * len(asked)] for row in scene.given.rows], [*scene.given.header, *asked])


COLUMNS: dict[str, Cause] = {
    "columns in another order": columns(lambda row, _: row[::-1]),
    "one column more": columns(lambda row, _: [*row, "other"]),
    "40 columns more": lambda scene: scene.test(
        [[*row, *["x"] * 40] for row in scene.given.rows], [*scene.given.header, *(f"more_{n}" for n in range(40))]
    ),
    "the answers' columns": with_answers,
    "a running number in front": lambda scene: scene.test(
        [[str(n), *row] for n, row in enumerate(scene.given.rows)], ["", *scene.given.header]
    ),
    "a text column missing": columns(lambda row, texts: [cell for at, cell in enumerate(row) if at != texts[-1]]),
    "all text columns missing": columns(lambda row, texts: [cell for at, cell in enumerate(row) if at not in texts]),
    "no id column": no_id_column,
    "names of columns in capitals": renamed(str.upper),
    "blanks around the names of columns": renamed(lambda name: f" {name} "),
}


# Bytes of the test file


def content(change: Callable[[bytes], bytes]) -> Cause:
    """Other bytes in the test file; the sample's ids are answered."""
    return lambda scene: replace_file(scene.test_file, change(scene.test_file.read_bytes()))


def written(**options: Any) -> Cause:
    """The test file as another writer would have it."""
    return lambda scene: write_csv(scene.test_file, [scene.given.header, *scene.given.rows], **options)


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Cause:
    """Other lines in the test file."""
    return content(lambda old: b"\n".join(change(old.split(b"\n"))))


CSV: dict[str, Cause] = {
    "CRLF": content(lambda old: old.replace(b"\n", b"\r\n")),
    "CR for line ends": content(lambda old: old.replace(b"\n", b"\r")),
    "a byte order mark": content(lambda old: b"\xef\xbb\xbf" + old),
    "no line end at the end": content(lambda old: old.rstrip(b"\n")),
    "blank lines": content(lambda old: old.replace(b"\n", b"\n\n") + b"\n \n\n"),
    "every cell quoted": written(quoting=1),
    "backslashes before quotes": written(escapechar="\\", doublequote=False),
    "semicolons": written(delimiter=";"),
    "tabs": written(delimiter="\t"),
    "a quote that never closes": lines(lambda old: [old[0], b'"' + old[1], *old[2:]]),
    "a lone quote in every row": lines(lambda old: [old[0], *(line + b'"' if line else line for line in old[1:])]),
    "rows that are too short": lines(lambda old: [old[0], *(line.split(b",")[0] for line in old[1:])]),
    "rows that are too long": lines(lambda old: [old[0], *(line + b",x,y" if line else line for line in old[1:])]),
    "a column twice": columns(lambda row, texts: [*row, row[texts[0]]]),
    "no header": lines(lambda old: old[1:]),
    "the header again in the middle": lines(lambda old: [*old[:6], old[0], *old[6:]]),
    "a header alone": lines(lambda old: old[:1]),
    "a comment above the header": content(lambda old: b"# hidden rows\n" + old),
}


def folder_in_place(scene: Scene) -> None:
    """A folder with the test file's name."""
    scene.test_file.unlink()
    scene.test_file.mkdir()


def relink(file: Path, target: Path) -> None:
    """Puts a link in a file's place."""
    file.unlink()
    file.symlink_to(target)


FILE: dict[str, Cause] = {
    "UTF-16": content(lambda old: old.decode().encode("utf-16") if old[:4] != b"PAR1" else old[::-1]),
    "bytes that are no UTF-8": content(lambda old: old.replace(b" ", b"\xff\xfe \xe9", 40)),
    "gzip": content(gzip.compress),
    "cut off in the middle": content(lambda old: old[: len(old) // 2]),
    "zeros at the end": content(lambda old: old + bytes(4096)),
    "zeros alone": content(lambda old: bytes(len(old))),
    "random bytes": content(lambda old: random.Random(7).randbytes(len(old))),
    "an empty file": content(lambda old: b""),
    "a page of HTML": content(lambda old: b"<!DOCTYPE html><html><body>404: Not Found</body></html>\n"),
    "no test file": lambda scene: scene.test_file.unlink(),
    "a folder in its place": folder_in_place,
    "a link to nothing": lambda scene: relink(scene.test_file, Path("nothing")),
    "a link to itself": lambda scene: relink(scene.test_file, scene.test_file),
    "a test file that may not be read": lambda scene: scene.test_file.chmod(0),
}


# Sample submission


def sample(change: Callable[[bytes], bytes], ours: bool = False) -> Cause:
    """Other bytes in the sample; with `ours`, a grader wants the columns in the package's own order."""

    def cause(scene: Scene) -> None:
        replace_file(scene.sample_file, change(scene.sample_file.read_bytes()))
        if ours:
            scene.expect(ids_of(scene, scene.given.rows))

    return cause


def no_sample(scene: Scene) -> None:
    """The hidden files come without a sample."""
    scene.sample_file.unlink()
    scene.expect(ids_of(scene, scene.given.rows))


def sample_columns(scene: Scene, change: Callable[[list[str]], list[str]], followed: bool) -> None:
    """Other columns in the sample, which are followed where they are the same in another order."""
    ids, header = ids_of(scene, scene.given.rows), change(list(scene.given.sample[0]))
    scene.sample(ids, header)
    scene.expect(ids, header if followed else None)


def sample_rows(scene: Scene) -> None:
    """The sample in an order of its own, which is followed."""
    ids = random.Random(5).sample(ids := ids_of(scene, scene.given.rows), len(ids))
    scene.sample(ids)
    scene.expect(ids, scene.given.sample[0])


SAMPLE: dict[str, Cause] = {
    "no sample": no_sample,
    "an empty sample": sample(lambda old: b"", ours=True),
    "a sample of its header alone": sample(lambda old: old.split(b"\n")[0] + b"\n"),
    "a sample in another order": sample_rows,
    "a sample with half of the ids": lambda scene: scene.sample(ids_of(scene, scene.given.rows[::2])),
    "a sample that is cut off": sample(lambda old: old[: len(old) * 6 // 10]),
    "a sample with CRLF and a byte order mark": sample(lambda old: b"\xef\xbb\xbf" + old.replace(b"\n", b"\r\n")),
    "a sample in UTF-16": sample(lambda old: old.decode().encode("utf-16"), ours=True),
    "a sample of zeros": sample(lambda old: bytes(len(old)), ours=True),
    "a sample without answers": lambda scene: write_csv(
        scene.sample_file, [[cell if cell in scene.given.sample[0] else "" for cell in scene.given.sample[0]]]
    ),
    "a sample's columns in another order": lambda scene: sample_columns(scene, lambda old: old[::-1], True),
    "a sample with other columns": lambda scene: sample_columns(scene, lambda old: [*old[:-1], "other"], False),
    "a sample with one column more": lambda scene: sample_columns(scene, lambda old: [*old, "Usage"], False),
    "a sample of ids alone": lambda scene: sample_columns(
        scene, lambda old: [scene.given.competition.submitted_id], False
    ),
}


# Package


def files_of(scene: Scene, start: str, most: int | None = None) -> list[str]:
    """Names of the package's files whose path starts so."""
    return [name for name in scene.given.manifest["files"] if name.startswith(start)][:most]


def flipped(start: str) -> Cause:
    """A changed bit in the first file whose path starts so."""

    def cause(scene: Scene) -> None:
        for name in files_of(scene, start, 1):
            flip(scene.package / name)

    return cause


def missing(start: str, most: int | None = None) -> Cause:
    """Missing files."""

    def cause(scene: Scene) -> None:
        for name in files_of(scene, start, most):
            (scene.package / name).unlink()

    return cause


def cut_off(scene: Scene) -> None:
    """Weights that end in the middle, although the manifest knows them so."""
    names = [name for name in files_of(scene, "members/") if name.endswith((".safetensors", ".parquet"))][:1]
    for name in names:
        whole = (scene.package / name).read_bytes()
        replace_file(scene.package / name, whole[: len(whole) // 2])
    accept(scene.package, *names)


def break_wheels(package: Path) -> None:
    """Wheels that are no zip files, although the manifest knows them so."""
    for wheel in (package / "wheels").iterdir():
        replace_file(wheel, b"no zip file")
    accept(package, *(f"wheels/{wheel.name}" for wheel in (package / "wheels").iterdir()))


def unknown_kind(package: Path) -> None:
    """A fold model of a kind that this code does not know."""
    file = sorted((package / "members").glob("*/*/member.json"))[-1]
    replace_file(file, b'{"kind": "crystal_ball"}')
    accept(package, file.relative_to(package).as_posix())


def broken_code(scene: Scene) -> None:
    """The package's code ends the process."""
    replace_file(scene.package / "code/pipeline/kernel/supervisor.py", b"raise SystemExit(7)\n")
    accept(scene.package, "code/pipeline/kernel/supervisor.py")


def second_package(scene: Scene) -> None:
    """The dataset is mounted twice."""
    shutil.copytree(scene.package, scene.inputs / "datasets" / "somebody" / "other-package", symlinks=True)


def zipped(scene: Scene) -> None:
    """Sub-folders that arrive as zip files; small ones alone, which shows as much."""
    for name in ("code", "stack"):
        shutil.make_archive(str(scene.package / name), "zip", scene.package / name)
        shutil.rmtree(scene.package / name)


def changed_manifest(**changes: object) -> Cause:
    """Other entries in the manifest."""
    return lambda scene: write_json(scene.package / MANIFEST, read_json(scene.package / MANIFEST) | changes)


def no_manifest(scene: Scene, text: bytes | None) -> None:
    """Without a manifest nothing says what is to be answered but the sample's form."""
    (scene.package / MANIFEST).unlink()
    if text is not None:
        (scene.package / MANIFEST).write_bytes(text)


def everything(scene: Scene) -> None:
    """Many things at once."""
    break_wheels(scene.package)
    unknown_kind(scene.package)
    for start in ("members/", "stack/", "parity"):
        flipped(start)(scene)
    columns(lambda row, texts: [*row, "other"])(scene)
    scene.environment |= {FAULTS_VARIABLE: "kill=0.2,nan=1,full,clock=1e6", "PODIUM_BUDGET_SECONDS": "soon"}


PACKAGE: dict[str, Cause] = {
    "a changed bit in a member": flipped("members/"),
    "a changed bit in the stack": flipped("stack/"),
    "a changed bit in the code": flipped("code/pipeline/errors"),
    "a changed bit in a wheel": flipped("wheels/"),
    "a member's file missing": missing("members/", 1),
    "all members missing": missing("members/"),
    "the stack missing": missing("stack/"),
    "the code missing": missing("code/"),
    "the wheels missing": missing("wheels/"),
    "the packaged rows missing": missing("parity"),
    "weights that are cut off": cut_off,
    "wheels that are no zip files": lambda scene: break_wheels(scene.package),
    "a member of unknown kind": lambda scene: unknown_kind(scene.package),
    "code that ends the process": broken_code,
    "files that nobody knows": lambda scene: replace_file(scene.package / "code" / "pipeline" / "more.py", b"x"),
    "timings that are none": lambda scene: replace_file(scene.package / "timings.json", b'{"x": [1, {}]}'),
    "timings of another machine": lambda scene: write_json(
        scene.package / "timings.json",
        {name: {"cpu": {"load": 9e9, "a": 9, "b": 9, "c": 9}} for name in scene.given.manifest["members"]},
    ),
    "a budget of a minus second in the package": changed_manifest(budget_seconds=-1),
    "a manifest without wheels": changed_manifest(wheels=[]),
    "a manifest that is cut off": lambda scene: no_manifest(scene, b'{"format": 1, "comp'),
    "a manifest of odd values": changed_manifest(competition="a word", prior_cells=[]),
    "a manifest of another format": changed_manifest(format=2),
    "no package": lambda scene: shutil.rmtree(scene.package),
    "the package mounted twice": second_package,
    "folders that arrive as zip files": zipped,
    "another mount of the package": lambda scene: moved(scene.package, scene.inputs / "models/a/b/1"),
    "another mount of the competition": lambda scene: moved(scene.files, scene.inputs / "some/folder/deeper"),
    "everything at once": everything,
}


def moved(folder: Path, target: Path) -> None:
    """Moves a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)


# Machine


def variables(**environment: str) -> Cause:
    """Other environment variables."""
    return lambda scene: scene.environment.update(environment)


def shell(text: str) -> Cause:
    """Another way to start the script."""
    return lambda scene: setattr(scene, "shell", text)


def tool(script: str) -> Cause:
    """An nvidia-smi that behaves so."""

    def cause(scene: Scene) -> None:
        folder = scene.root / "tools"
        folder.mkdir()
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)
        scene.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    return cause


def in_the_way(*names: str) -> Cause:
    """Files of the kernel's working folder that Python would import in place of libraries."""

    def cause(scene: Scene) -> None:
        for name in names:
            (scene.working / name).parent.mkdir(exist_ok=True)
            (scene.working / name).write_text("raise SystemExit('shadowed')\n")

    return cause


def no_working_folder(scene: Scene) -> None:
    """The working folder cannot be made: nothing can be written."""
    shutil.rmtree(scene.working)
    scene.working.write_text("a file")
    scene.writable = False


def small_disk(size: str, fill: bool = False, options: str = "") -> Cause:
    """A working folder on a disk of its own with so much room."""

    def cause(scene: Scene) -> None:
        keep = scene.root / "kept"
        fills = 'head -c 1M /dev/zero > "$PODIUM_WORKING/old" 2>/dev/null;' if fill else ""
        scene.shell = (
            f'unshare -rm bash -c \'mount -t tmpfs -o size={size}{options} none "$PODIUM_WORKING" && {fills} "$@"; '
            f'code=$?; cp "$PODIUM_WORKING/submission.csv" "{keep}" 2>/dev/null; exit $code\' bash "$@"; code=$?; '
            f'[ ! -e "{keep}" ] || cp "{keep}" "$PODIUM_WORKING/submission.csv"; exit $code'
        )
        scene.writable = not fill and not options

    return cause


def odd_folder(scene: Scene) -> None:
    """A working folder whose name no encoding can say."""
    scene.working.rmdir()
    scene.working = scene.root / "wör king\n\udcff"


def stale(scene: Scene) -> None:
    """A submission of an earlier run stands there."""
    (scene.working / "submission.csv").write_text("id,other\n1,2\n")


MACHINE: dict[str, Cause] = {
    "no tools on the path": variables(PATH="/nowhere"),
    "a GPU's tool that names a GPU that is not there": tool("echo Tesla T4"),
    "a GPU's tool that fails": tool("echo no devices; exit 9"),
    "a GPU's tool that says nonsense": tool("head -c 2000 /dev/zero | tr '\\0' x"),
    "no budget at all": variables(PODIUM_BUDGET_SECONDS="0"),
    "a budget below zero": variables(PODIUM_BUDGET_SECONDS="-5"),
    "a budget that is no number": variables(PODIUM_BUDGET_SECONDS="abc"),
    "a budget of NaN": variables(PODIUM_BUDGET_SECONDS="nan"),
    "a budget of one second": variables(PODIUM_BUDGET_SECONDS="1"),
    "a budget of five seconds": variables(PODIUM_BUDGET_SECONDS="5"),
    "a log on a full disk": shell('exec "$@" > /dev/full 2>&1'),
    "a log that nobody reads": shell('set -o pipefail; "$@" 2>&1 | true'),
    "a log whose reader leaves": shell('set -o pipefail; "$@" 2>&1 | head -n 3'),
    "no standard streams": shell('exec "$@" <&- >&- 2>&-'),
    "a console of ASCII": variables(
        PYTHONIOENCODING="ascii:strict", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    ),
    "another language's locale": variables(LANG="tr_TR.UTF-8", LC_ALL="tr_TR.ISO-8859-9"),
    "another time zone": variables(TZ="Asia/Kathmandu"),
    "Python without assertions and docstrings": variables(PYTHONOPTIMIZE="2"),
    "warnings as errors": variables(PYTHONWARNINGS="error"),
    "another hash seed": variables(PYTHONHASHSEED="4294967295"),
    "no home": variables(HOME="/nowhere"),
    "no temporary folder": variables(TMPDIR="/nowhere"),
    "64 threads asked for": variables(OMP_NUM_THREADS="64", OPENBLAS_NUM_THREADS="64"),
    "nonsense for threads": variables(OMP_NUM_THREADS="many", RAYON_NUM_THREADS="-1"),
    "40 open files at most": shell('ulimit -n 40; exec "$@"'),
    "files of 64 KiB at most": shell('ulimit -f 64; exec "$@"'),
    "2 GB of memory": shell('ulimit -v 2000000; exec "$@"'),
    "a stack of 1 MiB": shell('ulimit -s 1024; exec "$@"'),
    "new files that nobody may read": shell('umask 0777; exec "$@"'),
    "libraries' names in the working folder": in_the_way("polars.py", "numpy.py", "json.py", "pipeline/__init__.py"),
    "a submission of an earlier run": stale,
    "a working folder of an odd name": odd_folder,
    "no working folder": no_working_folder,
    "a working disk with room for the prior alone": small_disk("4k"),
    "a working disk that is full": small_disk("4k", fill=True),
    "a working disk that cannot be written": small_disk("4k", options=",ro"),
}
NAMESPACES = ("a working disk",)
"""How the names of those faults start that need a file system of their own."""


# Workers


def partial_fault(name: str) -> Cause:
    """One of the kernel's own faults."""
    return variables(**{FAULTS_VARIABLE: f"{name}={NUMBERS.get(name, '1')}"})


WORKERS = {
    "kill": "a worker is killed once",
    "kills": "workers are killed again and again",
    "hang": "a worker hangs",
    "poison": "a GPU's context dies",
    "memory": "memory runs out for more than a row",
    "nan": "answers that are no numbers",
    "slow": "everything takes five times as long",
    "devices": "two devices",
    "lost": "the first device cannot be opened",
    "stumble": "the supervisor fails, and again when it begins anew",
    "plan": "no plan can be made",
    "fall": "the kernel's own process is killed",
    "full": "no room for results",
    "wheels": "wheels cannot be unpacked",
    "clock": "the wall clock jumps by a day",
}
"""Name of one of the kernel's own faults -> what it is called here; another is called by its own words."""
COMBINED: dict[str, Cause] = {
    "one of two devices cannot be opened": variables(**{FAULTS_VARIABLE: "devices=2,lost=1"}),
    "no device can be opened": variables(**{FAULTS_VARIABLE: "devices=1,lost=0"}),
    "a fault that does not exist": variables(**{FAULTS_VARIABLE: "gremlins=3"}),
}
