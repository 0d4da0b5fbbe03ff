"""Noise against signal from one image: known answers, and the images that cannot tell."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from firstlight import Flag, Frame, Mosaic, Observation, Unit, Unmodelled, simulate
from firstlight.calibrate.single import transfer_single
from firstlight.errors import FrameError
from firstlight.geometry import BAYER

GAIN, READ_NOISE, OFFSET = 2.5, 4.0, 100.0


def frame(data, **fields):
    return Frame(data, "YX", Unit.ADU, Unmodelled("raw"), **fields)


def smooth(n=384):
    y, x = np.mgrid[:n, :n]
    return 50 + 0.8 * x + 30 * np.sin(y / 40)


def recorded(electrons, seed, gain=GAIN, read_noise=READ_NOISE, offset=OFFSET):
    rng = np.random.default_rng(seed)
    return np.rint(offset + (rng.poisson(electrons) + rng.normal(0, read_noise, electrons.shape)) / gain)


@pytest.fixture(scope="module")
def many():
    return [transfer_single(frame(recorded(smooth(), seed)), offset=OFFSET).detector for seed in range(20)]


@pytest.mark.parametrize(("name", "truth"), [("gain", GAIN), ("read_noise", READ_NOISE)])
def test_smooth_scenes_give_gain_and_read_noise_without_bias(many, name, truth):
    value = np.array([getattr(d, name) for d in many])
    std = np.array([getattr(d, name + "_std") for d in many])
    assert abs(value.mean() - truth) < 3.5 * value.std() / np.sqrt(len(value)) + 0.01 * truth
    assert 0.6 < ((value - truth) / std).std() < 1.5


@pytest.mark.parametrize("name", ["astronaut", "coffee", "camera"])
def test_photographs_are_right_to_ten_percent(name):
    from skimage import data

    image = simulate.linearise(getattr(data, name)())
    image = image @ [0.2126, 0.7152, 0.0722] if image.ndim == 3 else image
    d = transfer_single(frame(recorded(30 * image, 1, 0.2, 2.0)), offset=OFFSET).detector
    assert d.gain == pytest.approx(0.2, rel=0.1)
    assert d.read_noise == pytest.approx(2.0, rel=0.12)


def test_scaling_and_shifting_the_counts():
    image = recorded(smooth(256), 2)
    one = transfer_single(frame(image), offset=OFFSET)
    two = transfer_single(frame(4 * image + 64), offset=4 * OFFSET + 64)
    assert two.detector.gain == pytest.approx(one.detector.gain / 4, rel=1e-6)
    assert two.detector.read_noise == pytest.approx(one.detector.read_noise, rel=1e-5)


def test_a_given_gain_leaves_only_the_floor():
    # a star field has one level, its sky: no gain from it, but a floor
    field, _ = simulate.star_field((384, 384), np.random.default_rng(3))
    image = frame(recorded(field, 3, 1.0, 5.0))
    with pytest.raises(FrameError, match=r"1 separate signal level.*gain= to fit the floor"):
        transfer_single(image, offset=OFFSET)
    d = transfer_single(image, offset=OFFSET, gain=1.0).detector
    assert (d.gain, d.gain_std) == (1.0, None)
    assert abs(d.read_noise - 5.0) < 4 * d.read_noise_std


def test_without_offset_the_noise_law_holds_and_the_split_is_said_to_be_open():
    result = transfer_single(frame(recorded(smooth(), 4, offset=400.0)))
    signal = np.array([450.0, 500.0, 550.0])
    truth = (signal - 400) / GAIN + (READ_NOISE / GAIN) ** 2
    assert result.detector.noise().variance(signal) == pytest.approx(truth, rel=0.06)
    assert result.detector.read_noise == 0
    assert any("no offset given" in doubt for doubt in result.doubts)


def test_clipped_ends_do_not_bend_the_line():
    image = np.clip(recorded(smooth(), 5), 115, 210)  # 115: many dark pixels; 210: many bright ones
    result = transfer_single(frame(image), offset=OFFSET)
    assert any("clipped" in v.reason for v in result.levels)
    assert result.detector.gain == pytest.approx(GAIN, rel=0.06)


def test_flagged_and_missing_pixels_do_not_count():
    image = recorded(smooth(), 6)
    flags = np.zeros(image.shape, dtype=np.uint8)
    flags[50:90, 50:90] = Flag.DEFECT
    image[50:90, 50:90] += np.random.default_rng(6).normal(0, 300, (40, 40))
    image[200:210, 10:20] = np.nan
    d = transfer_single(frame(image, flags=flags), offset=OFFSET).detector
    assert abs(d.gain - GAIN) < 4 * d.gain_std


def test_a_mosaic_is_taken_plane_by_plane():
    colors = np.where(np.add.outer(np.arange(384), np.arange(384)) % 2, 1.0, 0.4)
    image = recorded(smooth() * colors, 7)
    d = transfer_single(frame(image, geometry=Mosaic(BAYER)), offset=OFFSET).detector
    assert abs(d.gain - GAIN) < 4 * d.gain_std
    assert abs(d.read_noise - READ_NOISE) < 4 * d.read_noise_std


def correlated(seed):
    return gaussian_filter(recorded(smooth(), seed), 0.5)


def textured(seed):
    return recorded(
        smooth() * np.exp(0.5 * gaussian_filter(np.random.default_rng(seed).standard_normal((384, 384)), 0.7)), seed
    )


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (lambda: correlated(8), "neighbouring pixels correlate"),
        (lambda: textured(8), "neighbouring pixels correlate|texture or edges"),
        (lambda: recorded(np.full((256, 256), 80.0), 8), "1 separate signal level"),
        (lambda: np.full((64, 64), 3.0), "constant"),
        (lambda: np.full((64, 64), np.nan), "no valid pixel"),
        (lambda: recorded(smooth(24), 8), "32 x 32"),
        (lambda: np.rint(smooth()), "separate signal level|correlate|rise"),
        (lambda: gaussian_filter(np.random.default_rng(8).standard_normal((256, 256)), 3) * 100 + 500, "correlate|texture"),
    ],
)
def test_images_that_cannot_tell_are_refused_with_the_reason(image, says):
    with pytest.raises(FrameError, match=says):
        transfer_single(frame(image()), offset=0.0)


def test_wrong_unit_and_wrong_gain_are_refused():
    image = frame(recorded(smooth(64), 9))
    with pytest.raises(FrameError, match="expected adu"):
        transfer_single(image.replace(unit=Unit.DISPLAY))
    with pytest.raises(FrameError, match="positive"):
        transfer_single(image, gain=-1.0)


def test_drizzled_hubble_images_are_refused_for_their_correlated_noise(data):
    path = data / "astronomy" / "hst_acs" / "acs_cosmos_147246_f814w.fits"
    if not path.exists():
        pytest.skip("the ACS cutout is absent")
    from astropy.io import fits

    with fits.open(path) as hdus:
        image = next(np.asarray(h.data, dtype=np.float64) for h in hdus if h.data is not None and h.data.ndim == 2)
    with pytest.raises(FrameError, match="neighbouring pixels correlate"):
        transfer_single(frame(image))


def test_the_files_own_black_level_splits_the_floor():
    raw = frame(recorded(smooth(), 12))
    plain = transfer_single(raw).detector
    known = transfer_single(raw.replace(observation=Observation(offset=OFFSET))).detector
    assert known.offset == OFFSET
    assert known.read_noise == pytest.approx(READ_NOISE, abs=1.0)
    assert plain.offset != pytest.approx(OFFSET, abs=0.5)
    level = np.array([130.0, 300.0])
    np.testing.assert_allclose(known.noise().variance(level), plain.noise().variance(level), rtol=0.01)


@pytest.mark.parametrize("field", ["002_1", "003_2", "007_1", "008_1"])
def test_w2s_fields_agree_with_the_mean_of_400_frames(data, field):
    folder = data / "microscopy" / "w2s"
    if not folder.exists():
        pytest.skip("W2S is absent")
    import tifffile

    noisy = tifffile.imread(folder / f"input_avg1_{field}.tif")
    target = tifffile.imread(folder / f"target_avg400_{field}.tif").astype(float)
    result = transfer_single(frame(noisy))
    p, q = np.polyfit(target.ravel(), noisy.ravel(), 1)
    mean, rest = p * target + q, noisy - (p * target + q)
    for low, high in ((10, 20), (20, 35), (35, 60), (60, 90)):
        here = (mean >= low) & (mean < high)
        predicted = result.detector.noise().variance(mean[here]).mean()
        assert rest[here].var() == pytest.approx(predicted, rel=0.12)
