"""HDF5: Data Exchange, NXtomo and our own frames, checked with h5py."""

import pickle
from dataclasses import replace

import h5py
import hdf5plugin
import numpy as np
import pytest

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation, Record, Unit
from firstlight.geometry import WHITES_AT, Scan
from firstlight.noise import Noise, Unmodelled

N = 7
COUNTS = np.random.default_rng(1).integers(0, 60000, (N, 6, 20)).astype(np.uint16)
WHITE = np.random.default_rng(2).integers(50000, 60000, (3, 6, 20)).astype(np.uint16)


def exchange(path, theta=None, units="degrees", data=COUNTS, white=WHITE, **filters):
    with h5py.File(path, "w") as f:
        f.create_dataset("exchange/data", data=data, chunks=(1, *data.shape[1:]), **filters)
        f["exchange/data"].attrs["units"] = "counts"
        f["exchange/data_white"] = white
        f["exchange/data_dark"] = white[:2] // 100
        if theta is None or len(theta):
            f["exchange/theta"] = np.linspace(0, 180, N) if theta is None else theta
            if units:
                f["exchange/theta"].attrs["units"] = units
        f["measurement/instrument/monochromator/energy"] = [25.5]
        f["measurement/instrument/detector/exposure_time"] = 0.2
        f["measurement/instrument/detection_system/objective/resolution"] = 0.69
        f["measurement/instrument/detector_motor_stack/setup/camera_distance"] = 60.0
        f["measurement/instrument/name"] = "2-BM"
    return path


def test_data_exchange(tmp_path):
    frames = io.read_set(exchange(tmp_path / "a.h5"))
    assert {k: f.axes for k, f in frames.items()} == {"data": "AYX", "white": "TYX", "dark": "TYX"}
    data = frames["data"]
    assert (data.unit, data.data.dtype, data.shape) == (Unit.ADU, np.uint16, COUNTS.shape)
    assert np.allclose(data.geometry.angles, np.linspace(0, np.pi, N))
    assert (data.geometry.energy, data.geometry.pixel, data.geometry.distance) == (25.5, 0.69, 60.0)
    assert (data.observation.exposure, data.observation.instrument) == (0.2, "2-BM")
    assert dict(data.spacing) == {"Y": 0.69, "X": 0.69}
    assert data.noise == Unmodelled("no gain: pass a detector")
    assert np.array_equal(np.asarray(data.data), COUNTS)
    assert np.array_equal(frames["white"].data[1:, 2], WHITE[1:, 2])
    assert np.array_equal(io.read(tmp_path / "a.h5", "dark").data[...], WHITE[:2] // 100)


@pytest.mark.parametrize("filters", [dict(hdf5plugin.LZ4()), dict(hdf5plugin.Bitshuffle(cname="lz4")), {"compression": "gzip"}])
def test_compressed_data(tmp_path, filters):
    frame = io.read(exchange(tmp_path / "a.h5", **filters))
    assert np.array_equal(frame.data[2:5, :, ::3], COUNTS[2:5, :, ::3])


@pytest.mark.parametrize(
    ("theta", "units", "how", "last"),
    [
        (np.linspace(0, 180, N), "deg", "degrees by attribute", np.pi),
        (np.linspace(0, np.pi, N), "radians", "radians by attribute", np.pi),
        (np.linspace(0, np.pi, N), None, "radians by span", np.pi),
        (np.linspace(0, 360, N), None, "degrees by default", 2 * np.pi),
        (np.linspace(0, 3, N), "degrees", "degrees by attribute", np.deg2rad(3)),
    ],
)
def test_angles_are_radians_and_say_how_they_were_known(tmp_path, theta, units, how, last):
    scan = io.read(exchange(tmp_path / "a.h5", theta, units)).geometry
    assert scan.angles[-1] == pytest.approx(last)
    assert ("theta", how) in scan.extra


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"theta": np.arange(N + 1.0)}, "7 projections but 8 angles"),
        ({"theta": []}, "no /exchange/theta"),
        ({"theta": np.full(N, np.nan)}, "finite"),
        ({"units": "grad"}, "'grad'"),
        ({"data": COUNTS[0]}, "theta:y:x"),
        ({"data": np.zeros((N, 6, 20), complex)}, "complex"),
        ({"theta": np.r_[np.linspace(0, 180, N - 1), np.inf]}, "finite"),
        ({"theta": np.arange(N - 1.0)}, "7 projections but 6 angles"),
    ],
)
def test_scans_that_contradict_themselves_are_refused(tmp_path, changes, match):
    with pytest.raises(ReadError, match=match):
        io.read(exchange(tmp_path / "a.h5", **changes))


