"""Checks the competition's files and writes them as parquet to artifacts/competition/.

python -m stages.prepare
"""

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.ingest.prepare import prepare
from pipeline.stage import stage

MOST_SHARES = 12
"""Answers of which the summary gives the shares."""


def answers_in_words(labels: np.ndarray, competition: Competition) -> str:
    """Returns the share of each class, label or score, or the mean of each number."""
    if competition.outcome == "numbers":
        scale = zip(competition.outputs, competition.centre, competition.spread, strict=True)
        form = "log(1 + {})" if competition.label.log else "{}"
        return ", ".join(f"{form.format(name)} {centre:.3g} ± {spread:.3g}" for name, centre, spread in scale)
    if competition.outcome == "labels":
        shares = dict(zip(competition.outputs, np.nanmean(labels, axis=0), strict=True))
    elif competition.outcome == "ordered":
        shares = {str(score): (labels == score).mean() for score in competition.scores}
    else:
        shares = {name: (labels == place).mean() for place, name in enumerate(competition.outputs)}
    some = [f"{name} {share:.1%}" for name, share in list(shares.items())[:MOST_SHARES]]
    return ", ".join(some + ([f"... ({len(shares)} in all)"] if len(shares) > MOST_SHARES else []))


def summary(artifacts: Artifacts) -> str:
    """Returns one line: rows, what the labels are, median and longest text of each field in characters."""
    competition = artifacts.competition()
    characters = [pl.col(field).list.eval(pl.element().str.len_chars()).list.sum() for field in competition.kind.fields]
    facts = artifacts.train().select("label", *characters).collect(engine="streaming")
    test_rows = pl.scan_parquet(artifacts.test_file).select(pl.len()).collect().item()
    lengths = [f"{field} {facts[field].median():.0f} (at most {facts[field].max()})" for field in facts.columns[1:]]
    return (
        f"{competition.name}: {facts.height} train and {test_rows} test rows; "
        f"{answers_in_words(facts['label'].to_numpy(), competition)}; median characters: {', '.join(lengths)}"
    )


if __name__ == "__main__":
    with stage("prepare"):
        data, artifacts = load_params().data, Artifacts()
        prepare(Path(data.path), load_competition(data.competition), artifacts.competition_folder)
        print(summary(artifacts))
