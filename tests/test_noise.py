import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.noise import Detector, Noise, spread

positive = st.floats(0.05, 20)
noises = st.builds(Noise, a=positive, b=positive, offset=st.floats(-50, 500), c=st.floats(0, 0.01), d=st.floats(0, 5))


@given(noises, st.floats(-100, 100), st.floats(0.1, 10), st.floats(0, 2000), st.integers(1, 50))
def test_closed_under_affine_maps(noise: Noise, shift: float, scale: float, s: float, n: int) -> None:
    mean = noise.offset + s
    var = noise.variance(np.array(mean))
    assert noise.shifted(shift).variance(np.array(mean + shift)) == pytest.approx(var, rel=1e-6, abs=1e-9)
    assert noise.scaled(scale).variance(np.array(mean * scale)) == pytest.approx(var * scale**2, rel=1e-6, abs=1e-9)
    shared = noise.c * s * s + noise.d
    assert noise.averaged(n).variance(np.array(mean)) == pytest.approx((var - shared) / n + shared, rel=1e-6, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(noises, st.floats(0, 500), st.integers(0, 2**31))
def test_samples_have_the_stated_mean_and_variance(noise: Noise, s: float, seed: int) -> None:
    mean = noise.offset + s
    y = noise.sample(np.full(40000, mean), np.random.default_rng(seed))
    var = float(noise.variance(np.array(mean)))
    assert abs(y.mean() - mean) < 5 * np.sqrt(var / y.size)
    # Poisson's excess kurtosis widens the spread of a sample variance
    kurtosis = 3 + noise.a**3 * s / var**2
    assert abs(y.var() - var) < 6 * var * np.sqrt((kurtosis - 1) / y.size)


@pytest.mark.parametrize(("x", "g", "s", "z"), [(10, 1, 0, 6.442049), (100, 1, 2, 20.432817), (100, 0.2, 0.712, 45.301152)])
def test_anscombe_oracles(x: float, g: float, s: float, z: float) -> None:
    assert Noise(g, s * s).stabilise(np.array(float(x))) == pytest.approx(z, abs=1e-6)


def expected_z(mean: float, sigma: float) -> float:
    """E[2 sqrt(max(Y + 3/8 + sigma^2, 0))] by brute force: scipy's Poisson weights, dense Gaussian quadrature."""
    reach = 15 * np.sqrt(mean) + 30
    k = np.arange(max(0, int(mean - reach)), int(mean + reach))
    p = stats.poisson.pmf(k, mean)
    t = np.linspace(-9, 9, 20001 if mean < 100 else 1001)  # dense where the root's kink is in reach
    w = stats.norm.pdf(t)
    z = 2 * np.sqrt(np.maximum(k[:, None] + sigma * t[None] + 0.375 + sigma**2, 0))
    return float(p @ (z @ w) / w.sum())


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.6, 5.0])
@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0, 2.0, 10.0, 100.0, 700.0])
@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_inverse_is_unbiased(mean: float, sigma: float, gain: float) -> None:
    noise = Noise(gain, (gain * sigma) ** 2, offset=20.0)
    x = noise.unstabilise(np.array([expected_z(mean, sigma)]))
    assert (x[0] - 20) / gain == pytest.approx(mean, abs=0.003 + 1e-5 * mean)


def test_inverse_with_a_map_agrees_with_the_scalar_one() -> None:
    rng = np.random.default_rng(5)
    sigma = rng.uniform(0.5, 8, (40, 50))
    gain = rng.uniform(0.5, 2, (40, 50))
    mean = rng.uniform(0, 300, (40, 50))
    z = Noise(gain, (sigma * gain) ** 2).stabilise(mean * gain)
    whole = Noise(gain, (sigma * gain) ** 2).unstabilise(z)
    for i in range(0, 40, 7):
        one = Noise(gain[i, i], (sigma[i, i] * gain[i, i]) ** 2).unstabilise(z[i, i])
        assert whole[i, i] == pytest.approx(float(one), abs=0.02 * gain[i, i])


