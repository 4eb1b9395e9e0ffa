"""Two readers of one file: whatever a file holds, prepare and the kernel see the rows that the csv module sees."""

from __future__ import annotations

import csv
import random
from dataclasses import asdict, replace

import pytest
from competition_files import SINGLE, fault, prepared, single, write
from packaged import kernel_script

from pipeline.errors import PodiumError
from pipeline.ingest import quotes
from pipeline.ingest.prepare import read_test

BACKSLASH = replace(SINGLE, quotes="backslash")
PIECES = ["a", "b ", '"', '""', '" pipe', ",", ";", "\n", "\r\n", "\r", "\\", '\\"', "\\\\", "é", "😀", "", " ", "\x00"]


def expected_rows(path, competition, strict):
    """The (id, text) rows that the csv module reads; None where it, or a rule of ours, refuses the file."""
    escape = "\\" if competition.quotes == "backslash" else None
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=competition.separator, escapechar=escape, strict=strict)
        try:
            header, *rows = [row for row in reader if row] or [[]]
        except csv.Error:
            return None
    if not strict:
        return [(*row[:2], *[""] * (2 - len(row))) for row in rows]
    ids = [row[0] for row in rows]
    if header != ["id", "text"] or any(len(row) != 2 for row in rows):
        return None
    return [tuple(row) for row in rows] if rows and all(ids) and len(set(ids)) == len(ids) else None


def random_file(draw, competition):
    """The bytes of a test file: some written rightly, some by a careless writer, some no CSV at all."""
    separator, escaped = competition.separator, competition.quotes == "backslash"

    def cell(text):
        how = draw.choices(("rightly", "bare", "quoted as it is", "the other way"), weights)[0]
        if how == "bare":
            return text
        if how == "quoted as it is":
            return f'"{text}"'
        if escaped == (how == "rightly"):
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        else:
            text = text.replace('"', '""')
        return f'"{text}"'

    careless = draw.choice([0, 0, 0.02, 0.2])
    weights = (1 - careless, *[careless / 3] * 3)
    lines = [f"id{separator}text"]
    for number in range(draw.randint(0, 12)):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 6)))
        cells = [cell(f"{number}") if draw.random() < 0.9 else cell(text), cell(text)]
        if draw.random() < careless / 4:
            cells = cells[:1] if draw.random() < 0.5 else [*cells, "x"]
        lines.append(separator.join(cells))
    end = draw.choice(["\n", "\n", "\r\n", "\r"] if careless else ["\n", "\r\n"])
    text = end.join(lines) + draw.choice(["", end, end + end])
    return draw.choice([b"", b"\xef\xbb\xbf"]) + text.encode()


def compare(folder, competition, files, seed):
    """Returns how many of the files were taken and how many refused."""
    draw, path, taken, script = random.Random(seed), folder / "test.csv", 0, kernel_script()
    for number in range(files):
        path.write_bytes(random_file(draw, competition))
        expected = expected_rows(path, competition, strict=True)
        try:
            found = [(identity, text[0]) for identity, text in read_test(path, competition, strict=True).rows()]
        except PodiumError as error:
            assert len(str(error).splitlines()) == 1
            found = None
        assert found == expected, f"file {number} of seed {seed}: {path.read_bytes()!r}"
        taken += found is not None
        try:
            found = [(identity, text[0]) for identity, text in read_test(path, competition, strict=False).rows()]
        except PodiumError as error:  # a broken header
            assert "column" in str(error)
            continue
        expected = expected_rows(path, competition, strict=False)
        # A row of empty cells alone may pass for a blank line there: it has no id to answer.
        found, expected = ([row for row in rows if any(row)] for rows in (found, expected))
        assert found == expected, f"file {number} of seed {seed}: {path.read_bytes()!r}"
        # The kernel's script reads the ids by itself; to it a line without an id is none.
        _, ids = script.read_ids(path, asdict(competition), True)
        answered = [identity for identity, _ in found if identity.strip(" \t\r\n\0")]
        assert ids == answered, f"file {number} of seed {seed}: {path.read_bytes()!r}"
    return taken, files - taken


