"""The member kind `tabular`: TF-IDF and text features under linear models or LightGBM.

Where two sides compete, the answer is put together from two heads: "is it a tie", which sees only what stays when the
sides change places, and "who wins if someone does", which is trained on both orders of the decisive rows and answers
with the mean of its log odds over both orders. So a mirrored row gets exactly the mirrored answer, and each head gets
the inputs and the penalty that suit it. Options have one head, which scores each of them alike. All other rows have one
head over the classes, or one per label, step of an ordered score, or number.
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

from pipeline.competitions.family import Categorical, Family, Ordinal
from pipeline.competitions.task import Competition
from pipeline.data.features import competing
from pipeline.data.folds import group_keys
from pipeline.data.rows import joined_turns
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.models.saved import read_member, save_member
from pipeline.models.tabular.boosting import fit_boosting
from pipeline.models.tabular.head_inputs import Inputs, head_inputs, ngram_fields, ngram_matrices, stacked
from pipeline.models.tabular.linear_head import LinearHead, fit_linear_head
from pipeline.models.tabular.tfidf import Tfidf, fit_tfidf
from pipeline.settings.tabular import Tabular

UNSEEN = 1.0e-6
"""Probability of a class that the training rows do not hold."""
TIE = 2
"""The class of competing sides that names no winner, where there is one; 0 and 1 name the sides."""
TWO = Categorical(2)
Head = LinearHead | lgb.Booster


@dataclass(frozen=True)
class TabularModel:
    """One fold model; it keeps nothing of its training rows but vocabularies and weights."""

    competition: Competition
    settings: Tabular
    shares: np.ndarray
    """(outputs,): the constant predictor's answer."""
    vocabularies: dict[str, Tfidf]
    components: np.ndarray | None
    """(singular vectors, n-grams) float32, where the settings ask for a reduction."""
    heads: dict[str, Head]
    """A head whose training rows held only one outcome, or equal inputs, is left out; `shares` answers for it."""

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """Returns (rows, outputs) float64 means."""
        task, family = self.competition.kind, self.competition.family
        matrices = ngram_matrices(rows, task, self.vocabularies)
        inputs = head_inputs(rows, task, self.settings, matrices, self.components)
        if competing(task):
            return self._competing(inputs, len(rows))
        if task.options and self.heads:
            return _over_options([_scores(self.heads["option"], inputs[option]) for option in task.options])
        if "class" in self.heads:
            return self._class_probabilities(inputs["answer"])
        eta = np.tile(family.link(self.shares), (len(rows), 1))
        for place, name in enumerate(_output_heads(self.competition)):
            if name in self.heads:
                eta[:, place] = _scores(self.heads[name], inputs["answer"])[:, 0]
        means = family.means(eta)
        # Each step has a head of its own; a score above k is above k - 1, too.
        return -np.sort(-means, axis=1) if isinstance(family, Ordinal) else means

    def _competing(self, inputs: dict[str, Inputs], rows: int) -> np.ndarray:
        """Returns the probabilities that the first side wins, that the second does, and of a tie if there are any."""
        odds, winner = np.full(rows, -np.inf), np.zeros(rows)
        if "tie" in self.heads:
            odds = _scores(self.heads["tie"], inputs["tie"])[:, 0]
        elif len(self.shares) > TIE:
            odds[:] = logit(np.clip(self.shares[TIE], UNSEEN, 1 - UNSEEN))
        if "winner" in self.heads:
            straight, mirrored = (_scores(self.heads["winner"], inputs[key]) for key in ("winner", "mirrored winner"))
            winner = (straight - mirrored)[:, 0] / 2
        wins = [expit(-odds) * expit(winner), expit(-odds) * expit(-winner), expit(odds)]
        probabilities = np.stack(wins[: len(self.shares)], axis=1)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def _class_probabilities(self, inputs: Inputs) -> np.ndarray:
        """Returns the probabilities of the classes that were trained, with a trace left for the others."""
        probabilities = np.full((len(inputs.dense), len(self.shares)), UNSEEN)
        trained, scores = np.flatnonzero(self.shares), _scores(self.heads["class"], inputs)
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
    rows: pl.DataFrame,
    labels: np.ndarray,
    settings: Tabular,
    competition: Competition,
    threads: int,
    weights: np.ndarray | None = None,
) -> TabularModel:
    """Fits a member on `rows` alone: vocabularies, reduction, scaling and the number of trees know no other rows.

    labels: as train.parquet has them, (rows,) indices or (rows, outputs) numbers. weights: (rows,) what each row's loss
    counts, where not all count the same. Equal arguments give equal bytes for
    a given number of threads.
    """
    task, family = competition.kind, competition.family
    texts = pl.concat([joined_turns(rows, field) for field in ngram_fields(task)])
    vocabularies = {unit: fit_tfidf(texts, unit, **vars(each)) for unit, each in settings.vocabularies().items()}
    matrices = ngram_matrices(rows, task, vocabularies)
    components = _components(matrices, settings) if settings.components else None
    inputs = head_inputs(rows, task, settings, matrices, components)
    groups, everyone = group_keys(rows, task).rank("dense").to_numpy(), np.arange(len(rows))
    heads: dict[str, Head] = {}

    def fit(name: str, seen: Inputs, targets: np.ndarray, of: Family, chosen: np.ndarray, times: int = 1) -> None:
        """Fits a head on the rows `chosen`, which stand `times` one below the other."""
        if len(np.unique(targets)) < 2 or not seen.varied():
            return
        counts = None if weights is None else np.tile(weights[chosen], times)
        if settings.model == "logistic":
            penalties = settings.logistic
            features_c = penalties.tie_c if task.sides and name != "winner" else penalties.features_c
            heads[name] = fit_linear_head(seen, targets, of, penalties.c, features_c, name == "winner", counts)
        else:
            print(f"  {name} head, {len(targets)} rows", flush=True)
            apart = np.tile(groups[chosen], times)
            heads[name] = fit_boosting(
                seen.dense, targets, of, apart, settings.boosting, threads, settings.seed, counts
            )

    if competing(task):
        decisive = np.flatnonzero(labels != TIE)
        both = stacked(inputs[key].take(decisive) for key in ("winner", "mirrored winner"))
        first_wins = (labels[decisive] == 0).astype(np.int64)
        fit("winner", both, np.concatenate([first_wins, 1 - first_wins]), TWO, decisive, 2)
        fit("tie", inputs["tie"], (labels == TIE).astype(np.int64), TWO, everyone)
    elif task.options:
        answers = family.statistic(labels).T.reshape(-1)
        fit("option", stacked(inputs.values()), answers, family, everyone, len(task.options))
    elif isinstance(family, Categorical):
        fit("class", inputs["answer"], np.unique(labels, return_inverse=True)[1], family, everyone)
    else:
        for name, targets in zip(_output_heads(competition), family.statistic(labels).T, strict=True):
            known = np.flatnonzero(np.isfinite(targets))
            fit(name, inputs["answer"].take(known), targets[known], family, known)
    return TabularModel(competition, settings, family.prior(labels), vocabularies, components, heads)


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
    texts = sparse.vstack(list(matrices.values()), format="csr")
    components = min(settings.components, min(texts.shape) - 1)
    if components < 1:
        return np.empty((0, texts.shape[1]), dtype=np.float32)
    fitted = TruncatedSVD(components, random_state=settings.seed).fit(texts)
    return fitted.components_.astype(np.float32)


def _scores(head: Head, inputs: Inputs) -> np.ndarray:
    """Returns (rows, 1) log odds, scores or numbers, or (rows, classes) logits of more than two classes."""
    if isinstance(head, LinearHead):
        return head.scores(inputs)
    return np.asarray(head.predict(inputs.dense, raw_score=True)).reshape(len(inputs.dense), -1)


def _over_options(scores: list[np.ndarray]) -> np.ndarray:
    """Returns the softmax over a row's options of one (rows, 1) each; the same to the last bit in any order of them."""
    raw = np.hstack(scores)
    weights = np.exp(raw - raw.max(axis=1, keepdims=True))
    return weights / np.sort(weights, axis=1).sum(axis=1, keepdims=True)


def _output_heads(competition: Competition) -> list[str]:
    """Returns a name per output; the outputs' own may not be names of files."""
    return [f"output{place}" for place in range(len(competition.outputs))]
