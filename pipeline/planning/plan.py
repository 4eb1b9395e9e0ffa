"""Which steps to run, in which order, and on which rows: by expected gain in log loss per second, in the time left.

pipeline/planning/schedule.py follows a plan and makes a new one after every chunk; forecast.py says where that ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.ensemble.ladder import Rung
from pipeline.inference.passes import FIRST
from pipeline.kinds import kind_of
from pipeline.planning.cost import Costs
from pipeline.planning.gain import ExpectedGain
from pipeline.planning.steps import Load, Members, Step

SMALLEST_PART = 0.1
"""A step is not begun where a smaller share of its rows fits: loading would cost more than these rows gain."""
Price = tuple[float, float]
"""The mean and variance of seconds."""
Prices = Mapping[Step, Price]
STEADY = 4.0
"""Gains per second count as equal within about a quarter: 1 / STEADY of a natural logarithm."""
LEFTOVER = 1.0e-9
"""Gain of a step that is expected to bring nothing: it runs last, with time to spare, so that the full set answers."""


@dataclass(frozen=True)
class Planned:
    """A step in the plan."""

    step: Step
    rung: Rung | None
    """The rung that answers after it."""
    rows: np.ndarray | None
    """(all rows,) which rows to run where only a part fits, else None."""
    seconds: float
    """Expected seconds, loading included."""
    upper: float
    """Their mean and two standard deviations."""
    gain: float
    """Expected gain in log loss over all rows."""


@dataclass(frozen=True)
class Situation:
    """The work that is left, and the time for it."""

    open: Mapping[Step, np.ndarray]
    """Step -> (rows,) which of its rows are neither done nor under way; a dropped step is not in it."""
    loads: Mapping[Step, Load]
    begun: frozenset[Step]
    """The steps whose fold model some worker has open."""
    seconds: Mapping[str, float]
    """Device -> seconds that it may still work."""
    may: Callable[[str, str], bool]
    """(member, device) -> whether the member may run there."""
    chunk_seconds: float
    present: np.ndarray
    """(rows, outputs) the present means."""
    characters: np.ndarray
    """(rows,) length of the row's texts."""


def plan(now: Situation, costs: Costs, expected: ExpectedGain) -> list[Planned]:
    """Returns the steps in order; what does not fit by its upper bound gets the rows that gain most or is left out."""
    counts = dict.fromkeys(expected.folds, 0)
    waiting: dict[Step, float] = {}
    for step, mask in now.open.items():
        if mask.any() and not _devices(step, now):
            continue
        if mask.any():
            waiting[step] = mask.sum() / max(now.loads[step].eligible.sum(), 1)
        elif step.which == FIRST:
            counts[step.member] += 1
    prices = {step: _price(step, now.open[step], now, costs) for step in waiting}
    spent: list[tuple[frozenset[str], float]] = []
    chosen: list[Planned] = []
    while waiting:
        for gain, steps, rung in _candidates(waiting, counts, expected, now, prices):
            devices = frozenset.intersection(*(_devices(step, now) for step in steps))
            # What runs elsewhere too is taken to leave these devices alone: a CPU has time that networks cannot use.
            left = sum(now.seconds[device] for device in devices)
            left -= sum(seconds for where, seconds in spent if where <= devices)
            found, whole = _admitted(gain, steps, rung, left, now, costs, expected, prices)
            if found:
                break
        else:
            break
        chosen += found
        spent += [(devices, each.seconds) for each in found]
        if not whole:
            break
        for step in steps:
            del waiting[step]
            counts[step.member] += step.which == FIRST
    return chosen


def _candidates(
    waiting: dict[Step, float], counts: dict[str, int], expected: ExpectedGain, now: Situation, prices: Prices
) -> list[tuple[float, list[Step], Rung]]:
    """Returns (gain, steps, rung that answers after them) of what could come next, the best gain per second first."""
    firsts: dict[str, Step] = {}
    for step in waiting:
        if step.which == FIRST and (step.member not in firsts or step in now.begun):
            firsts[step.member] = step
    have = frozenset(name for name, count in counts.items() if count > 0)
    loss = expected.loss(counts)
    found: list[tuple[float, list[Step], Rung]] = []
    for rung in expected.rungs:
        missing = [name for name in rung.members if name not in have]
        if missing and all(name in firsts for name in missing):
            gain = loss - expected.loss(counts | dict.fromkeys(missing, 1))
            steps = [firsts[name] for name in missing]
            found.append((gain * max(waiting[step] for step in steps), steps, expected.rung(have | set(missing))))
    for name, step in firsts.items():
        gain = loss - expected.loss(counts | {name: counts[name] + 1}) if name in have else 0.0
        found.append((gain * waiting[step], [step], expected.rung(have | {name})))
    for step, share in waiting.items():
        if step.which != FIRST and counts[step.member]:
            found.append((expected.pass_gain(step.member, step.which, counts) * share, [step], expected.rung(have)))

    def rounded(each: tuple[float, list[Step], Rung]) -> int:
        """Near-equals keep their order, so that a plan does not change with every chunk."""
        gain = each[0] if each[0] > LEFTOVER else LEFTOVER  # also where it is no number
        return math.floor(STEADY * math.log(gain / max(_together(each[1], prices)[0], 1.0e-9)))

    return sorted(found, key=rounded, reverse=True)


