"""Checkpoints side by side: a table with known figures, a picture an image, patterns that must agree."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from firstlight import io, model_file
from firstlight.dataset.mosaics import linear
from firstlight.errors import FrameError, ModelError, WriteError
from firstlight.evaluation.demosaickers import _learned, compare_demosaickers, psnr
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise, Unmodelled
from firstlight.restore import lmmse


def model(path: Path, pattern: tuple) -> Path:
    torch.manual_seed(1)
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in pattern]}
    return model_file.save(
        model_file.new("packed", {"pack": lmmse.reach(len(pattern))[0], "width": 4, "depth": 1}, scaling=scaling), path
    )


def test_psnr_is_of_clipped_values_within_the_border() -> None:
    truth = np.zeros((3, 40, 40), np.float32)
    found = np.full((3, 40, 40), 0.1, np.float32)
    assert psnr(found, truth) == pytest.approx(20.0, abs=1e-4)
    found[:, :10] = 5.0
    assert psnr(found, truth) == pytest.approx(20.0, abs=1e-4)
    assert psnr(-found, truth) == pytest.approx(200.0)


def test_a_table_and_pictures(tmp_path: Path) -> None:
    grey = cv2.GaussianBlur(np.random.default_rng(1).random((60, 72)).astype(np.float32), (0, 0), 1)  # channels that agree
    codes = np.repeat((255 * grey)[..., None], 3, axis=2).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), codes)
    path = model(tmp_path / "m.safetensors", XTRANS)
    rows = compare_demosaickers([path], [tmp_path / "a.png"], tmp_path / "out", side=32)
    figures = {r["method"]: r["psnr"] for r in rows}
    assert list(figures) == ["bilinear", "lmmse", "m"]
    assert figures["lmmse"] > figures["bilinear"] > 20
    assert (tmp_path / "out" / "table.tsv").read_text().splitlines()[0] == "image\tmethod\tpsnr"
    shown = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert shown.shape == (32, 4 * 32, 3)
    np.testing.assert_array_equal(shown[:, 96:], codes[14:46, 20:52])  # the truth is last


def test_raw_files_have_no_figure(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(64, 3000, (64, 64)).astype(np.uint16)
    seen = Observation(offset=64.0, saturation=4000.0, white_balance=(2.0, 1.0, 1.5))
    io.write(Frame(codes, "YX", Unit.ADU, Unmodelled("none"), geometry=Mosaic(BAYER), observation=seen), tmp_path / "a.dng")
    path = model(tmp_path / "m.safetensors", BAYER)
    rows = compare_demosaickers([path], [tmp_path / "a.dng"], tmp_path / "out", side=32)
    assert cv2.imread(str(tmp_path / "out" / "a.png")).shape == (32, 96, 3)
    assert [r["psnr"] for r in rows] == [None] * 3


def test_a_network_of_profile_documented_stands_beside_ours(tmp_path: Path) -> None:
    seen = Observation(offset=64.0, saturation=4064.0, white_balance=(2.0, 1.0, 1.5))
    flat = np.array([500, 1000, 2000 / 3])[Mosaic(XTRANS).at((48, 48))]  # grey 0.25 once it is balanced
    frame = Frame((64 + flat).round().astype(np.uint16), "YX", Unit.ADU, Unmodelled("none"), geometry=Mosaic(XTRANS))
    frame = frame.replace(observation=seen)
    made: list[np.ndarray] = []

    class Samples(torch.nn.Module):
        multiple, halo = 16, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made.append(np.unique(x[:, 0].numpy().round(3)))
            return x[:, :1].expand(-1, 3, -1, -1)

    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(r) for r in XTRANS]}
    scaling |= {"light": "linear", "balanced": False}
    own = model_file.new("mosaic-unet", {"base": 1}, scaling=scaling)
    own.net.forward = Samples().forward  # type: ignore[method-assign]
    light = linear(frame).replace(noise=Noise(0.0, 0.0))
    found = _learned(frame, light, own)
    assert set(np.concatenate(made).astype(float).round(3)) <= {0.0, 0.125, 0.25, 0.167}  # it sees the mosaic without balance
    np.testing.assert_allclose(found[0] / found[1], 2.0, rtol=1e-5)  # and its colours are balanced
    np.testing.assert_allclose(found[2] / found[1], 1.5, rtol=1e-5)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one, other = model(tmp_path / "m.safetensors", XTRANS), model(tmp_path / "n.safetensors", BAYER)
    with pytest.raises(ModelError, match="different patterns"):
        compare_demosaickers([one, other], [], tmp_path / "out")
    with pytest.raises(ModelError, match="each its own"):
        compare_demosaickers([one, one], [], tmp_path / "out")
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((40, 40), np.uint8))
    with pytest.raises(FrameError, match="colour picture"):
        compare_demosaickers([one], [tmp_path / "grey.png"], tmp_path / "out")


def test_no_picture_replaces_another_or_an_image(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(0, 255, (40, 48, 3)).astype(np.uint8)
    (tmp_path / "b").mkdir()
    images = [tmp_path / "a.png", tmp_path / "b" / "a.png"]
    for path in images:
        cv2.imwrite(str(path), codes)
    before, path = images[0].read_bytes(), model(tmp_path / "m.safetensors", XTRANS)
    with pytest.raises(WriteError, match="overwrite the input"):
        compare_demosaickers([path], images[:1], tmp_path)
    assert images[0].read_bytes() == before
    with pytest.raises(WriteError, match="two results"):
        compare_demosaickers([path], images, tmp_path / "out")


def test_a_checkpoint_named_as_a_method_and_no_px_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="named lmmse"):
        compare_demosaickers([model(tmp_path / "lmmse.safetensors", XTRANS)], [], tmp_path / "out")
    with pytest.raises(FrameError, match="side 0"):
        compare_demosaickers([model(tmp_path / "m.safetensors", XTRANS)], [], tmp_path / "out", side=0)


def test_an_image_of_another_pattern_is_named_and_leaves_no_folder(tmp_path: Path) -> None:
    seen = Observation(offset=0.0, saturation=1000.0, white_balance=(2.0, 1.0, 1.5))
    data = np.full((48, 48), 500, np.uint16)
    io.write(Frame(data, "YX", Unit.ADU, Noise(1.0, 1.0), geometry=Mosaic(BAYER), observation=seen), tmp_path / "bayer.dng")
    with pytest.raises(ModelError, match=r"bayer\.dng: .*in no phase"):
        compare_demosaickers([model(tmp_path / "m.safetensors", XTRANS)], [tmp_path / "bayer.dng"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
