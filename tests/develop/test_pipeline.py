"""A raw frame developed, end to end: a simulated camera looks at known Rec.2020 light."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from firstlight import Flag, Frame, Mosaic, Noise, Observation, Unit, Unmodelled, calibrate, io, operators, simulate
from firstlight.box import Box
from firstlight.develop import develop, render
from firstlight.develop.colour import camera_matrix
from firstlight.develop.exposure import WHITE as SHARE
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, XTRANS
from firstlight.io.raw import Header

SONY = ((0.6640, -0.1847, -0.0503), (-0.5238, 1.3010, 0.2474), (-0.0993, 0.1673, 0.6527))
BALANCE = np.array([2.5, 1.0, 1.5])
BLACK, SATURATION = 512.0, 15360.0
SPAN = SATURATION - BLACK
UNKNOWN = Unmodelled("no gain: pass a detector")


def shot(light, pattern=BAYER, phase=(0, 0), **changes):
    """The raw frame [ADU], unrounded, of Rec.2020 light (3, Y, X) with diffuse white 1; samples end at saturation."""
    seen = np.tensordot(np.linalg.inv(camera_matrix(SONY)), np.asarray(light, np.float64), axes=1) / BALANCE[:, None, None]
    samples = operators.mosaic(pattern, seen.shape[1:], phase=phase)(seen * SHARE * SPAN + BLACK)
    observed = Observation(
        instrument="X9", offset=BLACK, saturation=SATURATION, white_balance=tuple(BALANCE), color_matrix=SONY
    )
    data = np.minimum(samples, SATURATION).astype(np.float32)
    return Frame(data, "YX", Unit.ADU, UNKNOWN, geometry=Mosaic(pattern, phase), observation=observed).replace(**changes)


def linear(raw, **params):
    """Developed by the linear estimate, which is exact on flat fields and looks 9 px far."""
    return develop(raw, **({"method": "lmmse"} | params))


def flat(rgb, shape=(48, 54)):
    return np.broadcast_to(np.array(rgb, np.float64)[:, None, None], (3, *shape))


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("method", ["bilinear", "lmmse"])
def test_grey_stays_grey(pattern, method):
    out = develop(shot(flat((0.4, 0.4, 0.4)), pattern, (1, 2)), method=method, denoise="off")
    assert np.ptp(out.data, axis=0).max() < (1e-6 if method == "bilinear" else 3e-6)
    assert np.abs(out.data - 0.4).max() < 3e-6
    assert (out.axes, out.unit, out.geometry, out.data.dtype) == ("CYX", Unit.REC2020, None, np.float32)


def test_grey_stays_grey_through_balance_and_matrix():
    """The same without a mosaic, to 1e-6 of white, at every level."""
    light = np.linspace(-0.01, 1.3, 400)[None, None] * np.ones((3, 1, 1))
    seen = light / BALANCE[:, None, None] * SHARE * SPAN + BLACK
    raw = shot(flat((0.1, 0.1, 0.1))).replace(data=seen.astype(np.float32), axes="CYX", geometry=None)
    out = develop(raw).data
    below = light[0, 0] < 0.95 / SHARE
    assert np.ptp(out, axis=0).max() < 1e-6
    assert np.abs(out[:, 0, below] - light[:, 0, below]).max() < 1e-6


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_exposure_by_metadata_puts_grey_at_26_nits_and_white_at_203(pattern):
    """12.7 % of saturation is 18 % grey: 10-bit codes 387 and 767."""
    for share, code, nits in ((0.127, 387, 26), (0.127 / 0.18, 767, 203)):
        raw = shot(flat((0.1, 0.1, 0.1)), pattern)
        color = raw.geometry.at(raw.shape)
        out = develop(raw.replace(data=(share * SPAN / BALANCE[color] + BLACK).astype(np.float32)), denoise="off")
        picture = render(out)
        assert np.abs(picture.frame.data.astype(int) - code).max() <= 1
        from firstlight.develop import hlg

        assert hlg.ootf(hlg.scene(out.data))[1, 20, 20] == pytest.approx(nits, abs=0.6)


@pytest.mark.parametrize("known", [True, False])
def test_black_counts_once(known):
    """Where the noise knows it too, and where it has been taken off before."""
    raw = shot(flat((0.0, 0.0, 0.0)), noise=Noise(10.0, 4.0, BLACK) if known else UNKNOWN)
    assert np.abs(linear(raw, denoise="off").data).max() < 1e-6
    raw = shot(flat((0.3, 0.2, 0.1)), noise=raw.noise)
    first, last = linear(raw, denoise="off"), linear(calibrate.subtract_offset(raw), denoise="off")
    assert np.abs(first.data - last.data).max() < 1e-6
    cell = np.array([[500.0, 512.0], [520.0, 530.0]])  # a black level for each pixel of the cell
    stated = Observation(**(vars(raw.observation) | {"offset": cell, "saturation": cell + SPAN}))
    moved = raw.data + np.tile(cell - BLACK, (24, 27)).astype(np.float32)
    moved = linear(raw.replace(data=moved, observation=stated, noise=UNKNOWN), denoise="off")
    assert np.abs(moved.data - first.data).max() < 2e-6


def test_light_comes_back_as_it_was():
    chart = simulate.chart((120, 126), np.random.default_rng(1)).transpose(2, 0, 1)
    truth = gaussian_filter(chart, (0, 3, 3))
    for pattern in (BAYER, XTRANS):
        out = linear(shot(truth, pattern), denoise="off").data
        assert np.sqrt(np.mean((out - truth)[:, 8:-8, 8:-8] ** 2)) < 0.01
    colour = flat((0.7, 0.3, 0.1))
    assert np.abs(linear(shot(colour, XTRANS), denoise="off").data - colour).max() < 1e-5


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("method", ["bilinear", "lmmse"])
def test_a_saturated_patch_is_neutral(pattern, method):
    """Channels end at levels of their own after balancing: 2.5, 1 and 1.5; green first, then blue, then red."""
    light = np.broadcast_to(np.linspace(0.2, 6.0, 240), (3, 48, 240)) * np.array([1.0, 0.97, 1.02])[:, None, None]
    out = develop(shot(light, pattern), method=method, denoise="off")
    saturated = (out.flags & Flag.SATURATED) != 0
    assert 0.6 < saturated.mean() < 0.9
    assert np.ptp(out.data[:, saturated], axis=0).max() < 1e-5
    patch = flat((0.3, 0.3, 0.3), (60, 60)).copy()
    patch[:, 20:40, 20:40] = 9.0
    picture = render(develop(shot(patch, pattern), method=method, denoise="off"))
    codes = picture.frame.data.astype(int)
    assert np.abs(codes[:, 20:40, 20:40] - codes[1, 20:40, 20:40]).max() == 0
    assert np.ptp(codes[:, :8, :8]) <= 1
    assert codes[1, 30, 30] > codes[1, 2, 2]


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_one_saturated_sample_leaves_no_colour_around_it(pattern):
    """A speck that saturates a single sample: its neighbours' colours, which it entered, are grey too."""
    raw = shot(flat((0.6, 0.3, 0.2)), pattern)
    data = raw.data.copy()
    data[20, 21] = SATURATION
    out = develop(raw.replace(data=data), denoise="off")
    around = 1 if pattern is BAYER else 3
    part = np.s_[:, 20 - around : 21 + around, 21 - around : 22 + around]
    assert np.ptp(out.data[part], axis=0).max() < 1e-5
    assert np.all(out.flags[part[1:]] & Flag.SATURATED)


