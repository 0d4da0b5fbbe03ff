"""Flats other than the mean: medians, flats that drift in time, a pattern that moves, no dark frames; noise and refusals."""

import numpy as np
import pytest

from firstlight import calibrate, io
from firstlight.box import Box
from firstlight.calibrate.flats import eigen_flats, groups, pattern_weights
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import WHITES_AT, Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise, Unmodelled

SEED = 20261121
SHAPE, COUNT = (24, 96), 11
UNKNOWN = Unmodelled("no gain")
OFFSET = 100.0


def made(projections, whites, *, noise=UNKNOWN, extra=(), dtype=np.float32) -> tuple[Frame, Frame, Frame]:
    """Counts with an offset: projections (A, Y, X), whites (T, Y, X), one dark."""
    scan = Scan(np.linspace(0, np.pi, len(projections)), extra=extra)
    data = np.asarray(projections + OFFSET, dtype=dtype)
    dark = Frame(np.full(projections.shape[1:], OFFSET, dtype), "YX", Unit.ADU, noise)
    white = Frame(np.asarray(whites + OFFSET, dtype=dtype), "TYX", Unit.ADU, noise)
    return Frame(data, "AYX", Unit.ADU, noise, geometry=scan), white, dark


def sample(count: int = COUNT) -> np.ndarray:
    """Smooth discs that wander: transmission (A, Y, X)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    shift = 20 * np.sin(np.linspace(0, np.pi, count))[:, None, None]
    return np.exp(-1.5 * np.exp(-(((x - 38 - shift) / 14) ** 2) - ((y - 12) / 9) ** 2))


def ripples(phase: float) -> np.ndarray:
    """A beam whose stripes move with `phase`, as a monochromator's do."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    stripes = np.where((y // 3) % 2 == 0, 1.0, -1.0) * np.cos(x / 40)
    return 5000 * (1 + 0.2 * np.sin(x / 30) + 0.05 * phase * stripes)


def test_median_flats_ignore_one_bad_exposure():
    frame, white, dark = made(3000 * sample(), np.full((5, *SHAPE), 3000.0))
    data = np.array(white.data)
    data[2] += 2000
    flags = np.zeros((5, *SHAPE), np.uint8)
    flags[0, 3, 3] = Flag.COSMIC_RAY
    data[0, 3, 3] = 1e6
    data[1, 4, 4] = np.nan
    white = white.replace(data=data, flags=flags)
    done = calibrate.transmission(frame, white=white, dark=dark, flats="median")
    left = np.ones(SHAPE, bool)
    left[3, 3] = left[4, 4] = False
    np.testing.assert_allclose(done.data[:, left], sample()[:, left], rtol=1e-6)
    np.testing.assert_allclose(done.data[:, 3, 3], sample()[:, 3, 3], rtol=1e-6)
    assert done.history[-1].params == {"whites": 5, "flats": "median", "darks": 1}


def test_noise_of_median_flats():
    """Its variance is that of the median of 5 normal values, .287 of one, not .2."""
    frame, white, dark = made(3000 * sample(), np.full((5, *SHAPE), 3000.0), noise=Noise(0.0, 900.0, OFFSET))
    mean, median = (calibrate.transmission(frame, white=white, dark=dark, flats=f).noise.c for f in ("mean", "median"))
    np.testing.assert_allclose(median / mean, 0.2868 * 5, rtol=1e-3)


@pytest.mark.parametrize("places", [None, "given", "file"])
def test_flats_interpolated_in_time(places):
    """A beam that fades linearly: the mean flat is wrong by up to a tenth, lines in time are exact."""
    whites = np.stack([np.full(SHAPE, f) for f in (4000.0, 4000.0, 3200.0, 3200.0)])
    place = np.arange(COUNT)
    beam = np.interp(place, [-0.5, COUNT - 0.5], [4000, 3200])[:, None, None]
    at = [0, 0, COUNT, COUNT]
    extra = ((WHITES_AT, tuple(at)),) if places == "file" else ()
    frame, white, dark = made(beam * sample(), whites, extra=extra)
    given = {"whites_at": at} if places == "given" else {}
    done = calibrate.transmission(frame, white=white, dark=dark, flats="interpolated", **given)
    np.testing.assert_allclose(done.data, sample(), rtol=2e-6)
    source = {None: "first half before, the others after", "given": "given", "file": "the file"}[places]
    params = {"whites": 4, "flats": "interpolated", "whites_at": source, "groups": 2, "darks": 1}
    assert done.history[-1].params == params
    plain = calibrate.transmission(frame, white=white, dark=dark)
    assert np.abs(plain.data / sample() - 1).max() > 0.09


