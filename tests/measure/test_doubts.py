"""Noise measured on the image alone, and the doubts that follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from firstlight import Flag, Frame, Mosaic, Noise, Observation, Unmodelled, simulate
from firstlight.geometry import BAYER
from firstlight.measure import noise_correlation, plausibility
from firstlight.measure.doubts import flat_noise

UNKNOWN = Unmodelled("test")


def frame(data: np.ndarray, unit: str = "adu", noise: Noise | Unmodelled = UNKNOWN, **observed: object) -> Frame:
    return Frame(data, "YX", unit, noise, observation=Observation(**observed))


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-4, 1e4), level=st.floats(-1e4, 1e4))
@settings(max_examples=10, deadline=None)
def test_white_noise_has_none(seed: int, scale: float, level: float) -> None:
    found = flat_noise(frame(level + scale * np.random.default_rng(seed).standard_normal((256, 256))))
    assert found is not None
    assert abs(found.lag_y) < 5 * found.error < 0.1
    assert abs(found.lag_x) < 5 * found.error


@pytest.mark.parametrize(
    "kernel",
    [
        np.array([[0.0, 0, 0], [0.2, 1, 0.2], [0, 0, 0]]),
        np.ones((2, 2)),
        np.array([[0.1, 0.3, 0.1], [0.3, 1, 0.3], [0.1, 0.3, 0.1]]),
    ],
)
def test_a_known_correlation_is_recovered(kernel: np.ndarray) -> None:
    white = np.random.default_rng(1).standard_normal((512, 512))
    own = signal.correlate2d(kernel, kernel)
    c = own.shape[0] // 2
    image = 40 + 3 * signal.convolve2d(white, kernel, mode="same")
    want = (own[c + 1, c] / own[c, c], own[c, c + 1] / own[c, c])
    np.testing.assert_allclose(noise_correlation(frame(image)), want, atol=0.04)
    assert np.mean(flat_noise(frame(image)).variance) == pytest.approx(9 * own[c, c], rel=0.05)
    image[np.random.default_rng(2).random(image.shape) < 0.003] += 45  # faint cosmic rays
    np.testing.assert_allclose(noise_correlation(frame(image)), want, atol=0.06)


def test_scene_and_shot_noise_do_not_pass_as_correlation() -> None:
    rng = np.random.default_rng(2)
    for truth in (simulate.star_field((512, 512), rng)[0], simulate.filaments((512, 512), rng)):
        noise = Noise(1.0, 4.0)
        found = flat_noise(frame(noise.sample(truth, rng), "electron", noise))
        assert max(abs(found.lag_y), abs(found.lag_x)) < 0.04
        assert np.median(found.variance / found.model) == pytest.approx(1, abs=0.07)
        assert plausibility(frame(noise.sample(truth, rng), "electron", noise)) == []


def test_hot_and_flagged_pixels_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    data = rng.standard_normal((400, 400))
    data[rng.random(data.shape) < 0.001] += 1000
    flags = np.zeros(data.shape, np.uint8)
    data[100:120], flags[100:120] = np.nan, Flag.NO_DATA
    got = noise_correlation(frame(data).replace(flags=flags))
    assert max(map(abs, got)) < 0.05


def test_scattered_flagged_pixels_cost_no_cells() -> None:
    rng = np.random.default_rng(11)
    ramp = np.linspace(0, 300, 500)[None] + np.linspace(0, 200, 500)[:, None]
    data = 1000 + ramp + rng.standard_normal((500, 500))
    plain = flat_noise(frame(data))
    hot = rng.random(data.shape) < 0.01
    found = flat_noise(frame(np.where(hot, 4000, data)).replace(flags=hot * np.uint8(Flag.HOT)))
    assert plain is not None
    assert found is not None
    assert found.error < 1.1 * plain.error
    assert max(abs(found.lag_y), abs(found.lag_x)) < 4 * found.error
    assert np.median(found.variance) == pytest.approx(1, abs=0.04)


def test_a_mosaic_is_looked_at_cell_by_cell() -> None:
    rng = np.random.default_rng(4)
    level = np.array([[100.0, 300.0], [250.0, 60.0]])[np.arange(512)[:, None] % 2, np.arange(512)[None] % 2]
    noise = Noise(1.0, 9.0)
    f = frame(noise.sample(level, rng), "electron", noise).replace(geometry=Mosaic(BAYER))
    assert max(map(abs, noise_correlation(f))) < 0.05
    assert plausibility(f) == []


def test_too_little_to_say() -> None:
    assert noise_correlation(frame(np.random.default_rng(5).standard_normal((30, 30)))) is None
    assert noise_correlation(frame(np.full((300, 300), 7.0))) is None


class Array:
    """A read-only array that counts what is taken from it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype, self.taken = shape, np.dtype(np.float32), 0

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        shape = [len(range(*k.indices(n))) for k, n in zip(key, self.shape, strict=True)]
        self.taken += int(np.prod(shape))
        return np.random.default_rng(self.taken).normal(100, 10, shape).astype(np.float32)