def test_brightness_grows_through_saturation():
    """Codes never fall where light rises, up to rounding and what one saturated colour of a cell hides."""
    light = np.broadcast_to(np.linspace(0.2, 6.0, 360), (3, 36, 360))
    codes = render(develop(shot(light), denoise="off")).frame.data[1, 18].astype(int)
    assert np.diff(codes[::4]).min() >= -2


def test_negatives_and_highlights_survive_to_the_output():
    raw = shot(flat((0.5, 0.5, 0.5)))
    data = raw.data.copy()
    data[:, :20] = BLACK - 40
    out = linear(raw.replace(data=data), denoise="off")
    assert out.data[:, 10, 4].max() < -1e-3
    bright = linear(raw, ev=3.0, denoise="off")
    assert bright.data == pytest.approx(4.0, abs=1e-4)
    assert render(bright, transfer="linear").frame.data.max() > 3.9
    assert render(out, transfer="linear").frame.data.min() < -1e-3


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_one_bright_pixel_changes_nothing_elsewhere(pattern):
    raw = shot(np.stack([simulate.chart((90, 96), np.random.default_rng(3))[..., k] for k in range(3)]), pattern)
    data = raw.data.copy()
    data[45, 48] = SATURATION
    first, last = (render(linear(raw.replace(data=d), denoise="off")).frame.data for d in (raw.data, data))
    far = np.ones(raw.shape, bool)
    far[25:66, 28:69] = False
    assert np.array_equal(first[:, far], last[:, far])
    assert np.abs(first.astype(int) - last).max() > 50


