"""Shifts between frames, and moving them by whole pixels."""

import numpy as np
import pytest
from scipy.ndimage import shift as spline_shift

from firstlight import calibrate, simulate
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import BAYER, Mosaic, Sky
from firstlight.noise import Noise, Unmodelled

NOISE = Noise(1.0, 9.0)


def frame(data, noise=NOISE, **more) -> Frame:
    data = np.asarray(data)
    return Frame(data, "T" * (data.ndim - 2) + "YX", Unit.ELECTRON, noise, **more)


def two_views(rng, dy, dx, size=160, hot=0.0, sky=40.0):
    """One star field seen twice, the second time moved by (-dy, -dx), with hot pixels that do not move."""
    big, _ = simulate.star_field((size + 80, size + 80), rng, n=150, sky=sky)
    fixed = 3000 * (rng.random((size, size)) < hot)
    away = spline_shift(big, (-dy, -dx), order=3, mode="nearest").clip(0)
    cut = (slice(40, 40 + size), slice(40, 40 + size))
    return tuple(frame(NOISE.sample(v[cut], rng) + fixed) for v in (big, away))


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, -5), (-12.3, 4.6), (0.25, 0.7), (25, -31)])
def test_shifts_are_found_to_a_fraction_of_a_pixel(dy, dx):
    found = calibrate.measure_shift(*two_views(np.random.default_rng(1), dy, dx))
    assert (found.dy, found.dx) == pytest.approx((dy, dx), abs=0.12)
    assert found.confidence > 12


def test_same_as_scikit_image_where_it_can_be():
    from skimage.registration import phase_cross_correlation

    a, b = two_views(np.random.default_rng(2), 2.4, -1.2, size=256)
    theirs, *_ = phase_cross_correlation(a.data - 40, b.data - 40, upsample_factor=20, normalization=None)
    assert calibrate.shift_between(a, b) == pytest.approx(tuple(theirs), abs=0.15)


@pytest.mark.parametrize("flagged", [True, False])
def test_fixed_hot_pixels_do_not_hold_the_frames(flagged):
    a, b = two_views(np.random.default_rng(3), 6, -4, hot=0.005)
    if flagged:
        a, b = (calibrate.flag_hot_pixels(f) for f in (a, b))
        b.data[5, 5] = np.nan
    assert calibrate.shift_between(a, b) == pytest.approx((6, -4), abs=0.1)


def test_frames_without_a_common_scene_are_refused():
    rng = np.random.default_rng(4)
    noise = [frame(rng.normal(100, 5, (128, 128))) for _ in range(4)]
    assert all(calibrate.measure_shift(noise[0], n).confidence < 6.5 for n in noise[1:])
    with pytest.raises(FrameError, match="frame 1 matches the reference with confidence"):
        calibrate.register(noise)
    with pytest.raises(FrameError, match="no structure"):
        calibrate.register([frame(np.ones((32, 32)))] * 2)
    with pytest.raises(FrameError, match="one shape"):
        calibrate.register([noise[0], frame(rng.normal(0, 1, (100, 128)))])
    with pytest.raises(FrameError, match="reference 7"):
        calibrate.register(noise, reference=7)


def test_register_moves_every_part_by_whole_pixels():
    a, b = two_views(np.random.default_rng(5), 3, -5)
    shape = a.shape
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    flags = np.zeros(shape, dtype=np.uint8)
    flags[50, 60] = Flag.HOT
    cards = (("CRPIX1", 10.0), ("CRPIX2", 20.0))
    b = b.replace(noise=Noise(1.0, 9 + y, c=1e-4 * x), std=y + 1000 * x, flags=flags, geometry=Sky(cards))
    kept, moved = calibrate.register([a, b])
    assert np.array_equal(kept.data, a.data)
    assert kept.history[-1].params["dy"] == 0
    inside = (slice(3, None), slice(None, -5))
    source = (slice(None, -3), slice(5, None))
    np.testing.assert_array_equal(moved.data[inside], b.data[source])
    np.testing.assert_array_equal(moved.noise.b[inside], b.noise.b[source])
    np.testing.assert_array_equal(moved.noise.c[inside], b.noise.c[source])
    np.testing.assert_array_equal(moved.std[inside], b.std[source])
    assert moved.flags[53, 55] == Flag.HOT
    assert np.all(moved.flags[:3] == Flag.NO_DATA)
    assert np.all(moved.flags[:, -5:])
    assert np.count_nonzero(moved.flags) == 1 + 3 * shape[1] + 5 * (shape[0] - 3)
    assert dict(moved.geometry.cards) == {"CRPIX1": 5.0, "CRPIX2": 23.0}
    params = moved.history[-1].params
    assert (params["dy"], params["dx"]) == (3, -5)
    assert params["confidence"] > 12
    np.testing.assert_array_equal(b.flags, flags)


