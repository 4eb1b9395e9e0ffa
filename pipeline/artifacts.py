"""Where things lie in a run's folder, artifacts/, and in a package, which has the same layout; and their contents.

No other file spells such a path. A stage reads with `Artifacts()`; the kernel with `Artifacts(package)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.competitions.task import Competition, competition_from_json
from pipeline.errors import PodiumError
from pipeline.files import read_json

HOLDOUT = -1
"""The fold of rows that no member, backbone or stacker learns from."""
MEMBER = "member.json"
"""In a fold model's folder: its kind, whether it was trained, and its settings."""
FACTS = "backbone.json"
"""In a backbone's folder: its family, architecture, sizes and content hash."""
POINTER = "unchanged.json"
"""Stands in pretrained/<backbone>/ in place of a second copy of weights that nothing has changed."""
PRETRAINING = "pretraining.json"
"""In pretrained/<backbone>/: how its pretraining went."""
MANIFEST = "MANIFEST.json"
"""In a package: every file with its hash, the members, the rungs."""
DATASET_METADATA = "dataset-metadata.json"
"""In a package: title and name of its dataset, for the Kaggle CLI, which does not upload it."""

# What the stages measured stands beside artifacts/: git keeps it, and `dvc metrics diff` compares it.
CV_METRICS = Path("metrics/cv.json")
PROBE_METRICS = Path("metrics/probe.json")
REHEARSAL_METRICS = Path("metrics/rehearsal.json")