def test_denoising_by_known_estimated_scaled_and_no_noise():
    rng = np.random.default_rng(5)
    noise = Noise(40.0, 4e3, BLACK)
    clean = shot(flat((0.2, 0.2, 0.2), (160, 160)) * np.linspace(0.2, 2, 160))
    raw = clean.replace(data=np.rint(noise.sample(clean.data, rng)).astype(np.uint16))
    known = raw.replace(noise=noise)
    truth = develop(clean, denoise="off").data
    left = {
        k: np.sqrt(np.mean((develop(f, denoise=k[1]).data - truth)[:, 6:-6, 6:-6] ** 2))
        for k, f in {("known", "auto"): known, ("known", 2.0): known, ("known", "off"): known, ("none", "auto"): raw}.items()
    }
    assert left["known", "auto"] < 0.8 * left["known", "off"]
    assert left["known", 2.0] < left["known", "auto"]  # of a scene so smooth
    assert left["none", "auto"] == pytest.approx(left["known", "auto"], rel=0.1)
    assert np.array_equal(develop(known, denoise=0.0).data, develop(known, denoise="off").data)
    steps = [r.step for r in develop(raw).history]
    assert "calibrate.assign" in steps
    assert "develop.curve" not in steps


def test_measured_samples_are_kept():
    """Balanced samples of a camera whose matrix is none: its colours are Rec.2020's own."""
    from firstlight.develop.colour import rgb_to_xyz

    own = Observation(
        offset=BLACK, saturation=SATURATION, white_balance=tuple(BALANCE), color_matrix=np.linalg.inv(rgb_to_xyz("rec2020"))
    )
    raw = shot(0.6 * np.stack([simulate.chart((60, 66), np.random.default_rng(3))[..., k] for k in range(3)]), XTRANS)
    raw = raw.replace(observation=own)
    color = raw.geometry.at(raw.shape)
    wanted = (raw.data - BLACK) * BALANCE[color] / SPAN / SHARE
    for method in ("bilinear", "lmmse"):
        out = develop(raw, method=method, denoise="off", keep_samples=True).data
        assert np.abs(np.take_along_axis(out, color[None], 0)[0] - wanted).max() < 1e-6


PHASES = [(XTRANS, (y, x)) for y in range(6) for x in range(3)] + [(BAYER, (y, x)) for y in range(2) for x in range(2)]


@pytest.fixture(scope="module")
def wholes():
    light = 0.6 * simulate.chart((48, 51), np.random.default_rng(3)).transpose(2, 0, 1)
    return light, {p: develop(shot(light, p), method="lmmse", denoise="off").data for p in (XTRANS, BAYER)}


@pytest.mark.parametrize(("pattern", "phase"), PHASES)
def test_every_phase_is_developed_alike(pattern, phase, wholes):
    """A crop of the scene meets the pattern elsewhere: away from its edge its colours are those of the whole."""
    light, found = wholes
    y, x = phase
    out = develop(shot(light[:, y:, x:], pattern, phase), method="lmmse", denoise="off").data
    assert np.abs(out - found[pattern][:, y:, x:])[:, 6:-6, 6:-6].max() < 1e-5


@pytest.mark.parametrize(("shape", "phase"), [((37, 41), (1, 3)), ((24, 61), (5, 0)), ((7, 9), (0, 0))])
def test_odd_sizes(shape, phase):
    for pattern in (BAYER, XTRANS):
        out = linear(shot(flat((0.2, 0.3, 0.25), shape), pattern, phase), denoise="off")
        assert np.abs(out.data - flat((0.2, 0.3, 0.25), shape)).max() < 1e-5


@pytest.mark.parametrize("mono", [False, True])
def test_orientation_is_applied_once(mono):
    light = np.array([0.2, 0.25, 0.3])[:, None, None] * np.linspace(1, 2, 48)[:, None] * np.linspace(1, 1.5, 54)
    raw = shot(light).replace(geometry=None) if mono else shot(light)
    plain = develop(raw, denoise="off")
    turned = develop(raw.replace(observation=Observation(**(vars(raw.observation) | {"orientation": 6}))), denoise="off")
    assert np.array_equal(turned.data, np.rot90(plain.data, -1, axes=(1, 2)))
    assert turned.observation.orientation == 1
    assert render(turned).frame.shape == (3, 54, 48)


