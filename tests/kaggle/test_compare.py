"""The table of submitted commits comes from git and DVC alone; its statistics are the textbooks'."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from kaggle_world import IDENTITY, dvc, experiment, head, make_repository, run
from scipy import stats

from pipeline.errors import PodiumError
from pipeline.kaggle.sync import _with_changes, record_scores
from pipeline.ledger.agreement import Agreement, agreement, agreement_lines, pearson, prediction_interval
from pipeline.ledger.compare import comparison, submitted_entries
from pipeline.ledger.git import git, numbered_tags
from pipeline.ledger.history import changed_params, describe_changes
from pipeline.ledger.ledger import Entry, ledger_text, parse_ledger


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three submissions, the third without a score; no server, no network."""
    root = tmp_path_factory.mktemp("history") / "repository"
    make_repository(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in (IDENTITY | {"DVC_NO_ANALYTICS": "1"}).items():
            patch.setenv(name, value)
        for number, cv, public in ((1, 1.05, 1.065), (2, 1.01, 1.03), (3, 1.0, None)):
            if number > 1:
                experiment(root, number, cv)
            git("tag", "-a", f"sub-{number}", "-m", "{}")
            if public is not None:
                entry = Entry(number, head(root), "2026-03-01T12:00:00", "complete", cv, 0.004, public, None, 20.0)
                record_scores([_with_changes(entry, numbered_tags("sub"))], numbered_tags("sub"))
    return root


@pytest.fixture
def history(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It as the working directory; not to be changed."""
    monkeypatch.chdir(root)
    return root


def test_one_table_from_the_tags(history: Path) -> None:
    lines = comparison(markdown=False).splitlines()
    assert lines[0].split("  ")[0] == "sub"
    assert "1.05000 ± 0.00400" in lines[1]
    assert lines[2].split()[:2] == ["2", run("git", "rev-parse", "sub-2^{}", cwd=history).stdout[:8]]
    assert "+0.02000" in lines[2]
    assert lines[2].endswith("members.shape.seed 500 → 700")
    assert "pending" in lines[3]
    assert lines[-2] == "Pearson correlation of CV and public LB: – (2 so far; needs 3 submissions with a score)"
    assert lines[-1] == "present CV 1.00000: too few to say where the next LB will be (2 of 5 submissions)"
    markdown = comparison(markdown=True).splitlines()
    assert len({line.count("|") for line in markdown[:5]}) == 1


def test_dvc_alone_shows_params_cv_and_lb_of_two_submissions(history: Path) -> None:
    shown = json.loads(dvc("metrics", "diff", "lb-1", "lb-2", "--json", cwd=history))
    assert shown["lb.json"]["public"] == {"old": 1.065, "new": 1.03, "diff": pytest.approx(-0.035)}
    assert shown["metrics/cv.json"]["stack.score"]["new"] == 1.01
    assert "members.shape.seed" in dvc("params", "diff", "lb-1", "lb-2", cwd=history)


@pytest.fixture
def partial_clone(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that has the files of its newest commit alone, as the working directory."""
    run("git", "clone", "-q", "--no-local", "--bare", str(root), str(tmp_path / "remote"), cwd=tmp_path)
    for key in ("allowFilter", "allowAnySHA1InWant"):
        run("git", "config", f"uploadpack.{key}", "true", cwd=tmp_path / "remote")
    remote = f"file://{tmp_path / 'remote'}"
    run("git", "clone", "-q", "--filter=blob:none", remote, str(tmp_path / "clone"), cwd=tmp_path)
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path


@pytest.mark.slow
def test_a_clone_without_old_files_fetches_them(root: Path, partial_clone: Path) -> None:
    found = comparison(markdown=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert found == comparison(markdown=False)


def test_old_files_that_cannot_be_fetched_are_one_line(partial_clone: Path) -> None:
    (partial_clone / "remote").rename(partial_clone / "moved")
    with pytest.raises(PodiumError) as caught:
        changed_params([("lb-1", "lb-2")])
    assert re.match(
        r"this clone lacks \d+ files of earlier commits, and git cannot fetch them: git fetch: ", str(caught.value)
    )
    assert "\n" not in str(caught.value)


def test_dvc_is_not_waited_for_without_end(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ledger.history.SECONDS", 0.01)
    with pytest.raises(PodiumError, match=r"^dvc params diff: no answer for 0\.01 s about lb-1, lb-2; stopped$"):
        changed_params([("lb-1", "lb-2")])


def test_what_dvc_refuses_is_one_line(history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("git", "clone", "-q", str(history), str(tmp_path / "clone"), cwd=tmp_path)
    monkeypatch.chdir(tmp_path / "clone")
    Path(".dvc/config").write_text("[nonsense\n")
    with pytest.raises(PodiumError) as caught:
        changed_params([("sub-1", "sub-2")])
    assert "\n" not in str(caught.value)


def test_what_the_ledger_holds_is_what_the_tags_say(history: Path) -> None:
    told = parse_ledger((history / "ledger.csv").read_text())
    assert told == [entry for entry in submitted_entries() if entry.status == "complete"]
    assert [entry.changes for entry in told] == ["", "members.shape.seed 500 → 700"]


def test_without_a_submission_there_is_nothing_to_compare(repository: Path) -> None:
    with pytest.raises(PodiumError, match="no tag sub-N"):
        comparison(markdown=False)


def test_a_members_coming_and_going_is_one_item() -> None:
    changes = {
        "members.words.kind": {"old": None, "new": "tabular"},
        "members.words.words.n": {"old": None, "new": [1, 2]},
        "members.blend.kind": {"old": "tabular", "new": None},
        "members.shape.boosting.learning_rate": {"old": 0.05, "new": 1e-05},
        "stack.candidates": {"old": ["mean"], "new": ["mean", "logistic"]},
        "members.shape.features": {"old": True, "new": None},
    }
    assert describe_changes(changes) == (
        "members.blend gone, members.shape.boosting.learning_rate 0.05 → 1e-05, members.shape.features true → –, "
        "members.words new, stack.candidates [mean] → [mean, logistic]"
    )


def test_correlation_and_interval_are_the_textbooks() -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(1.0, 0.02, 12)
    y = 0.1 + 0.9 * x + draw.normal(0.0, 0.004, 12)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    fit = stats.linregress(x, y)
    residuals = y - fit.intercept - fit.slope * x
    s = np.sqrt((residuals**2).sum() / 10)
    reach = stats.t.ppf(0.975, 10) * s * np.sqrt(1 + 1 / 12 + (0.99 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    middle = fit.intercept + fit.slope * 0.99
    assert prediction_interval(x, y, 0.99) == pytest.approx((middle - reach, middle + reach))


def test_the_interval_holds_as_often_as_it_says() -> None:
    draw, inside, rounds = np.random.default_rng(2), 0, 2000
    for _ in range(rounds):
        x = draw.normal(1.0, 0.02, 7)
        y = 0.2 + 0.8 * x + draw.normal(0.0, 0.01, 7)
        low, high = prediction_interval(x[:6], y[:6], x[6])
        inside += low <= y[6] <= high
    assert inside / rounds == pytest.approx(0.95, abs=0.02)


def test_a_cv_that_never_changed_gives_the_means_interval() -> None:
    x, y = np.full(6, 1.0), np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95])
    assert pearson(x, y) is None
    low, high = prediction_interval(x, y, 1.0)
    reach = stats.t.ppf(0.975, 5) * y.std(ddof=1) * np.sqrt(1 + 1 / 6)
    assert (low, high) == pytest.approx((1.0 - reach, 1.0 + reach))


@pytest.mark.parametrize("count", [0, 2, 4, 5])
def test_too_few_submissions_are_told_as_that(count: int) -> None:
    entries = [Entry(n, "c", cv=1.0 + n / 100, public=1.01 + n / 90 + n % 2 / 100) for n in range(count)]
    found = agreement([*entries, Entry(9, "c", status="pending", cv=1.0)], 1.0)
    assert found.count == count
    assert (found.correlation is None) == (count < 3)
    assert (found.interval is None) == (count < 5)
    assert ("too few" in agreement_lines(found)[1]) == (count < 5)
    assert agreement_lines(Agreement(5, 0.9, None, None)) == [
        "Pearson correlation of CV and public LB over 5 submissions: 0.900"
    ]


def test_the_ledger_keeps_every_digit_and_names_what_is_wrong() -> None:
    entries = [Entry(1, "c", "d", "complete", 0.1 + 0.2, None, 1.0, None, 2.5, None, 600.0, 'a, "b" → c')]
    assert parse_ledger(ledger_text(entries)) == entries
    header = ledger_text([])
    for text, expected in (
        ("", "line 1: expected submission,commit,"),
        (header + "1,c\n", "line 2: expected 12 cells, found 2"),
        (header + "1,c,d,s,x,,,,,,,\n", "line 2: cv: expected a number, found x"),
        (header + "one,c,d,s,,,,,,,,\n", "line 2: submission: expected a number, found one"),
    ):
        with pytest.raises(PodiumError, match=rf"ledger\.csv: {expected}"):
            parse_ledger(text)
    assert json.loads(json.dumps(vars(entries[0])))["cv"] == 0.1 + 0.2
