"""Brings rows from elsewhere into the scored competition's form, without near duplicates of what is scored.

python -m stages.extra
"""

from dataclasses import asdict

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.files import atomic_folder, write_json, write_parquet
from pipeline.members.beside.extra import prepare_extra, sentence
from pipeline.stage import stage


def main() -> None:
    artifacts, sources = Artifacts(), load_params().extra
    with atomic_folder(artifacts.extra_folder) as folder:
        if sources:
            competition, train, folds = artifacts.competition(), artifacts.train().collect(), artifacts.folds()["fold"]
            test = artifacts.test()
        for name, source in sources.items():
            made = prepare_extra(name, source, competition, train, folds, test)
            write_parquet(made.rows, folder / artifacts.extra(name).name)
            # With its settings: another weight alone must reach the members' start files, too.
            write_json(folder / f"{name}.json", {"source": asdict(source)} | made.told)
            print(sentence(name, made.told))
    if not sources:
        print("extra: no rows from elsewhere")


if __name__ == "__main__":
    with stage("extra"):
        main()
