import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.calibrate import superpixel, to_electrons
from firstlight.calibrate.superpixel import downsample_documented, superpixels
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise, Unmodelled, spread


def mosaic_frame(data, pattern=BAYER, phase=(0, 0), noise=None, **more):
    noise = noise or Unmodelled("no gain")
    return Frame(np.asarray(data), "YX", Unit.ADU, noise, geometry=Mosaic(pattern, phase), **more)


def by_hand(data, mosaic, k, pixels=np.mean):
    """Each window's pixels of each colour, one window at a time: the definition, in loops."""
    color = mosaic.at(data.shape)
    rows, cols = data.shape[0] // k, data.shape[1] // k
    out = np.zeros((len(mosaic.colors), rows, cols))
    for c, i, j in np.ndindex(*out.shape):
        window = (slice(i * k, i * k + k), slice(j * k, j * k + k))
        out[c, i, j] = pixels(data[window][color[window] == c])
    return out


CASES = [(BAYER, 2), (BAYER, 4), (XTRANS, 4), (XTRANS, 3), (XTRANS, 6)]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(CASES), st.integers(0, 5), st.integers(0, 5), st.integers(12, 41), st.integers(12, 41), st.integers(0, 99)
)
def test_means_and_flags_are_those_of_the_windows_at_every_phase(case, py, px, rows, cols, seed):
    pattern, k = case
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 16384, (rows, cols)).astype(np.uint16)
    flags = np.where(rng.random((rows, cols)) < 0.05, np.uint8(Flag.HOT), np.uint8(0))
    frame = mosaic_frame(data, pattern, (py, px), flags=flags, observation=Observation(saturation=16000.0))
    try:
        got = superpixels(frame, factor=k)
    except FrameError:
        counts = by_hand(data, frame.geometry, k, len)
        assert counts.min() == 0 or min(rows, cols) < 12  # nothing but a lacking colour is refused
        return
    assert got.data.dtype == np.float32
    np.testing.assert_allclose(got.data, by_hand(data, frame.geometry, k), rtol=1e-7)
    raw = flags | (data >= 16000).astype(np.uint8) * np.uint8(Flag.SATURATED)
    want = by_hand(raw, frame.geometry, k, np.bitwise_or.reduce)
    np.testing.assert_array_equal(np.broadcast_to(0 if got.flags is None else got.flags, want.shape), want)
    assert got.observation.saturation is None
    assert got.geometry is None
    assert got.axes == "CYX"


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(CASES), st.integers(0, 5), st.integers(0, 5), st.integers(0, 99))
def test_variance_is_that_of_independent_pixels_whatever_the_noise_model(case, py, px, seed):
    pattern, k = case
    rng = np.random.default_rng(seed)
    shape = (25, 38)
    kinds = [
        lambda: float(rng.uniform(1, 9)),
        lambda: rng.uniform(1, 9, Mosaic(pattern).period),
        lambda: rng.uniform(1, 9, shape),
    ]
    a = float(rng.uniform(0.1, 2))
    b, offset, c, d = (kinds[rng.integers(3)]() for _ in range(4))
    c = float(np.mean(c)) * 1e-3
    frame = mosaic_frame(np.zeros(shape, np.float32), pattern, (py, px), Noise(a, b, offset, c, d))
    try:
        got = superpixels(frame, factor=k)
    except FrameError:
        assert by_hand(frame.data, frame.geometry, k, len).min() == 0
        return
    signal = 300.0
    mean = np.asarray(spread(frame.noise.offset, shape)) + np.full(shape, signal)
    var = frame.noise.variance(mean)
    want = by_hand(var, frame.geometry, k, lambda v: v.sum() / v.size**2)
    np.testing.assert_allclose(got.noise.variance(by_hand(mean, frame.geometry, k)), want, rtol=2e-6)


