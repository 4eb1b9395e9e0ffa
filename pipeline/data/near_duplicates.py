"""Rows that are nearly a row which is scored: rows from elsewhere must not bring the answers along.

Nearly the same are two rows of one group as the folds have it (the first prompt, say), and two of which a field has at
least NEAR of its word shingles in common with a field of the other (Broder 1997, "On the resemblance and containment of
documents"): the Jaccard index, looked for by MinHash and then counted. Rewritten texts are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
from datasketch import MinHash, MinHashLSH

from pipeline.competitions.task import Task
from pipeline.data.folds import group_key
from pipeline.data.rows import joined

NEAR = 0.8
"""Jaccard index of word shingles from which two texts are one."""
CANDIDATES = 0.5
"""What MinHash looks for: at NEAR itself its bands would overlook more than half of the pairs that are just that near,
and here one in ten thousand."""
SHINGLE, PERMUTATIONS = 3, 128
SHORTEST = 5
"""Words of a text below which two rows may share it by chance."""


def near_duplicates(rows: pl.DataFrame, scored: pl.DataFrame, parts: Sequence[int], task: Task) -> list[set[int]]:
    """Returns for each of `rows` the parts of `scored` in which a row is nearly the same.

    parts (scored rows,): a number for where each belongs.
    """
    found: list[set[int]] = [set() for _ in range(len(rows))]
    if task.group is not None:
        groups: dict[str, set[int]] = {}
        for key, part in zip(scored.select(group_key(task)).to_series(), parts, strict=True):
            groups.setdefault(key, set()).add(part)
        for each, key in zip(found, rows.select(group_key(task)).to_series(), strict=True):
            each |= groups.get(key, set()) if key else set()
    index = MinHashLSH(threshold=CANDIDATES, num_perm=PERMUTATIONS)
    known: list[tuple[frozenset[str], set[int]]] = []
    places: dict[frozenset[str], int] = {}
    for row, shingles in _shingled(scored, task):
        if shingles not in places:
            places[shingles] = len(known)
            known.append((shingles, set()))
            index.insert(places[shingles], _signature(shingles), check_duplication=False)
        known[places[shingles]][1].add(parts[row])
    for row, shingles in _shingled(rows, task):
        for place in index.query(_signature(shingles)):
            other, its = known[place]
            if len(shingles & other) >= NEAR * len(shingles | other):
                found[row] |= its
    return found


def _shingled(rows: pl.DataFrame, task: Task) -> Iterator[tuple[int, frozenset[str]]]:
    """Yields the number of a row and the word shingles of one of its fields, where that has enough words."""
    for field in task.fields:
        words = rows.select(joined(field).str.normalize("NFKC").str.to_lowercase().str.extract_all(r"\w+")).to_series()
        for row, each in enumerate(words):
            if len(each) >= SHORTEST:
                spoken = each.to_list()
                yield row, frozenset(" ".join(spoken[at : at + SHINGLE]) for at in range(len(spoken) - SHINGLE + 1))


def _signature(shingles: frozenset[str]) -> MinHash:
    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([each.encode() for each in sorted(shingles)])
    return made
