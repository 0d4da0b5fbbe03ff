"""Detections counted by hand; injected stars are where and as bright as they are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstlight import Frame, Noise, Unit, Unmodelled, measure, simulate
from firstlight.errors import FirstlightError
from firstlight.evaluation.stars import Counts, Stars, background, catalogue, count, find, fluxes, grey, injected, levels


def test_ratios_by_hand() -> None:
    c = Counts(6, 2, 4)
    assert (c.precision, c.recall, c.f1) == (0.75, 0.6, pytest.approx(2 * 0.75 * 0.6 / 1.35))
    assert np.isnan([Counts(0, 0, 3).precision, Counts(0, 3, 0).recall, Counts(0, 0, 0).f1]).all()


def test_counting_is_one_to_one() -> None:
    found = Stars(np.array([10.0, 10.5, 40.0]), np.array([10.0, 10.0, 40.0]))
    truth = np.array([[10.0, 10.0], [70.0, 70.0]])
    assert count(found, truth, radius=3.0) == (1, 2, 1)
    assert count(found, truth, radius=3.0, false=7) == (1, 7, 1)


def test_stars_are_found_where_they_are() -> None:
    image, stars = simulate.star_field((160, 160), np.random.default_rng(0), n=8, sky=20, faintest=3000, fwhm=3.0)
    image = image + np.random.default_rng(1).normal(0, 4, image.shape)
    found = find(image, fwhm=3.0, threshold=5 * background(image)[1])
    want = np.array([[s.y, s.x] for s in stars if 8 < s.y < 150 and 8 < s.x < 150])
    i, _ = measure.match(want, found.places, radius=0.5)
    assert len(i) == len(want) > 4
    image[30:40] = np.nan
    assert not np.any((find(image, fwhm=3.0, threshold=20).y > 31) & (find(image, fwhm=3.0, threshold=20).y < 38))
    with pytest.raises(FirstlightError, match="positive"):
        find(image, fwhm=0, threshold=1)


@pytest.mark.parametrize("axes", ["YX", "CYX"])
def test_injected_light_is_what_it_is_said_to_be(axes: str) -> None:
    """Difference to the frame before, summed round each star: flux of the mean of the channels, within shot noise."""
    shape = (240, 240) if axes == "YX" else (3, 240, 240)
    noise = Noise(1.0, 25.0)
    frame = Frame(noise.sample(np.full(shape, 100.0), np.random.default_rng(0)), axes, Unit.ELECTRON, noise)
    got, truth = injected(frame, fwhm=3.0, rng=np.random.default_rng(5))
    added = np.asarray(grey(got).data) - np.asarray(grey(frame).data)
    flux = np.array([added[int(y) - 10 : int(y) + 11, int(x) - 10 : int(x) + 11].sum() for y, x, _ in truth])
    assert len(truth) > 20
    channels = 1 if axes == "YX" else 3
    pull = (flux - truth[:, 2]) / np.sqrt(truth[:, 2] / channels)
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
    assert 0.6 < pull.std() < 1.5
    error = background(np.asarray(grey(frame).data))[1] * np.sqrt(4 * np.pi) * 3.0 / 2.3548
    assert 2.99 <= (truth[:, 2] / error).min() < (truth[:, 2] / error).max() <= 60.01
    near, _ = measure.match(truth[:, :2], truth[::-1, :2], radius=0.1)
    assert len(near) == len(truth)
    assert np.median(fluxes(np.asarray(grey(got).data), truth, fwhm=3.0) / truth[:, 2]) == pytest.approx(1, abs=0.1)
    again, same = injected(frame, fwhm=3.0, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(truth, same)
    np.testing.assert_array_equal(got.data, again.data)


def test_stars_are_injected_beside_what_is_there_and_refused_without_room() -> None:
    image, stars = simulate.star_field((200, 200), np.random.default_rng(3), n=40, sky=50, faintest=3000, fwhm=3.0)
    frame = Frame(image + np.random.default_rng(4).normal(0, 5, image.shape), "YX", Unit.DISPLAY, Unmodelled("a picture"))
    _, truth = injected(frame, fwhm=3.0, rng=np.random.default_rng(0))
    near, _ = measure.match(truth[:, :2], [[s.y, s.x] for s in stars], radius=6.0)
    assert len(near) == 0
    with pytest.raises(FirstlightError, match="room for 0 injected"):
        injected(frame.replace(data=np.asarray(frame.data)[:44, :44]), fwhm=3.0, rng=np.random.default_rng(0))


def test_grey_of_channels() -> None:
    noise = Noise(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1), 9.0, 10.0)
    frame = Frame(np.arange(48.0).reshape(3, 4, 4), "CYX", Unit.ELECTRON, noise, flags=np.eye(4, dtype=np.uint8)[None])
    g = grey(frame)
    np.testing.assert_allclose(g.data, np.arange(48.0).reshape(3, 4, 4).mean(axis=0))
    assert isinstance(g.noise, Noise)
    assert (g.noise.a, g.noise.b, g.noise.offset) == (pytest.approx(2 / 3), 3.0, 10.0)
    np.testing.assert_array_equal(g.flags, np.eye(4))
    with pytest.raises(FirstlightError, match="axes ZYX"):
        grey(Frame(np.zeros((2, 4, 4)), "ZYX", Unit.ELECTRON, noise))


def test_thresholds() -> None:
    assert levels("1.5..5.0") == [1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    assert levels("3,1.5") == [1.5, 3]
    for bad in ("", "a", "0,1", "1..b", "5..1", "nan"):
        with pytest.raises(FirstlightError, match="thresholds"):
            levels(bad)


def test_catalogues(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,y,x\n1,3.5,4.5\n2,nan,1\n")
    np.testing.assert_array_equal(catalogue(tmp_path / "c.csv"), [[3.5, 4.5]])
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    for name in ("bad.csv", "none.csv", "c.txt"):
        with pytest.raises(FirstlightError, match=name):
            catalogue(tmp_path / name)
