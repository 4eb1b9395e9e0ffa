"""Students and teachers, from settings to receipts: what is learned from whom, and that no fold's labels come along."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from networks import decoder, encoder, lay_backbone, ready, scratch, start_of
from outcomes import COMPETITIONS, labelled_rows
from support import preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.data.lessons import learned_hash
from pipeline.data.split import Lessons, split_rows
from pipeline.ensemble.oof import collect
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.inference.predict import predict_member
from pipeline.members.beside.lessons import ANSWERS, RECEIPT, STATES, lessons
from pipeline.members.beside.teach import teach
from pipeline.members.context import Run, Start
from pipeline.members.finetune import _learned, _with_beside, open_run
from pipeline.members.fold import train_fold
from pipeline.settings.external import External
from pipeline.training.checkpoint import Checkpoint
from stages import finetune
from stages import teach as stage

COUNT, FOLDS = 60, np.repeat([0, 1, -1], [24, 24, 12])
ROWS = preference_rows(COUNT, seed=4)
WORDS = member_settings(
    {"kind": "tabular", "backbone": "none", "model": "logistic", "words": {"longest": 1, "max_features": 500}}
)
FAST = {"epochs": 1}


def student(kind: Any = encoder, training: dict[str, Any] | None = None, **teachers: Any) -> Any:
    return kind(FAST | (training or {}), teachers={"members": ["words"]} | teachers)


def lay_out(root: Path, rows: pl.DataFrame, competition: Competition, folds: np.ndarray, backbones: Path) -> Artifacts:
    return Artifacts(ready(root, rows, competition, folds, backbones))


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """A run with folds 0 and 1 and a holdout, in which the working folder is; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    return lay_out(tmp_path, ROWS, lmsys, FOLDS, backbones)


def start(name: str, settings: Any, competition: Competition, artifacts: Artifacts) -> Start:
    """The start of a member of any kind; its file is written."""
    if settings.backbone != "none":
        return start_of(name, settings, competition, artifacts.root)
    found = Start(name, settings, competition, 1)
    write_json(artifacts.start(name), asdict(found))
    return found


def train(one: Start, fold: int, artifacts: Artifacts) -> dict[str, Any]:
    """The receipt of a fold model."""
    train_fold(split_rows(artifacts.train().collect(), artifacts.folds(), fold), one, fold, artifacts)
    return read_json(artifacts.receipt(one.member, fold))


def distilled(settings: Any, teachers: dict[str, Any], competition: Competition, artifacts: Artifacts) -> Any:
    """Teachers and the student `small`, all of fold 0; the student's receipt."""
    small = start("small", settings, competition, artifacts)
    rows = split_rows(artifacts.train().collect(), artifacts.folds(), 0).train
    for name, each in teachers.items():
        its = start(name, each, competition, artifacts)
        train(its, 0, artifacts)
        teach(small, its, 0, rows, artifacts)
    return train(small, 0, artifacts)


def oof(artifacts: Artifacts) -> np.ndarray:
    return pl.read_parquet(artifacts.oof_part("small", 0)).drop("id").to_numpy()


@pytest.mark.parametrize(
    "kind",
    [
        encoder,
        pytest.param(partial(decoder, lora={"rank": 2}), marks=pytest.mark.slow),
        pytest.param(partial(decoder, head="tokens", max_tokens=200), marks=pytest.mark.slow),
        pytest.param(partial(decoder, precision="nf4"), marks=pytest.mark.slow),
    ],
)
def test_the_answers_are_those_of_the_teachers_model_and_move_the_student(
    kind: Any, artifacts: Artifacts, lmsys: Competition
) -> None:
    receipt = distilled(student(kind), {"words": WORDS}, lmsys, artifacts)
    said = pl.read_parquet(artifacts.lessons("small", 0) / "words" / ANSWERS)
    learned = ROWS.filter(pl.Series(FOLDS == 1))
    assert said["id"].equals(learned["id"])
    assert receipt["teachers"]["words"]["rows"] == receipt["rows"] == learned_hash(learned)
    taught = oof(artifacts)
    train(start("small", kind(FAST), lmsys, artifacts), 0, artifacts)
    assert np.abs(taught - oof(artifacts)).max() > 1e-4


