"""The page is rendered from a made-up run on disk: it shows the numbers of the files, and odd files do not break it."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax

from pipeline.competitions.metrics import METRICS, decisive_log_loss
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json, write_parquet
from pipeline.report.evidence import load_evidence
from pipeline.report.page import headline, render
from stages import report

ROWS, FOLDS = 900, 4
WEIGHTS = {"words": (0.6, 0.5), "shape": (0.35, 0.4), "blend": (0.7, 0.5)}
"""How much of the truth and how much noise each made-up member's logits hold."""


def make_run(
    root: Path,
    competition: Competition | None = None,
    members: dict[str, tuple[float, float]] | None = None,
    rows: int = ROWS,
    trained: dict[str, tuple[int, ...]] | None = None,
    folds: int = FOLDS,
    bayes: bool = True,
) -> Path:
    """Writes all that the report reads under `root`; members in `trained` cover these folds only."""
    competition, members = competition or load_competition("lmsys"), members or WEIGHTS
    metric, classes = METRICS[competition.metric], len(competition.classes)
    rng = np.random.default_rng(20)
    truth = rng.normal(size=(rows, classes)) + np.linspace(0.3, -0.5, classes)
    true_probabilities = softmax(truth, axis=1)
    labels = (true_probabilities.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=classes - 1)
    fold = rng.integers(0, folds, rows)
    shares = np.bincount(labels, minlength=classes) / rows

    def scored(probabilities: np.ndarray, mask: np.ndarray) -> float:
        return metric.score(labels[mask], probabilities[mask])

    frame = pl.DataFrame({"id": [str(i) for i in range(rows)], "fold": fold, "label": labels}).cast(
        {"fold": pl.Int8, "label": pl.Int8}
    )
    told: dict[str, Any] = {}
    everything, decisive, logits = np.ones(rows, dtype=bool), {}, []
    for name, (signal, noise) in members.items():
        logit = signal * truth + noise * rng.normal(size=truth.shape)
        logits.append(logit)
        probabilities = softmax(logit, axis=1)
        covered = np.isin(fold, (trained or {}).get(name, range(folds)))
        frame = frame.with_columns(
            pl.Series(f"{name}/{one}", np.where(covered, probabilities[:, c], np.nan)).fill_nan(None)
            for c, one in enumerate(competition.classes)
        )
        told[name] = {
            "score": scored(probabilities, covered),
            "fold_scores": [scored(probabilities, fold == k) for k in range(folds) if covered[fold == k].any()],
            "holdout": scored(probabilities, everything) + 0.004,
            "attempts": 1,
            "collapsed": 0,
            "seconds": float(20 * rng.random() ** 3 + 0.3),
            "rows": int(covered.sum()),
        }
        if competition.kind.decisive:
            decisive[name] = decisive_log_loss(labels[covered], probabilities[covered], competition.kind.decisive)
    stacked = softmax(1.2 * np.mean(logits, axis=0), axis=1)
    score = scored(stacked, everything)
    sign = -1 if metric.greater_is_better else 1
    best = min(told, key=lambda name: sign * told[name]["score"])
    cv = {
        "competition": competition.name,
        "metric": competition.metric,
        "rows": rows,
        "prior": scored(np.tile(shares, (rows, 1)), everything),
        **({"bayes": scored(true_probabilities, everything)} if bayes else {}),
        "members": told,
        "stack": {
            "chosen": "logistic",
            "score": score,
            "standard_error": float(metric.per_row(labels, stacked).std() / np.sqrt(rows)),
            "holdout": score + sign * 0.0057,
            "temperature": 1.0,
            "candidates": {"mean": score + sign * 0.011, "logistic": score, "lightgbm": score + sign * 0.0042},
            "best_member": best,
        },
        "classes": dict(zip(competition.classes, shares.tolist(), strict=True)),
        "warnings": [],
    }
    if competition.kind.decisive:
        stack_score = decisive_log_loss(labels, stacked, competition.kind.decisive)
        cv["decisive"] = {"prior": 0.6926, "members": decisive, "stack": stack_score}
    rehearsal = {
        "budget_seconds": 32400,
        "elapsed_seconds": 7.31,
        "valid": True,
        "rungs": ["prior", "words+shape", "all"],
        "rows": 600,
        "rows_per_rung": {"prior": 0, "words+shape": 3, "all": 597},
        "parity": {name: {"max": 3.1e-13, "mean": 2.2e-15} for name in members},
        "parity_max_abs_diff": 3.1e-13,
        "network": "namespace",
        "plan": [
            {"member": name, "fold": k, "rows": 600, "seconds": 0.123456} for name in members for k in range(folds)
        ],
    }
    facts = {"competition": asdict(competition), "rows": {"train": rows + 100, "test": 600}, "data": "0" * 64}
    write_json(root / "artifacts/competition/competition.json", facts)
    write_json(root / "metrics/cv.json", cv)
    write_json(root / "metrics/rehearsal.json", rehearsal)
    write_parquet(frame, root / "artifacts/oof/oof.parquet")
    level2 = frame.select("id", "fold", "label").with_columns(
        pl.Series(one, stacked[:, c]) for c, one in enumerate(competition.classes)
    )
    write_parquet(level2, root / "artifacts/stack/level2.parquet")
    write_json(root / "metrics/probe.json", PROBE)
    write_json(root / "artifacts/diagnostics.json", make_diagnostics(competition, list(members), best))
    times = {
        "prepare": 0.412,
        "folds": 0.25,
        "oof": 0.31,
        "stack": 11.2,
        "package": 0.9,
        "rehearse": 9.75,
        "report": 1.5,
    }
    times |= {f"finetune@{name}-{k}": 1.25 + k + i for i, name in enumerate(members) for k in range(folds)}
    times |= {f"start@{name}": 0.2 for name in members}
    for name, seconds in times.items():
        write_json(root / f"work/seconds/{name}.json", seconds)
    return root


