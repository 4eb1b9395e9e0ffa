"""Checks the competition's CSV files and writes them as parquet to artifacts/competition/.

python -m stages.prepare
"""

from pathlib import Path

import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.data.ingest import prepare
from pipeline.stage import stage


def summary(artifacts: Artifacts) -> str:
    """Returns one line: rows, class shares, median and longest text of each field in characters."""
    competition = artifacts.competition()
    characters = [pl.col(field).list.eval(pl.element().str.len_chars()).list.sum() for field in competition.kind.fields]
    facts = artifacts.train().select("label", *characters).collect(engine="streaming")
    test_rows = pl.scan_parquet(artifacts.test_file).select(pl.len()).collect().item()
    shares = [f"{name} {(facts['label'] == index).mean():.1%}" for index, name in enumerate(competition.outputs)]
    lengths = [f"{field} {facts[field].median():.0f} (at most {facts[field].max()})" for field in facts.columns[1:]]
    return (
        f"{competition.name}: {facts.height} train and {test_rows} test rows; {', '.join(shares)}; "
        f"median characters: {', '.join(lengths)}"
    )


if __name__ == "__main__":
    with stage("prepare"):
        data, artifacts = load_params().data, Artifacts()
        prepare(Path(data.path), load_competition(data.competition), artifacts.competition_folder)
        print(summary(artifacts))
