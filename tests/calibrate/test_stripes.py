"""Stripes: medians against SciPy, the wavelet filter against its definition, truth recovered, gaps, sections, refusals."""

import numpy as np
import pytest
import pywt
from scipy.ndimage import median_filter, uniform_filter1d

from firstlight import calibrate, io, simulate
from firstlight.box import Box
from firstlight.calibrate import fourier_wavelet, medians, ranks
from firstlight.calibrate.gaps import fill
from firstlight.calibrate.products import product
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise, Unmodelled

SEED = 20261122
ANGLES, ROWS, WIDTH = 180, 2, 512
METHODS = ("", "_sorting", "_large", "_dead", "_titarenko", "_fourier_wavelet")
PHOTONS = 5000.0


def step(method: str):
    return getattr(calibrate, "remove_stripes" + method)


def depth(rows: int = ROWS) -> np.ndarray:
    """Line integrals of smooth blobs away from the axis: nothing stands still, and no rims, which no method spares."""
    angles, x = np.linspace(0, np.pi, ANGLES, endpoint=False), np.arange(WIDTH) - (WIDTH - 1) / 2
    blobs = [(140, 0.3, 50, 0.8), (90, 2.1, 45, 0.6), (160, 4.0, 60, 0.7), (60, 5.3, 40, 0.4)]  # radius, angle, width, height
    line = sum(h * np.exp(-((x - r * np.cos(angles[:, None] - t)) ** 2) / (2 * w * w)) for r, t, w, h in blobs)
    return np.repeat(line[:, None], rows, axis=1)


def scan(data: np.ndarray, unit: Unit = Unit.TRANSMISSION, noise=None, **more) -> Frame:
    angles = np.linspace(0, np.pi, data.shape[0], endpoint=False)
    law = Noise(1 / PHOTONS, 0.0) if noise is None else noise
    return Frame(np.asarray(data, np.float32), "AYX", unit, law, geometry=Scan(angles), **more)


def noisy(rng, truth: np.ndarray) -> np.ndarray:
    return truth + np.sqrt(truth / PHOTONS) * rng.standard_normal(truth.shape)


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def striped(kind: str, rng) -> tuple[np.ndarray, np.ndarray]:
    """(noisy transmission with stripes of one kind, the same without); two detector rows alike in kind, not in place."""
    truth = noisy(rng, np.exp(-depth()))
    data = truth.copy()
    for y in range(ROWS):
        x = 200 + 11 * y
        if kind == "full":
            data[:, y] *= 1 + 0.03 * rng.standard_normal(WIDTH)
        elif kind == "partial":
            for k in range(0, 120, 17):
                data[20 + k // 3 : 150, y, x + k] *= 1.25
        elif kind == "wide":
            data[:, y, x : x + 12] *= 1.3
        else:
            data[:, y, x] = 0.4
            data[:, y, x + 60] *= 1 + 0.5 * rng.standard_normal(ANGLES)
    return data, truth


@pytest.mark.parametrize(("width", "size"), [(50, 1), (50, 2), (50, 3), (64, 20), (64, 21), (64, 61), (33, 33), (10, 21)])
def test_sliding_medians_are_scipys(width, size):
    rng = np.random.default_rng([SEED, width, size])
    values = rng.standard_normal((width, 3 * medians.LANES)).astype(np.float32)
    values[:, 1] = np.round(values[:, 1])  # ties
    values[:, 2] = 7
    out = np.empty_like(values)
    medians.slide(values, size, out)
    np.testing.assert_array_equal(out, median_filter(values, (size, 1), mode="reflect"))


def test_columns_are_sorted_and_come_back():
    rng = np.random.default_rng(SEED)
    plane = rng.standard_normal((77, 130)).astype(np.float32)
    plane[:, 5] = np.sign(plane[:, 5]) * 0.0
    plane[3], plane[4] = 3e38, -3e38
    values, order = ranks._sorted(plane)
    np.testing.assert_array_equal(values[:, :77], np.sort(plane, axis=0).T)
    back = np.empty_like(plane)
    medians.scatter(values, order, back)
    np.testing.assert_array_equal(back, plane)


def test_one_sort_is_the_papers_sorting_method():
    """Algorithm 3 in plain NumPy."""
    plane = np.random.default_rng(SEED).standard_normal((90, 120)).astype(np.float32)
    at = np.argsort(plane, axis=0, kind="stable")
    smooth = median_filter(np.take_along_axis(plane, at, axis=0), (1, 21))
    expected = np.empty_like(plane)
    np.put_along_axis(expected, at, smooth, axis=0)
    done = step("_sorting")(scan(plane[:, None], Unit.OPTICAL_DEPTH), size=21)
    np.testing.assert_array_equal(done.data[:, 0], expected)


def test_fluctuation_is_the_mean_distance_from_the_running_mean():
    plane = np.random.default_rng(SEED).standard_normal((40, 30)).astype(np.float32)
    expected = np.abs(plane - uniform_filter1d(plane.astype(float), 10, axis=0)).mean(axis=0)
    assert medians.fluctuation(plane, 10) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("rows", "n", "width"), [(1, 1, 1), (5, 7, 130), (8, 6, 128), (58, 181, 257)])
