"""Cosmic rays, hot pixels and clipped stacks."""

import numpy as np
import pytest

from firstlight import calibrate, simulate
from firstlight.calibrate import outliers
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise, Unmodelled

ELECTRONS = Noise(1.0, 9.0)


def frame(data, noise=ELECTRONS, unit=Unit.ELECTRON, **more) -> Frame:
    data = np.asarray(data, dtype=np.float32)
    return Frame(data, "TSC"[: data.ndim - 2] + "YX", unit, noise, **more)


def noisy(scene, rng, noise=ELECTRONS):
    return noise.sample(scene, rng)


# ---- cosmic rays


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (3.0, 500.0)])
def test_cosmic_rays_are_found_and_stars_left(gain, offset):
    rng = np.random.default_rng(1)
    scene, _ = simulate.star_field((160, 160), rng, n=40, sky=60.0, fwhm=3.0)
    image = noisy(scene, rng)
    rays = np.zeros(scene.shape, dtype=bool)
    for y, x in rng.integers(10, 150, (25, 2)):
        rays[y, x : x + 3] = True
    image[rays] += 800
    noise = ELECTRONS.scaled(1 / gain).shifted(offset)
    before = frame(image / gain + offset, noise, Unit.ADU)
    done = calibrate.flag_cosmic_rays(before)
    found = done.flags == Flag.COSMIC_RAY
    assert found[rays].mean() > 0.95
    assert found[~rays].mean() < 0.002
    assert done.data is before.data
    assert before.flags is None


def test_cosmic_rays_on_a_mosaic_are_searched_colour_by_colour():
    rng = np.random.default_rng(2)
    mosaic = Mosaic(BAYER)
    scene = np.array([400.0, 1500.0, 200.0])[mosaic.at((128, 128))]  # as one plane, every green pixel would be a ray
    image = np.stack([noisy(scene, rng), noisy(scene, rng)])
    image[1, 40, 50] += 2000
    done = calibrate.flag_cosmic_rays(frame(image, geometry=mosaic))
    assert done.flags[1, 40, 50] == Flag.COSMIC_RAY
    assert np.count_nonzero(done.flags) <= 4
    with pytest.raises(FrameError, match="6 x 6"):
        calibrate.flag_cosmic_rays(frame(scene, geometry=Mosaic(XTRANS)))


def test_cosmic_rays_need_noise_and_leave_flagged_pixels():
    with pytest.raises(FrameError, match="drizzled"):
        calibrate.flag_cosmic_rays(frame(np.ones((32, 32)), Unmodelled("drizzled")))
    image, flags = np.full((64, 64), 50.0), np.zeros((64, 64), dtype=np.uint8)
    image[30, 30], flags[30, 30] = 5000.0, Flag.HOT
    done = calibrate.flag_cosmic_rays(frame(noisy(image, np.random.default_rng(3)), flags=flags))
    assert done.flags[30, 30] == Flag.HOT


# ---- hot pixels


def test_hot_pixels_of_a_dark():
    rng = np.random.default_rng(4)
    sensor = simulate.make_sensor((200, 200), rng, hot=0.002)
    darks = [frame(sensor.expose(np.zeros((200, 200)), rng, 60.0), sensor.detector.noise(), Unit.ADU) for _ in range(5)]
    done = calibrate.flag_hot_pixels(darks[0], reference=calibrate.master(darks))
    hot = sensor.dark > 1
    assert np.array_equal(done.flags == Flag.HOT, hot)


def test_hot_pixels_of_one_frame_are_no_stars():
    rng = np.random.default_rng(5)
    scene, _ = simulate.star_field((200, 200), rng, n=60, fwhm=2.5)
    hot = rng.random(scene.shape) < 0.002
    done = calibrate.flag_hot_pixels(frame(noisy(scene, rng) + 300 * hot))
    found = done.flags == Flag.HOT
    assert found[hot].mean() > 0.85
    assert found[~hot].sum() <= 2


def test_hot_pixels_from_a_drifting_scene_and_on_a_mosaic():
    rng = np.random.default_rng(6)
    scene, _ = simulate.star_field((150, 150), rng, n=60)
    hot = rng.random(scene.shape) < 0.003
    frames = [frame(noisy(np.roll(scene, (2 * i, -3 * i), (0, 1)), rng) + 100 * hot, Unmodelled("x")) for i in range(15)]
    done = calibrate.flag_hot_pixels(frames[3], reference=frames)
    found = done.flags == Flag.HOT
    assert found[hot].all()
    assert found[~hot].mean() < 1e-3
    mosaic = Mosaic(BAYER, (1, 0))
    colours = np.array([100.0, 900.0, 40.0])[mosaic.at((60, 60))]
    colours[20, 31] += 400
    done = calibrate.flag_hot_pixels(frame(colours, geometry=mosaic))
    assert done.flags[20, 31] == Flag.HOT
    assert np.count_nonzero(done.flags) == 1
    with pytest.raises(FrameError, match="give equal ones"):
        calibrate.flag_hot_pixels(frames[0], reference=frame(np.ones((5, 5))))


