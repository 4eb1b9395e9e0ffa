"""The member kind `tabular`: TF-IDF and text features under logistic regressions or LightGBM.

Where a row has two sides, the answer is put together from two heads: "is it a tie", which sees only what stays when
the sides change places, and "who wins if someone does", which is trained on both orders of the decisive rows and
answers with the mean of its log odds over both orders. So a mirrored row gets exactly the mirrored answer, and each
head gets the inputs and the penalty that suit it. A single text has one head over its classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
from lightgbm.basic import LightGBMError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.special import expit, logit, softmax
from sklearn.decomposition import TruncatedSVD

from pipeline.competitions.task import Competition, Task
from pipeline.data.folds import group_keys
from pipeline.data.rows import joined_turns
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.models.saved import read_member, save_member
from pipeline.models.tabular.boosting import fit_boosting
from pipeline.models.tabular.head_inputs import Inputs, head_inputs, ngram_matrices
from pipeline.models.tabular.linear_head import LinearHead, fit_linear_head
from pipeline.models.tabular.tfidf import Tfidf, fit_tfidf
from pipeline.settings.tabular import Tabular

UNSEEN = 1.0e-6
"""Probability of a class that the training rows do not hold."""
Head = LinearHead | lgb.Booster


@dataclass(frozen=True)
class TabularModel:
    """One fold model; it keeps nothing of its training rows but vocabularies and weights."""

    competition: Competition
    settings: Tabular
    shares: np.ndarray
    """(classes,): share of each class among the training rows."""
    vocabularies: dict[str, Tfidf]
    components: np.ndarray | None
    """(singular vectors, n-grams) float32, where the settings ask for a reduction."""
    heads: dict[str, Head]
    """A head whose training rows held only one outcome is left out; `shares` answers for it."""

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """Returns (rows, classes) float64 probabilities; each row sums to 1."""
        task = self.competition.kind
        matrices = ngram_matrices(rows, task, self.vocabularies)
        inputs = head_inputs(rows, task, self.settings, matrices, self.components)
        if task.sides is None:
            return self._class_probabilities(inputs["class"])
        tie = _tie_class(task)
        odds = np.full(len(rows), logit(np.clip(self.shares[tie], UNSEEN, 1 - UNSEEN)))
        if "tie" in self.heads:
            odds = _scores(self.heads["tie"], inputs["tie"])[:, 0]
        winner = np.zeros(len(rows))
        if "winner" in self.heads:
            straight, mirrored = (_scores(self.heads["winner"], inputs[key]) for key in ("winner", "mirrored winner"))
            winner = (straight - mirrored)[:, 0] / 2
        first, second = task.decisive or ()
        probabilities = np.empty((len(rows), len(self.shares)))
        probabilities[:, first] = expit(-odds) * expit(winner)
        probabilities[:, second] = expit(-odds) * expit(-winner)
        probabilities[:, tie] = expit(odds)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def _class_probabilities(self, inputs: Inputs) -> np.ndarray:
        """Returns the probabilities of the classes that were trained, with a trace left for the others."""
        probabilities = np.full((len(inputs.dense), len(self.shares)), UNSEEN)
        trained = np.flatnonzero(self.shares)
        if "class" not in self.heads:
            probabilities[:, trained] = 1.0
        else:
            scores = _scores(self.heads["class"], inputs)
            logits = scores if len(trained) > 2 else np.hstack([np.zeros_like(scores), scores])
            probabilities[:, trained] = softmax(logits, axis=1)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def save(self, folder: Path) -> None:
        """Writes member.json, weights.safetensors, vocabulary.json and LightGBM's text files; no pickle."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        boosters: dict[str, lgb.Booster] = {}
        for unit, vocabulary in self.vocabularies.items():
            arrays[f"{unit}.idf"] = vocabulary.idf
        if self.components is not None:
            arrays["components"] = self.components
        for name, head in self.heads.items():
            if isinstance(head, LinearHead):
                arrays |= {f"{name}.{part}": getattr(head, part) for part in LinearHead.__dataclass_fields__}
            else:
                boosters[name] = head
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "weights.safetensors")
        for name, booster in boosters.items():
            (folder / f"{name}.txt").write_text(booster.model_to_string(), encoding="utf-8")
        write_json(folder / "vocabulary.json", {unit: each.ngrams for unit, each in self.vocabularies.items()})
        save_member(folder, self.settings, self.competition, shares=self.shares.tolist(), heads=list(self.heads))