def test_a_mosaic_moves_by_whole_periods_and_keeps_its_cell():
    rng = np.random.default_rng(6)
    mosaic = Mosaic(BAYER, (1, 0))
    big, _ = simulate.star_field((260, 260), rng, n=150, fwhm=5.0)
    cell = np.array([[1.0, 2.0], [3.0, 4.0]])
    frames = [
        frame(
            NOISE.sample(big[dy : dy + 200, dx : dx + 200], rng) * np.array([1.0, 2.0, 0.5])[mosaic.at((200, 200))],
            Noise(1.0, cell),
            geometry=mosaic,
            observation=Observation(saturation=cell),
        )
        for dy, dx in ((20, 20), (27, 12))
    ]
    found = calibrate.shift_between(*frames)
    assert found == pytest.approx((7, -8), abs=0.5)
    moved = calibrate.register(frames)[1]
    assert moved.history[-1].params["dy"] in (6, 8)
    assert moved.history[-1].params["dx"] == -8
    assert moved.geometry == mosaic
    assert np.array_equal(moved.noise.b, cell)
    assert np.array_equal(moved.observation.saturation, cell)


def test_registered_frames_that_share_a_dark_average_it_down():
    # a master's error is fixed on the detector; moved frames see it in four places
    rng = np.random.default_rng(7)
    big, _ = simulate.star_field((200, 200), rng, n=150, sky=100.0)
    law = Noise(1.0, 9.0, d=400.0)
    z2 = []
    for _ in range(4):
        error = rng.normal(0, 20, (120, 120))
        starts = [(40, 40), (42, 37), (35, 44), (47, 45)]
        frames = [frame(NOISE.sample(big[y : y + 120, x : x + 120], rng) + error, law) for y, x in starts]
        stack = calibrate.combine(calibrate.register(frames), method="mean")
        truth = big[40:160, 40:160]
        good = (slice(12, -12), slice(12, -12))
        z2.append(np.mean(((stack.data - truth) ** 2 / stack.noise.variance(truth))[good]))
    assert np.mean(z2) == pytest.approx(1, abs=0.04)


def test_hatp32_fifty_frames(data):
    """50 frames, 2 px of drift a frame: fixed hot pixels, shifts, and the noise of the stack."""
    from astropy.io import fits
    from scipy.stats import sigmaclip

    files = sorted((data / "astronomy" / "hatp32").glob("*.FITS.gz"))
    raw = [
        frame(fits.getdata(f), Unmodelled("no gain: pass a detector"), observation=Observation(saturation=4095.0))
        for f in files
    ]
    assert len(raw) == 50
    raw = [calibrate.flag_saturated(f) for f in raw]
    # the median of the drifting frames varies by .47 ADU: 10.7 of that are 5 ADU, three and a half times a frame's noise
    strong = calibrate.flag_hot_pixels(raw[0].replace(flags=None), reference=raw, sigma=10.7)
    assert 1300 < np.count_nonzero(strong.flags) < 1900
    hot = calibrate.flag_hot_pixels(raw[0].replace(flags=None), reference=raw).flags
    level = [np.median(f.data) for f in raw]
    flags = [hot if f.flags is None else f.flags | hot for f in raw]
    clean = [f.replace(data=f.data - np.float32(m), flags=b) for f, m, b in zip(raw, level, flags, strict=True)]
    moved = calibrate.register(clean)
    shifts = np.array([f.history[-1].params["measured"] for f in moved])
    assert min(f.history[-1].params["confidence"] for f in moved) > 50
    assert np.abs(shifts[-1]) == pytest.approx((51.2, 85.2), abs=0.5)
    assert np.linalg.norm(shifts[-1]) / 49 == pytest.approx(2, abs=0.1)

    halves = [calibrate.combine(moved[i::2]) for i in (0, 1)]
    sky = np.zeros(moved[0].shape, dtype=bool)
    sky[60:-60, 100:-100] = True
    sky &= np.abs(halves[0].data) < 2
    single = sigmaclip(((moved[1].data - moved[0].data) / np.sqrt(2))[sky], 4, 4).clipped.std()
    stack = sigmaclip(((halves[1].data - halves[0].data) / 2)[sky], 4, 4).clipped.std()
    assert single == pytest.approx(1.4, abs=0.15)
    assert stack < single / 6  # sqrt(50) = 7.1
    assert np.median(halves[0].std[sky]) / np.sqrt(2) == pytest.approx(stack, rel=0.15)
