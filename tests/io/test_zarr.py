"""Zarr: our groups, foreign arrays, OME-Zarr, damage."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Record, Unit
from firstlight.geometry import Scan
from firstlight.io.storage import chunk_shape
from firstlight.noise import Noise, Unmodelled


def frame_of(shape=(2, 3, 50, 70), axes="CZYX", dtype=np.float32, **changes):
    data = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    return Frame(data, axes, Unit.ELECTRON, **({"noise": Noise(1.0, 4.0)} | changes))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_round_trip(tmp_path, dtype):
    flags = np.zeros((50, 70), np.uint16)
    flags[4, 5] = Flag.NO_DATA
    std = np.full((2, 1, 50, 70), 1.5, np.float32)
    noise = Noise(1.0, np.linspace(1, 2, 3500).reshape(50, 70), d=np.full((2, 1, 1, 1), 0.5))
    spacing = {"Z": 0.3, "Y": 0.1, "X": 0.1}
    frame = frame_of(dtype=dtype, flags=flags, std=std, noise=noise, spacing=spacing, history=(Record("x", {"k": 2}),))
    back = io.read(io.write(frame, tmp_path / "a ü.zarr"))
    assert np.array_equal(back.data[...], frame.data)
    assert (back.data.dtype, back.axes, back.unit, dict(back.spacing)) == (np.dtype(dtype), "CZYX", Unit.ELECTRON, spacing)
    assert np.array_equal(back.flags, flags)
    assert np.array_equal(back.std[...], np.broadcast_to(std, frame.shape))
    assert np.array_equal(back.noise.b, noise.b)
    assert np.array_equal(back.noise.d, noise.d)
    assert back.history[0].params == {"k": 2}
    assert np.array_equal(pickle.loads(pickle.dumps(back)).data[1, 2], frame.data[1, 2])


def test_zarr_python_and_ome_tools_find_their_way(tmp_path):
    frame = frame_of(spacing={"Z": 0.3, "Y": 0.1, "X": 0.2})
    group = zarr.open_group(io.write(frame, tmp_path / "a.zarr"), mode="r")
    image = group.attrs["ome"]["multiscales"][0]
    assert group.attrs["ome"]["version"] == "0.5"
    assert [(a["name"], a["type"]) for a in image["axes"]] == [("c", "channel"), ("z", "space"), ("y", "space"), ("x", "space")]
    assert image["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [1.0, 0.3, 0.1, 0.2]}]
    array = group[image["datasets"][0]["path"]]
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("c", "z", "y", "x")
    assert array.shards is None
    assert np.array_equal(array[...], frame.data)


def test_a_scan_has_no_ome_metadata_but_comes_back(tmp_path):
    frame = frame_of((4, 5, 6), "AYX", geometry=Scan(np.linspace(0, 3, 4), center=2.5))
    path = io.write(frame, tmp_path / "a.zarr")
    assert "ome" not in zarr.open_group(path, mode="r").attrs
    assert np.array_equal(io.read(path).geometry.angles, frame.geometry.angles)


@pytest.mark.parametrize("shape", [(4096, 4096), (9, 2048, 2048), (500, 64, 64), (3, 1, 10**6), (7, 5)])
@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_chunks_are_bounded(shape, itemsize):
    for limit, side in ((1 << 20, None), (4 << 20, 1024)):
        chunk = chunk_shape(shape, itemsize, limit, side)
        assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
        assert np.prod(chunk) * itemsize <= limit
        whole = np.prod(shape) * itemsize
        assert np.prod(chunk) * itemsize >= min(limit / 4, whole) / (1 if side is None else max(1, shape[-1] // 1024))


def test_blocks_that_straddle_chunks_one_after_another(tmp_path):
    data = np.random.default_rng(2).random((3, 1500, 1100)).astype(np.float32)
    frame = Frame(data, "ZYX", Unit.ELECTRON, Unmodelled("x"))
    with io.create(tmp_path / "a.zarr", frame, std=True) as out:
        assert out.chunks == (1, 1024, 1024)
        for box in reversed(list(io.blocks(data.shape, 4, 1_100 * 4 * 700))):
            out.put(box, data[box.slices], 2.0)
    back = io.read(tmp_path / "a.zarr")
    assert np.array_equal(back.data[...], data)
    assert np.all(back.std[...] == 2)


def test_straddling_blocks_from_two_threads(tmp_path):
    data = np.random.default_rng(3).integers(0, 99, (2100, 300)).astype(np.uint16)
    frame = Frame(data, "YX", Unit.ADU, Unmodelled("x"))
    with io.create(tmp_path / "a.zarr", frame) as out, ThreadPoolExecutor(2) as pool:
        boxes = [Box((y, x), (y + 100, x + 60)) for y in range(0, 2100, 100) for x in range(0, 300, 60)]
        list(pool.map(lambda box: out.put(box, data[box.slices]), boxes))
    assert np.array_equal(io.read(tmp_path / "a.zarr").data[...], data)


def test_constant_frames_store_every_chunk(tmp_path):
    frame = frame_of().replace(data=np.zeros((2, 3, 50, 70), np.float32))
    assert not np.any(io.read(io.write(frame, tmp_path / "a.zarr")).data[...])


def test_an_existing_output_is_replaced_whole(tmp_path):
    io.write(frame_of(flags=np.ones((50, 70), np.uint8)), tmp_path / "a.zarr")
    io.write(frame_of((8, 9), "YX"), tmp_path / "a.zarr")
    back = io.read(tmp_path / "a.zarr")
    assert (back.shape, back.flags) == ((8, 9), None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_an_interrupted_output_leaves_nothing(tmp_path):
    def fail():
        with io.create(tmp_path / "a.zarr", frame_of(), std=True):
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "a.zarr").write_text("x")
    with pytest.raises(WriteError, match="folder"):
        io.write(frame_of(), tmp_path / "a.zarr")
    with pytest.raises(ReadError, match="Zarr folder"):
        io.read(tmp_path / "a.zarr")


def chunk_files(path):
    return [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != "zarr.json"]


def test_missing_chunks_of_our_own_are_damage(tmp_path):
    path = io.write(frame_of((2, 1030, 30), "CYX"), tmp_path / "a.zarr")
    chunk_files(path)[-1].unlink()
    with pytest.raises(ReadError, match="of 2 chunks"):
        io.read(path)


def test_missing_chunks_of_others_are_their_fill_value_unless_all_are(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(20, 30), chunks=(10, 30), dtype="u2", fill_value=7)
    with pytest.raises(ReadError, match="0 of 2 chunks"):
        io.read(tmp_path / "a.zarr")
    array[:10] = 3
    frame = io.read(tmp_path / "a.zarr")
    assert np.all(frame.data[:10] == 3)
    assert np.all(frame.data[10:] == 7)
    assert (frame.axes, frame.unit) == ("YX", Unit.ARBITRARY)


def test_a_truncated_chunk_is_named_when_it_is_read(tmp_path):
    path = io.write(frame_of((1, 60, 70), "ZYX"), tmp_path / "a.zarr")
    chunk = chunk_files(path)[0]
    chunk.write_bytes(chunk.read_bytes()[:40])
    frame = io.read(path)
    with pytest.raises(ReadError, match="damaged"):
        frame.data[0]


def test_damaged_metadata_and_folders_that_are_no_zarr(tmp_path):
    path = io.write(frame_of(), tmp_path / "a.zarr")
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:100])
    with pytest.raises(ReadError, match=r"a\.zarr"):
        io.read(path)
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(ReadError, match=r"b\.zarr"):
        io.read(tmp_path / "b.zarr")


def test_an_impossible_shape_is_refused_before_anything_is_read(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="f4")
    with pytest.raises(ReadError, match="0 of 1000000 chunks"):
        io.read(tmp_path / "a.zarr")


def ome(version, data, axes, scale):
    image = {
        "axes": [{"name": a, "type": "space", **({"unit": "nanometer"} if a in "zyx" else {})} for a in axes],
        "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}, {"path": "s1"}],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0] * len(axes)}],
    }
    return {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 2), ("0.5", 3)])
def test_ome_zarr_level_zero(tmp_path, version, zarr_format):
    data = np.random.default_rng(4).integers(0, 99, (2, 3, 8, 10)).astype(">u2")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("s0", data=data)
    group.create_array("s1", data=data[..., ::2, ::2])
    group.attrs.update(ome(version, data, "czyx", [1.0, 500.0, 65.0, 65.0]))
    frame = io.read(tmp_path / "a.zarr")
    assert np.array_equal(frame.data[...], data)
    assert frame.axes == "CZYX"
    assert frame.data.dtype.isnative
    assert dict(frame.spacing) == pytest.approx({"Z": 1.0, "Y": 0.13, "X": 0.13})
    assert io.read(tmp_path / "a.zarr", "s1").shape == (2, 3, 4, 5)


def test_ome_axes_in_another_order_are_refused(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("s0", data=np.ones((2, 3, 4)))
    group.attrs.update(ome("0.5", None, "xyz", [1.0] * 3))
    with pytest.raises(ReadError, match="XYZ"):
        io.read(tmp_path / "a.zarr")


def test_groups_of_several_images_want_an_ext(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("one", data=np.ones((3, 4)))
    assert io.read(tmp_path / "a.zarr").shape == (3, 4)
    group.create_array("deep/two", data=np.ones((5, 3, 4)))
    group.create_array("names", data=np.ones((5, 4), complex))
    with pytest.raises(ReadError, match="deep, names, one"):
        io.read(tmp_path / "a.zarr")
    assert io.read(tmp_path / "a.zarr", "deep/two").axes == "CYX"
    for ext in ("names", "three", "one/x"):
        with pytest.raises(ReadError, match=ext.split("/")[0]):
            io.read(tmp_path / "a.zarr", ext)


def test_a_description_that_names_lost_maps_is_refused(tmp_path):
    path = io.write(frame_of(), tmp_path / "a.zarr")
    text = json.loads((path / "zarr.json").read_text())
    text["attributes"]["firstlight"]["maps"] = ["flags"]
    text.pop("consolidated_metadata", None)
    (path / "zarr.json").write_text(json.dumps(text))
    with pytest.raises(ReadError, match="flags"):
        io.read(path)