def test_white_levels_of_their_own():
    """A level for each pixel of the cell: the lower of two greens is where white ends; each is flagged at its own."""
    raw = shot(flat((0.3, 0.3, 0.3)))
    cell = np.array([[15000.0, 14000.0], [16000.0, 12000.0]])
    raw = raw.replace(observation=Observation(**(vars(raw.observation) | {"saturation": cell})))
    data = raw.data.copy()
    data[10, 10], data[11, 11] = 14900, 12100  # red below its level, blue above
    out = linear(raw.replace(data=data), denoise="off")
    told = next(r for r in out.history if r.step == "develop.neutral").params["ceilings"]
    assert told == pytest.approx([2.5 * (15000 - BLACK), 14000 - BLACK, 1.5 * (12000 - BLACK)])
    assert out.data[1, 30, 30] == pytest.approx(0.3 * SPAN / (14000 - BLACK), abs=1e-5)
    assert np.argwhere(out.flags & Flag.SATURATED).mean(axis=0) == pytest.approx([11, 11])


def test_defect_pixels_do_not_show():
    raw = shot(flat((0.3, 0.2, 0.25)), XTRANS)
    data, flags = raw.data.copy(), np.zeros(raw.shape, np.uint8)
    data[20, 21], data[30, 12] = SATURATION, 0
    flags[20, 21], flags[30, 12] = Flag.HOT, Flag.DEAD
    out = linear(raw.replace(data=data, flags=flags), denoise="off")
    assert np.abs(out.data - flat((0.3, 0.2, 0.25))).max() < 1e-5
    assert out.flags[20, 21] & Flag.HOT


def test_monochrome_and_demosaicked_frames():
    raw = shot(flat((0.3, 0.3, 0.3)))
    grey = np.full(raw.shape, BLACK + 0.127 * SPAN, np.float32)
    out = develop(raw.replace(data=grey, geometry=None))
    assert out.data == pytest.approx(0.18, abs=1e-6)
    assert out.shape == (3, 48, 54)
    assert np.abs(render(out).frame.data.astype(int) - 387).max() <= 1
    with pytest.raises(FrameError, match="monochrome"):
        develop(raw.replace(geometry=None), denoise=2.0)


def test_fujifilm_dynamic_range_is_for_rendering_alone():
    raw = shot(flat((0.1, 0.1, 0.1)), XTRANS)
    setting = struct.pack("<HHHIHHHHIHH", 2, 0x1402, 3, 1, 1, 0, 0x1403, 3, 1, 400, 0)
    tags = Header({"MakerNote": b"FUJIFILM" + struct.pack("<I", 12) + setting})
    out = linear(raw.replace(observation=Observation(**(vars(raw.observation) | {"header": tags}))), denoise="off")
    assert np.abs(out.data - 0.4).max() < 1e-5


@pytest.mark.parametrize(
    ("transfer", "bits", "kind", "white"),
    [("hlg", None, np.uint16, 767), ("srgb", None, np.uint8, None), ("srgb", 16, np.uint16, None),
     ("linear", 16, np.uint16, 0.2650 * 65535), ("linear", None, np.float32, 1.0)],
)  # fmt: skip
def test_every_rendering(transfer, bits, kind, white):
    """In order of light; diffuse white where it belongs; the ends of the range are not reached by any light."""
    ramp = np.broadcast_to(np.linspace(-0.1, 30, 602), (3, 4, 602)).astype(np.float32)
    frame = Frame(ramp, "CYX", Unit.REC2020, Unmodelled("x"))
    picture = render(frame, transfer=transfer, bits=bits)
    codes = picture.frame.data
    assert codes.dtype == kind
    assert np.all(np.diff(codes[0, 0].astype(np.float64)) >= 0)
    assert np.ptp(codes.astype(np.float64), axis=0).max() <= 1
    assert picture.frame.history[-1].step == "develop.render"
    if white is not None:
        one = render(frame.replace(data=np.ones((3, 2, 2), np.float32)), transfer=transfer, bits=bits)
        assert float(one.frame.data[0, 0, 0]) == pytest.approx(white, rel=1e-3)


def test_srgb_is_the_standards_curve():
    """Below the shoulder: 18 % grey is code 118 of 255; a Rec.2020 green is outside and comes out without negatives."""
    frame = Frame(np.full((3, 2, 2), 0.18, np.float32), "CYX", Unit.REC2020, Unmodelled("x"))
    assert np.all(render(frame, transfer="srgb").frame.data == 118)
    green = frame.replace(data=flat((0.0, 0.3, 0.0), (2, 2)).astype(np.float32))
    codes = render(green, transfer="srgb").frame.data[:, 0, 0]
    assert codes[1] > 140
    assert codes[0] == 0


