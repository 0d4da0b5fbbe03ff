import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firstlight import Frame, Noise, Observation, Unit, cli, io
from firstlight.cli import app, main


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """A raw FITS of a gradient, gain 2 e-/ADU, read noise 4 e-, offset 100 ADU, seed 1."""
    scene = np.linspace(20, 400, 96 * 120).reshape(96, 120)
    noise = Noise(0.5, 4.0, 100.0)
    data = np.rint(noise.sample(scene / 2 + 100, np.random.default_rng(1))).astype(np.uint16)
    io.write(Frame(data, "YX", Unit.ADU, noise, observation=Observation(exposure=2.0)), tmp_path / "räw file.fits")
    return tmp_path / "räw file.fits"


def out(capsys: pytest.CaptureFixture[str]) -> dict:
    text = capsys.readouterr().out
    return json.loads(text)


def test_info_keys_are_stable(counts: Path, capsys) -> None:
    assert main(["info", str(counts), "--json"]) == 0
    facts = out(capsys)
    assert {"axes", "shape", "unit", "noise", "geometry", "flags", "doubts"} <= set(facts)
    assert {"gain", "read_noise", "offset", "source"} <= set(facts["noise"])
    assert facts["noise"]["gain"] == pytest.approx(2.0)
    assert facts["noise"]["read_noise"] == pytest.approx(4.0)
    assert facts["noise"]["offset"] == 100.0


def test_user_figures_beat_the_file(counts: Path, capsys) -> None:
    assert main(["info", str(counts), "--detector", "gain=3,read_noise=5", "--json"]) == 0
    facts = out(capsys)
    assert facts["noise"]["gain"] == pytest.approx(3.0)
    assert facts["noise"]["source"].startswith("user")


def test_restore_measure_and_exit_codes(counts: Path, tmp_path: Path, capsys) -> None:
    better = tmp_path / "better.fits"
    assert main(["restore", str(counts), "-o", str(better), "--std"]) == 0
    frame = io.read(better)
    assert frame.unit == Unit.ADU
    assert frame.std is not None
    assert [r.step for r in frame.history][-1] == "restore.denoise"
    capsys.readouterr()
    assert main(["measure", str(counts), "--restored", str(better), "--json"]) == 0
    figures = out(capsys)
    assert {"chi2", "chi2_expected", "chi2_by_signal", "lag1", "bias"} <= set(figures)
    assert figures["chi2"] / figures["chi2_expected"] == pytest.approx(1, abs=0.1)
    wrong = io.read(better)
    io.write(wrong.replace(data=np.asarray(wrong.data) + 40, std=None), tmp_path / "wrong.fits")
    assert main(["measure", str(counts), "--restored", str(tmp_path / "wrong.fits"), "--json"]) == 1


def test_measure_with_truth_has_its_rows(counts: Path, tmp_path: Path, capsys) -> None:
    truth = np.linspace(20, 400, 96 * 120).reshape(96, 120) / 2 + 100
    io.write(io.read(counts).replace(data=truth.astype(np.float32)), tmp_path / "truth.npy")
    assert main(["measure", str(counts), "--truth", str(tmp_path / "truth.npy"), "--peak", "300", "--json"]) == 0
    figures = out(capsys)
    assert figures["peak"] == 300
    assert {"psnr", "ssim"} <= set(figures["unchanged"])
    assert {"psnr", "ssim"} <= set(figures["median3"])
    assert figures["median3"]["psnr"] > figures["unchanged"]["psnr"]


def test_calibrate_and_restore_equal_the_functions(counts: Path, tmp_path: Path) -> None:
    import firstlight as fl

    assert main(["calibrate", str(counts), "-o", str(tmp_path / "cal.fits")]) == 0
    calibrated = io.read(tmp_path / "cal.fits")
    assert calibrated.unit == Unit.ELECTRON
    assert np.allclose(calibrated.data, (np.asarray(io.read(counts).data, float) - 100) * 2, atol=1e-3)
    assert main(["restore", str(tmp_path / "cal.fits"), "-o", str(tmp_path / "r.fits")]) == 0
    assert np.allclose(io.read(tmp_path / "r.fits").data, fl.restore.denoise(calibrated).data, rtol=1e-5)
    assert main(["restore", str(tmp_path / "cal.fits"), "-o", str(tmp_path / "m.fits"), "--method", "means"]) == 0
    whole = fl.restore.nonlocal_means(calibrated, std=False)
    assert np.allclose(io.read(tmp_path / "m.fits").data, whole.data, rtol=1e-5)


