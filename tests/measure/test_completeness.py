"""Completeness at equal purity by hand counts; the bootstrap by its coverage; widths and offsets by construction."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import Frame, Noise, Unit, simulate
from firstlight.errors import FrameError
from firstlight.measure import Found, at_purity, background_bias, by_flux, detect, gain, recover, sweep

NOISE = Noise(1.0, 25.0)
TRUTH = np.array([[10, 10, 500.0], [10, 40, 200.0], [40, 10, 50.0]])


def found(*rows: tuple[float, float, float]) -> Found:
    return Found(*np.array(rows, dtype=float).reshape(-1, 3).T)


def test_counts_by_hand() -> None:
    """Two stars, one faint one that is no false alarm, and a false alarm between them in significance."""
    one = found((10, 10.5, 9.0), (40, 11, 5.0), (60, 60, 4.0), (10, 40, 3.0))
    s = sweep([one], [TRUTH], radius=2.0, brighter=100.0, thresholds=[1, 3.5, 4.5, 20])
    assert s.detected.tolist() == [[4, 3, 2, 0]]
    assert s.matched.tolist() == [[3, 2, 2, 0]]
    assert s.recovered.tolist() == [[2, 1, 1, 0]]
    assert s.wanted.tolist() == [2]
    assert at_purity(s, purity=0.75) == (1.0, 1.0, 0.75)
    assert at_purity(s, purity=0.9)[1:] == (0.5, 1.0)
    assert at_purity(sweep([found((60, 60, 4))], [TRUTH], radius=2))[1] == 0.0


def test_every_threshold_that_matters_is_tried() -> None:
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.uniform(0, 500, (100, 2)), np.full(100, 300.0)])
    real = np.column_stack([truth[:, :2], rng.uniform(4, 10, 100)])
    junk = np.column_stack([rng.uniform(1000, 2000, (3000, 2)), rng.uniform(0, 4, 3000)])
    at = at_purity(sweep([found(*real, *junk)], [truth], radius=1.0))
    assert at.completeness == 1.0
    assert 0.95 <= at.purity < 0.98


def drawn(rng: np.random.Generator, share: float, loudest: float = 4.0) -> tuple[Found, np.ndarray]:
    truth = np.column_stack([rng.uniform(0, 400, (60, 2)), np.full(60, 300.0)])
    hit = truth[rng.random(60) < share]
    junk = np.column_stack([rng.uniform(1000, 2000, (30, 2)), rng.uniform(0, loudest, 30)])
    return found(*np.column_stack([hit[:, :2], rng.uniform(4, 10, len(hit))]), *junk), truth


def test_the_interval_of_a_gain_covers_it_and_tells_a_difference() -> None:
    rng, inside, levels = np.random.default_rng(1), 0, np.linspace(0, 6, 25)
    for _ in range(60):
        pairs = [(drawn(rng, 0.7), drawn(rng, 0.7)) for _ in range(12)]
        a, b = (sweep([p[k][0] for p in pairs], [p[k][1] for p in pairs], radius=0.5, thresholds=levels) for k in (0, 1))
        g = gain(a, b, rng=rng, resamples=300)
        inside += g.low <= 0 <= g.high
    assert 49 <= inside <= 60  # of 60 at about 93 %, twelve fields being few
    pairs = [(drawn(rng, 0.9), drawn(rng, 0.6)) for _ in range(12)]
    a, b = (sweep([p[k][0] for p in pairs], [p[k][1] for p in pairs], radius=0.5) for k in (0, 1))
    g = gain(a, b, rng=rng)
    assert g.low > 0.15
    assert g.value == pytest.approx(0.3, abs=0.1)
    assert gain(a, a, rng=rng) == (0.0, 0.0, 0.0)
    with pytest.raises(FrameError, match="the same fields"):
        gain(a, sweep([found((10, 10, 5))], [TRUTH], radius=1), rng=rng)


def test_a_method_that_finds_as_much_with_louder_false_alarms_loses() -> None:
    rng = np.random.default_rng(6)
    pairs = [(drawn(rng, 0.8, loudest=8.0), drawn(rng, 0.8)) for _ in range(12)]
    a, b = (sweep([p[k][0] for p in pairs], [p[k][1] for p in pairs], radius=0.5) for k in (0, 1))
    assert gain(a, b, rng=rng).high < -0.1


def test_recovered_stars_whether_or_not_detected() -> None:
    """True light at true places; the offset of a detection that was moved by hand; the width of the scene."""
    rng, side = np.random.default_rng(2), 300
    grid = np.stack(np.meshgrid(np.arange(20, 290, 40), np.arange(20, 290, 40), indexing="ij"), -1).reshape(-1, 2)
    places = grid + rng.uniform(-0.5, 0.5, grid.shape)
    flux = np.where(np.arange(len(places)) % 2, 2000.0, 200.0)
    truth = np.column_stack([places, flux])
    mean = 40 + simulate.render((side, side), [simulate.Star(*t) for t in truth], fwhm=3.0)
    frame = Frame(mean, "YX", Unit.ELECTRON, NOISE)
    bright = flux > 1000
    seen = Found(places[bright, 0] + 0.3, places[bright, 1] - 0.1, np.full(bright.sum(), 9.0))
    blurred = Frame(
        40 + 0.5 * simulate.render((side, side), [simulate.Star(*t) for t in truth], fwhm=4.5), "YX", Unit.ELECTRON, NOISE
    )
    rows = by_flux(
        [recover(frame, truth, seen, fwhm=3.0, match_radius=2.0, restored=blurred)], [100, 1000, 3000, 9000], fwhm=3.0
    )
    faint, strong, none = rows
    assert (faint["n"], strong["n"], none["n"]) == (25, 24, 0)
    assert (faint["completeness"], strong["completeness"]) == (0, 1)
    for row in (faint, strong):
        assert row["ratio"] == pytest.approx(1, abs=0.004)
        assert row["restored_ratio"] == pytest.approx(0.5, abs=0.05)
        assert row["fwhm"] == pytest.approx(4.5, rel=0.06)
    assert [strong["offset_y"], strong["offset_x"]] == pytest.approx([0.3, -0.1])
    assert strong["offset"] == pytest.approx(np.hypot(0.3, 0.1))
    assert faint["offset"] is None
    assert strong["magnitude"] == pytest.approx(-2.5 * np.log10(2000))


def test_a_field_of_noise_and_stars_end_to_end() -> None:
    truth, stars = simulate.star_field((256, 256), np.random.default_rng(3), n=50, faintest=500)
    frame = Frame(NOISE.sample(truth, np.random.default_rng(4)), "YX", Unit.ELECTRON, NOISE)
    at = at_purity(sweep([detect(frame, threshold=2.5, fwhm=2.5)], [np.array(stars)], radius=2.0))
    assert at.completeness > 0.9
    assert at.purity >= 0.95
    assert 2.5 < at.threshold < 6


def test_background_bias_is_of_the_sky_alone() -> None:
    rng = np.random.default_rng(5)
    truth, stars = simulate.star_field((256, 256), rng, n=20)
    places = np.array(stars)[:, :2]
    wrong = np.where(truth > 45, truth * 2, truth + 0.7) + rng.normal(0, 1, truth.shape)
    bias, error = background_bias(wrong, truth, places, apart=20)
    assert bias == pytest.approx(0.7, abs=5 * error)
    assert error == pytest.approx(1 / np.sqrt(40000), rel=0.4)
    with pytest.raises(FrameError, match="half sky"):
        background_bias(wrong, truth, places, apart=200)
