"""Every kind of inputs with every outcome that it may have: tiny networks learn them, are saved, loaded, and answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from networks import decoder, encoder, ready
from safetensors.torch import load_file, save_file

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, Label
from pipeline.data.rows import swapped
from pipeline.data.split import Split
from pipeline.files import read_json
from pipeline.inference.predict import predict_member
from pipeline.kinds import KINDS
from pipeline.members import finetune
from pipeline.members.context import Run, Start
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.prior import Prior

ROWS = 48
SIGNS = ("alpha alpha", "gamma gamma", "for example")
FIELDS = {
    "text": ("title", "text"),
    "pair": ("a", "b"),
    "preference": ("prompt", "a", "b"),
    "choices": ("question", "first", "second", "third"),
}
LABELS: dict[str, Label] = {
    "classes": Label(column="label"),
    "choice": Label(column="label"),
    "labels": Label(columns=("one", "two")),
    "ordered": Label(column="score", low=1, high=3),
    "numbers": Label(columns=("length", "depth")),
}
TRAINING: dict[str, Any] = {"epochs": 6, "schedule": {"rate": 1e-2, "warmup": 0.1}}


@dataclass(frozen=True)
class Case:
    """A competition's form, and the head that a siamese network has for it."""

    task: Any
    outcome: Any
    symmetric: bool = False
    classes: int = 0
    head: str = "plain"

    def competition(self) -> Competition:
        """What a YAML file would say; `prepare` has filled in the numbers' units."""
        names = tuple(f"class {number}" for number in range(self.classes))
        units: dict[str, Any] = {"centre": (3.0, 0.0), "spread": (1.6, 0.8)} if self.outcome == "numbers" else {}
        fields = FIELDS[self.task]
        options = fields[1:] if self.task == "choices" else ()
        return Competition(
            "toy", self.task, "log_loss", "id", {name: name for name in fields}, LABELS[self.outcome],
            outcome=self.outcome, classes=names, options=options, symmetric=self.symmetric, **units,
        )  # fmt: skip

    def rows(self) -> pl.DataFrame:
        """Rows that say what their answer is, in words that stand where this matters."""
        draw = np.random.default_rng(0)
        truth = draw.integers(0, self.classes or 3, ROWS)
        sign = [SIGNS[each] for each in truth]
        filler = [["beta delta epsilon"] for _ in truth]
        columns = dict.fromkeys(FIELDS[self.task], filler)
        if self.task in ("preference", "choices"):
            for number, name in enumerate(FIELDS[self.task][1:]):
                columns[name] = [["for example" if each == number else "beta delta"] for each in truth]
        else:
            columns["text" if self.task == "text" else "a"] = [[f"zeta {each} eta"] for each in sign]
            if self.symmetric:
                columns["b"] = [[f"{each} mu"] for each in sign]
        return pl.DataFrame({"id": [str(n) for n in range(ROWS)], "label": self._labels(truth), **columns})

    def _labels(self, truth: np.ndarray) -> pl.Series:
        if self.outcome in ("classes", "choice"):
            return pl.Series(truth, dtype=pl.Int16)
        values = {
            "labels": np.stack([truth == 0, np.where(np.arange(ROWS) % 5 == 0, np.nan, truth != 1)], axis=1),
            "ordered": truth[:, None] + 1.0,
            "numbers": np.stack([1 + 2.0 * truth, 1 - truth], axis=1),
        }[self.outcome]
        return pl.Series(values.astype(np.float64), dtype=pl.Array(pl.Float64, values.shape[1]))


CASES = {
    "text, classes": Case("text", "classes", classes=3),
    "text, labels": Case("text", "labels"),
    "text, ordered": Case("text", "ordered"),
    "text, numbers": Case("text", "numbers"),
    "pair, classes": Case("pair", "classes", classes=2),
    "pair, labels": Case("pair", "labels"),
    "pair, ordered": Case("pair", "ordered"),
    "pair, numbers": Case("pair", "numbers"),
    "symmetric pair, classes": Case("pair", "classes", True, 3, "equivariant"),
    "symmetric pair, labels": Case("pair", "labels", True, head="equivariant"),
    "symmetric pair, ordered": Case("pair", "ordered", True, head="equivariant"),
    "symmetric pair, numbers": Case("pair", "numbers", True, head="equivariant"),
    "preference, two classes": Case("preference", "classes", classes=2, head="equivariant"),
    "preference, three classes": Case("preference", "classes", classes=3, head="equivariant"),
    "choices": Case("choices", "choice"),
}