def _admitted(
    gain: float,
    steps: list[Step],
    rung: Rung,
    left: float,
    now: Situation,
    costs: Costs,
    expected: ExpectedGain,
    prices: dict[Step, Price],
) -> tuple[list[Planned], bool]:
    """Returns the steps as they fit into `left` seconds, and whether that is all of their rows; nothing where too few
    fit."""
    if _together(steps, prices)[1] <= left:
        return [Planned(each, rung, None, *_together([each], prices), gain / len(steps)) for each in steps], True
    if not gain > LEFTOVER:
        return [], False
    # Not all rows fit, so the ones that gain most per second come first. All steps get the same rows, since the rung
    # answers a row when every step has; a row that a step has done already costs nothing there. What fits is judged by
    # the upper bound of all steps together, which is no sum over rows: loading and chunks have prices of their own. It
    # is taken to grow with their number, so bisection finds the largest that fits; what it finds fits in any case.
    rows = np.flatnonzero(np.logical_or.reduce([now.open[step] for step in steps]))
    work = np.sum([_row_seconds(step, now, costs)[rows] * now.open[step][rows] for step in steps], axis=0)
    gains = expected.row_gains(rung, now.present[rows], now.characters[rows])
    order = np.argsort(-gains / np.maximum(work, 1.0e-12), kind="stable")

    def priced(count: int) -> tuple[np.ndarray, dict[Step, Price]]:
        mask = np.zeros(len(now.characters), dtype=bool)
        mask[rows[order[:count]]] = True
        return mask, {step: _price(step, now.open[step] & mask, now, costs) for step in steps}

    begin, end = 0, len(rows)  # the most rows whose upper bound fits, by bisection
    while begin < end:
        middle = (begin + end + 1) // 2
        begin, end = (middle, end) if _together(steps, priced(middle)[1])[1] <= left else (begin, middle - 1)
    # A small part is worth its loading only where a worker has paid that already.
    if begin < 1 or (begin < SMALLEST_PART * len(rows) and not now.begun.issuperset(steps)):
        return [], False
    mask, parts = priced(begin)
    gain *= float(gains[order[:begin]].sum() / gains.sum())
    return [Planned(each, rung, mask, *_together([each], parts), gain / len(steps)) for each in steps], False


def _devices(step: Step, now: Situation) -> frozenset[str]:
    """Returns the devices that may run the step."""
    return frozenset(device for device in now.seconds if now.may(step.member, device))


def _price(step: Step, rows: np.ndarray, now: Situation, costs: Costs) -> Price:
    """Returns the price of the rows in the mask `rows` of a step on one device, loading included."""
    tokens, squares = float(now.loads[step].tokens @ rows), float(now.loads[step].squares @ rows)
    means, variances = [], []
    for device in sorted(_devices(step, now)):
        mean, deviation = costs.expect(step.member, device, tokens, squares)
        further = max(mean / now.chunk_seconds - 1.0, 0.0) * costs.rates(step.member, device)[0]
        loading, spread = (0.0, 0.0) if step in now.begun else costs.loading(step.member, device)
        means.append(mean + further + loading)
        variances.append(deviation**2 + spread**2)
    return float(np.mean(means)), float(np.mean(variances))


def _together(steps: list[Step], prices: Prices) -> tuple[float, float]:
    """Returns the mean and the upper bound of the seconds of some steps."""
    mean = sum(prices[step][0] for step in steps)
    return mean, mean + 2.0 * sum(prices[step][1] for step in steps) ** 0.5


def _row_seconds(step: Step, now: Situation, costs: Costs) -> np.ndarray:
    """Returns (rows,) the expected seconds of each row, averaged over the devices that may run the step."""
    rates = np.mean([costs.rates(step.member, device) for device in sorted(_devices(step, now))], axis=0)
    return now.loads[step].tokens * rates[1] + now.loads[step].squares * rates[2]


def who_may(members: Members, alive: set[str]) -> Callable[[str, str], bool]:
    """Returns (member, device) -> whether it may run there: networks need a GPU as long as one is among `alive`."""

    def may(member: str, device: str) -> bool:
        network = kind_of(members[member]["kind"]).network
        return not network or device.startswith("cuda") or not any(name.startswith("cuda") for name in alive)

    return may


def plan_table(planned: list[Planned], rows_of: Callable[[Planned], int]) -> list[str]:
    """Returns the lines that show a plan in the log; `rows_of` counts the rows of a step that can be handed out."""
    lines = [f"  {'step':<32} {'rows':>8} {'seconds':>9} {'at most':>9} {'gain':>9}"]
    for each in planned:
        if rows := rows_of(each):  # else all of it is under way
            gain = f"{each.gain:.5f}" if each.gain > LEFTOVER else "-"
            lines.append(f"  {each.step!s:<32} {rows:>8} {each.seconds:>9.1f} {each.upper:>9.1f} {gain:>9}")
    return lines
