"""Residual chi-square against cases whose expectation is known exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import Box, Flag, Frame, Mosaic, Noise, Unmodelled, measure
from firstlight.errors import FrameError
from firstlight.geometry import BAYER
from firstlight.measure import judged, residual

SHAPE = (160, 200)


def noisy(seed: int, noise: Noise, shape: tuple[int, ...] = SHAPE, unit: str = "electron") -> tuple[Frame, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.broadcast_to(np.linspace(5, 400, shape[-1]), shape) + np.max(noise.offset)
    axes = "TYX" if len(shape) == 3 else "YX"
    return Frame(noise.sample(truth, rng), axes, unit, noise), truth


def like(frame: Frame, data: np.ndarray, **more: object) -> Frame:
    return frame.replace(data=data, noise=Unmodelled("restored"), **more)


@given(
    seed=st.integers(0, 2**31), gain=st.floats(0.2, 5), offset=st.floats(-50, 500), read=st.floats(0.5, 6), stack=st.booleans()
)
@settings(max_examples=15, deadline=None)
def test_the_truth_itself_leaves_white_noise(seed: int, gain: float, offset: float, read: float, stack: bool) -> None:
    noise = Noise(1 / gain, (read / gain) ** 2, offset)
    frame, truth = noisy(seed, noise, (3, 60, 200) if stack else SHAPE, "adu")
    r = residual(frame, like(frame, truth, std=np.zeros(truth.shape)))
    assert r.chi2_expected == 1
    assert abs(r.chi2 - 1) < 5 * r.chi2_error
    assert abs(r.lag1_y) < 5 / np.sqrt(r.n)
    assert abs(r.lag1_x) < 5 / np.sqrt(r.n)
    assert abs(r.bias) < 5 * r.bias_error
    assert r.passed
    assert r.n == truth.size == sum(b.n for b in r.by_signal)
    assert all(abs(b.ratio - 1) < 6 * np.sqrt(3 / b.n) for b in r.by_signal)


def test_a_restorer_that_does_nothing_claims_and_takes_nothing() -> None:
    frame, _ = noisy(1, Noise(1.0, 4.0))
    std = np.sqrt(frame.noise.variance(frame.data))
    r = residual(frame, like(frame, frame.data, std=std))
    assert r.chi2 == 0
    assert r.chi2_expected == pytest.approx(0, abs=1e-6)
    assert (r.ratio, r.lag1, r.passed) == (None, None, True)
    json.dumps(r.to_dict(), allow_nan=False)


@pytest.mark.parametrize("w", [0.1, 0.4])
def test_a_shrinking_restorer_meets_its_expectation(w: float) -> None:
    # truth known to variance t: x_hat = w y + (1 - w) prior with w = t/(t + v), posterior variance std^2 = w v, and
    # E (y - x_hat)^2 / v = (1 - w)^2 (v + t)/v = 1 - w = 1 - std^2/v: DESIGN, point 10
    v, rng = 25.0, np.random.default_rng(2)
    t = v * w / (1 - w)
    truth = 500 + np.sqrt(t) * rng.standard_normal((400, 400))
    frame = Frame(truth + 5 * rng.standard_normal(truth.shape), "YX", "electron", Noise(0.0, v))
    x = w * frame.data + (1 - w) * 500
    r = residual(frame, like(frame, x, std=np.full((1, 1), np.sqrt(w * v))))
    assert r.chi2_expected == pytest.approx(1 - w)
    assert r.ratio == pytest.approx(1, abs=0.02)
    assert r.passed
    assert residual(frame, like(frame, x)).chi2_expected == 1  # no std: the expectation is only a bound


def test_too_much_and_too_little() -> None:
    frame, truth = noisy(3, Noise(1.0, 4.0))
    half = like(frame, (frame.data + truth) / 2)
    assert residual(frame, half).passed  # no std: taking little is no failure
    assert not residual(frame, half.replace(std=np.zeros(SHAPE))).passed
    wrong = residual(frame.replace(noise=Noise(0.5, 2.0)), like(frame, truth))
    assert wrong.ratio == pytest.approx(2, rel=0.05)
    assert not wrong.passed


def test_bias_and_lag_are_found() -> None:
    frame, truth = noisy(4, Noise(1.0, 4.0))
    r = residual(frame, like(frame, truth + 3))
    assert r.bias == pytest.approx(-3, abs=5 * r.bias_error)
    assert sum(b.bias * b.n for b in r.by_signal) / r.n == pytest.approx(r.bias)
    # a residual made of pairs of equal columns has lag-1 1/2 along x, 0 along y
    pairs = np.repeat(np.random.default_rng(5).standard_normal((SHAPE[0], SHAPE[1] // 2)), 2, axis=1)
    flat = Frame(100 + pairs, "YX", "adu", Noise(0.0, 1.0))
    r = residual(flat, like(flat, np.full(SHAPE, 100.0)))
    assert r.lag1_x == pytest.approx(0.5, abs=0.03)
    assert r.lag1_y == pytest.approx(0, abs=0.03)
    assert r.lag1 == pytest.approx((r.lag1_x + r.lag1_y) / 2)


def test_flagged_missing_and_edge_pixels_are_left_out() -> None:
    frame, truth = noisy(6, Noise(1.0, 4.0))
    data, flags = frame.data.copy(), np.zeros(SHAPE, np.uint8)
    data[10:20, 10:20], flags[10:20, 10:20] = 1e6, Flag.SATURATED
    data[50, 50] = np.nan
    restored = like(frame, truth.copy(), flags=np.zeros(SHAPE, np.uint8))
    restored.data[90, 90], restored.flags[90, 90] = -1e6, Flag.NO_DATA
    data[0], data[:, -1] = 1e5, 1e5
    r = residual(frame.replace(data=data, flags=flags), restored, edge=2)
    assert r.excluded == truth.size - (SHAPE[0] - 4) * (SHAPE[1] - 4) + 102
    assert r.chi2 == pytest.approx(1, abs=0.05)


def test_unmodelled_noise_gives_no_chi_square_but_the_rest() -> None:
    frame, truth = noisy(7, Noise(1.0, 4.0))
    r = residual(frame.replace(noise=Unmodelled("drizzled")), like(frame, truth - 1))
    assert (r.chi2, r.chi2_expected, r.passed, r.reason) == (None, None, None, "drizzled")
    assert r.bias == pytest.approx(1, abs=5 * r.bias_error)
    assert abs(r.lag1) < 0.05


def test_pixels_without_variance_are_counted_not_divided_by() -> None:
    frame = Frame(np.array([[0.0, 1, 2], [3, 4, 5]]), "YX", "electron", Noise(1.0, 0.0))
    r = residual(frame, like(frame, np.array([[0.0, 1, 2], [3, 4, 4]])))
    assert (r.n, r.excluded) == (5, 1)


def test_large_frames_are_sampled_and_agree() -> None:
    frame, truth = noisy(8, Noise(1.0, 4.0), (3, 700, 900))
    whole, part = (residual(frame, like(frame, truth), pixels=p) for p in (1 << 22, 1 << 20))
    assert part.n < whole.n
    assert part.chi2 == pytest.approx(whole.chi2, abs=5 * part.chi2_error)


def test_maps_and_mosaic_cells_follow_their_blocks() -> None:
    rng = np.random.default_rng(9)
    a = np.where(np.arange(1200)[:, None] < 600, 1.0, 4.0) * np.ones((1, 1500))
    cell = np.array([[1.0, 2.0], [3.0, 9.0]])
    truth = np.full(a.shape, 200.0)
    for noise in (Noise(a, 1.0), Noise(cell, 1.0)):
        frame = Frame(noise.sample(truth, rng), "YX", "adu", noise, geometry=Mosaic(BAYER))
        r = residual(frame, like(frame, truth), pixels=1 << 20)
        assert r.chi2 == pytest.approx(1, abs=0.01)


def test_flat_levels_are_one_bin() -> None:
    rng = np.random.default_rng(10)
    truth = np.where(np.arange(400) < 200, 50.0, 500.0) * np.ones((300, 1))
    frame = Frame(Noise(1.0, 4.0).sample(truth, rng), "YX", "electron", Noise(1.0, 4.0))
    r = residual(frame, like(frame, truth + 0.3 * rng.standard_normal(truth.shape)))
    assert len(r.by_signal) == 2


def test_refusals() -> None:
    frame, truth = noisy(11, Noise(1.0, 4.0))
    with pytest.raises(FrameError, match="shape"):
        residual(frame, like(frame, truth).replace(data=truth[:-1]))
    with pytest.raises(FrameError, match="convert one"):
        residual(frame, like(frame, truth).replace(unit="adu"))
    with pytest.raises(FrameError, match="expected at least 2"):
        residual(frame.replace(flags=np.ones(SHAPE, np.uint8)), like(frame, truth))
    with pytest.raises(FrameError, match="bins 0"):
        residual(frame, like(frame, truth), bins=0)


def test_decam_weights_are_reproduced(data) -> None:
    from astropy.io import fits

    stem = str(data / "astronomy" / "decam" / "c4d_170316_062107_{}_z_ls9.N2.fits")
    image, weight, mask = (fits.getdata(stem.format(k)) for k in ("ooi", "oow", "ood"))
    image = image.astype(np.float64)
    good = (mask == 0) & (weight > 0)
    sky = np.median(image[good])
    variance = np.where(good, 1 / np.where(good, weight, 1), 1.0)
    from scipy.ndimage import median_filter

    smooth = median_filter(np.where(good, image, sky), 41)
    on_sky = good & (image - smooth < 5 * np.sqrt(variance))
    frame = Frame(image, "YX", "adu", Noise(0.0, variance), flags=np.where(on_sky, 0, Flag.NO_DATA).astype(np.uint8))
    r = residual(frame, like(frame, smooth), edge=20)
    pull = ((image - smooth) / np.sqrt(variance))[20:-20, 20:-20][on_sky[20:-20, 20:-20]]
    assert 1.4826 * np.median(np.abs(pull - np.median(pull))) == pytest.approx(1.0, abs=0.05)
    assert r.chi2 == pytest.approx(1, abs=0.1)


def test_names_stay_functions_after_their_modules_are_imported() -> None:
    import firstlight.measure.fidelity
    import firstlight.measure.residual  # noqa: F401

    assert callable(measure.residual)
    assert callable(measure.fidelity)


def test_parts_are_judged_as_the_whole_and_flux_is_balanced() -> None:
    frame, truth = noisy(12, Noise(2.0, 4.0, offset=100.0))
    clean = like(frame, truth)
    whole, parts = residual(frame, clean), [Box((0, 0), (70, 200)), Box((70, 0), SHAPE)]
    assert judged([(frame.crop(b), clean.crop(b)) for b in parts]).chi2 == pytest.approx(whole.chi2)
    assert abs(whole.flux - 1) < 5 * whole.flux_error
    assert whole.flux_error == pytest.approx(np.sqrt(np.sum(2 * (truth - 100) + 4)) / np.sum(frame.data - 100), rel=1e-3)
    assert not whole.problems
    assert whole.line().startswith("good: chi-square 0.994 of its expectation (0.978 to")
    dimmer = residual(frame, like(frame, 100 + 0.95 * (truth - 100)))
    assert dimmer.flux == pytest.approx(0.95, abs=0.005)
    assert any(p.startswith("flux 0.9") for p in dimmer.problems)
    dark = Noise(1.0, 4.0, offset=100.0)
    blank = Frame(dark.sample(np.full(SHAPE, 100.0), np.random.default_rng(1)), "YX", "electron", dark)
    assert residual(blank, like(blank, np.full(SHAPE, 100.0))).flux is None
    with pytest.raises(FrameError, match="no part"):
        judged([])


def test_a_bin_that_is_wrong_or_structure_that_is_left_fails_alone() -> None:
    frame, truth = noisy(13, Noise(1.0, 4.0), (400, 500))
    bad = np.where(np.abs(truth - 200) < 20, truth + 12, truth)
    assert any("at signal" in p for p in residual(frame, like(frame, bad)).problems)
    columns = 12 * np.repeat(np.random.default_rng(5).standard_normal((400, 250)), 2, axis=1)
    assert any("neighbouring" in p for p in residual(frame, like(frame, truth + columns)).problems)
