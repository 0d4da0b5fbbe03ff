"""What is no readable file, whatever its format: one line with the file and the cause, and nothing half-written."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import BAYER, Mosaic
from firstlight.noise import Noise, Unmodelled

FIRST_BYTES = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "TIFF": b"II*\0",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "FITS": b"SIMPLE  =                    T",
    "NPY": b"\x93NUMPY\x01\x00",
    "ZIP": b"PK\x03\x04",
    "PDF": b"%PDF-1.7",
}
OWN = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "HDF5": ".h5", "FITS": ".fits", "NPY": ".npy"}


def frame(shape: tuple[int, ...] = (5, 7)) -> Frame:
    return Frame(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), "YX", Unit.ADU, Noise(0.5, 4.0, 100.0))


def message(path: Path) -> str:
    texts = []
    for action in (io.read, io.read_set):
        with pytest.raises(ReadError) as caught:
            action(path)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert texts[0].startswith(str(path))
    assert "\n" not in texts[0]
    return texts[0]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (kind, suffix)
        for kind in FIRST_BYTES
        for suffix in (".fits", ".png", ".tif", ".npy", ".h5", ".mrc", ".jpg")
        if OWN.get(kind) != suffix and {kind, suffix} not in ({"PNG", ".jpg"}, {"JPEG", ".png"})  # a picture is read
    ],
)
def test_a_wrong_extension_is_named_with_what_the_file_is(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(FIRST_BYTES[kind] + bytes(5000))
    said = message(path)
    assert f"is a {kind} file" in said
    assert suffix in said


@pytest.mark.parametrize(("head", "suffix"), [(b"\x1f\x8b\x08", ".gz"), (b"BZh9", ".bz2")])
def test_packed_without_saying_so(head: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(head + bytes(100))
    assert f"add {suffix}" in message(path)
    packed = tmp_path / f"a.fits{suffix}"
    packed.write_bytes(head + bytes(100))
    message(packed)


def test_names_without_a_format(tmp_path: Path) -> None:
    for name in ("a.xyz", "a", "a.gz", ".fits"):
        path = tmp_path / name
        path.write_bytes(b"something")
        assert "unknown format" in message(path)
        with pytest.raises(WriteError, match="unknown format"):
            io.write(frame(), path)


def test_folders_links_and_pipes(tmp_path: Path) -> None:
    folder = tmp_path / "a.fits"
    folder.mkdir()
    assert "is a folder" in message(folder)
    link = tmp_path / "b.fits"
    link.symlink_to(tmp_path / "none.fits")
    assert "none.fits, which does not exist" in message(link)
    loop = tmp_path / "c.fits"
    loop.symlink_to(loop)
    message(loop)
    pipe = tmp_path / "d.fits"
    os.mkfifo(pipe)
    assert "a pipe" in message(pipe)
    assert "no such file" in message(tmp_path / "e.fits")
    empty = tmp_path / "f.fits"
    empty.touch()
    assert "empty" in message(empty)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = io.write(frame(), tmp_path / "a.fits")
    path.chmod(0)
    assert "permission denied" in message(path)


def test_no_permission_as_anybody_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = io.write(frame(), tmp_path / "a.fits")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permission denied" in message(path)


def test_an_output_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(WriteError, match="folder"):
        io.write(frame(), tmp_path / "a.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_a_disk_too_small(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"needs 2e\+09 GB"):
        io.create(tmp_path / "a.npy", frame(), (10**9, 10**9))
    assert not list(tmp_path.iterdir())


def test_shapes_that_do_not_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="one length per axis"):
        io.create(tmp_path / "a.npy", frame(), (2, 5, 7))
    flagged = frame().replace(flags=np.zeros((5, 7), np.uint8))
    with pytest.raises(WriteError, match="flags"):
        io.create(tmp_path / "a.npy", flagged, (5, 8))
    assert not list(tmp_path.iterdir())


def test_blocks_partition_any_array() -> None:
    for shape in ((1,), (5, 7), (3, 4, 5), (2, 1, 9), (4, 3, 2, 5)):
        for limit in (1, 3, 8, 40, 10**6):
            seen = np.zeros(shape, int)
            for box in io.blocks(shape, 1, limit):
                seen[box.slices] += 1
                assert box.size <= max(limit, shape[-1])
            assert np.all(seen == 1)


def test_sha256_of_files_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    raw = np.random.default_rng(0).bytes(3_000_000)
    path.write_bytes(raw)
    assert io.sha256(path) == hashlib.sha256(raw).hexdigest()
    folder = tmp_path / "a.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "c" / "0").write_bytes(b"12")
    before = io.sha256(folder)
    (folder / "c" / "0").write_bytes(b"13")
    assert io.sha256(folder) != before
    (folder / "c" / "0").rename(folder / "c" / "1")
    assert len({before, io.sha256(folder)}) == 2


def test_what_a_file_does_not_state(tmp_path: Path) -> None:
    got = io.read(io.write(frame(), tmp_path / "a.npy"))
    assert io.stated(got) == {}
    assert io.doubts(got) == []


def test_a_failing_put_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"a\.npy: cannot be written .*shape"), io.create(tmp_path / "a.npy", frame()) as out:
        out.put(Box((0, 0), (5, 7)), np.zeros((4, 4)))
    assert not list(tmp_path.iterdir())


def test_a_map_that_is_on_disk_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "BLOCK_BYTES", 16)
    flagged = frame().replace(flags=np.arange(35, dtype=np.uint8).reshape(5, 7), noise=Unmodelled("none"))
    got = io.read(io.write(flagged, tmp_path / "a.npy"))
    np.testing.assert_array_equal(got.flags, flagged.flags)
    np.testing.assert_array_equal(got.data, flagged.data)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.MAP.gz", ".map"), ("a.ome.tif", ".tif"), ("a.b.bz2", ".b"), ("a.gz", ""), ("a", "")]
)
def test_the_kind_of_a_file_is_its_suffix_under_the_packing(name: str, kind: str) -> None:
    assert io.kind(Path(name)) == kind


@pytest.mark.parametrize("suffix", [".npy", ".png", ".mrc", ".dng"])
def test_a_format_of_one_image_does_not_pass_over_the_one_asked_for(suffix: str, tmp_path: Path) -> None:
    one = frame((24, 26)).replace(geometry=Mosaic(BAYER)) if suffix == ".dng" else frame()
    path = io.write(one, tmp_path / f"a{suffix}")
    with pytest.raises(ReadError, match="SCI,2"):
        io.read(path, ext="SCI,2")