def test_fields_of_another_size_are_refused(tmp_path):
    with pytest.raises(ReadError, match="differ in size"):
        io.read_set(exchange(tmp_path / "a.h5", white=WHITE[:, :, 1:]))


@pytest.mark.parametrize("name", ["white", "dark"])
def test_fields_without_a_frame_are_refused_by_name(tmp_path, name):
    with h5py.File(exchange(tmp_path / "a.h5"), "a") as f:
        del f[f"exchange/data_{name}"]
        f[f"exchange/data_{name}"] = np.zeros((0, 6, 20), np.uint16)
    with pytest.raises(ReadError, match=rf"a\.h5: /exchange/data_{name} is \(0, 6, 20\)") as caught:
        io.read_set(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["white", "dark"])
def test_missing_fields_are_left_out_and_said_where_asked_for(tmp_path, name):
    with h5py.File(exchange(tmp_path / "a.h5"), "a") as f:
        del f[f"exchange/data_{name}"]
    assert set(io.read_set(tmp_path / "a.h5")) == {"data", "white", "dark"} - {name}
    with pytest.raises(ReadError, match=f"holds no '{name}'; choose one of its images"):
        io.read(tmp_path / "a.h5", name)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    whole = exchange(tmp_path / "a.h5").read_bytes()
    for keep in (100, len(whole) // 2, len(whole) - 100):
        (tmp_path / "t.h5").write_bytes(whole[:keep])
        with pytest.raises(ReadError, match=r"t\.h5"):
            io.read(tmp_path / "t.h5")
    (tmp_path / "x.h5").write_bytes(b"SIMPLE" * 100)
    with pytest.raises(ReadError, match="complete"):
        io.read(tmp_path / "x.h5")


def test_data_that_the_file_does_not_hold_are_refused(tmp_path):
    with h5py.File(exchange(tmp_path / "a.h5"), "a") as f:
        del f["exchange/data"]
        f.create_dataset("exchange/data", (N, 10**6, 10**6), np.uint16, chunks=(1, 1000, 1000))
    with pytest.raises(ReadError, match="holds none of it"):
        io.read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as f:
        f["exchange/data"][0, :1000, :1000] = 1
    with pytest.raises(ReadError, match="1 of 7000000 chunks"):
        io.read(tmp_path / "a.h5")


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path):
    path = exchange(tmp_path / "a.h5", compression="gzip")
    with h5py.File(path) as f:
        at = f["exchange/data"].id.get_chunk_info(3)
    raw = bytearray(path.read_bytes())
    raw[at.byte_offset : at.byte_offset + at.size] = bytes(at.size)
    path.write_bytes(bytes(raw))
    frame = io.read(path)
    assert np.array_equal(frame.data[0], COUNTS[0])
    with pytest.raises(ReadError, match="exchange/data cannot be read"):
        frame.data[3]


def test_a_missing_virtual_source_is_refused(tmp_path):
    layout = h5py.VirtualLayout((N, 6, 20), np.uint16)
    layout[:] = h5py.VirtualSource("gone.h5", "d", (N, 6, 20))
    with h5py.File(tmp_path / "v.h5", "w") as f:
        f.create_virtual_dataset("d", layout)
    with pytest.raises(ReadError, match=r"gone\.h5"):
        io.read(tmp_path / "v.h5")


