"""Scanning: what a folder holds, sorted and the same each time, with everything that is wrong listed and nothing raised."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest

from firstlight import io
from firstlight.dataset.scan import Manifest, read_manifest, scan, write_manifest
from firstlight.errors import ReadError
from firstlight.frame import Frame, Unit
from firstlight.noise import Unmodelled

MINE = """
[[layout]]
name = "mine"
domain = "microscopy"
pattern = "{field}_{kind}.{suffix}"
scene = "{field}"
data_type = "{kind}"
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def image(path, value=0, exposure=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.full((8, 9), value, np.uint16)
    io.write(Frame(data, "YX", Unit.ADU, Unmodelled("no gain")), path)
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    return path


def test_a_tree_of_all_kinds(root, tree):
    tree.sid(root, sony=2, fuji=1, shape=(48, 60), fuji_shape=(48, 60))
    tree.biosr(root, standard=4, er=1, levels=1, er_levels=2, side=24)
    tree.hla(root, pairs=2, shape=(40, 44))
    tree.w2s(root, fields=1, side=24)
    found = scan(root)
    assert Counter(s.domain for s in found) == {"photography": 6, "microscopy": 4 * 3 + 5 + 6, "astronomy": 4}
    assert [s.path for s in found] == sorted(s.path for s in found)
    assert not found.unmatched
    assert not found.unreadable
    assert not found.doubts
    by_path = {s.path: s for s in found}
    short = by_path["SID/Sony/short/00001_00_0.04s.ARW"]
    assert (short.camera, short.setting, short.exposure, short.time) == ("ILCE-7SM2", "ISO 200", 0.04, "2016-01-02T20:00:00")
    assert (short.scene, short.view, short.data_type, short.level) == ("photo_00001", "photo_Sony_00001", "noisy", "0.04s")
    assert (short.shape, short.dtype, short.layout) == ((48, 60), "uint16", "sid")
    assert short.sha256 == io.sha256(root / short.path)
    assert short.bytes == (root / short.path).stat().st_size
    hst = by_path["astronomy/hla_associations/direct_images/j8hqbifjq_detection_sci.fits"]
    assert (hst.exposure, hst.dtype, hst.shape) == (500.0, "float32", (40, 44))
    assert by_path["microscopy/structures/ER/Cell_001/RawGTSIMData/RawGTSIMData_level_01.mrc"].shape == (9, 24, 24)
    assert scan(root) == found


def test_documented_labels(root, tree):
    tree.biosr(root, standard=4, er=1, er_levels=2, side=24)
    tree.w2s(root, fields=1, side=24)
    scenes = {s.scene for s in scan(root, profile="documented")}
    assert scenes == {
        "micro_gt",
        *(f"micro_{k}_level_0{i}" for k in ("GTSIM", "RawGTSIMData") for i in (1, 2)),
        "micro_w2s_001",
    }


def test_max_files_keeps_views_whole(root, tree):
    tree.sid(root, sony=3, fuji=2, shorts=3, shape=(48, 60), fuji_shape=(48, 60))
    tree.hla(root, pairs=3, shape=(40, 44))
    found = scan(root, max_files=4)
    assert Counter(s.domain for s in found) == {"photography": 4, "astronomy": 4}
    photos = [s for s in found if s.domain == "photography"]
    assert {s.view for s in photos} == {"photo_Fuji_00001"}
    assert Counter(s.data_type for s in photos) == {"noisy": 3, "clean": 1}
    assert Counter(s.data_type for s in scan(root, max_files=2)) == {"noisy": 2, "clean": 2}
    assert len(scan(root, max_files=1)) == 2
    assert len(scan(root, max_files=1000)) == len(scan(root)) == 26
    with pytest.raises(ReadError, match="max_files 0"):
        scan(root, max_files=0)


def test_max_files_takes_a_clean_frame_before_more_noisy_ones(root, tmp_path):
    text = MINE.replace("{field}_{kind}.{suffix}", "{field}_{kind}_{n}.tif") + 'labels = { a = "noisy", b = "clean" }\n'
    (tmp_path / "own.toml").write_text(text)
    for name in ("f_a_1", "f_a_2", "f_b_1", "e_a_1"):
        image(root / f"{name}.tif")
    found = scan(root, layouts=tmp_path / "own.toml", max_files=3)
    assert [s.path for s in found] == ["e_a_1.tif", "f_a_1.tif", "f_b_1.tif"]


def test_what_is_passed_over(root, mine):
    image(root / "a_noisy.tif")
    io.write(Frame(np.zeros((8, 9), np.uint16), "YX", Unit.ADU, Unmodelled("x")), root / "a_clean.npy")  # with a companion
    image(root / ".hidden_noisy.tif")
    image(root / ".trash" / "b_noisy.tif")
    image(root / "out" / "c_noisy.tif")
    (root / "out" / "comprehensive_tiles_metadata.json").write_text("{}")
    image(root / "begun" / "d_noisy.tif")
    (root / "begun" / ".firstlight").mkdir()
    (root / "README.md").write_text("x")
    found = scan(root, layouts=mine)
    assert [s.path for s in found] == ["a_clean.npy", "a_noisy.tif"]
    assert found.unmatched == (("README.md", "no layout knows this name"),)


def test_links_are_followed_once_and_loops_end(root, tmp_path, mine):
    image(root / "z" / "a_noisy.tif", 1)
    image(tmp_path / "elsewhere" / "b_noisy.tif", 2)
    (root / "z" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "z")
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "near").symlink_to(tmp_path / "elsewhere")
    (root / "c_noisy.tif").symlink_to(root / "z" / "a_noisy.tif")
    (root / "gone_noisy.tif").symlink_to(tmp_path / "nowhere")
    found = scan(root, layouts=mine)
    assert [s.path for s in found] == ["far/b_noisy.tif", "z/a_noisy.tif"]
    assert [p for p, _ in found.unreadable] == ["gone_noisy.tif"]
    assert "symbolic link" in found.unreadable[0][1]


