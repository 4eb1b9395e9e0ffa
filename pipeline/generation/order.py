"""What `make rows` is asked for, checked before anything is built, and carried out.

make rows NAME=quiz MODEL=llama ROWS=1000
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.errors import PodiumError, nearest
from pipeline.files import exclusive, sha256_file
from pipeline.generation.prompt import JUDGE, JUDGED, PLACES, ROWS, asker, read_prompt
from pipeline.generation.write import How, Writer, write_rows
from pipeline.models.backbones.obtain import contents_hash
from pipeline.settings.backbones import NoBackbone

JOURNALS = Path("work/rows")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "nf4", "int8")


@dataclass(frozen=True)
class Order:
    """Rows that a decoder shall write. Raises: PodiumError for the first value that is wrong."""

    name: str
    """The source's, and its folder's below external/."""
    model: str
    """Who writes: a key of `backbones`, or a folder in Hugging Face layout."""
    judge: str = ""
    """The same for who judges; empty: nobody, and every row is kept."""
    rows: int = 100
    """So many are asked for, in whole batches."""
    prompt: str = str(ROWS)
    judge_prompt: str = str(JUDGE)
    examples: int = 3
    """Training rows in a prompt."""
    characters: int = 3000
    """So many have they together at most."""
    temperature: float = 1.0
    top_p: float = 0.95
    tokens: int = 256
    """Of a reply at most."""
    batch: int = 8
    """Replies at a time."""
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise PodiumError(f'NAME: expected small letters, digits and _, the name of a source, found "{self.name}"')
        if not self.model:
            raise PodiumError("MODEL: expected a backbone of params.yaml or a folder with a decoder, found nothing")
        for key, value in {"ROWS": self.rows, "--batch": self.batch, "--tokens": self.tokens}.items():
            if value < 1:
                raise PodiumError(f"{key}: expected a positive number, found {value}")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.examples < 0:
            raise PodiumError(
                "--temperature, --top-p, --examples: expected 0 or more, above 0 and at most 1, and 0 or more, found "
                f"{self.temperature:g}, {self.top_p:g} and {self.examples}"
            )

    def prompts(self) -> tuple[str, str]:
        """Returns the writer's prompt and the judge's. Raises: PodiumError for a file that cannot be one."""
        return read_prompt(Path(self.prompt), PLACES), read_prompt(Path(self.judge_prompt), JUDGED)

    def backbones(self, params: Params) -> list[str]:
        """Returns the names of `backbones` that are asked for. Raises: PodiumError for what is no folder either."""
        found = []
        for key, name in {"MODEL": self.model, "JUDGE": self.judge}.items():
            if not name or Path(name).is_dir():
                continue
            if name not in params.backbones or isinstance(params.backbones[name], NoBackbone):
                words = f'{key}: expected a folder or a backbone, found "{name}"'
                raise PodiumError(words + nearest(name, params.backbones))
            found.append(name)
        return found


def carry_out(order: Order, params: Params, artifacts: Artifacts) -> str:
    """Writes the rows, or goes on with them; returns how many of each kind there are, and the line for params.yaml."""
    prompt, judge_prompt = order.prompts()
    names = [name for name in (order.model, order.judge) if name]
    folders = {name: Path(name) if Path(name).is_dir() else artifacts.base(name) for name in names}
    competition, folds = artifacts.competition(), artifacts.folds()["fold"].to_list()
    how = How(
        prompt=prompt,
        judge_prompt=judge_prompt if order.judge else "",
        model=order.model,
        judge=order.judge,
        precision=order.precision,
        data=f"{sha256_file(artifacts.train_file)} {sha256_file(artifacts.folds_file)}",
        weights=" ".join(map(contents_hash, folders.values())),
        examples=order.examples,
        characters=order.characters,
        temperature=order.temperature,
        top_p=order.top_p,
        tokens=order.tokens,
        batch=order.batch,
        seed=order.seed,
    )

    def opened() -> tuple[Writer, Writer | None]:
        from pipeline.generation.decoder import open_decoder  # transformers is slow to load

        found = {name: open_decoder(name, at, order.precision, params.threads) for name, at in folders.items()}
        return found[order.model], found.get(order.judge)

    shown = {"examples": order.examples, "characters": order.characters, "seed": order.seed}
    asked = asker(prompt, competition, artifacts.train().collect(), folds, **shown)
    target = Path("external") / order.name
    file = target / Path(competition.train).name
    with exclusive(JOURNALS / f"{order.name}.lock", order.name, "writes its rows"):
        told = write_rows(order.rows, how, asked, opened, JOURNALS / f"{order.name}.jsonl", file)
    written_as = params.data.competition
    if Path(written_as).is_file():  # DVC watches what lies below external/
        written_as = str(shutil.copyfile(written_as, target / "competition.yaml"))
    source = f"{order.name}: {{path: {target}, competition: {written_as}, made: true}}"
    return f"{told.line(order.name, file)}\nin params.yaml, under extra: {source}"
