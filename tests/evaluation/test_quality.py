"""PSNR, SSIM, MSE and MAE by hand and against scikit-image; what is compared with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from firstlight import Frame, Noise, Unit, Unmodelled, io
from firstlight.errors import FirstlightError
from firstlight.evaluation.images import Given, Parent
from firstlight.evaluation.quality import quality, reference, similarity, truth_of

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(0, 200, (3, 40, 36))
NOISY = TRUTH + RNG.normal(0, 10, TRUTH.shape)


def test_against_scikit_image() -> None:
    got = quality(NOISY, TRUTH, peak=255)
    assert got["psnr"] == pytest.approx(peak_signal_noise_ratio(TRUTH, NOISY, data_range=255))
    assert got["mse"] == pytest.approx(np.mean((NOISY - TRUTH) ** 2))
    assert got["mae"] == pytest.approx(np.mean(np.abs(NOISY - TRUTH)))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    want = structural_similarity(TRUTH, NOISY, channel_axis=0, **settings)
    assert got["ssim"] == pytest.approx(want, abs=1e-6)
    assert quality(TRUTH, TRUTH, peak=255) == {"psnr": np.inf, "ssim": 1.0, "mse": 0.0, "mae": 0.0}


@pytest.mark.parametrize(("side", "known"), [(6, False), (7, True), (10, True), (11, True)])
def test_small_images_have_no_ssim(side: int, known: bool) -> None:
    value = similarity(NOISY[0, :side, :30], TRUTH[0, :side, :30], peak=255)
    assert np.isfinite(value) == known
    assert not known or 0 < value < 1


def test_pixels_without_data_are_left_out() -> None:
    holes = NOISY.copy()
    holes[:, 3, 3] = np.nan
    got = quality(holes, TRUTH, peak=255)
    keep = np.isfinite(holes)
    assert got["mse"] == pytest.approx(np.mean((NOISY - TRUTH)[keep] ** 2))
    assert np.isfinite(got["ssim"])
    assert np.isnan(quality(np.full((9, 9), np.nan), np.ones((9, 9)), peak=1)["psnr"])


def frame(**more: object) -> Frame:
    return Frame(NOISY.astype(np.float32), "CYX", Unit.ELECTRON, Noise(1.0, 9.0, 5.0)).replace(**more)


def test_what_there_is_to_compare_with(tmp_path: Path) -> None:
    io.write(frame(data=TRUTH.astype(np.float32)), tmp_path / "clean.fits")
    data, name, peak, scaled = reference(frame(), tmp_path / "clean.fits", Given(profile="documented"))
    np.testing.assert_allclose(data, TRUTH, rtol=1e-6)
    assert (name, peak) == ("clean.fits", pytest.approx(TRUTH.max() - 5))
    np.testing.assert_array_equal(scaled(NOISY), NOISY)
    assert reference(frame(), None, Given())[:2] == (None, "none")
    data, name, peak, scaled = reference(frame(), None, Given(profile="documented"))
    assert (name, peak) == ("noisy input", 1.0)
    low, high = np.percentile(NOISY.astype(np.float32), (1, 99.5))
    np.testing.assert_allclose(data, np.clip((NOISY - low) / (high - low), 0, 1), atol=1e-6)
    np.testing.assert_allclose(scaled(NOISY), data, atol=1e-6)
    io.write(frame(data=TRUTH.astype(np.float32)[:, :30]), tmp_path / "small.fits")
    with pytest.raises(FirstlightError, match="shape"):
        reference(frame(), tmp_path / "small.fits", Given())


def test_the_peak_of_a_picture_is_white(tmp_path: Path) -> None:
    codes = Frame(np.arange(120, dtype=np.uint8).reshape(10, 12), "YX", Unit.DISPLAY, Unmodelled("x"))
    io.write(codes, tmp_path / "a.png")
    assert reference(codes, tmp_path / "a.png", Given())[2] == 255


def test_truths_of_a_folder_go_by_name(tmp_path: Path) -> None:
    for name in ("a.fits", "b.fits", "b.png", "a.txt"):
        (tmp_path / name).touch()
    parent = Parent("0001", Path("raw/a.fits"))
    assert truth_of(parent, tmp_path) == tmp_path / "a.fits"
    assert truth_of(parent, tmp_path / "b.fits") == tmp_path / "b.fits"
    assert truth_of(parent, None) is None
    for name, count in (("b", 2), ("c", 0)):
        with pytest.raises(FirstlightError, match=f"{count} images named"):
            truth_of(Parent("0001", Path(f"raw/{name}.fits")), tmp_path)
