"""Developing photographs: files and folders, formats, what each picture says of itself, resuming, borders; the real ARW."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rawpy
import torch
from scipy.ndimage import gaussian_filter

from firstlight import Frame, Mosaic, Noise, Observation, Unit, developing, io, model_file, operators, simulate
from firstlight.box import Box
from firstlight.cli import main
from firstlight.develop import hlg
from firstlight.develop.colour import camera_matrix, convert
from firstlight.develop.exposure import WHITE as SHARE
from firstlight.errors import FrameError
from firstlight.frame import Record
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import demosaic

SONY = ((0.6640, -0.1847, -0.0503), (-0.5238, 1.3010, 0.2474), (-0.0993, 0.1673, 0.6527))
BALANCE = np.array([2.5, 1.0, 1.5])
BLACK, WHITE = 512.0, 15872.0
NOISE = Noise(2.0, 9.0, BLACK)


def light(shape: tuple[int, int], blur: float = 1) -> np.ndarray:
    chart = simulate.chart(shape, np.random.default_rng(3)).transpose(2, 0, 1)
    return np.asarray(gaussian_filter(chart, (0, blur, blur)))


def photo(path: Path, pattern=BAYER, shape=(60, 66), seed=1, noise=NOISE, orientation=1, blur=1.0) -> Path:  # type: ignore[no-untyped-def]
    """A camera's raw file, a CFA DNG that states its noise: a chart of known Rec.2020 light at ISO 400."""
    seen = np.tensordot(np.linalg.inv(camera_matrix(SONY)), light(shape, blur), axes=1) / BALANCE[:, None, None]
    samples = operators.mosaic(pattern, shape)(seen * SHARE * (WHITE - BLACK) + BLACK)
    observation = Observation(
        instrument="X9",
        setting="ISO 400",
        exposure=1 / 125,
        time="2025-06-01T12:00:00",
        offset=BLACK,
        saturation=WHITE,
        white_balance=tuple(BALANCE),
        color_matrix=SONY,
        orientation=orientation,
    )
    data = np.clip(np.rint(noise.sample(samples, np.random.default_rng(seed))), 0, WHITE).astype(np.uint16)
    io.write(Frame(data, "YX", Unit.ADU, noise, geometry=Mosaic(pattern), observation=observation), path)
    return path


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Output and errors of `firstlight develop`, which ends with `code` and says an error in one line."""
    assert main(["develop", *map(str, words)]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if code == 2:
        assert len(err.strip().splitlines()) == 1
        assert err.startswith("firstlight: ")
    return out, err


SUFFIX = {"avif": ".avif", "ultrahdr": ".jpg", "jxl": ".jxl", "tiff": ".tif", "jpeg": ".jpg", "dng": ".dng", "cfa-dng": ".dng"}


@pytest.mark.parametrize("to", SUFFIX)
def test_every_format_is_upright_tells_what_ran_and_keeps_the_exposure(to: str, tmp_path: Path, capsys) -> None:
    source = photo(tmp_path / "in.dng", orientation=6)
    text, _ = run(source, "-o", tmp_path / "out", "--to", to, "--method", "lmmse", "--json", capsys=capsys)
    row = json.loads(text)[0]
    goal = tmp_path / "out" / f"in{SUFFIX[to]}"
    assert row["output"] == str(goal)
    assert list(row["seconds"]) == list(developing.STAGES)
    assert row["peak_memory"] > 1 << 20
    assert [p.name for p in goal.parent.iterdir()] == [goal.name]  # nothing beside it
    made = io.read(goal)
    upright = to != "cfa-dng"  # a mosaic lies as it was recorded, and says how
    assert made.shape[-2:] == ((66, 60) if upright else (60, 66))
    assert made.observation.orientation == (1 if upright else 6)
    steps = {r.step: r.params for r in made.history}
    assert steps["restore.demosaic"]["method"] == "lmmse"
    assert steps["io.read"]["path"] == "in.dng"
    seen = made.observation
    assert (seen.instrument, seen.setting, seen.exposure) == ("X9", "ISO 400", pytest.approx(1 / 125))


def test_the_name_of_the_output_says_the_format(tmp_path: Path, capsys) -> None:
    source = photo(tmp_path / "in.dng")
    for name, head in (("a.avif", b"ftypavif"), ("a.tif", b"II*\0"), ("a.jpg", b"\xff\xd8"), ("a.jxl", b"JXL ")):
        run(source, "-o", tmp_path / name, "--method", "lmmse", capsys=capsys)
        assert head in (tmp_path / name).read_bytes()[:16]
    run(source, "-o", tmp_path / "folder", "--method", "lmmse", capsys=capsys)
    assert (tmp_path / "folder" / "in.avif").is_file()


def test_the_light_comes_back(tmp_path: Path, capsys) -> None:
    """Scene-linear Rec.2020 within 1 % of white of the simulated light, in every format that holds it whole."""
    source = photo(tmp_path / "in.dng", noise=Noise(0.02, 0.01, BLACK), shape=(120, 126))
    truth = light((120, 126))
    run(source, "-o", tmp_path / "a.jxl", "--method", "lmmse", capsys=capsys)
    run(source, "-o", tmp_path / "a.avif", "--method", "lmmse", "--quality", 100, capsys=capsys)
    run(source, "-o", tmp_path / "a.tif", "--method", "lmmse", "--transfer", "linear", capsys=capsys)
    master = io.read(tmp_path / "a.jxl").data
    assert np.sqrt(np.mean((master - truth)[:, 8:-8, 8:-8] ** 2)) < 0.02
    below = (master.min(axis=0) > 0.02) & (master.max(axis=0) < 1)  # inside the gamut, under the shoulder
    scene = hlg.inverse_oetf(io.read(tmp_path / "a.avif").data / 1023) / hlg.REFERENCE
    assert np.abs(scene - master)[:, below].max() < 0.01
    linear = io.read(tmp_path / "a.tif").data / 65535 / hlg.REFERENCE
    assert np.abs(linear - master)[:, below].max() < 1e-3


def test_ev_wb_and_white_change_what_they_name(tmp_path: Path, capsys) -> None:
    source = photo(tmp_path / "in.dng", noise=Noise(0.02, 0.01, BLACK))

    def made(name: str, *words: object) -> np.ndarray:
        run(source, "-o", tmp_path / name, "--method", "lmmse", *words, capsys=capsys)
        return np.asarray(io.read(tmp_path / name).data)

    plain = made("plain.jxl")
    assert np.allclose(made("ev.jxl", "--ev", -1), plain / 2, atol=1e-5)
    assert np.allclose(made("white.jxl", "--white", 100), plain * (100 / 203) ** (1 / 1.2), atol=1e-5)
    assert np.allclose(made("wb.jxl", "--wb", "2.5,1,1.5"), plain, atol=1e-5)
    assert made("red.jxl", "--wb", "5,1,1.5")[0].mean() > 1.4 * plain[0].mean()


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_a_linear_dng_is_the_camera_s_own_colours(pattern, tmp_path: Path, capsys) -> None:
    """LibRaw reads back every stored code; balance, matrix and levels turn them into the light that was photographed."""
    source = photo(tmp_path / "in.dng", pattern, noise=Noise(0.02, 0.01, BLACK), shape=(120, 126))
    run(source, "-o", tmp_path / "out.dng", "--to", "dng", "--method", "lmmse", capsys=capsys)
    made = io.read(tmp_path / "out.dng")
    with rawpy.imread(str(tmp_path / "out.dng")) as raw:
        stored = np.moveaxis(raw.raw_image_visible[..., :3], -1, 0).astype(float)
        black, white = float(raw.black_level_per_channel[0]), float(raw.white_level)
        balance = np.array(raw.camera_whitebalance[:3])
        way = {"gamma": (1, 1), "no_auto_bright": True, "output_bps": 16, "use_camera_wb": True, "user_flip": 0}
        shown = np.moveaxis(raw.postprocess(**way, adjust_maximum_thr=0.0), -1, 0) / 65535
    scale = np.median((stored - black)[:, 60, 60] / made.data[:, 60, 60])
    assert scale == 2 ** np.rint(np.log2(scale))
    assert np.array_equal(stored - black, made.data * scale)
    assert white - black == pytest.approx((WHITE - BLACK) * scale, rel=1e-3)
    assert np.allclose(balance / balance[1], BALANCE, rtol=1e-3)
    truth = convert(light((120, 126)), "rec2020", "srgb") * SHARE
    inside = ((truth > 0.01) & (truth < 0.6)).all(axis=0)
    error = (shown / truth)[:, inside] / np.median((shown / truth)[:, inside])  # LibRaw's colours, its exposure apart
    assert np.median(np.abs(error - 1)) < 0.02
    again, _ = run(tmp_path / "out.dng", "-o", tmp_path / "again.jxl", "--json", capsys=capsys)
    run(source, "-o", tmp_path / "once.jxl", "--method", "lmmse", capsys=capsys)
    once, twice = (io.read(tmp_path / f"{n}.jxl").data for n in ("once", "again"))
    assert np.abs(once - twice).max() < 1e-3
    assert json.loads(again)[0]["method"] == "lmmse"  # as its history says


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_a_mosaic_dng_holds_the_denoised_samples(pattern, tmp_path: Path, capsys) -> None:
    source = photo(tmp_path / "in.dng", pattern, shape=(120, 126), blur=8, noise=Noise(100.0, 900.0, BLACK))
    clean = photo(tmp_path / "clean.dng", pattern, shape=(120, 126), blur=8, noise=Noise(0.0, 0.0, BLACK))
    run(source, "-o", tmp_path / "out.dng", "--to", "cfa-dng", "--method", "lmmse", capsys=capsys)
    made, noisy, truth = (io.read(p) for p in (tmp_path / "out.dng", source, clean))
    with rawpy.imread(str(tmp_path / "out.dng")) as raw:
        stored = raw.raw_image_visible.astype(float)
        black, white = float(raw.black_level_per_channel[0]), float(raw.white_level)
        assert np.array_equal(raw.raw_colors_visible % 3 if pattern is XTRANS else raw.raw_colors_visible, _libraw(source))
        assert np.allclose(np.array(raw.camera_whitebalance[:3]) / raw.camera_whitebalance[1], BALANCE, rtol=1e-3)
    scale = (white - black) / (WHITE - BLACK)
    assert scale == pytest.approx(2 ** np.rint(np.log2(scale)), rel=1e-3)
    assert np.allclose(stored - black, made.data * 2 ** np.rint(np.log2(scale)), atol=1e-6)  # LibRaw: exactly what was stored
    error = [np.sqrt(np.mean((np.asarray(f.data) + off - truth.data) ** 2)) for f, off in ((made, BLACK), (noisy, 0.0))]
    assert error[0] < 0.7 * error[1]
    assert made.geometry == noisy.geometry
    assert made.observation.saturation == pytest.approx(WHITE - BLACK)


def _libraw(path: Path) -> np.ndarray:
    with rawpy.imread(str(path)) as raw:
        return np.asarray(raw.raw_colors_visible).copy()


def test_exposure_bias_stays_in_a_dng(tmp_path: Path) -> None:
    """BaselineExposure, or what a maker's note says of the dynamic range, as a tag that other developers read."""
    import tifffile

    from firstlight.develop import pipeline, raws
    from firstlight.io.raw import Header

    frame = io.read(photo(tmp_path / "in.dng"))
    frame = frame.replace(observation=Observation(**(vars(frame.observation) | {"header": Header({"BaselineExposure": 1.5})})))
    seen = pipeline.camera(pipeline.prepared(frame), method="lmmse")
    for name, made in (("l.dng", raws.linear_raw(seen)), ("m.dng", raws.mosaic_raw(seen))):
        io.write(made, tmp_path / name)
        with tifffile.TiffFile(tmp_path / name) as tiff:
            over, under = tiff.pages[0].tags["BaselineExposure"].value
        assert over / under == 1.5