@pytest.mark.parametrize("sigma", [0.3, 1.0, 30.0])
def test_inverse_with_a_map_goes_on_straight_below_zero_like_the_scalar_one(sigma: float) -> None:
    z = 2 * np.sqrt(0.375 + sigma**2) - np.array([0.0, 2.0, 7.9, 8.1, 15.0, 40.0])[:, None]
    near = np.linspace(sigma, 1.001 * sigma, 100)
    whole = Noise(1.0, near**2).unstabilise(np.broadcast_to(z, (6, 100)))
    one = Noise(1.0, sigma**2).unstabilise(z)
    assert whole[:, :1] == pytest.approx(one, rel=0.005, abs=0.03)


def test_inverse_is_continuous_and_monotone_through_the_ends_of_the_table() -> None:
    for sigma in (0.0, 1.6, 30.0):
        z = np.linspace(-3, 250, 20000)
        x = Noise(1.0, sigma**2).unstabilise(z)
        step = np.diff(x)
        assert (step > 0).all()
        assert step.max() < 4 * 250 / 20000 * 130


@pytest.mark.parametrize("c", [1e-6, 1e-4, 1e-2])
def test_flat_noise_is_stabilised_too(c: float) -> None:
    rng = np.random.default_rng(11)
    noise = Noise(1.0, 9.0, c=c)
    for mean in (30.0, 500.0, 20000.0):
        y = noise.sample(np.full(100000, mean), rng)
        z = noise.stabilise(y)
        assert z.std() == pytest.approx(1.0, abs=0.05)
        error = float(np.sqrt(noise.variance(np.array(mean)) / y.size))
        assert float(noise.unstabilise(z.mean())) == pytest.approx(mean, abs=4 * error + 0.002 * error * np.sqrt(y.size))


def test_gaussian_noise_alone_is_scaled() -> None:
    noise = Noise(0.0, 4.0, offset=10.0)
    y = np.array([-3.0, 10.0, 1000.0])
    assert noise.stabilise(y) == pytest.approx((y - 10) / 2, rel=1e-4)
    assert noise.unstabilise(noise.stabilise(y)) == pytest.approx(y, rel=1e-4)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 8), st.integers(0, 8))
def test_cropping_a_cell_commutes_with_spreading_it(h: int, w: int, y: int, x: int) -> None:
    cell = np.arange(6.0).reshape(2, 3)
    shape = (y + h, x + w)
    box = Box((y, x), shape)
    noise = Noise(1.0, cell, offset=cell)
    whole = np.broadcast_to(spread(noise.b, shape), shape)
    part = noise.crop(shape, box)
    assert np.array_equal(np.broadcast_to(spread(part.b, box.shape), box.shape), whole[box.slices])


@pytest.mark.parametrize("k", [np.linspace(0.5, 2, 24).reshape(4, 6), np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones((4, 6)) * 3])
def test_a_cell_and_a_map_scale_and_shift_each_other(k) -> None:
    cell, shape = np.array([[1.0, 2.0], [5.0, 3.0]]), (4, 6)
    full = np.broadcast_to(spread(cell, shape), shape)
    mean = np.full(shape, 90.0)
    for one in (Noise(cell, cell, offset=cell), Noise(full, full, offset=full)):
        over = np.broadcast_to(spread(k, shape), shape)
        expected = (full * (mean - full) + full) * over**2
        assert one.scaled(k).variance(mean * over) == pytest.approx(expected)
        assert one.shifted(k).variance(mean + over) == pytest.approx(expected / over**2)


def test_half_floats_neither_overflow_nor_round() -> None:
    y = np.array([60000, 300, 0.5], dtype=np.float16)
    noise = Noise(2.0, 1.0, offset=0.1, c=0.01)
    assert noise.variance(y) == pytest.approx(noise.variance(y.astype(float)), rel=1e-6)
    assert Noise(2.0, 1.0).stabilise(y) == pytest.approx(Noise(2.0, 1.0).stabilise(y.astype(float)), rel=1e-6)


