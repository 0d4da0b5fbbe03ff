"""Torture pictures: thirteen kinds, contrast always, reproducible, band-limited by the pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.errors import FrameError
from firstlight.simulate import KINDS, linearise, torture
from firstlight.simulate.torture import CONTRAST, contrast


def test_there_are_the_documents_thirteen_kinds() -> None:
    assert len(KINDS) == 13
    assert KINDS[11:] == ("julia", "perlin")


@settings(max_examples=80)
@given(kind=st.integers(0, 12), seed=st.integers(0, 2**31), side=st.sampled_from([24, 48, 96]))
def test_every_picture_has_contrast_and_is_light(kind: int, seed: int, side: int) -> None:
    rgb = torture(kind, np.random.default_rng(seed), side=side)
    assert rgb.shape == (3, side, side)
    assert rgb.dtype == np.float32
    assert 0 <= rgb.min() <= rgb.max() <= 1
    assert contrast(rgb) >= CONTRAST
    np.testing.assert_array_equal(rgb, torture(kind, np.random.default_rng(seed), side=side))


def test_contrast_is_in_srgb_values_of_the_channel_that_differs_most() -> None:
    flat = np.full((3, 10, 10), 0.2)
    assert contrast(flat) == 0
    flat[2, :, :5], flat[2, :, 5:] = linearise(0.1), linearise(0.7)
    assert contrast(flat) == pytest.approx(0.6, abs=1e-6)


def test_stripes_run_where_their_names_say() -> None:
    up, across = (torture(k, np.random.default_rng(3), side=48) for k in (0, 1))
    np.testing.assert_allclose(up, np.broadcast_to(up[:, :1], up.shape), atol=1e-7)
    np.testing.assert_allclose(across, np.broadcast_to(across[:, :, :1], across.shape), atol=1e-7)


def test_pixels_are_averages_of_two_colours_on_a_line() -> None:
    # stripes, checkers, stars ...: every pixel lies between the two colours, so that truth has no false colour of its own
    for kind in range(13):
        pixels = torture(kind, np.random.default_rng(kind), side=32).reshape(3, -1).astype(np.float64)
        pixels -= pixels[:, :1]
        assert np.linalg.svd(pixels, compute_uv=False)[1] < 1e-5 * max(1, np.abs(pixels).max()) * pixels.shape[1] ** 0.5


def test_other_kinds_and_sides_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(FrameError, match="kind 13"):
        torture(13, rng)
    with pytest.raises(FrameError, match="side 8"):
        torture(0, rng, side=8)
