"""Does any of thousands of kernels in simulated time miss its deadline, and what does the time bring?

python -m benchmarks.kernel.simulated [--run FOLDER] [--draws 52] [--jobs 2]
# minutes: not measured; writes benchmarks/results/deadline-<name of FOLDER>.json

FOLDER (by default this one) is that of a finished `make repro`. Its out-of-fold predictions are replayed: planner and
ladder are fitted on the other folds, and scored on the fold left out. Steps that add fold models are replayed on the
holdout rows. Who costs how much is drawn for every kernel, from two cheap members to Llama-3-8B; so are the machine's
speed (0.2 to 1.5 times what was promised), jitter, crashes and broken members. Each draw is run at every budget, in
shares of what everything takes on its machine. Beside it the usual kernel: fixed order, all rows, a static estimate;
and the usual cascade, which gives the seconds of the planner's costly members to the most uncertain rows.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from benchmarks.kernel.replay import (
    PROFILES,
    VARIANTS,
    Case,
    Draw,
    Result,
    cheap_losses,
    full_seconds,
    most_uncertain,
    replay,
    usual,
)
from benchmarks.result import command_line, write
from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.ensemble.build_ladder import build_ladder, calibrate
from pipeline.ensemble.table import Table, read_holdout, read_oof
from pipeline.errors import PodiumError
from pipeline.kinds import KINDS
from pipeline.planning.steps import Step
from pipeline.stage import stage

SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5)


def main(run: Path, draws: int, jobs: int, output: Path) -> None:
    if not (run / "artifacts" / "oof" / "oof.parquet").is_file():
        raise PodiumError(f"{run}: no finished run here; `make repro` first, or name one with --run")
    cases = cases_of(run)
    tasks = [(name, seed) for name in cases for seed in range(draws)]
    # spawn: polars' threads do not survive a fork
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_keep, initargs=(cases,)) as pool:
        found = list(tqdm(pool.map(_play, tasks), total=len(tasks), desc="draws"))
    tables = {}
    for group in ("oof", "holdout"):
        for costs in ("as listed", "permuted"):
            mine = [each for each in found if each.case.split()[0] == group and each.permuted == (costs == "permuted")]
            if mine:
                tables[f"{group}, costs {costs}"] = summary(mine)
    members = list(dict.fromkeys(step.member for case in cases.values() for step in case.predictions))
    result = {"kernels": len(tasks) * len(SHARES), "draws": draws, "members": members, "groups": tables}
    write(f"deadline-{run.resolve().name}", result, output)
    for name, table in tables.items():
        show(name, table)


def show(name: str, table: dict) -> None:
    """Prints a table for people."""
    print(f"{name}: {table['kernels']} kernels, {table['overruns']} overruns, {table['invalid']} invalid files")
    print(f"full gain over the cheap members {table['full_gain']:.5f}, {table['full_gain_in_se']:.1f} standard errors")
    print(f"{'budget':>8} {'loss':>9} {'rise in SE':>11} {'of gain':>8} | {'usual loss':>10} {'overruns':>9}", end="")
    print(f" | {'most uncertain rows':>19} {'loses more':>10} {'in SE':>6}  asks")
    for row in table["budgets"]:
        share = f"{row['share_of_gain']:.0%}" if table["full_gain_in_se"] > 3 else "-"  # of nothing, it says nothing
        shown = f"{row['budget']:>8.0%} {row['loss']:>9.5f} {row['rise_in_se']:>11.2f} {share:>8}"
        print(f"{shown} | {row['usual_loss']:>10.5f} {row['usual_overruns']:>9}", end="")
        print(f" | {row['uncertain_loss']:>19.5f} {row['uncertain_loses_more']:>10.5f}", end="")
        print(f" {row['uncertain_loses_more_in_se']:>6.1f}  {row['uncertain_asks']}")


def cases_of(run: Path) -> dict[str, Case]:
    """Returns `oof K`, the rows of fold K, and `holdout`, the rows of no fold with every fold model."""
    artifacts = Artifacts(run / "artifacts")
    competition = artifacts.competition()
    params = load_params(run / "params.yaml")
    members = [name for name, member in params.members.items() if KINDS[member.kind].knows_every_row]
    oof, holdout = read_oof(artifacts, members, competition), read_holdout(artifacts, members, competition)
    folds = oof.rows["fold"].to_numpy()
    cases = {}
    for fold in np.unique(folds):
        inside, outside = part(oof, folds != fold), part(oof, folds == fold)
        ladder = build_ladder(inside, members, "logistic", competition, 1, 0, members[::-1])
        predictions = {Step(name, 0): outside.probabilities[name] for name in members}
        cases[f"oof {fold}"] = Case(f"oof {fold}", outside.rows, outside.labels, predictions, ladder)
    if holdout:
        # Its own shift to the average is learned on the holdout; half of it teaches, the other half is scored.
        half = np.arange(len(holdout.average.labels)) % 2 == 0
        taught = type(holdout)(part(holdout.average, half), {k: part(t, half) for k, t in holdout.single.items()})
        ladder, _ = calibrate(build_ladder(oof, members, "logistic", competition, 1, 0, members[::-1]), taught, 0)
        asked = {fold: part(table, ~half) for fold, table in holdout.single.items()}
        rows = next(iter(asked.values()))
        predictions = {Step(name, fold): table.probabilities[name] for name in members for fold, table in asked.items()}
        cases["holdout"] = Case("holdout", rows.rows, rows.labels, predictions, ladder)
    return cases


def part(table: Table, mask: np.ndarray) -> Table:
    """Returns some rows of a table."""
    chosen = {name: each[mask] for name, each in table.probabilities.items()}
    return Table(table.rows.filter(pl.Series(mask)), table.labels[mask], chosen)


_cases: dict[str, Case] = {}


def _keep(cases: dict[str, Case]) -> None:
    _cases.update(cases)


@dataclass(frozen=True)
class Played:
    """What one draw gave at every budget."""

    case: str
    permuted: bool
    budgets: list[float]
    """Seconds."""
    ours: list[Result]
    usual: list[Result]
    uncertain: dict[str, list[np.ndarray]]
    """Variant of the rival that asks about the most uncertain rows -> (rows,) losses at every budget."""
    cheap: np.ndarray
    """(rows,) losses of the cheap members alone."""


def _play(task: tuple[str, int]) -> Played:
    case, random = _cases[task[0]], np.random.default_rng([task[1], 2])
    names = list(dict.fromkeys(step.member for step in case.predictions))
    dear = list(PROFILES)[2:]
    kinds = list(PROFILES)[:2] + [dear[n % 2] for n in range(max(len(names) - 2, 0))]
    permuted = task[1] % 2 == 1
    costs = random.permutation(kinds[: len(names)]).tolist() if permuted else kinds[: len(names)]
    draw = Draw(task[1], dict(zip(names, costs, strict=True)))
    budgets = [share * full_seconds(case, draw) for share in SHARES]
    ours = [replay(case, draw, budget) for budget in budgets]
    theirs = [usual(case, draw, budget) for budget in budgets]
    single = max(step.fold for step in case.predictions) == 0
    uncertain = {
        variant: [most_uncertain(case, draw, spent, variant) for _, spent in ours]
        for variant, (_, every) in VARIANTS.items()
        if not (every and single)
    }
    results = [result for result, _ in ours]
    return Played(task[0], permuted, budgets, results, theirs, uncertain, cheap_losses(case, draw))


def summary(found: list[Played]) -> dict:
    """Returns overruns, invalid files, and per budget the losses, the rise over the smaller one, the share of the gain.

    Standard errors are those of the rows: losses are averaged over the draws first, which share them. Of the rival's
    variants each budget has the best one, as only hindsight knows it.
    """
    ours = [per_row(found, [each.ours[place].losses for each in found]) for place in range(len(SHARES))]
    theirs = [per_row(found, [each.usual[place].losses for each in found]) for place in range(len(SHARES))]
    cheap = per_row(found, [each.cheap for each in found])
    rivals = [
        {name: per_row(found, [each.uncertain[name][place] for each in found]) for name in found[0].uncertain}
        for place in range(len(SHARES))
    ]
    best = [min(each, key=lambda name: each[name].mean()) for each in rivals]
    uncertain = [each[name] for each, name in zip(rivals, best, strict=True)]
    gain = cheap - ours[-1]
    rows = [
        {
            "budget": share,
            "loss": float(ours[place].mean()),
            "rise_in_se": paired(ours[place] - ours[place - 1]) if place else 0.0,
            "share_of_gain": float((cheap - ours[place]).mean() / gain.mean()),
            "usual_loss": float(theirs[place].mean()),
            "usual_overruns": sum(not each.usual[place].valid for each in found),
            "uncertain_loss": float(uncertain[place].mean()),
            "uncertain_asks": best[place],
            "uncertain_loses_more": float((uncertain[place] - ours[place]).mean()),
            "uncertain_loses_more_in_se": paired(uncertain[place] - ours[place]),
        }
        for place, share in enumerate(SHARES)
    ]
    return {
        "kernels": len(found) * len(SHARES),
        "overruns": sum(bool(r.seconds > b) for each in found for b, r in zip(each.budgets, each.ours, strict=True)),
        "invalid": sum(not result.valid for each in found for result in each.ours),
        "full_gain": float(gain.mean()),
        "full_gain_in_se": paired(gain),
        "budgets": rows,
    }


def per_row(found: list[Played], losses: list[np.ndarray]) -> np.ndarray:
    """Returns (rows of all cases,) losses averaged over the draws of each case."""
    cases = dict.fromkeys(each.case for each in found)
    mine = {case: [loss for each, loss in zip(found, losses, strict=True) if each.case == case] for case in cases}
    return np.concatenate([np.mean(each, axis=0) for each in mine.values()])


def paired(differences: np.ndarray) -> float:
    """Returns the mean of paired differences in standard errors."""
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean() / error) if error > 0 else 0.0


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, default=Path("."))
    parser.add_argument("--draws", type=int, default=52, help="per case")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with stage("kernel benchmark", keep_seconds=False):
        main(arguments.run, arguments.draws, arguments.jobs, arguments.output)