@pytest.mark.parametrize(("pattern", "k"), [(BAYER, 2), (XTRANS, 4)])
def test_monte_carlo_noise_is_white_unbiased_and_as_predicted(pattern, k):
    rng = np.random.default_rng(20)
    shape, gain, read, black = (1152, 1536), 2.5, 4.0, 512.0
    light = np.array([60.0, 150.0, 90.0])[Mosaic(pattern).at(shape)]  # e-, each colour flat
    adu = (rng.poisson(light) + rng.normal(0, read, shape)) / gain + black
    got = superpixels(mosaic_frame(adu, pattern, noise=Noise(1 / gain, (read / gain) ** 2, black)))
    assert got.shape == (3, shape[0] // k, shape[1] // k)
    mean = np.array([60.0, 150.0, 90.0])[:, None, None] / gain + black
    var = np.broadcast_to(got.noise.variance(np.broadcast_to(mean, got.shape)), got.shape)
    z = (got.data - mean) / np.sqrt(var)
    for plane in z:
        n = plane.size
        assert abs(plane.mean()) < 4.5 / np.sqrt(n)
        assert abs(plane.var() - 1) < 4.5 * np.sqrt(2.1 / n)
        for lag in (plane[:, 1:] * plane[:, :-1], plane[1:] * plane[:-1]):
            assert abs(lag.mean()) < 4.5 / np.sqrt(n)


def test_sizes_of_the_sid_cameras():
    sony = superpixels(mosaic_frame(np.zeros((2848, 4256), np.uint16), BAYER))
    fuji = superpixels(mosaic_frame(np.zeros((4032, 6032), np.uint16), XTRANS))
    assert (sony.shape, fuji.shape) == ((3, 1424, 2128), (3, 1008, 1508))


def test_every_xtrans_window_of_4_px_holds_at_least_3_red_8_green_3_blue_at_every_phase():
    least = np.full(3, 99)
    for phase in np.ndindex(6, 6):
        frame = mosaic_frame(np.zeros((24, 24)), XTRANS, phase)
        counts = superpixel._Windows.of(frame, frame.geometry, 4, "test").counts
        assert counts.sum(axis=0).tolist() == [[16] * 3] * 3
        least = np.minimum(least, counts.min(axis=(1, 2)))
    assert least.tolist() == [3, 8, 3]


def test_noise_of_bayer_stays_small_and_of_xtrans_is_a_map():
    noise = Noise(0.4, 2.0, 512.0)
    bayer = superpixels(mosaic_frame(np.zeros((24, 24)), BAYER, noise=noise)).noise
    assert np.ravel(bayer.a).tolist() == [0.4, 0.2, 0.4]
    assert np.ravel(bayer.b).tolist() == [2.0, 1.0, 2.0]
    assert bayer.offset == 512.0
    xtrans = superpixels(mosaic_frame(np.zeros((24, 24)), XTRANS, noise=noise)).noise
    assert xtrans.a.shape == (3, 6, 6)
    assert xtrans.offset == 512.0


@pytest.mark.parametrize("phase", [(0, 0), (1, 2), (3, 3), (5, 4)])
def test_xtrans_packed_as_2x2_raises(phase):
    with pytest.raises(FrameError, match=r"lack .*windows of 4 px"):
        superpixels(mosaic_frame(np.zeros((24, 24)), XTRANS, phase), factor=2)


def test_the_tree_of_refusals():
    plain = Frame(np.zeros((8, 8)), "YX", Unit.ADU, Unmodelled("x"))
    with pytest.raises(FrameError, match="no mosaic"):
        superpixels(plain)
    with pytest.raises(FrameError, match="display values"):
        superpixels(plain.replace(unit=Unit.DISPLAY, geometry=Mosaic(BAYER)))
    with pytest.raises(FrameError, match="pass factor="):
        superpixels(plain.replace(geometry=Mosaic(((0, 1, 2),))))
    with pytest.raises(FrameError, match="at least one"):
        superpixels(mosaic_frame(np.zeros((3, 9)), XTRANS))
    with pytest.raises(FrameError, match="even number"):
        downsample_documented(mosaic_frame(np.zeros((8, 8))), factor=3)


def test_the_rest_of_the_frame_goes_along_and_the_input_stays():
    data = np.arange(64, dtype=np.uint16).reshape(8, 8)
    seen = Observation(offset=np.array([[510.0, 512.0], [514.0, 516.0]]), saturation=np.array([[60.0, 99.0], [99.0, 99.0]]))
    frame = mosaic_frame(data, std=np.full((8, 8), 3.0), spacing={"Y": 0.5, "X": 0.5}, observation=seen)
    before = data.copy()
    got = superpixels(frame)
    assert np.ravel(got.observation.offset).tolist() == [510.0, 513.0, 516.0]
    assert got.spacing == {"Y": 1.0, "X": 1.0}
    np.testing.assert_array_equal(got.std, 3.0)  # no independence is claimed, so an average gains nothing
    assert isinstance(got.noise, Unmodelled)
    assert got.history[-1].step == "calibrate.superpixels"
    assert got.history[-1].params == {"factor": 2}
    assert got.flags is None  # red reaches 54 only
    np.testing.assert_array_equal(data, before)
    hot = superpixels(frame.replace(observation=Observation(saturation=np.array([[50.0, 99.0], [99.0, 99.0]]))))
    assert np.argwhere(hot.flags == Flag.SATURATED).tolist() == [[0, 3, 1], [0, 3, 2], [0, 3, 3]]


def test_nan_stays_nan_and_hides_no_saturation():
    data = np.full((4, 4), 100.0)
    data[0, 0], data[2, 2] = np.nan, 900.0
    got = superpixels(mosaic_frame(data, observation=Observation(saturation=900.0)))
    assert np.isnan(got.data[0, 0, 0])
    assert np.isfinite(got.data).sum() == got.data.size - 1
    assert got.flags[0, 1, 1] == Flag.SATURATED


@pytest.mark.parametrize("level", [900.0, np.array([[900.0, 800.0], [700.0, 600.0]]), np.full((1, 60), 900.0)])
def test_saturation_is_found_all_over_a_tall_image(level):
    rng = np.random.default_rng(7)
    data = rng.integers(0, 901, (700, 60)).astype(np.uint16)
    frame = mosaic_frame(data, observation=Observation(saturation=level))
    hit = (data >= np.tile(level, (350, 30)) if np.shape(level) == (2, 2) else data >= level).astype(np.uint8)
    np.testing.assert_array_equal(superpixels(frame).flags, by_hand(hit, frame.geometry, 2, np.bitwise_or.reduce))


def test_documented_is_the_area_mean_of_rggb_cells_whatever_the_mosaic():
    rng = np.random.default_rng(4)
    data = rng.integers(512, 16384, (48, 72)).astype(np.uint16)
    with warnings.catch_warnings(action="error"):  # a true RGGB mosaic: the same superpixels, nothing to warn of
        sony = downsample_documented(mosaic_frame(data), factor=2)
    np.testing.assert_array_equal(sony.data, superpixels(mosaic_frame(data)).data)
    with pytest.warns(UserWarning, match="mixtures of colours"):
        fuji = downsample_documented(mosaic_frame(data, XTRANS), factor=4)
    whole = data.astype(np.float64)
    r, g, b = whole[::2, ::2], (whole[::2, 1::2] + whole[1::2, ::2]) / 2, whole[1::2, 1::2]
    want = np.stack([p.reshape(12, 2, 18, 2).mean(axis=(1, 3)) for p in (r, g, b)])
    np.testing.assert_allclose(fuji.data, want, rtol=1e-6)
    with pytest.warns(UserWarning, match="mixtures"):
        downsample_documented(mosaic_frame(data, BAYER, (0, 1)), factor=2)


def test_a_binned_frame_no_longer_tells_its_gain():
    frame = superpixels(mosaic_frame(np.full((8, 8), 700.0), noise=Noise(0.4, 2.0, 512.0)))
    with pytest.raises(FrameError, match=r"no longer|does not tell the gain"):
        to_electrons(frame)
    electrons = to_electrons(frame, gain=2.5)
    np.testing.assert_allclose(electrons.data, (700.0 - 512.0) * 2.5)
    np.testing.assert_allclose(np.ravel(electrons.noise.a), [1.0, 0.5, 1.0])
