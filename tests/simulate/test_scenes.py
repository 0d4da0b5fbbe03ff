import numpy as np
import pytest

from firstlight import simulate
from firstlight.errors import FrameError


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_linearise_against_the_standard() -> None:
    assert simulate.linearise(np.array([0, 255], np.uint8)) == pytest.approx([0, 1])
    assert simulate.linearise(np.array([0.5])) == pytest.approx([0.21404114])


def test_stars_have_their_flux_and_place() -> None:
    image, stars = simulate.star_field((101, 101), rng(), n=1, sky=10.0, faintest=1000, brightest=1001)
    inside = image - 10
    assert inside.sum() == pytest.approx(stars[0].flux, rel=1e-3) or min(stars[0].y, stars[0].x) < 8
    y, x = np.mgrid[:101, :101]
    if 15 < stars[0].y < 85 and 15 < stars[0].x < 85:
        assert (inside * y).sum() / inside.sum() == pytest.approx(stars[0].y, abs=1e-3)
        assert (inside * x).sum() / inside.sum() == pytest.approx(stars[0].x, abs=1e-3)


def test_scenes_peak_where_stated_and_repeat_with_the_seed() -> None:
    for scene, peak in (
        (simulate.filaments, 50.0),
        (simulate.spots, 20.0),
        (simulate.membranes, 30.0),
        (simulate.nuclei, 40.0),
    ):
        a = scene((96, 96), rng(3), peak=peak)
        assert a.max() == pytest.approx(peak, rel=0.1)
        assert a.min() > 0
        assert np.array_equal(a, scene((96, 96), rng(3), peak=peak))
    chart = simulate.chart((60, 80), rng())
    assert chart.shape == (60, 80, 3)
    assert 0 < chart.min() < chart.max() <= 1


def test_projections_are_those_of_the_slice() -> None:
    """The analytic projections against scikit-image's Radon transform of the slice: an independent oracle."""
    from skimage.transform import radon

    angles = np.linspace(0, np.pi, 8, endpoint=False)
    lines, slice_ = simulate.phantom_projections(angles, 1, 129)
    other = radon(slice_[::-1], np.degrees(angles), circle=True).T  # its rows run upwards, ours downwards
    assert np.abs(lines[:, 0] - other).mean() < 0.01 * lines.max()
    assert lines.sum(axis=2)[:, 0] == pytest.approx(slice_.sum(), rel=0.01)


def test_sensor_follows_its_own_noise_law() -> None:
    sensor = simulate.make_sensor((64, 64), rng(), gain=2.0, read_noise=3.0, dark=0.5, hot=0.01, vignetting=0.3, prnu=0.02)
    scene = np.full((64, 64), 200.0)
    shots = np.stack([sensor.expose(scene, rng(i), exposure=10) for i in range(400)]).astype(float)
    mean = sensor.mean(scene, 10)
    var = sensor.detector.noise().variance(mean)
    assert abs((shots.mean(0) - mean) / np.sqrt(var / 400)).max() < 5.5
    assert (shots.var(0, ddof=1) / var).mean() == pytest.approx(1.0, abs=0.01)
    assert 10 < (sensor.dark > 1).sum() < 90


def test_sensor_saturates_and_clips() -> None:
    sensor = simulate.make_sensor((8, 8), rng(), bits=8, offset=20)
    assert (sensor.expose(np.full((8, 8), 1e6), rng()) == 255).all()
    assert sensor.bias(rng()).dtype == np.uint16


def test_the_law_of_a_sensor_holds_its_quantisation() -> None:
    sensor = simulate.make_sensor((200, 200), rng(), gain=6.0, read_noise=4.0, prnu=0.0, dark=0.0)
    dark = sensor.expose(np.zeros((200, 200)), rng()).astype(float)
    assert dark.var() == pytest.approx(
        float(sensor.detector.noise().variance(np.array(200.0))), rel=4.5 * np.sqrt(2 / dark.size) + 0.01
    )


@pytest.mark.parametrize("bits", [0, 17])
def test_a_saturation_that_uint16_would_wrap_is_refused(bits: int) -> None:
    with pytest.raises(FrameError, match="expected 1 to 65535"):
        simulate.make_sensor((8, 8), rng(), bits=bits)


def test_cosmic_rays_are_sharp_and_few() -> None:
    hits = simulate.cosmic_rays((128, 128), rng(), n=20, energy=1000)
    assert 20 <= (hits > 0).sum() < 20 * 20
    assert 20 * 300 < hits.sum() < 20 * 3000


def test_read_out_has_the_mean_and_the_variance_it_states() -> None:
    scene = np.full((400, 500), 12.0)
    for options in ({}, {"tails": 0.1}, {"rows": 0.04}, {"step": 1.5}, {"tails": 0.05, "rows": 0.02, "step": 0.5}):
        counts = simulate.read_out(scene, rng(5), read_noise=3.0, **options)
        expected = 12 + 9 + options.get("step", 0) ** 2 / 12
        assert counts.mean() == pytest.approx(12, abs=5 * 3 * np.sqrt(0.04 / 400 + 1 / counts.size))
        assert counts.var() == pytest.approx(expected, rel=0.02)


def test_read_out_has_the_flaws_it_is_asked_for() -> None:
    dark = np.zeros((400, 500))
    kurtosis = [np.mean((c := simulate.read_out(dark, rng(2), read_noise=2.0, tails=t)) ** 4) / c.var() ** 2 for t in (0, 0.1)]
    assert kurtosis[0] == pytest.approx(3, abs=0.1)
    assert kurtosis[1] > 4
    rows = simulate.read_out(dark, rng(3), read_noise=2.0, rows=0.3).mean(axis=1)
    assert rows.var() == pytest.approx(0.3 * 4, rel=0.3)
    coarse = simulate.read_out(np.full((50, 50), 30.0), rng(4), read_noise=2.0, step=2.5, full_well=35.0)
    assert coarse.max() == 35
    assert np.allclose(coarse % 2.5, 0)
