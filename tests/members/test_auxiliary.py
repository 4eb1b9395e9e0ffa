"""Auxiliary tasks from the user's files to the saved fold model: what is read, left out, learned, and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from networks import decoder, encoder, ready, start_of
from support import ROOT, preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.data.split import split_rows
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file
from pipeline.members.beside.auxiliary import auxiliary_rows, source_of
from pipeline.members.context import Source, Start, read_start
from pipeline.members.fold import train_fold
from pipeline.members.start import resolve
from pipeline.settings.auxiliary import Auxiliary
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.guard import Seen
from pipeline.training.prior import Prior
from stages import finetune

ROWS, FOLDS = preference_rows(60), np.repeat([0, 1, -1], [12, 40, 8])
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
DATA = {
    "likeness": {"task": "pair", "texts": {"a": "a", "b": "b"}, "symmetric": True, "outcome": "numbers"}
    | {"label": {"columns": ["score"]}, "metric": "pearson"},
    "tone": {"task": "text", "texts": {"text": "t"}, "outcome": "labels", "label": {"columns": ["rude", "long"]}}
    | {"metric": "mean_auc"},
    "origin": {"task": "text", "texts": {"text": "t"}, "classes": "auto", "label": {"column": "from"}}
    | {"metric": "log_loss", "quotes": "backslash"},
}
TASKS = {
    name: {"path": f"external/{name}", "competition": f"external/{name}/competition.yaml", "weight": weight}
    for name, weight in {"tone": 1.0, "likeness": 0.5, "origin": 1.0}.items()
}


def write_data(root: Path, count: int = 24) -> None:
    """Folders external/<name> below `root`, of `count` rows each, with their YAML."""
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, 8)) for _ in range(2 * count)]
    columns: dict[str, dict[str, Any]] = {
        "likeness": {"a": texts[:count], "b": texts[count:], "score": rng.integers(0, 6, count)},
        "tone": {"t": texts[:count], "rude": rng.integers(0, 2, count), "long": rng.integers(0, 2, count)},
        "origin": {"t": [f'say \\"{each}\\"' for each in texts[count:]], "from": rng.choice(["x", "y", "z"], count)},
    }
    for name, each in columns.items():
        folder = root / "external" / name
        folder.mkdir(parents=True)
        (folder / "competition.yaml").write_text(yaml.safe_dump(DATA[name] | {"name": name, "id": "id"}))
        frame = pl.DataFrame({"id": np.arange(count)} | each)
        lines = [",".join(frame.columns), *(",".join(f'"{cell}"' for cell in row) for row in frame.iter_rows())]
        (folder / "train.csv").write_text("\n".join(lines) + "\n")


def source(name: str) -> Source:
    return source_of(f"external/{name}", load_competition(f"external/{name}/competition.yaml"))


@pytest.fixture
def root(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, in which the working folder is, with the auxiliary sets."""
    monkeypatch.chdir(tmp_path)
    ready(tmp_path, ROWS, lmsys, FOLDS, backbones)
    write_data(tmp_path)
    return tmp_path


def started(settings: Any, lmsys: Competition, name: str = "mine") -> Start:
    """The start of a member whose settings may have auxiliary tasks; its file is written."""
    tasks = settings.auxiliary.learned if settings.auxiliary else {}
    return start_of(name, settings, lmsys, Path("artifacts"), {each: source(each) for each in tasks})


def trained(settings: Any, lmsys: Competition, name: str = "mine") -> dict[str, Any]:
    """The receipt of fold 0."""
    start, artifacts = started(settings, lmsys, name), Artifacts()
    train_fold(split_rows(ROWS, artifacts.folds(), 0), start, 0, artifacts)
    return read_json(artifacts.receipt(name, 0))


def hashes(name: str = "mine") -> dict[str, str]:
    """Hash of everything that fold 0 left but its receipt, which names the start file."""
    folders = [Path("artifacts/members") / name, Path("artifacts/oof") / name]
    found = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder.parent)): sha256_file(file) for folder in folders for file in found
            if file.is_relative_to(folder)}  # fmt: skip


def beside(*names: str, **changed: Any) -> dict[str, Any]:
    return {"auxiliary": {"tasks": {name: TASKS[name] for name in names}} | changed}


TRAINING = {"epochs": 2, "dropout": 0.1, "inner": 0.2}


@pytest.mark.parametrize("kind", [encoder, partial(decoder, lora={"rank": 4})])
def test_tasks_of_other_outcomes_are_learned_and_only_the_scored_head_is_kept(
    kind: Any, root: Path, lmsys: Competition
) -> None:
    told = trained(kind(TRAINING, **beside("tone", "likeness", "origin")), lmsys)["training"]
    trained(kind(TRAINING), lmsys, "plain")
    assert list(told["auxiliary"]) == ["likeness", "origin", "tone"]
    assert all(each["rows"] == 24 and each["left_out"] == 0 for each in told["auxiliary"].values())
    # 2 epochs of ceil(32 / 8) steps; as many of each other task on top of them, and the curves are apart.
    steps = [told["curve"], *(each["curve"] for each in told["auxiliary"].values())]
    own = len(told["curve"])
    assert [len(each) for each in steps] == [own] * 4 and told["attempts"][0]["of"] == 4 * own
    assert sorted(step for curve in steps for step, _ in curve) == list(range(1, 4 * own + 1))
    assert [step for step, _ in told["inner"]] == [2 * own, 4 * own]
    sizes = [
        {file.relative_to(folder): file.stat().st_size for file in folder.rglob("*.safetensors")}
        for folder in (Path("artifacts/members/mine/fold0"), Path("artifacts/members/plain/fold0"))
    ]
    assert sizes[0] == sizes[1] and sizes[0]
    names = [sorted(each.name for each in Path(f"artifacts/members/{m}/fold0").rglob("*")) for m in ("mine", "plain")]
    assert names[0] == names[1]


