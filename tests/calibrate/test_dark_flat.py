"""Bias, dark, flat, masters; their variance is proved in tests/contracts/test_noise_law.py, their figures here."""

import itertools

import numpy as np
import pytest

from firstlight import calibrate
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Detector, Noise, Unmodelled

NOISE = Noise(0.5, 2.25, 100.0)


def frame(data, noise=NOISE, exposure=None, unit=Unit.ADU, **more) -> Frame:
    data = np.asarray(data, dtype=np.float32)
    axes = "T" * (data.ndim - 2) + "YX"
    return Frame(data, axes, unit, noise, observation=Observation(exposure=exposure), **more)


def flat_frame(data, **more) -> Frame:
    return frame(data, noise=more.pop("noise", Noise(1.0, 4.0)), unit=Unit.ELECTRON, **more)


@pytest.mark.parametrize(("method", "share"), [("mean", 1 / 4), ("clip", 1 / 4), ("median", 1.1928 / 4)])
def test_master_noise_stays_a_number(method, share):
    rng = np.random.default_rng(1)
    frames = [frame(NOISE.sample(np.full((32, 32), 130.0), rng)) for _ in range(4)]
    out = calibrate.master(frames, method=method)
    assert out.noise.a == pytest.approx(0.5 * share, rel=1e-3)
    assert out.noise.b == pytest.approx(2.25 * share, rel=1e-3)
    assert out.noise.offset == 100.0
    assert out.std is None
    assert out.flags is None
    z2 = np.mean((out.data - 130) ** 2) / out.noise.variance(130.0)
    assert z2 == pytest.approx(1, abs=4.5 * np.sqrt(2 / 1024))
    assert out.history[-1].step == "calibrate.master"


def test_master_without_noise_states_its_scatter():
    rng = np.random.default_rng(2)
    frames = [frame(rng.normal(50, 6, (64, 64)), Unmodelled("no gain")) for _ in range(9)]
    out = calibrate.master(frames, method="mean")
    assert isinstance(out.noise, Unmodelled)
    assert np.sqrt(np.mean(out.std**2)) == pytest.approx(2.0, rel=0.02)
    # and that is enough for what it is subtracted from
    done = calibrate.subtract_bias(frame(np.full((64, 64), 70.0), Noise(0.5, 2.25, 50.0)), bias=out)
    assert np.mean(done.noise.d) == pytest.approx(4.0, rel=0.04)


def test_a_bias_of_unknown_noise_leaves_none():
    done = calibrate.subtract_bias(frame(np.ones((4, 4))), bias=frame(np.ones((4, 4)), Unmodelled("no gain")))
    assert "bias has no noise model" in done.noise.reason
    assert not done.data.any()


