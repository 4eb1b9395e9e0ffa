"""Where the time of a member's training goes: the real loop on a slice of the rows, on one page.

make profile MEMBER=siamese ROWS=1000
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.data.split import Split
from pipeline.experiments.tries import opened
from pipeline.members.context import Start
from pipeline.members.fold import quick_look
from pipeline.training.clock import SPENT

PARTS = {
    "tokenising": "texts to token ids, none of them kept from before",
    "data": "batches laid out",
    "forward": "",
    "backward": "",
    "attacks": "AWP, or FGM on the table",
    "optimiser": "norms, clip and step",
    "waiting": "for a GPU, and the copy of what a step showed",
    "evaluation": "on the inner slice",
}
OPERATORS, OPERATOR_ROWS = 12, 96
"""So many operators are shown; they are counted on so many rows, since the profiler slows down what it watches."""


def profile_member(name: str, fold: int, rows: int, params: Params, artifacts: Artifacts) -> str:
    """Trains fold `fold` of a member on `rows` rows, keeps no model, and returns the page.

    Raises: PodiumError for an unknown member or fold, and what training itself raises.
    """
    split, start = opened(name, fold, params, artifacts)
    with redirect_stdout(StringIO()):
        quick_look(split, start, fold, min(rows, 16), artifacts)  # libraries load
    SPENT.clear()
    look = quick_look(split, start, fold, rows, artifacts)
    learned, whole = min(rows, len(split.train)), look.seconds
    spent = {part: SPENT[part] for part in PARTS if SPENT[part]}
    lines = [f"{name} fold {fold}: {learned} rows in {whole:.1f} s, {learned / whole:.1f} rows per second"]
    if not SPENT["run"]:
        return f"{lines[0]}; this kind has no steps to divide it by"
    python = SPENT["run"] - sum(seconds for part, seconds in spent.items() if part != "tokenising")
    told = [
        *((part, spent[part], PARTS[part]) for part in spent),
        ("Python", python, "the loop: guard, records"),
    ]
    told.append(("around", whole - SPENT["run"] - SPENT["tokenising"], "network opened and saved, forecast"))
    lines += [f"  {part:<12}{seconds:8.2f} s {seconds / whole:6.1%}  {why}".rstrip() for part, seconds, why in told]
    return "\n".join([*lines, *_operators(split, start, fold, artifacts)])


def _operators(split: Split, start: Start, fold: int, artifacts: Artifacts) -> list[str]:
    """Returns a line for each of torch's operators that take most of a look, its few predictions among them."""
    on_gpu = torch.cuda.is_available()
    watched = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with redirect_stdout(StringIO()), profile(activities=watched) as found:
        quick_look(split, start, fold, OPERATOR_ROWS, artifacts)
    self_time = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    took = sorted(((getattr(each, self_time), each) for each in found.key_averages()), key=lambda one: -one[0])
    total = sum(each for each, _ in took)
    head = f"torch's operators on {OPERATOR_ROWS} rows, {sum(each.count for _, each in took):,} calls in all"
    return [head, *(f"  {each / total:6.1%} {op.count:8,} calls  {op.key}" for each, op in took[:OPERATORS])]
