"""Neighbours taken off: what is fitted, what is found beside a bright star, what an isolated star's significance stays."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import Flag, Frame, Noise, Unit, simulate
from firstlight.measure import detect, match
from firstlight.measure.blends import Stars, light
from firstlight.noise import Unmodelled

NOISE, FWHM = Noise(1.0, 25.0), 2.5


def frame(stars: list[simulate.Star], seed: int | None = 0, side: int = 128) -> Frame:
    mean = 40 + simulate.render((side, side), stars, fwhm=FWHM)
    return Frame(mean if seed is None else NOISE.sample(mean, np.random.default_rng(seed)), "YX", Unit.ELECTRON, NOISE)


def test_the_light_of_stars_is_the_simulators_at_the_border_too() -> None:
    stars = [simulate.Star(20.3, 31.8, 500.0), simulate.Star(0.2, 39.6, 900.0), simulate.Star(22.0, 30.0, 100.0)]
    got = light(Stars(*np.array(stars).T), (40, 40), FWHM)
    np.testing.assert_allclose(got, simulate.render((40, 40), stars, fwhm=FWHM), atol=900 * 2e-5)


def test_a_star_in_anothers_wing_is_found_with_the_significance_that_it_has_alone() -> None:
    bright, faint = simulate.Star(60.2, 60.4, 30000.0), simulate.Star(64.4, 61.0, 900.0)
    assert len(detect(frame([bright, faint], None), threshold=5.0, fwhm=FWHM).y) == 1
    found = detect(frame([bright, faint], None), threshold=5.0, fwhm=FWHM, way="stars")
    assert len(found.y) == 2
    assert [found.y[1], found.x[1]] == pytest.approx([64.4, 61.0], abs=0.1)
    k, other = (simulate.render((128, 128), [s], fwhm=FWHM) for s in (faint._replace(flux=1.0), bright))
    assert found.significance[1] == pytest.approx(np.sqrt((900**2 * k * k / NOISE.variance(40 + other)).sum()), rel=0.1)


def test_noise_alone_and_one_star_give_no_more_than_the_filter_does() -> None:
    assert not len(detect(frame([], 1), threshold=5.0, fwhm=FWHM, way="stars").y)
    for seed in range(3):
        assert len(detect(frame([simulate.Star(64.3, 63.8, 20000.0)], seed), threshold=5.0, fwhm=FWHM, way="stars").y) == 1


def test_in_a_crowded_field_more_stars_are_found_and_no_more_false_ones() -> None:
    truth, stars = simulate.star_field((200, 200), np.random.default_rng(3), n=230, faintest=150, fwhm=FWHM)
    known = np.array(stars)
    y = Frame(NOISE.sample(truth, np.random.default_rng(4)), "YX", Unit.ELECTRON, NOISE)
    clean = Frame(truth, "YX", Unit.ELECTRON, Unmodelled("restored"))
    counts = []
    for options in ({"way": "filter"}, {"way": "stars"}, {"way": "stars", "restored": clean}):
        found = detect(y, threshold=5.0, fwhm=FWHM, **options)
        places = np.stack([found.y, found.x], 1)
        counts.append(len(match(places, known[:, :2], radius=2.0)[0]))
        assert len(places) - counts[-1] <= 3
    assert counts[1] > counts[0] + 10
    assert counts[2] >= counts[1] - 1


def test_no_star_is_made_of_a_saturated_ones_wings() -> None:
    flat = np.minimum(np.asarray(frame([simulate.Star(60.2, 60.4, 3e5)], 5).data), 3000.0)
    flags = np.where(flat >= 3000, int(Flag.SATURATED), 0).astype(np.uint8)
    broad = Frame(flat, "YX", Unit.ELECTRON, NOISE, flags=flags)
    assert len(detect(broad, threshold=8.0, fwhm=FWHM, way="stars").y) <= len(detect(broad, threshold=8.0, fwhm=FWHM).y)
