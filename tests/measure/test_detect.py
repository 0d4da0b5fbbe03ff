"""The matched filter: its significance against the noise's own statistics, places and widths against the scene."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import Flag, Frame, Noise, Unit, simulate
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, Mosaic
from firstlight.measure import detect, match, star_width
from firstlight.measure.detect import significance
from firstlight.noise import Unmodelled

NOISE = Noise(1.0, 25.0)


def scene(stars: list[simulate.Star], fwhm: float = 2.5, sky: float = 40.0, side: int = 128) -> np.ndarray:
    return sky + simulate.render((side, side), stars, fwhm=fwhm)


def frame(mean: np.ndarray, seed: int | None = 0, **parts) -> Frame:
    data = mean if seed is None else NOISE.sample(mean, np.random.default_rng(seed))
    return Frame(data, "YX", Unit.ELECTRON, NOISE, **parts)


def test_significance_of_noise_has_unit_variance_and_of_a_star_its_flux_over_the_standard_error() -> None:
    """The best linear estimate: flux / sqrt(v / sum(k^2)) for white noise of variance v."""
    rng = np.random.default_rng(1)
    v, good = np.full((200, 200), 9.0), np.ones((200, 200), bool)
    s = significance(rng.normal(0, 3, v.shape), v, good, 2.5)[20:-20, 20:-20]
    assert s.std() == pytest.approx(1, abs=0.04)
    k = simulate.render((200, 200), [simulate.Star(100, 100, 1.0)], fwhm=2.5)
    s = significance(500 * k, v, good, 2.5)
    assert np.unravel_index(s.argmax(), s.shape) == (100, 100)
    assert s.max() == pytest.approx(500 * np.sqrt((k * k).sum()) / 3, rel=1e-3)


def test_lost_pixels_weigh_nothing() -> None:
    k = 500 * simulate.render((60, 60), [simulate.Star(30, 30, 1.0)], fwhm=3)
    good = np.ones(k.shape, bool)
    good[30, 31] = False
    broken = k.copy()
    broken[30, 31] = 1e7
    v = np.full(k.shape, 4.0)
    s = significance(broken, v, good, 3)
    assert s[30, 30] == pytest.approx(np.sqrt((k * k / 4)[good].sum()), rel=1e-3)
    assert s[30, 30] < significance(k, v, np.ones(k.shape, bool), 3)[30, 30]


def test_white_noise_alone_crosses_five_sigma_hardly_ever() -> None:
    count = sum(len(detect(frame(np.full((256, 256), 40.0), i), threshold=5.0, fwhm=2.5).y) for i in range(4))
    assert count <= 1  # 4 fields of some 10^4 independent places: 0.01 expected of a Gaussian, more of a Poisson's tail


def test_every_bright_star_is_found_once_at_its_place() -> None:
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(np.arange(14, 120, 16), np.arange(14, 120, 16), indexing="ij"), -1).reshape(-1, 2)
    places = grid + rng.uniform(-0.5, 0.5, grid.shape)
    truth = scene([simulate.Star(y, x, 5000.0) for y, x in places])
    for image, tolerance in ((frame(truth, None), 0.02), (frame(truth, 3), 0.15)):
        found = detect(image, threshold=8.0, fwhm=2.5)
        i, j = match(np.stack([found.y, found.x], 1), places, radius=1.0)
        assert len(found.y) == len(i) == len(places)
        assert np.abs(np.stack([found.y[i], found.x[i]], 1) - places[j]).max() < tolerance
        assert np.all(np.diff(found.significance) <= 0)


def test_detection_looks_at_the_restored_image_in_units_of_the_calibrated_ones_noise() -> None:
    y = frame(np.full((128, 128), 40.0), 4)
    hidden = frame(scene([simulate.Star(60.3, 70.2, 400.0)]), None).replace(noise=Unmodelled("restored"))
    found = detect(y, restored=hidden, threshold=4.0, fwhm=2.5, way="restored")
    k = simulate.render((128, 128), [simulate.Star(60.3, 70.2, 1.0)], fwhm=2.5)
    assert [found.y[0], found.x[0]] == pytest.approx([60.3, 70.2], abs=0.03)
    v = NOISE.variance(scene([simulate.Star(60.3, 70.2, 400.0)]))
    assert found.significance[0] == pytest.approx(np.sqrt((400 * k * 400 * k / v).sum()), rel=0.06)
    assert len(found.y) == 1
    assert not len(detect(y, threshold=6.0, fwhm=2.5).y)


@pytest.mark.parametrize("fwhm", [2.0, 2.5, 4.0])
def test_the_width_is_the_scenes(fwhm: float) -> None:
    rng = np.random.default_rng(5)
    truth, _ = simulate.star_field((300, 300), rng, n=60, fwhm=fwhm, faintest=2000)
    assert star_width(frame(truth, 6)) == pytest.approx(fwhm, rel=0.02)


def test_what_cannot_be_searched_is_refused() -> None:
    flat = frame(np.full((64, 64), 40.0))
    with pytest.raises(FrameError, match="0 bright lone stars"):
        star_width(flat)
    for bad, reason in (
        (flat.replace(noise=Unmodelled("drizzled")), "drizzled"),
        (flat.replace(geometry=Mosaic(BAYER)), "colour mosaic"),
        (flat.replace(data=flat.data[None], axes="TYX"), "one .Y, X. plane"),
        (flat.replace(unit=Unit.DISPLAY), "display"),
        (flat.replace(flags=np.full((64, 64), int(Flag.NO_DATA), np.uint8)), "expected a tenth"),
    ):
        with pytest.raises(FrameError, match=reason):
            detect(bad, fwhm=2.5)
    with pytest.raises(FrameError, match="restored has shape"):
        detect(flat, restored=frame(np.ones((60, 64))), fwhm=2.5)
    with pytest.raises(FrameError, match="way 'guess', expected one of filter, stars"):
        detect(flat, fwhm=2.5, way="guess")
    for options in ({"threshold": 0.0, "fwhm": 2.5}, {"fwhm": 0.0}, {"fwhm": np.nan}):
        with pytest.raises(FrameError, match="expected a positive number"):
            detect(flat, **options)
