"""Transmission: mean and noise law by exposure after exposure of a simulated scan, then units, flags and refusals."""

import numpy as np
import pytest

from firstlight import calibrate, simulate
from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import Scan
from firstlight.noise import Detector, Noise, Unmodelled

SEED = 20261121
SHAPE, ANGLES = (16, 20), np.array([0.0, 0.7, 1.6])
BEAM, GAIN, READ_NOISE, OFFSET = 9000.0, 2.0, 6.0, 300.0
DETECTOR = Detector(GAIN, READ_NOISE, OFFSET, 65535.0, source="simulation", step=1.0)


def sensor(dark: float = 30.0) -> simulate.Sensor:
    return simulate.make_sensor(
        SHAPE,
        np.random.default_rng(SEED),
        gain=GAIN,
        read_noise=READ_NOISE,
        offset=OFFSET,
        dark=dark,
        hot=0.01,
        prnu=0.03,
        vignetting=0.3,
    )


def truth() -> np.ndarray:
    return np.exp(-simulate.phantom_projections(ANGLES, *SHAPE, scale=3.0)[0])


def raw(camera: simulate.Sensor, electrons, rng, detector: Detector | None = DETECTOR, **more) -> Frame:
    electrons = np.asarray(electrons)
    axes = "AYX"[3 - electrons.ndim :]
    frame = Frame(camera.expose(electrons, rng, 10.0), axes, Unit.ADU, Unmodelled("no gain"), **more)
    return frame if detector is None else calibrate.assign(frame, detector=detector)


def scan(camera: simulate.Sensor, rng, n_white: int, n_dark: int) -> Frame:
    white = raw(camera, np.full((n_white, *SHAPE), BEAM), rng, None)
    dark = raw(camera, np.zeros((n_dark, *SHAPE)), rng, None)
    return calibrate.transmission(raw(camera, BEAM * truth(), rng, geometry=Scan(ANGLES)), white=white, dark=dark)


@pytest.mark.parametrize(("n_white", "n_dark"), [(2, 40), (20, 40), (20, 2)])
def test_mean_and_noise_law(n_white, n_dark):
    """z = (t - truth)/sqrt(law): mean 0; mean square 1, less what the law's upper bound for the dark's share is above it."""
    camera, t, rng = sensor(), truth(), np.random.default_rng([SEED, n_white, n_dark])
    beam, dark = BEAM * camera.response / GAIN, camera.dark * 10 / GAIN
    floor = (READ_NOISE / GAIN) ** 2 + 1 / 12
    own, of_white, of_dark = (
        (t * beam + dark) / GAIN + floor,
        ((beam + dark) / GAIN + floor) / n_white,
        (dark / GAIN + floor) / n_dark,
    )
    exact = (own + t**2 * of_white + (1 - t) ** 2 * of_dark) / beam**2
    classes = np.digitize(t, np.quantile(t, [1 / 3, 2 / 3]))
    draws, z, z2, over = 300, np.zeros(t.shape), np.zeros(t.shape), np.zeros(t.shape)
    for _ in range(draws):
        done = scan(camera, rng, n_white, n_dark)
        law = done.noise.variance(t)
        z += (done.data - t) / np.sqrt(law)
        z2 += (done.data - t) ** 2 / law
        over += exact / law
    for k in range(3):
        n = draws * np.count_nonzero(classes == k)
        mean, square, expected = (part[classes == k].sum() / n for part in (z, z2, over))
        assert abs(mean) < 4.5 / np.sqrt(n) + 0.02, f"biased by {mean} sigma in class {k}"  # var(white)/white^2: .01 sigma
        # pixels of one column of angles share their white and dark
        assert square == pytest.approx(expected, abs=4.5 * np.sqrt(2 * 3 / n) + 0.004)
        assert expected < 1.001
        if n_dark == 40:
            assert expected > 0.98