def test_whatever_is_wrong_is_listed(root, mine):
    image(root / "good_noisy.tif")
    (root / "empty_noisy.tif").write_bytes(b"")
    (root / "text_noisy.fits").write_text("no image")
    whole = image(root / "cut_noisy.tif").read_bytes()
    (root / "cut_noisy.tif").write_bytes(whole[: len(whole) // 2])
    (root / "odd_noisy.xyz").write_bytes(b"1")
    image(root / "good_medium.tif")
    os.mkfifo(root / "pipe_noisy.tif")
    (root / "folder_noisy.tif").mkdir()
    (root / "cut_noisy.ARW").write_bytes(b"II*\0" + b"\0" * 20)
    found = scan(root, layouts=mine)
    assert [s.path for s in found] == ["good_noisy.tif"]
    causes = dict(found.unreadable)
    assert set(causes) == {
        f"{n}_noisy.{s}"
        for n, s in (("empty", "tif"), ("text", "fits"), ("cut", "tif"), ("odd", "xyz"), ("pipe", "tif"), ("cut", "ARW"))
    }
    assert "0 bytes" in causes["empty_noisy.tif"]
    assert "pipe" in causes["pipe_noisy.tif"]
    assert all("\n" not in c and c for c in causes.values())
    assert [p for p, _ in found.unmatched] == ["good_medium.tif"]
    assert "'medium'" in found.unmatched[0][1]


def test_a_folder_that_is_shut_is_listed(root, mine, monkeypatch):
    image(root / "shut" / "a_noisy.tif")
    listdir = os.listdir

    def refused(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refused)
    assert scan(root, layouts=mine).unreadable == (("shut", "folder cannot be entered (Permission denied)"),)


def test_what_may_not_be_looked_at_is_listed_and_the_rest_is_found(root, mine, monkeypatch):
    image(root / "shut" / "a_noisy.tif")
    image(root / "b_noisy.tif")
    away = image(root.parent / "away" / "c_noisy.tif")
    (root / "c_noisy.tif").symlink_to(away)
    (root / "c_clean.tif").symlink_to(away)
    (root / "d").symlink_to(away.parent)
    stat = os.stat

    def refused(path, *args, follow_symlinks=True, **kwargs):
        real = os.path.realpath(path) if follow_symlinks else str(path)
        if f"{os.sep}shut{os.sep}" in real or f"{os.sep}away{os.sep}" in f"{real}{os.sep}":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, follow_symlinks=follow_symlinks, **kwargs)

    monkeypatch.setattr(os, "stat", refused)
    found = scan(root, layouts=mine)
    assert [s.path for s in found] == ["b_noisy.tif"]
    assert dict(found.unreadable) == {
        "shut": "folder cannot be entered (Permission denied)",
        "c_noisy.tif": "cannot be read (Permission denied)",
        "c_clean.tif": "cannot be read (Permission denied)",
    }
    assert [p for p, _ in found.unmatched] == ["d"]


def test_a_root_that_cannot_be_entered_or_is_a_tile_set(root, monkeypatch):
    image(root / "a_noisy.tif")
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(ReadError, match=r"cannot be entered \(Permission denied\)"):
        scan(root)
    monkeypatch.undo()
    (root / ".firstlight").mkdir()
    with pytest.raises(ReadError, match="is a tile set, expected the folder that holds the images"):
        scan(root)


def test_the_exposure_is_the_header_s(root, tree):
    tree.sid(root, sony=1, fuji=0, shape=(48, 60))
    short = root / "SID" / "Sony" / "short"
    (short / "00001_00_0.04s.ARW").rename(short / "00001_00_0.1s.ARW")
    shutil.copy(short / "00001_00_0.1s.ARW", short / "00001_01_0.041s.ARW")  # rounding is no contradiction
    found = scan(root)
    assert [s.exposure for s in found if s.data_type == "noisy"] == [0.04, 0.04]
    assert found.doubts == (
        ("SID/Sony/short/00001_00_0.1s.ARW", "its header says 0.04 s, its name 0.1 s: the header's is used"),
    )


def test_the_exposure_is_the_name_s_where_the_header_is_silent(root, tmp_path):
    text = MINE.replace("{field}_{kind}.{suffix}", "{field}_{kind}_{seconds}s.tif") + 'exposure = "{seconds}"\n'
    (tmp_path / "own.toml").write_text(text)
    image(root / "a_noisy_0.5s.tif")
    assert scan(root, layouts=tmp_path / "own.toml")[0].exposure == 0.5


def test_ticks_count_the_files(root, mine):
    for i in range(3):
        image(root / f"a{i}_noisy.tif", i)
    seen = []
    scan(root, layouts=mine, tick=lambda *now: seen.append(now))
    assert seen == [(0, 3, "a0_noisy.tif"), (1, 3, "a1_noisy.tif"), (2, 3, "a2_noisy.tif"), (3, 3, "")]


def test_a_manifest_is_read_back(root, tmp_path, mine):
    image(root / "ü b_noisy.tif")
    (root / "bad_noisy.tif").write_bytes(b"")
    (root / "other").write_text("")
    found = scan(root, layouts=mine)
    path = write_manifest(found, tmp_path / "manifest.jsonl")
    assert read_manifest(path) == found
    assert len(path.read_text().splitlines()) == 3
    assert found.to_dict()["unreadable"] == [{"path": "bad_noisy.tif", "cause": found.unreadable[0][1]}]
    path.write_text(path.read_text() + "nonsense\n")
    with pytest.raises(ReadError, match=r"manifest\.jsonl, line 4"):
        read_manifest(path)
    with pytest.raises(ReadError, match="absent"):
        read_manifest(tmp_path / "absent")


def test_an_empty_folder_and_none(root, tmp_path):
    assert scan(root) == Manifest()
    with pytest.raises(ReadError, match="is no folder"):
        scan(tmp_path / "absent")


def test_a_name_that_is_no_text(root, mine, tmp_path):
    path = os.fsencode(root) + b"/\xff_noisy.tif"
    shutil.copy(image(root / "a_noisy.tif"), path)
    found = scan(root, layouts=mine)
    assert len(found) == 2
    assert read_manifest(write_manifest(found, tmp_path / "m.jsonl")) == found


def test_the_real_w2s_and_hat_p_32(data):
    found = scan(data)
    w2s = [s for s in found if s.layout == "w2s"]
    assert len(w2s) == 48
    assert Counter(s.scene for s in w2s) == {f"micro_w2s_{i:03d}": 6 for i in range(1, 9)}
    assert len({s.view for s in w2s}) == 24
    stars = [s for s in found if s.layout == "hat-p-32"]
    assert len(stars) == 50
    assert {(s.scene, s.exposure, s.shape, s.camera) for s in stars} == {("astro_HATP-32", 60.0, (500, 650), "Cecilia Main")}
    assert len({s.time for s in stars}) == 50
    assert len({s.sha256 for s in found}) == len(found) == 98
    assert not found.unreadable
    assert "raw/sony_ilce-7rm3_iso3200.ARW" in dict(found.unmatched)  # no row knows it: it is not guessed


def test_the_real_raw_file_is_a_single_source(data, tmp_path):
    text = (
        '[[layout]]\nname="raw"\ndomain="photography"\npattern="{camera}_iso{iso}.ARW"\nscene="{camera}"\ndata_type="noisy"\n'
    )
    (tmp_path / "raw.toml").write_text(text)
    (found,) = scan(data / "raw", layouts=tmp_path / "raw.toml")
    assert (found.scene, found.camera, found.setting) == ("sony_ilce-7rm3", "ILCE-7RM3", "ISO 3200")
    assert (found.exposure, found.time, found.shape) == (1 / 640, "2018-07-11T01:18:47", (3464, 5184))