def test_the_guard_counts_the_scored_steps_alone(
    root: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[int, int]] = []

    def spy(steps: list[Seen], total: int, prior: Prior) -> None:
        looks.append((len(steps), total))

    monkeypatch.setattr(loop, "alarm", spy)
    trained(encoder({"epochs": 2}, **beside("tone", "likeness", until=0.5)), lmsys)
    assert looks[:10] == [(done, 10) for done in range(1, 11)]  # 2 epochs of 40 rows


def test_neither_the_order_of_the_tasks_nor_one_of_weight_0_changes_a_bit(root: Path, lmsys: Competition) -> None:
    found = []
    unwanted = {"origin": TASKS["origin"] | {"weight": 0.0}}
    for tasks in (("tone", "likeness"), ("likeness", "tone")):
        settings = {"auxiliary": {"tasks": {name: TASKS[name] for name in tasks} | unwanted}}
        trained(encoder(TRAINING, **settings), lmsys)
        found.append(hashes())
    settings = {"auxiliary": {"tasks": unwanted}}
    assert "origin" not in trained(encoder(TRAINING, **settings), lmsys)["training"]["auxiliary"]
    alone = hashes()
    trained(encoder(TRAINING), lmsys)
    differing = {Path(name).name for name, each in hashes().items() if alone[name] != each}
    assert differing == {"member.json"}  # it holds the settings
    assert {Path(name).name for name, each in found[0].items() if found[1][name] != each} <= {"member.json"}
    assert found[0]["mine/fold0.parquet"] != alone["mine/fold0.parquet"]