def test_a_huge_frame_is_sampled() -> None:
    data = Array((100, 20000, 30000))
    f = Frame(data, "TYX", "adu", UNKNOWN)
    assert plausibility(f) == []
    assert max(map(abs, noise_correlation(f))) < 0.03
    assert data.taken < 4e6


def doubts(*args: object, **kwargs: object) -> str:
    return " | ".join(plausibility(frame(*args, **kwargs)))


def test_doubts() -> None:
    rng = np.random.default_rng(6)
    sky = rng.normal(100, 8, (256, 256))
    assert doubts(sky) == ""
    assert "all 65536 pixels looked at have the same value, 3" in doubts(np.full((256, 256), 3.0))
    broken = sky.copy()
    broken[3, 3:5] = np.nan
    assert "2 of the 65536 pixels looked at are not finite" in doubts(broken)
    assert "whole number though the data are float64" in doubts(np.rint(sky))
    assert doubts(np.rint(sky).astype(np.uint16)) == ""
    stretched = np.rint(1.3 * np.rint(sky)).astype(np.uint8)
    assert "stretched after quantisation" in doubts(stretched)
    assert doubts(np.rint(rng.normal(3e4, 5e3, (16, 16))).astype(np.uint16)) == ""  # as many levels as pixels
    assert "8 bit" in doubts(np.rint(sky).astype(np.uint8))
    assert "clipped at black" in doubts(np.maximum(np.rint(sky - 92), 0).astype(np.uint16))
    top = np.minimum(np.rint(sky * 10), 1100).astype(np.uint16)
    assert "pile up at the maximum, 1100, below the stated saturation of 4095" in doubts(top, saturation=4095.0)
    assert "no saturation is stated" in doubts(top)
    assert "pile up" not in doubts(top, saturation=1100.0)
    flagged = frame(top).replace(flags=(top == 1100).astype(np.uint8))
    assert plausibility(flagged) == []
    assert "is correlated: lag-1 0." in doubts(ndimage.uniform_filter(sky, 2))
    assert "no pixel is finite and unflagged" in doubts(np.full((20, 20), np.nan))


def test_photon_counts_are_not_called_clipped() -> None:
    counts = np.random.default_rng(7).poisson(20, (256, 256)).astype(np.uint16)
    assert plausibility(frame(counts, "electron")) == []


def test_the_unit_is_doubted() -> None:
    rng, t = np.random.default_rng(8), 1000.0
    truth = np.full((256, 256), 50.0 * t)
    counts = Noise(1.0, 25.0).sample(truth, rng)
    assert doubts(counts, "electron", exposure=t) == ""
    said = doubts(counts / t, "electron", exposure=t)
    assert "unit says electron but the values look like electron/s" in said
    assert "times the exposure of 1000 s" in said
    assert doubts(counts / t, "electron/s", exposure=t) == ""


def test_a_wrong_noise_model_is_doubted() -> None:
    noise = Noise(1.0, 25.0)
    counts = noise.sample(np.full((256, 256), 400.0), np.random.default_rng(9))
    assert doubts(counts, "electron", noise) == ""
    said = doubts(counts, "electron", Noise(0.5, 12.5))
    assert float(said.split("regions is ")[1].split(" times")[0]) == pytest.approx(2, rel=0.1)


def test_acs_unit_and_drizzle(data) -> None:
    from astropy.io import fits

    image = fits.getdata(data / "astronomy" / "hst_acs" / "acs_cosmos_147246_f814w.fits").astype(np.float32)
    f = frame(image, "electron", exposure=4056.0)
    y, x = noise_correlation(f)
    assert y == pytest.approx(0.48, abs=0.04)
    assert x == pytest.approx(0.44, abs=0.04)
    said = plausibility(f)
    assert any(d.startswith("unit says electron but the values look like electron/s") for d in said)
    assert any("correlated" in d for d in said)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_w2s_is_white_and_stretched(data, channel: int) -> None:
    import tifffile

    f = frame(tifffile.imread(data / "microscopy" / "w2s" / f"input_avg1_001_{channel}.tif"), "arbitrary")
    assert max(map(abs, noise_correlation(f))) < 0.03
    assert any("stretched after quantisation" in d for d in plausibility(f))
