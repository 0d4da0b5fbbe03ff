"""Air beside the sample: a drifting and slanted beam divided out, its noise, what is left out, refusals."""

import numpy as np
import pytest

from firstlight import calibrate
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Noise, Unmodelled


def scan(noise=None, **more) -> tuple[Frame, np.ndarray]:
    """Transmission with air in the outer 12 columns, times an intensity that differs by projection and slants along X."""
    truth = np.ones((6, 4, 80))
    truth[:, :, 12:-12] = np.exp(-1 - 0.1 * np.arange(4))[:, None]
    beam = np.linspace(0.8, 1.3, 6)[:, None, None] * (1 + 0.1 * np.linspace(-1, 1, 80))
    data = (truth * beam).astype(np.float32)
    noise = Unmodelled("no gain") if noise is None else noise
    return Frame(data, "AYX", Unit.TRANSMISSION, noise, geometry=Scan(np.arange(6.0)), **more), truth


def test_a_slanted_beam_goes():
    frame, truth = scan()
    before = np.array(frame.data)
    done = calibrate.normalize_air(frame, columns=10)
    np.testing.assert_allclose(done.data, truth, rtol=2e-6)
    assert done.data.dtype == np.float32
    assert (done.history[-1].step, done.history[-1].params) == ("calibrate.normalize_air", {"columns": 10})
    np.testing.assert_array_equal(frame.data, before)


def test_noise_follows_the_mean_air():
    frame, truth = scan(Noise(1e-4, 1e-6, 0.0, 1e-5), std=np.full((4, 80), 0.01))
    done = calibrate.normalize_air(frame.replace(data=truth.astype(np.float32) * np.float32(0.5)), columns=10)
    np.testing.assert_allclose(done.noise.variance(truth), 2e-4 * truth + 4e-6 + 1e-5 * truth**2, rtol=1e-5)
    np.testing.assert_allclose(done.std, 0.02 * np.ones((4, 80)), rtol=1e-5)


def test_dead_and_lost_pixels_are_left_out_of_the_air():
    frame, truth = scan()
    data = np.array(frame.data)
    data[:, :, 3] = 1
    data[2, 1, 75] = np.nan
    flags = np.zeros((4, 80), np.uint8)
    flags[:, 3] = Flag.DEAD
    done = calibrate.normalize_air(frame.replace(data=data, flags=flags), columns=10)
    rest = np.isfinite(data)
    rest[:, :, 3] = False
    np.testing.assert_allclose(done.data[rest], truth[rest], rtol=0.01)  # the means no longer stand at the columns' centre
    assert np.count_nonzero(~np.isfinite(done.data)) == 1


def test_refusals():
    frame, _ = scan()
    for columns in (0, 41):
        with pytest.raises(FrameError, match=r"columns of 80, expected 1 to 40"):
            calibrate.normalize_air(frame, columns=columns)
    with pytest.raises(FrameError, match="expected transmission"):
        calibrate.normalize_air(frame.replace(unit=Unit.OPTICAL_DEPTH))
    data = np.array(frame.data)
    data[3, 2, :10] = 0
    with pytest.raises(FrameError, match=r"air of row 2 is 0 in columns 0 to 9 of projection \(3,\)"):
        calibrate.normalize_air(frame.replace(data=data))