def test_what_the_frames_share_is_in_c_and_d():
    """A mean over draws that share white and dark keeps c t^2 + d: they are no noise of the single projection."""
    camera, t, rng = sensor(), truth()[:1], np.random.default_rng([SEED, 9])
    square, draws = np.zeros(t.shape), 120
    for _ in range(draws):
        white, dark = raw(camera, np.full((2, *SHAPE), BEAM), rng), raw(camera, np.zeros((40, *SHAPE)), rng)
        many = raw(camera, BEAM * np.repeat(t, 60, axis=0), rng)
        done = calibrate.transmission(many, white=white, dark=dark)
        square += (np.mean(done.data, axis=0) - t) ** 2 / done.noise.averaged(60).variance(t)
    assert square.mean() / draws == pytest.approx(1, abs=4.5 * np.sqrt(2 / (draws * t.size)) + 0.02)


def simple(**more) -> tuple[Frame, Frame, Frame]:
    about = {"observation": Observation(exposure=2.0, saturation=4000.0, offset=100.0)}
    frame = Frame(np.full((3, 4, 5), 600, np.uint16), "AYX", Unit.ADU, Noise(0.5, 4.0, 100.0), geometry=Scan(ANGLES), **about)
    white = Frame(np.full((2, 4, 5), 1100, np.uint16), "AYX", Unit.ADU, Unmodelled("no gain"))
    dark = Frame(np.full((4, 5), 100, np.uint16), "YX", Unit.ADU, Unmodelled("no gain"))
    return frame.replace(**more), white, dark


def run(frame: Frame, white: Frame, dark: Frame) -> Frame:
    return calibrate.transmission(frame, white=white, dark=dark)


def changed(frame: Frame, at, value, dtype=np.float32) -> Frame:
    data = np.asarray(frame.data).astype(dtype)
    data[at] = value
    return frame.replace(data=data)


def test_figures_by_hand():
    frame, white, dark = simple()
    before = np.array(frame.data)
    done = run(frame.replace(std=np.full((4, 5), 30.0)), white, dark)
    assert done.unit is Unit.TRANSMISSION
    assert done.data.dtype == np.float32
    assert (done.data == 0.5).all()
    # per e-: a = .5, b = 4; beam 1000; white (.5 1000 + 4)/2, dark 4
    at = done.noise.variance(np.full((3, 4, 5), 0.5))
    assert at == pytest.approx((0.5 * 500 + 4 + 4 + 0.25 * 252) / 1e6)
    assert done.noise.averaged(10**9).variance(np.full((4, 5), 0.5)) == pytest.approx((4 + 0.25 * 252) / 1e6, rel=1e-5)
    assert done.std == pytest.approx(np.full((4, 5), 0.03))
    assert (done.observation.saturation, done.observation.offset) == (None, 0.0)
    assert done.flags is None
    assert done.geometry is frame.geometry
    assert done.history[-1].step == "calibrate.transmission"
    assert done.history[-1].params == {"whites": 2, "darks": 1}
    assert set(done.history[-1].inputs) == {"white", "dark"}
    np.testing.assert_array_equal(frame.data, before)


def test_wide_integers_keep_their_digits():
    frame, white, dark = simple(noise=Unmodelled("no gain"))
    big = [
        p.replace(data=(np.asarray(p.data).astype(np.uint32) + 4_000_000_000), observation=Observation())
        for p in (frame, white, dark)
    ]
    assert run(*big).data == pytest.approx(0.5, rel=1e-9)
    assert isinstance(run(*big).noise, Unmodelled)


def test_white_and_dark_that_know_their_noise_are_taken_at_their_word():
    frame, white, dark = simple()
    known = [p.replace(noise=Noise(0.5, 4.0, 100.0)) for p in (white, dark)]
    assert run(frame, *known).noise.c == pytest.approx(run(frame, white, dark).noise.c)
    one = calibrate.master([known[0].crop(Box((i, 0, 0), (i + 1, 4, 5))) for i in range(2)], method="mean")
    assert run(frame, one, known[1]).noise.c == pytest.approx(run(frame, white, dark).noise.c)
    assert isinstance(run(frame.replace(noise=Unmodelled("why")), *known).noise, Unmodelled)