def nxtomo(path, keys, angles=True):
    frames = np.arange(len(keys))[:, None, None] + np.zeros((1, 4, 5))
    with h5py.File(path, "w") as f:
        f["entry/instrument/detector/data"] = frames.astype(np.uint16)
        f["entry/instrument/detector/image_key"] = keys
        f["entry/instrument/detector/x_pixel_size"] = 6.5
        f["entry/instrument/detector/x_pixel_size"].attrs["units"] = "um"
        if angles:
            f["entry/sample/rotation_angle"] = np.linspace(0, 90, len(keys))
            f["entry/sample/rotation_angle"].attrs["units"] = "deg"
        f["entry/data/data"] = h5py.SoftLink("/entry/instrument/detector/data")
    return path


def test_nxtomo_is_split_by_image_key(tmp_path):
    keys = [2, 2, 1, 0, 0, 3, 0, 0, 1]
    frames = io.read_set(nxtomo(tmp_path / "a.nxs", keys))
    assert {k: f.shape[0] for k, f in frames.items()} == {"data": 4, "white": 2, "dark": 2}
    data = frames["data"]
    assert data.data[:, 0, 0].tolist() == [3, 4, 6, 7]
    assert data.data[2, 1].tolist() == [6] * 5
    assert data.data[...].shape == (4, 4, 5)
    assert data.data[2:3].shape == (1, 4, 5)
    assert np.allclose(np.rad2deg(data.geometry.angles), np.linspace(0, 90, 9)[[3, 4, 6, 7]])
    assert ("invalid frames left out", 1) in data.geometry.extra
    assert (WHITES_AT, (0, 4)) in data.geometry.extra
    assert data.geometry.pixel == 6.5
    assert frames["white"].data[:, 0, 0].tolist() == [2, 8]


@pytest.mark.parametrize(("keys", "angles", "match"), [([0, 0, 7], True, "image keys"), ([0, 0, 1], False, "rotation_angle")])
def test_an_nxtomo_that_contradicts_itself_is_refused(tmp_path, keys, angles, match):
    with pytest.raises(ReadError, match=match):
        io.read(nxtomo(tmp_path / "a.nxs", keys, angles))


def scan_frame(data=COUNTS, **changes):
    fields = {"noise": Noise(0.5, 4.0, 100.0), "geometry": Scan(np.linspace(0, 3, len(data)), center=9.25, energy=20.0)}
    return Frame(data, "AYX", Unit.ADU, **(fields | changes))


def test_a_written_scan_is_a_data_exchange_file(tmp_path):
    flags = np.zeros((6, 20), np.uint8)
    flags[1, 2] = Flag.HOT
    frame = scan_frame(flags=flags, std=np.ones((1, 6, 20), np.float32), history=(Record("x"),))
    path = io.write(frame, tmp_path / "a.h5")
    with h5py.File(path) as f:
        assert np.array_equal(f["exchange/data"][()], COUNTS)
        assert np.allclose(f["exchange/theta"][()], np.rad2deg(frame.geometry.angles))
        assert f["exchange/theta"].attrs["units"] == "degrees"
        assert f["exchange/data"].id.get_create_plist().get_filter(0)[0] == hdf5plugin.BSHUF_ID
    back = io.read(path)
    assert np.array_equal(back.geometry.angles, frame.geometry.angles)  # to the last bit, not through degrees
    assert back.geometry.center == 9.25
    assert np.array_equal(back.flags, flags)
    assert np.array_equal(back.std, np.ones(COUNTS.shape))
    assert (back.noise.a, back.noise.b, back.noise.offset) == (0.5, 4.0, 100.0)
    assert [r.step for r in back.history] == ["x"]


