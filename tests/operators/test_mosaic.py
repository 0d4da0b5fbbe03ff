"""Sampling through a colour filter array: a linear map with an exact adjoint."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight import operators
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, XTRANS, Mosaic


@given(st.sampled_from([XTRANS, BAYER]), st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(0, 2**31))
def test_adjoint_and_normal(pattern, phase, seed):
    rng = np.random.default_rng(seed)
    a = operators.mosaic(pattern, (13, 17), phase=phase)
    x, y = rng.normal(size=(2, 3, 13, 17)), rng.normal(size=(2, 13, 17))
    assert np.vdot(a(x), y) == pytest.approx(np.vdot(x, a.T(y)), rel=1e-12)
    assert np.array_equal(a(a.T(y)), y)
    assert np.array_equal(a.gram(x), a.adjoint(a.forward(x)))


def test_takes_the_colour_of_each_pixel():
    x = np.stack([np.full((7, 9), float(k)) for k in range(3)])
    assert np.array_equal(operators.mosaic(XTRANS, (7, 9), phase=(2, 5))(x), Mosaic(XTRANS, (2, 5)).at((7, 9)))


def test_no_pattern_is_refused():
    with pytest.raises(FrameError, match="expected integers"):
        operators.mosaic([[0.0, 1.0]], (4, 4))