PROBE = {"rows": 450, "prior": 1.05, "score": 1.0516, "gain": -0.0016, "standard_error": 0.0013, "leak": False}


def make_diagnostics(competition: Competition, members: list[str], best: str) -> dict[str, Any]:
    """artifacts/diagnostics.json in the form of stages/diagnostics.py."""
    interval = {"mean": 0.0123, "low": 0.0045, "high": 0.0201}
    chance = {"mean": -0.0006, "low": -0.0031, "high": 0.0019}
    part = {"prior": 1.0412, "best_member": 0.9123, "stack": 0.9011, "gain": 0.0112, "standard_error": 0.0034}
    names = {"turns": ("one turn", "two turns"), "script": ("latin", "cjk")}
    even = np.full(len(competition.classes), 1 / len(competition.classes)).tolist()
    row = {"id": "r17", "label": 1, "texts": dict.fromkeys(competition.kind.fields, "Is 1 < 2 & 3?"), "divergence": 0.3}
    swap = [{"member": name, "difference": 2.2e-16, "lean": 0.0087, "lean_error": 0.0091} for name in members]
    return {
        "stacker": "weights",
        "marginal": [{"member": m, "left_out": interval, "added": chance, "best": m == best} for m in members],
        "slices": [{"family": f, "slice": n, "rows": 321} | part for f, each in names.items() for n in each],
        "disagreements": [row | {"members": dict.fromkeys(members, even), "stack": even}],
        "swap": swap if competition.kind.mirror else None,
    }


VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A checked parse: every tag is closed in order; collects table rows and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if ("td" in self.open or "th" in self.open) and "svg" not in self.open:
            self.rows[-1][-1] += data.strip()

    def row(self, *starts: str) -> list[str]:
        """The one table row that starts with these cells."""
        (found,) = [row for row in self.rows if row[: len(starts)] == list(starts)]
        return found


def rendered(root: Path) -> str:
    return render(load_evidence(root))


