"""The catalogue: dual-image photometry, sky coordinates, flags, units."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import Flag, Frame, Noise, Unit, simulate
from firstlight.geometry import Sky
from firstlight.measure import match, sources
from firstlight.noise import Unmodelled

NOISE = Noise(1.0, 25.0)
CARDS = (("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 150.0), ("CRVAL2", 0.0), ("CRPIX1", 101.0))
CARDS += (("CRPIX2", 81.0), ("CDELT1", -1e-3), ("CDELT2", 1e-3))


@pytest.fixture(scope="module")
def field() -> tuple[np.ndarray, list[simulate.Star]]:
    return simulate.star_field((200, 220), np.random.default_rng(7), n=40, faintest=1000, fwhm=2.5)


def noisy(truth: np.ndarray, **parts) -> Frame:
    return Frame(NOISE.sample(truth, np.random.default_rng(8)), "YX", Unit.ELECTRON, NOISE, **parts)


def test_dual_image_mode_takes_places_from_one_and_fluxes_from_the_other(field) -> None:
    truth, stars = field
    frame = noisy(truth)
    half = Frame(40 + 0.5 * (truth - 40), "YX", Unit.ELECTRON, Unmodelled("restored"))  # a restorer that loses half the light
    table = sources(frame, restored=half, threshold=5.0, fwhm=2.5)
    known = np.array(stars)
    i, j = match(np.column_stack([table["y"], table["x"]]), known[:, :2], radius=2)
    near = np.hypot(*(known[:, None, :2] - known[None, :, :2]).transpose(2, 0, 1))
    alone = np.partition(near, 1, axis=1)[j, 1] > 15
    inside = alone & (np.asarray(table["flags"])[i] == 0)
    assert inside.sum() > 8
    pull = (np.asarray(table["flux"])[i] - 0.998 * known[j, 2])[inside] / np.asarray(table["flux_std"])[i][inside]
    assert np.abs(pull).max() < 4
    assert np.abs(np.median(pull)) < 1
    assert table.meta["dual"]
    assert table["flux"].unit == "electron"
    assert list(table["id"]) == list(range(1, len(table) + 1))
    np.testing.assert_allclose(table["snr"], table["flux"] / table["flux_std"])


def test_sky_coordinates_are_the_wcss(field) -> None:
    frame = noisy(field[0], geometry=Sky(CARDS))
    table = sources(frame, fwhm=2.5)
    ra, dec = Sky(CARDS).wcs().all_pix2world(np.asarray(table["x"]), np.asarray(table["y"]), 0)
    np.testing.assert_allclose(table["ra"], ra, atol=1e-9)
    np.testing.assert_allclose(table["dec"], dec, atol=1e-9)
    # a star in the middle: FITS counts pixels from 1
    star = Frame(40 + simulate.render((160, 200), [simulate.Star(80, 100, 1e4)], fwhm=2.5), "YX", Unit.ELECTRON, NOISE)
    one = sources(star.replace(geometry=Sky(CARDS)), fwhm=2.5)
    assert [one["ra"][0], one["dec"][0]] == pytest.approx([150.0, 0.0], abs=1e-6)
    assert "ra" not in sources(noisy(field[0]), fwhm=2.5).colnames
    assert sources(star.replace(geometry=Sky((("OBJECT", "x"),))), fwhm=2.5).colnames[3] == "flux"


def test_the_width_is_measured_where_it_is_left_out(field) -> None:
    assert sources(noisy(field[0])).meta["fwhm"] == pytest.approx(2.5, rel=0.03)


def test_flags_in_the_aperture_reach_the_table(field) -> None:
    star = Frame(40 + simulate.render((120, 120), [simulate.Star(60, 60, 1e4)], fwhm=2.5), "YX", Unit.ELECTRON, NOISE)
    flags = np.zeros((120, 120), np.uint8)
    flags[62, 61], flags[10, 10] = int(Flag.HOT), int(Flag.DEAD)
    table = sources(star.replace(flags=flags), fwhm=2.5)
    assert list(table["flags"]) == [int(Flag.HOT)]


def test_an_empty_field_is_an_empty_table_and_nothing_is_changed() -> None:
    frame = noisy(np.full((100, 100), 40.0), geometry=Sky(CARDS))
    before = np.array(frame.data)
    table = sources(frame, threshold=50.0, fwhm=2.5)
    assert len(table) == 0
    assert {"flux", "ra", "flags"} <= set(table.colnames)
    np.testing.assert_array_equal(frame.data, before)
