"""One-to-one matching: its definition by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.errors import FrameError
from firstlight.measure import match


@given(seed=st.integers(0, 10_000), n=st.integers(0, 30), m=st.integers(0, 30), radius=st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_pairs_are_exactly_the_mutual_nearest_within_the_radius(seed: int, n: int, m: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 12, (n, 2)), rng.uniform(0, 12, (m, 2))
    i, j = match(a, b, radius=radius)
    d = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    want = {(p, q) for p in range(n) for q in range(m) if d[p, q] <= radius and d[p].argmin() == q and d[:, q].argmin() == p}
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == want
    assert len(set(i)) == len(i)
    assert len(set(j)) == len(j)


def test_two_detections_of_one_star_count_once() -> None:
    i, j = match([[10, 10.4], [10, 9.9]], [[10, 10]], radius=2)
    assert (i.tolist(), j.tolist()) == ([1], [0])


@pytest.mark.parametrize("bad", [[[1, 2, 3]], [[np.nan, 1]], [1, 2]])
def test_other_shapes_are_refused(bad: list) -> None:
    with pytest.raises(FrameError, match=r"expected \(n, 2\) finite places"):
        match(bad, [[1, 1]], radius=1)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(FrameError, match="expected 0 or more"):
        match([[1, 1]], [[1, 1]], radius=-1)
