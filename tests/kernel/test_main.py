"""The script before its hand-over: every mount is found, the prior comes first and is valid, a changed file is seen."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from competition_files import SINGLE
from packaged import COMPETITION, KERNEL, kernel_error, kernel_script, manifest_of, mount, run_kernel, write_manifest

from pipeline.competitions.task import Competition
from pipeline.files import sha256_file
from pipeline.imports import libraries
from pipeline.ingest.prepare import read_test
from pipeline.kernel.submission import validate_submission
from pipeline.package.bases import base_slug, base_text, find_bases
from pipeline.package.scene import accept, read_csv, write_csv


@pytest.fixture(scope="module")
def main() -> ModuleType:
    """The script as a module."""
    return kernel_script()


MOUNTS = [
    ("some-package", COMPETITION),
    ("datasets/somebody/some-package", f"competitions/{COMPETITION}"),
    ("some-package", f"competitions/{COMPETITION}"),
    ("datasets/some-package", "competitions/of-another-name"),
    ("models/somebody/some-package/1", "a/folder/deeper"),
]


@pytest.mark.parametrize(("place", "files"), MOUNTS)
def test_package_and_competition_are_found_under_every_mount(
    main: ModuleType, finished: Path, tmp_path: Path, place: str, files: str
) -> None:
    source = mount(finished, tmp_path, place, files)
    (source / "other-data" / "deep").mkdir(parents=True)
    (source / "other-data" / "MANIFEST.json").write_text('{"format": 1}')  # somebody else's
    (source / "other-data" / "deep" / "test.csv").write_text("id\n1\n")  # without a sample beside it
    package, manifest = main.find_package(source, False)
    assert package == source / place
    assert main.find_competition(source, manifest["competition"], False) == source / files
    (source / files / "test").mkdir()
    (source / files / "test.csv").rename(source / files / "test" / "test.csv")
    below = manifest["competition"] | {"test": "test/test.csv"}
    assert main.find_competition(source, below, False) == source / files


def test_sub_folders_may_arrive_as_zip_files(main: ModuleType, finished: Path, tmp_path: Path) -> None:
    package = mount(finished, tmp_path, "some-package") / "some-package"
    for folder in [each for each in package.iterdir() if each.is_dir()]:
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)
    assert not (package / "code").exists()
    assert main.broken_files(main.unpacked(package, {}, tmp_path, False), manifest_of(package)["files"]) == {}


@pytest.fixture
def apart(mounted: Path, package: Path) -> Path:
    """The dataset of a base that `package` names and lacks."""
    folder = package / "pretrained/net-nf4"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    manifest = manifest_of(package)
    for file in folder.iterdir():
        name = file.relative_to(package).as_posix()
        manifest["files"][name] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    write_manifest(package, manifest | {"bases": find_bases(manifest["files"])})
    (digest,) = find_bases(manifest["files"]).values()
    dataset = mounted / "datasets" / "somebody" / base_slug(digest)
    dataset.mkdir()
    (dataset / "BASE.json").write_text(base_text("pretrained/net-nf4", manifest["files"]))
    shutil.move(folder, dataset / "base")
    other = mounted / "datasets" / "somebody" / "another-base"
    shutil.copytree(dataset, other)
    (other / "BASE.json").write_text("{}")
    return dataset


def found_whole(main: ModuleType, mounted: Path, rerun: bool = False) -> tuple[Path, dict[str, str]]:
    package, manifest = main.find_package(mounted, rerun)
    package = main.unpacked(package, manifest["bases"], mounted, rerun)
    return package, main.broken_files(package, manifest["files"])


@pytest.mark.parametrize("packed", ["nothing", "the base", "the package", "both"])
def test_a_base_comes_from_its_own_dataset(
    main: ModuleType, mounted: Path, package: Path, apart: Path, packed: str
) -> None:
    if packed in ("the package", "both"):
        for folder in [package / "members", package / "code"]:
            shutil.make_archive(str(folder), "zip", folder)
            shutil.rmtree(folder)
    if packed in ("the base", "both"):
        shutil.make_archive(str(apart / "base"), "zip", apart / "base")
        shutil.rmtree(apart / "base")
    found, broken = found_whole(main, mounted)
    assert broken == {}
    assert (found / "pretrained/net-nf4/model.safetensors").read_bytes() == b"weights"
    assert not (package / "pretrained/net-nf4").exists()  # a mount is read-only


def test_a_base_in_its_place_is_used_there(main: ModuleType, mounted: Path, package: Path, apart: Path) -> None:
    shutil.move(apart / "base", package / "pretrained/net-nf4")
    assert found_whole(main, mounted) == (package, {})


def test_a_base_that_is_missing_or_changed_is_named(
    main: ModuleType, mounted: Path, apart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (apart / "base/model.safetensors").write_bytes(b"others!")
    assert list(found_whole(main, mounted)[1]) == ["pretrained/net-nf4/model.safetensors"]
    shutil.rmtree(apart)
    with pytest.raises(main.Problem, match="expected pretrained/net-nf4 in a dataset of its own"):
        found_whole(main, mounted)
    broken = found_whole(main, mounted, rerun=True)[1]
    assert sorted(broken) == ["pretrained/net-nf4/config.json", "pretrained/net-nf4/model.safetensors"]
    assert "problem: " in capsys.readouterr().out


def test_a_package_in_folders_is_used_where_it_stands(main: ModuleType, package: Path) -> None:
    assert main.unpacked(package, {}, package, False) == package


def test_two_packages_are_one_too_many(main: ModuleType, finished: Path, tmp_path: Path) -> None:
    mount(finished, tmp_path, "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    with pytest.raises(main.Problem, match=r"expected one package, found .*first and .*second"):
        main.find_package(tmp_path, False)
    assert main.find_package(tmp_path, True)[0] == tmp_path / "first"


def test_nothing_mounted_is_one_line_each(mounted: Path, package: Path, files: Path, working: Path) -> None:
    shutil.rmtree(files)
    assert "expected the competition's files (test.csv beside sample_submission.csv)" in kernel_error(
        run_kernel(mounted, working)
    )
    shutil.rmtree(package)
    assert "expected a package (a folder with MANIFEST.json), found none" in kernel_error(run_kernel(mounted, working))
    assert not working.joinpath("submission.csv").exists()


def test_a_broken_manifest_is_named(mounted: Path, package: Path, working: Path) -> None:
    (package / "MANIFEST.json").write_text('{"format": 1, "comp')
    line = kernel_error(run_kernel(mounted, working))
    assert "found none" in line
    assert str(package / "MANIFEST.json") in line


@pytest.mark.parametrize("name", ["parity.parquet", "members/words/fold1/member.json", "stack/ladder.json"])
def test_every_file_is_checked_to_the_last_byte(
    main: ModuleType, mounted: Path, package: Path, working: Path, name: str
) -> None:
    content = bytearray((package / name).read_bytes())
    content[len(content) // 2] ^= 1
    (package / name).write_bytes(content)
    line = kernel_error(run_kernel(mounted, working))
    assert name in line
    assert "expected sha256" in line
    (package / name).write_bytes(content + b" ")
    assert set(main.broken_files(package, manifest_of(package)["files"])) == {name}
    assert f"{name}: expected {len(content)} bytes" in kernel_error(run_kernel(mounted, working))
    (package / name).unlink()
    assert f"{name}: expected a file of the package, found No such file" in kernel_error(run_kernel(mounted, working))


def test_the_prior_stands_before_anything_else_can_fail(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    (package / "code/pipeline/kernel/run.py").write_text("import time\n\ntime.sleep(600)\n")
    accept(package)
    environment = {"PATH": os.environ["PATH"], "PODIUM_INPUT": str(mounted), "PODIUM_WORKING": str(working)}
    command = [sys.executable, str(KERNEL)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("prior written"):
                process.kill()
    assert process.returncode == -9
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    shares = manifest_of(package)["prior"]
    for line in read_csv(working / "submission.csv")[1:]:
        assert [float(cell) for cell in line[1:]] == [shares[name] for name in lmsys.classes]


def test_the_samples_order_and_columns_rule(
    main: ModuleType, mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    header, *lines = read_csv(files / "sample_submission.csv")
    order = [2, 0, 3, 1]
    shuffled = [[line[place] for place in order] for line in [header, *reversed(lines)]]
    write_csv(files / "sample_submission.csv", shuffled)
    working.mkdir()
    main.write_prior(files, manifest_of(package), working / "submission.csv", False)
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == len(lines)
    found = dict(zip(*read_csv(working / "submission.csv")[:2], strict=True))
    assert {name: float(found[name]) for name in lmsys.classes} == manifest_of(package)["prior"]


def test_the_test_files_ids_rule_where_the_sample_has_others(
    main: ModuleType, package: Path, files: Path, working: Path
) -> None:
    write_csv(files / "sample_submission.csv", read_csv(files / "sample_submission.csv")[:-3])
    working.mkdir()
    main.write_prior(files, manifest_of(package), working / "submission.csv", False)
    ids = [line[0] for line in read_csv(files / "test.csv")]
    assert [line[0] for line in read_csv(working / "submission.csv")] == ids


@pytest.mark.parametrize(
    ("sample", "test", "answered"),
    [
        (["1", "2", "3", "4"], ["1", "3"], "sample"),  # a part of them
        (["1", "2", "3"], ["1.0", " 2", "003"], "sample"),  # another writing
        (["00007", "00008"], ["7", "8"], "sample"),
        (["1", "2"], ["1", "2", "2"], "sample"),  # one twice
        (["1", "2", "3", "4"], ["1", "2", "3,4\nglued"], "sample"),  # rows glued together
        (["1", "2"], ["1", "2", "3"], "test"),
        (["1", "2"], ["8", "9"], "test"),  # a stale sample
        (["a"], ["b", "b", "c"], "test without repeats"),
        ([], ["1", "2"], "test"),
        (["1", "2"], [], "sample"),
        (["nan", "inf"], ["inf", "nan"], "sample"),
        (["9007199254740993", "9007199254740994"], ["9007199254740992", "9007199254740995"], "test"),  # one as floats
        (["12e456", "34e567"], ["56e678", "78e789"], "test"),  # infinite as floats
        (["1", "2"], ["1", "2", "\x1a"], "sample"),  # the end of a file, as DOS had it
    ],
)
def test_the_ids_to_answer(
    main: ModuleType, package: Path, files: Path, working: Path, sample: list, test: list, answered: str
) -> None:
    header = read_csv(files / "sample_submission.csv")[0]
    write_csv(files / "sample_submission.csv", [header, *([each, "0.3", "0.3", "0.4"] for each in sample)])
    write_csv(
        files / "test.csv", [["id", "prompt", "response_a", "response_b"], *([each, "", "", ""] for each in test)]
    )
    working.mkdir()
    main.write_prior(files, manifest_of(package), working / "submission.csv", True)
    expected = {"sample": sample, "test": test, "test without repeats": list(dict.fromkeys(test))}[answered]
    assert [line[0] for line in read_csv(working / "submission.csv")[1:]] == expected


@pytest.mark.parametrize("encoding", ["utf-16", "gzip", "no id column", "empty", "missing", "json"])
def test_a_test_file_that_cannot_be_read_leaves_the_samples_ids(
    main: ModuleType, package: Path, files: Path, working: Path, encoding: str
) -> None:
    ids = [line[0] for line in read_csv(files / "sample_submission.csv")[1:]]
    manifest, content = manifest_of(package), (files / "test.csv").read_bytes()
    if encoding == "missing":
        (files / "test.csv").unlink()
    elif encoding == "json":
        manifest["competition"]["test"] = "test.json"
        (files / "test.json").write_text(json.dumps([{"id": each} for each in ids[:3]]))
    else:
        changed = {
            "utf-16": content.decode().encode("utf-16"),
            "gzip": gzip.compress(content),
            "no id column": content.replace(b"id,", b"key,", 1),
            "empty": b"",
        }
        (files / "test.csv").write_bytes(changed[encoding])
    working.mkdir()
    main.write_prior(files, manifest, working / "submission.csv", True)
    assert [line[0] for line in read_csv(working / "submission.csv")[1:]] == ids


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("t.jsonl", '\n{"id": 1, "text": "a"}\n\n{"id": 2, "text": "b"}\n \n', ["1", "2"]),
        ("t.jsonl", '{"id": 1, "text": "a"}\n{"id": 2, "te\n[3]\n{"id": 4, "text": "b"}\n', ["1", "4"]),
        ("t.jsonl", '{"id": 1, "text": "a"}\n{"text": "b"}\n{"id": 3, "text": "c"}\n', ["1", "3"]),
        ("t.jsonl", '{"id": 7.50, "text": "a"}\n{"id": 1E5, "text": "b"}\n', ["7.50", "1E5"]),
        ("t.json", '[{"id": 7.50, "text": "a"}, {"id": null, "text": "b"}, {"id": NaN, "text": "c"}]', ["7.50"]),
        ("t.json", '[{"id": 1, "text": "a"}, {"text": "b"}]', ["1"]),
        ("t.json", '\n{"id": ' + "9" * 5000 + ', "text": "a"}\n{"text": "b"}\n{"id": "\u2028", ', ["9" * 5000]),
        ("t.json", '{"id": {"0": 5}, "text": {"0": "a"}}\n', ["5"]),
        ("t.json", '{"id": [5, 6.50], "text": ["a", "b"]}', ["5", "6.50"]),
        ("t.json", '[{"id": 1, "text": "a"}, {"id": ' + "9" * 5000 + ', "text": "b"}]', ["1", "9" * 5000]),
        ("t.jsonl", r'{"id": "a\ud800", "text": "a"}', ["a\ufffd"]),
        ("t.parquet", {"id": [b"a", b"\xc3\xa9"], "text": [b"x", b"y"]}, ["a", "é"]),
        ("t.parquet", {"id": ["1", None], "text": ["a", "b"]}, ["1"]),
        ("t.parquet", {"id": [1.5, math.nan], "text": ["a", "b"]}, ["1.5"]),
    ],
)
def test_the_prior_finds_the_ids_that_the_kernels_reader_finds(
    main: ModuleType, tmp_path: Path, name: str, content: str | dict, ids: list[str]
) -> None:
    if isinstance(content, str):
        (tmp_path / name).write_text(content, encoding="utf-8")
    else:
        pl.DataFrame(content).write_parquet(tmp_path / name)
    competition = replace(SINGLE, test=name)
    read = read_test(tmp_path / name, competition, strict=False)
    assert [each for each in read["id"] if each] == ids
    assert main.read_ids(tmp_path / name, asdict(competition), True) == (["id"], ids)


SAMPLE = "id,winner_model_a,winner_model_b,winner_tie\n1,0.3,0.3,0.4\n"


@pytest.mark.parametrize("earlier", ["", "id\n9\n"])
def test_where_not_even_the_prior_can_be_made_the_sample_is_copied(
    mounted: Path, package: Path, files: Path, working: Path, earlier: str
) -> None:
    (files / "sample_submission.csv").write_text(SAMPLE)
    write_manifest(package, manifest_of(package) | {"competition": "a word"})
    working.mkdir()
    if earlier:  # another run's
        (working / "submission.csv").write_text(earlier)
    done = run_kernel(mounted, working, rerun=True)
    assert done.returncode == 0 and "AttributeError" in done.stdout and "the sample submission" in done.stdout
    assert (working / "submission.csv").read_text() == SAMPLE
    assert not list(working.glob(".*"))
    assert run_kernel(mounted, working.with_name("rehearsal")).returncode == 2
    assert not (working.with_name("rehearsal") / "submission.csv").exists()


def test_a_signal_takes_neither_exit_code_nor_submission(mounted: Path, package: Path, working: Path) -> None:
    (package / "code/pipeline/kernel/run.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    accept(package, "code/pipeline/kernel/run.py")
    done = run_kernel(mounted, working, rerun=True)
    assert done.returncode == 0 and "problem: ended by signal 11; the submission stays" in done.stdout
    assert len(read_csv(working / "submission.csv")) == 25


def test_half_a_surrogate_pair_in_an_id_is_no_end(main: ModuleType, package: Path, files: Path, working: Path) -> None:
    manifest = manifest_of(package)
    manifest["competition"]["test"] = "test.json"
    (files / "test.json").write_text(json.dumps([{"id": f"{number}\ud800"} for number in range(99)]))
    working.mkdir()
    main.write_prior(files, manifest, working / "submission.csv", True)
    assert [line[0] for line in read_csv(working / "submission.csv")[1:]][:2] == ["0\ufffd", "1\ufffd"]


def test_quotes_after_a_backslash_and_commas_in_the_sample(
    main: ModuleType, package: Path, files: Path, working: Path
) -> None:
    manifest = manifest_of(package)
    manifest["competition"] |= {"quotes": "backslash", "separator": "\t"}
    (files / "test.csv").write_text('id\tprompt\ta\tb\n1\t"a 5\\" pipe"\tx\ty\n2\tz\tx\ty\n')
    header = read_csv(files / "sample_submission.csv")[0]
    write_csv(files / "sample_submission.csv", [header, ["1", "0.3", "0.3", "0.4"]])
    working.mkdir()
    main.write_prior(files, manifest, working / "submission.csv", True)
    assert [line[0] for line in read_csv(working / "submission.csv")[1:]] == ["1", "2"]


@pytest.mark.parametrize("sink", ["full", "closed", "ascii"])
def test_the_log_cannot_fail(mounted: Path, files: Path, working: Path, lmsys: Competition, sink: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PODIUM_INPUT": str(mounted), "PODIUM_WORKING": str(working)}
    environment |= {
        "KAGGLE_IS_COMPETITION_RERUN": "1",
        "PYTHONIOENCODING": "ascii:strict",
        "PODIUM_BUDGET_SECONDS": "1",
    }
    odd = files.rename(files.with_name("größe-\udcff"))
    reader, writer = os.pipe()
    if sink != "ascii":
        os.close(reader)
    with open("/dev/full", "w") as full:
        out = {"full": full, "closed": writer, "ascii": writer}[sink]
        done = subprocess.run([sys.executable, str(KERNEL)], env=environment, stdout=out, stderr=out, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert validate_submission(working / "submission.csv", odd / "sample_submission.csv", lmsys) == 24
    if sink == "ascii":
        with os.fdopen(reader, "rb") as log:
            assert b"gr\\xf6\\xdfe-\\udcff" in log.read()


def test_assertions_and_docstrings_are_there_whatever_the_environment_says(
    mounted: Path, package: Path, working: Path
) -> None:
    told = "import os, sys\nrun = lambda *_: print('optimised', sys.flags.optimize, os.environ.get('PYTHONOPTIMIZE'))\n"
    (package / "code/pipeline/kernel/run.py").write_text(told)
    accept(package)
    done = run_kernel(mounted, working, rerun=True, PYTHONOPTIMIZE="2")
    assert done.returncode == 0
    assert "optimised 0 None" in done.stdout


def test_odd_files_give_a_prior_too(main: ModuleType, package: Path, files: Path, working: Path) -> None:
    cell = "x" * 1_000_000
    test = f'\ufeffid,prompt,response_a,response_b\r\n"a,""1",{cell},"line\nbreak",\r\n\r\nü2,,,\r\n'
    (files / "test.csv").write_bytes(test.encode() + b"\xff3,\xff,,\r\n")
    (files / "sample_submission.csv").write_text("id,winner_model_a,winner_model_b,winner_tie\n")
    working.mkdir()
    main.write_prior(files, manifest_of(package), working / "submission.csv", False)
    written = (working / "submission.csv").read_bytes().splitlines()
    assert [line.rsplit(b",", 3)[0] for line in written[1:]] == [b'"a,""1"', "ü2".encode(), b"\xff3"]


def test_a_sample_with_other_columns_is_an_error_and_in_a_rerun_is_not_followed(
    main: ModuleType, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    header, *lines = read_csv(files / "sample_submission.csv")
    write_csv(files / "sample_submission.csv", [[*header[:-1], "winner_both"], *lines])
    working.mkdir()
    with pytest.raises(main.Problem, match=r"expected the columns id, winner_model_a, .*, found .*winner_both"):
        main.write_prior(files, manifest_of(package), working / "submission.csv", False)
    main.write_prior(files, manifest_of(package), working / "submission.csv", True)
    assert read_csv(working / "submission.csv")[0] == [lmsys.id, *lmsys.classes]


def test_the_clock_starts_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import importlib.util, sys, time\ntime.sleep(0.4)\n"
        "spec = importlib.util.spec_from_file_location('kernel_main', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "print(time.monotonic() - module.process_start())\n"
    )
    command = [sys.executable, str(tmp_path / "late.py"), str(KERNEL)]
    age = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert age >= 0.4


def test_an_old_process_does_not_use_up_the_budget(main: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(main.time, "clock_gettime", lambda clock: boot + 1000.0)
    before = time.monotonic()
    assert before <= main.process_start() <= time.monotonic()


def test_the_script_needs_the_standard_library_alone_and_stays_thin() -> None:
    imported = libraries("main", KERNEL.parent)
    assert imported == []
    assert len(KERNEL.read_text().splitlines()) < 400


def test_kernel_metadata_follows_kaggles_rules() -> None:
    metadata = json.loads((KERNEL.parent / "kernel-metadata.json").read_text())
    owner, slug = metadata["id"].split("/")
    assert owner
    assert metadata["title"].lower().replace(" ", "-") == slug  # else Kaggle makes a slug of its own from the title
    assert 5 <= len(metadata["title"]) <= 50
    assert (KERNEL.parent / metadata["code_file"]) == KERNEL
    assert (metadata["language"], metadata["kernel_type"]) == ("python", "script")
    switches = {key: metadata[key] for key in ("is_private", "enable_gpu", "enable_tpu", "enable_internet")}
    assert switches == {"is_private": True, "enable_gpu": True, "enable_tpu": False, "enable_internet": False}
    assert metadata["docker_image_pinning_type"] == "original"
    assert metadata["machine_shape"] == "NvidiaTeslaT4"
    assert all(len(source.split("/")) == 2 for source in metadata["dataset_sources"])
    assert metadata["competition_sources"] == [COMPETITION]
    assert (metadata["kernel_sources"], metadata["model_sources"]) == ([], [])


def test_an_unknown_format_is_no_package(main: ModuleType, mounted: Path, package: Path) -> None:
    write_manifest(package, manifest_of(package) | {"format": 2})
    with pytest.raises(main.Problem, match="found none"):
        main.find_package(mounted, False)
