"""`firstlight sources`: catalogues on disk and as JSON, in dual-image mode; refusals in one line; real frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from firstlight import Frame, Noise, Unit, calibrate, io, measure, simulate
from firstlight.cli import main
from firstlight.restore import nonlocal_means

NOISE = Noise(1.0, 25.0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: Any) -> tuple[int, str, str]:
        code = main([str(w) for w in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stars")
    truth, _ = simulate.star_field((160, 160), np.random.default_rng(1), n=30, faintest=800)
    frame = Frame(NOISE.sample(truth, np.random.default_rng(2)).astype(np.float32), "YX", Unit.ELECTRON, NOISE)
    paths = folder / "light.fits", folder / "restored.fits"
    for f, path in zip((frame, nonlocal_means(frame)), paths, strict=True):
        io.write(f, path)
    return paths


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits"])
def test_a_catalogue_is_what_the_function_finds(cli: Any, files: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    goal = tmp_path / f"stars.{suffix}"
    code, out, err = cli("sources", files[0], "--restored", files[1], "--fwhm", "2.5", "--out", goal, "--json")
    assert (code, err) == (0, "")
    got, want = json.loads(out), measure.sources(io.read(files[0]), restored=io.read(files[1]), fwhm=2.5)
    assert len(got["sources"]) == len(want) > 20
    assert got["dual"] is True
    assert got["units"]["flux"] == "electron"
    table = Table.read(goal)
    assert table.colnames == want.colnames
    for name in ("y", "x", "flux", "flux_std"):
        np.testing.assert_allclose(table[name], want[name], rtol=1e-6)
        np.testing.assert_allclose([s[name] for s in got["sources"]], want[name], rtol=1e-6)
    if suffix == "fits":
        assert table.meta["FLUXUNIT"] == "electron"
        assert table.meta["FWHM"] == 2.5


def test_what_people_see(cli: Any, files: tuple[Path, Path]) -> None:
    code, out, _ = cli("sources", files[0], "--threshold", "8")
    assert code == 0
    assert "sources above 8 standard errors, detected and measured on the same image" in out
    assert "flux_std" in out


def test_bad_input_is_one_line(cli: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    before = files[0].read_bytes()
    io.write(Frame(np.zeros((9, 160), np.float32), "YX", Unit.ELECTRON, NOISE), tmp_path / "small.fits")
    for words, reason in (
        ((files[0], "--out", tmp_path / "x.txt"), "a catalogue is .csv, .ecsv, .fits"),
        ((files[0], "--out", files[0]), "light.fits"),
        ((files[0], "--threshold", "-1"), "expected a positive number"),
        ((files[1],), "restored: pixels are correlated"),
        ((tmp_path / "none.fits",), "no such file"),
        ((files[0], "--restored", tmp_path / "small.fits", "--fwhm", "2.5"), "restored has shape"),
    ):
        code, out, err = cli("sources", *words)
        assert (code, out) == (2, "")
        assert reason in err
        assert len(err.strip().splitlines()) == 1
    assert files[0].read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["small.fits"]


def test_fluxes_of_a_real_field_repeat_as_their_error_bars_say(data: Path) -> None:
    """HAT-P-32, 8 frames: scatter of a star's dual-image flux over its standard error; noise of bench/hatp32.py."""
    folder = data / "astronomy/hatp32"
    if not folder.exists():
        pytest.skip("hatp32 is absent")
    raw = [io.read(p) for p in sorted(folder.glob("*.FITS.gz"))[20:28]]
    hot, noise = calibrate.flag_hot_pixels(raw[0], reference=raw).flags, Noise(0.0307, 1.13)
    sky = [np.float32(np.median(f.data)) for f in raw]
    frames = [f.replace(data=np.asarray(f.data) - k, flags=hot, noise=noise) for f, k in zip(raw, sky, strict=True)]
    moved = calibrate.register(frames)
    table = measure.sources(calibrate.combine(moved).replace(noise=noise.averaged(8)), threshold=40.0, fwhm=2.0)
    y, x, bright = (np.asarray(table[k]) for k in ("y", "x", "flux"))
    near = np.hypot(y[:, None] - y, x[:, None] - x) < 8
    keep = ((near & (bright > 0.1 * bright[:, None])).sum(axis=1) == 1) & (bright > 50) & (bright < 1500)
    keep &= (np.abs(y - 250) < 200) & (np.abs(x - 325) < 270)
    got = [measure.aperture_flux(f, y[keep], x[keep], restored=nonlocal_means(f, std=False), fwhm=2.0) for f in moved]
    flux = np.array([np.where(g.flags == 0, g.flux, np.nan) for g in got])
    often = np.isfinite(flux).sum(axis=0) >= 6  # hot pixels pass by
    assert often.sum() > 60
    flux, std = flux[:, often], np.array([g.flux_std for g in got])[:, often]
    flux /= np.nanmedian(flux / np.nanmedian(flux, axis=0), axis=1)[:, None]  # transparency of each frame
    assert 0.8 < np.median(np.nanstd(flux, axis=0, ddof=1) / std.mean(axis=0)) < 1.3
