"""Sharpness: blur lowers the score, tables of both kinds hold the same, unchanged files are not read again."""

import csv
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from firstlight import io
from firstlight.dataset.sharpness import laplacian_variance, sharpness
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, Mosaic
from firstlight.noise import Noise, Unmodelled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 256, (64, 64, 3)).astype(np.float64)
    (tmp_path / "in" / "103").mkdir(parents=True)
    for name, width in (("103/sharp.png", 0.0), ("soft.png", 1.0), ("103/softest.png", 3.0)):
        blurred = gaussian_filter(codes, (width, width, 0)) if width else codes
        cv2.imwrite(str(tmp_path / "in" / name), blurred.astype(np.uint8))
    return tmp_path / "in"


def test_the_score_is_opencvs() -> None:
    codes = np.random.default_rng(1).integers(0, 256, (40, 50)).astype(np.uint8)
    frame = Frame(codes, "YX", Unit.DISPLAY, Unmodelled("display"))
    oracle = cv2.Laplacian(codes.astype(np.float64) / 255, cv2.CV_64F, ksize=1)[1:-1, 1:-1].var()
    assert laplacian_variance(frame.replace(data=codes)) == pytest.approx(oracle, rel=0.05)  # borders are handled otherwise


def test_a_raw_file_counts_from_black_in_units_of_white_and_its_pattern_is_no_detail() -> None:
    color = Mosaic(BAYER).at((32, 32))
    seen = Observation(offset=64.0, saturation=1064.0)
    flat = Frame((64 + np.array([100, 300, 200])[color]).astype(np.uint16), "YX", Unit.ADU, Noise(1.0, 1.0, 64.0))
    flat = flat.replace(geometry=Mosaic(BAYER), observation=seen)
    assert laplacian_variance(flat) < 1e-12
    with pytest.raises(FrameError, match="white level"):
        laplacian_variance(flat.replace(observation=Observation(offset=64.0)))
    with pytest.raises(FrameError, match="expected a raw mosaic or a picture"):
        laplacian_variance(flat.replace(geometry=None))


def test_tables_of_both_kinds_and_lists_of_whole_paths(folder: Path, tmp_path: Path) -> None:
    sharpness(folder, tmp_path / "s.csv", top=[1, 2])
    sharpness(folder, tmp_path / "s.sqlite")
    with (tmp_path / "s.csv").open() as file:
        rows = [(r["path"], float(r["score"])) for r in csv.DictReader(file)]
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as base:
        assert base.execute("select path, score from sharpness order by score desc").fetchall() == rows
    assert [name for name, _ in rows] == ["103/sharp.png", "soft.png", "103/softest.png"]
    assert (tmp_path / "s_top1.txt").read_text() == f"{(folder / '103/sharp.png').resolve()}\n"
    assert len((tmp_path / "s_top2.txt").read_text().splitlines()) == 2


def test_document_4s_database_and_its_lists(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sharpness(folder, tmp_path / "s.json", top=[2])
    scores = json.loads((tmp_path / "s.json").read_text())
    assert list(scores) == ["103/sharp.png", "soft.png", "103/softest.png"]  # {"folder/filename": score}
    assert list(scores.values()) == [r["score"] for r in rows]
    top = json.loads((tmp_path / "s_top2.json").read_text())
    assert top == [str((folder / name).resolve()) for name in list(scores)[:2]]
    monkeypatch.setattr(io, "read", lambda path: pytest.fail(f"{path} is read again"))
    assert sharpness(folder, tmp_path / "s.json") == [{**r, "output": str(tmp_path / "s.json")} for r in rows]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ReadError, match="not beside it"):
        sharpness(folder, tmp_path / "other.json")


def test_only_what_changed_is_read_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "s.csv"
    sharpness(folder, out)
    first, read, seen = out.read_text(), io.read, list[str]()
    monkeypatch.setattr(
        sys.modules[sharpness.__module__].io,  # type: ignore[attr-defined]
        "read",
        lambda path: seen.append(path.name) or read(path),
    )
    sharpness(folder, out)
    assert (seen, out.read_text()) == ([], first)
    cv2.imwrite(str(folder / "soft.png"), np.zeros((9, 9), np.uint8))
    (folder / "103" / "softest.png").unlink()
    rows = sharpness(folder, out)
    assert seen == ["soft.png"]
    assert [r["score"] for r in rows][1:] == [0.0]


def test_an_interrupted_run_keeps_what_it_has(folder: Path, tmp_path: Path) -> None:
    def stop(i: int, n: int, name: str) -> None:
        if i == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharpness(folder, tmp_path / "s.csv", tick=stop)
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3


def test_bad_files_are_told_and_others_tables_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    rows = sharpness(folder, tmp_path / "s.csv")
    assert next(r for r in rows if "error" in r)["input"].endswith("bad.png")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "other.sqlite").write_text("no database at all")
    for name in ("other.csv", "other.sqlite"):
        with pytest.raises(ReadError, match="no table"):
            sharpness(folder, tmp_path / name)
    with pytest.raises(WriteError, match=r"\.csv, \.sqlite or \.json"):
        sharpness(folder, tmp_path / "s.txt")
    with pytest.raises(ReadError, match="no such folder"):
        sharpness(tmp_path / "none", tmp_path / "s.csv")


def test_a_table_that_cannot_be_written_is_told_before_any_file_is_read(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(io, "read", lambda path: pytest.fail("too late"))
    with pytest.raises(WriteError, match="absent does not exist"):
        sharpness(folder, folder / "absent" / "a.csv")
