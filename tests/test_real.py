"""Real observations through the command line, as a user would; the full tables are bench/real.py's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from firstlight import Detector, calibrate, io, measure
from firstlight.cli import main
from firstlight.intake import check_white

# dead margins, and noise that was taken from the image itself: the self-check says so, and these tests judge by other figures
pytestmark = pytest.mark.filterwarnings("ignore:.*self-check failed")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; returns exit code, the JSON printed (None where there is none) and standard error."""

    def run(*words: Any, json_out: bool = True) -> tuple[int, Any, str]:
        code = main([str(w) for w in words] + (["--json"] if json_out else []))
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.strip() and json_out else None, err

    return run


def found(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is absent")
    return path


def test_emva_camera(data: Path, cli: Any) -> None:
    code, got, _ = cli("transfer", found(data / "detector/emva1288_ccd/EMVA1288_Data_subset.txt"))
    assert code == 0
    assert got["gain"] == pytest.approx(3.57, rel=0.03)
    assert got["read_noise"] == pytest.approx(10.9, rel=0.05)
    assert got["saturation"] == pytest.approx(3890, rel=0.03)
    assert any("no straight line" in doubt for doubt in got["doubts"])


def test_sprat_exposure_restored_with_the_tables_detector(data: Path, cli: Any, tmp_path: Path) -> None:
    path, goal = found(data / "astronomy/lt_sprat/v_e_20180810_12_1_0_0.fits.gz"), tmp_path / "restored.fits"
    _, info, _ = cli("info", path)
    assert info["noise"]["source"].startswith("table: Liverpool Telescope SPRAT")
    assert (info["noise"]["gain"], info["noise"]["offset"]) == (2.45, 915.8)
    assert cli("restore", path, "-o", goal, "--std")[0] == 0
    code, got, _ = cli("measure", path, "--restored", goal)
    assert code == 0
    assert 0.95 < got["chi2"] / got["chi2_expected"] < 1.05
    assert abs(got["lag1"]) < 0.02


def test_drizzled_hubble_image_is_doubted_and_refused(data: Path, cli: Any, tmp_path: Path) -> None:
    path = found(data / "astronomy/hst_acs/acs_cosmos_147246_f814w.fits")
    doubts = " | ".join(cli("info", path)[1]["doubts"])
    assert "unit says electron but the values look like electron/s" in doubts
    assert "noise in the flattest regions is correlated: lag-1 0.4" in doubts
    given = ["--detector", "gain=1,read_noise=4.97"]
    for options, reason in (
        ([], "drizzled from 8 images"),
        (given, "neighbouring pixels correlate by 0.4"),
        ([*given, "--unit", "electron/s"], "neighbouring pixels correlate by 0.4"),
    ):
        code, _, said = cli("restore", path, "-o", tmp_path / "no.fits", *options)
        assert code == 2
        assert reason in said
        assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("field", "gain"), [("002_2", 3.5), ("004_2", 4.5), ("007_2", 2.0)])
def test_w2s_field_by_its_own_noise(data: Path, cli: Any, tmp_path: Path, field: str, gain: float) -> None:
    """dB over a Gaussian of 1 px after an affine fit to the mean of 400 frames."""
    path = found(data / f"microscopy/w2s/input_avg1_{field}.tif")
    target = np.asarray(io.read(data / f"microscopy/w2s/target_avg400_{field}.tif").data, dtype=np.float64)
    assert cli("transfer", path, "-o", tmp_path / "d.json")[0] == 0
    assert cli("restore", path, "-o", tmp_path / "x.npy", "--to", "npy", "--detector", tmp_path / "d.json")[0] == 0
    images = gaussian_filter(np.asarray(io.read(path).data, dtype=np.float64), 1.0), io.read(tmp_path / "x.npy").data
    blurred, restored = (measure.psnr(measure.affine_fit(x, target)[2], target, peak=float(target.max())) for x in images)
    assert restored - blurred > gain


