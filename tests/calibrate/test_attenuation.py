"""Optical depth: the logarithm to float32's last digits, its noise by Monte Carlo, floors, gaps, sections, refusals."""

import numpy as np
import pytest

from firstlight import calibrate
from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise, Unmodelled

SEED = 20261121
UNKNOWN = Unmodelled("no gain")


def frame(data, noise=UNKNOWN, **more) -> Frame:
    data = np.asarray(data)
    geometry = Scan(np.linspace(0, 3, data.shape[0])) if data.ndim == 3 else None
    return Frame(data, "AYX"[3 - data.ndim :], Unit.TRANSMISSION, noise, geometry=geometry, **more)


def test_the_logarithm_is_exact_to_float32():
    rng = np.random.default_rng(SEED)
    t = np.exp(rng.uniform(np.log(2e-4), np.log(2e4), (4, 5, 3001))).astype(np.float32)
    t[0, 0, :1000] = 1 + np.linspace(-1e-3, 1e-3, 1000)  # where the logarithm vanishes
    t[0, 0, 500] = 1
    truth = -np.log(t.astype(np.float64))
    got = calibrate.attenuation(frame(t)).data
    assert got.dtype == np.float32
    assert np.abs(got - truth).max() < 2 * np.spacing(np.float32(10))
    assert (np.abs(got - truth) <= 2.5 * np.spacing(np.abs(truth).astype(np.float32)) + 1e-12)[0, 0, :1000].all()
    assert got[0, 0, 500] == 0


def test_noise_is_one_over_n_and_one_over_n0():
    """FACTS: var = 1/N + 1/N0, the first of the projection (b), the second of the flat that all angles share (d)."""
    n0, whites, t = 40000.0, 4, np.array([0.9, 0.3, 0.05])[:, None, None] * np.ones((3, 16, 32))
    rng = np.random.default_rng(SEED)
    draws, square, law, alone = 200, 0.0, 0.0, 0.0
    kind = Noise(1.0, 0.0, 0.0)
    for _ in range(draws):
        shot = Frame(rng.poisson(n0 * t).astype(np.float32), "AYX", Unit.ADU, kind, geometry=Scan(np.arange(3.0)))
        white = Frame(rng.poisson(n0, (whites, 16, 32)).astype(np.float32), "TYX", Unit.ADU, kind)
        dark = Frame(np.zeros((1, 16, 32), np.float32), "TYX", Unit.ADU, kind)
        done = calibrate.attenuation(calibrate.transmission(shot, white=white, dark=dark))
        square = square + (done.data + np.log(t)) ** 2 / draws
        law = law + done.noise.variance(done.data) / draws
        alone = alone + np.broadcast_to(done.noise.b, t.shape) / draws
    expected = 1 / (n0 * t) + 1 / (n0 * whites)
    for k in range(3):
        assert square[k].mean() == pytest.approx(expected[k].mean(), rel=4.5 * np.sqrt(2 / (draws * 512)))
        assert law[k].mean() == pytest.approx(expected[k].mean(), rel=0.005)
        assert alone[k].mean() == pytest.approx(1 / (n0 * t[k]).mean(), rel=0.005)
    shared = done.noise.averaged(10**9).variance(done.data)
    np.testing.assert_allclose(shared, 1 / (n0 * whites), rtol=0.02)


def test_noise_of_maps_and_of_the_dark():
    a = np.linspace(1e-4, 2e-4, 12).reshape(3, 4)
    noise = Noise(a, 1e-6, 0.0, 2e-5, 3e-6)
    t = np.full((2, 3, 4), 0.25, np.float32)
    done = calibrate.attenuation(frame(t, noise, std=np.full((3, 4), 0.01)))
    np.testing.assert_allclose(done.noise.b, np.broadcast_to((a * 0.25 + 4e-6) / 0.0625, t.shape), rtol=1e-5)
    assert done.noise.d == 2e-5
    np.testing.assert_allclose(done.noise.variance(done.data), noise.variance(t) / 0.0625, rtol=1e-5)
    np.testing.assert_allclose(done.std, 0.04, rtol=1e-5)
    assert isinstance(calibrate.attenuation(frame(t, noise), variance=False).noise, Unmodelled)
    assert calibrate.attenuation(frame(t)).noise is UNKNOWN