def fit_tabular(
    rows: pl.DataFrame, labels: np.ndarray, settings: Tabular, competition: Competition, threads: int
) -> TabularModel:
    """Fits a member on `rows` alone: vocabularies, reduction, scaling and the number of trees know no other rows.

    labels (rows,): indices into `competition.outputs`; Equal arguments give
    equal bytes for a given number of threads.
    """
    task, labels = competition.kind, np.asarray(labels, dtype=np.int64)
    texts = pl.concat([joined_turns(rows, field) for field in task.sides or task.fields])
    vocabularies = {unit: fit_tfidf(texts, unit, **vars(each)) for unit, each in settings.vocabularies().items()}
    matrices = ngram_matrices(rows, task, vocabularies)
    components = _components(matrices, settings) if settings.components else None
    inputs = head_inputs(rows, task, settings, matrices, components)
    groups = group_keys(rows, task).rank("dense").to_numpy()
    heads: dict[str, Head] = {}

    def fit(name: str, seen: Inputs, targets: np.ndarray, groups: np.ndarray) -> None:
        if len(np.unique(targets)) < 2:
            return
        if settings.model == "logistic":
            penalties = settings.logistic
            features_c = penalties.tie_c if name == "tie" else penalties.features_c
            heads[name] = fit_linear_head(seen, targets, penalties.c, features_c, odd=name == "winner")
        else:
            print(f"  {name} head, {len(targets)} rows", flush=True)
            heads[name] = fit_boosting(seen.dense, targets, groups, settings.boosting, threads, settings.seed)

    if task.sides is None:
        fit("class", inputs["class"], np.unique(labels, return_inverse=True)[1], groups)
    else:
        decisive = np.flatnonzero(labels != _tie_class(task))
        both = inputs["winner"].take(decisive).below(inputs["mirrored winner"].take(decisive))
        first_wins = (labels[decisive] == (task.decisive or ())[0]).astype(np.int64)
        fit("winner", both, np.concatenate([first_wins, 1 - first_wins]), np.tile(groups[decisive], 2))
        fit("tie", inputs["tie"], (labels == _tie_class(task)).astype(np.int64), groups)
    shares = np.bincount(labels, minlength=len(competition.outputs)) / len(labels)
    return TabularModel(competition, settings, shares, vocabularies, components, heads)


def load_tabular(folder: Path, competition: Competition) -> TabularModel:
    """Returns the model that `TabularModel.save` wrote; its predictions are equal to the last bit.

    Raises: PodiumError where a file is missing or broken, or belongs to another format or to other classes.
    """
    about = read_member(folder, competition)
    settings, file = about.settings, folder / "vocabulary.json"
    assert isinstance(settings, Tabular)
    try:
        ngrams = read_json(file)
        file = folder / "weights.safetensors"
        arrays = load_file(file)
        vocabularies = {
            unit: Tfidf(unit, each.longest, ngrams[unit], arrays[f"{unit}.idf"])
            for unit, each in settings.vocabularies().items()
        }
        heads: dict[str, Head] = {}
        for name in about.facts["heads"]:
            if settings.model == "logistic":
                heads[name] = LinearHead(*(arrays[f"{name}.{part}"] for part in LinearHead.__dataclass_fields__))
            else:
                file = folder / f"{name}.txt"
                heads[name] = lgb.Booster(model_str=file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, SafetensorError, LightGBMError) as error:
        raise PodiumError(f"{file}: expected a whole file of a tabular member, found {error!r}") from error
    return TabularModel(
        competition, settings, np.array(about.facts["shares"]), vocabularies, arrays.get("components"), heads
    )


def _components(matrices: dict[str, sparse.csr_matrix], settings: Tabular) -> np.ndarray:
    """Returns (components, n-grams) float32: right singular vectors of the texts' TF-IDF (latent semantic analysis)."""
    stacked = sparse.vstack(list(matrices.values()), format="csr")
    components = min(settings.components, min(stacked.shape) - 1)
    fitted = TruncatedSVD(components, random_state=settings.seed).fit(stacked)
    return fitted.components_.astype(np.float32)


def _scores(head: Head, inputs: Inputs) -> np.ndarray:
    """Returns (rows, 1) log odds of the second of two classes, or (rows, classes) logits of more."""
    if isinstance(head, LinearHead):
        return head.scores(inputs)
    return np.asarray(head.predict(inputs.dense, raw_score=True)).reshape(len(inputs.dense), -1)


def _tie_class(task: Task) -> int:
    """Returns the class that names no winner: it stays where it is when the sides change places."""
    return next(index for index, image in enumerate(task.mirror or ()) if index == image)