def test_w2s_field_that_cannot_tell_says_so(data: Path, cli: Any) -> None:
    code, _, said = cli("transfer", found(data / "microscopy/w2s/input_avg1_001_0.tif"))
    assert code == 2
    assert "2 separate signal levels are populated by flat pixels, expected 3 or more" in said


def test_crowded_field_is_restored_and_gains(data: Path, cli: Any, tmp_path: Path) -> None:
    """HAT-P-32: unresolved stars look like correlated noise, and no more than the restorer bears; noise as bench/hatp32.py."""
    paths = sorted(found(data / "astronomy/hatp32").glob("*.FITS.gz"))[20:28]
    frames = [io.read(p) for p in paths]
    hot = calibrate.flag_hot_pixels(frames[0], reference=frames).flags
    clean = [f.replace(data=np.asarray(f.data) - np.float32(np.mean(f.data[200:300, 250:400])), flags=hot) for f in frames]
    detector = f"gain=32,read_noise=34,offset={np.median(frames[4].data)}"
    assert cli("restore", paths[4], "-o", tmp_path / "x.fits", "--detector", detector)[0] == 0
    moved = calibrate.register([clean[4], *clean[:4], *clean[5:]])
    check_white(calibrate.assign(frames[4].replace(flags=hot), detector=Detector(32.0, 34.0, 360.0)))
    stack = calibrate.combine(moved[1:]).data
    sky = (np.abs(stack - np.median(stack)) < 3) & (hot == 0)
    sky[:40], sky[-40:], sky[:, :60], sky[:, -60:] = False, False, False, False
    errors = [np.asarray(x - stack)[sky] for x in (clean[4].data, np.asarray(io.read(tmp_path / "x.fits").data))]
    raw, restored = (np.subtract(*np.percentile(e, [84, 16])) / 2 for e in errors)
    assert restored < 0.75 * raw


def test_sony_from_one_image(data: Path, cli: Any) -> None:
    path = found(data / "raw/sony_ilce-7rm3_iso3200.ARW")
    code, got, _ = cli("transfer", path)
    assert code == 0
    assert got["offset"] == 512  # the file's own black level
    assert got["gain"] == pytest.approx(0.1, rel=0.1)  # some 320/ISO
    assert got["read_noise"] == pytest.approx(1.1, abs=0.2)


@pytest.mark.parametrize("name", ["EMD-3197.map", "HAADFscan_fei2.mrc", "toxo_2ch.dv"])
def test_microscope_files_are_read_and_written_back(data: Path, cli: Any, tmp_path: Path, name: str) -> None:
    path = found(data / "microscopy/mrc" / name)
    code, info, _ = cli("info", path)
    assert code == 0
    assert not any("stretched" in d for d in info["doubts"])
    first = io.read(path)
    io.write(first, tmp_path / "back.mrc")
    back = io.read(tmp_path / "back.mrc")
    assert (back.axes, back.unit) == (first.axes, first.unit)
    np.testing.assert_array_equal(back.data, first.data)
    assert dict(back.spacing) == pytest.approx(dict(first.spacing), rel=1e-5)


def test_scan_becomes_transmission_and_is_restored_with_a_detector_only(data: Path, cli: Any, tmp_path: Path) -> None:
    path = found(data / "tomography/tooth_aps.h5")
    assert cli("info", path)[1]["geometry"]["angles"] == 181
    assert cli("calibrate", path, "-o", tmp_path / "t.h5")[1][0]["unit"] == "transmission"
    code, _, said = cli("restore", tmp_path / "t.h5", "-o", tmp_path / "r.h5")
    assert code == 2
    assert "no gain" in said
    assert cli("calibrate", path, "-o", tmp_path / "t2.h5", "--detector", "gain=1.53,read_noise=0,offset=105")[0] == 0
    assert cli("restore", tmp_path / "t2.h5", "-o", tmp_path / "r.h5")[0] == 0
    before, after = (np.asarray(io.read(tmp_path / n).data)[..., :40] for n in ("t2.h5", "r.h5"))  # air
    assert np.diff(after, axis=0).std() < 0.75 * np.diff(before, axis=0).std()
