"""Which stages may have to run, and how many of them at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.graph import perhaps_stale, side_by_side

DIAMOND = {
    "first": frozenset[str](),
    "left": frozenset({"first"}),
    "right": frozenset({"first"}),
    "last": frozenset({"left", "right"}),
    "apart": frozenset[str](),
}


def test_what_follows_from_a_change_is_perhaps_stale() -> None:
    assert perhaps_stale(DIAMOND, ["left"]) == {"left", "last"}
    assert perhaps_stale(DIAMOND, ["first"]) == {"first", "left", "right", "last"}
    assert perhaps_stale(DIAMOND, []) == set()


def test_a_chain_has_nothing_to_run_side_by_side() -> None:
    assert side_by_side(DIAMOND, set()) == 0
    assert side_by_side(DIAMOND, {"left", "last"}) == 1
    assert side_by_side(DIAMOND, {"left", "right", "last"}) == 2
    assert side_by_side(DIAMOND, {"first", "apart"}) == 2


@given(st.lists(st.sets(st.integers(0, 9), max_size=3), min_size=10, max_size=10), st.sets(st.integers(0, 9)))
def test_stale_stages_are_closed_under_what_follows(earlier: list[set[int]], changed: set[int]) -> None:
    graph = {str(n): frozenset(str(e) for e in waits if e < n) for n, waits in enumerate(earlier)}
    stale = perhaps_stale(graph, map(str, changed))
    assert {str(each) for each in changed} <= stale
    assert all(name in stale for name, waits in graph.items() if waits & stale)
    assert all(graph[name] & stale for name in stale - {str(each) for each in changed})