def test_a_method_of_another_pattern_is_refused_and_history_names_what_ran(tmp_path: Path, capsys) -> None:
    bayer, xtrans = photo(tmp_path / "b.dng"), photo(tmp_path / "x.dng", XTRANS)
    _, err = run(bayer, "-o", tmp_path / "o.avif", "--method", "markesteijn", code=2, capsys=capsys)
    assert "'markesteijn' does not apply to Bayer" in err
    assert "b.dng" in err
    _, err = run(xtrans, "-o", tmp_path / "o.avif", "--method", "ahd", code=2, capsys=capsys)
    assert "'ahd' does not apply to X-Trans" in err
    assert not (tmp_path / "o.avif").exists()
    text, _ = run(bayer, "-o", tmp_path / "o.avif", "--method", "ahd", capsys=capsys)
    assert "LibRaw" in text
    assert "AHD" in text
    assert "not denoised" in text
    assert "AHD" in next(r for r in io.read(tmp_path / "o.avif").history if r.step == "restore.demosaic").params["ran"]


def folder(path: Path) -> Path:
    """Three photographs in two folders, and files that are none."""
    (path / "day").mkdir(parents=True)
    photo(path / "a.dng", seed=1)
    photo(path / "b.DNG", seed=2)
    photo(path / "day" / "a.dng", seed=3)
    (path / "notes.txt").write_text("none")
    return path