@pytest.mark.parametrize("competition", [SINGLE, BACKSLASH], ids=["doubled", "backslash"])
@pytest.mark.parametrize(
    ("files", "block"), [(150, 1 << 22), pytest.param(5_000, 7, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_random_file_has_the_rows_of_the_csv_module_or_none(tmp_path, monkeypatch, competition, files, block):
    monkeypatch.setattr(quotes, "BLOCK", block)
    competition = replace(competition, separator=random.Random(files).choice(",;\t"))
    taken, refused = compare(tmp_path, competition, files, seed=files)
    assert min(taken, refused) > files / 10


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 22])
@pytest.mark.parametrize(
    ("content", "right"),
    [
        (b'id,text\na,"say ""hi"""\nb,""\nc,""""\n', True),
        (b'\xef\xbb\xbf"id","text"\r\n"a","two\rlines"\r\n', True),
        (b'id,text\na,"end of file"', True),
        (b'id,text\na,"a 5" pipe"\nb,"a 6" pipe"\n', False),
        (b'id,text\na,"a 5\\" pipe"\nb,"a 6\\" pipe"\n', False),
        (b'id,text\na,5" pipe\nb,6" pipe\n', False),
        (b'id,text\na, "x"\n', False),
        (b'id,text\na,"x" \n', False),
        (b'id,text\na,"open', False),
        (b"id,text\na,x\rb,y\r\n", False),
        (b"id,text\na,x\r", False),
    ],
)
def test_what_rfc_4180_allows(tmp_path, monkeypatch, block, content, right):
    monkeypatch.setattr(quotes, "BLOCK", block)
    (tmp_path / "file.csv").write_bytes(content)
    assert quotes.as_in_rfc_4180(tmp_path / "file.csv", ",") is right


@pytest.mark.parametrize("inner", ['\\"', '"'])
@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_quotes_that_are_not_doubled_never_glue_rows_together(tmp_path, inner, name):
    # With two of them in every second row, an even number, each row still looks whole.
    columns = {"train.csv": "id,text,author", "test.csv": "id,text", "sample_submission.csv": "id,EAP,HPL,MWS"}[name]
    rest = "," + ",".join(["EAP"] if name == "train.csv" else ["0.3"] * 2) if name != "test.csv" else ""
    rows = [f'r{i},"a {i}{inner} pipe"{rest}' if i % 2 else f"r{i},plain words{rest}" for i in range(4)]
    source = single(tmp_path)
    (source / name).write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    line = fault(source, SINGLE)
    assert line.startswith(f"{source / name}: row 2 (up to line 3): expected quotes as in RFC 4180, found: ")


def test_a_broken_header_is_one_line(tmp_path):
    source = single(tmp_path)
    (source / "test.csv").write_text('id,"text"x\nd,four\n', encoding="utf-8")
    assert "test.csv: column names: expected quotes as in RFC 4180" in fault(source, SINGLE)
    (source / "test.csv").write_bytes("id,text\nd,four\n".encode("utf-16-be"))
    assert "test.csv: column names: expected text, found NUL: is it UTF-16?" in fault(source, SINGLE)


def test_backslashes_escape_where_the_competition_says_so(tmp_path):
    texts = ['a 5" pipe', 'say "hi", there', "two\nlines", "back\\slash", 'ends in \\"', ""]
    escaped = {"escapechar": "\\", "doublequote": False, "lineterminator": "\n"}
    source = single(tmp_path, [[f"r{i}", text, "EAP"] for i, text in enumerate(texts)])
    for file in source.glob("*.csv"):
        rows = list(csv.reader(file.open(encoding="utf-8", newline="")))
        write(file, rows, **escaped)
    train, test, facts = prepared(source, BACKSLASH)
    assert train["text"].to_list() == [[text] for text in texts]
    assert test.rows() == [("d", ["four"])]
    write(source / "test.csv", [["id", "text"], *[[f"t{i}", text] for i, text in enumerate(texts)]], **escaped)
    for strict in (True, False):
        assert read_test(source / "test.csv", BACKSLASH, strict)["text"].to_list() == [[text] for text in texts]
    doubled = single(tmp_path / "doubled", [[f"r{i}", text, "EAP"] for i, text in enumerate(texts)])
    assert prepared(doubled, SINGLE)[2]["data"] == facts["data"]


def test_the_kernel_keeps_every_row_of_a_careless_file(tmp_path):
    rows = [f't{i},"a {i}" pipe"' for i in range(4)]
    (tmp_path / "test.csv").write_text("\n".join(["id,text", *rows]), encoding="utf-8")
    assert read_test(tmp_path / "test.csv", SINGLE, strict=False)["id"].to_list() == ["t0", "t1", "t2", "t3"]
