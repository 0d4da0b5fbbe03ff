"""`firstlight check`: all problems at once, the recipe as it would run, the plan; and what a run says of bad scans."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from firstlight import io
from firstlight.cli import main

ALL_WRONG = """
[[step]]
use = "calibrate.remove_zingerz"

[[step]]
use = "calibrate.transmission"
white = "white"
dark = "dark"
flts = "mean"

[[step]]
use = "calibrate.find_center"

[[step]]
use = "calibrate.attenuation"

[[step]]
use = "restore.reconstruct"
center = 900.0
"""


def checked(capsys, *argv, code: int = 1) -> dict:
    capsys.readouterr()
    assert main(["check", *map(str, argv), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def broken(scan: Path, tmp_path: Path, replaced):
    """A copy of the scan with one dataset changed by a function of its values (None: deleted)."""

    def make(**changes) -> Path:
        path = tmp_path / "broken.h5"
        shutil.copy(scan, path)
        with h5py.File(path, "r+") as file:
            for name, change in changes.items():
                if change is None:
                    del file[f"exchange/{name}"]
                else:
                    replaced(file, f"exchange/{name}", change(file[f"exchange/{name}"][()]))
        return path

    return make


def test_a_good_recipe_has_none(scan: Path, capsys) -> None:
    found = checked(capsys, "tomography", scan, code=0)
    assert found["problems"] == []
    assert 'use = "calibrate.attenuation"\nvariance = false' in found["recipe"]
    assert any("sections of" in line for line in found["plan"])


def test_all_problems_at_once(broken, tmp_path: Path, capsys) -> None:
    (tmp_path / "r.toml").write_text(ALL_WRONG)
    path = broken(data=lambda v: v[:45], theta=lambda v: v[:45], data_dark=None)
    found = checked(capsys, tmp_path / "r.toml", path, "--memory", "300M", "-o", tmp_path / "v.xyz")["problems"]
    for said in (
        "unknown step 'calibrate.remove_zingerz'; did you mean 'calibrate.remove_zingers'?",
        "unknown parameter 'flts'; did you mean 'flats'?",
        "no input named 'dark'",
        "the angles cover 90.0 degrees, expected 180 or 360",
        "center 900.0 lies outside the 128 columns",
        "give more memory",
        "unknown format .xyz",
    ):
        assert any(said in p for p in found), (said, found)


def test_a_wrong_unit_between_steps_is_said_once(scan: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "r.toml").write_text(
        ALL_WRONG.replace("zingerz", "zingers").replace('flts = "mean"\n', "").replace("900", "60")
    )
    found = checked(capsys, tmp_path / "r.toml", scan)["problems"]
    assert len(found) == 1
    assert "find_center): calibrate.find_center: got projections in transmission, expected optical depth" in found[0]


def test_a_table_and_a_damaged_scan_are_both_said(scan: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "r.toml").write_text('[reconstruction]\nalgoritm = "fbp"\n')
    (tmp_path / "cut.h5").write_bytes(scan.read_bytes()[:40000])
    found = checked(capsys, tmp_path / "r.toml", tmp_path / "cut.h5")["problems"]
    assert any("unknown key 'algoritm'" in p for p in found)
    assert any("cut.h5: HDF5 cannot open it" in p for p in found)


def test_nothing_runs(scan: Path, tmp_path: Path, capsys) -> None:
    checked(capsys, "tomography", scan, "-o", tmp_path / "v.zarr", code=0)
    assert not list(tmp_path.iterdir())


def radians(theta):
    return np.deg2rad(theta)


def air(v):
    beam = 20000 * (1 - 0.2 * np.linspace(-1, 1, v.shape[2]) ** 2)
    return (np.random.default_rng(0).poisson(np.broadcast_to(beam, v.shape)) + 100).astype(np.uint16)


REFUSED = {
    "no theta": ({"theta": None}, "holds no /exchange/theta; add the angle of each projection"),
    "radians called degrees": ({"theta": radians}, "are they in radians"),
    "no darks": ({"data_dark": None}, "no input named 'dark'"),
    "zero darks": ({"data_dark": lambda v: v[:0]}, "data_dark is (0, 40, 128)"),
    "zero whites": ({"data_white": lambda v: v[:0]}, "data_white is (0, 40, 128)"),
    "half the angles": ({"data": lambda v: v[:45], "theta": lambda v: v[:45]}, "the angles cover 90.0 degrees"),
    "one angle": ({"theta": lambda v: np.full_like(v, 7)}, "fewer than 8 different angles"),
    "angles missing": ({"theta": lambda v: v[:80]}, "90 projections but 80 angles"),
    "an angle that is none": ({"theta": lambda v: np.where(v == v[3], np.nan, v)}, "angles that are not finite"),
    "an empty field": ({"data": air}, "the axis cannot be told"),
    "a projection of NaN": ({"data": lambda v: np.where(np.arange(90)[:, None, None] == 4, np.nan, v)}, "no finite value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_scan_is_one_line(name: str, broken, tmp_path: Path, capsys) -> None:
    changes, said = REFUSED[name]
    path = broken(**changes)
    assert main(["run", "tomography", str(path), "-o", str(tmp_path / "v.zarr")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "v.zarr").exists()
    assert main(["center", str(path)]) in (1, 2)


def test_a_truncated_file_is_one_line(scan: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "cut.h5").write_bytes(scan.read_bytes()[:40000])
    assert main(["run", "tomography", str(tmp_path / "cut.h5"), "-o", str(tmp_path / "v.zarr")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def bad_columns(v):
    out = v.astype(np.float32)
    out[:, :, 30], out[7, 3, 50] = np.nan, np.inf
    return out


def dead_columns(v):
    out = v.copy()
    out[..., 30:32] = 0
    return out


SOUND = {
    "NaN columns": {"data": bad_columns},
    "dead columns": {"data": dead_columns, "data_white": dead_columns, "data_dark": dead_columns},
    "one flat": {"data_white": lambda v: v[:1]},
    "one flat without an axis": {"data_white": lambda v: v[0]},
    "angles repeated": {"data": lambda v: v[np.r_[0:90, 0, 0, 45]], "theta": lambda v: v[np.r_[0:90, 0, 0, 45]]},
    "angles in disorder": {"data": lambda v: v[::-1], "theta": lambda v: v[::-1]},
}


@pytest.mark.parametrize("name", SOUND)
def test_a_flawed_scan_gives_a_sound_volume(name: str, broken, scan: Path, tmp_path: Path, capsys) -> None:
    assert main(["run", "tomography", str(scan), "-o", str(tmp_path / "good.zarr")]) == 0
    capsys.readouterr()
    assert main(["run", "tomography", str(broken(**SOUND[name])), "-o", str(tmp_path / "v.zarr"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["center"] == pytest.approx(60.7, abs=0.5)
    good, got = (np.asarray(io.read(tmp_path / n).data) for n in ("good.zarr", "v.zarr"))
    assert np.isfinite(got).all()
    assert np.sqrt(np.mean((got - good) ** 2)) < 0.25 * good.std()
    if name == "angles repeated":
        assert any("3 of 93 angles are there before" in d for d in row["doubts"])
    if "columns" in name:
        assert set(row["flags"]) & {"dead", "no_data"}


def test_radians_that_say_so_are_degrees(broken, tmp_path: Path, capsys) -> None:
    path = broken(theta=radians)
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "radians"
    assert main(["center", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["center"] == pytest.approx(60.7, abs=0.25)


def test_what_follows_a_step_that_is_broken_is_not_at_fault(scan: Path, tmp_path: Path, capsys) -> None:
    """A step that takes every unit hands on that of the step before it, not counts."""
    text = ALL_WRONG.replace("zingerz", "zingers").replace('flts = "mean"\n', "").replace("center = 900.0", "")
    steps = text.strip().split("\n\n")
    stitch = '[[step]]\nuse = "calibrate.stitch_360"'
    (tmp_path / "r.toml").write_text("\n\n".join([*steps[:2], steps[3], stitch, steps[2], steps[4]]))
    problems = checked(capsys, tmp_path / "r.toml", scan)["problems"]
    assert len(problems) == 1
    assert "calibrate.stitch_360" in problems[0]


def test_a_centre_that_is_no_column_is_said_once(scan: Path, capsys) -> None:
    problems = checked(capsys, "tomography", scan, "--set", "restore.reconstruct.center=nan")["problems"]
    assert len(problems) == 1


@pytest.mark.parametrize("key", ["algorithm", "gpu_devices", "chunk_size", "dtype", "output_format", "filter"])
@pytest.mark.parametrize("value", ['["zarr"]', "{ a = 1 }", "1.5", '""', "true"])
def test_a_value_of_the_wrong_kind_in_the_table_is_a_problem(key: str, value: str, scan: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "r.toml").write_text(f"[reconstruction]\n{key} = {value}\n")
    problems = checked(capsys, tmp_path / "r.toml", scan)["problems"]
    assert any(key in p for p in problems)