@pytest.mark.parametrize("call", [Noise.stabilise, Noise.unstabilise])
def test_what_cannot_be_stabilised_is_refused_both_ways(call) -> None:
    for noise, message in (
        (Noise(np.array([1.0, -1.0]), 1.0), "negative gain"),
        (Noise(np.array([1.0, 0.0]), 0.0), "without noise"),
    ):
        with pytest.raises(FrameError, match=message):
            call(noise, np.ones(2))


def test_negative_gain_of_one_pixel_still_has_positive_variance() -> None:
    noise = Noise(np.array([1.0, -2.68]), np.array([2.6, 1696.0]), offset=100.0)
    assert (noise.variance(np.array([[150.0, 50.0]])) > 0).all()
    with pytest.raises(FrameError, match="negative gain"):
        noise.stabilise(np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Noise(1.0, -1.0), "RMS"),
        (lambda: Noise(np.nan, 1.0), "NaN"),
        (lambda: Noise(1.0, np.ones((3, 20))).variance(np.ones((4, 4))), "does not fit"),
        (lambda: Noise(1.0, 1.0).averaged(0), "1 or more"),
        (lambda: Detector(0.0, 1.0), "positive"),
        (lambda: Detector(1.0, -1.0), "RMS"),
        (lambda: Detector.from_dict({"gain": 1, "noise": 2}), "unknown keys"),
        (lambda: Detector.from_dict({"gain": "much", "read_noise": 2}), "gain is 'much', expected a number"),
        (lambda: Detector.from_dict({"gain": 1, "read_noise": [[1], [2, 3]]}), "read_noise is .*, expected a number"),
        (lambda: Detector.from_dict({"gain": 1, "read_noise": 2, "step": "x"}), "step is 'x', expected a number"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        call()


def test_detector_round_trip_and_its_noise() -> None:
    d = Detector(3.57, 10.9, offset=np.array([[1.0, 2.0], [3.0, 4.0]]), saturation=3890, gain_std=0.01, source="flats")
    e = Detector.from_dict(d.to_dict())
    assert e.to_dict() == d.to_dict()
    assert d.noise().a == pytest.approx(1 / 3.57)
    assert np.sqrt(d.noise().b) * 3.57 == pytest.approx(10.9)


def test_a_detector_that_leaves_quantisation_out_gives_it_back() -> None:
    assert Detector(2.0, 3.0, step=4.0).noise().b == pytest.approx(1.5**2 + 16 / 12)
    noise = Detector(2.0, 1.2, offset=50.0, step=1.0).noise()
    analog = Detector(2.0, 1.2, offset=50.0).noise().sample(np.full(200000, 80.0), np.random.default_rng(8))
    assert np.rint(analog).var() == pytest.approx(float(noise.variance(np.array(80.0))), rel=0.015)


def test_read_noise_is_no_offset() -> None:
    """Regression: electrons = ADU * gain - read_noise shifts black; the mean of an unexposed pixel is its offset alone."""
    noise = Detector(5.0, 3.56, offset=100.0).noise()
    dark = noise.sample(np.full(200000, 100.0), np.random.default_rng(2))
    electrons = (dark - 100.0) * 5.0
    assert abs(electrons.mean()) < 5 * 3.56 / np.sqrt(200000)


@pytest.mark.parametrize("sigma", [0.0, 1.6, 12.0])
def test_the_inverse_between_table_entries_is_the_inverse_of_the_expectation(sigma: float) -> None:
    for mean in (0.07, 0.77, 3.33, 41.7, 777.7, 1999.0, 2400.0, 2700.0):
        x = float(Noise(1.0, sigma**2).unstabilise(expected_z(mean, sigma)))
        assert abs(x - mean) < max(0.003, 1e-4 * np.sqrt(mean))