def edit(root: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    value = read_json(root / name)
    change(value)
    write_json(root / name, value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_the_numbers_are_those_of_the_files(whole: Path) -> None:
    cv, found = read_json(whole / "metrics/cv.json"), read_json(whole / "metrics/rehearsal.json")
    page = Page(rendered(whole))
    for name, member in cv["members"].items():
        score, holdout = f"{member['score']:.4f}", f"{member['holdout']:.4f}"
        cells = [cell for cell in page.row(name, score, "") if cell]
        assert cells[:6] == [name, score, holdout, "900", "1", "0"]
        assert [name, *(f"{value:.4f}" for value in member["fold_scores"])] in page.rows
        assert page.row(name, f"{cv['decisive']['members'][name]:.4f}")
        assert page.row(name, "3.1e−13") == [name, "3.1e−13", "2.2e−15"]
    for name, score in cv["stack"]["candidates"].items():
        assert page.row(name, f"{score:.4f}")[2] == ("chosen" if name == "logistic" else "")
    assert page.row("stack") == ["stack", f"{cv['decisive']['stack']:.4f}"]
    for value in (cv["prior"], cv["bayes"], *(cv["stack"][key] for key in ("score", "standard_error", "holdout"))):
        assert f"{value:.4f}" in page.text
    for name, share in cv["classes"].items():
        assert f"{name} {100 * share:.1f}%" in page.text
    assert "1,000 training rows" in page.text and "600 test rows" in page.text
    assert "of 9 h 00 min" in page.text and "7.3 s" in page.text and "597" in page.text
    assert page.text.count("Plan: 12 steps") == 1 and found["network"] == "namespace" and "namespace" in page.text


def test_checks_and_diagnostics_are_those_of_the_files(run: Path) -> None:
    cv = read_json(run / "metrics/cv.json")
    for name in cv["members"]:
        gap = {"gap": 0.0211, "error": 0.0104, "relative": -0.0012, "relative_error": 0.0033, "leak": name == "shape"}
        cv["members"][name]["gap"] = gap
    gain = {"mean": 0.0321, "low": 0.0123, "high": 0.0456}
    cv["stack"]["gains"] = {"nested": {"best_member": gain, "equal_mean": gain}, "holdout": None}
    write_json(run / "metrics/cv.json", cv)
    page = Page(rendered(run))
    tested = ["0.0211 ± 0.0104", "−0.0012 ± 0.0033", "2.2e−16", "0.0087 ± 0.0091"]
    for name in cv["members"]:
        assert [name, *tested, "looks leaky" if name == "shape" else "sound"] in page.rows
        assert page.row(name, "0.0123", "") == [name, "0.0123", "", "−0.0006", ""]
        assert page.row(name, "0.33", "0.33") == [name, "0.33", "0.33", "0.33"]
    assert page.row("the members' equal mean") == ["the members' equal mean", "0.0321(0.0123 to 0.0456)", "–"]
    assert page.row("two turns") == ["two turns", "321", "1.0412", "0.9123", "0.9011", "0.0112 ± 0.0034"]
    assert "r17: Is 1 < 2 & 3?" in page.text
    assert "No leak found. On shuffled labels" in page.text
    assert "−0.0016 ± 0.0013" in page.text


def test_a_leak_found_by_the_probe_is_the_first_thing_said(run: Path) -> None:
    write_json(run / "metrics/probe.json", PROBE | {"gain": 0.2, "leak": True})
    text = Page(rendered(run)).text
    assert "1 warning" in text
    assert text.index("labels reach their own predictions") < text.index("Stack, level-2 nested")
    assert "Leak. On shuffled labels" in text


def test_the_headline_is_one_line_with_the_scores(whole: Path) -> None:
    cv = read_json(whole / "metrics/cv.json")
    stack = cv["stack"]
    expected = f"log loss {stack['score']:.4f} ± {stack['standard_error']:.4f} (level-2 nested, stacker logistic), "
    expected += f"holdout {stack['holdout']:.4f}, prior {cv['prior']:.4f}, bayes {cv['bayes']:.4f}"
    assert headline(load_evidence(whole)) == expected


def test_folds_of_a_member_are_summed_and_gone_members_left_out(run: Path) -> None:
    for name, seconds in {"finetune@gone-0": 9999.0, "start@gone": 9999.0, "finetune@words-0": 61.25}.items():
        write_json(run / f"work/seconds/{name}.json", seconds)
    text = " ".join(Page(rendered(run)).text.split())
    words = 61.25 + 2.25 + 3.25 + 4.25
    shape, blend = (sum(1.25 + k + i for k in range(FOLDS)) for i in (1, 2))
    total = words + shape + blend + 3 * 0.2 + 0.412 + 0.25 + 0.31 + 11.2 + 0.9 + 9.75
    assert "finetune words 4 folds1 min 11 s" in text
    assert f"total{int(total // 60)} min {round(total) % 60:02} s" in text
    assert "gone" not in text and "9999" not in text
    order = [text.rindex(stage) for stage in ("prepare0.41", "folds0.25", "start blend", "finetune blend", "oof0.31")]
    assert order == sorted(order)


def test_the_page_needs_nothing_from_outside(whole: Path) -> None:
    text = rendered(whole)
    assert re.findall(r"(?i)\b(?:src|srcset|poster|action)\s*=", text) == []
    assert {link[:1] for link in re.findall(r'href="([^"]*)"', text)} == {"#", "d"}
    assert (
        re.findall(r"(?i)<script|<iframe|<object|<embed|@import|@font-face|url\s*\(|https?:|<use|\son\w+=", text) == []
    )
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    first = rendered(run)
    write_json(run / "work/seconds/report.json", 77.0)
    assert rendered(run) == first == rendered(Path(shutil.copytree(run, run.parent / "elsewhere")))


def test_names_are_escaped(tmp_path: Path) -> None:
    lmsys = load_competition("lmsys")
    sly = replace(lmsys, name="<b>&sly", classes=("<script>a</script>", 'b"&amp;', "{{ c }}"))
    run = make_run(tmp_path, sly, {"<img onerror=x>": (0.6, 0.5), "a&b'": (0.5, 0.6)})
    edit(run, "metrics/cv.json", lambda cv: cv["warnings"].append("<u>fold 3 & 4</u>"))
    text = rendered(run)
    page = Page(text)
    for name in (sly.name, *sly.classes, "<img onerror=x>", "a&b'", "<u>fold 3 & 4</u>"):
        assert name in page.text
    assert re.findall(r"<(?:script|img|u>|b>&sly)", text) == []


def no_columns(run: Path) -> None:
    oof = pl.read_parquet(run / "artifacts/oof/oof.parquet")
    write_parquet(
        oof.select(column for column in oof.columns if "shape" not in column), run / "artifacts/oof/oof.parquet"
    )


def cv_edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda run: edit(run, "metrics/cv.json", change)


def rehearsal_edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda run: edit(run, "metrics/rehearsal.json", change)


@pytest.mark.parametrize(
    ("spoil", "shown", "hidden"),
    [
        (cv_edit(lambda cv: cv["stack"].update(holdout=None)), "holdoutnot measured", ""),
        (
            cv_edit(lambda cv: cv["stack"].update(holdout=math.nan, standard_error=None)),
            "holdoutnot measured",
            "± 0.01",
        ),
        (cv_edit(lambda cv: cv["stack"].update(standard_error=0.0123)), "± 0.0123", ""),
        (cv_edit(lambda cv: cv.pop("bayes")), "It beats the class shares by 0.1", "Bayes"),
        (cv_edit(lambda cv: cv.update(prior=0.7)), "It does not beat the class shares", ""),
        (cv_edit(lambda cv: cv.update(prior=math.nan)), "class shares (prior)–", "log lossgain"),
        (cv_edit(lambda cv: cv["stack"].update(rows=450)), "on the 450 of 900 rows that every member covers", ""),
        (cv_edit(lambda cv: cv["stack"].update(rows=900)), "gain", "that every member covers"),
        (rehearsal_edit(lambda found: found.update(parity_max_abs_diff=None)), "for the same rows.", "in fp32"),
        (cv_edit(lambda cv: cv.pop("decisive")), "Calibration", "Decisive"),
        (cv_edit(lambda cv: cv.pop("classes")), "1,000 training rows", "winner_tie 2"),
        (cv_edit(lambda cv: cv["stack"].pop("temperature")), "Stack candidates", "temperature"),
        (cv_edit(lambda cv: cv["members"]["shape"].update(score=None, holdout=None, fold_scores=[])), "shape–", ""),
        (cv_edit(lambda cv: cv["members"]["shape"].update(fold_scores=[None, 0.9, math.nan, 1.1])), "0.9000", ""),
        (cv_edit(lambda cv: cv["members"]["shape"].update(seconds=None, score=55.0)), "55.0000", ""),
        (cv_edit(lambda cv: cv.update(warnings=["fold 2 of words collapsed"])), "1 warningfold 2 of words", ""),
        (rehearsal_edit(lambda found: found.update(valid=False)), "1 warningThe rehearsal", "✓"),
        (rehearsal_edit(lambda found: found.update(network="sockets")), "by refusing sockets", "namespace"),
        (rehearsal_edit(lambda found: found.pop("plan")), "Rows per rung", "Plan"),
        (rehearsal_edit(lambda found: found.update(plan=["prior", "tabular"])), "Plan: 2 steps#step1prior2tabular", ""),
        (rehearsal_edit(lambda found: found.update(plan=[{"step": "a", "rows": None}])), "#steprows1a–", ""),
        (rehearsal_edit(lambda found: found.update(rows=0, rows_per_rung={}, parity={})), "✓ valid0 rows", ""),
        (lambda run: shutil.rmtree(run / "work"), "not measured", "total"),
        (no_columns, "shape", "Fold 4"),
    ],
)
def test_what_is_missing_or_odd_does_not_break_the_page(
    run: Path, spoil: Callable[[Path], None], shown: str, hidden: str
) -> None:
    spoil(run)
    text = rendered(run)
    seen = re.sub(r"\s*\n\s*", "", Page(text).text)
    assert shown in seen
    assert not hidden or hidden not in seen
    assert re.findall(r"\b(?:nan|None|inf|Undefined)\b", text) == []
    assert headline(load_evidence(run)).startswith("log loss 0.")


def test_one_member_of_a_single_text_task(tmp_path: Path) -> None:
    spooky = load_competition("spooky")
    page = Page(rendered(make_run(tmp_path, spooky, {"words": (0.6, 0.5)}, bayes=False, folds=2)))
    assert "nothing to compare it with" in page.text and "Decisive" not in page.text
    assert "winner" not in page.text and "HPL" in page.text


def test_members_that_train_some_folds_only(tmp_path: Path) -> None:
    page = Page(rendered(make_run(tmp_path, trained={"words": (3,), "shape": (0, 2)})))
    cv = read_json(tmp_path / "metrics/cv.json")
    words, shape = (f"{value:.4f}" for value in (cv["members"][name]["fold_scores"][-1] for name in ("words", "shape")))
    assert ["words", "–", "–", "–", words] in page.rows
    assert page.row("shape", f"{cv['members']['shape']['fold_scores'][0]:.4f}")[2:] == ["–", shape, "–"]
    # No row is covered by both, so there is nothing to correlate.
    assert [cell for row in page.rows if row[0] == "words" and "1.00" in row for cell in row].count("–") == 1


def test_fifteen_members_and_an_accuracy(tmp_path: Path) -> None:
    members = {f"member_{i}": (0.3 + 0.03 * i, 0.5) for i in range(15)}
    competition = replace(load_competition("lmsys"), metric="accuracy")
    page = Page(rendered(make_run(tmp_path, competition, members)))
    assert "accuracy, higher is better" in page.text and "It goes " in page.text
    names = [row[0] for row in page.rows if row[0] in members and len(row) == 8]
    scores = {name: found["score"] for name, found in read_json(tmp_path / "metrics/cv.json")["members"].items()}
    assert names == sorted(names, key=lambda name: -scores[name]) and len(names) == 15
    assert sum(row.count("1.00") for row in page.rows) >= 15


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("metrics/cv.json", "stack"),
        ("metrics/rehearsal.json", "rehearse"),
        ("artifacts/oof/oof.parquet", "oof"),
        ("artifacts/stack/level2.parquet", "stack"),
        ("artifacts/competition/competition.json", "prepare"),
    ],
)
def test_a_missing_or_broken_file_names_its_stage(run: Path, file: str, stage: str) -> None:
    (run / file).write_text("{ half")
    with pytest.raises(PodiumError, match=rf"^{re.escape(file)}: broken \(.*\); .*`dvc repro -f {stage}`$"):
        load_evidence(run)
    (run / file).unlink()
    with pytest.raises(PodiumError, match=rf"^{re.escape(file)}: missing; .*`dvc repro {stage}`$"):
        load_evidence(run)


@pytest.mark.parametrize("value", ['"quick"', "null", "NaN", "[1]", "{"])
def test_seconds_that_are_no_number_are_refused(run: Path, value: str) -> None:
    (run / "work/seconds/stack.json").write_text(value)
    with pytest.raises(PodiumError, match=r"^work/seconds/stack\.json: expected one number"):
        load_evidence(run)


def test_the_stage_writes_the_page_or_ends_with_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run)
    monkeypatch.delenv("PODIUM_DEBUG", raising=False)
    report.main()
    page = Path("reports/index.html").read_text(encoding="utf-8")
    assert page == rendered(run)
    assert capsys.readouterr().out == f"reports/index.html: {headline(load_evidence(run))}\n"
    shutil.rmtree("reports")
    Path("metrics/rehearsal.json").unlink()
    with pytest.raises(SystemExit) as ended:
        report.main()
    assert ended.value.code == 2 and not Path("reports").exists()
    told = capsys.readouterr().err
    assert told.startswith("error: metrics/rehearsal.json: missing") and told.count("\n") == 1
