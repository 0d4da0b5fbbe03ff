"""Injection: flux kept, shapes against astropy, and the noise of a frame that had been exposed with the stars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.modeling.models import Sersic2D

from firstlight import Flag, Frame, Noise, Unit, simulate
from firstlight.errors import FrameError
from firstlight.noise import Unmodelled
from firstlight.simulate import Galaxy, Star, inject, render


@pytest.mark.parametrize(
    "thing",
    [Star(40.3, 45.7, 1234.0), Galaxy(40.3, 45.7, 1234.0, 3.0), Galaxy(40.3, 45.7, 1234.0, 2.0, 4.0, 0.5, 0.7)],
    ids=["star", "disc", "bulge"],
)
def test_flux_and_centroid_are_kept(thing: Star | Galaxy) -> None:
    kernel = render((21, 21), [Star(10, 10, 1.0)], fwhm=2.5)
    for options in ({"fwhm": 2.5}, {"psf": kernel}):
        image = render((90, 90), [thing], **options)
        y, x = np.mgrid[:90, :90]
        assert image.sum() == pytest.approx(1234.0, rel=1e-6)
        assert (image * y).sum() / image.sum() == pytest.approx(40.3, abs=0.02)
        assert (image * x).sum() / image.sum() == pytest.approx(45.7, abs=0.02)


def test_a_star_is_the_scenes_star() -> None:
    """The same light as `star_field` draws, placed by it."""
    field, stars = simulate.star_field((100, 100), np.random.default_rng(3), n=20, sky=0.0)
    np.testing.assert_allclose(render((100, 100), stars, fwhm=2.5), field, rtol=2e-4, atol=1e-3)


def test_a_star_by_its_image_is_the_star_by_its_width() -> None:
    psf = render((25, 25), [Star(12, 12, 1.0)], fwhm=4.0)
    got, want = (render((60, 60), [Star(30.4, 29.3, 100.0)], **o) for o in ({"psf": 7 * psf}, {"fwhm": 4.0}))
    np.testing.assert_allclose(got, want, atol=0.02)


def test_a_galaxy_is_astropys_sersic_profile() -> None:
    """Far from the centre, where pixels and a narrow PSF average over nothing steep."""
    model = Sersic2D(1.0, r_eff=6.0, n=1.5, x_0=60.2, y_0=59.7, ellip=0.4, theta=0.5)
    y, x = np.mgrid[:121, :121]
    got = render((121, 121), [Galaxy(59.7, 60.2, 1000.0, 6.0, 1.5, 0.6, 0.5)], fwhm=0.5)
    ring = (np.hypot(y - 59.7, x - 60.2) > 5) & (np.hypot(y - 59.7, x - 60.2) < 18)
    ratio = (got / model(x, y))[ring]
    assert ratio.std() / ratio.mean() < 0.01


def test_half_the_light_lies_inside_the_effective_radius() -> None:
    got = render((121, 121), [Galaxy(60, 60, 1.0, 8.0, 1.0)], fwhm=0.5)
    y, x = np.mgrid[:121, :121]
    assert got[np.hypot(y - 60, x - 60) <= 8].sum() == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize(
    "noise", [Noise(1.0, 9.0), Noise(0.5, 4.0, 100.0), Noise(1.0, 9.0, 0.0, 1e-2)], ids=["e-", "adu", "shared flat"]
)
def test_mean_and_variance_are_those_of_one_exposure_of_both(noise: Noise) -> None:
    rng = np.random.default_rng(4)
    sky = np.full((24, 24), 30.0) + float(noise.offset)
    star = [Star(12.2, 11.8, 3000.0)]
    light = render((24, 24), star, fwhm=3.0)
    frame = Frame(sky, "YX", Unit.ADU, noise)
    n = 3000
    drawn = [inject(frame.replace(data=noise.sample(sky, rng)), star, rng=rng, fwhm=3.0).data for _ in range(n)]
    mean, var = np.mean(drawn, axis=0), np.var(drawn, axis=0)
    want = noise.variance(sky + light)
    assert np.abs((mean - sky - light) / np.sqrt(want / n)).max() < 4.5
    assert np.abs(var / want - 1).max() < 5 * np.sqrt(2 / n)


def test_counts_stay_whole_and_end_at_saturation() -> None:
    frame = Frame(np.full((40, 40), 100, np.uint16), "YX", Unit.ADU, Noise(1.0, 4.0, 90.0))
    frame = frame.replace(observation=replace(frame.observation, saturation=4095.0))
    before = frame.data.copy()
    got = inject(frame, [Star(20, 20, 1e6)], rng=np.random.default_rng(5), fwhm=3.0)
    assert got.data.dtype == np.uint16
    assert got.data.max() == 4095
    assert np.array_equal(got.flags == int(Flag.SATURATED), got.data == 4095)
    assert np.array_equal(frame.data, before)
    assert frame.flags is None
    assert got.history[-1].step == "simulate.inject"
    bare = frame.replace(observation=replace(frame.observation, saturation=None))
    with pytest.raises(FrameError, match="does not fit uint16"):
        inject(bare, [Star(20, 20, 1e7)], rng=np.random.default_rng(5), fwhm=3.0)


def test_light_outside_is_lost_and_nothing_is_nothing() -> None:
    assert render((30, 30), [Star(-0.5, 15, 100.0)], fwhm=3.0).sum() == pytest.approx(50, abs=0.5)
    assert render((30, 30), [Star(-90, 15, 100.0)], fwhm=3.0).sum() == 0
    assert not render((30, 30), [], fwhm=3.0).any()


def test_what_cannot_be_drawn_is_refused() -> None:
    frame, rng = Frame(np.ones((30, 30)), "YX", Unit.ELECTRON, Noise(1.0, 1.0)), np.random.default_rng(0)
    for bad, reason in (
        ({"things": [Star(5, 5, 1.0)]}, "one of fwhm"),
        ({"things": [Star(5, 5, 1.0)], "psf": np.ones((4, 4))}, "odd sides"),
        ({"things": [Star(5, 5, -1.0)], "fwhm": 2.0}, "flux of 0 or more"),
        ({"things": [Galaxy(5, 5, 1.0, 0.0)], "fwhm": 2.0}, "expected radius > 0"),
    ):
        with pytest.raises(FrameError, match=reason):
            inject(frame, rng=rng, **bad)
    with pytest.raises(FrameError, match="resampled"):
        inject(frame.replace(noise=Unmodelled("resampled")), [Star(5, 5, 1.0)], rng=rng, fwhm=2.0)
