"""Offset, gain, saturation, exposure, and the documented profile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight import calibrate
from firstlight.errors import FirstlightError, FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import BAYER, Mosaic
from firstlight.noise import Detector, Noise, Unmodelled
from firstlight.scaling import Scaling

DETECTOR = Detector(2.0, 3.0, 100.0, 4095.0, source="test")
UNKNOWN = Unmodelled("no gain: pass a detector")


def frame(data, unit=Unit.ADU, noise=UNKNOWN, **more) -> Frame:
    data = np.asarray(data)
    return Frame(data, "TSCZA"[: data.ndim - 2] + "YX", unit, noise, **more)


def raw(data, detector=DETECTOR, **more) -> Frame:
    return calibrate.assign(frame(data, **more), detector=detector)


# ADU, gain [e-/ADU], read noise [e-], scale, offset: electrons and scaled value (FACTS.md, "Documented calibration")
DOCUMENTED = [
    (100, 5.0, 3.56, Scaling(80000.0), "496.44", "0.0062055"),
    (15871, 5.0, 3.56, Scaling(80000.0), "79351.44", "0.991893"),
    (15359, 1.8, 3.75, Scaling(80000.0), "27642.45", "0.345531"),
    (0, 1.0, 3.5, Scaling(170.0, 5.0), "-3.5", "0.0088235"),
    (65535, 1.0, 1.5, Scaling(66000.0), "65533.5", "0.992932"),
]


@pytest.mark.parametrize(("adu", "gain", "read_noise", "scaling", "electrons", "scaled"), DOCUMENTED)
def test_documented_profile_to_the_last_digit(adu, gain, read_noise, scaling, electrons, scaled):
    with pytest.warns(UserWarning, match="as if it were an offset"):
        done = calibrate.documented(frame([[adu]]), gain=gain, read_noise=read_noise)
    value = done.data[0, 0]
    assert done.unit is Unit.ELECTRON
    assert value.dtype == np.float32
    assert value == np.float32(electrons)
    small = scaling.apply(done.data)[0, 0]
    assert f"{small:.{len(scaled.split('.')[1])}f}" == scaled
    assert abs(scaling.invert(small) - value) <= 2 * np.spacing(np.float32(max(abs(value), scaling.offset)))


def test_assign_sets_noise_and_saturation_and_leaves_data():
    f = raw(np.arange(4, dtype=np.uint16).reshape(2, 2))
    assert (f.noise.a, f.noise.b, f.noise.offset) == (0.5, 2.25, 100.0)
    assert f.observation.saturation == 4095.0
    assert f.data.dtype == np.uint16
    assert f.history[-1].params["detector"]["source"] == "test"


@pytest.mark.parametrize("step", [calibrate.subtract_offset, calibrate.to_electrons])
def test_assign_refuses_what_has_been_calibrated(step):
    with pytest.raises(FrameError, match="has been through"):
        calibrate.assign(calibrate.subtract_offset(raw([[1.0]])), detector=DETECTOR)
    with pytest.raises(FrameError, match="expected adu"):
        calibrate.assign(frame([[1.0]], unit=Unit.ELECTRON), detector=DETECTOR)


@given(st.floats(0.1, 20), st.floats(0, 500), st.sampled_from([np.uint16, np.float32, np.float64]), st.integers(0, 2**31))
def test_electrons_of_any_gain_and_offset(gain, offset, dtype, seed):
    data = np.random.default_rng(seed).integers(0, 4000, (4, 6)).astype(dtype)
    before = data.copy()
    f = raw(data, Detector(gain, 2.0, offset))
    one, two = calibrate.to_electrons(f), calibrate.to_electrons(calibrate.subtract_offset(f))
    np.testing.assert_allclose(one.data, gain * (data.astype(float) - offset), rtol=1e-5, atol=1e-3 * gain)
    np.testing.assert_array_equal(one.data, two.data)
    assert one.noise.a == pytest.approx(1)
    assert one.noise.b == pytest.approx(4)
    assert one.noise.offset == 0
    assert one.unit is Unit.ELECTRON
    assert np.array_equal(data, before)
    assert [r.step for r in two.history[1:]] == ["calibrate.subtract_offset", "calibrate.to_electrons"]


def test_negative_values_are_kept():
    assert calibrate.subtract_offset(raw([[90, 110]])).data.tolist() == [[-10, 10]]


def test_a_cfa_cell_of_offsets_meets_its_pixels():
    cell = np.array([[0.0, 1.0], [2.0, 3.0]])
    data = np.full((1, 5, 7), 100) + np.tile(cell, (3, 4))[:5, :7]
    f = raw(data, Detector(1.0, 1.0, 100 + cell, 200 + cell), geometry=Mosaic(BAYER))
    done = calibrate.subtract_offset(f)
    assert not done.data.any()
    assert np.array_equal(done.observation.saturation, np.full((2, 2), 100.0))


def test_offset_is_refused_where_unknown_or_already_gone():
    with pytest.raises(FrameError, match="no gain"):
        calibrate.subtract_offset(frame([[5.0]]))
    with pytest.raises(FrameError, match="already"):
        calibrate.subtract_offset(frame([[5.0]], noise=Noise(1.0, 1.0)), offset=100.0)
    with pytest.raises(FrameError, match="subtract_offset already"):
        calibrate.subtract_offset(calibrate.subtract_offset(frame([[5.0]]), offset=4.0), offset=4.0)
    with pytest.raises(FrameError, match="expected adu"):
        calibrate.subtract_offset(frame([[5.0]], unit=Unit.ELECTRON), offset=4.0)


def test_gain_is_refused_where_the_noise_no_longer_tells_it():
    f = calibrate.subtract_offset(raw(np.full((4, 4), 200.0)))
    stack = calibrate.combine([f, f], method="mean")
    flat = frame(np.linspace(50, 150, 16).reshape(4, 4), noise=Noise(0.5, 1.0), unit=Unit.ELECTRON)
    for spoilt in (stack, calibrate.divide_flat(f, flat=flat)):
        with pytest.raises(FrameError, match="pass gain="):
            calibrate.to_electrons(spoilt)
        assert calibrate.to_electrons(spoilt, gain=2.0).unit is Unit.ELECTRON
    with pytest.raises(FrameError, match="positive"):
        calibrate.to_electrons(f, gain=-2.0)
    with pytest.raises(FrameError, match="offset is unknown"):
        calibrate.to_electrons(frame([[5.0]]), gain=2.0)


def test_std_and_masters_noise_follow_the_gain():
    f = frame([[300.0]], noise=Noise(0.5, 1.0, 100.0, 0.01, 4.0), std=np.array([[3.0]]))
    done = calibrate.to_electrons(f)
    assert done.std.tolist() == [[6.0]]
    assert done.noise.c == 0.01
    assert done.noise.d == 16.0


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_saturation_is_found_at_every_stage_that_can_tell(dtype):
    data = np.array([[4094, 4095, 4096]], dtype=dtype)
    f = raw(data, Detector(3.3, 1.0, 100.1, 4095.0))
    for stage in (
        f,
        calibrate.subtract_offset(f),
        calibrate.to_electrons(f),
        calibrate.to_electrons(calibrate.subtract_offset(f)),
    ):
        done = calibrate.flag_saturated(stage)
        assert (done.flags == [[0, Flag.SATURATED, Flag.SATURATED]]).all()
        assert done.data is stage.data


def test_saturation_after_maps():
    f = raw(np.array([[[4000.0, 4095.0]]]))
    bias = raw(np.array([[100.0, 100.0]]))
    done = calibrate.subtract_bias(f, bias=bias)
    assert done.flags[..., 0].item() == 0
    assert done.flags[..., 1].item() == Flag.SATURATED
    with pytest.raises(FrameError, match="no one level"):
        calibrate.flag_saturated(done, level=4000.0)
    with pytest.raises(FrameError, match="unknown"):
        calibrate.flag_saturated(frame([[5.0]]))


def test_flags_are_joined_never_replaced():
    f = frame([[9.0, 1.0]], flags=np.array([[Flag.HOT, Flag.HOT]], dtype=np.uint16))
    assert calibrate.flag_saturated(f, level=5.0).flags.tolist() == [[Flag.HOT | Flag.SATURATED, Flag.HOT]]
    assert f.flags.tolist() == [[Flag.HOT, Flag.HOT]]


def test_to_counts():
    f = frame([[2.0]], unit=Unit.ELECTRON_RATE, noise=Noise(0.1, 0.04), std=np.array([[0.5]]))
    done = calibrate.to_counts(f, exposure=10.0)
    assert done.unit is Unit.ELECTRON
    assert done.data.tolist() == [[20.0]]
    assert done.std.tolist() == [[5.0]]
    assert done.noise.a == pytest.approx(1.0)
    assert done.noise.b == pytest.approx(4.0)
    assert calibrate.to_counts(f.replace(observation=Observation(exposure=3.0))).data.tolist() == [[6.0]]
    with pytest.raises(FrameError, match="exposure"):
        calibrate.to_counts(f)
    with pytest.raises(FrameError, match="expected electron/s"):
        calibrate.to_counts(done, exposure=10.0)


def test_maps_with_defects():
    gain, variance = np.full((4, 4), 0.5), np.full((4, 4), 2.0)
    gain[0, 0], gain[1, 1], variance[2, 2], variance[3, 3] = -0.4, np.nan, -1.0, 900.0
    f = calibrate.assign_maps(frame(np.full((2, 4, 4), 150)), offset=100.0, gain=gain, variance=variance)
    bad = np.zeros((4, 4), dtype=bool)
    bad[0, 0] = bad[1, 1] = bad[2, 2] = True
    assert np.array_equal(f.flags == Flag.DEFECT, bad)
    assert f.flags.shape == (4, 4)
    assert np.all(f.noise.a == 2.0)
    assert f.noise.b[3, 3] == 900.0
    assert np.all(f.noise.b[bad] == 2.0)
    assert np.all(calibrate.to_electrons(f).data == 25.0)
    with pytest.raises(FrameError, match="defect"):
        calibrate.assign_maps(frame(np.ones((2, 2))), offset=0, gain=-gain[2:, 2:], variance=1.0)
    with pytest.raises(FirstlightError, match="does not fit"):
        calibrate.assign_maps(frame(np.ones((9, 10))), offset=0, gain=np.ones((9, 9)), variance=1.0)


def test_a_detector_of_maps_is_the_same():
    gain = np.full((9, 9), 0.5)
    gain[4, 4] = -1.0
    f = raw(np.full((9, 9), 120), Detector(gain, np.full((9, 9), 1.5), 100.0))
    assert f.flags[4, 4] == Flag.DEFECT
    assert f.flags.sum() == Flag.DEFECT
    assert np.all(f.noise.a == 2.0)
    assert np.all(f.noise.b == 9.0)


def test_real_scmos_maps(data):
    from scipy.io import loadmat

    folder = data / "detector" / "scmos_maps"
    gain = loadmat(folder / "zb20_gainsub.mat")["gainsub"]  # ADU/e-
    variance = loadmat(folder / "zb20_varsub.mat")["varsub"]  # ADU^2
    rng = np.random.default_rng(5)
    counts = 100 + gain * rng.poisson(20.0, (4, 512, 512)) + rng.normal(0, np.sqrt(variance), (4, 512, 512))
    f = calibrate.assign_maps(frame(counts), offset=100.0, gain=1 / gain, variance=variance)
    bad = f.flags != 0
    # 11 gains are negative, down to -2.68, and three are 10 to 133 times too small
    assert bad.sum() == 14
    assert gain[bad].min() == pytest.approx(-2.68, abs=0.005)
    assert gain[~bad].min() > 0.2
    done = calibrate.to_electrons(f)
    z2 = ((done.data - 20) ** 2 / done.noise.variance(np.full(done.shape, 20.0)))[:, ~bad]
    assert z2.mean() == pytest.approx(1, abs=4.5 * np.sqrt(2 / z2.size) + 0.002)
    noisy = z2[:, np.broadcast_to(variance, (512, 512))[~bad] > 100]
    assert noisy.mean() == pytest.approx(1, abs=4.5 * np.sqrt(2 / noisy.size))


def test_no_step_mutates_or_expands_a_map():
    gain = np.full((8, 8), 2.0)
    f = raw(np.full((50, 8, 8), 300, dtype=np.uint16), Detector(gain, gain, 100.0))
    done = calibrate.to_electrons(f)
    assert np.shape(done.noise.a) == (8, 8)
    assert np.shape(done.noise.b) == (8, 8)
    assert np.all(f.data == 300)
    assert done.data.dtype == np.float32


def test_the_files_own_black_level_serves_where_the_noise_is_unknown():
    cell = np.array([[100.0, 101.0], [102.0, 103.0]])
    f = frame(np.full((2, 2), 110), geometry=Mosaic(BAYER), observation=Observation(offset=cell, saturation=200.0))
    for done in (calibrate.subtract_offset(f), calibrate.to_electrons(f, gain=1.0)):
        assert np.array_equal(done.data, 110 - cell)
        assert done.observation.offset == 0
        assert np.array_equal(done.observation.saturation, 200 - cell)
        with pytest.raises(FrameError):
            calibrate.subtract_offset(done)
    assert calibrate.to_electrons(calibrate.subtract_offset(f), gain=2.0).data[1, 1] == 14.0


def test_a_gain_and_a_read_noise_per_cell_go_through_the_whole_chain():
    """Regression: a CFA cell of gains met a map of the frame and failed to broadcast; cells stay cells where they can."""
    gain, read_noise, offset = (
        np.array([[1.0, 2.0], [4.0, 0.5]]),
        np.array([[3.0, 1.0], [2.0, 5.0]]),
        np.array([[0.0, 8.0], [9.0, 3]]),
    )
    rng, shape = np.random.default_rng(7), (400, 500)
    cells = Detector(gain, read_noise, offset, source="cells")
    full = [np.tile(k, (200, 250)) for k in (gain, read_noise, offset)]
    electrons = 50.0 + np.arange(500) / 10

    def exposed(mean):
        return raw(Detector(*full).noise().sample(full[2] + mean / full[0] * np.ones(shape), rng), cells)

    one = calibrate.to_electrons(exposed(electrons))
    assert one.noise.a == pytest.approx(np.ones((2, 2)))
    assert one.noise.b == pytest.approx(read_noise**2)
    bias = calibrate.master([exposed(0.0) for _ in range(4)])
    flat = calibrate.subtract_bias(calibrate.master([exposed(20000.0) for _ in range(4)]), bias=bias)
    light = calibrate.to_electrons(calibrate.subtract_bias(exposed(electrons), bias=bias))
    flattened = calibrate.divide_flat(
        light, flat=flat.replace(data=flat.data * full[0] / 20000, noise=flat.noise.scaled(full[0] / 20000))
    )
    for done in (one, light, flattened):
        z2 = (done.data - electrons) ** 2 / done.noise.variance(np.broadcast_to(electrons, shape))
        for y, x in np.ndindex(2, 2):
            assert z2[y::2, x::2].mean() == pytest.approx(1, abs=4.5 * np.sqrt(2 / 50000) + 0.005)