def test_noise_per_cell():
    cell = np.array([[1.0, 2.0], [3.0, 4.0]])
    frame, white, dark = simple(noise=Noise(cell, cell, 100.0))
    full = np.tile(cell, (2, 3))[:, :5]
    assert run(frame, white, dark).noise.variance(np.full((3, 4, 5), 0.5)) == pytest.approx(
        np.broadcast_to((full * 500 + 2 * full + 0.25 * full * 1001 / 2) / 1e6, (3, 4, 5)), rel=1e-6
    )


def test_flags_of_white_dark_and_saturation():
    frame, white, dark = simple(flags=np.full((1, 4, 5), int(Flag.EDGE), np.uint8))
    frame = changed(frame, (1, 2, 2), 4000, np.uint16)
    flags = np.zeros((2, 4, 5), np.uint8)
    flags[0, 0, 0] = Flag.COSMIC_RAY
    flags[:, 0, 1] = Flag.HOT
    flags[1, 0, 2] = Flag.SATURATED
    white = changed(white, (0, 0, 0), 60000).replace(flags=flags)
    white = changed(changed(white, (0, 1, 0), np.nan), (slice(None), 1, 1), np.nan)
    done = run(frame, white, changed(dark, (3, 4), 1100))
    got = np.asarray(done.flags) & np.uint8(255 - Flag.EDGE)
    assert done.data[0, 0, 0] == 0.5  # the cosmic ray is left out of the white, and its one exposure less counts
    assert done.noise.c[0, 0] == pytest.approx(2 * done.noise.c[2, 0])
    assert done.data[0, 1, 0] == 0.5
    assert got[0, 0, :3].tolist() == [0, int(Flag.HOT), int(Flag.SATURATED)]
    assert got[0, 1, :2].tolist() == [0, int(Flag.NO_DATA)]
    assert got[0, 3, 4] == int(Flag.DEAD)
    assert got[:, 2, 2].tolist() == [0, int(Flag.SATURATED), 0]
    assert (done.data[:, 1, 1] == 1).all()
    assert (done.data[:, 3, 4] == 1).all()
    assert np.isfinite(done.data).all()
    assert np.isfinite(done.noise.variance(done.data)).all()
    assert np.count_nonzero(got) == 3 + 3 + 3 + 3 + 1


def test_a_saturated_white_is_flagged_by_its_level():
    frame, white, dark = simple()
    white = changed(white, (1, 1, 1), 4000, np.uint16).replace(observation=Observation(saturation=4000.0))
    assert np.argwhere(run(frame, white, dark).flags).tolist() == [[1, 1]]


def test_all_three_may_be_without_offset_but_not_some():
    parts = simple()
    free = [calibrate.subtract_offset(p, offset=100.0) for p in parts]
    assert run(*free).data == pytest.approx(run(*parts).data)
    assert run(*free).noise.variance(0.5 * np.ones((3, 4, 5))) == pytest.approx(
        run(*parts).noise.variance(0.5 * np.ones((3, 4, 5)))
    )
    for k in range(3):
        with pytest.raises(FrameError, match="offset was removed from some"):
            run(*(free[i] if i == k else parts[i] for i in range(3)))


def test_refusals():
    frame, white, dark = simple()
    with pytest.raises(FrameError, match="white: got a frame in electron"):
        run(frame, white.replace(unit=Unit.ELECTRON), dark)
    with pytest.raises(FrameError, match=r"dark of .* px"):
        run(frame, white, dark.crop(Box((0, 0), (3, 5))))
    with pytest.raises(FrameError, match="3 s, projections of 2 s"):
        run(frame, white.replace(observation=Observation(exposure=3.0)), dark)
    done = run(frame, white, dark)
    with pytest.raises(FrameError, match="expected adu"):
        run(done, white, dark)
    with pytest.raises(FrameError, match="no one level tells"):
        calibrate.flag_saturated(done, level=0.9)
    with pytest.raises(FrameError, match=r"has been through calibrate\.combine"):
        run(calibrate.combine([frame, frame]), white, dark)