def test_a_folder_keeps_its_subfolders_and_one_bad_file_stops_nothing(tmp_path: Path, capsys) -> None:
    photos = folder(tmp_path / "in")
    (photos / "empty.ARW").write_bytes(b"")
    out, err = run(photos, "-o", tmp_path / "out", "--method", "bilinear", code=2, capsys=capsys)
    assert "empty.ARW: is empty (0 bytes)" in err
    made = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert made == {"a.avif", "b.avif", "day/a.avif"}
    assert len(out.splitlines()) == 3


def test_what_is_there_is_left_and_what_is_another_is_refused(tmp_path: Path, capsys) -> None:
    photos = folder(tmp_path / "in")
    words = (photos, "-o", tmp_path / "out", "--method", "bilinear")
    run(*words, capsys=capsys)
    (tmp_path / "out" / "b.avif").unlink()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.avif")}
    out, _ = run(*words, capsys=capsys)
    assert "2 photographs" in out
    assert "b.avif" in out
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    os.utime(photos / "a.dng")  # touched, but the same
    out, _ = run(*words, capsys=capsys)
    assert "3 photographs" in out
    (tmp_path / "out" / "day" / "a.avif").unlink()
    _, err = run(*words, "--ev", 1, code=2, capsys=capsys)
    assert "a.avif: was developed otherwise (ev as usual, now 1.0); --anew" in err
    assert not (tmp_path / "out" / "day" / "a.avif").exists()  # refused before any work
    photo(photos / "a.dng", seed=9)
    _, err = run(*words, code=2, capsys=capsys)
    assert "from another file" in err
    run(*words, "--anew", capsys=capsys)
    out, _ = run(*words, capsys=capsys)
    assert "3 photographs" in out
    (tmp_path / "out" / "b.avif").write_bytes(b"a picture of someone else")
    _, err = run(*words, code=2, capsys=capsys)
    assert "does not say how it was made" in err