def test_three_groups_and_order_by_the_file():
    """Whites in the middle too, and listed out of order."""
    at = [5, 0, COUNT, 5]
    levels = {0: 4000.0, 5: 3000.0, COUNT: 3800.0}
    beam = np.interp(np.arange(COUNT), [-0.5, 4.5, COUNT - 0.5], list(levels.values()))[:, None, None]
    frame, white, dark = made(
        beam * sample(), np.stack([np.full(SHAPE, levels[k]) for k in at]), extra=((WHITES_AT, tuple(at)),)
    )
    done = calibrate.transmission(frame, white=white, dark=dark, flats="interpolated")
    np.testing.assert_allclose(done.data, sample(), rtol=2e-6)
    assert done.history[-1].params["groups"] == 3
    members, where = groups(np.array(at), COUNT)
    assert [m.tolist() for m in members] == [[1], [0, 3], [2]]
    assert where[0] == pytest.approx(0.1)
    part = frame.crop(Box((0, 0, 0), (6, *SHAPE)))
    assert part.geometry.extra == ()


def test_noise_of_interpolated_flats():
    """Between two groups of two, the flat's variance is that of one group at the ends and half of it in the middle."""
    rng = np.random.default_rng(SEED)
    noise, n0, draws = Noise(1.0, 0.0, OFFSET), 4000.0, 60
    square, law = 0.0, 0.0
    for _ in range(draws):
        frame, white, dark = made(np.full((COUNT, *SHAPE), n0), rng.poisson(n0, (4, *SHAPE)), noise=noise)
        dark = dark.replace(noise=Noise(0.0, 0.0, OFFSET))
        done = calibrate.transmission(frame, white=white, dark=dark, flats="interpolated")
        square += ((done.data - 1) ** 2).mean() / draws
        law += done.noise.averaged(10**9).variance(np.ones(SHAPE)).mean() / draws
    assert square == pytest.approx(law, rel=4.5 * np.sqrt(2 / (draws * np.prod(SHAPE) * 2)) + 0.005)
    assert 0.5 / (n0 * 2) < law < 1 / (n0 * 2)


def pca_scan(noisy: bool = True) -> tuple[tuple[Frame, Frame, Frame], np.ndarray]:
    rng = np.random.default_rng([SEED, 3])
    whites = np.stack([ripples(p) * (1 + 0.02 * rng.standard_normal()) for p in rng.uniform(-1, 1, 20)])
    projections = np.stack([ripples(p) for p in rng.uniform(-1, 1, COUNT)]) * sample()
    if noisy:
        whites, projections = (rng.poisson(x).astype(float) for x in (whites, projections))
    return made(projections, whites, dtype=np.float32), sample()


def error(done: Frame, truth: np.ndarray) -> float:
    """RMS of the relative error, each projection's own intensity left out."""
    ratio = np.asarray(done.data, float) / truth
    return float((ratio / ratio.mean(axis=(1, 2), keepdims=True) - 1).std())


def test_pca_follows_a_pattern_that_moves():
    parts, truth = pca_scan()
    frame, white, dark = parts
    plain = calibrate.transmission(frame, white=white, dark=dark)
    done = calibrate.transmission(frame, white=white, dark=dark, flats="pca")
    photons = float(np.sqrt(np.mean(1 / np.asarray(frame.data - OFFSET))))
    assert done.history[-1].params["components"] == 1
    assert error(plain, truth) > 1.6 * photons
    assert error(done, truth) < 1.06 * np.sqrt(1 + 2 / 20) * photons
    exact, truth = pca_scan(noisy=False)
    done = calibrate.transmission(exact[0], white=exact[1], dark=exact[2], flats="pca", components=1)
    assert error(done, truth) < 0.1 * error(calibrate.transmission(exact[0], white=exact[1], dark=exact[2]), truth)


def test_no_weight_dims_the_projection():
    """A pattern that is the same everywhere changes the intensity alone: total variation may not choose it."""
    projection = np.random.default_rng(SEED).uniform(0.5, 1, (30, 70)).astype(np.float32)
    assert pattern_weights(projection, np.ones((1, 30, 70), np.float32)).tolist() == [0.0]


def test_flagged_pixels_of_flats_make_no_pattern():
    (frame, white, dark), truth = pca_scan()
    data, flags = np.array(white.data), np.zeros(white.shape, np.uint8)
    data[4, 10, :50] = 1e6
    flags[4, 10, :50] = Flag.COSMIC_RAY
    white = white.replace(data=data, flags=flags)
    done = calibrate.transmission(frame, white=white, dark=dark, flats="pca")
    assert done.history[-1].params["components"] == 1
    assert error(done, truth) < 1.1 * float(np.sqrt(np.mean(1 / np.asarray(frame.data - OFFSET))))


def test_parallel_analysis_finds_no_pattern_in_noise_alone():
    rng = np.random.default_rng([SEED, 4])
    beam = np.linspace(500, 5000, 64 * 80).reshape(64, 80)
    for _ in range(5):
        assert len(eigen_flats(rng.poisson(beam, (20, 64, 80)).astype(float), beam, None)) == 0
    assert eigen_flats(rng.poisson(beam, (20, 64, 80)).astype(float), beam, 3).shape == (3, 64, 80)