# ---- stacks


def test_median_factor_against_simulation_and_tables():
    # variances of the normal sample median: David & Nagaraja (2003), n = 3 and 5
    assert 3 * outliers._median_factor(3) == pytest.approx(3 * 0.44867, rel=1e-4)
    assert 5 * outliers._median_factor(5) == pytest.approx(5 * 0.28683, rel=1e-4)
    assert 101 * outliers._median_factor(101) == pytest.approx(np.pi / 2, rel=0.01)
    rng = np.random.default_rng(7)
    for n in (2, 8, 40):
        var = np.median(rng.standard_normal((40000, n)), axis=1).var()
        assert outliers._median_factor(n) == pytest.approx(var, rel=0.03)


@pytest.mark.parametrize("unknown", [False, True])
def test_clipping_takes_out_rays_and_counts_what_is_left(unknown):
    rng = np.random.default_rng(8)
    scene = np.full((40, 50), 100.0)
    noise = Unmodelled("no gain") if unknown else ELECTRONS
    images = [noisy(scene, rng) for _ in range(8)]
    images[3][10, 10] += 5000
    flags = np.zeros((40, 50), dtype=np.uint8)
    flags[20, 20] = Flag.HOT
    images[5][20, 20] = np.nan
    frames = [frame(im, noise, flags=flags if i < 4 else None) for i, im in enumerate(images)]
    out = calibrate.combine(frames, sigma=5.0)
    np.testing.assert_allclose(out.data[10, 10], np.mean([im[10, 10] for i, im in enumerate(images) if i != 3]), rtol=1e-6)
    np.testing.assert_allclose(out.data[20, 20], np.mean([images[i][20, 20] for i in (4, 6, 7)]), rtol=1e-6)
    assert out.flags is None
    assert out.history[-1].params["frames"] == 8
    if unknown:
        assert np.median(out.std) == pytest.approx(np.sqrt(109 / 8), rel=0.1)
        assert isinstance(out.noise, Unmodelled)
    else:
        assert out.noise.a[10, 10] == pytest.approx(1 / 7)
        assert out.noise.a[20, 20] == pytest.approx(1 / 3)
        assert out.noise.b[20, 20] == pytest.approx(3.0)
        assert out.noise.a[0, 0] == pytest.approx(1 / 8)
        assert out.std is None


def test_where_no_frame_is_usable_the_flags_stay_and_the_value_is_finite():
    flags = np.zeros((6, 6), dtype=np.uint8)
    flags[1, 1] = Flag.SATURATED
    frames = [frame(np.full((6, 6), 7.0 + i), flags=flags) for i in range(2)]
    frames[0].data[4, 4] = frames[1].data[4, 4] = np.nan
    out = calibrate.combine(frames)
    assert out.flags[1, 1] == Flag.SATURATED
    assert out.flags[4, 4] == Flag.NO_DATA
    assert np.count_nonzero(out.flags) == 2
    assert out.data[1, 1] == 7.5
    assert np.isfinite(out.data).all()


def test_blocks_of_rows_change_nothing(monkeypatch):
    rng = np.random.default_rng(9)
    frames = [frame(noisy(np.full((3, 37, 20), 50.0), rng), Noise(1.0, 9.0 + rng.random((37, 20)))) for _ in range(5)]
    whole = calibrate.combine(frames)
    monkeypatch.setattr(outliers, "BLOCK", 5 * 3 * 20 * 4)
    parts = calibrate.combine(frames)
    np.testing.assert_array_equal(whole.data, parts.data)
    np.testing.assert_array_equal(whole.noise.b, parts.noise.b)


def test_shared_masters_average_down_between_shifts_only():
    noise = Noise(1.0, 9.0, c=0.01, d=4.0)
    still = [frame(np.full((8, 8), 10.0), noise) for _ in range(4)]
    out = calibrate.combine(still, method="mean")
    assert (out.noise.a, out.noise.c, out.noise.d) == (0.25, 0.01, 4.0)
    moved = [f.then("calibrate.register", {"dy": i // 2, "dx": 0}) for i, f in enumerate(still)]  # two shifts, two frames each
    out = calibrate.combine(moved, method="mean")
    assert np.allclose(out.noise.d, 2.0)
    assert np.allclose(out.noise.c, 0.005)
    assert np.allclose(out.noise.a, 0.25)


def test_frames_of_different_noise():
    frames = [frame(np.full((4, 4), 10.0), Noise(a, b)) for a, b in ((1.0, 4.0), (3.0, 12.0))]
    out = calibrate.combine(frames, method="mean")
    assert np.allclose(out.noise.a, (1 + 3) / 4)
    assert np.allclose(out.noise.b, (4 + 12) / 4)


def test_stacks_refuse_what_does_not_fit():
    one = frame(np.ones((4, 4)))
    for bad, match in (([], "no frames"), (one, "one frame"), ([one, frame(np.ones((4, 5)))], "differ")):
        with pytest.raises(FrameError, match=match):
            calibrate.combine(bad)
    with pytest.raises(FrameError, match="method 'sum'"):
        calibrate.combine([one], method="sum")
