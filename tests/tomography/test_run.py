"""A recipe on a scan by its command: the volume, its history, memory, resumption, what else is written."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from firstlight import io, recipe, scale, simulate
from firstlight.cli import main
from firstlight.frame import Unit
from firstlight.geometry import Scan
from firstlight.restore import reconstruct

CENTER = 60.7  # of the fixture
RUN = [sys.executable, "-c", "import sys; from firstlight.cli import main; sys.exit(main())", "run", "tomography"]


def ran(capsys, *argv) -> dict:
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_volume_with_all_that_belongs_to_it(scan: Path, tmp_path: Path, capsys) -> None:
    goal, projections = tmp_path / "volume.zarr", tmp_path / "projections.h5"
    row = ran(capsys, "run", "tomography", scan, "-o", goal, "--save-projections", projections, "--workers", 2)
    assert row["center"] == pytest.approx(CENTER, abs=0.25)
    assert row["confidence"] > 0.8
    assert {"wedge", "phase", "vo"} <= set(row["methods"])
    assert {"read", "calibrate.remove_zingers", "calibrate.find_center", "restore.reconstruct", "write"} <= set(row["seconds"])
    assert Path(row["picture"]).read_bytes().startswith(b"\x89PNG")
    volume = io.read(goal)
    assert (volume.axes, volume.shape, volume.unit) == ("ZYX", (40, 128, 128), Unit.ATTENUATION)
    assert volume.spacing["Z"] == 5.0
    assert np.isfinite(np.asarray(volume.data)).all()
    last = volume.history[-1]
    assert last.step == "recipe.run"
    assert last.inputs == {str(scan): io.sha256(scan)}
    assert not any(r.inputs for r in volume.history[:-1])  # nothing cropped is hashed as if whole
    saved = io.read(projections)
    assert (saved.axes, saved.unit) == ("AYX", Unit.OPTICAL_DEPTH)
    assert saved.geometry.center == row["center"]
    again = reconstruct(saved.replace(geometry=Scan(saved.geometry.angles, row["center"], pixel=5.0)))
    np.testing.assert_allclose(np.asarray(volume.data), again.data, atol=1e-5 * np.abs(again.data).max())
    with h5py.File(projections) as file:
        assert file["exchange/theta"].shape == (90,)
        assert file["exchange/data"].shape == (90, 40, 128)


def test_the_volume_holds_what_the_projections_hold(scan: Path, tmp_path: Path, capsys) -> None:
    """The integral of a slice is that of each of its projections (the transform's zero frequency), in 1/mm times mm."""
    ran(capsys, "run", "tomography", scan, "-o", tmp_path / "v.h5")
    lines, _ = simulate.phantom_projections(np.arange(90) * np.pi / 90, 40, 128, center=CENTER, scale=1.5)
    y, x = np.mgrid[:128, :128] - 63.5
    slices = np.where(np.hypot(y, x) < 61, np.asarray(io.read(tmp_path / "v.h5").data), 0)
    np.testing.assert_allclose(slices.sum(axis=(1, 2)) * 5e-3, lines.sum(axis=2).mean(axis=0), rtol=0.01)


def test_the_recipe_in_the_history_repeats_the_volume(scan: Path, tmp_path: Path, capsys) -> None:
    row = ran(capsys, "run", "tomography", scan, "-o", tmp_path / "a.zarr", "--set", "restore.reconstruct.filter=hann")
    text = recipe.from_history(io.read(tmp_path / "a.zarr"))
    assert f"center = {row['center']}" in text
    assert "find_center" not in text
    (tmp_path / "again.toml").write_text(text)
    ran(capsys, "run", tmp_path / "again.toml", scan, "-o", tmp_path / "b.zarr")
    assert np.array_equal(np.asarray(io.read(tmp_path / "a.zarr").data), np.asarray(io.read(tmp_path / "b.zarr").data))
    whole = recipe.run(recipe.load(text), io.read(scan))
    close = np.asarray(io.read(tmp_path / "a.zarr").data)
    np.testing.assert_allclose(whole.data, close, atol=1e-5 * np.abs(close).max())


@pytest.mark.parametrize("name", ["v.h5", "v.tif", "v_####.tif", "folder"])
def test_every_format_holds_the_same_volume(name: str, scan: Path, tmp_path: Path, capsys) -> None:
    ran(capsys, "run", "tomography", scan, "-o", tmp_path / "v.zarr")
    row = ran(capsys, "run", "tomography", scan, "-o", tmp_path / name)
    got = io.read(row["output"])
    assert got.history[-1].step == "recipe.run"
    assert np.array_equal(np.asarray(got.data), np.asarray(io.read(tmp_path / "v.zarr").data))


def test_the_table_says_how_to_run(scan: Path, tmp_path: Path, capsys) -> None:
    text = '[reconstruction]\nalgorithm = "gridrec"\nfilter = "shepp"\ngpu_devices = ["cpu", "cpu"]\nchunk_size = 7\n'
    (tmp_path / "r.toml").write_text(text + 'dtype = "float16"\noutput_format = "hdf5"\n')
    row = ran(capsys, "run", tmp_path / "r.toml", scan, "-o", tmp_path)
    assert row["output"] == str(tmp_path / "scan_rec.h5")
    assert (row["plan"]["sections"], row["plan"]["rows"], row["plan"]["devices"]) == (6, 7, ["cpu", "cpu"])
    assert io.read(row["output"]).data.dtype == np.float16
    ran(capsys, "run", "tomography", scan, "-o", tmp_path / "one.h5", "--set", "restore.reconstruct.filter=shepp")
    one = np.asarray(io.read(tmp_path / "one.h5").data)
    np.testing.assert_allclose(np.asarray(io.read(row["output"]).data, np.float32), one, atol=2e-3 * np.abs(one).max())


def test_each_listed_device_computes_its_sections(scan: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    seen: list[list[str]] = []
    real = scale.run
    monkeypatch.setattr(
        scale, "run", lambda *a, devices=(), **k: (seen.append(list(devices)), real(*a, devices=devices, **k))[1]
    )
    (tmp_path / "r.toml").write_text('[reconstruction]\ngpu_devices = ["cpu", "cpu"]\n')
    ran(capsys, "run", tmp_path / "r.toml", scan, "-o", tmp_path / "v.zarr")
    assert seen == [["cpu", "cpu"]]


def test_the_plan_comes_first(scan: Path, tmp_path: Path, capsys) -> None:
    assert main(["run", "tomography", str(scan), "-o", str(tmp_path / "v.zarr")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "90 projections of 40 x 128 px" in lines[0]
    assert "white, dark too" in lines[1]
    assert any("sections of" in x and "MiB at most of 4096" in x for x in lines[:10])
    assert any(x.startswith(f"output {tmp_path / 'v.zarr'}: ZYX 40 x 128 x 128 float32 [1/mm], 2.5 MiB") for x in lines[:10])
    assert lines[-1].startswith("picture")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_stopped_goes_on(number: int, scan: Path, tmp_path: Path, capsys) -> None:
    goal, saved = tmp_path / "v.zarr", tmp_path / "p.h5"
    journal = tmp_path / "v.zarr.partial" / "journal.jsonl"
    slow = RUN[2].replace(
        "import sys;", "import sys, time; from firstlight import tomography as t; import firstlight.io.writer as w;"
    )
    hold = "p = w.Writer.put\ndef put(s, *a):\n    p(s, *a)\n    time.sleep(0.3)\nw.Writer.put = put\n"
    code = slow.replace("from firstlight.cli", f"exec({hold!r}); from firstlight.cli")
    argv = [str(scan), "-o", str(goal), "--save-projections", str(saved), "--workers", "1"]
    process = subprocess.Popen([sys.executable, "-c", code, *RUN[3:], *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(3000):
        if process.poll() is not None or (journal.exists() and journal.read_text().count("start") >= 1):
            break
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert not goal.exists()
    row = ran(capsys, "run", "tomography", *argv)
    assert 1 <= row["sections_done_before"] < row["plan"]["sections"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.h5", "v.png", "v.zarr"]
    ran(capsys, "run", "tomography", scan, "-o", tmp_path / "once.zarr")
    assert np.array_equal(np.asarray(io.read(goal).data), np.asarray(io.read(tmp_path / "once.zarr").data))


def test_an_unfinished_output_of_another_recipe_is_not_gone_on_with(scan: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(scale, "run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    argv = ["run", "tomography", str(scan), "-o", str(tmp_path / "v.zarr")]
    assert main(argv) == 130
    monkeypatch.undo()
    other = [*argv, "--set", "restore.reconstruct.filter=hann"]
    assert main(other) == 2
    assert "unfinished output of another recipe" in capsys.readouterr().err
    assert main([*other, "--anew"]) == 0


def test_memory_stays_under_what_is_stated(make_scan, tmp_path: Path) -> None:
    """112 MiB of float32 projections and 109 MiB of volume within 420 MiB, of which the program itself takes about 300."""
    big = make_scan(tmp_path / "big.h5", angles=256, rows=112, width=512)
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    code = (
        "import sys; from firstlight.cli import main; code = main(); "
        "sys.stderr.write(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"
    )
    argv = ["run", "tomography", str(big), "-o", str(tmp_path / "v.zarr"), "--memory", "420M", "--workers", "2"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    peak = int(done.stderr.split()[-1]) / 2**10
    assert peak < 420, done.stdout
    assert "112 sections" not in done.stdout


def test_too_little_memory_is_said(scan: Path, tmp_path: Path, capsys) -> None:
    assert main(["run", "tomography", str(scan), "-o", str(tmp_path / "v.zarr"), "--memory", "300M"]) == 2
    assert "the program itself takes 320; give more memory: --memory 640M" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-o", "{here}/v.png.xyz"], "unknown format .xyz"),
        (["-o", "{scan}"], "would overwrite the input"),
        (["-o", "{here}/v.zarr", "--codec", "lz77"], "codec 'lz77'"),
        (["-o", "{here}/v.zarr", "--workers", "0"], "workers 0, expected at least 1"),
        (["-o", "{here}/v.zarr", "--save-projections", "{here}/p.mrc"], "expected a .h5"),
        (["-o", "{here}/v.zarr", "--save-projections", "{here}/v.zarr"], "give --save-projections another name"),
        (["-o", "{here}/v.zarr", "--memory", "100M"], "memory: got 100 MiB, of which the program itself takes 320"),
        (["-o", "{here}/v.zarr", "--set", "restore.reconstruct.center=[1, 2]"], "2 centres for 40 detector rows"),
        (["-o", "{here}/v.zarr", "--set", "restore.reconstruct.center=900"], "expected one inside the 128 columns"),
        (["-o", "{here}/v.zarr", "--set", "restore.reconstruct.filtr=hann"], "did you mean 'filter'?"),
    ],
)
def test_wrong_options_are_one_line(argv, said: str, scan: Path, tmp_path: Path, capsys) -> None:
    assert main(["run", "tomography", str(scan), *(a.format(here=tmp_path, scan=scan) for a in argv)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_tooth_unattended(data: Path, tmp_path: Path, capsys) -> None:
    row = ran(capsys, "run", "tomography", data / "tomography/tooth_aps.h5", "-o", tmp_path / "tooth.zarr")
    assert row["center"] == pytest.approx(295.5, abs=1)
    slices = np.asarray(io.read(tmp_path / "tooth.zarr").data)
    assert np.isfinite(slices).all()
    y, x = np.mgrid[:640, :640] - 319.5
    outside = np.hypot(y, x) > 260
    assert slices[0, 200:350, 200:350].mean() > 10 * abs(slices[0][outside & (np.hypot(y, x) < 300)].mean())


def test_the_dendrite(data: Path, tmp_path: Path, capsys) -> None:
    from scipy.io import loadmat

    file = loadmat(data / "tomography/dendrite_sino.mat")
    with h5py.File(tmp_path / "d.h5", "w") as out:
        out["exchange/data"] = np.asarray(file["sinoRD"].T, dtype=np.float32)[:, None]
        out["exchange/data"].attrs["units"] = "optical depth"
        out["exchange/theta"] = np.rad2deg(file["anglesRad"].ravel())
        out["exchange/theta"].attrs["units"] = "deg"
    assert main(["center", str(tmp_path / "d.h5"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["center"] == pytest.approx(626.3, abs=1)


def test_where_memory_is_tight_one_worker_with_whole_batches_beats_two_with_slivers() -> None:
    from firstlight.tomography.chain import _effort

    def plan(rows: int, workers: int) -> scale.Plan:
        sections = tuple(scale.Section(y, y + rows, max(0, y - 1), min(64, y + rows + 1)) for y in range(0, 64, rows))
        return scale.Plan(sections, 1, workers, 0)

    assert _effort(plan(16, 1)) < _effort(plan(4, 2))
    assert _effort(plan(16, 2)) < _effort(plan(32, 1))


STITCH = """
[[step]]
use = "calibrate.transmission"
white = "white"
dark = "dark"

[[step]]
use = "calibrate.attenuation"
variance = false

[[step]]
use = "calibrate.find_center"

[[step]]
use = "calibrate.stitch_360"

[[step]]
use = "restore.reconstruct"
"""


def test_a_whole_turn_about_an_axis_at_the_edge_is_stitched(scan: Path, tmp_path: Path, capsys, replaced) -> None:
    """The volume is as wide as the stitched projections; its history repeats it, with the axis where it is first used."""
    turn, theta = tmp_path / "turn.h5", np.arange(240) * np.pi / 120
    shutil.copy(scan, turn)
    lines, _ = simulate.phantom_projections(theta, 40, 240, center=119.5, scale=1.5)
    with h5py.File(turn, "r+") as file:
        replaced(file, "exchange/data", (100 + 20000 * np.exp(-lines[:, :, :150])).astype(np.uint16))
        replaced(file, "exchange/theta", np.rad2deg(theta))
        replaced(file, "exchange/data_white", np.full((2, 40, 150), 20100, np.uint16))
        replaced(file, "exchange/data_dark", np.full((2, 40, 150), 100, np.uint16))
    (tmp_path / "r.toml").write_text(STITCH)
    argv = ["run", tmp_path / "r.toml", turn, "-o", tmp_path / "v.zarr", "--save-projections", tmp_path / "p.h5"]
    row = ran(capsys, *argv)
    assert row["center"] == pytest.approx(119.5, abs=0.25)
    assert row["plan"]["shape"] == [40, 239, 239]
    assert io.read(tmp_path / "p.h5").shape == (120, 40, 239)
    volume = np.asarray(io.read(tmp_path / "v.zarr").data)
    truth = reconstruct(io.read(tmp_path / "p.h5")).data
    np.testing.assert_allclose(volume, truth, atol=1e-4 * np.abs(truth).max())
    (tmp_path / "again.toml").write_text(recipe.from_history(io.read(tmp_path / "v.zarr")))
    ran(capsys, "run", tmp_path / "again.toml", turn, "-o", tmp_path / "w.zarr")
    assert np.array_equal(volume, np.asarray(io.read(tmp_path / "w.zarr").data))


def test_a_stated_axis_far_from_the_one_found_is_doubted(scan: Path, tmp_path: Path, capsys) -> None:
    argv = ["run", "tomography", scan, "-o", tmp_path / "v.zarr", "--set"]
    row = ran(capsys, *argv, "restore.reconstruct.center=80")
    assert row["center"] == 80
    assert any("lies 19.3 px right of the one found" in d for d in row["doubts"])
    assert not any("stated" in d for d in ran(capsys, *argv, "restore.reconstruct.center=61")["doubts"])


def test_an_unfinished_output_about_another_axis_is_not_gone_on_with(scan: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """A search within less memory looks at fewer rows, and one volume has one axis."""
    argv = ["run", "tomography", str(scan), "-o", str(tmp_path / "v.zarr")]
    monkeypatch.setattr(scale, "run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(argv) == 130
    monkeypatch.undo()
    real = scale.settle

    def elsewhere(*given, **named):
        calls, found = real(*given, **named)
        return calls, found.replace(
            geometry=replace(found.geometry, center=found.geometry.center + 0.1),
            history=tuple(
                replace(r, params={**r.params, "found": {**r.params["found"], "center": 60.9}}) if "found" in r.params else r
                for r in found.history
            ),
        )

    monkeypatch.setattr(scale, "settle", elsewhere)
    assert main(argv) == 2
    assert "unfinished output of another" in capsys.readouterr().err