def test_pca_needs_whole_projections_the_others_none():
    (frame, white, dark), _ = pca_scan()
    needs = needs_of(calibrate.transmission)
    assert needs.rows(frame, {"white": white, "dark": dark, "flats": "pca"}) == SHAPE[0]
    for flats in ("mean", "median", "interpolated"):
        params = {"white": white, "dark": dark, "flats": flats}
        assert needs.rows(frame, params) == 0
        whole = calibrate.transmission(frame, **params)
        box = Box((5, 0), (14, SHAPE[1]))
        part = calibrate.transmission(frame.crop(box), white=white.crop(box), dark=dark.crop(box), flats=flats)
        np.testing.assert_array_equal(part.data, whole.data[:, 5:14])


def test_no_dark_frames():
    frame, white, _ = made(3000 * sample(), np.full((2, *SHAPE), 3000.0), noise=Noise(1.0, 4.0, OFFSET))
    done = calibrate.transmission(frame, white=white)
    np.testing.assert_allclose(done.data, sample(), rtol=1e-6)
    assert done.history[-1].params["darks"] == 0
    assert set(done.history[-1].inputs) == {"white"}
    assert not np.any(done.noise.d)
    stated = [p.replace(noise=UNKNOWN, observation=Observation(offset=OFFSET)) for p in (frame, white)]
    np.testing.assert_allclose(calibrate.transmission(stated[0], white=stated[1]).data, sample(), rtol=1e-6)
    with pytest.raises(FrameError, match="neither the file nor a detector states the offset"):
        calibrate.transmission(frame.replace(noise=UNKNOWN), white=white)


@pytest.mark.parametrize("flats", ["mean", "median", "interpolated", "pca"])
def test_dead_columns_and_lost_pixels(flats):
    """A column that never counts is DEAD with transmission 1; NaN in a projection is flagged, and spreads nowhere."""
    (frame, white, dark), _ = pca_scan()
    want = np.array(calibrate.transmission(frame, white=white, dark=dark, flats=flats).data)
    data, whites = np.array(frame.data), np.array(white.data)
    data[:, :, 40], whites[:, :, 40] = OFFSET, OFFSET
    data[2, 5, 6] = np.nan
    whites[:, 8, 9] = np.nan
    done = calibrate.transmission(frame.replace(data=data), white=white.replace(data=whites), dark=dark, flats=flats)
    flags = np.broadcast_to(np.asarray(done.flags), data.shape)
    assert (flags[:, :, 40] == int(Flag.DEAD)).all()
    assert (done.data[:, :, 40] == 1).all()
    assert (flags[:, 8, 9] == int(Flag.NO_DATA)).all()
    assert (done.data[:, 8, 9] == 1).all()
    assert np.argwhere(~np.isfinite(done.data)).tolist() == [[2, 5, 6]]
    assert flags[2, 5, 6] == int(Flag.NO_DATA)
    rest = flags == 0
    assert np.count_nonzero(~rest) == COUNT * (SHAPE[0] + 1) + 1
    np.testing.assert_allclose(done.data[rest], want[rest], rtol=2e-6 if flats != "pca" else 0.02)


def test_one_flat():
    frame, white, dark = made(3000 * sample(), np.full((1, *SHAPE), 3000.0))
    np.testing.assert_allclose(calibrate.transmission(frame, white=white, dark=dark).data, sample(), rtol=1e-6)
    with pytest.raises(FrameError, match="at two times at least"):
        calibrate.transmission(frame, white=white, dark=dark, flats="interpolated", whites_at=[0])
    with pytest.raises(FrameError, match="expected 3 at least"):
        calibrate.transmission(frame, white=white, dark=dark, flats="pca")


def test_refusals():
    frame, white, dark = made(3000 * sample(), np.full((4, *SHAPE), 3000.0))
    fields = {"white": white, "dark": dark}
    for params, message in (
        ({"flats": "best"}, "expected one of mean, median, interpolated, pca"),
        ({"whites_at": [0, 0, 9, 9]}, "whites_at goes with"),
        ({"components": 2}, "components with 'pca'"),
        ({"flats": "interpolated", "whites_at": [0, 9]}, "expected 4 finite numbers"),
        ({"flats": "pca", "components": 4}, "expected 0 to 3"),
    ):
        with pytest.raises(FrameError, match=message):
            calibrate.transmission(frame, **fields, **params)
    with pytest.raises(FrameError, match="got no exposures"):
        calibrate.transmission(frame, white=white.crop(Box((0, 0, 0), (0, *SHAPE))), dark=dark)


def test_tooth(data):
    """A real scan of two rows: zingers out, transmission by each kind of flat, logarithm; all finite, air near 0."""
    parts = io.read_set(data / "tomography" / "tooth_aps.h5")
    frame, white, dark = (calibrate.remove_zingers(parts[k]) for k in ("data", "white", "dark"))
    depths = []
    for flats in ("mean", "median", "interpolated", "pca"):
        done = calibrate.attenuation(calibrate.transmission(frame, white=white, dark=dark, flats=flats))
        assert np.isfinite(done.data).all()
        depths.append(np.asarray(done.data))
        assert 1.9 < depths[-1].max() < 2.0
        assert abs(np.median(depths[-1][:, :, :20])) < 0.05
        np.testing.assert_allclose(depths[-1], depths[0], atol=0.02)
