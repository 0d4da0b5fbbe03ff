"""Posterior samples: as wide as the error bars, around the same mean, and right for sums over pixels where one draw is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from firstlight import Flag, Frame, Mosaic, Noise, Unit, Unmodelled, simulate
from firstlight.errors import FrameError
from firstlight.geometry import BAYER
from firstlight.restore import denoise, samples

N = 20


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, Frame, Frame, Frame]:
    """Truth, data, restored with its std and samples of filaments of 50 e-, seed 77."""
    rng, noise = np.random.default_rng(77), Noise(1.0, 1.6**2)
    truth = simulate.filaments((192, 192), rng)
    frame = Frame(noise.sample(truth, rng).astype(np.float32), "YX", Unit.ELECTRON, noise)
    return truth, frame, denoise(frame, std=True), samples(frame, n=N, seed=1)


def means(a: np.ndarray, k: int) -> np.ndarray:
    n = a.shape[-1] // k
    return a[..., : n * k, : n * k].reshape(*a.shape[:-2], n, k, n, k).mean((-1, -3))


def covered(drawn: np.ndarray, truth: np.ndarray) -> Any:
    """Share of the truth within the central 90 % of the draws; of N = 20 exact ones about 0.84."""
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    return np.mean((truth >= low) & (truth <= high))


def test_their_mean_is_the_restored_image_and_their_spread_its_error(seen: Any) -> None:
    truth, _, mean, drawn = seen
    rms = [np.sqrt(np.mean((a - truth) ** 2)) for a in (mean.data, drawn.data.mean(0))]
    assert rms[1] < 1.05 * rms[0]
    assert 0.75 < np.sqrt(drawn.data.var(0, ddof=1).mean() / np.mean(mean.std**2)) < 1.1
    assert 0.7 < covered(drawn.data, truth) < 0.92  # 0.757: drawn somewhat too narrow where a pixel holds 1 e-


@pytest.mark.parametrize("side", [4, 16])
def test_sums_over_pixels_spread_as_their_errors_do(seen: Any, side: int) -> None:
    truth, _, mean, drawn = seen
    alone = mean.data + mean.std * np.random.default_rng(2).standard_normal((N, *truth.shape))
    ours, theirs = (covered(means(a, side), means(truth, side)) for a in (drawn.data, alone))
    assert theirs < 0.55
    assert ours > 0.62


def test_the_frame_around_them(seen: Any) -> None:
    _, frame, _, drawn = seen
    assert (drawn.axes, drawn.shape, drawn.data.dtype) == ("SYX", (N, *frame.shape), np.float32)
    assert isinstance(drawn.noise, Unmodelled)
    assert drawn.history[-1].params["seed"] == 1
    again = samples(frame, n=2, seed=1)
    np.testing.assert_array_equal(again.data, drawn.data[:2])
    assert not np.array_equal(samples(frame, n=1, seed=2).data, again.data[:1])


def test_planes_phases_and_lost_pixels() -> None:
    noise = Noise(1.0, 4.0)
    data = noise.sample(np.full((2, 64, 64), 50.0), np.random.default_rng(3)).astype(np.float32)
    flags = np.zeros((64, 64), np.uint8)
    flags[5, 5], flags[9, 9] = Flag.SATURATED, Flag.HOT
    data[:, 5, 5], data[:, 9, 9] = 900, 7000
    before = data.copy()
    frame = Frame(data, "TYX", Unit.ELECTRON, noise, flags=flags, geometry=Mosaic(BAYER))
    found = samples(frame, n=2, steps=2)
    assert found.axes == "TSYX"
    out = np.moveaxis(np.asarray(found.data), 1, 0)
    assert out.shape == (2, 2, 64, 64)
    assert np.all(out[..., 5, 5] == 900)
    assert np.all(np.abs(out[..., 9, 9] - 50) < 20)
    assert not np.array_equal(out[:, 0] - data[0], out[:, 1] - data[1])
    errors = (out - 50)[..., 16:48, 16:48].reshape(4, -1)
    assert np.abs(np.corrcoef(errors)[0, 1:]).max() < 0.9  # planes draw for themselves
    np.testing.assert_array_equal(data, before)
    exact = Frame(np.ones((16, 16), np.float32), "YX", Unit.ELECTRON, Noise(0.0, 0.0))
    np.testing.assert_array_equal(samples(exact, n=2).data, np.ones((2, 16, 16)))


def test_refusals(seen: Any) -> None:
    frame = seen[1]
    for wrong in ({"n": 0}, {"steps": 0}, {"seed": -1}):
        with pytest.raises(FrameError, match="expected at least"):
            samples(frame, **wrong)
    with pytest.raises(FrameError, match="no axis S"):
        samples(frame.replace(data=frame.data[None], axes="SYX"))
    with pytest.raises(FrameError, match="drizzled"):
        samples(frame.replace(noise=Unmodelled("drizzled")))