def test_product(rows, n, width):
    rng = np.random.default_rng([SEED, rows])
    left, right = (rng.standard_normal(s).astype(np.float32) for s in ((rows, n), (n, width)))
    out = np.empty((rows, width), np.float32)
    product(left, right, out)
    assert out == pytest.approx(left.astype(float) @ right, abs=1e-6 * n)


def munch(plane: np.ndarray, level: int, wavelet: str, sigma: float) -> np.ndarray:
    """Munch et al. 2009 as it is written: 2-D wavelets, FFT along the angle, damping, and back."""
    coarse, bands, shapes = plane.astype(float), [], []
    for _ in range(level):
        shapes.append(coarse.shape)
        coarse, (flat, upright, diagonal) = pywt.dwt2(coarse, wavelet, mode="symmetric")
        k = np.fft.fftfreq(upright.shape[0]) * upright.shape[0]
        damped = np.fft.fft(upright, axis=0) * (1 - np.exp(-(k**2) / (2 * sigma**2)))[:, None]
        bands.append((flat, np.fft.ifft(damped, axis=0).real, diagonal))
    for band, (rows, width) in zip(bands[::-1], shapes[::-1], strict=True):
        coarse = coarse[: band[0].shape[0], : band[0].shape[1]]
        coarse = pywt.idwt2((coarse, band), wavelet, mode="symmetric")[:rows, :width]
    return coarse


@pytest.mark.parametrize(
    ("shape", "level", "wavelet", "sigma"),
    [((180, 256), 4, "db5", 2.0), ((181, 97), 5, "sym8", 1.0), ((64, 64), 6, "haar", 5.0), ((33, 130), 3, "bior3.5", 0.3)],
)
def test_the_fourier_wavelet_filter_is_its_definition(shape, level, wavelet, sigma):
    rng = np.random.default_rng(SEED)
    plane = (rng.standard_normal(shape) + rng.standard_normal(shape[1])).astype(np.float32)
    done = step("_fourier_wavelet")(scan(plane[:, None], Unit.OPTICAL_DEPTH), level=level, wavelet=wavelet, sigma=sigma)
    assert done.data[:, 0] == pytest.approx(munch(plane, level, wavelet, sigma), abs=2e-5)


@pytest.mark.parametrize("chunks", [1, 3])
def test_titarenko_solves_its_equation(chunks):
    plane, alpha = np.random.default_rng(SEED).standard_normal((48, 40)).astype(np.float32), 0.02
    done = step("_titarenko")(scan(plane[:, None], Unit.OPTICAL_DEPTH), alpha=alpha, chunks=chunks).data[:, 0]
    d = np.diff(np.eye(40), axis=0)
    for part, own in zip(np.array_split(plane, chunks), np.array_split(done, chunks), strict=True):
        q = np.linalg.solve(d.T @ d + alpha * np.eye(40), d.T @ d @ part.mean(axis=0, dtype=float))
        assert own == pytest.approx(part - q, abs=1e-5)