def test_fields_and_metadata_pass_through_while_data_are_raw_counts(tmp_path):
    raw = io.read(exchange(tmp_path / "in.h5"))
    same = io.read_set(io.write(raw, tmp_path / "same.h5"))
    assert np.array_equal(same["white"].data[...], WHITE)
    with h5py.File(tmp_path / "same.h5") as f:
        assert f["measurement/instrument/name"][()] == b"2-BM"
    again = io.read_set(io.write(same["data"], tmp_path / "again.h5"))
    assert set(again) == {"data", "white", "dark"}
    done = raw.replace(data=COUNTS / np.float32(60000), unit=Unit.TRANSMISSION)
    assert set(io.read_set(io.write(done, tmp_path / "done.h5"))) == {"data"}
    cropped = raw.crop(Box((0, 0, 4), (N, 6, 20)))
    assert set(io.read_set(io.write(cropped, tmp_path / "part.h5"))) == {"data"}
    with h5py.File(tmp_path / "part.h5") as f:
        assert "another detector area" in f["exchange"].attrs["omitted"]


@pytest.mark.parametrize("axes", ["YX", "CYX", "TZYX", "TCZYX"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int8])
def test_other_frames_come_back_whole(tmp_path, axes, dtype):
    shape = (2, 3, 2, 30, 41)[-len(axes) :]
    data = np.random.default_rng(5).integers(0, 100, shape).astype(dtype)
    noise = Noise(np.linspace(0.5, 1, 30 * 41).reshape(30, 41), 1.0)
    frame = Frame(data, axes, Unit.ELECTRON, noise, spacing={"X": 0.1}, observation=Observation(saturation=np.eye(2) + 9))
    back = io.read(io.write(frame, tmp_path / "a ü.h5"))
    assert np.array_equal(back.data[...], data)
    assert (back.data.dtype, back.axes, back.unit) == (np.dtype(dtype), axes, Unit.ELECTRON)
    assert np.array_equal(back.noise.a, noise.a)
    assert np.array_equal(back.observation.saturation, np.eye(2) + 9)


def test_blocks_that_straddle_chunks_in_any_order(tmp_path):
    data = np.random.default_rng(6).random((3, 700, 500)).astype(np.float32)
    frame = Frame(data, "ZYX", Unit.ELECTRON, Unmodelled("x"))
    with io.create(tmp_path / "a.h5", frame, std=True) as out:
        for box in reversed(list(io.blocks(data.shape, 4, 300_000))):
            out.put(box, data[box.slices], data[box.slices] + 1)
    back = io.read(tmp_path / "a.h5")
    assert np.array_equal(back.data[...], data)
    assert np.array_equal(back.std[...], data + 1)


def test_an_interrupted_output_leaves_nothing_and_an_unfilled_one_is_refused(tmp_path):
    def fail():
        with io.create(tmp_path / "a.h5", scan_frame(), std=True):
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with io.create(tmp_path / "b.h5", scan_frame()):
        pass
    with pytest.raises(ReadError, match="holds none"):
        io.read(tmp_path / "b.h5")


def test_a_shape_that_does_not_fit_the_angles_is_refused(tmp_path):
    with pytest.raises(WriteError, match="angles"):
        io.create(tmp_path / "a.h5", scan_frame(), (N + 1, 6, 20))
    assert list(tmp_path.iterdir()) == []


def test_single_arrays_by_path(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x/image"] = np.eye(4)
        f["names"] = b"abc"
    assert io.read(tmp_path / "a.h5").unit == Unit.ARBITRARY
    with h5py.File(tmp_path / "a.h5", "a") as f:
        f["y"] = np.zeros((2, 3, 4))
    assert io.read(tmp_path / "a.h5", "y").axes == "CYX"
    for ext in (None, "z", "names"):
        with pytest.raises(ReadError, match=r"x/image|names"):
            io.read(tmp_path / "a.h5", ext)


def test_frames_in_files_pickle_and_read_in_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    frame = io.read(exchange(tmp_path / "a.h5"))
    assert np.array_equal(pickle.loads(pickle.dumps(frame)).data[2], COUNTS[2])
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda i: frame.data[i], range(N)))
    assert np.array_equal(parts, COUNTS)