def test_the_stated_bias():
    counts = np.random.default_rng(SEED).poisson(100, (1, 500, 1000)) / 100
    assert calibrate.attenuation(frame(counts)).data.mean(dtype=float) == pytest.approx(0.005, abs=0.0005)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floors_and_gaps(value):
    t = np.full((2, 3, 8), 0.5, np.float32)
    t[0, 0, 2], t[0, 0, 3], t[0, 0, 4] = 0.0, -0.3, 1e-5
    t[0, 1, 3] = t[0, 1, 4] = value
    t[0, 1, 2], t[0, 1, 5] = 0.2, 0.8
    t[1, 2, 0] = value
    t[1, 1, 3], t[1, 1, 2] = value, -1  # a gap beside a floored pixel
    done = calibrate.attenuation(frame(t, Noise(1e-4, 0.0), flags=np.full((3, 8), int(Flag.HOT), np.uint8)), least=1e-3)
    flags = np.asarray(done.flags) - np.uint8(Flag.HOT)
    floored = np.zeros(t.shape, bool)
    floored[0, 0, 2:5] = floored[1, 1, 2] = True
    lost = ~np.isfinite(t)
    np.testing.assert_array_equal(flags, floored * int(Flag.FLOORED) + lost * int(Flag.NO_DATA))
    np.testing.assert_allclose(done.data[floored], -np.log(1e-3), rtol=1e-6)
    np.testing.assert_allclose(done.data[0, 1, 3:5], -np.log([0.4, 0.6]), rtol=1e-6)
    np.testing.assert_allclose(done.data[1, 2, 0], -np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(done.data[1, 1, 3], -np.log((1e-3 + 0.5) / 2), rtol=1e-6)
    assert np.isfinite(done.noise.variance(done.data)).all()
    np.testing.assert_allclose(np.broadcast_to(done.noise.b, t.shape)[floored], 1e-4 / 1e-3, rtol=1e-5)


def test_sections_equal_the_whole():
    rng = np.random.default_rng(SEED)
    t = rng.uniform(-0.01, 1.1, (5, 12, 33)).astype(np.float32)
    t[2, 3, 4] = np.nan
    scan = frame(t, Noise(rng.uniform(1, 2, (12, 33)), 1e-3, 0.0, 1e-4))
    whole = calibrate.attenuation(scan)
    assert needs_of(calibrate.attenuation).rows(scan, {}) == 0
    for y in (0, 5):
        part = calibrate.attenuation(scan.crop(Box((y, 0), (y + 7, 33))))
        np.testing.assert_array_equal(part.data, whole.data[:, y : y + 7])
        np.testing.assert_array_equal(part.flags, whole.flags[:, y : y + 7])
        np.testing.assert_array_equal(part.noise.b, whole.noise.b[:, y : y + 7])


def test_history_unit_and_the_argument():
    t = frame(np.full((2, 3, 8), 0.5))
    before = np.array(t.data)
    done = calibrate.attenuation(t, least=0.01)
    np.testing.assert_array_equal(t.data, before)
    assert done.unit is Unit.OPTICAL_DEPTH
    assert done.flags is None
    assert done.geometry is t.geometry
    assert (done.history[-1].step, done.history[-1].params) == ("calibrate.attenuation", {"least": 0.01, "variance": True})


def test_refusals():
    t = frame(np.full((2, 3, 8), 0.5))
    with pytest.raises(FrameError, match="expected transmission"):
        calibrate.attenuation(calibrate.attenuation(t))
    for least in (0.0, -1.0, 1.0, np.nan):
        with pytest.raises(FrameError, match="least"):
            calibrate.attenuation(t, least=least)
    with pytest.raises(FrameError, match="has an offset"):
        calibrate.attenuation(t.replace(noise=Noise(1e-4, 0.0, 0.1)))
    data = np.array(t.data)
    data[1, 2] = np.nan
    with pytest.raises(FrameError, match="row 2 of projection 1 holds no finite value"):
        calibrate.attenuation(t.replace(data=data))


@pytest.mark.parametrize("size", [(3, 1, 1), (1, 4, 5), (3, 4, 5)])
def test_noise_that_differs_between_projections(size):
    """As merge_repeated leaves it: each projection by its own law."""
    rng = np.random.default_rng(SEED)
    t, a = rng.uniform(0.2, 1, (3, 4, 5)).astype(np.float32), rng.uniform(1, 2, size).astype(np.float32) * 1e-3
    done = calibrate.attenuation(frame(t, Noise(a, 2e-4, 0.0, 0.0, 1e-4)))
    np.testing.assert_allclose(done.noise.variance(done.data), (a * t + 3e-4) / t**2, rtol=1e-5)
    t[2, 1] = np.nan
    with pytest.raises(FrameError, match="row 1 of projection 2"):
        calibrate.attenuation(frame(t, Noise(a, 2e-4, 0.0)))