@pytest.mark.parametrize("option", ["detector", "model"])
def test_a_named_file_that_holds_something_else_by_now_is_another(option: str, tmp_path: Path, capsys) -> None:
    source, named = photo(tmp_path / "in.dng", shape=(24, 24)), tmp_path / "named"

    def other(seed: int) -> None:
        if option == "detector":
            named.with_suffix(".json").write_text(json.dumps({"gain": 0.5 + seed, "read_noise": 3}))
            return
        torch.manual_seed(seed)
        scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in BAYER]}
        made = model_file.new("packed", {"pack": 6, "width": 4, "depth": 1}, scaling=scaling)
        model_file.save(made, named.with_suffix(".safetensors"))

    other(0)
    file = next(tmp_path.glob("named.*"))
    words = (source, "-o", tmp_path / "o.avif", f"--{option}", file)
    run(*words, capsys=capsys)
    assert "1 photograph" in run(*words, capsys=capsys)[0]
    file.unlink()
    other(1)
    _, err = run(*words, code=2, capsys=capsys)
    assert f"o.avif: was developed otherwise ({option} {file.name}" in err


@pytest.mark.parametrize("to", SUFFIX)
def test_every_format_is_known_again(to: str, tmp_path: Path, capsys) -> None:
    source = photo(tmp_path / "in.dng")
    words = (source, "-o", tmp_path / "out", "--to", to, "--method", "lmmse", "--json")
    run(*words, capsys=capsys)
    again = json.loads(run(*words, capsys=capsys)[0])
    assert again[0]["skipped"] is True