def test_rows_are_rendered_without_a_seam(monkeypatch):
    from firstlight.develop import pipeline

    data = np.random.default_rng(6).normal(size=(3, 50, 20)).astype(np.float32)
    frame = Frame(data, "CYX", Unit.REC2020, Unmodelled("x"))
    whole = render(frame).frame.data
    monkeypatch.setattr(pipeline, "ROWS", 7)
    assert np.array_equal(render(frame).frame.data, whole)


@pytest.mark.parametrize(
    ("changes", "params", "message"),
    [
        ({}, {"denoise": "much"}, "expected auto, off"),
        ({}, {"denoise": -1.0}, "expected auto, off"),
        ({}, {}, "cannot be estimated"),
        ({"observation": Observation()}, {}, "saturation level is unknown"),
        ({"observation": Observation(saturation=9e3, offset=0.0)}, {"denoise": "off"}, "states no multipliers"),
        ({"geometry": Mosaic(BAYER, colors="CMY")}, {"denoise": "off"}, "expected R, G and B"),
        ({}, {"denoise": "off", "method": "markesteijn"}, "does not apply to Bayer"),
        ({}, {"denoise": "off", "wb": (1.0, 1.0)}, "a positive number for each"),
    ],
)
def test_refusals(changes, params, message):
    with pytest.raises(FrameError, match=message):
        develop(shot(flat((0.3, 0.3, 0.3)), **changes), **params)


def test_rendering_refuses_what_is_not_developed():
    with pytest.raises(FrameError, match="expected linear"):
        render(shot(flat((0.3, 0.3, 0.3))))
    frame = Frame(np.zeros((3, 4, 4), np.float32), "CYX", Unit.REC2020, Unmodelled("x"))
    for params in ({"transfer": "pq"}, {"bits": 12}, {"white_nits": 0.0}, {"transfer": "linear", "white_nits": -1.0}):
        with pytest.raises(FrameError):
            render(frame, **params)


def test_a_real_photograph(data):
    """An ILCE-7RM3 at ISO 3200: a part as the whole gives it, exposure included, and black at 0."""
    path = data / "raw" / "sony_ilce-7rm3_iso3200.ARW"
    if not path.exists():
        pytest.skip("the ARW is absent")
    raw = io.read(path)
    detector = calibrate.transfer_single(raw.crop(Box((1000, 1000), (2000, 2000)))).detector
    assert 0.05 < detector.gain < 0.2  # e-/ADU: 1 e- is several counts at this ISO
    noise = Noise(1 / detector.gain, (detector.read_noise / detector.gain) ** 2, 512.0)
    part = raw.replace(noise=noise).crop(Box((1601, 1403), (1901, 1803)))
    out, more = linear(part), linear(raw.replace(noise=noise).crop(Box((1571, 1373), (1931, 1833))))
    assert np.abs(out.data - more.data[:, 30:-30, 30:-30])[:, 8:-8, 8:-8].max() < 1e-4
    dark = linear(raw.replace(noise=noise).crop(Box((3100, 100), (3400, 400))))  # the heads of the audience
    assert abs(np.median(dark.data[1])) < 2e-3


@pytest.mark.skipif("FIRSTLIGHT_RAF" not in os.environ, reason="FIRSTLIGHT_RAF names no X-Trans RAF")
def test_a_real_xtrans_raf():
    """The network runs; shrunk by 18, whole cells, colours are those of bilinear means, which know no correlation."""
    raw = io.read(Path(os.environ["FIRSTLIGHT_RAF"]))
    out, plain = develop(raw), develop(raw, method="bilinear", denoise="off")
    assert [r.params["method"] for r in out.history if r.step == "restore.demosaic"] == ["net"]
    assert np.isfinite(out.data).all()
    high, wide = (n // 18 * 18 for n in out.shape[1:])
    ours, theirs = (f.data[:, :high, :wide].reshape(3, high // 18, 18, wide // 18, 18).mean((2, 4)) for f in (out, plain))
    assert np.median(np.abs(ours - theirs).max(0)) < 0.02 * np.median(theirs.max(0))


def test_colours_without_a_matrix_are_refused_before_any_work(monkeypatch):
    raw = shot(flat((0.3, 0.3, 0.3)))
    raw = raw.replace(observation=Observation(**(vars(raw.observation) | {"color_matrix": None})))
    monkeypatch.setattr("firstlight.develop.pipeline.prepared", lambda frame, denoise: pytest.fail("too late"))
    with pytest.raises(FrameError, match="no colour matrix of X9"):
        develop(raw)
