"""What restoring refuses: noise that a white-noise model would take for structure."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import Frame, Noise, Unmodelled
from firstlight.errors import FrameError
from firstlight.intake import WHITE, _with_detector, check_white


def correlated(lag: float) -> Frame:
    """A flat field with lag-1 correlation `lag` along both axes and none beyond."""
    k = 0.0 if lag == 0 else (1 - np.sqrt(1 - 4 * lag * lag)) / (2 * lag)
    noise = np.random.default_rng(5).standard_normal((384, 384))
    for axis in (0, 1):
        noise = (noise + k * np.roll(noise, 1, axis)) / np.sqrt(1 + k * k)
    return Frame(100 + 10 * noise, "YX", "electron", Noise(1.0, 0.0))


@pytest.mark.parametrize("lag", [0.0, 0.1, WHITE - 0.03])
def test_what_the_restorer_bears_is_restored(lag: float) -> None:
    check_white(correlated(lag))


@pytest.mark.parametrize("lag", [WHITE + 0.07, 0.45])
def test_what_it_would_take_for_structure_is_refused(lag: float) -> None:
    with pytest.raises(FrameError, match=r"neighbouring pixels correlate by 0.* resampling, or say --assume-white"):
        check_white(correlated(lag))


def test_no_noise_model_is_refused_with_its_reason() -> None:
    with pytest.raises(FrameError, match="there is none: no gain"):
        check_white(correlated(0.0).replace(noise=Unmodelled("no gain")))


def test_a_detectors_quantisation_is_part_of_the_noise_of_electrons_too() -> None:
    fields = {"gain": 4.0, "read_noise": 2.0, "offset": 100.0, "step": 1.5}
    frame = Frame(np.ones((4, 4)), "YX", "electron", Unmodelled("no gain"))
    noise = _with_detector(frame, fields).noise
    assert (noise.a, noise.b, noise.offset) == pytest.approx((1.0, 4.0 + (4 * 1.5) ** 2 / 12, 0.0))
