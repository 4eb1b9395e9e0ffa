"""Rows that lie in several files, in older encodings, without quotes, without ids: what is read is what is meant."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from competition_files import SINGLE, fault, prepared, single, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaged import kernel_script

from pipeline.competitions.task import Competition, Lookup, competition_from_json
from pipeline.errors import PodiumError
from pipeline.ingest.prepare import glance, ids_of, read_test, read_train
from pipeline.kernel.submission import read_form, validate_submission, write_submission
from pipeline.package.rehearse_rows import make_rows
from pipeline.package.scene import Given, Scene, read_csv, write_table

GIVEN = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = {"text": "text", "page": "page_text"}
TABLE = replace(SINGLE, texts=TEXTS, lookup=(Lookup("page", "pages.csv", "pages_test.csv"),))
FILES = replace(SINGLE, texts=TEXTS, lookup=(Lookup("page", "train/{}.txt", "test/{}.txt", "page_text"),))
PAGES = {"p": "the first page", "q": 'a "second", page\n\nof two lines', "r": ""}
TEST_PAGES = {"s": "a page of the test rows"}


def pages(folder: Path, keys: str = "pqpr") -> Path:
    """A small competition whose rows are on pages; the pages stand in tables, and in text files too."""
    folder.mkdir(exist_ok=True)
    rows = [[f"{place}", "words", key, SINGLE.classes[place % 3]] for place, key in enumerate(keys)]
    write(folder / "train.csv", [["id", "text", "page", "author"], *rows])
    write(folder / "test.csv", [["id", "text", "page"], ["9", "more", "s"]])
    write(folder / "sample_submission.csv", [["id", *SINGLE.classes], ["9", 0.3, 0.3, 0.4]])
    for name, below, each in (("pages", "train", PAGES), ("pages_test", "test", TEST_PAGES)):
        write(folder / f"{name}.csv", [["page", "url", "page_text"], *([key, "u", text] for key, text in each.items())])
        (folder / below).mkdir(exist_ok=True)
        for key, text in each.items():
            (folder / below / f"{key}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.mark.parametrize("competition", [TABLE, FILES, replace(TABLE, group=("page",))])
def test_a_row_has_what_another_file_says_of_its_key(competition: Competition, tmp_path: Path) -> None:
    source = pages(tmp_path)
    train, test, facts = prepared(source, competition)
    assert train["page"].to_list() == [[PAGES[key]] for key in "pqpr"]
    assert test["page"].to_list() == [[TEST_PAGES["s"]]]
    grouped = "" if competition.group else "page"  # the longer of the two fields
    assert competition_from_json(facts["competition"]) == replace(competition, grouped=grouped)
    assert glance(source, competition, 2) == competition
    if competition.group:
        assert train["group"].n_unique() == 3
    rows, _ = read_train(source / "train.csv", competition)
    assert rows.equals(train)


def test_a_kernel_answers_rows_whose_key_is_nowhere(tmp_path: Path) -> None:
    source = pages(tmp_path)
    write(
        source / "test.csv", [["id", "text", "page"], ["9", "more", "s"], ["10", "more", "../train/p"], ["11", "", ""]]
    )
    for competition in (TABLE, FILES):
        found = read_test(source / "test.csv", competition, strict=False)
        assert found["page"].to_list() == [[TEST_PAGES["s"]], [""], [""]]
        with pytest.raises(PodiumError, match=r'test.csv: row 2: column "page": .* has nothing for "../train/p"'):
            read_test(source / "test.csv", competition, strict=True)


def test_what_a_lookup_lacks_is_one_line(tmp_path: Path) -> None:
    source = pages(tmp_path)
    assert fault(source, replace(TABLE, lookup=(Lookup("pag", "pages.csv"),))).endswith(
        'train.csv: missing column "pag" of lookup.key (did you mean "page"?)'
    )
    assert "nowhere.csv: no such file" in fault(source, replace(TABLE, lookup=(Lookup("page", "nowhere.csv"),)))
    assert "nowhere: no such folder" in fault(
        source, replace(FILES, lookup=(Lookup("page", "nowhere/{}.txt", "", "x"),))
    )
    assert 'missing column "page_txt"' in fault(source, replace(TABLE, texts=TEXTS | {"page": "page_txt"}))
    write(source / "pages.csv", [["page", "page_text"], *([key, key] for key in "pqqr")])
    assert 'pages.csv: column "page": expected one row per key, "q" has several' in fault(source, TABLE)
    write(source / "pages.csv", [["pages", "page_text"], ["p", "x"]])
    assert 'pages.csv: missing column "page" of lookup.key (did you mean "pages"?)' in fault(source, TABLE)
    (source / "train" / "q.txt").unlink()
    assert 'train.csv: row 2: column "page":' in fault(source, FILES)


def test_a_column_that_the_rows_have_is_not_looked_up(tmp_path: Path) -> None:
    source = pages(tmp_path)
    write(source / "pages.csv", [["page", "text", "page_text"], *([key, "other", key] for key in "pqr")])
    assert prepared(source, TABLE)[0]["text"].to_list() == [["words"]] * 4


def test_made_rows_and_scenes_bring_what_lies_beside_the_test_file(tmp_path: Path) -> None:
    for competition in (TABLE, FILES):
        source, made = pages(tmp_path / "data"), tmp_path / competition.lookup[0].key / competition.lookup[0].train[:4]
        made.mkdir(parents=True)
        make_rows(source, made, 8, competition)
        found = read_test(made / "test.csv", competition, strict=True)
        assert sorted(found["page"].list.first()) == sorted(PAGES[key] for key in "pqpr" * 2)
        given = Given(
            tmp_path / "none", {"prior_cells": {}}, competition, ["id", "text", "page"], [], [["id"], ["9"]], source
        )
        scene = Scene(given, made / "scene", 1.0)
        scene.test([["9", "more", "s"]])
        assert read_test(scene.test_file, competition, strict=True)["page"].to_list() == [[TEST_PAGES["s"]]]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_an_older_encoding_is_read_as_it_was_meant(encoding: str, tmp_path: Path) -> None:
    text = "45° café, ½ inch" + ("" if encoding == "latin-1" else " “quoted” – 5 €")
    source = single(
        tmp_path / "data", train=[["a", text, "EAP"], ["b", text, "HPL"], ["c", "x", "MWS"]], test=[["d", text]]
    )
    for name in ("train.csv", "test.csv"):
        (source / name).write_bytes((source / name).read_text(encoding="utf-8").encode(encoding))
    assert "older files are often in `encoding: latin-1`" in fault(source, SINGLE)
    competition = replace(SINGLE, encoding=encoding)
    train, test, _ = prepared(source, competition)
    assert train["text"].to_list()[:2] == test["text"].to_list() * 2 == [[text]] * 2
    assert read_test(source / "test.csv", competition, strict=False).equals(test)
    write_table(source / "again.csv", ["id", "text"], [["d", text]], competition)
    assert (source / "again.csv").read_bytes() == (source / "test.csv").read_bytes().replace(b"\r\n", b"\n")
    if encoding == "cp1252":
        shutil.rmtree(source / "out")
        (source / "test.csv").write_bytes(b"id,text\nd,\x81\n")
        assert fault(source, competition).endswith("line 2: expected CP1252, found the byte 0x81")


bare = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1, max_size=12)


@GIVEN
@given(st.lists(bare | st.sampled_from(['"', '"a" b', 'a "b', '""']), min_size=1, max_size=6))
def test_without_quotes_a_quote_is_a_character(tmp_path: Path, texts: list[str]) -> None:
    source = single(tmp_path)
    train, test = (
        [
            [f'{part}"{place}', text, *([SINGLE.classes[place % 3]] if part == "r" else [])]
            for place, text in enumerate(texts)
        ]
        for part in ("r", "t")
    )
    for name, header, rows in (("train", ["id", "text", "author"], train), ("test", ["id", "text"], test)):
        lines = "".join("\t".join(row) + "\n" for row in [header, *rows])
        (source / f"{name}.csv").write_text(lines, encoding="utf-8", newline="")
    write(source / "sample_submission.csv", [["id", *SINGLE.classes], *([row[0], 0, 0, 1] for row in test)])
    competition = replace(SINGLE, separator="\t", quotes="none")
    found, asked, _ = prepared(source, competition)
    assert found["text"].to_list() == asked["text"].to_list() == [[text] for text in texts]
    assert asked["id"].to_list() == [row[0] for row in test]
    script = kernel_script()
    for name in ("test.csv", "sample_submission.csv"):
        assert script.read_ids(source / name, asdict(competition), False)[1] == [row[0] for row in test]
    write_table(source / "again.csv", ["id", "text"], test, competition)
    assert (source / "again.csv").read_bytes() == (source / "test.csv").read_bytes()


@pytest.mark.parametrize("name", ["pair_id", "#"])
def test_the_training_rows_may_have_another_id_or_none(name: str, tmp_path: Path) -> None:
    source = single(tmp_path / "data", test=[["4", "four"], ["5", "five"]])
    rows = read_csv(source / "train.csv")
    expected, plain, _ = prepared(source, SINGLE)
    header = ["text", "author"] if name == "#" else ["pair_id", "text", "author"]
    numbered = [[*([str(place)] if name != "#" else []), *row[1:]] for place, row in enumerate(rows[1:])]
    write(source / "train.csv", [header, *numbered])
    competition = replace(SINGLE, train_id=name)
    train, test, _ = prepared(source, competition)
    assert train["id"].to_list() == ["0", "1", "2"] == ids_of(source / "train.csv", competition).to_list()
    assert train.drop("id").equals(expected.drop("id"))
    assert test.equals(plain)
    assert read_test(source / "test.csv", competition, strict=False).equals(plain)
    made = tmp_path / "made"
    made.mkdir()
    make_rows(source, made, 6, competition)
    assert read_test(made / "test.csv", competition, strict=True)["text"].value_counts()["count"].to_list() == [2, 2, 2]
    shutil.rmtree(source / "out")
    assert 'missing column "id", found "' in (line := fault(source, SINGLE))
    assert line.endswith('; where train.csv has another id, write `train_id: its name`, and "#" where it has none')
    write(source / "train.csv", [header, *numbered, [*([""] if name != "#" else []), "text", "nobody"]])
    line = fault(source, competition)
    assert line.split("train.csv: ")[1].startswith('row 4: column "pair_id"' if name != "#" else 'row 4 (id "3"): ')


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet"])
def test_a_list_is_read_as_its_items(ending: str, tmp_path: Path) -> None:
    source = single(tmp_path)
    lists = [["salt", "olive oil"], [], ['half a "lemon"']]
    records = [{"id": f"r{place}", "text": each, "author": SINGLE.classes[place]} for place, each in enumerate(lists)]
    if ending == ".parquet":
        pl.DataFrame(records).write_parquet(source / "train.parquet")
    else:
        each = [json.dumps(record) for record in records]
        (source / f"train{ending}").write_text("\n".join(each) if ending == ".jsonl" else f"[{','.join(each)}]")
    train, _, _ = prepared(source, replace(SINGLE, train=f"train{ending}"))
    assert train["text"].to_list() == [["salt, olive oil"], [""], ['half a "lemon"']]
    with (source / "test.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "text"], ["d", "[]"]])
    turns, _, _ = prepared(source, replace(SINGLE, train=f"train{ending}", turns="json"))
    assert turns["text"].to_list() == lists


def test_the_submission_may_name_the_id_otherwise(tmp_path: Path) -> None:
    source = single(tmp_path, test=[["4", "four"], ["5", "five"]])
    write(source / "sample_submission.csv", [["Id", *SINGLE.classes], ["5", 0.3, 0.3, 0.4], ["4", 0.3, 0.3, 0.4]])
    assert 'expected the columns id, EAP, HPL, MWS, found "Id"' in fault(source, SINGLE)
    competition = replace(SINGLE, submission_id="Id")
    assert prepared(source, competition)[1]["id"].to_list() == ["4", "5"]
    script, manifest = (
        kernel_script(),
        {"competition": asdict(competition), "prior_cells": {"EAP": "0.5", "HPL": "0.25"}},
    )
    manifest["prior_cells"]["MWS"] = "0.25"
    target = source / "submission.csv"
    script.write_prior(source, manifest, target, rerun=False)
    assert read_csv(target) == [["Id", *SINGLE.classes], ["5", "0.5", "0.25", "0.25"], ["4", "0.5", "0.25", "0.25"]]
    form, means = read_form(target, competition), np.array([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]])
    write_submission(target, form, ["4", "5"], means, means.argmax(axis=1), competition)
    assert [row[0] for row in read_csv(target)] == ["Id", "5", "4"]
    assert validate_submission(target, source / "sample_submission.csv", competition) == 2
    (source / "made").mkdir()
    make_rows(source, source / "made", 3, competition)
    made = read_test(source / "made" / "test.csv", competition, strict=True)["id"].to_list()
    assert [row[0] for row in read_csv(source / "made" / "sample_submission.csv")] == ["Id", *made]