class _Below:
    """A fixed path below the root."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, artifacts: Artifacts, kind: type[Artifacts]) -> Path:
        return artifacts.root / self.path


@dataclass(frozen=True)
class Artifacts:
    """The folder of a run or of a package."""

    root: Path = Path("artifacts")

    competition_folder = _Below("competition")
    competition_file = _Below("competition/competition.json")
    """The competition's YAML as JSON, and how many rows train and test have."""
    train_file = _Below("competition/train.parquet")
    test_file = _Below("competition/test.parquet")
    truth_file = _Below("competition/truth.parquet")
    """True probabilities of the training rows, where the data was generated."""
    folds_file = _Below("folds.parquet")
    extra_folder = _Below("extra")
    oof_file = _Below("oof/oof.parquet")
    holdout_file = _Below("oof/holdout.parquet")
    tokens = _Below("tokens")
    """Token ids of texts, once per tokenizer; no stage's output, and it may go at any time."""
    stack = _Below("stack")
    level2_file = _Below("stack/level2.parquet")
    """The stack's nested predictions."""
    diagnostics_file = _Below("diagnostics.json")
    package = _Below("package")
    manifest_file = _Below("MANIFEST.json")
    code = _Below("code")
    """In a package: the kernel's own code."""
    wheels = _Below("wheels")
    """In a package: the libraries that the kernel brings along."""
    parity_file = _Below("parity.parquet")
    """In a package: some rows with what the members said of them out-of-fold."""
    submission_file = _Below("rehearsal/submission.csv")

    def competition(self) -> Competition:
        """Returns the competition as `prepare` has kept it."""
        return competition_from_json(read_json(self.competition_file)["competition"])

    def train(self) -> pl.LazyFrame:
        """Returns the training rows: id, label, the text fields, each a list of turns, and maybe group and time.

        A label is a class index, or one number per output, NaN where it is not known; of `ordered` it is the score.
        """
        return pl.scan_parquet(self.train_file, glob=False)

    def test(self) -> pl.DataFrame:
        """Returns the rows of the test file: id and the text fields."""
        return pl.read_parquet(self.test_file)

    def folds(self) -> pl.DataFrame:
        """Returns id and fold (-1 is the holdout) of every training row, in the order of `train()`.

        Raises: PodiumError where it does not hold the ids of the training rows in their order.
        """
        folds = pl.read_parquet(self.folds_file)
        if not folds["id"].equals(self.train().select("id").collect()["id"]):
            raise PodiumError(f"{self.folds_file}: its ids are not those of {self.train_file}; run `dvc repro folds`")
        return folds

    def seen_rows(self) -> pl.DataFrame:
        """Returns the training rows without the holdout: all that members, backbones and tokenizers may learn from."""
        return self.train().collect().filter(self.folds()["fold"] != HOLDOUT)

    # Backbones, by name.

    def backbone(self, name: str) -> Path:
        return self.root / "backbones" / name

    def pretrain_start(self, name: str) -> Path:
        return self.root / "start_pretrain" / f"{name}.json"

    def pretrained(self, name: str) -> Path:
        return self.root / "pretrained" / name

    def pretrainings(self) -> list[Path]:
        """Returns the records of the backbones that were pretrained here."""
        return sorted(self.root.glob(f"pretrained/*/{PRETRAINING}"))

    def quantised(self, name: str, precision: str) -> Path:
        """In a package: the base that decoders of that precision share."""
        return self.root / "pretrained" / f"{name}-{precision}"

    def base(self, name: str, precision: str = "fp32") -> Path:
        """Returns the folder of a backbone's network and tokenizer, quantised already where that exists.

        Raises: PodiumError where there is none.
        """
        for folder in (self.quantised(name, precision), self.pretrained(name)):
            if (folder / POINTER).is_file():
                return self.backbone(name)
            if (folder / "config.json").is_file():
                return folder
        raise PodiumError(f"{self.pretrained(name)}: expected a backbone, found none; run `dvc repro`")

    def backbone_facts(self, name: str) -> dict[str, Any]:
        """Returns what is known of a backbone: family, architecture, positions, sha256 of its contents, ...

        Raises: PodiumError where there is none.
        """
        for file in (self.pretrained(name) / POINTER, self.pretrained(name) / FACTS):
            if file.is_file():
                facts: dict[str, Any] = read_json(file)
                return facts
        raise PodiumError(f"{self.pretrained(name)}: expected a backbone, found none; run `dvc repro`")

    # Members, their fold models and what they said.

    def start(self, member: str) -> Path:
        return self.root / "start" / f"{member}.json"

    def member(self, name: str) -> Path:
        """The folder of a member's fold models."""
        return self.root / "members" / name

    def model(self, member: str, fold: int) -> Path:
        return self.member(member) / f"fold{fold}"

    def receipt(self, member: str, fold: int) -> Path:
        """Where a fold model comes from, and the record of its training."""
        return self.root / "receipts" / f"{member}-fold{fold}.json"

    def receipts(self) -> list[Path]:
        """Returns the receipts that are there, those of former members among them."""
        return sorted(self.root.glob("receipts/*.json"))

    def oof_part(self, member: str, fold: int) -> Path:
        return self.root / "oof" / member / f"fold{fold}.parquet"

    def holdout_part(self, member: str, fold: int) -> Path:
        return self.root / "oof" / member / f"holdout{fold}.parquet"

    def extra(self, source: str) -> Path:
        """Rows from elsewhere: id, label or one Float64 column per output, the fields, and `apart`, a list of folds."""
        return self.extra_folder / f"{source}.parquet"

    def lessons(self, student: str, fold: int) -> Path:
        """The folder of what each member's fold model tells a student's, of the rows that both learn from."""
        return self.root / "lessons" / student / f"fold{fold}"

    def refit(self, member: str) -> Path:
        return self.root / "refit" / member

    def refit_model(self, member: str) -> Path:
        return self.refit(member) / "model"

    def refit_answers(self, member: str) -> Path:
        """What a refitted model says of some rows, for the parity check."""
        return self.refit(member) / "parity.parquet"

    def strays(self, members: set[str], students: set[str], folds: set[int], backbones: set[str]) -> list[Path]:
        """Returns the files and folders of members, folds or backbones other than these, and what may go anyway.

        members: all of them, `students` too.
        """
        wanted = {self.refit(m) for m in members}
        for m in members:
            for k in folds:
                wanted |= {self.receipt(m, k), self.model(m, k), self.oof_part(m, k), self.holdout_part(m, k)}
        for s in students:
            for k in folds:
                wanted |= {self.lessons(s, k) / m for m in members - students}
        for b in backbones:
            wanted |= {self.backbone(b), self.pretrained(b)}
        found: list[Path] = []
        for pattern in (
            *("receipts/*.json", "members/*/fold*", "oof/*/*.parquet", "lessons/*/fold*/*"),
            *("refit/*", "backbones/*", "pretrained/*"),
            "members/*/.fold*.partial",  # left by a process that was killed
            "tokens/*",  # made again where they are wanted
        ):
            found += sorted(set(self.root.glob(pattern)) - wanted)
        return found