def test_several_files_go_to_a_folder_and_resume_skips(counts: Path, tmp_path: Path, capsys) -> None:
    second = tmp_path / "b.fits"
    second.write_bytes(counts.read_bytes())
    folder = tmp_path / "res tored"
    assert main(["restore", str(counts), str(second), "-o", str(folder), "--json"]) == 0
    first = out(capsys)
    assert {p.name for p in folder.iterdir()} == {"räw file.fits", "b.fits"}
    stamp = (folder / "b.fits").stat().st_mtime_ns
    assert main(["restore", str(counts), str(second), "-o", str(folder), "--resume", "--json"]) == 0
    assert all(r.get("skipped") for r in out(capsys))
    assert (folder / "b.fits").stat().st_mtime_ns == stamp
    assert len(first) == 2


def test_two_inputs_of_one_name_do_not_collide(counts: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / counts.name).write_bytes(counts.read_bytes())
    assert main(["restore", str(counts), str(other / counts.name), "-o", str(tmp_path / "out")]) == 2
    assert "same name" in capsys.readouterr().err


BAD = {
    "absent": None,
    "empty": b"",
    "garbage": b"\x00\x01garbage" * 100,
    "png named fits": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
}


@pytest.mark.parametrize("suffix", [".fits", ".mrc", ".tif", ".h5", ".dng", ".npy", ".png", ".zarr", ".ome.tif", ".ARW"])
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["info", "restore", "measure"])
def test_bad_files_give_one_line_and_nothing_else(command: str, kind: str, suffix: str, tmp_path: Path, capsys) -> None:
    if kind == "png named fits" and suffix == ".png":
        kind = "garbage"
    path = tmp_path / f"bad file{suffix}"
    if BAD[kind] is not None:
        path.write_bytes(BAD[kind])
    before = sorted(p.name for p in tmp_path.iterdir())
    extra = ["-o", str(tmp_path / f"o{suffix}")] if command == "restore" else []
    assert main([command, str(path), *extra]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert path.name in captured.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["restore"], "--files"),
        (["nonsense"], "nonsense"),
        (["info"], "file"),
        (["restore", "{raw}", "-o", "{dir}/x.fits", "--memory", "lots"], "500M"),
        (["restore", "{raw}", "-o", "{dir}/x.fits", "--strength", "much"], "much"),
        (["restore", "{raw}", "-o", "{raw}"], "would overwrite"),
        (["restore", "{raw}", "-o", "{dir}/none/x.fits"], "create it first"),
        (["restore", "{raw}", "-o", "{dir}/x.fits", "--detector", "{dir}/no.json"], "no such detector"),
        (["restore", "{raw}", "-o", "{dir}/x.fits", "--detector", "gain=0,read_noise=1"], "positive"),
        (["restore", "{raw}", "-o", "{dir}/x.fits", "--detector", "gain=a"], "gain=2.1"),
        (["info", "{raw}", "--unit", "photons"], "expected one of"),
        (["info", "{raw}", "--ext", "SCI,7"], "SCI,7"),
        (["transfer", "{raw}", "{raw}"], "twice"),
        (["transfer", "{raw}", "{dir}/copy.fits"], "dark"),
        (["check", "{dir}/no.toml"], "no.toml"),
    ],
)
def test_usage_errors_exit_2(argv, message: str, counts: Path, tmp_path: Path, capsys) -> None:
    before = counts.read_bytes()
    (tmp_path / "copy.fits").write_bytes(before)
    assert main([a.format(raw=counts, dir=tmp_path) for a in argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert counts.read_bytes() == before


def test_json_alone_on_standard_output(tmp_path: Path, capsys) -> None:
    assert main(["sample", str(tmp_path / "s"), "--json"]) == 0
    assert len(out(capsys)["entries"]) == 6


def loaded_by(*argv: str) -> set[str]:
    code = (
        f"import sys; from firstlight.cli import main; main({list(argv)!r}); print(chr(10).join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {m.split(".")[0] for m in done.stderr.split()}


HEAVY = {"torch", "astropy", "numba", "scipy", "skimage", "cv2", "h5py", "zarr", "matplotlib", "tifffile", "rawpy", "pydantic"}


def test_help_loads_no_heavy_module() -> None:
    assert not (HEAVY | {"numpy"}) & loaded_by("--help")
    assert not (HEAVY | {"numpy"}) & loaded_by("restore", "--help")


def test_import_loads_numpy_at_most() -> None:
    code = "import sys, firstlight; firstlight.Frame; print(chr(10).join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {m.split(".")[0] for m in done.stdout.split()}


def test_what_needs_no_network_loads_no_torch(counts: Path, tmp_path: Path) -> None:
    assert "torch" not in loaded_by("info", str(counts))
    assert "torch" not in loaded_by("restore", str(counts), "-o", str(tmp_path / "o.fits"), "--method", "means")


def test_every_command_has_help(capsys) -> None:
    for name in (n for n in app if not n.startswith("-")):
        assert main([name, "--help"]) == 0
        assert "Usage: firstlight" in capsys.readouterr().out


def test_public_names_exist() -> None:
    import firstlight

    for name in firstlight.__all__:
        assert getattr(firstlight, name) is not None
    assert cli.__all__ == ["app", "main"]


def test_interrupt_leaves_nothing_half_written(counts: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from firstlight import scale

    def interrupted(*args: object, **kw: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scale, "map_blocks", interrupted)
    before = sorted(tmp_path.iterdir())
    assert main(["restore", str(counts), "-o", str(tmp_path / "o.fits")]) == 130
    assert sorted(tmp_path.iterdir()) == before
    assert "interrupted" in capsys.readouterr().err


def shell(*argv: str, **kw: object) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; from firstlight.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *argv], stderr=subprocess.PIPE, check=False, **kw)  # type: ignore[call-overload]


def test_a_bad_file_among_several_is_said_and_the_others_are_restored(counts: Path, tmp_path: Path, capsys) -> None:
    bad, good = tmp_path / "bad.fits", tmp_path / "good.fits"
    bad.write_bytes(counts.read_bytes()[:4000])
    good.write_bytes(counts.read_bytes())
    for command in ("restore", "calibrate"):
        assert main([command, str(bad), str(good), "-o", str(tmp_path / command), "--json"]) == 2
        captured = capsys.readouterr()
        rows = json.loads(captured.out)
        assert rows[0]["output"] is None
        assert "truncated" in rows[0]["error"]
        assert Path(rows[1]["output"]).is_file()
        assert captured.err.count("\n") == 1
        assert "bad.fits" in captured.err


def test_an_error_of_a_step_names_the_file(counts: Path, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "no gain.npy", np.asarray(io.read(counts).data))
    assert main(["restore", str(tmp_path / "no gain.npy"), "-o", str(tmp_path / "o.npy")]) == 2
    assert "no gain.npy" in capsys.readouterr().err
    np.save(tmp_path / "no gain.npy", np.full((64, 64), 7, np.uint16))
    assert main(["transfer", str(tmp_path / "no gain.npy")]) == 2
    assert "no gain.npy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["there/sub", "there", "o.fist", "/dev/null"])
def test_an_output_that_cannot_be_is_one_line(name: str, counts: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "there").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    assert main(["restore", str(counts), "-o", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert name in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["none", ".gz", "none.gz", "none.fits"])
def test_a_failing_command_makes_no_folder(name: str, tmp_path: Path, capsys) -> None:
    assert main(["restore", str(tmp_path / name), "-o", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_counts_once(counts: Path, tmp_path: Path, capsys) -> None:
    alias = tmp_path / "alias.fits"
    alias.symlink_to(counts)
    for argv in (
        ["calibrate", str(counts), str(alias), "--stack"],
        ["calibrate", str(counts), "--bias", str(alias)],
        ["calibrate", str(tmp_path / "x.fits"), "--bias", str(counts), str(alias)],
    ):
        assert main([*argv, "-o", str(tmp_path / "o.fits")]) == 2
        assert "twice" in capsys.readouterr().err
    assert main(["transfer", str(counts), str(alias), "--darks", str(counts)]) == 2
    assert "twice" in capsys.readouterr().err


def test_warnings_are_one_line_and_an_error_stands_alone(counts: Path, tmp_path: Path) -> None:
    frame = io.read(counts)
    data = np.asarray(frame.data, dtype=float)
    data[5, 5] = 1e300
    io.write(frame.replace(data=data), tmp_path / "huge.npy")
    done = shell("restore", str(tmp_path / "huge.npy"), "-o", str(tmp_path / "o.npy"), "--json", stdout=subprocess.PIPE)
    assert done.returncode == 0
    json.loads(done.stdout)
    lines = done.stderr.decode().splitlines()
    assert lines
    assert all(line.startswith("firstlight: warning: ") for line in lines)
    with (tmp_path / "bomb.npy").open("wb") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<u2", "fortran_order": False, "shape": (2**31, 2**31, 2**31)})
    done = shell("info", str(tmp_path / "bomb.npy"), stdout=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_standard_output_that_cannot_take_the_text(counts: Path, monkeypatch) -> None:
    better = shell("info", str(counts), stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (better.returncode, better.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        done = shell("info", str(counts), "--json", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_termination_leaves_nothing_half_written(counts: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom firstlight import scale\nfrom firstlight.cli import main\n"
        "scale.map_blocks = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\nsys.exit(main())"
    )
    before = sorted(tmp_path.iterdir())
    argv = [sys.executable, "-c", code, "restore", str(counts), "-o", str(tmp_path / "o.fits")]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 143
    assert sorted(tmp_path.iterdir()) == before


def test_formats_come_out_as_they_went_in(tmp_path: Path, capsys) -> None:
    data = np.random.default_rng(3).poisson(90.0, (2, 24, 28)).astype(np.uint16)
    frame = Frame(data, "CYX", Unit.ADU, Noise(1.0, 4.0, 0.0))
    for suffix in (".dv", ".mrc", ".ome.tif", ".tif", ".npy", ".zarr", ".h5", ".fits", ".fits.gz", ".fit"):
        path = tmp_path / f"a.b{suffix}"
        io.write(frame.replace(axes="ZYX") if suffix == ".mrc" else frame, path)
        assert main(["restore", str(path), "-o", str(tmp_path / "out"), "--detector", "gain=1,read_noise=2,offset=0"]) == 0
        assert (tmp_path / "out" / path.name).exists(), capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*self-check failed")  # its scene is smoother than its noise model says
def test_info_counts_flags_and_does_not_doubt_what_is_restored(tmp_path: Path, capsys) -> None:
    data = np.full((64, 64), 200, dtype=np.uint16) + np.random.default_rng(2).integers(-9, 10, (64, 64)).astype(np.uint16)
    data[3, 4] = 4095
    seen = Observation(exposure=300.0, saturation=4095.0)
    io.write(Frame(data, "YX", Unit.ADU, Noise(0.5, 4.0, 100.0), observation=seen), tmp_path / "a.npy")
    assert main(["info", str(tmp_path / "a.npy"), "--json"]) == 0
    assert out(capsys)["flags"] == {"saturated": 1}
    assert main(["calibrate", str(tmp_path / "a.npy"), "-o", str(tmp_path / "c.npy")]) == 0
    assert main(["restore", str(tmp_path / "c.npy"), "-o", str(tmp_path / "r.npy")]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "r.npy"), "--json"]) == 0
    assert out(capsys)["doubts"] == []


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_an_image_without_pixels_is_refused(suffix: str, tmp_path: Path, capsys) -> None:
    import zarr

    empty = np.zeros((0, 40, 40), np.uint16)
    path = tmp_path / f"a{suffix}"
    np.save(path, empty) if suffix == ".npy" else zarr.save_array(str(path), empty)
    for command in (["info"], ["measure"], ["restore", "-o", str(tmp_path / "o.npy")]):
        assert main([command[0], str(path), *command[1:]]) == 2
        assert "at least one pixel" in capsys.readouterr().err


def test_demo_keeps_files_of_like_names_apart_and_goes_on(counts: Path, tmp_path: Path, capsys) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    for name in ("a b.fits", "a_b.fits"):
        (data / name).write_bytes(counts.read_bytes())
    (data / "cut.fits").write_bytes(counts.read_bytes()[:3000])
    assert main(["demo", str(data), "-o", str(data), "--json"]) == 0
    rows = out(capsys)
    assert [r["restored"] is None for r in rows] == [False, False, True]
    assert len({r["restored"] for r in rows}) == 3
    assert main(["demo", str(data), "-o", str(tmp_path / "o")]) == 0
    assert "cut.fits: " in capsys.readouterr().out


def test_no_input_is_overwritten(counts: Path, tmp_path: Path, capsys) -> None:
    other, plate = tmp_path / "bias.fits", tmp_path / "plate.png"
    other.write_bytes(counts.read_bytes())
    io.write(Frame(np.asarray(io.read(counts).data), "YX", Unit.ADU, Noise(1.0, 4.0)), plate)
    (tmp_path / "alias.fits").symlink_to(other)
    before = {p: p.read_bytes() for p in (counts, other, plate)}
    for argv in (
        ["calibrate", str(counts), "--bias", str(other), "-o", str(tmp_path / "alias.fits")],
        ["calibrate", str(counts), str(other), "--stack", "-o", str(other)],
        ["restore", str(counts), str(other), "-o", str(tmp_path)],
        ["run", "astronomy", str(counts), "--input", f"bias={other}", "-o", str(other)],
        ["transfer", str(counts), "--gain", "2", "-o", str(counts)],
        ["transfer", str(plate), "--gain", "2", "--plot", str(plate)],
        ["transfer", str(counts), "--gain", "2", "-o", str(tmp_path / "new.tif")],
    ):
        assert main(argv) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert {p: p.read_bytes() for p in before} == before
        assert not (tmp_path / "new.tif").exists()


def test_masters_of_another_gain_are_refused(counts: Path, tmp_path: Path, capsys) -> None:
    frame = io.read(counts)
    for name, noise in (("same", frame.noise), ("other", Noise(0.25, 4.0, 100.0))):
        io.write(
            Frame(np.asarray(frame.data) // 9 + 80, "YX", Unit.ADU, noise, observation=Observation(exposure=0.0)),
            tmp_path / f"{name}.fits",
        )
    assert main(["calibrate", str(counts), "--bias", str(tmp_path / "same.fits"), "-o", str(tmp_path / "o.fits")]) == 0
    assert main(["calibrate", str(counts), "--bias", str(tmp_path / "other.fits"), "-o", str(tmp_path / "p.fits")]) == 2
    assert "gain" in capsys.readouterr().err
    assert not (tmp_path / "p.fits").exists()


def test_images_that_stay_as_they_are_are_said(counts: Path, tmp_path: Path, capsys) -> None:
    from astropy.io import fits

    image, header = fits.getdata(counts), fits.getheader(counts)
    parts = [fits.PrimaryHDU(), *(fits.ImageHDU(image, name="SCI", ver=v) for v in (1, 2))]
    parts[1].header.update({"GAIN": 2.0, "RDNOISE": 4.0, "BUNIT": "adu", "EXPTIME": header.get("EXPTIME", 1.0)})
    fits.HDUList(parts).writeto(tmp_path / "two.fits")
    argv = [
        "restore",
        str(tmp_path / "two.fits"),
        "-o",
        str(tmp_path / "o.fits"),
        "--detector",
        "gain=2,read_noise=4,offset=100",
    ]
    assert main([*argv, "--json"]) == 0
    assert out(capsys)[0]["kept"] == ["SCI,2"]


def test_transfer_says_its_doubts(tmp_path: Path, capsys) -> None:
    """Flats and an offset-free line that meets zero signal below zero variance: seed 5."""
    rng = np.random.default_rng(5)
    names = []
    for level in (200.0, 800.0, 3000.0, 9000.0):
        for i in range(2):
            data = np.rint(rng.normal(100 + level, np.sqrt(level - 150), (96, 96))).astype(np.uint16)
            names.append(str(tmp_path / f"{level:.0f}_{i}.npy"))
            io.write(Frame(data, "YX", Unit.ADU, Noise(1.0, 1.0, 100.0)), names[-1])
    dark = tmp_path / "dark.npy"
    io.write(Frame(np.full((96, 96), 100, np.uint16), "YX", Unit.ADU, Noise(1.0, 1.0, 100.0)), dark)
    assert main(["transfer", *names, "--darks", str(dark)]) == 0
    text = capsys.readouterr().out
    assert "doubt" in text
    assert main(["transfer", *names, "--darks", str(dark), "--json"]) == 0
    assert out(capsys)["doubts"]


@pytest.mark.parametrize(
    ("words", "before"),
    [
        (["develop", "a.dng", "-o", ""], "-o"),
        (["develop", "a.dng", "--out="], "a.dng"),
        (["develop", "", "-o", "a"], "develop"),
        (["mosaic-dataset", "build", "raws", ""], "raws"),
        ([""], "firstlight"),
    ],
)
def test_an_empty_argument_is_not_the_folder_one_is_in(words: list[str], before: str, capsys) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"firstlight: an empty argument after {before}, expected a value")