def test_results_in_the_folder_itself_are_not_developed(tmp_path: Path, capsys) -> None:
    photos = folder(tmp_path / "in")
    words = (photos, "-o", photos / "dng", "--to", "dng", "--method", "bilinear")
    run(*words, capsys=capsys)
    run(*words, capsys=capsys)
    assert len(list((photos / "dng").rglob("*.dng"))) == 3


def test_processes_make_the_same_pictures(tmp_path: Path, capsys) -> None:
    photos = folder(tmp_path / "in")
    (photos / "bad.ARW").write_bytes(b"II*\0" + bytes(100))
    run(photos, "-o", tmp_path / "one", "--method", "bilinear", code=2, capsys=capsys)
    text, err = run(photos, "-o", tmp_path / "two", "--method", "bilinear", "--jobs", 2, "--json", code=2, capsys=capsys)
    assert "bad.ARW" in err
    rows = json.loads(text)
    assert [Path(r["input"]).name for r in rows] == ["a.dng", "b.DNG", "bad.ARW", "a.dng"]
    for path in (tmp_path / "one").rglob("*.avif"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


SLOW = """
import sys, time
from firstlight import developing
from firstlight.cli import main

real, done = developing.write_rendered, []

def slow(*args, **params):
    if len(done) == 2:
        time.sleep(600)
    done.append(real(*args, **params))

developing.write_rendered = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is a POSIX signal here")
def test_ctrl_c_leaves_whole_pictures_and_the_rest_goes_on(tmp_path: Path, capsys) -> None:
    """In a batch that stays at its third picture until the signal comes, however late."""
    photos = tmp_path / "in"
    photos.mkdir()
    first = photo(photos / "000.dng").read_bytes()
    for i in range(1, 5):
        (photos / f"{i:03d}.dng").write_bytes(first)
    command = [sys.executable, "-c", SLOW, "develop", str(photos), "-o", str(tmp_path / "out"), "--method", "bilinear"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(list((tmp_path / "out").glob("*.avif"))) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000.avif", "001.avif"]
    out, _ = run(photos, "-o", tmp_path / "out", "--method", "bilinear", capsys=capsys)
    assert "2 photographs" in out
    assert len(list((tmp_path / "out").iterdir())) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="a kill that cannot be caught is a POSIX signal here")
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """They hold its standard output: it ends where the last of them does."""
    photos = folder(tmp_path / "in")
    words = ["develop", str(photos), "-o", str(tmp_path / "out"), "--method", "bilinear", "--jobs", "2"]
    command = [sys.executable, "-c", f"import sys; from firstlight.cli import main; sys.exit(main({words!r}))"]
    how = {"stderr": subprocess.DEVNULL, "stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, **how) as process:  # type: ignore[call-overload]
        while process.poll() is None and not list((tmp_path / "out").rglob("*.avif")):
            time.sleep(0.02)
        process.kill()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("processes outlive their parent")
    assert not list((tmp_path / "out").rglob(".*"))


BAD = (
    ("--wb 1,2", "--wb 1,2, expected three"),
    ("--wb 1,-2,3", "expected three positive"),
    ("--wb a,b,c", "expected three positive"),
    ("--denoise much", "--denoise much, expected auto, off"),
    ("--denoise -1", "expected auto, off"),
    ("--denoise nan", "expected auto, off"),
    ("--white nan", "diffuse white at nan nits"),
    ("--white 2000", "diffuse white at 2000 nits"),
    ("--white 1e-300", "diffuse white at 1e-300 nits, expected 1 to below"),
    ("--ev inf", "expected a number of stops"),
    ("--ev 1e9", "expected a number of stops"),
    ("--denoise 1e30", "expected auto, off"),
    ("--wb 1e-300,1,1", "expected three positive"),
    ("--wb 1e38,1,1", "expected three positive"),
    ("--quality 101", "expected 0 to 100"),
    ("--jobs 0", "expected 1 or more"),
    ("--to tiff --quality 90", "--quality is for avif, ultrahdr, jpeg"),
    ("--to dng --white 100", "--white is for"),
    ("--to cfa-dng --ev 1", "--ev is for"),
    ("--transfer linear", "--transfer is for tiff"),
    ("--to cfa-dng --method bilinear", "with --method bilinear it would be the raw file's own"),
    ("--to cfa-dng --denoise off", "with --denoise off"),
    ("--to cfa-dng --keep-samples", "with --keep-samples"),
    ("--method bilinear --denoise 0.5", "takes no noise off"),
    ("--method lmmse --model m.safetensors", "--model is of --method net"),
    ("--model none.safetensors", "no such model file"),
    ("--profile documented", "needs its network"),
    ("--profile documented --model x --ev 1", "--ev is not of it"),
    ("--profile documented --model x --to tiff", "--to tiff is not of it"),
    ("--detector gain=x", "expected a JSON file or gain"),
)


@pytest.mark.parametrize(("words", "told"), BAD)
def test_options_without_meaning_are_one_line(words: str, told: str, tmp_path: Path, capsys) -> None:
    source = photo(tmp_path / "in.dng", shape=(24, 24))
    _, err = run(source, "-o", tmp_path / "out", *words.split(), code=2, capsys=capsys)
    assert told in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--detector", "gain=x"), "detector 'gain=x'"),
        (("--detector", "gain=1,foo=3"), "unknown keys ['foo']"),
        (("--detector", "none.json"), "none.json: no such detector file"),
        (("--detector", "{}/text.json"), "text.json: noise: gain is 'much', expected a number"),
        (("--model", "{}/in/a.dng"), "a.dng: not a whole safetensors file"),
        (("--model", str(model_file.shipped("universal"))), "universal.safetensors: a model of domain 'stabilised'"),
    ],
)
def test_what_would_fail_for_every_photograph_is_told_once(words, told: str, tmp_path: Path, capsys) -> None:
    photos = folder(tmp_path / "in")
    (tmp_path / "text.json").write_text('{"gain": "much", "read_noise": 3}')
    _, err = run(photos, "-o", tmp_path / "out", *(w.format(tmp_path) for w in words), code=2, capsys=capsys)
    assert told in err
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_written_to_are_told_before_any_work(tmp_path: Path, capsys, monkeypatch) -> None:
    photos = folder(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "whole" / "a.avif").mkdir(parents=True)
    monkeypatch.setattr(developing.intake, "load", lambda path, detector: pytest.fail("too late"))
    _, err = run(photos / "a.dng", "-o", tmp_path / "whole", "--anew", code=2, capsys=capsys)
    assert "a.avif: is a folder, expected the name of a file" in err
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # an administrator may write anywhere
    for out in (tmp_path / "out", tmp_path / "out" / "a.avif"):
        _, err = run(photos / "a.dng", "-o", out, code=2, capsys=capsys)
        assert "out cannot be written to; make it writable" in err


def test_files_that_are_no_photographs_are_one_line(tmp_path: Path, capsys) -> None:
    good = photo(tmp_path / "good.dng", shape=(24, 24))
    grey = Frame(np.full((24, 24), 9, np.uint8), "YX", Unit.DISPLAY, NOISE)
    io.write(grey, tmp_path / "a.png")
    io.write(grey, tmp_path / "a.tif")
    (tmp_path / "png.ARW").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "tif.dng").write_bytes((tmp_path / "a.tif").read_bytes())
    (tmp_path / "cut.dng").write_bytes(good.read_bytes()[:-200])
    (tmp_path / "nothing").mkdir()
    for name, told in (
        ("absent.ARW", "no such file"),
        ("a.png", "expected a raw file: .arw"),
        ("a.tif", "expected a raw file: .arw"),
        ("png.ARW", "is a PNG file by its first bytes"),
        ("tif.dng", "names no camera"),
        ("cut.dng", "cut.dng"),
        ("nothing", "no file in it ends in"),
    ):
        _, err = run(tmp_path / name, "-o", tmp_path / "out", code=2, capsys=capsys)
        assert told in err
        assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_are_one_line(tmp_path: Path, capsys) -> None:
    a, twin = photo(tmp_path / "a.dng", shape=(24, 24)), tmp_path / "a.DNG"
    twin.write_bytes(a.read_bytes())
    (tmp_path / "file").write_text("")
    for words, told in (
        ((a, "-o", a, "--to", "dng"), "would overwrite the input"),
        ((a, "-o", tmp_path, "--to", "dng"), "would overwrite the input"),
        ((a, twin, "-o", tmp_path / "out"), "have the same name"),
        ((a, twin, "-o", tmp_path / "out.avif"), "expected a folder for several"),
        ((a, "-o", tmp_path / "absent" / "a.avif"), "does not exist"),
        ((a, "-o", tmp_path / "file"), "expected a folder"),
        ((a, "-o", tmp_path / "file" / "b"), "cannot be made a folder"),
        ((a, "-o", tmp_path / "a.fits"), "unknown format .fits"),
        ((a, "-o", tmp_path / "a.tif", "--to", "avif"), "a picture of format avif is named .avif"),
    ):
        _, err = run(*words, "--method", "bilinear", code=2, capsys=capsys)
        assert told in err


def test_a_denoised_mosaic_is_not_denoised_again(tmp_path: Path, capsys) -> None:
    """Its samples are interpolated as they are."""
    source = photo(tmp_path / "in.dng", noise=Noise(60.0, 900.0, BLACK), shape=(120, 126))
    run(source, "-o", tmp_path / "cfa.dng", "--to", "cfa-dng", "--method", "lmmse", capsys=capsys)
    made = {}
    for name, more in (("auto", ()), ("off", ("--denoise", "off"))):
        words = (tmp_path / "cfa.dng", "-o", tmp_path / f"{name}.jxl", "--method", "lmmse", "--json", *more)
        row = json.loads(run(*words, capsys=capsys)[0])[0]
        made[name] = np.asarray(io.read(tmp_path / f"{name}.jxl").data)
        assert row["noise"] == "not denoised"
    assert np.array_equal(made["auto"], made["off"])


def test_colours_without_a_matrix_are_refused_before_demosaicking(tmp_path: Path, capsys, monkeypatch) -> None:
    frame = io.read(photo(tmp_path / "in.dng"))
    io.write(frame.replace(observation=Observation(**(vars(frame.observation) | {"color_matrix": None}))), tmp_path / "n.dng")
    run(tmp_path / "n.dng", "-o", tmp_path / "o.dng", "--method", "lmmse", capsys=capsys)  # camera's colours need none
    monkeypatch.setattr(developing.pipeline, "prepared", lambda frame, denoise: pytest.fail("too late"))
    _, err = run(tmp_path / "n.dng", "-o", tmp_path / "o.avif", code=2, capsys=capsys)
    assert "no colour matrix of X9 is known" in err


def test_pictures_of_other_shipped_weights_are_not_left(tmp_path: Path, capsys, monkeypatch) -> None:
    source = photo(tmp_path / "in.dng", shape=(24, 24))
    words = (source, "-o", tmp_path / "o.avif")
    run(*words, capsys=capsys)
    out, _ = run(*words, capsys=capsys)
    assert "1 photograph" in out
    monkeypatch.setattr(developing, "_shipped", lambda: frozenset({"another"}))
    _, err = run(*words, code=2, capsys=capsys)
    assert "came with another version; --anew" in err


def documented(path: Path) -> Path:
    """The documented network, untrained and small: what it does is not asked here."""
    scaling = {"domain": "mosaic", "prefilter": "zero", "light": "linear", "balanced": False, "pattern": XTRANS}
    model = model_file.new("mosaic-unet", {"base": 4}, scaling=scaling)
    rng = np.random.default_rng(7)
    for value in model.net.parameters():
        value.data[:] = torch.from_numpy(rng.normal(0.1, 0.3, value.shape))
    return model_file.save(model, path)


@pytest.mark.filterwarnings("always")
def test_the_documented_profile_is_the_published_one_and_warns(tmp_path: Path, capsys) -> None:
    """Against its own arithmetic: one black and white, no balance before the network, HLG's curve on full scale, cut off."""
    source = photo(tmp_path / "in.dng", XTRANS, shape=(96, 96))
    model = documented(tmp_path / "m.safetensors")
    words = (source, "-o", tmp_path / "o.avif", "--quality", 100, "--model", model)
    _, err = run(*words, "--profile", "documented", capsys=capsys)
    assert err.count("profile documented: ") == 7
    assert "84 nits instead of 26" in err
    assert "288 px" in err
    from firstlight.restore.mosaic_unet import through_unet

    raw, net = io.read(source), model_file.load(model).net
    seen = (raw.data.astype(np.float32) - np.float32(BLACK)) / np.float32(WHITE - BLACK)
    colors = through_unet(seen, raw.geometry, net, documented=True) * BALANCE.astype(np.float32)[:, None, None]
    codes = np.rint(np.clip(hlg.oetf(np.maximum(colors, 0)), 0, 1) * 1023)
    assert np.abs(io.read(tmp_path / "o.avif").data - codes).max() <= 1
    assert np.ptp(codes) > 50
    _, err = run(*words, "--anew", code=2, capsys=capsys)
    assert "learned on mosaics without white balance" in err
    assert [r.step for r in io.read(tmp_path / "o.avif").history][-1] == "develop.documented"


def test_demosaic_refuses_a_balanced_frame_for_a_network_that_learned_without(tmp_path: Path) -> None:
    frame = Frame(np.full((48, 48), 0.5, np.float32), "YX", Unit.ADU, Noise(0.0, 0.0), geometry=Mosaic(XTRANS))
    model = str(documented(tmp_path / "m.safetensors"))
    demosaic(frame, method="net", model=model)
    balanced = frame.replace(history=(Record("calibrate.white_balance", {}),))
    with pytest.raises(Exception, match="without white balance"):
        demosaic(balanced, method="net", model=model)


def test_another_network_is_refused_in_the_documented_profile(tmp_path: Path, capsys) -> None:
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": XTRANS}
    model = model_file.save(model_file.new("mosaic-unet", {"base": 4}, scaling=scaling), tmp_path / "m.safetensors")
    source = photo(tmp_path / "in.dng", XTRANS, shape=(48, 48))
    _, err = run(source, "-o", tmp_path / "o.avif", "--profile", "documented", "--model", model, code=2, capsys=capsys)
    assert "learned on balanced mosaics" in err


def test_a_monochrome_sensor_has_no_mosaic_to_write(tmp_path: Path) -> None:
    from firstlight.develop import pipeline, raws

    frame = io.read(photo(tmp_path / "in.dng")).replace(geometry=None)
    seen = pipeline.camera(pipeline.prepared(frame))
    assert pipeline.finished(seen).shape == (3, 60, 66)
    for write in (raws.linear_raw, raws.mosaic_raw):
        with pytest.raises(FrameError, match=r"monochrome|no mosaic"):
            write(seen)
    with pytest.raises(FrameError, match="no mosaic"):
        pipeline.camera(pipeline.prepared(frame), method="lmmse")


def test_the_real_arw(data: Path, tmp_path: Path) -> None:
    """A corner of it: noise estimated from the picture itself, every colour there, blue stage light."""
    files = list((data / "raw").glob("*.ARW"))
    if not files:
        pytest.skip("no ARW in the folder of real data")
    frame = io.read(files[0])
    io.write(frame.crop(Box((1200, 1600), (1500, 2000))), tmp_path / "part.dng")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = developing.develop([tmp_path / "part.dng"], tmp_path / "o.avif", developing.Developing(method="lmmse"))
    assert "gain 0." in rows[0]["noise"]
    codes = io.read(tmp_path / "o.avif").data
    assert codes.shape == (3, 300, 400)
    assert codes[2].mean() > 1.5 * codes[0].mean()
    edges = codes[:, [0, -1]].mean(), codes[:, :, [0, -1]].mean()
    assert min(edges) > 0.5 * codes.mean()
