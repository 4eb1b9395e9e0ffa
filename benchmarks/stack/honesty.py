"""How far is the claimed score from the true one, for this stack, scikit-learn's and the usual script's?

python -m benchmarks.stack.honesty [--draws 50] [--rivals 20] [--rows 1500] [--fresh 20000]
# minutes: not measured; writes benchmarks/results/stacking.json

Each draw makes a new competition of the demo's law, retrains cheap members on it and stacks them. The true score is the
expected log loss on fresh rows, whose true probabilities are known. Half of the draws have shuffled labels, where there
is nothing to learn. Every draw also plants in-sample members, to see how often the gap test and the leak probe catch
them, and how often they accuse clean ones. Finished draws stay in work/stacking/, so a run that was stopped goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import command_line, write
from benchmarks.stack.cheap_members import KINDS, draw_rows
from benchmarks.stack.draw import one_draw
from pipeline.files import read_json, write_json
from pipeline.stage import stage

WORK = Path("work/stacking")
FRESH_SEED = 1_000_000


def main(draws: int, rivals: int, count: int, fresh_count: int, output: Path) -> None:
    fresh = None
    found: dict[str, list[dict[str, Any]]] = {"real": [], "noise": []}
    for seed in range(draws):
        for labels, done in found.items():
            file = WORK / f"{count}-{fresh_count}" / f"{labels}{seed}{'-rivals' if seed < rivals else ''}.json"
            if not file.exists():
                fresh = fresh or draw_rows(fresh_count, FRESH_SEED)
                write_json(file, one_draw(seed, labels, count, fresh, seed < rivals))
                print(f"{labels} labels, draw {seed + 1} of {draws}", flush=True)
            done.append(read_json(file))
    table = {labels: summary(each) for labels, each in found.items()}
    table["noise"]["leak_probe"] = probe_rates(found["noise"])
    write("stacking", table, output, draws=draws, rivals=rivals, rows=count, fresh_rows=fresh_count)
    for labels, each in table.items():
        show(labels, each)


def summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns means over the draws with their 95 % intervals, and rates of detection and false alarm."""
    names = dict.fromkeys(name for draw in draws for name in draw["claims"])
    plants = {kind: [draw["gap"]["planted"][kind] for draw in draws] for kind in KINDS}
    return {
        "claimed_minus_true": {
            name: _mean([draw["claims"][name]["difference"] for draw in draws if name in draw["claims"]])
            for name in names
        },
        "true_scores": {name: _mean([draw["true"][name] for draw in draws]) for name in draws[0]["true"]},
        "gain_over_best_member": _mean([draw["true"]["best member"] - draw["true"]["stack"] for draw in draws]),
        "gain_over_equal_mean": _mean([draw["true"]["equal mean"] - draw["true"]["stack"] for draw in draws]),
        "gain_by_the_shift": _mean([draw["true"]["stack without the shift"] - draw["true"]["stack"] for draw in draws]),
        "chosen": {name: sum(d["chosen"] == name for d in draws) for name in sorted({d["chosen"] for d in draws})},
        "gap_test": {
            "clean_sets_accused": _rate([draw["gap"]["accused"] for draw in draws]),
            "planted": {
                kind: {
                    "flattery": float(np.mean([each["flattery"] for each in plants[kind]])),
                    "caught": _rate([each["caught"] for each in plants[kind]]),
                    "others_accused": _rate([each["others_accused"] for each in plants[kind]]),
                }
                for kind in KINDS
            },
        },
    }


def probe_rates(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns how often the leak probe's verdict on shuffled labels accuses clean members, and finds planted ones."""
    planted = {kind: _rate([draw["gap"]["planted"][kind]["probe"] for draw in draws]) for kind in KINDS}
    return {"clean_accused": _rate([draw["probe"]["leak"] for draw in draws]), "planted_caught": planted}


def _mean(values: list[float]) -> dict[str, float]:
    """Mean, and half the width of its 95 % interval over the draws."""
    reach = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": float(np.mean(values)), "reach": float(reach), "draws": len(values)}


def _rate(flags: list[bool]) -> str:
    return f"{sum(flags)} of {len(flags)}"


def show(labels: str, found: dict[str, Any]) -> None:
    """Prints the table that docs/stacking.md holds."""
    print(f"\n{labels} labels")
    for name, each in found["claimed_minus_true"].items():
        print(f"  {name:<58} {each['mean']:+.4f} ± {each['reach']:.4f} ({each['draws']} draws)")
    for name in ("gain_over_best_member", "gain_over_equal_mean", "gain_by_the_shift"):
        print(f"  {name.replace('_', ' '):<58} {found[name]['mean']:+.4f} ± {found[name]['reach']:.4f}")
    print(f"  chosen: {found['chosen']}")
    print(f"  gap test: {json.dumps(found['gap_test'])}")
    if "leak_probe" in found:
        print(f"  leak probe: {json.dumps(found['leak_probe'])}")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--draws", type=int, default=50, help="draws with true labels, and as many with shuffled ones")
    parser.add_argument("--rivals", type=int, default=20, help="in the first so many, scikit-learn and the script too")
    parser.add_argument("--rows", type=int, default=1500, help="training rows of a draw")
    parser.add_argument("--fresh", type=int, default=20_000, help="fresh rows for the true score")
    arguments = parser.parse_args()
    # One thread: on problems this small more of them wait for each other.
    with stage("stacking benchmark", keep_seconds=False):
        main(arguments.draws, arguments.rivals, arguments.rows, arguments.fresh, arguments.output)