# rms difference from the scan without stripes, after over before: what each is made for
@pytest.mark.parametrize(
    ("method", "kind", "most"),
    [
        ("", "full", 0.5),
        ("", "partial", 0.95),
        ("", "wide", 0.6),
        ("", "dead", 0.7),
        ("_sorting", "full", 0.5),
        ("_sorting", "partial", 0.7),
        ("_large", "wide", 0.6),
        ("_dead", "dead", 0.2),
        ("_titarenko", "full", 0.4),
        ("_fourier_wavelet", "full", 0.45),
        ("_fourier_wavelet", "partial", 0.6),
    ],
)
@pytest.mark.parametrize("unit", [Unit.TRANSMISSION, Unit.OPTICAL_DEPTH])
def test_truth_is_closer_afterwards(method, kind, most, unit):
    data, truth = striped(kind, np.random.default_rng([SEED, len(kind)]))
    if unit is Unit.OPTICAL_DEPTH:
        data, truth = -np.log(np.maximum(data, 1e-3)), -np.log(truth)
    done = step(method)(scan(data, unit))
    assert done.unit is unit
    assert rms(done.data - truth) < most * rms(data - truth), rms(done.data - truth) / rms(data - truth)


@pytest.mark.parametrize("method", METHODS)
def test_without_stripes_little_changes(method):
    """In units of the noise at 5000 photons."""
    truth = np.exp(-depth())
    data = noisy(np.random.default_rng(SEED), truth)
    changed = rms(step(method)(scan(data)).data - data) / rms(data - truth)
    most = {"": 0.65, "_large": 0.6, "_sorting": 0.35, "_dead": 1e-5, "_titarenko": 0.2, "_fourier_wavelet": 0.2}
    assert changed < most[method], changed


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", [Unit.TRANSMISSION, Unit.OPTICAL_DEPTH])
def test_a_section_is_the_whole(method, unit):
    frame = scan(striped("full", np.random.default_rng(SEED))[0], unit)
    needs = needs_of(step(method))
    assert needs is not None
    assert needs.rows(frame, {}) == 0
    whole, before = step(method)(frame), np.array(frame.data)
    part = step(method)(frame.crop(Box((0, 1, 0), (ANGLES, 2, WIDTH))))
    np.testing.assert_array_equal(part.data[:, 0], whole.data[:, 1])
    np.testing.assert_array_equal(frame.data, before)
    assert whole.history[-1].step == f"calibrate.remove_stripes{method}"
    assert whole.geometry is frame.geometry
    assert whole.data.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
def test_gaps_do_not_spread(method):
    data, _ = striped("full", np.random.default_rng(SEED))
    holed = data.astype(np.float32)
    holed[10, 0, 30], holed[11, 0, 31], holed[:, 1, 99], holed[50, 1] = np.nan, np.inf, np.nan, -np.inf
    done = step(method)(scan(holed, flags=np.zeros((1, 1), np.uint8)))
    assert np.isfinite(done.data).all()
    lost = (np.asarray(done.flags) & Flag.NO_DATA) != 0
    np.testing.assert_array_equal(np.broadcast_to(lost, data.shape), ~np.isfinite(holed))
    dead = (np.broadcast_to(done.flags, data.shape) & Flag.DEAD) != 0
    assert dead[:, 1, 99].all()
    assert dead.sum() == ANGLES
    clean = step(method)(scan(data))
    untouched = np.abs(done.data - clean.data)[:, 0]
    assert np.quantile(untouched, 0.99) < 0.003


@pytest.mark.parametrize("method", METHODS)
def test_dead_columns_by_value_and_by_flag(method):
    truth = np.exp(-depth())
    data = noisy(np.random.default_rng(SEED), truth)
    data[:, 0, 80], data[:, 1, 120] = 0.0, 1.0
    flags = np.zeros((ROWS, WIDTH), np.uint8)
    flags[1, 120] = Flag.DEAD
    done = step(method)(scan(data, flags=flags))
    bits = np.broadcast_to(done.flags, data.shape)
    for y, x in ((0, 80), (1, 120)):
        assert (bits[:, y, x] & Flag.DEAD).all()
        assert rms(done.data[:, y, x] - truth[:, y, x]) < 0.05


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_sinogram_stays(method, value):
    for unit in (Unit.TRANSMISSION, Unit.OPTICAL_DEPTH):
        done = step(method)(scan(np.full((20, 1, 70), value), unit))
        expected = 1.0 if unit is Unit.TRANSMISSION and value == 0 else value  # no light at all: dead, and called so
        assert done.data == pytest.approx(np.full((20, 1, 70), expected), abs=1e-6)
        assert (done.flags is not None) == (expected != value)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_without_any_data_is_flagged(method):
    data, _ = striped("full", np.random.default_rng(SEED))
    data[:, 1] = np.nan
    done = step(method)(scan(data))
    assert (done.data[:, 1] == 1).all()
    assert (done.flags[:, 1] & Flag.NO_DATA).all()
    assert not (done.flags[:, 0] & Flag.NO_DATA).any()


