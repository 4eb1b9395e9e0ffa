"""Lets a local decoder write rows like the training rows, for a source of `extra` with `made: true`.

make rows NAME=quiz MODEL=llama ROWS=1000                       # a decoder of `backbones`
make rows NAME=quiz MODEL=folder JUDGE=folder PROMPT=file       # any folder in Hugging Face layout; a judge; a prompt

Each prompt shows training rows of one fold, never of the holdout, and asks for one more with a certain answer. What can
be read stands in external/<NAME>/train.csv, what was replied in work/rows/<NAME>.jsonl: a run that was killed goes on
there.
"""

import argparse
import re
import shutil
from pathlib import Path

from threadpoolctl import threadpool_limits

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.config import Params, load_params
from pipeline.errors import PodiumError, nearest
from pipeline.experiments.tries import build_stages
from pipeline.files import exclusive, sha256_file
from pipeline.generation.prompt import JUDGE, JUDGED, PLACES, ROWS, asker, read_prompt
from pipeline.generation.replies import check_writable
from pipeline.generation.write import How, Writer, write_rows
from pipeline.models.backbones.obtain import contents_hash
from pipeline.settings.backbones import NoBackbone
from pipeline.stage import options, stage

JOURNALS = Path("work/rows")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "nf4", "int8")


def main(given: argparse.Namespace) -> None:
    check(given)
    prompt, judge_prompt = read_prompt(Path(given.prompt), PLACES), read_prompt(Path(given.judge_prompt), JUDGED)
    params, artifacts = load_params(), Artifacts()
    check_writable(load_competition(params.data.competition))
    named = {"MODEL": given.model} | ({"JUDGE": given.judge} if given.judge else {})
    for key, each in named.items():
        check_decoder(each, key, params)
    build_stages("folds", *(f"pretrain@{each}" for each in named.values() if not Path(each).is_dir()))
    folders = {each: Path(each) if Path(each).is_dir() else artifacts.base(each) for each in named.values()}
    competition, folds = artifacts.competition(), artifacts.folds()["fold"].to_list()
    how = How(
        prompt=prompt,
        judge_prompt=judge_prompt if given.judge else "",
        data=f"{sha256_file(artifacts.train_file)} {sha256_file(artifacts.folds_file)}",
        weights=" ".join(map(contents_hash, folders.values())),
        **{
            key: getattr(given, key)
            for key in ("model", "judge", "precision", "examples", "characters", "temperature", "top_p", "tokens")
        },
        batch=given.batch,
        seed=given.seed,
    )

    def opened() -> tuple[Writer, Writer | None]:
        from pipeline.generation.decoder import open_decoder  # transformers is slow to load

        found = {each: open_decoder(each, at, given.precision, params.threads) for each, at in folders.items()}
        return found[given.model], found.get(given.judge)

    asked = asker(
        prompt,
        competition,
        artifacts.train().collect(),
        folds,
        examples=given.examples,
        characters=given.characters,
        seed=given.seed,
    )
    target = Path("external") / given.name
    file = target / Path(competition.train).name
    lock = exclusive(JOURNALS / f"{given.name}.lock", given.name, "writes its rows")
    with threadpool_limits(params.threads), lock:
        told = write_rows(given.rows, how, asked, opened, JOURNALS / f"{given.name}.jsonl", file)
    written_as = params.data.competition
    if Path(written_as).is_file():  # DVC watches what lies below external/
        written_as = str(shutil.copyfile(written_as, target / "competition.yaml"))
    print(told.line(given.name, file))
    print(f"in params.yaml, under extra: {given.name}: {{path: {target}, competition: {written_as}, made: true}}")


def check(given: argparse.Namespace) -> None:
    """Raises PodiumError for the first option that is wrong."""
    if not re.fullmatch("[a-z][a-z0-9_]*", given.name):
        raise PodiumError(f'NAME: expected small letters, digits and _, the name of a source, found "{given.name}"')
    if not given.model:
        raise PodiumError("MODEL: expected a backbone of params.yaml or a folder with a decoder, found nothing")
    for key, value in {"ROWS": given.rows, "--batch": given.batch, "--tokens": given.tokens}.items():
        if value < 1:
            raise PodiumError(f"{key}: expected a positive number, found {value}")
    if given.temperature < 0 or not 0 < given.top_p <= 1 or given.examples < 0:
        raise PodiumError(
            "--temperature, --top-p, --examples: expected 0 or more, above 0 and at most 1, and 0 or more, found "
            f"{given.temperature:g}, {given.top_p:g} and {given.examples}"
        )


def check_decoder(name: str, key: str, params: Params) -> None:
    """Raises PodiumError where `name` is neither a folder nor a backbone of params.yaml."""
    if Path(name).is_dir():
        return
    if name not in params.backbones or isinstance(params.backbones[name], NoBackbone):
        raise PodiumError(f'{key}: expected a folder or a backbone, found "{name}"{nearest(name, params.backbones)}')


if __name__ == "__main__":
    arguments = options(
        str(__doc__),
        name={"default": "", "help": "the source's name, and its folder below external/"},
        model={"default": "", "help": "who writes: a key of `backbones` in params.yaml, or a folder"},
        judge={"default": "", "help": "who judges, as --model; by default nobody, and every row is kept"},
        rows={"type": int, "default": 100, "help": "so many are asked for, in whole batches"},
        prompt={"default": str(ROWS), "help": f"a text file with {', '.join(PLACES)} in braces"},
        judge_prompt={"default": str(JUDGE), "help": f"a text file with {', '.join(JUDGED)} in braces"},
        examples={"type": int, "default": 3, "help": "training rows in a prompt"},
        characters={"type": int, "default": 3000, "help": "so many have they together at most"},
        temperature={"type": float, "default": 1.0, "help": "0 takes the likeliest token"},
        top_p={"type": float, "default": 0.95, "help": "share of the likeliest tokens that are drawn from"},
        tokens={"type": int, "default": 256, "help": "of a reply at most"},
        batch={"type": int, "default": 8, "help": "replies at a time"},
        precision={"choices": PRECISIONS, "default": "auto", "help": "auto: fp32 on a CPU, 16 bits on a GPU"},
        seed={"type": int, "default": 0, "help": "another one draws other examples, answers and tokens"},
    )
    with stage("rows", keep_seconds=False):
        main(arguments)