def test_dark_is_scaled_by_exposure():
    light, dark = (calibrate.subtract_offset(frame(np.full((4, 4), v), exposure=t)) for v, t in ((150.0, 30.0), (120.0, 10.0)))
    done = calibrate.subtract_dark(light, dark=dark)
    assert np.all(done.data == -10.0)
    assert done.history[-1].params["scale"] == 3.0
    assert len(done.history[-1].inputs["dark"]) == 64
    # shot noise of 60 ADU of dark in the light; 9 times the variance of the dark frame itself
    assert np.allclose(done.noise.b, 2.25 + 0.5 * 60)
    assert np.allclose(done.noise.d, 9 * (0.5 * 20 + 2.25))
    with pytest.raises(FrameError, match="scale="):
        calibrate.subtract_dark(light, dark=dark.replace(observation=Observation()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_master_that_is_not_finite_somewhere_knows_nothing_there(value):
    """Regression: a NaN in a dark stopped the whole frame, one in a bias went through unflagged."""
    light, part = (frame(np.full((4, 4), v), exposure=10.0) for v in (150.0, 120.0))
    data = part.data.copy()
    data[1, 2] = value
    holed = part.replace(data=data)
    dark = calibrate.subtract_offset(light), calibrate.subtract_offset(holed)
    for done in (
        calibrate.subtract_bias(light, bias=holed),
        calibrate.subtract_dark(light, dark=holed),
        calibrate.subtract_dark(dark[0], dark=dark[1]),
    ):
        assert np.argwhere(done.flags).tolist() == [[1, 2]]
        assert done.flags[1, 2] == Flag.NO_DATA
        assert np.isfinite(done.data).all()
        assert np.isfinite(done.noise.variance(done.data)).all()
        assert done.data[0, 0] == 30


def test_a_dark_with_its_bias_asks_for_equal_exposures():
    light, dark = (frame(np.full((4, 4), v), exposure=t) for v, t in ((150.0, 30.0), (120.0, 10.0)))
    with pytest.raises(FrameError, match="subtract the bias from both"):
        calibrate.subtract_dark(light, dark=dark)
    with pytest.raises(FrameError, match="with its offset"):
        calibrate.subtract_dark(light, dark=calibrate.subtract_offset(dark))
    same = dark.replace(observation=Observation(exposure=30.0))
    done = calibrate.subtract_dark(light, dark=same)
    assert np.all(done.data == 30.0)
    assert done.noise.offset == 0


def test_a_flat_is_normalised_channel_by_channel():
    vignette = 1 - 0.3 * np.hypot(*np.mgrid[-1:1:24j, -1:1:24j])
    lamp = np.array([900.0, 2000.0]).reshape(2, 1, 1)  # the lamp's colour must not tint the channels
    flat = flat_frame(np.ones((24, 24))).replace(data=lamp * vignette, axes="CYX")
    light = flat_frame(np.ones((24, 24))).replace(
        data=np.array([50.0, 70.0]).reshape(2, 1, 1, 1) * vignette[None, None], axes="CZYX"
    )
    done = calibrate.divide_flat(light.replace(data=light.data[:, 0], axes="CYX"), flat=flat)
    assert done.data == pytest.approx(np.median(vignette) * np.broadcast_to([[[50.0]], [[70.0]]], (2, 24, 24)))
    many = calibrate.divide_flat(light, flat=flat.replace(data=flat.data[:, None], axes="CZYX"))
    assert many.data[:, 0] == pytest.approx(done.data)


def test_a_master_stands_for_the_mean_exposure():
    parts = [frame(np.full((4, 4), 120.0), exposure=t) for t in (10.0, 20.0)]
    assert calibrate.master(parts, method="mean").observation.exposure == 15.0
    assert calibrate.master(parts[:1]).observation.exposure == 10.0
    assert calibrate.master([parts[0], frame(np.ones((4, 4)), exposure=None)]).observation.exposure is None


def test_what_belongs_to_another_detector_is_refused():
    light = frame(np.ones((4, 4)))
    with pytest.raises(FrameError, match="does not fit"):
        calibrate.subtract_bias(light, bias=frame(np.ones((4, 5))))
    with pytest.raises(FrameError, match="in electron, frame in adu"):
        calibrate.subtract_bias(light, bias=flat_frame(np.ones((4, 4))))
    with pytest.raises(FrameError, match="master"):
        calibrate.subtract_bias(light, bias=[light])
    mosaics = [frame(np.ones((4, 4)), geometry=Mosaic(BAYER, (i, 0))) for i in (0, 1)]
    with pytest.raises(FrameError, match="phases"):
        calibrate.subtract_bias(mosaics[0], bias=mosaics[1])
    with pytest.raises(FrameError, match="no frames"):
        calibrate.master([])
    with pytest.raises(FrameError, match="differ in their offset"):
        calibrate.master([light, frame(np.ones((4, 4)), Noise(1.0, 1.0, 3.0))])


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_a_flat_is_normalised_colour_by_colour(pattern):
    mosaic = Mosaic(pattern, (1, 1))
    colour = mosaic.at((24, 24))
    vignette = 1 - 0.3 * np.hypot(*np.mgrid[-1:1:24j, -1:1:24j])
    lamp = np.array([900.0, 2000.0, 400.0])[colour]  # the lamp's colour must not tint the image
    light = flat_frame(100 * vignette, geometry=mosaic)
    done = calibrate.divide_flat(light, flat=flat_frame(lamp * vignette, geometry=mosaic))
    for i in range(3):
        here = done.data[colour == i]
        np.testing.assert_allclose(here, np.median(light.data[colour == i]), rtol=1e-5)
    plain = calibrate.divide_flat(light.replace(geometry=None), flat=flat_frame(lamp * vignette))
    assert np.ptp(plain.data) > 50


def test_dead_pixels_of_a_flat_are_flagged_not_infinite():
    flat = np.full((8, 8), 1000.0)
    flat[1, 1], flat[2, 2], flat[3, 3] = 0.0, -5.0, np.nan
    done = calibrate.divide_flat(flat_frame(np.full((5, 8, 8), 30.0)), flat=flat_frame(flat))
    assert done.flags[1, 1] == done.flags[2, 2] == Flag.DEAD
    assert done.flags[3, 3] == Flag.NO_DATA
    assert np.count_nonzero(done.flags) == 3
    assert np.all(done.data == 30.0)
    assert done.noise.c[1, 1] == 0
    assert np.allclose(done.noise.c[0], 1004e-6)
    assert np.shape(done.noise.a) == (8, 8)


def test_a_flat_needs_frames_without_offset():
    light = frame(np.ones((4, 4)))
    with pytest.raises(FrameError, match="frame still holds its offset"):
        calibrate.divide_flat(light, flat=flat_frame(np.ones((4, 4))))
    with pytest.raises(FrameError, match="flat still holds its offset"):
        calibrate.divide_flat(calibrate.subtract_offset(light), flat=light)
    with pytest.raises(FrameError, match="no good positive"):
        calibrate.divide_flat(calibrate.subtract_offset(light), flat=flat_frame(-np.ones((4, 4))))


def test_the_masters_flags_are_joined():
    flags = np.zeros((4, 4), dtype=np.uint8)
    flags[1, 2] = Flag.HOT
    done = calibrate.subtract_bias(frame(np.ones((3, 4, 4))), bias=frame(np.ones((4, 4)), flags=flags))
    assert done.flags[1, 2] == Flag.HOT
    assert done.flags.shape == (4, 4)


def test_calibrating_after_registration_is_refused():
    moved = calibrate.subtract_offset(frame(np.ones((4, 4)))).then("calibrate.register", {"dy": 1, "dx": 0})
    with pytest.raises(FrameError, match="registered"):
        calibrate.divide_flat(moved, flat=flat_frame(np.ones((4, 4))))


def simulated(rng, unknown=False):
    from firstlight import simulate

    sensor = simulate.make_sensor((48, 48), rng, gain=1.5, read_noise=4.0, offset=300.0, dark=1.0, vignetting=0.4, prnu=0.02)
    scene = np.full((48, 48), 500.0)

    def shot(electrons, t):
        return frame(sensor.expose(electrons, rng, t), Unmodelled("no gain: pass a detector"), exposure=t)

    frames = {
        "bias": [shot(0 * scene, 0.0) for _ in range(5)],
        "dark": [shot(0 * scene, 60.0) for _ in range(5)],
        "flat": [shot(40 * scene, 1.0) for _ in range(5)],
    }
    return shot(scene, 20.0), frames, sensor


def test_the_chain_takes_raw_files_and_a_detector():
    rng = np.random.default_rng(3)
    light, frames, sensor = simulated(rng)
    done = calibrate.calibrate(light, **frames, detector=sensor.detector)
    assert done.unit is Unit.ELECTRON
    assert isinstance(done.noise, Noise)
    truth = 500.0 * np.median(sensor.response)
    z = (done.data - truth) / np.sqrt(done.noise.variance(np.full(done.shape, truth)))
    assert abs(z.mean()) < 0.3
    assert np.mean(z**2) == pytest.approx(1, abs=4.5 * np.sqrt(2 / z.size) + 0.02)
    # one master or its exposures: the same
    masters = {k: calibrate.master([calibrate.assign(f, detector=sensor.detector) for f in v]) for k, v in frames.items()}
    np.testing.assert_array_equal(calibrate.calibrate(light, **masters, detector=sensor.detector).data, done.data)
    # the offset of the detector stands in for a bias, up to the bias's own structure and noise
    bare = calibrate.calibrate(light, dark=frames["dark"], flat=frames["flat"], detector=sensor.detector)
    np.testing.assert_allclose(bare.data, done.data, atol=25)


def test_the_chain_without_a_gain_stays_in_adu_and_says_so():
    light, frames, _ = simulated(np.random.default_rng(4))
    with pytest.warns(UserWarning, match="stays in ADU: no gain"):
        done = calibrate.calibrate(light, **frames)
    assert done.unit is Unit.ADU
    assert np.median(done.data) == pytest.approx(500 / 1.5, rel=0.1)
    with pytest.warns(UserWarning, match="ADU"), pytest.raises(FrameError, match="offset"):
        calibrate.calibrate(light, dark=[f.replace(observation=light.observation) for f in frames["dark"]], flat=frames["flat"])
    with pytest.raises(FrameError, match="no gain"):
        calibrate.calibrate(light)


def test_sprat_offset_and_noise_from_the_unexposed_edge(data):
    """Offset 915.8 ADU and read noise 5.95 e- at gain 2.45; the sky's exposure-to-exposure differences obey the law."""
    from astropy.io import fits
    from scipy.stats import sigmaclip

    files = sorted((data / "astronomy" / "lt_sprat").glob("v_e_*.fits.gz"))
    gain = fits.getheader(files[0])["GAIN"]
    counts = [fits.getdata(f) for f in files]
    edge = np.stack(counts).astype(float)[:, :35]  # rows that the slit does not reach
    offset = edge.mean()
    steps = sigmaclip(np.diff(edge, axis=0) / np.sqrt(2), 4, 4).clipped
    assert gain == 2.45
    assert offset == pytest.approx(915.8, abs=0.1)
    assert steps.std() * gain == pytest.approx(5.95, abs=0.03)

    detector = Detector(gain, float(steps.std() * gain), float(offset), source="unexposed edge")
    lights = [calibrate.flag_cosmic_rays(calibrate.calibrate(frame(c, Unmodelled("-")), detector=detector)) for c in counts]
    level = np.median([f.data for f in lights], axis=0)
    sky = (level < 20 * gain) & ~np.any([f.flags != 0 for f in lights], axis=0)
    for first, second in itertools.pairwise(lights):
        z = ((second.data - first.data) / np.sqrt(2 * first.noise.variance(level)))[sky]
        kept = np.abs(z) < 6  # what L.A.Cosmic left of a ray
        assert kept.mean() > 0.9995
        assert 0.9 < np.mean(z[kept] ** 2) < 1.1