def test_a_bad_column_is_interpolated_and_no_other():
    data, truth = striped("dead", np.random.default_rng(SEED))
    done = step("_dead")(scan(data))
    for y in range(ROWS):
        for x in (200 + 11 * y, 260 + 11 * y):
            assert (done.flags[y, x] & Flag.DEFECT) != 0
            assert rms(done.data[:, y, x] - truth[:, y, x]) < 0.1 * rms(data[:, y, x] - truth[:, y, x])
    assert np.count_nonzero(done.flags) <= 4 * 3
    np.testing.assert_array_equal(done.data[:, done.flags == 0], scan(data).data[:, done.flags == 0])


def test_replaced_columns_carry_a_flag():
    data, _ = striped("wide", np.random.default_rng(SEED))
    done = step("_large")(scan(data))
    for y in range(ROWS):
        assert (done.flags[y, 202 + 11 * y : 210 + 11 * y] & Flag.DEFECT).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_noise_law_goes_along(method):
    """z = (data - expected)/sqrt(law), less the column's mean, at few photons: mean square 1, neighbours uncorrelated."""
    truth, photons, angles = np.full((ANGLES, 1, WIDTH), 0.5), 400.0, np.arange(ANGLES)
    truth -= 0.3 * np.sin(2 * np.pi * (angles[:, None, None] / ANGLES + np.arange(WIDTH) / WIDTH))  # no rims
    gain = 1 + 0.05 * np.sin(np.arange(WIDTH) * 2.4)
    rng = np.random.default_rng(SEED)
    data = gain * (truth + np.sqrt(truth / photons) * rng.standard_normal(truth.shape))
    done = step(method)(scan(data, noise=Noise(1 / photons, 0.0).scaled(gain), std=np.full((1, WIDTH), 0.1) * gain))
    kept = np.ones(WIDTH, bool) if done.flags is None else (np.broadcast_to(done.flags, (1, WIDTH))[0] == 0)
    assert kept.mean() > 0.9
    expected = truth * gain if method == "_dead" else truth
    z = ((done.data - expected) / np.sqrt(done.noise.variance(expected)))[:, 0, kept]
    z = z - z.mean(axis=0)
    assert np.mean(z**2) == pytest.approx(1, abs=0.1 if method == "_sorting" else 0.05)
    assert abs(np.mean(z[:, 1:] * z[:, :-1])) < 0.04
    if method in ("_titarenko", "_large", "_fourier_wavelet", ""):
        assert done.std[0] == pytest.approx(np.full(WIDTH, 0.1), rel=0.02)
        assert np.broadcast_to(done.noise.a, (1, 1, WIDTH))[0, 0] == pytest.approx(np.full(WIDTH, 1 / photons), rel=0.02)


def test_unknown_noise_stays_unknown():
    frame = scan(np.exp(-depth(1)), noise=Unmodelled("why"))
    assert step("")(frame).noise is frame.noise


def test_gaps_of_a_plane():
    plane = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    gaps = np.zeros((3, 4), bool)
    gaps[0, 1:3], gaps[2, 3], gaps[1] = True, True, True
    expected = plane.copy()
    expected[2, 3] = 10
    expected[1] = (plane[0] + expected[2]) / 2
    np.testing.assert_allclose(fill(np.where(gaps, np.nan, plane), gaps, 0.0), expected)


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("", {"large": 600}, "large = 600 px on a detector of 512 px"),
        ("", {"small": 1}, "small = 1 px"),
        ("", {"snr": 0.0}, "snr 0.0"),
        ("_sorting", {"size": 0}, "size = 0"),
        ("_large", {"drop": 1.0}, "drop 1.0"),
        ("_dead", {"snr": float("nan")}, "snr nan"),
        ("_titarenko", {"alpha": 0.0}, "alpha 0.0"),
        ("_titarenko", {"chunks": 100}, "chunks 100 of 180 angles"),
        ("_fourier_wavelet", {"level": 9}, "expected 1 to 7"),
        ("_fourier_wavelet", {"wavelet": "db999"}, "db999"),
        ("_fourier_wavelet", {"sigma": float("nan")}, "sigma nan"),
    ],
)
def test_parameters_refused(method, params, message):
    with pytest.raises(FrameError, match=message):
        step(method)(scan(np.exp(-depth(1))), **params)


