"""The oof and stack stages on parts that the real fold code wrote (external members: no training, all the checks)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import CLASSES, geometric_mean, preference_rows, write_artifacts, write_external

from pipeline.artifacts import Artifacts
from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.data.split import split_rows
from pipeline.ensemble.build_ladder import build_ladder, calibrate
from pipeline.ensemble.ladder import PRIOR, load_ladder, save_ladder
from pipeline.ensemble.nested import compare_candidates
from pipeline.ensemble.oof import collect
from pipeline.ensemble.table import read_holdout, read_oof
from pipeline.errors import PodiumError
from pipeline.evaluation.cv import Stacked, cv_scores, level2_frame
from pipeline.files import write_json
from pipeline.members.fold import train_fold

FOLDS = [0, 1, 2]
MEMBERS = ["strong", "weak"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, lmsys: Competition) -> Artifacts:
    """A run's folder with all parts of two members over three folds and a holdout; `weak` has not trained fold 2."""
    root = tmp_path_factory.mktemp("built")
    rows = preference_rows(400, seed=1)
    folds = np.array([-1, 0, 1, 2])[np.arange(400) // 2 % 4]
    artifacts = Artifacts(write_artifacts(root, rows, lmsys, folds))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, sharpness in (("strong", 1.2), ("weak", 0.5)):
            start = write_external(root, name, rows, lmsys, sharpness)
            if name == "weak":
                start = replace(start, settings=replace(start.settings, folds=(0, 1)))
            write_json(artifacts.start(name), asdict(start))
            for fold in FOLDS:
                train_fold(split_rows(rows, artifacts.folds(), fold), start, fold, artifacts)
    return artifacts


def merged(artifacts: Artifacts, competition: Competition) -> None:
    both = collect(artifacts, MEMBERS, FOLDS, competition)
    both.oof.write_parquet(artifacts.oof_file)
    both.holdout.write_parquet(artifacts.holdout_file)


def test_every_row_stands_once_with_what_each_member_said(built: Artifacts, lmsys: Competition) -> None:
    both = collect(built, MEMBERS, FOLDS, lmsys)
    assert len(both.oof) == 300
    assert both.oof["id"].n_unique() == 300
    assert both.oof["strong/winner_tie"].null_count() == 0
    assert both.oof.filter(pl.col("weak/winner_tie").is_null())["fold"].unique().to_list() == [2]
    assert both.holdout.height == 100 * len(FOLDS)
    said = pl.read_parquet(built.oof_part("strong", 1))
    here = both.oof.filter(pl.col("fold") == 1)
    assert np.array_equal(said.sort("id")["winner_tie"].to_numpy(), here.sort("id")["strong/winner_tie"].to_numpy())


def rewrite(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    """Damage that also mends the receipt, so that only the check of the rows can find it."""

    def damage(artifacts: Path) -> None:
        from pipeline.files import sha256_file

        file, receipt = artifacts / "oof" / "strong" / "fold1.parquet", artifacts / "receipts" / "strong-fold1.json"
        change(pl.read_parquet(file)).write_parquet(file)
        saved = json.loads(receipt.read_text())
        saved["parts"]["oof"] = sha256_file(file)
        receipt.write_text(json.dumps(saved))

    return damage


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda a: (a / "receipts" / "weak-fold1.json").unlink(), "weak-fold1.json: no such file"),
        (lambda a: (a / "oof" / "strong" / "fold0.parquet").unlink(), "oof/strong/fold0.parquet: no such file"),
        (
            lambda a: write_json(a / "start" / "weak.json", {"other": 1}),
            "weak-fold0.json: stale, made from other start",
        ),
        (
            lambda a: (
                pl.read_parquet(a / "folds.parquet")
                .with_columns(pl.col("fold") * -1)
                .write_parquet(a / "folds.parquet")
            ),
            "stale, made from other folds",
        ),
        (
            lambda a: shutil.copy(a / "oof" / "strong" / "fold0.parquet", a / "oof" / "strong" / "fold1.parquet"),
            "oof/strong/fold1.parquet: not the file that its receipt names",
        ),
        (
            lambda a: write_json(a / "receipts" / "weak-fold0.json", {"member": "weak", "fold": 0}),
            "weak-fold0.json: stale, made from other data (not noted, now",
        ),
        (rewrite(lambda f: pl.concat([f, f[:1]])), "stands more than once"),
        (rewrite(lambda f: f[1:]), "expected the 100 ids of its rows, found 99"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    damage: Callable[[Path], None], expected: str, built: Artifacts, lmsys: Competition, tmp_path: Path
) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    shutil.copytree(built.root, artifacts.root)
    damage(artifacts.root)
    with pytest.raises(PodiumError) as caught:
        collect(artifacts, MEMBERS, FOLDS, lmsys)
    assert expected in str(caught.value)


def test_the_stack_from_parts_to_ladder(built: Artifacts, lmsys: Competition, tmp_path: Path) -> None:
    merged(built, lmsys)
    oof, holdout = read_oof(built, MEMBERS, lmsys), read_holdout(built, MEMBERS, lmsys)
    assert holdout is not None
    comparison = compare_candidates(oof, MEMBERS, ("mean", "logistic"), lmsys, 1, 0)
    assert len(comparison.table.labels) == 200  # the rows that both members cover
    ladder, held = calibrate(build_ladder(oof, MEMBERS, comparison.chosen, lmsys, 1, 0), holdout, 0)
    assert [rung.members for rung in ladder.rungs] == [(), ("strong",), ("weak",), ("strong", "weak")]
    scores = cv_scores(Stacked(oof, holdout, None, comparison, ladder, held, 0), {}, {"strong": 1.0}).as_json()
    strong = scores["members"]["strong"]
    table = comparison.table
    strong_covered = METRICS["log_loss"].score(table.labels, table.probabilities["strong"])
    assert strong["score"] == pytest.approx(np.mean(strong["fold_scores"]))
    assert len(scores["members"]["weak"]["fold_scores"]) == 2
    assert scores["stack"]["candidates"][comparison.chosen] == scores["stack"]["score"] < scores["prior"]
    assert scores["stack"]["best_member"] == "strong"
    assert held is not None
    assert scores["stack"]["holdout"] == METRICS["log_loss"].score(holdout.average.labels, held.shifted)
    assert len(held.single) == 2  # the folds that both members train
    gains = scores["stack"]["gains"]["nested"]["best_member"]
    assert gains["mean"] == pytest.approx(strong_covered - scores["stack"]["score"])
    assert gains["low"] < gains["mean"] < gains["high"]
    assert any("weak" in warning and "200 of 300" in warning for warning in scores["warnings"])
    assert level2_frame(comparison, lmsys).columns == ["id", "fold", "label", *lmsys.classes]
    json.dumps(scores, allow_nan=False)

    save_ladder(ladder, tmp_path)
    again = load_ladder(tmp_path, lmsys, 1)
    rows = holdout.average.rows
    everything, by = again.predict(holdout.average.probabilities, rows)
    assert np.array_equal(everything, ladder.predict(holdout.average.probabilities, rows)[0])
    assert set(by) == {"strong+weak"}
    assert np.abs(everything.sum(axis=1) - 1).max() < 1e-9


def test_each_row_is_answered_by_the_highest_rung_that_it_reaches(built: Artifacts, lmsys: Competition) -> None:
    merged(built, lmsys)
    oof, holdout = read_oof(built, MEMBERS, lmsys), read_holdout(built, MEMBERS, lmsys)
    assert holdout is not None
    ladder = build_ladder(oof, MEMBERS, "mean", lmsys, 1, 0)
    available = {name: each.copy() for name, each in holdout.average.probabilities.items()}
    rows = holdout.average.rows
    available["weak"][::2] = np.nan
    available["strong"][:4] = np.nan
    mixed, by = ladder.predict(available, rows)
    assert by[:6] == [PRIOR, "weak", PRIOR, "weak", "strong", "strong+weak"]
    assert np.allclose(mixed[0], ladder.prior)
    both = ladder.predict({name: each[5:6] for name, each in available.items()}, rows[5:6])[0]
    assert np.allclose(mixed[5], both[0])
    mean = geometric_mean([available["strong"][5:6], available["weak"][5:6]])
    assert np.allclose(both, ladder.rungs[-1].calibration.apply(mean, CLASSES))
    nothing, by = ladder.predict({}, rows)
    assert set(by) == {PRIOR}
    assert np.allclose(nothing, ladder.prior)


def test_members_without_a_common_fold_cannot_be_stacked(built: Artifacts, lmsys: Competition) -> None:
    merged(built, lmsys)
    oof = read_oof(built, MEMBERS, lmsys)
    first = np.isin(oof.rows["fold"].to_numpy(), [0, 1])
    oof.probabilities["strong"][first] = np.nan
    with pytest.raises(PodiumError, match="train no fold in common"):
        compare_candidates(oof, MEMBERS, ("mean",), lmsys, 1, 0)
