"""The speed comparison compares what is the same: rows, weights, answers. Its figures are not looked at here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import ours, padding, protocol, theirs
from benchmarks.speed.protocol import Bench

if not protocol.DATA.exists():
    pytest.skip(f"the real votes are not here: {protocol.DATA}", allow_module_level=True)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    small = protocol.BACKBONE | {"vocabulary": 1000, "hidden": 32, "layers": 2}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(protocol, "BACKBONE", small)
        return protocol.opened(tmp_path_factory.mktemp("speed"), 20, 12, "fp32")


@pytest.mark.slow
def test_all_sides_give_the_same_answers_with_the_same_weights(bench: Bench, tmp_path: Path) -> None:
    mine, other = (bench.network(attention, 0).eval() for attention in ("fast", "huggingface"))
    found = ours.answer(bench, mine, bench.held)
    assert found.shape == (12, 3) and np.ptp(found) > 0.01
    for dynamic in (False, True):
        assert np.abs(found - theirs.answer(bench, other, bench.held, tmp_path, dynamic)).max() < 1e-4
    scorer = theirs.scorer(bench)
    one, many = (theirs.scores(scorer, bench.held, size) for size in (1, 16))
    assert one.shape == (24,) and np.abs(one - many).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, False, True], ids=["ours", "to the maximum", "by length"])
def test_every_side_learns_from_the_same_beginning(bench: Bench, dynamic: bool | None, tmp_path: Path) -> None:
    network = bench.network("fast" if dynamic is None else "huggingface", 7)
    before = {name: each.clone() for name, each in network.named_parameters()}
    again = bench.network("huggingface", 7)
    assert all(torch.equal(each, before[name]) for name, each in again.named_parameters())
    if dynamic is None:
        ours.train(bench, network, 7, tmp_path, 1)
    else:
        theirs.train(bench, network, 7, tmp_path, dynamic)
    assert any(not torch.equal(each, before[name]) for name, each in network.named_parameters())


@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_less_is_computed_the_finer_rows_are_put_together(bench: Bench, family: str) -> None:
    found = padding.counted(bench.train, family, 128, bench.tokenizer)
    for purpose in ("training", "inference"):
        assert found["padded to the maximum"] >= found[f"batches of {purpose}"] >= found[f"blocks of {purpose}"] >= 1
    assert 0 <= found["sequences that stood before"] < 0.5 and 0 < found["begin alike in both orders"] < 0.5


def test_rows_that_are_there_twice_are_counted_once(bench: Bench) -> None:
    twice = bench.train.vstack(bench.train)
    once, both = (padding.counted(each, "encoder", 128, bench.tokenizer) for each in (bench.train, twice))
    name = "sequences that stood before"
    assert both[name] == pytest.approx((1 + once[name]) / 2)
