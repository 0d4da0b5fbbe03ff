"""Aperture sums: photutils and the scene on noise-free images, Monte Carlo for the error bars."""

from __future__ import annotations

import numpy as np
import pytest
from photutils.aperture import CircularAperture, aperture_photometry

from firstlight import Flag, Frame, Noise, Unit, simulate
from firstlight.errors import FrameError
from firstlight.measure import aperture_flux
from firstlight.noise import Unmodelled
from firstlight.restore import nonlocal_means

NOISE = Noise(1.0, 25.0)
PLACES = np.array([[24.3, 22.8], [70.0, 25.5], [30.1, 75.4], [77.7, 80.2]])
LIGHT = np.array([300.0, 1000.0, 5000.0, 40000.0])


def share(fwhm: float) -> float:
    """Of a Gaussian inside 1.6 FWHM; pixels widen it twice, 1/12 px^2 as the scene's and 1/12 px^2 as the aperture's."""
    return float(1 - np.exp(-((1.6 * fwhm) ** 2) / (2 * (fwhm**2 / (8 * np.log(2)) + 1 / 6))))


SHARE = share(2.5)


def scene(sky: float = 40.0, fwhm: float = 2.5, side: int = 104) -> np.ndarray:
    return sky + simulate.render(
        (side, side), [simulate.Star(y, x, f) for (y, x), f in zip(PLACES, LIGHT, strict=True)], fwhm=fwhm
    )


def exact(mean: np.ndarray, noise: Noise = NOISE, **parts) -> Frame:
    return Frame(mean, "YX", Unit.ELECTRON, noise, **parts)


def test_sums_are_photutils_and_fluxes_the_stars() -> None:
    got = aperture_flux(exact(scene(sky=0.0)), *PLACES.T, fwhm=2.5)
    want = aperture_photometry(scene(sky=0.0), CircularAperture(PLACES[:, ::-1], 4.0), method="exact")["aperture_sum"]
    np.testing.assert_allclose(got.flux, want, rtol=1e-4)
    np.testing.assert_allclose(got.flux, LIGHT * SHARE, rtol=1e-3)
    np.testing.assert_allclose(got.area, np.pi * 16, rtol=1e-6)
    assert not got.flags.any()


@pytest.mark.parametrize("level", [0.0, 40.0, -3.0])
def test_the_sky_is_taken_off_whatever_its_level(level: float) -> None:
    got = aperture_flux(exact(scene(level)), *PLACES.T, fwhm=2.5)
    np.testing.assert_allclose(got.flux, LIGHT * SHARE, rtol=2e-3)
    np.testing.assert_allclose(got.background, level, atol=0.02)


@pytest.mark.parametrize("fwhm", [2.0, 3.7])
def test_the_aperture_follows_the_width(fwhm: float) -> None:
    got = aperture_flux(exact(scene(fwhm=fwhm)), *PLACES.T, fwhm=fwhm)
    np.testing.assert_allclose(got.flux, LIGHT * share(fwhm), rtol=2e-3)


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize(
    "noise", [Noise(1.0, 25.0), Noise(0.4, 9.0, 100.0), Noise(1.0, 25.0, 0.0, 2e-4, 1.0)], ids=["e-", "adu", "flat"]
)
def test_pulls_have_zero_mean_and_unit_variance(noise: Noise, dual: bool) -> None:
    """480 stars of each brightness; the standard error of a standard deviation is then 0.032, of a mean 0.046."""
    mean = scene() + float(noise.offset)
    pulls = []
    for seed in range(120):
        frame = exact(noise.sample(mean, np.random.default_rng(seed)), noise)
        clean = exact(mean).replace(noise=Unmodelled("the truth")) if dual else None
        got = aperture_flux(frame, *PLACES.T, restored=clean, fwhm=2.5)
        pulls.append((got.flux - LIGHT * SHARE) / got.flux_std)
    assert np.std(pulls) == pytest.approx(1, abs=0.08)
    assert abs(np.mean(pulls)) < 0.15
    assert np.std(pulls, axis=0) == pytest.approx(np.ones(4), abs=0.22)


