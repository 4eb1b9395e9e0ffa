"""params.yaml as frozen objects. Every key is described here; an unknown key or a wrong type is an error.

python -m pipeline.config        # checks params.yaml and prints it with every default filled in
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.validation import read_yaml, validated


class Section(BaseModel):
    """A frozen part of params.yaml that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    path: str
    """Folder with train.csv, test.csv and sample_submission.csv."""
    competition: str
    """A name in pipeline/competitions/, or a path to a YAML file of the same form."""


class Demo(Section):
    train_rows: int = Field(ge=10)
    test_rows: int = Field(ge=1)
    seed: int


class Folds(Section):
    ids: tuple[int, ...] = Field(min_length=2)
    """0, 1, ... one number per fold; a list, because DVC makes a stage of each."""
    holdout: float = Field(ge=0.0, le=0.5)
    """Share of the rows that no member and no stacker is trained on; 0 for none."""
    seed: int

    @field_validator("ids")
    @classmethod
    def _count_up(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        if list(ids) != list(range(len(ids))):
            raise ValueError(f"expected {list(range(len(ids)))}")
        return ids


class Ngrams(Section):
    """TF-IDF over n-grams of words, or of characters (slow on long texts)."""

    longest: int = Field(ge=1, le=8)
    """N-grams of one up to that many words or characters."""
    max_features: int = Field(ge=1)
    """The commonest are kept."""
    min_df: int = Field(default=3, ge=1)
    """An n-gram must occur in that many texts of the fold's training rows."""


class Logistic(Section):
    """L2-regularised logistic regression; each number is an inverse strength of the penalty."""

    c: float = Field(default=0.5, gt=0)
    """On the weights of n-grams."""
    features_c: float = Field(default=0.002, gt=0)
    """On the weights of the text features, each of unit variance."""
    tie_c: float = Field(default=0.01, gt=0)
    """On the weights of the text features where they tell ties from decisive rows."""


class Boosting(Section):
    """LightGBM; the number of trees is found by early stopping on an inner, group-respecting slice."""

    learning_rate: float = Field(default=0.05, gt=0)
    leaves: int = Field(default=8, ge=2)
    min_rows_in_leaf: int = Field(default=40, ge=1)
    feature_share: float = Field(default=0.3, gt=0, le=1)
    row_share: float = Field(default=0.6, gt=0, le=1)
    l2: float = Field(default=20.0, ge=0)
    max_trees: int = Field(default=600, ge=1)
    patience: int = Field(default=40, ge=1)


class Tabular(Section):
    """A member of kind `tabular`: TF-IDF and text features under a logistic regression or LightGBM."""

    kind: Literal["tabular"]
    model: Literal["logistic", "lightgbm"]
    features: bool = True
    """Use the text features of pipeline/data/features.py."""
    words: Ngrams | None = None
    characters: Ngrams | None = None
    components: int = Field(default=0, ge=0)
    """Reduce TF-IDF to that many singular vectors (LightGBM cannot use the raw matrix); 0 keeps the matrix."""
    logistic: Logistic = Logistic()
    boosting: Boosting = Boosting()
    folds: tuple[int, ...] | None = None
    """Train these folds only; the others write empty parts."""
    seed: int = 0

    @model_validator(mode="after")
    def _has_an_input(self) -> Tabular:
        tfidf = self.words or self.characters
        if not (self.features or tfidf):
            raise ValueError("give the member an input: features, words or characters")
        if self.model == "lightgbm" and tfidf and not self.components:
            raise ValueError("lightgbm needs components > 0 to use words or characters")
        return self


class External(Section):
    """A member of kind `external`: a teammate's predictions, read from a file in external/."""

    kind: Literal["external"]
    file: str
    """CSV or parquet under external/, see external/README.md: out-of-fold, holdout and test probabilities by id."""
    folds: tuple[int, ...] | None = None

    @field_validator("file")
    @classmethod
    def _where_dvc_looks(cls, file: str) -> str:
        if Path(file).parts[:1] != ("external",) or ".." in Path(file).parts:
            raise ValueError("expected a file under external/, the folder that DVC watches")
        return file


Member = Annotated[Tabular | External, Field(discriminator="kind")]


class Stack(Section):
    candidates: tuple[Literal["mean", "greedy", "weights", "logistic", "lightgbm"], ...] = Field(min_length=1)
    """From the simplest to the most flexible; the simplest within one paired standard error of the best is chosen."""
    seed: int


class Package(Section):
    owner: str
    """Your Kaggle user name."""
    slug: str = Field(min_length=6, max_length=50, pattern=r"^[a-z0-9-]+$")
    """Name of the Kaggle dataset that holds the package."""
    title: str = Field(min_length=6, max_length=50)
    budget_seconds: int = Field(ge=60)
    """The competition's run-time limit, from the kernel's process start."""


class Params(Section):
    """The whole of params.yaml."""

    data: Data
    demo: Demo
    folds: Folds
    threads: int = Field(ge=1)
    """CPU threads of every stage; results are the same for a given number."""
    members: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Member] = Field(min_length=1)
    stack: Stack
    refit: bool = False
    """Train one more model per member on every row, holdout included, and let it join the kernel's average."""
    package: Package

    @model_validator(mode="after")
    def _members_train_known_folds(self) -> Params:
        for name, member in self.members.items():
            unknown = sorted(set(member.folds or ()) - set(self.folds.ids))
            if unknown:
                raise ValueError(f"members.{name}.folds: {unknown} not in folds.ids {list(self.folds.ids)}")
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The checked contents of params.yaml.

    Raises: PodiumError that names the key, with the nearest known one where it is unknown.
    """
    return validated(Params, read_yaml(path), path.name)


if __name__ == "__main__":
    from pipeline.stage import stage

    with stage("config"):
        print(load_params().model_dump_json(indent=2))
