"""`make check` says before anything is trained what a late stage would refuse: one line for each, with its key."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from competition_files import LMSYS
from support import ROOT, preference_rows, write_artifacts, write_external

from pipeline import check
from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.check import Findings, Plan, check_sections, check_writable, look
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.data.demo import generate, write
from pipeline.errors import PodiumError
from pipeline.files import check_watched
from pipeline.validation import validated

NETWORK: dict[str, Any] = {"max_tokens": 64, "training": {"schedule": {"rate": 1e-4}}}
ENCODER = NETWORK | {"kind": "encoder", "backbone": "bert"}
DECODER = NETWORK | {"kind": "decoder", "backbone": "llama"}
LINEAR = {"kind": "tabular", "backbone": "none", "model": "logistic"}
SCRATCH = {"source": "scratch", "hidden": 32, "heads": 2, "layers": 2, "positions": 128}
ALL = frozenset(check.EARLY)


def params(**changes: Any) -> Params:
    """Settings with one linear member, three folds and two backbones; `changes` replace whole sections."""
    given = {
        "data": {"path": "votes", "competition": "lmsys"},
        "demo": {"train_rows": 100, "test_rows": 10, "seed": 1},
        "folds": {"ids": [0, 1, 2], "holdout": 0.1, "seed": 1},
        "threads": 1,
        "members": {"words": LINEAR},
        "stack": {"candidates": ["mean"], "seed": 1},
        "package": {"owner": "me", "slug": "some-package", "title": "Some package", "budget_seconds": 32400},
    } | changes
    backbones = {"none": {"source": "none"}, "bert": SCRATCH | {"architecture": "deberta-v3"}}
    backbones |= {"llama": SCRATCH | {"architecture": "llama"}} | changes.get("backbones", {})
    return validated(Params, given | {"backbones": backbones}, "params.yaml")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of a competition and a plentiful machine."""
    write(generate(120, 10, 1), tmp_path / "votes")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "external").mkdir()
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "free_disk", lambda: 10**12)
    monkeypatch.setattr(check, "memory", lambda: ("memory", 10**11))
    return tmp_path


def found(given: Params, fresh: frozenset[str] = frozenset()) -> Findings:
    """What the checks find, after a look that each finding is one line."""
    findings = look(Plan(given, load_competition(given.data.competition), Artifacts(), fresh))
    assert [name for name, _, _ in findings.looked] == list(check.CHECKS)
    assert not any("\n" in line for line in (*findings.errors, *findings.warnings))
    return findings


def prepared(place: Path, groups: int, folds: np.ndarray | None = None) -> pl.DataFrame:
    """What `prepare` leaves of 60 rows with that many different prompts, and maybe `folds`."""
    rows = preference_rows(60)
    rows = rows.with_columns(pl.Series("prompt", [[f"Question {row % groups}?"] for row in range(60)]))
    write_artifacts(place, rows, load_competition("lmsys"), np.arange(60) % 3 if folds is None else folds)
    return rows