@pytest.mark.parametrize("method", METHODS)
def test_frames_refused(method):
    good = scan(np.exp(-depth(1)))
    for bad, message in (
        (good.replace(unit=Unit.ADU), "got a frame in adu, expected transmission"),
        (good.replace(data=good.data[:, 0], axes="YX", geometry=None), "got axes YX, expected AYX"),
        (good.crop(Box((0, 0, 0), (7, 1, WIDTH))), "7 angles, expected 8 or more"),
    ):
        with pytest.raises(FrameError, match=message):
            step(method)(bad)


def test_eight_angles_are_enough():
    few = scan(np.exp(-depth(1))).crop(Box((0, 0, 0), (8, 1, WIDTH)))
    for method in METHODS[:-1]:
        assert np.isfinite(step(method)(few).data).all()
    assert np.isfinite(step("_fourier_wavelet")(few, level=2).data).all()


def test_bands_are_made_once():
    assert fourier_wavelet.bands(64, 3, "db5", 2.0) is fourier_wavelet.bands(64, 3, "db5", 2.0)


@pytest.mark.parametrize(
    ("method", "least"), [("", 5), ("_large", 5), ("_sorting", 3), ("_titarenko", 5), ("_fourier_wavelet", 5)]
)
def test_the_tooths_rings(data, method, least):
    """Fine structure of the mean over angles (the rings), a robust figure, falls; away from columns the tooth stays."""
    frames = io.read_set(data / "tomography/tooth_aps.h5")
    tooth = calibrate.transmission(frames["data"], white=frames["white"], dark=frames["dark"])
    done = step(method)(tooth)

    def rings(x: np.ndarray) -> float:
        mean = np.mean(-np.log(x), axis=0)
        return float(np.median(np.abs(mean[:, 1:-1] - (mean[:, 2:] + mean[:, :-2]) / 2)))

    assert rings(done.data) < rings(tooth.data) / least, rings(tooth.data) / rings(done.data)
    assert rms(done.data - tooth.data) < 0.02


@pytest.mark.parametrize("method", ["_dead", "_large", ""])
def test_the_tooth_is_no_defect(data, method):
    """Its rim fluctuates, and its cavity lies about the axis."""
    frames = io.read_set(data / "tomography/tooth_aps.h5")
    done = step(method)(calibrate.transmission(frames["data"], white=frames["white"], dark=frames["dark"]))
    assert done.flags is None or np.count_nonzero(done.flags) < 0.005 * done.data[0].size


@pytest.mark.parametrize("width", [1, 3, 12, 25])
def test_an_object_about_the_axis_is_no_stripe_and_a_stripe_is(width):
    """A cavity about the axis stands still: without a look at the edges a fifth of the columns is taken for stripes."""
    rng = np.random.default_rng([SEED, width])
    parts = [(1.0, 10, 5, 120, 60, 0.3), (-0.6, 0, 0, 30, 20, 0.1), (0.5, 3, 2, 8, 8, 0.0), (0.4, 60, 20, 20, 10, 1.0)]
    angles = np.linspace(0, np.pi, ANGLES, endpoint=False)
    line = simulate.projections([simulate.Ellipse(*p) for p in parts], angles, WIDTH)[:, None]
    data = noisy(rng, np.exp(-2 * line / line.max()))
    quiet = step("_large")(scan(data))
    assert quiet.flags is None or np.mean(quiet.flags != 0) < 0.1
    data[:, :, 420 : 420 + width] *= 1.25
    assert (step("_large")(scan(data)).flags[0, 420 : 420 + width] & Flag.DEFECT).all()
