"""PSNR, SSIM and affine fits against scikit-image and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from firstlight import Flag, Frame, Mosaic, Noise
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, XTRANS
from firstlight.measure import affine_fit, fidelity, median3, psnr, ssim

NOISE = Noise(1.0, 4.0)


def images(seed: int, shape: tuple[int, ...] = (90, 110)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = 100 + 80 * np.sin(np.arange(shape[-1]) / 9) * np.ones(shape)
    return rng.poisson(truth) + 0.0, truth


@given(seed=st.integers(0, 1000), peak=st.floats(1, 1e4))
@settings(max_examples=10, deadline=None)
def test_psnr_and_ssim_are_scikit_images(seed: int, peak: float) -> None:
    x, truth = images(seed)
    assert psnr(x, truth, peak=peak) == pytest.approx(peak_signal_noise_ratio(truth, x, data_range=peak))
    want = structural_similarity(x, truth, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert ssim(x, truth, peak=peak) == pytest.approx(want)


def test_equal_images() -> None:
    x, _ = images(1)
    assert psnr(x, x, peak=1.0) == np.inf
    assert ssim(x, x, peak=200.0) == 1


def test_rows_peak_and_flags() -> None:
    x, truth = images(2)
    flags = np.zeros(x.shape, np.uint8)
    good = flags == 0
    frame = Frame(x, "YX", "electron", NOISE)
    better = frame.replace(data=(x + 3 * truth) / 4)
    true = frame.replace(data=truth)
    out = fidelity(frame, better, true)
    assert out["peak"] == truth.max()
    assert out["restored"]["psnr"] == pytest.approx(psnr(better.data, truth, peak=truth.max()))
    assert out["unchanged"] == pytest.approx({"psnr": psnr(x, truth, peak=180), "ssim": ssim(x, truth, peak=180)}, rel=1e-3)
    assert out["median3"]["psnr"] == pytest.approx(psnr(ndimage.median_filter(x, 3, mode="nearest"), truth, peak=truth.max()))
    assert out["restored"]["psnr"] - out["unchanged"]["psnr"] == pytest.approx(20 * np.log10(4))
    assert fidelity(frame, better, true, peak=1000.0)["peak"] == 1000
    broken, flags[5, 5] = x.copy(), Flag.COSMIC_RAY
    broken[5, 5], good[5, 5] = 1e7, False
    shielded = fidelity(frame.replace(data=broken, flags=flags), better, true, peak=180.0)
    assert shielded["unchanged"]["psnr"] == pytest.approx(psnr(x[good], truth[good], peak=180.0))
    assert shielded["unchanged"]["ssim"] == pytest.approx(out["unchanged"]["ssim"], abs=2e-3)


def test_peak_is_counted_from_the_offset() -> None:
    x, truth = images(3)
    frame = Frame(x + 500, "YX", "adu", NOISE.shifted(500.0))
    assert fidelity(frame, frame, frame.replace(data=truth + 500))["peak"] == pytest.approx(truth.max())


def test_equal_frames_have_no_finite_psnr() -> None:
    x, truth = images(4, (2, 40, 50))
    frame = Frame(x, "TYX", "electron", NOISE)
    out = fidelity(frame, frame.replace(data=truth), frame.replace(data=truth))
    assert out["restored"] == {"psnr": None, "ssim": pytest.approx(1)}
    small = Frame(x[:, :5, :5], "TYX", "electron", NOISE)
    assert fidelity(small, small, small.replace(data=truth[:, :5, :5]))["unchanged"]["ssim"] is None


def test_median_within_each_colour() -> None:
    for pattern in (BAYER, XTRANS):
        mosaic = Mosaic(pattern, (1, 0))
        level = np.array([10.0, 200.0, 3000.0])[mosaic.at((60, 48))]
        spiked = level.copy()
        spiked[30, 20] = 1e5
        frame = Frame(spiked, "YX", "adu", NOISE, geometry=mosaic)
        np.testing.assert_allclose(median3(frame), level, rtol=1e-6)
    x, _ = images(5, (3, 40, 50))
    want = np.stack([ndimage.median_filter(p, 3, mode="nearest") for p in x])
    np.testing.assert_allclose(median3(Frame(x, "CYX", "adu", NOISE)), want, rtol=1e-6)


def test_ssim_of_a_mosaic_does_not_see_its_pattern() -> None:
    rng = np.random.default_rng(6)
    mosaic = Mosaic(BAYER)
    truth = np.array([10.0, 200.0, 80.0])[mosaic.at((80, 80))]
    frame = Frame(truth + 20 * rng.standard_normal(truth.shape), "YX", "adu", NOISE, geometry=mosaic)
    true = frame.replace(data=truth)
    plain = fidelity(frame.replace(geometry=None), frame.replace(geometry=None), true.replace(geometry=None))
    assert fidelity(frame, frame, true)["unchanged"]["ssim"] < 0.5 < plain["unchanged"]["ssim"]


@given(scale=st.floats(-20, 20).filter(lambda s: abs(s) > 1e-3), offset=st.floats(-1e3, 1e3))
@settings(max_examples=20, deadline=None)
def test_affine_fit_undoes_a_stretch(scale: float, offset: float) -> None:
    _, truth = images(7)
    a, b, fitted = affine_fit((truth - offset) / scale, truth)
    assert (a, b) == pytest.approx((scale, offset), rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(fitted, truth, rtol=1e-6)


def test_affine_fit_is_least_squares() -> None:
    x, truth = images(8)
    a, b, _ = affine_fit(x, truth)
    np.testing.assert_allclose((a, b), np.polyfit(x.ravel(), truth.ravel(), 1), rtol=1e-9)


def test_refusals() -> None:
    x, truth = images(9)
    frame = Frame(x, "YX", "electron", NOISE)
    with pytest.raises(FrameError, match="truth has shape"):
        fidelity(frame, frame, frame.replace(data=truth[1:]))
    with pytest.raises(FrameError, match="truth is in adu"):
        fidelity(frame, frame, frame.replace(data=truth, unit="adu"))
    with pytest.raises(FrameError, match="peak -1"):
        fidelity(frame, frame, frame.replace(data=truth), peak=-1.0)
    with pytest.raises(FrameError, match="give the peak"):
        fidelity(frame, frame, frame.replace(data=-truth))
    with pytest.raises(FrameError, match="same pixels"):
        psnr(x, truth[1:], peak=1.0)
    with pytest.raises(FrameError, match="at least 11 px"):
        ssim(x[:5], truth[:5], peak=1.0)
    with pytest.raises(FrameError, match="constant"):
        affine_fit(np.ones(9), np.arange(9.0))
    with pytest.raises(FrameError, match="no pixel"):
        fidelity(frame.replace(flags=np.ones(x.shape, np.uint8)), frame, frame.replace(data=truth))


def test_w2s_affine_then_better_than_unchanged(data) -> None:
    import tifffile

    folder = data / "microscopy" / "w2s"
    noisy, target = (tifffile.imread(folder / f"{k}_001_1.tif").astype(float) for k in ("input_avg1", "target_avg400"))
    _, _, plain = affine_fit(noisy, target)
    _, _, smooth = affine_fit(ndimage.gaussian_filter(noisy, 1), target)
    peak = float(target.max())
    assert psnr(smooth, target, peak=peak) > psnr(plain, target, peak=peak) + 1