@pytest.mark.parametrize("chunks", [None, (1, 200, 250), (20, 4, 250)])
def test_a_section_of_rows_reads_only_these_rows(tmp_path, chunks):
    """200 MB on paper; what is allocated while 4 rows of all angles are cut out is their own size, twice at most."""
    import tracemalloc

    with h5py.File(tmp_path / "a.h5", "w") as f:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        if chunks:
            plan.set_chunk(chunks)
        space = h5py.h5s.create_simple((2000, 200, 250))
        h5py.h5d.create(f.create_group("exchange").id, b"data", h5py.h5t.STD_U16LE, space, plan)
        f["exchange/data"][::500, 5, 7] = [1, 2, 3, 4]
        f["exchange/theta"] = np.linspace(0, 180, 2000)
    frame = io.read(tmp_path / "a.h5")
    assert io.section(frame) == 1  # nothing is compressed
    box = Box((0, 4, 0), (2000, 8, 250))
    frame.data[:1, 4:8]
    tracemalloc.start()
    part = frame.crop(box)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.data[::500, 1, 7].tolist() == [1, 2, 3, 4]
    assert peak < 2 * part.data.nbytes


@pytest.mark.parametrize(("chunks", "rows"), [((1, 6, 20), 6), ((3, 2, 20), 2)])
def test_the_rows_that_are_decoded_together(tmp_path, chunks, rows):
    with h5py.File(exchange(tmp_path / "a.h5"), "a") as f:
        del f["exchange/data"]
        f.create_dataset("exchange/data", data=COUNTS, chunks=chunks, **hdf5plugin.LZ4())
    frame = io.read(tmp_path / "a.h5")
    assert io.section(frame) == rows
    assert io.section(frame.crop(Box.whole(frame.shape))) == 1


def test_scattered_projections_of_an_nxtomo_are_read_in_runs(tmp_path, monkeypatch):
    keys = [2, 0, 0, 0, 1, 0, 3, 0, 0, 0]
    data = io.read(nxtomo(tmp_path / "a.nxs", keys)).data
    kept = np.flatnonzero(np.array(keys) == 0)
    for key in (slice(None), slice(1, 5), slice(None, None, 2), slice(3, 3), -1, (slice(2, 6), slice(1, 3)), (..., 2)):
        want = (kept[:, None, None] + np.zeros((1, 4, 5)))[key]
        assert np.array_equal(data[key], want)
    read = []
    real = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: read.append(key) or real(self, key))
    data[:, 1:2]
    assert [k[0] for k in read] == [slice(1, 4), slice(5, 6), slice(7, 10)]


def test_info_of_projections_saved(tmp_path):
    from firstlight.facts import info

    frame = scan_frame(COUNTS.astype(np.float32), noise=Unmodelled("filtered"), history=(Record("a.b"),))
    facts = info(io.write(frame.replace(unit=Unit.OPTICAL_DEPTH), tmp_path / "a.h5"))
    assert facts["unit"] == "optical depth"
    assert facts["history"] == ["a.b"]
    assert (facts["geometry"]["angles"], facts["geometry"]["center"]) == (N, 9.25)
    assert facts["geometry"]["span_deg"] == pytest.approx(np.rad2deg(3))


def test_the_tooth(data):
    frames = io.read_set(data / "tomography/tooth_aps.h5")
    tooth = frames["data"]
    assert (tooth.shape, tooth.axes, tooth.unit) == ((181, 2, 640), "AYX", Unit.ADU)
    assert np.rad2deg(tooth.geometry.angles[-1]) == pytest.approx(179.0055, abs=1e-4)
    assert frames["white"].shape == frames["dark"].shape == (10, 2, 640)
    with h5py.File(data / "tomography/tooth_aps.h5") as f:
        assert np.array_equal(tooth.data[7], f["exchange/data"][7])
    assert replace(tooth.geometry, center=295.5).center == 295.5
