"""Zingers: medians against scipy, what is found and what is left, the meaning of the threshold, sections, flags, refusals."""

import numpy as np
import pytest
from scipy import ndimage

from firstlight import calibrate
from firstlight.box import Box
from firstlight.calibrate.zinger_kernels import network
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import BAYER, Mosaic, Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise, Unmodelled

SEED = 20261121
KNOWN, UNKNOWN = Noise(0.9, 4.0, 100.0), Unmodelled("no gain")


def scan(shape=(7, 9, 40), noise=UNKNOWN, dtype=np.float32, level=1000.0, spread=30.0, **more) -> Frame:
    data = np.random.default_rng([SEED, *shape]).normal(level, spread, shape).astype(dtype)
    geometry = Scan(np.linspace(0, 3, shape[0])) if len(shape) == 3 else None
    return Frame(data, "AYX"[3 - len(shape) :], Unit.ADU, noise, geometry=geometry, **more)


def found(frame: Frame) -> np.ndarray:
    flags = np.zeros(frame.shape, np.uint8) if frame.flags is None else np.asarray(frame.flags)
    return (np.broadcast_to(flags, frame.shape) & int(Flag.COSMIC_RAY)) != 0


def medians(data: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    image = ndimage.median_filter(data, (1, size, size), mode="mirror")
    n, r = len(data), size // 2
    if n < size:
        return image, ndimage.median_filter(data, (size, 1, 1), mode="mirror")
    starts = np.clip(np.arange(n) - r, 0, n - size)
    return image, np.stack([np.median(data[s : s + size], axis=0).astype(data.dtype) for s in starts])


@pytest.mark.parametrize("n", [1, 3, 5, 7, 9, 25, 49])
def test_networks_select_the_median(n):
    """Zero-one principle: a comparator network is right for all inputs where it is right for all 0-1 inputs."""
    bits = np.array([[i >> k & 1 for k in range(n)] for i in range(2**n)]) if n < 10 else None
    x = np.random.default_rng(SEED).integers(0, 2, (4000, n)) if bits is None else bits
    x = x.copy()
    truth = np.median(x, axis=1)
    for i, j in network(n):
        x[:, [i, j]] = np.sort(x[:, [i, j]], axis=1)
    np.testing.assert_array_equal(x[:, n // 2], truth)


@pytest.mark.parametrize("shape", [(7, 9, 40), (2, 5, 6), (3, 1, 300), (4, 2, 1), (5, 3, 261)])
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.float64])
def test_what_is_replaced_and_by_what(shape, size, dtype):
    """Every rule written out in numpy with scipy's medians, at a threshold so low that it finds many pixels."""
    frame = scan(shape, KNOWN, dtype)
    image, angle = medians(np.asarray(frame.data), size)
    for along, middles in (("image", [image]), ("angle", [angle]), ("both", [image, angle])):
        for sign in (1, -1):
            x = np.asarray(frame.data, np.float64)
            out = [sign * (x - m) > 0.7 * np.sqrt(KNOWN.variance(m.astype(float))) for m in middles]
            hit = np.logical_and.reduce(out)
            value = np.min([sign * m.astype(float) for m in middles], axis=0) * sign
            done = calibrate.remove_zingers(frame, size=size, threshold=0.7, along=along, both_signs=True)
            np.testing.assert_array_equal(done.data[hit], value[hit])
            if sign == 1:
                bright = calibrate.remove_zingers(frame, size=size, threshold=0.7, along=along)
                np.testing.assert_array_equal(found(bright), hit)
                np.testing.assert_array_equal(bright.data, np.where(hit, value, frame.data))
            assert bright.data.dtype == done.data.dtype == dtype


def test_local_scale_is_the_standard_deviation_of_normal_noise():
    """Share of pixels beyond the threshold, unknown noise against the known law of the same data."""
    shape = (6, 40, 512)
    data = np.random.default_rng(SEED).normal(1000, 30, shape).astype(np.float32)
    for along, size in (("image", 3), ("angle", 3), ("image", 5)):
        share = []
        for noise in (UNKNOWN, Noise(0.0, 900.0)):
            frame = Frame(data, "AYX", Unit.ADU, noise)
            share.append(found(calibrate.remove_zingers(frame, size=size, threshold=2.0, along=along)).mean())
        assert share[0] == pytest.approx(share[1], rel=0.06)
        assert share[1] > 0.005


@pytest.mark.parametrize("noise", [UNKNOWN, KNOWN])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_zingers_go_and_all_else_stays(noise, dtype):
    frame = scan((12, 64, 200), noise, dtype)
    data = np.array(frame.data)
    rng = np.random.default_rng([SEED, 1])
    at = tuple(rng.integers(2, n - 2, 60) for n in data.shape)
    data[at] = rng.uniform(1400, 50000, 60)
    done = calibrate.remove_zingers(frame.replace(data=data))
    where = np.zeros(data.shape, bool)
    where[at] = True
    np.testing.assert_array_equal(found(done), where)
    np.testing.assert_array_equal(done.data[~where], data[~where])
    assert np.abs(np.asarray(done.data, float)[where] - 1000).max() < 100


def test_thin_lines_and_what_persists_stay_unless_one_median_alone_rules():
    frame = scan((9, 20, 128))
    data = np.array(frame.data)
    data[:, 10, 30] = 9000  # a hot pixel: dark and flat are for that
    data[4, :, 60] = 9000  # a moving edge: one column of one projection
    data[:, 2:17, 90] = 9000  # a thin line that stays
    dull, image, angle = (
        found(calibrate.remove_zingers(frame.replace(data=data), along=a)) for a in ("both", "image", "angle")
    )
    assert image[:, 10, 30].all()
    assert angle[4, :, 60].all()
    assert image[4, 5:15, 60].all()
    assert dull[4, 5:15, 60].all()  # one pixel wide and in one projection only: no median tells it from zingers
    assert not dull[:, 10, 30].any()
    assert not dull[:, 2:17, 90].any()


def test_what_one_median_alone_finds_leaves_no_flags():
    frame = scan()
    data = np.array(frame.data)
    data[:, 4, 20] = 9000
    assert calibrate.remove_zingers(frame.replace(data=data)).flags is None


def test_a_faint_zinger_beside_bright_ones_is_found():
    """The local scale is robust: five outliers of 2000 standard deviations within its columns do not hide one of 14."""
    frame = scan((7, 9, 128))
    data = np.array(frame.data)
    data[3, 4, 10:110:20] = 60000
    data[3, 4, 64] = 1420
    assert np.argwhere(found(calibrate.remove_zingers(frame.replace(data=data))))[:, 2].tolist() == [10, 30, 50, 64, 70, 90]


def test_dark_outliers_only_when_asked():
    frame = scan()
    data = np.array(frame.data)
    data[3, 4, 20] = 0
    assert not found(calibrate.remove_zingers(frame.replace(data=data))).any()
    assert np.argwhere(found(calibrate.remove_zingers(frame.replace(data=data), both_signs=True))).tolist() == [[3, 4, 20]]


def test_quantised_counts_of_little_noise_are_no_zingers():
    """Dark frames that are 100 nearly everywhere: one count more is rounding, not six standard deviations."""
    data = 100 + (np.random.default_rng(SEED).random((8, 30, 256)) < 0.004).astype(np.uint16)
    data[4, 10, 100] = 140
    for along in ("image", "angle", "both"):
        done = calibrate.remove_zingers(Frame(data, "TYX", Unit.ADU, UNKNOWN), along=along)
        assert np.argwhere(found(done)).tolist() == [[4, 10, 100]]


@pytest.mark.parametrize(
    "noise", [UNKNOWN, KNOWN, Noise(np.linspace(0.5, 2, 60, dtype=np.float32).reshape(20, 3).repeat(40, 1), 4.0)]
)
@pytest.mark.parametrize(("size", "along"), [(3, "both"), (5, "image"), (3, "angle"), (7, "both")])
def test_sections_with_their_halo_equal_the_whole(noise, size, along):
    frame = scan((5, 20, 120), noise)
    params = {"size": size, "along": along, "threshold": 1.5}
    whole = calibrate.remove_zingers(frame, **params)
    halo = needs_of(calibrate.remove_zingers).rows(frame, params)
    assert halo == (0 if along == "angle" else size // 2)
    for y in range(0, 20, 6):
        first, last = max(y - halo, 0), min(y + 6 + halo, 20)
        part = calibrate.remove_zingers(frame.crop(Box((first, 0), (last, 120))), **params)
        own = slice(y - first, min(y + 6, 20) - first)
        np.testing.assert_array_equal(part.data[:, own], whole.data[:, y : y + 6])
        np.testing.assert_array_equal(found(part)[:, own], found(whole)[:, y : y + 6])
    assert found(whole).any()


def test_noise_maps_rule_pixel_by_pixel():
    b = np.full((9, 40), 900.0, np.float32)
    b[:, 20:] = 1e8
    frame = scan(noise=Noise(0.0, b))
    data = np.array(frame.data)
    data[3, 4, 10] = data[3, 4, 30] = 2000
    assert np.argwhere(found(calibrate.remove_zingers(frame.replace(data=data)))).tolist() == [[3, 4, 10]]
    each = Noise(0.0, np.where(np.arange(7) == 3, 1e8, 900.0)[:, None, None])
    assert not found(calibrate.remove_zingers(frame.replace(data=data, noise=each))).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_without_a_value_are_filled_and_flagged(value):
    frame = scan((5, 9, 40))
    data = np.array(frame.data)
    data[:, :, 7] = value  # a dead column
    data[2, 3, 20:22] = value
    data[1, 1, 0] = value
    data[3, 5, 30] = 9000
    old = np.full((9, 40), int(Flag.HOT), np.uint8)
    done = calibrate.remove_zingers(frame.replace(data=data, flags=old))
    assert np.isfinite(done.data).all()
    flags = np.asarray(done.flags)
    np.testing.assert_array_equal((flags & int(Flag.NO_DATA)) != 0, ~np.isfinite(data))
    assert np.argwhere(found(done)).tolist() == [[3, 5, 30]]
    assert ((flags & int(Flag.HOT)) != 0).all()
    np.testing.assert_allclose(done.data[0, 0, 7], (data[0, 0, 6] + data[0, 0, 8]) / 2, rtol=1e-6)
    assert done.data[1, 1, 0] == data[1, 1, 1]
    np.testing.assert_allclose(done.data[2, 3, 20:22], np.interp([20, 21], [19, 22], data[2, 3, [19, 22]]), rtol=1e-6)


def test_history_unit_and_the_argument():
    frame = scan(noise=KNOWN, flags=np.full((9, 40), int(Flag.EDGE), np.uint8), std=np.full((9, 40), 2.0))
    before = np.array(frame.data)
    done = calibrate.remove_zingers(frame)
    np.testing.assert_array_equal(frame.data, before)
    assert not np.shares_memory(done.data, frame.data)
    assert done.history[-1].step == "calibrate.remove_zingers"
    rule = {"size": 3, "threshold": 6.0, "along": "both", "both_signs": False, "scale": "noise model"}
    assert done.history[-1].params == rule
    assert (done.unit, done.noise, done.std, done.flags) == (frame.unit, frame.noise, frame.std, frame.flags)
    single = calibrate.remove_zingers(scan((9, 40)))
    assert single.history[-1].params["along"] == "image"
    assert single.history[-1].params["scale"] == "local spread"
    assert single.data.shape == (9, 40)


def test_refusals():
    frame = scan()
    for params, message in (
        ({"size": 4}, "odd size"),
        ({"size": 1}, "odd size"),
        ({"threshold": 0.0}, "positive threshold"),
        ({"along": "time"}, "expected one of both, image, angle"),
    ):
        with pytest.raises(FrameError, match=message):
            calibrate.remove_zingers(frame, **params)
    with pytest.raises(FrameError, match="one exposure"):
        calibrate.remove_zingers(scan((9, 40)), along="angle")
    with pytest.raises(FrameError, match="expected AYX, TYX or YX"):
        calibrate.remove_zingers(Frame(frame.data, "ZYX", Unit.ADU, UNKNOWN))
    with pytest.raises(FrameError, match="mosaic"):
        calibrate.remove_zingers(scan((9, 40)).replace(geometry=Mosaic(BAYER)))
    data = np.array(frame.data)
    data[4, 3] = np.nan
    with pytest.raises(FrameError, match="row 3 of projection 4 holds no finite value"):
        calibrate.remove_zingers(frame.replace(data=data))
