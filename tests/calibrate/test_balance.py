"""White balance: grey becomes grey, noise and levels follow each phase."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.calibrate import white_balance
from firstlight.cfa import pad
from firstlight.errors import FrameError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise, Unmodelled

GAINS = (2.0, 1.0, 1.5)


@given(top=st.integers(0, 5), left=st.integers(0, 5), bayer=st.booleans())
def test_grey_becomes_grey_in_every_phase_with_its_noise_and_levels(top: int, left: int, bayer: bool) -> None:
    mosaic = pad(Mosaic(BAYER if bayer else XTRANS), (top, left))
    gain = np.array(GAINS)[mosaic.at((13, 17))]
    seen = Observation(saturation=1000.0, offset=0.0, white_balance=GAINS)
    grey = Frame((80.0 / gain).astype(np.float32), "YX", Unit.ADU, Noise(0.5, 3.0), geometry=mosaic, observation=seen)
    out = white_balance(grey)
    np.testing.assert_allclose(out.data, 80.0, rtol=1e-6)
    assert isinstance(out.noise, Noise)
    np.testing.assert_allclose(out.noise.variance(np.asarray(grey.data) * gain), gain**2 * (0.5 * grey.data + 3.0), rtol=1e-5)
    saturation = np.asarray(out.observation.saturation)
    np.testing.assert_array_equal(
        saturation[np.arange(13)[:, None] % len(saturation), np.arange(17) % len(saturation)], 1000 * gain
    )
    assert out.observation.offset == 0.0
    np.testing.assert_array_equal(white_balance(out).data, out.data)  # its own multipliers have become 1
    np.testing.assert_array_equal(grey.data, (80.0 / gain).astype(np.float32))


def test_colours_and_negatives_and_green_is_one() -> None:
    frame = Frame(np.full((3, 4, 5), -2.0, np.float32), "CYX", Unit.ADU, Unmodelled("none"))
    out = white_balance(frame, multipliers=(4.0, 2.0, 3.0))
    assert [float(np.unique(plane)[0]) for plane in out.data] == [-4, -2, -3]


@pytest.mark.parametrize("given", [None, (1.0, 2.0), (0.0, 1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_bad_multipliers_are_refused(given: tuple[float, ...] | None) -> None:
    frame = Frame(np.zeros((4, 4)), "YX", Unit.ADU, Noise(1.0, 1.0), geometry=Mosaic(BAYER))
    with pytest.raises(FrameError, match="multipliers"):
        white_balance(frame, multipliers=given)
    with pytest.raises(FrameError, match="axes"):
        white_balance(frame.replace(geometry=None), multipliers=(1, 1, 1))
