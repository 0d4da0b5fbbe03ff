"""Projections that hold nothing: refused with the step that leaves them out, and left out with all that is theirs."""

import numpy as np
import pytest

from firstlight.calibrate import attenuation, leave_out
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise


def scan() -> Frame:
    data = np.random.default_rng(5).uniform(0.5, 1, (6, 3, 8)).astype(np.float32)
    each = np.arange(1, 7, dtype=np.float32).reshape(-1, 1, 1)
    flags = np.broadcast_to(np.arange(6, dtype=np.uint8).reshape(-1, 1, 1), data.shape)
    geometry = Scan(np.arange(6) * np.pi / 6, center=3.5)
    noise = Noise(each, 0.0, 0.0)
    return Frame(data, "AYX", Unit.TRANSMISSION, noise, std=data / 10, flags=flags, geometry=geometry)


def test_an_empty_projection_is_refused_by_number_and_left_out_as_the_message_says() -> None:
    frame = scan()
    data = np.array(frame.data)
    data[4] = np.nan
    frame = frame.replace(data=data)
    with pytest.raises(FrameError, match=r"leave_out with projections = \[4\]"):
        attenuation(frame)
    assert np.isfinite(attenuation(leave_out(frame, projections=[4])).data).all()


def test_all_that_is_a_projections_goes_with_it() -> None:
    frame = scan()
    done, kept = leave_out(frame, projections=[4, 1]), [0, 2, 3, 5]
    np.testing.assert_array_equal(done.data, np.asarray(frame.data)[kept])
    np.testing.assert_array_equal(done.std, np.asarray(frame.std)[kept])
    np.testing.assert_array_equal(done.flags, np.asarray(frame.flags)[kept])
    np.testing.assert_array_equal(np.ravel(done.noise.a), np.add(kept, 1))
    np.testing.assert_array_equal(done.geometry.angles, frame.geometry.angles[kept])
    assert done.geometry.center == 3.5
    assert done.unit is Unit.TRANSMISSION
    assert frame.shape[0] == 6
    assert done.history[-1].params == {"projections": [1, 4]}
    assert needs_of(leave_out).rows(frame, {}) == 0


@pytest.mark.parametrize("which", [[], [6], [-1], range(6)])
def test_numbers_that_leave_nothing_to_do_or_nothing_at_all(which) -> None:
    with pytest.raises(FrameError, match=r"expected some of 0\.\.5"):
        leave_out(scan(), projections=which)
