from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from support import from_logits

from pipeline.competitions.task import Competition
from pipeline.ensemble.table import Holdout, Table
from pipeline.evaluation.leak_test import leak_test

FOLDS = 3


def made(
    leaks: dict[str, float], seed: int, rows: int = 1800, held: int = 300, shared: int = 2
) -> tuple[Table, Holdout]:
    """Three members that know part of the truth; `leaks` adds so much of the label itself to out-of-fold logits."""
    rng = np.random.default_rng(seed)
    total = rows + held
    prompts = np.arange(total) // shared
    truth = rng.normal(size=(total, 3)) + rng.normal(size=(total // shared + 1, 3))[prompts]
    labels = (from_logits(truth).cumsum(axis=1) < rng.random((total, 1))).sum(axis=1)
    frame = pl.DataFrame({"id": [str(i) for i in range(total)], "prompt": [[f"prompt {p}"] for p in prompts]})
    models = {
        name: [from_logits(0.8 * truth + 0.6 * rng.normal(size=truth.shape)) for _ in range(FOLDS)] for name in "pqr"
    }
    folds = prompts[:rows] % FOLDS
    own = np.arange(rows)
    oof = {name: np.stack(each)[folds, own] for name, each in models.items()}
    for name, strength in leaks.items():
        oof[name] = from_logits(np.log(oof[name]) + strength * np.eye(3)[labels[:rows]])
    table = Table(frame[:rows].with_columns(pl.Series("fold", folds)), labels[:rows], oof)
    kept = frame[rows:].with_columns(pl.lit(0).alias("fold"))
    single = {k: Table(kept, labels[rows:], {n: each[k][rows:] for n, each in models.items()}) for k in range(FOLDS)}
    return table, Holdout(single[0], single)


def test_clean_members_pass_and_a_planted_one_is_caught(lmsys: Competition) -> None:
    accused = 0
    for seed in range(25):
        clean = leak_test(*made({}, seed), list("pqr"), lmsys)
        accused += any(gap.leak for gap in clean.values())
        planted = leak_test(*made({"q": 0.4}, seed), list("pqr"), lmsys)
        assert planted["q"].leak, seed
        assert not planted["p"].leak or clean["p"].leak
    assert accused <= 1


def test_leaks_of_all_members_at_once_do_not_hide_behind_each_other(lmsys: Competition) -> None:
    caught = [leak_test(*made(dict.fromkeys("pqr", 0.6), seed), list("pqr"), lmsys) for seed in range(5)]
    assert all(any(gap.leak for gap in one.values()) for one in caught)


def test_errors_grow_with_rows_that_share_a_prompt(lmsys: Competition) -> None:
    """The spread of the plain gap over draws is what the clustered error says, which a row-wise error would miss."""
    found = [leak_test(*made({}, seed, shared=6), ["p"], lmsys)["p"] for seed in range(60)]
    spread = np.std([each.gap for each in found])
    assert spread == pytest.approx(np.mean([each.error for each in found]), rel=0.3)
    assert found[0].relative is None


def test_a_member_of_some_folds_is_tested_on_these(lmsys: Competition) -> None:
    oof, holdout = made({"q": 0.5}, 0)
    oof.probabilities["q"][oof.rows["fold"].to_numpy() != 0] = np.nan
    for fold, table in holdout.single.items():
        if fold:
            table.probabilities["q"][:] = np.nan
    assert leak_test(oof, holdout, list("pqr"), lmsys)["q"].leak
    holdout.single[0].probabilities["q"][:] = np.nan
    assert set(leak_test(oof, holdout, list("pqr"), lmsys)) == {"p", "r"}


def test_without_a_holdout_there_is_no_test(lmsys: Competition) -> None:
    assert leak_test(made({}, 0)[0], None, ["p"], lmsys) == {}
