"""Do the two submissions that `make choose` names win more than the two best by leaderboard, or by CV?

python -m benchmarks.stack.choice
# about a minute; writes benchmarks/results/choice.json and choice.md

200 histories are drawn for each of three worlds. Submissions answer the rows of train and of a test set, of which a
share is public, with per-row losses that they have in common but for factors (families of models) and noise of their
own; later ones are better on average. In the calm world CV is off by sampling and a common shift; in the flattered one
the submissions that were tuned most look better in CV than they are; in the moved one the test set asks for something
else, so that families gain or lose. Scores are the expected private loss of the better one of the two that were chosen,
above that of the best two.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.result import command_line, markdown, write
from pipeline.ledger.choose import History, choose, paired_errors

HISTORIES, SUBMISSIONS, TRAIN, TEST, PUBLIC = 200, 12, 3000, 4000, 0.3
FAMILIES = 3
WORLDS = {"calm": (0.0, 0.0), "flattered": (0.012, 0.0), "moved": (0.0, 0.012)}
"""World -> standard deviations of what tuning flatters CV by, and of what a family gains or loses on the test set."""


def drawn(world: str, seed: int) -> tuple[History, np.ndarray]:
    """Returns a history, and the private loss of each of its submissions."""
    flattery, move = WORLDS[world]
    draw = np.random.default_rng([seed, len(world)])
    family = draw.integers(0, FAMILIES, SUBMISSIONS)
    true = 0.7 - 0.002 * np.arange(SUBMISSIONS) + 0.004 * draw.normal(size=SUBMISSIONS)
    tuned = flattery * np.abs(draw.normal(size=SUBMISSIONS))
    on_test = true + move * draw.normal(size=FAMILIES)[family] + 0.02 * draw.normal()

    def losses(rows: int, means: np.ndarray) -> np.ndarray:
        common = 0.5 * draw.normal(size=(rows, 1))
        families = 0.15 * draw.normal(size=(rows, FAMILIES))[:, family]
        return means + common + families + 0.1 * draw.normal(size=(rows, SUBMISSIONS))

    train, test = losses(TRAIN, true - tuned), losses(TEST, on_test)
    public = round(PUBLIC * TEST)
    errors = paired_errors(train, np.arange(TRAIN))
    history = History(train.mean(axis=0), errors, TRAIN, test[:public].mean(axis=0), public, TEST - public)
    return history, test[public:].mean(axis=0)


def regrets(world: str, seed: int) -> dict[str, float]:
    """Returns what each way to choose loses against the best submission of all."""
    history, private = drawn(world, seed)
    cv, lb = (np.argsort(each)[:2] for each in (history.cv, history.public))
    ways = {
        "make choose": choose(history, 0).pair,
        "two best by public score": tuple(lb),
        "two best by CV": tuple(cv),
        "best of each": (cv[0], lb[0]),
    }
    perfect = min(min(private[list(pair)]) for pair in combinations(range(SUBMISSIONS), 2))
    return {way: float(min(private[list(pair)]) - perfect) for way, pair in ways.items()}


def main(output: Path) -> None:
    table, rows = {}, []
    for world in WORLDS:
        found = [regrets(world, seed) for seed in range(HISTORIES)]
        ways = {way: np.array([each[way] for each in found]) for way in found[0]}
        ours = ways["make choose"]
        table[world] = {
            way: {
                "regret": float(each.mean()),
                "more_than_ours": float((each - ours).mean()),
                "error": float((each - ours).std(ddof=1) / np.sqrt(HISTORIES)),
            }
            for way, each in ways.items()
        }
        rows += [
            [world, way, f"{each['regret']:.5f}", f"{each['more_than_ours']:+.5f} ± {each['error']:.5f}"]
            for way, each in table[world].items()
        ]
    told = markdown(("world", "chosen by", "lost against the best of all", "more than make choose, ± one error"), rows)
    write("choice", {"histories": HISTORIES, "worlds": table}, output)
    (output / "choice.md").write_text(told + "\n", encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main(command_line(__doc__).parse_args().output)