def backbone(folder: Path, **config: Any) -> Path:
    """A folder with what a backbone needs, without a sound byte in it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"")
    return folder


ROBERTA = {"model_type": "roberta", "hidden_size": 1024, "num_hidden_layers": 24, "vocab_size": 50265}
ROBERTA |= {"intermediate_size": 4096, "num_attention_heads": 16, "max_position_embeddings": 514}


def test_a_sound_plan_is_fine(place: Path) -> None:
    findings = found(params(members={"words": LINEAR, "one": ENCODER, "two": DECODER}))
    assert findings.errors == findings.warnings == []
    assert {word for _, _, word in findings.looked} == {"fine"}


def test_the_competitions_files_are_glanced_at(place: Path) -> None:
    (place / "votes/test.csv").write_text("id,prompt\n1,x\n")
    assert found(params()).errors == ['votes/test.csv: missing column "response_a", found "id", "prompt"']
    write(generate(120, 10, 1), place / "votes")
    table = pl.read_csv(place / "votes/train.csv", infer_schema=False)
    table.with_columns(pl.lit("7").alias(LMSYS.label.one_hot[0])).write_csv(place / "votes/train.csv")
    assert "votes/train.csv: row 1 (id " in found(params()).errors[0]
    assert "no such folder" in found(params(data={"path": "vote", "competition": "lmsys"})).errors[0]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: (folder / "x").symlink_to("nothing"), "x: expected a file, found a link to nothing, a pipe or"),
        (lambda folder: (folder / "x").symlink_to("x"), "x: expected a file, found a link to nothing, a pipe or"),
        (lambda folder: os.mkfifo(folder / "x"), "x: expected a file, found a link to nothing, a pipe or"),
        (lambda folder: (folder / "\udcff").mkdir(), r"'\\udcff': DVC reads names in UTF-8 alone"),
    ],
)
def test_what_dvc_cannot_read_is_said_first(make: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/file").write_text("")
    (tmp_path / "folder").symlink_to("below")
    check_watched(tmp_path)
    make(tmp_path / "below")
    with pytest.raises(PodiumError, match=expected):
        check_watched(tmp_path)


def test_what_the_demo_will_generate_is_not_missed(place: Path) -> None:
    assert found(params(data={"path": "data/demo", "competition": "lmsys"})).errors == []


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (ENCODER | {"max_tokens": 600}, ""),  # deberta-v3 has no limit
        (DECODER | {"max_tokens": 600}, "members.one.max_tokens: 600 is more than the 128 positions of backbone llama"),
        (
            ENCODER | {"backbone": "llama"},
            "members.one: kind encoder needs an encoder as backbone; llama is an decoder",
        ),
        (
            ENCODER | {"training": NETWORK["training"] | {"reinit_layers": 3}},
            "members.one.training.reinit_layers: 3 is more than the 2 layers of backbone bert",
        ),
        (ENCODER | {"network": "external/mine.py"}, "members.one.network: external/mine.py: no such file"),
        (ENCODER | {"network": "external/broken.py"}, "external/broken.py: SyntaxError: "),
        (ENCODER | {"network": "external/empty.py"}, "external/empty.py: expected a function build(backbone, task"),
        (ENCODER | {"network": "external/good.py"}, ""),
        (
            {"kind": "external", "backbone": "none", "file": "external/x.csv"},
            "members.one.file: external/x.csv: no such",
        ),
    ],
)
def test_a_member_that_cannot_be(place: Path, member: dict[str, Any], expected: str) -> None:
    for name, text in {"broken": "def build(:", "empty": "x = 1", "good": "def build(b, t, c): raise 1"}.items():
        (place / f"external/{name}.py").write_text(text)
    errors = found(params(members={"words": LINEAR, "one": member})).errors
    assert len(errors) == (1 if expected else 0), errors
    assert not expected or expected in errors[0]


def test_both_orders_need_sides_that_change_places(place: Path) -> None:
    data = {"path": "data/demo", "competition": "spooky"}
    errors = found(params(members={"one": ENCODER | {"inference": {"swap": True}}}, data=data)).errors
    assert errors == ["params.yaml: members.one.inference.swap: needs two sides that may change places"]


def test_a_number_has_no_right_answer_to_scale(place: Path) -> None:
    data = {"path": "data/demo", "competition": "feedback-ell"}
    scaled = ENCODER | {"training": NETWORK["training"] | {"dsgd": {}}}
    errors = found(params(members={"one": scaled}, data=data)).errors
    assert errors == ["params.yaml: members.one.training.dsgd: a number is never simply right: leave it out"]
    assert found(params(members={"one": scaled})).errors == []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: None, "backbones.mine.path: backbone: no such folder"),
        (lambda folder: folder.mkdir(), "backbones.mine.path: backbone: no config.json"),
        (lambda folder: (backbone(folder), (folder / "config.json").write_text("{"))[0], "config.json: expected JSON"),
        (lambda folder: (backbone(folder, **ROBERTA) / "model.safetensors").unlink(), "no weights: expected one of"),
        (lambda folder: (backbone(folder, **ROBERTA) / "tokenizer.json").unlink(), "no tokenizer: expected one of"),
        (lambda folder: backbone(folder, model_type="robot"), 'causal language model, found "robot"'),
        (lambda folder: backbone(folder, **ROBERTA), "max_tokens: 600 is more than the 512 positions of backbone mine"),
    ],
)
def test_a_folder_that_is_no_fitting_backbone(place: Path, make: Callable[[Path], Any], expected: str) -> None:
    make(Path("backbone"))
    asked = {"one": ENCODER | {"backbone": "mine", "max_tokens": 600}}
    errors = found(params(members=asked, backbones={"mine": {"source": "path", "path": "backbone"}})).errors
    assert len(errors) == 1
    assert expected in errors[0]


def test_text_for_pretraining_is_there(place: Path) -> None:
    pretrain = {"epochs": 1, "schedule": {"rate": 1e-3}, "files": ["external/more.txt"]}
    bert = SCRATCH | {"architecture": "deberta-v3", "pretrain": pretrain}
    errors = found(params(backbones={"bert": bert})).errors
    assert errors == ["params.yaml: backbones.bert.pretrain.files: external/more.txt: no such file"]


def test_a_teammates_file_has_every_id(place: Path, lmsys: Competition) -> None:
    mate = {"kind": "external", "backbone": "none", "file": "external/mate.csv"}
    rows = prepared(place, 30, np.where(np.arange(60) < 30, 0, np.where(np.arange(60) < 50, 1, HOLDOUT)))
    write_external(place, "mate", rows.head(59), lmsys, 1.0)
    asked = params(members={"words": LINEAR, "mate": mate}, folds={"ids": [0, 1], "holdout": 0.1, "seed": 1})
    lacking = "external/mate.csv: 1 of 60 ids of the training rows are missing, the first is 1059"
    assert found(asked, frozenset(["prepare"])).errors == [lacking]
    assert found(asked, ALL).errors == [lacking]
    assert "ids of the training rows are missing" in found(asked).errors[0]  # those of train.csv are other ones
    partial = params(
        members={"words": LINEAR, "mate": mate | {"folds": [0]}}, folds={"ids": [0, 1], "holdout": 0.1, "seed": 1}
    )
    assert found(partial, ALL).errors == [lacking.replace("60", "40")]
    assert found(params(members={"mate": mate})).warnings == [
        "params.yaml: members: all are of kind external, and know no row of a hidden test file: it gets the prior"
    ]


def test_an_average_of_fold_models_needs_a_holdout_to_be_measured_on(place: Path) -> None:
    none, package = {"ids": [0, 1], "holdout": 0.0, "seed": 1}, params().package
    asked = replace(params(folds=none), package=replace(package, average=True))
    assert found(asked).errors == [
        "params.yaml: package.average: expected folds.holdout above 0: only a holdout tells its loss"
    ]
    assert found(params(folds=none)).errors == []


@pytest.mark.parametrize(
    ("groups", "members", "ids", "expected"),
    [
        (
            3,
            {"a": LINEAR},
            [0, 1, 2],
            "3 folds and a holdout need at least 4 different first prompts, the training rows",
        ),
        (4, {"a": LINEAR}, [0, 1], "folds.ids: with 2 folds the stack needs 4 different first prompts"),
        (20, {"a": LINEAR | {"folds": [0]}, "b": LINEAR | {"folds": [1]}}, [0, 1, 2], "by all (a [0], b [1]); nothing"),
        (4, {"a": LINEAR, "b": LINEAR | {"folds": [0, 1]}}, [0, 1, 2], "with 2 folds the stack needs 4 different"),
        (20, {"a": LINEAR, "b": LINEAR | {"folds": [0, 1]}}, [0, 1, 2], ""),
    ],
)
def test_folds_that_the_stack_cannot_use(
    place: Path, groups: int, members: dict[str, Any], ids: list[int], expected: str
) -> None:
    prepared(place, groups)
    errors = found(
        params(members=members, folds={"ids": ids, "holdout": 0.1, "seed": 1}), frozenset(["prepare"])
    ).errors
    assert len(errors) == (1 if expected else 0), errors
    assert not expected or expected in errors[0]


def test_a_disk_and_a_memory_that_are_too_small(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone(place / "backbone", **ROBERTA)
    asked = params(
        members={"one": ENCODER | {"backbone": "mine"}}, backbones={"mine": {"source": "path", "path": "backbone"}}
    )
    assert found(asked).warnings == []
    monkeypatch.setattr(check, "free_disk", lambda: 5 * 10**9)
    monkeypatch.setattr(check, "memory", lambda: ("memory", 4 * 10**9))
    findings = found(asked)
    assert len(findings.errors) == 1
    assert re.match(r"the disk: about 11\.\d GB are needed .*, 5\.0 GB are free", findings.errors[0])
    assert findings.warnings == [
        "params.yaml: members.one.backbone: mine needs about 5.7 GB in training, before any batch; "
        "the memory has 4.0 GB"
    ]


PRETRAIN = {"epochs": 1, "schedule": {"rate": 5e-5}}


def test_a_fold_wants_no_more_devices_than_there_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = ENCODER | {"training": NETWORK["training"] | {"devices": 4}}
    scratch = SCRATCH | {"architecture": "deberta-v3", "pretrain": PRETRAIN | {"devices": 3}}
    asked = params(
        members={"words": LINEAR, "one": member},
        backbones={"bert": scratch},
        students={"small": ENCODER | {"teachers": {"members": ["words"]}}},
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(check, "cards", lambda: 4)
    assert found(asked).errors == []
    monkeypatch.setattr(check, "cards", lambda: 2)
    assert found(asked).errors == [
        "params.yaml: backbones.bert.pretrain.devices: expected at most 2, the GPUs of this machine, found 3",
        "params.yaml: members.one.training.devices: expected at most 2, the GPUs of this machine, found 4",
    ]
    monkeypatch.setattr(check, "cards", lambda: 0)
    monkeypatch.setattr(check.os, "cpu_count", lambda: 3)
    findings = found(asked)
    assert findings.errors == []
    expected = "params.yaml: members.one.training.devices: without a GPU 4 processes of threads 1 share 3 cores"
    assert findings.warnings == [expected]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert found(asked).warnings == []


def test_a_backbone_that_is_too_large_to_be_trained_as_a_whole_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone(place / "backbone", **ROBERTA)
    mine = {"source": "path", "path": "backbone"}
    monkeypatch.setattr(check, "memory", lambda: ("GPU", 4 * 10**9))
    asked = params(members={"one": ENCODER | {"backbone": "mine"}}, backbones={"mine": mine | {"pretrain": PRETRAIN}})
    assert found(asked).errors == [
        "params.yaml: backbones.mine.pretrain: trains all weights, which takes about 5.7 GB before any batch; "
        "the GPU has 4.0 GB: set epochs to 0"
    ]
    monkeypatch.setattr(check, "memory", lambda: ("GPU", 6 * 10**9))
    assert found(asked).errors == []


@pytest.mark.parametrize(("seconds", "warned"), [(60, True), (300, False), (43200, False), (90000, True)])
def test_a_budget_that_no_competition_has(place: Path, seconds: int, warned: bool) -> None:
    package = {"owner": "me", "slug": "some-package", "title": "Some package", "budget_seconds": seconds}
    assert [f"found {seconds}" in line for line in found(params(package=package)).warnings] == [True] * warned


def test_libraries_that_the_package_would_miss(place: Path) -> None:
    (place / ".venv").unlink()
    assert found(params()).errors == [f".venv/wheels: expected a wheel of {wheel()}, found none; run `make setup`"]


def wheel() -> str:
    """The first library that every package brings along, with its version."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return next(line for line in lines if line.startswith("lightgbm==")).split()[0].replace("==", " ")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "there" / "yet")
    (tmp_path / "file").write_text("")
    with pytest.raises(PodiumError, match=r"file: DVC must write there, and cannot: Not a directory"):
        check_writable(tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("machine", "precision", "errors", "warnings"),
    [
        ("t4x2", "nf4", 0, 0),
        ("t4x2", "fp16", 1, 0),
        ("t4x2", "bf16", 1, 1),
        ("l4x4", "bf16", 0, 0),
        ("h100", "fp32", 0, 0),
        ("cpu", "fp32", 1, 0),
    ],
)
def test_a_network_must_fit_on_the_kernels_machine(
    place: Path, monkeypatch: pytest.MonkeyPatch, machine: str, precision: str, errors: int, warnings: int
) -> None:
    """A network of ten billion weights: 6 GB in NF4, 20 in half precision, 40 in fp32."""
    monkeypatch.setattr(check, "foreseen", lambda *_: {"family": "decoder", "parameters": 10**10})
    monkeypatch.setattr(check, "check_network", lambda *_: None)
    package = {"owner": "me", "slug": "some-package", "title": "Some package", "budget_seconds": 600}
    findings = found(
        params(
            members={"words": LINEAR, "big": DECODER | {"inference": {"precision": precision}}},
            package=package | {"machine": machine},
        )
    )
    about = "members.big.inference.precision: "
    assert len([line for line in findings.errors if about in line]) == errors
    assert len([line for line in findings.warnings if about in line]) == warnings
    if errors and machine == "t4x2":
        says = f"llama in {precision} takes 20.0 GB, a card of package.machine t4x2 has 16 GB"
        assert any(line.endswith(says) for line in findings.errors)


