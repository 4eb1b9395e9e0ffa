"""Which rows are computed together: batches under a token budget, of rows of nearly the same length.

Training: a step of the optimiser always sees the same number of rows, and the budget only says into how many batches
it is divided, so that memory changes nothing but the speed. Inference: the longest rows first, so that memory runs out
at once or never.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MULTIPLE = 8
"""Sequences are padded to a multiple of it, for tensor cores."""
STEPS_PER_CHUNK = 16
"""Training rows are sorted by length within shuffled chunks of that many steps."""


def padded(length: int) -> int:
    """Returns `length` rounded up to a multiple of 8."""
    return -(-length // MULTIPLE) * MULTIPLE


def cut_by_budget(rows: np.ndarray, lengths: np.ndarray, views: int, budget: int, devices: int = 1) -> list[np.ndarray]:
    """Returns `rows`, in their order, in batches of at most `budget` tokens with their padding, or of one row.

    lengths (all rows,): tokens of a row's longest sequence; views: sequences per row. Where several devices share the
    rows of each batch evenly, the budget is that of each.
    """
    batches: list[np.ndarray] = []
    begin, longest = 0, 0
    for end in range(len(rows)):
        longest = max(longest, padded(int(lengths[rows[end]])))
        if end - begin >= devices and longest * views * -(-(end - begin + 1) // devices) > budget:
            batches.append(rows[begin:end])
            begin, longest = end, padded(int(lengths[rows[end]]))
    return [*batches, rows[begin:]] if len(rows) > begin else batches


def inference_batches(lengths: np.ndarray, views: int, budget: int) -> list[np.ndarray]:
    """Returns batches of all rows, the longest rows first."""
    return cut_by_budget(np.argsort(-lengths, kind="stable"), lengths, views, budget)


def epoch_steps(
    lengths: np.ndarray, views: int, rows_per_step: int, budget: int, seeds: Sequence[int], devices: int = 1
) -> list[list[np.ndarray]]:
    """Returns one epoch as steps of batches of row numbers, each row once; `seeds` are the stream's and the epoch's."""
    draw = np.random.default_rng(list(seeds))
    order = draw.permutation(len(lengths))
    steps: list[np.ndarray] = []
    for begin in range(0, len(order), rows_per_step * STEPS_PER_CHUNK):
        chunk = order[begin : begin + rows_per_step * STEPS_PER_CHUNK]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        steps += [chunk[place : place + rows_per_step] for place in range(0, len(chunk), rows_per_step)]
    return [cut_by_budget(steps[place], lengths, views, budget, devices) for place in draw.permutation(len(steps))]


def pad(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (sequences, padded length) int64 ids, filled up on the right, and the mask: 1 where a token stands."""
    width = padded(max(map(len, sequences)))
    ids = np.full((len(sequences), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
