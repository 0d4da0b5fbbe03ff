"""`firstlight center`: the axis, how sure, how the methods agree, a sheet of slices."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from firstlight import calibrate, io, restore
from firstlight.cli import main
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled
from firstlight.restore.center_sharpness import around, unsharpness
from firstlight.simulate import phantom_projections

CENTER = 60.7  # of the fixture


def found(capsys, *argv) -> dict:
    capsys.readouterr()
    assert main(["center", *map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def depth() -> Frame:
    theta = np.arange(120) * np.pi / 120
    lines, _ = phantom_projections(theta, 4, 128, center=CENTER, scale=1.5)
    return Frame(lines.astype(np.float32), "AYX", Unit.OPTICAL_DEPTH, Unmodelled("exact"), geometry=Scan(theta))


def test_the_axis_and_how_the_methods_agree(scan: Path, capsys) -> None:
    result = found(capsys, scan)
    assert result["center"] == pytest.approx(CENTER, abs=0.25)
    assert result["confidence"] > 0.8
    values = list(result["methods"].values())
    assert result["agreement"] == pytest.approx(max(values) - min(values), abs=2e-3)
    assert main(["center", str(scan)]) == 0
    assert capsys.readouterr().out.startswith("centre 60.")


@pytest.mark.parametrize("method", ["wedge", "phase", "vo", "sharpness"])
def test_each_method_by_name(method: str, scan: Path, capsys) -> None:
    assert found(capsys, scan, "--method", method, "--rows", "10", "20", "30")["center"] == pytest.approx(CENTER, abs=0.6)


def test_a_sheet_of_slices(scan: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = found(capsys, scan, "--try")
    assert (tmp_path / "scan_center.png").read_bytes().startswith(b"\x89PNG")
    tried = result["tried"]
    assert len(tried) == 9
    best = min(tried, key=lambda t: t["unsharpness"])
    assert best["center"] == pytest.approx(CENTER, abs=1.1)
    assert "sharpness" in result["methods"]


def test_what_cannot_be_told_is_refused_with_code_1(scan: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "air.h5"
    shutil.copy(scan, path)
    with h5py.File(path, "r+") as file:
        data = np.random.default_rng(0).poisson(file["exchange/data_white"][0], file["exchange/data"].shape)
        file["exchange/data"][...] = data.astype(np.uint16)
    assert main(["center", str(path), "--json", "--try", "-o", str(tmp_path / "s.png")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["center"] is None
    assert "the axis cannot be told" in err
    assert (tmp_path / "s.png").exists()  # the slices help to find it by eye
    assert main(["center", str(tmp_path / "none.h5")]) == 2


def test_an_image_is_no_scan(tmp_path: Path, capsys) -> None:
    io.write(Frame(np.zeros((8, 8), np.float32), "YX", Unit.ADU, Unmodelled("none")), tmp_path / "a.npy")
    assert main(["center", str(tmp_path / "a.npy")]) == 2
    assert "expected a scan AYX" in capsys.readouterr().err


def test_the_least_unsharp_slice_has_the_right_centre(depth: Frame) -> None:
    centers = CENTER + np.arange(-3, 3.1, 0.5)
    figures = unsharpness(np.asarray(around(depth, centers).data))
    assert centers[np.argmin(figures)] == pytest.approx(CENTER, abs=0.01)
    assert np.all(np.diff(figures[:7]) < 0)
    assert np.all(np.diff(figures[6:]) > 0)


def test_sharpness_refines_what_was_found(depth: Frame) -> None:
    near = restore.sharpest_center(depth, guess=CENTER + 1.7)
    assert near.geometry.center == pytest.approx(CENTER, abs=0.15)
    assert near.data is depth.data
    assert near.history[-1].params["found"]["methods"] == {"sharpness": near.geometry.center}
    chained = restore.sharpest_center(calibrate.find_center(depth))
    assert chained.geometry.center == pytest.approx(CENTER, abs=0.15)


@pytest.mark.parametrize(
    ("params", "said"), [({}, "give a guess"), ({"guess": 90.0}, "edge of"), ({"guess": 60.0, "width": 0.1}, "width")]
)
def test_sharpness_refuses(params, said: str, depth: Frame) -> None:
    with pytest.raises(FrameError, match=said):
        restore.sharpest_center(depth, **params)