@pytest.mark.slow
def test_a_heavy_teacher_is_imitated(artifacts: Artifacts, lmsys: Competition) -> None:
    """With hardly any label left, the student says what the teacher says, on the rows of its lesson."""
    settings = student(training={"epochs": 60, "schedule": {"rate": 1e-2}}, weight=50.0, temperature=1.0)
    distilled(settings, {"words": WORDS}, lmsys, artifacts)
    rows = split_rows(ROWS, artifacts.folds(), 0).train
    own = predict_member(artifacts.model("small", 0), artifacts, rows, lmsys)
    said = pl.read_parquet(artifacts.lessons("small", 0) / "words" / ANSWERS).drop("id").to_numpy()
    prior = np.tile(said.mean(axis=0), (len(said), 1))
    assert lmsys.family.divergence(said, own).mean() < 0.3 * lmsys.family.divergence(said, prior).mean()


@pytest.mark.parametrize("teacher", ["tabular", pytest.param("encoder", marks=pytest.mark.slow)])
def test_no_label_of_fold_or_holdout_reaches_the_student(
    teacher: str, tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever these labels are, the student's fold model says the same, to the last bit."""
    found = []
    for turn in (0, 1):
        (tmp_path / str(turn)).mkdir()
        monkeypatch.chdir(tmp_path / str(turn))
        labels = ROWS["label"].to_numpy()
        rows = ROWS.with_columns(label=pl.Series(np.where(FOLDS == 1, labels, (labels + turn) % 3), dtype=pl.Int16))
        here = lay_out(tmp_path / str(turn), rows, lmsys, FOLDS, backbones)
        its = WORDS if teacher == "tabular" else encoder(FAST)
        distilled(student(), {"words": its}, lmsys, here)
        found.append((oof(here), (here.lessons("small", 0) / "words" / ANSWERS).read_bytes()))
    assert np.array_equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_a_planted_leak_is_caught_in_one_line(artifacts: Artifacts, lmsys: Competition) -> None:
    distilled(student(), {"words": WORDS}, lmsys, artifacts)
    small, words = (start(name, each, lmsys, artifacts) for name, each in (("small", student()), ("words", WORDS)))
    rows = split_rows(ROWS, artifacts.folds(), 0).train
    # The teacher's model of the other fold in place of this one's, with its own receipt.
    train(words, 1, artifacts)
    kept = artifacts.root / "kept"
    shutil.copytree(artifacts.model("words", 0), kept)
    shutil.rmtree(artifacts.model("words", 0))
    shutil.copytree(artifacts.model("words", 1), artifacts.model("words", 0))
    own = read_json(artifacts.receipt("words", 0))
    shutil.copy(artifacts.receipt("words", 1), artifacts.receipt("words", 0))
    with pytest.raises(PodiumError, match=r"words-fold0\.json: words teaches from its model of fold 1, which has lea"):
        teach(small, words, 0, rows, artifacts)
    # A model that has learned the fold beside the others, under the right number.
    everything = replace(split_rows(ROWS, artifacts.folds(), 0), train=ROWS)
    train_fold(everything, words, 0, artifacts)
    with pytest.raises(PodiumError, match=r"words has learned other rows than those outside fold 0 and holdout"):
        teach(small, words, 0, rows, artifacts)
    # Its answers, smuggled past the stage; and a student that was trained on them, past its own check.
    write_json(artifacts.receipt("words", 0), own)
    file = artifacts.lessons("small", 0) / "words" / RECEIPT
    lesson = read_json(file)
    write_json(file, lesson | {"fold": 1})
    with pytest.raises(PodiumError, match=r"receipt\.json: words teaches from its model of fold 1"):
        train(small, 0, artifacts)
    write_json(file, lesson)
    said = pl.read_parquet(file.parent / ANSWERS)
    said.with_columns(pl.lit(1 / 3).alias(name) for name in lmsys.outputs).write_parquet(file.parent / ANSWERS)
    with pytest.raises(PodiumError, match=r"answers\.parquet: not the file that its receipt names"):
        train(small, 0, artifacts)
    said.write_parquet(file.parent / ANSWERS)


def test_the_stack_takes_no_student_of_a_teacher_that_has_seen_the_fold(
    artifacts: Artifacts, lmsys: Competition
) -> None:
    distilled(student(), {"words": WORDS}, lmsys, artifacts)
    small, words = (start(name, each, lmsys, artifacts) for name, each in (("small", student()), ("words", WORDS)))
    train(words, 1, artifacts)
    teach(small, words, 1, split_rows(ROWS, artifacts.folds(), 1).train, artifacts)
    train(small, 1, artifacts)
    assert set(collect(artifacts, ["words", "small"], [0, 1], lmsys).oof["fold"]) == {0, 1}
    file = artifacts.receipt("small", 0)
    honest = read_json(file)
    lesson = honest["teachers"]["words"]
    for changed, line in (
        ({"fold": 1}, r"small-fold0\.json: words teaches from its model of fold 1"),
        ({"rows": "0" * 64}, r"small-fold0\.json: words has learned other rows"),
        ({"start": "0" * 64}, r"small-fold0\.json: stale, words was made from other start"),
    ):
        write_json(file, honest | {"teachers": {"words": lesson | changed}})
        with pytest.raises(PodiumError, match=line):
            collect(artifacts, ["words", "small"], [0, 1], lmsys)
    write_json(file, honest | {"rows": "0" * 64})
    with pytest.raises(PodiumError, match=r"small-fold0\.json: stale, made from other rows .* -f distil@small-0`"):
        collect(artifacts, ["words", "small"], [0, 1], lmsys)


def test_a_member_that_is_no_teacher_leaves_an_empty_note(artifacts: Artifacts, lmsys: Competition) -> None:
    small = start("small", replace(student(), folds=(0,)), lmsys, artifacts)
    words, other = (start(name, WORDS, lmsys, artifacts) for name in ("words", "other"))
    for fold, name in ((0, "other"), (1, "words")):  # neither is trained, and nobody asks
        stage.main("small", name, fold)
        assert [each.name for each in (artifacts.lessons("small", fold) / name).iterdir()] == [RECEIPT]
        assert read_json(artifacts.lessons("small", fold) / name / RECEIPT) == {}
    assert words != other
    with pytest.raises(PodiumError, match=r"no such file; run `dvc repro teach@small-words-0`"):
        train(small, 0, artifacts)
    assert not train(small, 1, artifacts)["trained"]


@pytest.mark.slow
def test_pooled_states_are_compared_where_their_widths_agree(
    artifacts: Artifacts, lmsys: Competition, backbones: Path
) -> None:
    settings = student(kind=encoder, cosine=1.0)
    large = encoder(FAST)
    distilled(settings, {"words": large}, lmsys, artifacts)
    states = np.load(artifacts.lessons("small", 0) / "words" / STATES)
    assert states.shape == (24, 2, 32) and np.isfinite(states).all()
    with_it = oof(artifacts)
    distilled(student(), {"words": large}, lmsys, artifacts)
    assert not np.array_equal(with_it, oof(artifacts))
    lay_backbone(artifacts.root, "wide", scratch("deberta-v3", hidden=48, positions=256))
    with pytest.raises(
        PodiumError, match=r"small\.teachers\.cosine: its pooled states have 32 numbers, those of words"
    ):
        distilled(settings, {"words": replace(large, backbone="wide")}, lmsys, artifacts)


def files(root: Path, rows: pl.DataFrame, competition: Competition, oof_too: bool) -> External:
    """A teammate's out-of-fold file below `root`, and one for each fold: the same answers, or their own."""
    folder = root / "external"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("oof", "fold0", "fold1"):
        if name == "oof" or not oof_too:
            means = draw.dirichlet(np.ones(len(competition.outputs)), len(rows))
        frame = pl.DataFrame({competition.id: rows["id"]}).with_columns(
            pl.Series(output, means[:, c]) for c, output in enumerate(competition.outputs)
        )
        frame.write_csv(folder / f"{name}.csv")
    each = ("external/fold0.csv", "external/fold1.csv")
    return External(kind="external", backbone="none", file="external/oof.csv", fold_files=each)


def test_a_teammate_teaches_with_a_file_per_fold(artifacts: Artifacts, lmsys: Competition, tmp_path: Path) -> None:
    settings = files(tmp_path, ROWS, lmsys, False)
    assert set(settings.files()) == {"file", "fold_files.0", "fold_files.1"}
    distilled(student(), {"words": settings}, lmsys, artifacts)
    said = pl.read_parquet(artifacts.lessons("small", 0) / "words" / ANSWERS)
    own = pl.read_csv(tmp_path / "external/fold0.csv").with_columns(pl.col(lmsys.id).cast(pl.String).alias("id"))
    expected = said.select("id").join(own, on="id", how="left", maintain_order="left").select(lmsys.outputs)
    np.testing.assert_allclose(said.select(lmsys.outputs).to_numpy(), expected.to_numpy(), atol=1e-9)


def test_a_teammates_out_of_fold_answers_do_not_teach(artifacts: Artifacts, lmsys: Competition, tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"external/fold0\.csv: repeats external/oof\.csv: expected answers of one"):
        distilled(student(), {"words": files(tmp_path, ROWS, lmsys, True)}, lmsys, artifacts)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("labels", "choices") else pytest.mark.slow) for name in COMPETITIONS],
)
def test_every_outcome_can_be_taught(name: str, tmp_path: Path, backbones: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    competition = COMPETITIONS[name]
    rows, _ = labelled_rows(competition, COUNT, 3)
    artifacts = lay_out(tmp_path, rows, competition, FOLDS, backbones)
    receipt = distilled(student(training={"inner": 0.2}), {"words": WORDS}, competition, artifacts)
    assert np.isfinite(oof(artifacts)).all() and np.isfinite([loss for _, loss in receipt["training"]["curve"]]).all()
    told, _ = lessons(start("small", student(), competition, artifacts), 0, rows.filter(FOLDS == 1), artifacts)
    assert told is not None
    said = pl.read_parquet(artifacts.lessons("small", 0) / "words" / ANSWERS).drop("id").to_numpy()
    family = competition.family
    expected = family.means(family.link(said) / 2) if family.bounded else family.link(said)
    np.testing.assert_allclose(told.answers, expected, atol=1e-6)


def test_a_row_in_the_other_order_is_taught_the_other_answer(artifacts: Artifacts, lmsys: Competition) -> None:
    """With `swap`, a joint network learns both orders; a teacher that is equivariant would say the same."""
    settings = encoder({"swap": True}, input="joint", teachers={"members": ["words"]})
    one = start("small", settings, lmsys, artifacts)
    split = split_rows(ROWS, artifacts.folds(), 0)
    run = open_run(split, one, settings, Run("x", artifacts, Checkpoint(artifacts.root / "c")))
    answers = np.random.default_rng(0).dirichlet(np.ones(3), len(split.train)).astype(np.float32)
    split, few = replace(split, lessons=Lessons(split.train["id"], answers, answers, None)), split.train[5:7]
    found = _with_beside(_learned(few, run), few, split, run)
    assert found.lessons is not None and len(found.encoded) == len(found.labels) == 4
    np.testing.assert_array_equal(found.lessons.answers, [*answers[5:7], *answers[5:7][:, [1, 0, 2]]])


@pytest.mark.slow
def test_killed_on_its_way_a_student_ends_as_if_left_alone(
    artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = student(training={"epochs": 3, "dropout": 0.1}, cosine=0.5)
    distilled(settings, {"words": encoder(FAST)}, lmsys, artifacts)
    alone = oof(artifacts)
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    save, saved = Checkpoint.save, 0

    def killed(self: Checkpoint, *given: Any) -> None:
        nonlocal saved
        save(self, *given)
        saved += 1
        if saved == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune.main("small", 0, None)
    finetune.main("small", 0, None)
    assert np.array_equal(alone, oof(artifacts))