def test_the_error_bar_is_that_of_weighted_pixels_and_of_the_sky_taken_off() -> None:
    """Flat sky of variance v: sum(w^2) v + area^2 v / n, w photutils' exact overlap, n the pixels of the annulus."""
    got = aperture_flux(exact(np.full((81, 81), 40.0)), [40.3], [39.6], fwhm=2.5)
    w = CircularAperture((39.6, 40.3), 4.0).to_mask(method="exact").data
    y, x = np.mgrid[:81, :81]
    n = np.count_nonzero(np.abs(np.hypot(y - 40.3, x - 39.6) - 10) <= 2.5)
    assert got.flux_std[0] ** 2 == pytest.approx(65 * ((w * w).sum() + w.sum() ** 2 / n), rel=2e-3)
    assert got.background_std[0] ** 2 == pytest.approx(65 / n, rel=2e-3)


def test_restoration_does_not_touch_the_flux_of_what_it_shrinks() -> None:
    """100 exposures of a 300 e- star: the restored image loses light, the dual-image flux does not."""
    mean, dual, alone = scene(), [], []
    for seed in range(100):
        frame = exact(Noise(1.0, 25.0).sample(mean, np.random.default_rng(seed)).astype(np.float32))
        restored = nonlocal_means(frame, std=False)
        dual.append(aperture_flux(frame, *PLACES.T, restored=restored, fwhm=2.5).flux)
        alone.append(aperture_flux(restored.replace(noise=frame.noise), *PLACES.T, fwhm=2.5).flux)
    assert np.mean(dual, axis=0)[0] == pytest.approx(LIGHT[0], abs=4 * 60 / 10)
    assert np.mean(alone, axis=0)[0] < 0.85 * LIGHT[0]


def test_lost_pixels_come_from_the_restored_image_and_say_so() -> None:
    mean = scene()
    hit, flags = mean.copy(), np.zeros(mean.shape, np.uint8)
    hit[24, 23], flags[24, 23] = 50000.0, int(Flag.COSMIC_RAY)
    hit[70, 26] = np.nan
    flags[77, 80] = int(Flag.SATURATED)
    got = aperture_flux(exact(hit, flags=flags), *PLACES.T, restored=exact(mean), fwhm=2.5)
    np.testing.assert_allclose(got.flux, LIGHT * SHARE, rtol=2e-3)
    assert got.flags.tolist() == [int(Flag.COSMIC_RAY), int(Flag.NO_DATA), 0, int(Flag.SATURATED)]


def test_edges_and_places_outside_are_told() -> None:
    got = aperture_flux(exact(scene()), [1.0, 50.0, -40.0], [50.0, 50.0, 50.0], fwhm=2.5)
    assert got.flags.tolist() == [int(Flag.EDGE), 0, int(Flag.EDGE)]
    assert got.area[0] < got.area[1]
    assert np.isnan(got.flux).tolist() == [False, False, True]
    assert got.area[2] == 0


def test_a_neighbour_in_the_annulus_is_left_out_of_the_sky() -> None:
    stars = [simulate.Star(50, 50, 1000.0), simulate.Star(50, 60, 3000.0)]
    mean = 40 + simulate.render((104, 104), stars, fwhm=2.5)
    known = aperture_flux(exact(mean), [50], [50], fwhm=2.5, others=[[50, 50], [50, 60]])
    assert known.background[0] == pytest.approx(40, abs=0.02)
    assert known.flux[0] == pytest.approx(1000 * SHARE, rel=2e-3)


def test_no_places_and_impossible_radii() -> None:
    assert len(aperture_flux(exact(scene()), [], [], fwhm=2.5).flux) == 0
    with pytest.raises(FrameError, match="expected 0 < radius <= inner < outer"):
        aperture_flux(exact(scene()), [50], [50], fwhm=2.5, radius=4.0)
