from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import decoder, encoder

from pipeline.inference.passes import FIRST, LONG, SWAP, combined, passes_of
from pipeline.settings.member import MemberSettings
from pipeline.settings.tabular import Tabular


@given(
    names=st.sets(st.sampled_from([FIRST, SWAP, LONG]), min_size=1),
    rows=st.integers(0, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_passes_make_the_answer_row_by_row(names: set[str], rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = {name: rng.dirichlet(np.ones(3), size=rows) for name in names}
    for part in parts.values():
        part[rng.random(rows) < 0.4] = np.nan
    before = {name: part.copy() for name, part in parts.items()}
    found = combined(parts)
    assert found.shape == (rows, 3)
    for row in range(rows):
        spoken = {name: part[row] for name, part in before.items() if np.isfinite(part[row]).all()}
        if LONG in spoken:
            assert np.array_equal(found[row], spoken[LONG])
        elif FIRST not in spoken:
            assert np.isnan(found[row]).all()
        elif SWAP in spoken:
            assert np.allclose(found[row], (spoken[FIRST] + spoken[SWAP]) / 2, atol=1e-15)
        else:
            assert np.array_equal(found[row], spoken[FIRST])
    for name, part in parts.items():
        assert np.array_equal(part, before[name], equal_nan=True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (None, ("first",)),
        (Tabular(kind="tabular", backbone="none", model="logistic"), ("first",)),
        (encoder(), ("first",)),
        (encoder(inference={"swap": True}), ("first", "swap")),
        (encoder(inference={"long_tokens": 128}), ("first", "long")),
        (decoder(inference={"swap": True, "long_tokens": 128}), ("first", "swap", "long")),
    ],
)
def test_settings_ask_for_passes(settings: MemberSettings | None, expected: tuple[str, ...]) -> None:
    assert passes_of(settings) == expected
