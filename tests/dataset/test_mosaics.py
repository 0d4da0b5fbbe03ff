"""Linear pictures from raw files: black once, white balance first, nothing clipped; through scp; resumed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from firstlight import io
from firstlight.atomic import write_text
from firstlight.dataset.mosaics import Making, build_mosaics, linear, picture, shrunk
from firstlight.dataset.remote import is_remote, listed
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Unmodelled

WB = (2.0, 1.0, 1.5)
BLACK, WHITE = 512, 4512


def raw(colors: np.ndarray, mosaic: Mosaic) -> Frame:
    """A raw exposure of balanced linear colours (3, Y, X), 1 = white of green."""
    seen = np.take_along_axis(colors / np.array(WB)[:, None, None], mosaic.at(colors.shape[1:])[None], 0)[0]
    data = np.round(BLACK + (WHITE - BLACK) * seen).astype(np.uint16)
    told = Observation(offset=float(BLACK), saturation=float(WHITE), white_balance=WB)
    return Frame(data, "YX", Unit.ADU, Unmodelled("none"), geometry=mosaic, observation=told)


def ramp(side: tuple[int, int] = (48, 72)) -> np.ndarray:
    y, x = np.mgrid[: side[0], : side[1]]
    return np.stack([0.2 + 0.3 * x / side[1], 0.2 + 0.3 * y / side[0], 0.5 - 0.2 * x / side[1]])


@pytest.fixture
def raws(tmp_path: Path) -> Path:
    for folder, level in (("103_FUJI", 1.0), ("104_FUJI", 0.5)):
        (tmp_path / "raws" / folder).mkdir(parents=True)
        io.write(raw(level * ramp(), Mosaic(BAYER)), tmp_path / "raws" / folder / "DSCF0001.dng")
    return tmp_path / "raws"


@pytest.mark.parametrize("method", ["average", "superpixel"])
@pytest.mark.parametrize("mosaic", [Mosaic(BAYER, (1, 0)), Mosaic(XTRANS, (2, 5))])
def test_a_ramp_comes_back_with_its_colours_where_they_lie(method: str, mosaic: Mosaic) -> None:
    found = picture(raw(ramp(), mosaic), Making(method=method))  # type: ignore[arg-type]
    truth = shrunk(ramp().astype(np.float32), 4)
    # a superpixel's means lie where its samples do, up to a pixel and a half off the middle
    least = 0.5 / (WHITE - BLACK) + 0.0006 if method == "average" else 1.5 * 0.3 / 48
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(found[inner] - truth[inner]).max() < least
    if method == "average":
        assert abs(float((found[inner] - truth[inner]).mean())) < 1e-4


def test_black_is_taken_off_once_and_nothing_is_clipped() -> None:
    frame = raw(np.zeros((3, 12, 12)), Mosaic(BAYER))
    data = np.array(frame.data)
    data[0, 0], data[5, 5] = BLACK - 40, 5512  # R below black; B above white
    light = linear(frame.replace(data=data))
    assert light.data[0, 0] == pytest.approx(2.0 * -40 / 4000)
    assert light.data[5, 5] == pytest.approx(1.5 * 5000 / 4000)
    assert light.data[3, 2] == 0
    assert np.asarray(light.observation.saturation).tolist() == [[2.0, 1.0], [1.0, 1.5]]


def test_what_is_no_raw_mosaic_is_refused() -> None:
    frame = raw(ramp(), Mosaic(BAYER))
    with pytest.raises(FrameError, match="raw file"):
        linear(frame.replace(geometry=None))
    with pytest.raises(FrameError, match="white level"):
        linear(frame.replace(observation=Observation(offset=1.0, white_balance=WB)))
    with pytest.raises(FrameError, match="shrink 0"):
        Making(shrink=0)


def test_a_set_has_the_documents_fields_and_goes_on_where_it_stopped(raws: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    rows = build_mosaics([str(raws)], out)
    assert [Path(r["output"]).name for r in rows] == ["103_FUJI_DSCF0001.npy", "104_FUJI_DSCF0001.npy"]
    meta = json.loads((out / "103_FUJI_DSCF0001_meta.json").read_text())
    data = np.load(out / "103_FUJI_DSCF0001.npy")
    assert data.dtype == np.float32
    assert data.shape == (12, 18, 3)
    assert meta["value_range"] == [float(data.min()), float(data.max())]
    wanted = {"black_level": BLACK, "white_level": WHITE, "original_size": [48, 72], "size": [12, 18], "balanced": True}
    assert {k: meta[k] for k in wanted} == wanted
    np.testing.assert_allclose(meta["camera_wb"], WB, rtol=1e-4)
    assert meta["source"] == str(raws / "103_FUJI" / "DSCF0001.dng")
    before = (out / "103_FUJI_DSCF0001.npy").stat().st_mtime_ns
    (out / "104_FUJI_DSCF0001_meta.json").unlink()
    assert len(build_mosaics([str(raws)], out)) == 2
    assert (out / "103_FUJI_DSCF0001.npy").stat().st_mtime_ns == before
    assert (out / "104_FUJI_DSCF0001_meta.json").exists()
    with pytest.raises(WriteError, match="made otherwise"):
        build_mosaics([str(raws)], out, Making(shrink=2))


def test_a_file_that_cannot_be_read_is_told_and_the_others_go_on(raws: Path, tmp_path: Path) -> None:
    (raws / "103_FUJI" / "DSCF0002.dng").write_bytes(b"II*\0")
    rows = build_mosaics([str(raws)], tmp_path / "set")
    assert [("error" in r, Path(r["input"]).name) for r in rows] == [
        (False, "DSCF0001.dng"),
        (True, "DSCF0002.dng"),
        (False, "DSCF0001.dng"),
    ]
    assert not list((tmp_path / "set").glob("*0002*"))


def test_patches_tile_the_picture(raws: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    build_mosaics([str(raws / "103_FUJI")], whole, Making(shrink=2))
    build_mosaics([str(raws / "103_FUJI")], cut, Making(shrink=2, patches=12))
    picture_, patches = np.load(whole / "DSCF0001.npy"), np.load(cut / "DSCF0001.npy")
    assert patches.shape == (6, 12, 12, 3)
    np.testing.assert_array_equal(patches[4], picture_[12:24, 12:24])
    assert json.loads((cut / "DSCF0001_meta.json").read_text())["axes"] == "NYXC"
    rows = build_mosaics([str(raws / "103_FUJI")], tmp_path / "none", Making(patches=96))
    assert "hold no patch" in rows[0]["error"]


def test_full_size_keeps_pairs(raws: Path, tmp_path: Path) -> None:
    (raws / "103_FUJI" / "DSCF0001.JPG").write_bytes(b"a picture")
    rows = build_mosaics([str(raws)], tmp_path / "set", Making(full_size=True, jpeg=True))
    kept = tmp_path / "set" / "103_FUJI_DSCF0001"
    assert kept.with_suffix(".dng").read_bytes() == (raws / "103_FUJI" / "DSCF0001.dng").read_bytes()
    assert kept.with_suffix(".jpg").read_bytes() == b"a picture"
    assert "without a JPEG" in rows[1]["summary"]  # neither beside it nor in it
    assert not list((tmp_path / "set").glob("*.npy"))
    meta = json.loads(kept.with_name("103_FUJI_DSCF0001_meta.json").read_text())
    assert meta["balanced"] is None  # the JPEG is, the raw file is not: `train demosaic` must not warn of the JPEG


def test_profile_documented_warns_and_is_not_balanced(raws: Path, tmp_path: Path) -> None:
    grey = raw(np.full((3, 48, 72), 0.4), Mosaic(BAYER))
    io.write(grey, tmp_path / "grey.dng")
    with pytest.warns(UserWarning, match="without white balance"):
        build_mosaics([str(tmp_path / "grey.dng")], tmp_path / "set", Making(profile="documented"))
    found = np.load(tmp_path / "set" / "grey.npy")
    np.testing.assert_allclose(found.mean(axis=(0, 1)), 0.4 / np.array(WB), atol=1e-3)  # the black level once


def fake_scp(folder: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A program scp that copies from `root`, as a host named nas would, and keeps a log."""
    folder.mkdir()
    log = folder / "log"
    write_text(
        folder / "scp",
        f"""#!/bin/sh
echo "$@" >> {log}
while [ "$1" != "--" ]; do shift; done
case "$2" in
  nas:*) cp -r {root}/${{2#nas:}} "$3" ;;
  *) echo "ssh: Could not resolve hostname ${{2%%:*}}" >&2; exit 255 ;;
esac
""",
    )
    (folder / "scp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


def test_files_of_another_machine_come_by_scp_and_do_not_stay(
    raws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fake_scp(tmp_path / "bin", monkeypatch, raws)
    out = tmp_path / "set"
    rows = build_mosaics(["nas:103_FUJI/DSCF0001.dng", "nas:104_FUJI"], out)
    assert [r["input"] for r in rows] == ["nas:103_FUJI/DSCF0001.dng", "nas:104_FUJI/DSCF0001.dng"]
    assert not any("error" in r for r in rows)
    assert np.load(out / "103_FUJI_DSCF0001.npy").mean() == pytest.approx(
        2 * np.load(out / "104_FUJI_DSCF0001.npy").mean(), rel=1e-3
    )
    assert not (out / ".fetched").exists()
    assert "-r" in log.read_text()
    log.unlink()
    build_mosaics(["nas:103_FUJI/DSCF0001.dng"], tmp_path / "set2")
    build_mosaics(["nas:103_FUJI/DSCF0001.dng"], tmp_path / "set2")
    assert len(log.read_text().splitlines()) == 1  # what is finished is not fetched again


@pytest.mark.parametrize("ending", ["txt", "json"])
def test_a_list_of_the_sharpest_says_what_is_built(raws: Path, tmp_path: Path, ending: str) -> None:
    chosen = raws / "104_FUJI" / "DSCF0001.dng"
    path = tmp_path / f"s_top1.{ending}"
    path.write_text(f"{chosen}\n" if ending == "txt" else json.dumps([str(chosen)]))
    assert [Path(i.source) for i in listed([str(path)], tmp_path / "kept")] == [chosen]
    path.write_text("\n" if ending == "txt" else "{}")
    with pytest.raises(ReadError, match="no file ends in" if ending == "txt" else "expected a list"):
        listed([str(path)], tmp_path / "kept")


def test_what_scp_cannot_bring_is_one_line(raws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_scp(tmp_path / "bin", monkeypatch, raws)
    rows = build_mosaics(["mars:a.raf", "nas:103_FUJI/DSCF0001.dng"], tmp_path / "set")
    assert rows[0]["error"].startswith("mars:a.raf: scp failed (ssh: Could not resolve hostname mars)")
    assert "error" not in rows[1]
    with pytest.raises(ReadError, match="nas:nowhere: scp failed"):
        listed(["nas:nowhere"], tmp_path / "kept")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReadError, match="scp is not on PATH"):
        listed(["nas:103_FUJI"], tmp_path / "kept")


@pytest.mark.parametrize(
    ("text", "remote"),
    [("nas:/a/b.raf", True), ("me@nas:b", True), ("C:\\a.raf", False), ("./a:b", False), ("/a:b.raf", False), ("a.raf", False)],
)
def test_what_names_another_machine(text: str, remote: bool) -> None:
    assert is_remote(text) is remote


def test_real_file(data: Path, tmp_path: Path) -> None:
    rows = build_mosaics([str(data / "raw")], tmp_path, Making(method="superpixel"))
    assert rows[0]["meta"]["size"] == [866, 1296]
    assert rows[0]["meta"]["value_range"][0] < 0
