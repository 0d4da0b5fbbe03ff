"""HLG: BT.2100's and BT.2408's numbers, a shoulder that is monotone and keeps ratios."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from firstlight.develop import hlg
from firstlight.errors import FrameError


def test_the_published_points():
    light = np.array([0, 1 / 24, 1 / 12, 0.18, 0.265, 0.5, 1.0])
    signal = [0, 0.353553, 0.5, 0.672358, 0.750028, 0.871643, 1.0]
    assert np.abs(hlg.oetf(light) - signal).max() < 1e-6
    assert np.abs(hlg.inverse_oetf(hlg.oetf(light)) - light).max() < 1e-7
    assert hlg.oetf(np.float32(0.3)).dtype == np.float32


@pytest.mark.parametrize(
    ("linear", "light", "signal", "code", "nits"),
    [(0.18, 0.0477, 0.378, 387, 26), (1.0, 0.2650, 0.750, 767, 203), (2.0, 0.530, 0.883, 903, 467)],
)
def test_grey_and_white_land_where_they_belong(linear, light, signal, code, nits):
    """Research table 5.2, from BT.2408: 18 % grey, diffuse white, and one stop over it, on a display of 1000 nits."""
    e = hlg.scene(np.full((3, 1), linear))
    assert e[0, 0] == pytest.approx(light, abs=5.1e-5 * max(1, linear))
    assert hlg.oetf(e)[0, 0] == pytest.approx(signal, abs=5e-4)
    assert abs(1023 * hlg.oetf(e)[0, 0] - code) < 0.6
    assert hlg.ootf(e)[0, 0] == pytest.approx(nits, abs=0.6)


@pytest.mark.parametrize("nits", [100.0, 203.0, 400.0])
def test_diffuse_white_is_shown_at_what_is_asked(nits):
    assert hlg.ootf(hlg.scene(np.ones((3, 1)), nits))[0, 0] == pytest.approx(nits, rel=2e-3)


def test_the_display_keeps_ratios_and_takes_luminance():
    rgb = np.array([[0.2], [0.4], [0.1]])
    nits = hlg.ootf(rgb)
    assert np.allclose(nits / nits[1], rgb / rgb[1])
    luminance = hlg.LUMA @ rgb[:, 0]
    assert hlg.LUMA @ nits[:, 0] == pytest.approx(1000 * luminance**1.2)


@given(arrays(np.float64, (3, 8), elements=st.floats(0, 100)), st.floats(0, 0.9))
def test_the_shoulder_keeps_ratios_and_the_display(rgb, start):
    out = hlg.shoulder(rgb, start)
    assert out.max() <= 1
    top, now = rgb.max(axis=0), out.max(axis=0)
    assert np.allclose(out * top, rgb * now, atol=1e-12 * (1 + top.max()))
    low = top <= start
    assert np.array_equal(out[:, low], rgb[:, low])


def test_the_shoulder_is_monotone_and_smooth():
    x = np.linspace(0, 40, 40001)
    out = hlg.shoulder(np.tile(x, (3, 1)))[0]
    assert np.all(np.diff(out) > 0)
    slope = np.diff(out) / np.diff(x)
    assert np.abs(np.diff(slope)).max() < 5e-3
    assert slope.max() < 1 + 1e-9


def test_refusals():
    with pytest.raises(FrameError, match="nits"):
        hlg.scene(np.ones(3), 1000.0)
    with pytest.raises(FrameError, match="start"):
        hlg.shoulder(np.ones((3, 1)), 1.0)