@pytest.fixture
def trained(tmp_path: Path, backbones: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains a member on all rows of a case; gives its folder and where its backbone lies."""
    monkeypatch.chdir(tmp_path)

    def made(case: Case, settings: Any) -> tuple[Path, Artifacts]:
        rows, competition = case.rows(), case.competition()
        artifacts = Artifacts(ready(tmp_path, rows, competition, np.zeros(ROWS, dtype=np.int8), backbones))
        if settings.head == "tokens":
            enlarge(artifacts.backbone("llama") / "model.safetensors")
        folder = artifacts.model("mine", 0)
        folder.mkdir(parents=True)
        run = Run("mine", artifacts, Checkpoint(tmp_path / "checkpoint"))
        start = Start("mine", settings, competition, 1, max_attempts=1)
        KINDS[settings.kind].train()(Split(rows, rows.head(0), rows.head(0)), start, folder, run)
        return folder, artifacts

    return made


def member(form: str, case: Case) -> Any:
    """Settings of an encoder, of a decoder with a fresh head, or of one that answers in tokens."""
    siamese = {"input": "siamese", "head": case.head}
    if form == "encoder":
        return encoder(TRAINING, **siamese)
    if form == "decoder":
        return decoder(TRAINING, pooling="mean", **siamese)
    return decoder(TRAINING, head="tokens", max_tokens=200)


SOME = ("text, labels", "pair, numbers", "symmetric pair, ordered", "preference, three classes", "choices")
"""Decoders are asked about the other kinds in slow tests: their heads are those of encoders."""
TOKENS = ("text, classes", "pair, labels", "text, ordered", "preference, three classes", "choices")
FORMS: list[Any] = [(name, "encoder") for name in CASES] + [(name, "tokens") for name in TOKENS]
FORMS += [pytest.param(name, "decoder", marks=() if name in SOME else pytest.mark.slow) for name in CASES]


def enlarge(file: Path) -> None:
    """Makes fresh weights ten times as large: those of a language head tell words apart only once they have learned."""
    tensors = load_file(file)
    larger = {name: each if "norm" in name else 10 * each for name, each in tensors.items()}
    save_file(larger, file, metadata={"format": "pt"})


@pytest.mark.parametrize("name, form", FORMS)
def test_it_is_learned_kept_and_answered(name: str, form: str, trained: Any) -> None:
    case = CASES[name]
    settings = member(form, case)
    folder, artifacts = trained(case, settings)
    rows, competition = case.rows(), case.competition()

    def answers(asked: pl.DataFrame) -> np.ndarray:
        return predict_member(folder, artifacts, asked, competition)

    if form != "encoder":  # the same file whoever writes it
        modules = read_json(folder / "adapter" / "adapter_config.json")["target_modules"]
        assert modules == sorted(modules)
    found, labels = answers(rows), rows["label"].to_numpy()
    assert found.shape == (ROWS, len(competition.outputs)) and np.isfinite(found).all()
    assert np.ptp(found, axis=0).min() > 0
    if competition.family.bounded:
        assert found.min() >= 0 and found.max() <= 1
    assert competition.family.losses(labels, found).mean() < 0.9 * Prior(competition.family, labels).loss
    if competition.kind.sides and settings.head == "equivariant":
        mirrored = competition.mirrored(answers(swapped(rows, competition.kind)))
        assert np.abs(found - mirrored).max() < 1e-6
    if case.task == "choices":
        order = [2, 0, 1]
        names = [competition.options[place] for place in order]
        turned = rows.with_columns(pl.col(old).alias(new) for new, old in zip(competition.options, names, strict=True))
        assert np.abs(found[:, order] - answers(turned)).max() < 1e-6


def test_swapped_rows_of_a_symmetric_pair_keep_their_labels(
    tmp_path: Path, backbones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, both in (("symmetric pair, labels", True), ("symmetric pair, classes", True), ("pair, labels", False)):
        case = CASES[name]
        rows, competition, settings = case.rows(), case.competition(), encoder({"swap": True}, input="joint")
        artifacts = Artifacts(ready(tmp_path / name, rows, competition, np.zeros(ROWS, dtype=np.int8), backbones))
        run = Run("x", artifacts, Checkpoint(tmp_path / "checkpoint"))
        opened = finetune.open_run(Split(rows, rows, rows), Start("x", settings, competition, 1), settings, run)
        learned = finetune._objective(rows, opened, True, 0.0)
        assert len(learned.labels) == len(learned.encoded) == ROWS * (1 + both)
        if both:
            np.testing.assert_array_equal(*np.split(learned.labels, 2))