def test_killed_again_and_again_it_ends_as_if_left_alone(
    root: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = encoder(TRAINING | {"ema": 0.1}, **beside("tone", "likeness", sampling="annealed", until=0.8))
    started(settings, lmsys)
    finetune.main("mine", 0, None)
    alone = hashes()
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    save, saved = Checkpoint.save, 0

    def killed(self: Checkpoint, *given: Any) -> None:
        nonlocal saved
        save(self, *given)
        saved += 1
        if saved % 8 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    kills = 0
    capsys.readouterr()
    while True:
        try:
            finetune.main("mine", 0, None)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 2 and capsys.readouterr().out.count("goes on after step") >= kills - 1
    assert hashes() == alone


@pytest.mark.parametrize(
    "technique",
    [
        {"awp": {}, "ema": 0.2},
        {"fgm": {}, "r_drop": {}, "proximal": {}},
        {"smart": {"form": "sift"}, "swa": 0.5, "runs": 2},
        {"mixout": {}, "head_first": {"epochs": 1}},
        {"deni": {"children": 1}},
    ],
    ids=lambda each: "-".join(each),
)
@pytest.mark.slow
def test_every_technique_works_beside_auxiliary_tasks(technique: Any, root: Path, lmsys: Competition) -> None:
    changed = {"epochs": 2, "dropout": 0.1} | technique
    told = trained(encoder(changed, **beside("tone", until=0.5)), lmsys)["training"]
    assert all(np.isfinite(loss) for _, loss in (*told["curve"], *told["auxiliary"]["tone"]["curve"]))
    assert 0 < len(told["auxiliary"]["tone"]["curve"]) < len(told["curve"])


def test_rows_with_a_text_of_fold_or_holdout_are_left_out(root: Path, lmsys: Competition, capsys: Any) -> None:
    file = root / "external/likeness/train.csv"
    parts = {"fold": ROWS[3], "holdout": ROWS[55], "train": ROWS[20]}
    texts = {name: row["b"][0][0] for name, row in parts.items()}
    spaced = texts["fold"].upper().replace(" ", "  ")
    more = [("f", spaced, "x"), ("h", "x", texts["holdout"]), ("t", texts["train"], "x"), ("q", "Question 1?", "x")]
    file.write_text(file.read_text() + "".join(f'"{i}","{a}","{b}","1"\n' for i, a, b in more))
    told = trained(encoder(**beside("likeness")), lmsys)["training"]
    assert told["auxiliary"]["likeness"]["left_out"] == 2
    assert "mine fold 0: likeness: 26 auxiliary rows, 2 left out" in capsys.readouterr().out
    start, split = started(encoder(**beside("likeness")), lmsys), split_rows(ROWS, Artifacts().folds(), 0)
    kept = auxiliary_rows(start, pl.concat([split.fold, split.holdout]), "x")["likeness"].rows["id"].to_list()
    # A text of a training row may stand there, and so may what is too short to tell anything.
    assert {"t", "q"} <= set(kept) and not {"f", "h"} & set(kept)
    assert len(auxiliary_rows(start, ROWS.head(0), "x")["likeness"].rows) == 28


def test_a_file_that_changed_or_has_no_row_left_is_one_line(root: Path, lmsys: Competition) -> None:
    start, file = started(encoder(**beside("tone")), lmsys), root / "external/tone/train.csv"
    theirs = auxiliary_rows(start, ROWS.head(0), "x")["tone"].rows
    # Fields of the other competition, as its own would be.
    apart = theirs.select("id", prompt="text", a="text", b="text")
    with pytest.raises(PodiumError, match=r"tone/train\.csv: every row has a text in common with the fold"):
        auxiliary_rows(start, apart, "x")
    file.write_text(file.read_text() + '"new","alpha","0","1"\n')
    with pytest.raises(PodiumError, match=r"tone/train\.csv: has changed since mine's start file was written; run"):
        auxiliary_rows(start, ROWS.head(0), "x")


def params_with(root: Path, auxiliary: Any, **member: Any) -> Any:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    about = {"kind": "encoder", "backbone": "bert", "max_tokens": 64, "training": {"schedule": {"rate": 1e-3}}}
    value["members"] = {"mine": about | member | {"auxiliary": auxiliary}}
    (root / "params.yaml").write_text(yaml.safe_dump(value))
    return load_params(root / "params.yaml")


def test_the_start_file_holds_what_decides_the_rows(root: Path, lmsys: Competition) -> None:
    params = params_with(root, {"tasks": {name: TASKS[name] for name in ("tone", "likeness", "origin")}})
    first = resolve("mine", params, lmsys, Artifacts())
    assert list(first["auxiliary"]) == ["likeness", "origin", "tone"]
    found = first["auxiliary"]
    assert found["likeness"]["competition"]["spread"] and found["origin"]["competition"]["classes"] == ("x", "y", "z")
    Path("start.json").write_text(json.dumps(first))
    assert read_start(Path("start.json")).auxiliary["origin"] == source("origin")
    file, yaml_file = (root / "external/likeness" / name for name in ("train.csv", "competition.yaml"))
    yaml_file.write_text(yaml_file.read_text().replace("pearson", "rmse"))
    assert resolve("mine", params, lmsys, Artifacts()) == first  # nothing is learned from a metric
    file.write_text(file.read_text() + '"new","alpha","beta","1"\n')
    assert resolve("mine", params, lmsys, Artifacts())["auxiliary"]["likeness"] != found["likeness"]
    file.unlink()
    with pytest.raises(PodiumError, match=r"external/likeness/train\.csv: no such file"):
        resolve("mine", params, lmsys, Artifacts())


WRONG = [
    ({"tasks": {}}, {}, r"auxiliary\.tasks: .*at least 1"),
    (
        {"tasks": {"tone": {"path": "../tone", "competition": "sst"}}},
        {},
        r"tone\.path: expected a file under ext",
    ),
    (
        {"tasks": {"tone": {"path": "external/t", "competition": "../t.yaml"}}},
        {},
        r"competition: expected a file under external/",
    ),
    ({"tasks": {"tone": TASKS["tone"] | {"weight": -1.0}}}, {}, r"tone\.weight: "),
    ({"tasks": {"tone": TASKS["tone"]}, "sampling": "random"}, {}, r"auxiliary\.sampling: "),
    ({"tasks": {"tone": TASKS["tone"]}, "until": 0.0}, {}, r"auxiliary\.until: "),
    (
        {"tasks": {"tone": TASKS["tone"]}},
        {"network": "external/own.py"},
        r"a head of ours each: leave out network",
    ),
]


@pytest.mark.parametrize(("auxiliary", "member", "told"), WRONG)
def test_wrong_settings_are_one_line(auxiliary: Any, member: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=told) as error:
        params_with(tmp_path, auxiliary, **member)
    assert "\n" not in str(error.value)


def test_an_unknown_competition_is_named_with_its_key(root: Path, lmsys: Competition) -> None:
    params = params_with(root, {"tasks": {"tone": TASKS["tone"] | {"competition": "qora"}}})
    with pytest.raises(PodiumError, match=r'members\.mine\.auxiliary\.tasks\.tone\.competition: .*"qora".*"quora"'):
        resolve("mine", params, lmsys, Artifacts())


def test_a_quick_look_cuts_every_task(root: Path, lmsys: Competition, capsys: pytest.CaptureFixture[str]) -> None:
    started(encoder(**beside("tone")), lmsys)
    finetune.main("mine", 0, 10)
    assert "quick look, tone: 10 rows" in capsys.readouterr().out


def test_learned_tasks_come_by_name_without_those_of_weight_0() -> None:
    asked = Auxiliary(tasks={"b": replace(ONE, weight=2.0), "c": replace(ONE, weight=0.0), "a": ONE})
    assert list(asked.learned) == ["a", "b"]


ONE = encoder(**beside("tone")).auxiliary.tasks["tone"]