def test_rows_from_elsewhere_are_looked_at(place: Path) -> None:
    write(generate(20, 5, 2), place / "external" / "more")
    source = {"path": "external/more", "competition": "lmsys"}
    member = ENCODER | {"extra": ["more"]}
    assert not found(params(members={"words": LINEAR, "one": member}, extra={"more": source})).errors
    assert found(params(extra={"more": source})).warnings == ["params.yaml: extra.more: no member's `extra` names it"]
    for changed, expected in (
        ({"path": "external/nowhere"}, "extra.more.path: external/nowhere/train.csv: no such file"),
        (
            {"competition": "spooky"},
            "extra.more.competition: task: expected preference, as in the scored one, found text",
        ),
    ):
        errors = found(params(members={"words": LINEAR, "one": member}, extra={"more": source | changed})).errors
        assert errors == [f"params.yaml: {expected}"]


def test_a_students_states_are_as_wide_as_its_teachers(place: Path) -> None:
    wide = SCRATCH | {"architecture": "deberta-v3", "hidden": 64}
    student = ENCODER | {"teachers": {"members": ["large"], "cosine": 1.0}}
    asked = params(
        members={"words": LINEAR, "large": ENCODER | {"backbone": "wide"}},
        students={"small": student},
        backbones={"wide": wide},
    )
    assert found(asked).errors == [
        "params.yaml: students.small.teachers.cosine: its pooled states have 32 numbers, those of large 64: leave "
        "cosine out"
    ]
    refitted = params(students={"small": ENCODER | {"teachers": {"members": ["words"]}}}, refit=True)
    assert found(refitted).warnings == [
        "params.yaml: refit: small: students are not trained on every row; their fold models answer alone"
    ]


@pytest.mark.parametrize("section", ["students", "extra"])
def test_a_section_that_dvcs_graph_reads_is_asked_for(section: str) -> None:
    whole = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    check_sections(whole)
    del whole[section]
    with pytest.raises(PodiumError, match=rf'params.yaml: missing key "{section}"; where there is none write'):
        check_sections(whole)
