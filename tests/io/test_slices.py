"""One TIFF a slice."""

import numpy as np
import pytest
import tifffile

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.noise import Unmodelled

NAME = "recon_#####.tif"


def volume(n=5):
    data = np.random.default_rng(1).random((n, 6, 7)).astype(np.float32)
    return Frame(data, "ZYX", Unit.ATTENUATION, Unmodelled("x"), spacing={"Z": 2.0, "Y": 1.5, "X": 1.5})


def test_other_programs_find_numbered_files(tmp_path):
    io.write(volume(), tmp_path / NAME)
    assert sorted(p.name for p in tmp_path.glob("*.tif")) == [f"recon_{i:05d}.tif" for i in range(5)]
    with tifffile.TiffFile(tmp_path / "recon_00003.tif") as tif:
        assert np.array_equal(tif.asarray(), volume().data[3])
        assert tif.pages[0].tags["XResolution"].value[0] / tif.pages[0].tags["XResolution"].value[1] == pytest.approx(1e4 / 1.5)


@pytest.mark.parametrize("key", [2, slice(1, 4), (slice(None), 3), (..., slice(2, 5)), slice(0, 0), (-1, 2, slice(None))])
def test_slices_are_read_when_asked_for(key, tmp_path):
    data = io.read(io.write(volume(), tmp_path / NAME)).data
    assert np.array_equal(data[key], volume().data[key])


def test_a_shorter_volume_replaces_a_longer_one(tmp_path):
    io.write(volume(9), tmp_path / NAME)
    io.write(volume(4), tmp_path / NAME)
    assert np.array_equal(io.read(tmp_path / NAME).data[...], volume(4).data)
    assert len(list(tmp_path.iterdir())) == 5


def test_slices_of_others_are_read_from_any_number_and_never_replaced(tmp_path):
    for i in (12, 13, 14):
        tifffile.imwrite(tmp_path / f"recon_{i:05d}.tif", np.full((3, 4), i, np.uint16))
    frame = io.read(tmp_path / NAME)
    assert (frame.axes, frame.shape, frame.data[:, 0, 0].tolist()) == ("ZYX", (3, 3, 4), [12, 13, 14])
    with pytest.raises(WriteError, match="not ours"):
        io.write(volume(), tmp_path / NAME)
    (tmp_path / "recon_00013.tif").unlink()
    with pytest.raises(ReadError, match="slice 13 is missing"):
        io.read(tmp_path / NAME)


def test_a_slice_of_another_size_or_damage_is_named(tmp_path):
    frame = io.read(io.write(volume(), tmp_path / NAME))
    tifffile.imwrite(tmp_path / "recon_00002.tif", np.zeros((6, 8), np.float32))
    with pytest.raises(ReadError, match=r"recon_00002\.tif: a slice of \(6, 8\)"):
        frame.data[1:4]
    (tmp_path / "recon_00002.tif").write_bytes(b"II*\0")
    with pytest.raises(ReadError, match=r"recon_00002\.tif: cannot be read"):
        frame.data[2]
    with pytest.raises(ReadError, match="no slices of that name"):
        io.read(tmp_path / "other_###.tif")


def test_a_file_of_that_very_name_is_a_file(tmp_path):
    path = tmp_path / "image ###.tif"
    tifffile.imwrite(path, np.ones((4, 5), np.uint16))
    assert io.read(path).shape == (4, 5)


def test_parts_of_slices_and_other_axes_are_refused(tmp_path):
    with pytest.raises(WriteError, match="whole slices"), io.create(tmp_path / NAME, volume()) as out:
        out.put(Box((0, 0, 0), (1, 3, 7)), volume().data[0, :3])
    with pytest.raises(WriteError, match="ZYX"):
        io.write(volume().replace(axes="CYX", spacing={}), tmp_path / NAME)
    assert not list(tmp_path.iterdir())


def test_the_hash_of_a_stack_is_of_all_its_slices(tmp_path):
    io.write(volume(), tmp_path / NAME)
    first = io.sha256(tmp_path / NAME)
    assert io.sha256(tmp_path / NAME) == first
    tifffile.imwrite(tmp_path / "recon_00004.tif", np.zeros((6, 7), np.float32))
    assert io.sha256(tmp_path / NAME) != first


def test_info_of_a_stack(tmp_path):
    from firstlight.facts import info

    facts = info(io.write(volume(), tmp_path / NAME))
    assert (facts["shape"], facts["unit"]) == ([5, 6, 7], "1/mm")
