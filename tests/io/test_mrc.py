import bz2
import gzip
import struct
import warnings

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.io import dv
from firstlight.noise import Noise, Unmodelled

TYPES = ["int8", "int16", "uint16", "float16", "float32"]
KEEP = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def values(shape, dtype, seed=1):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)


def frame(data, axes, **kw):
    return Frame(data, axes, **({"unit": Unit.ADU, "noise": Unmodelled("test")} | kw))


def written(path, data, **fields):
    """A file by mrcfile, the oracle."""
    with mrcfile.new(path, data, overwrite=True) as m:
        m.voxel_size = 2.5
        for key, value in fields.items():
            m.header[key] = value
    return path


def test_reads_what_mrcfile_writes(tmp_path):
    for dtype in TYPES:
        data = values((3, 4, 5), dtype)
        f = io.read(written(tmp_path / f"{dtype}.mrc", data))
        assert (f.axes, f.data.dtype, f.unit) == ("ZYX", np.dtype(dtype), Unit.ARBITRARY)
        assert np.array_equal(f.data, data)
        assert f.spacing == pytest.approx({"Z": 2.5e-4, "Y": 2.5e-4, "X": 2.5e-4})
        assert "pass a detector" in f.noise.reason
        assert isinstance(f.data, np.memmap)


@given(st.sampled_from(TYPES), st.sampled_from(["YX", "ZYX", "TYX", "TZYX", "CZYX", "AYX", "TSCZAYX"]), st.data())
@KEEP
def test_round_trip_and_mrcfile_agree(tmp_path, dtype, axes, draw):
    shape = tuple(draw.draw(st.integers(1, 4)) for _ in axes)
    data = values(shape, dtype)
    f = frame(data, axes, spacing={"Y": 0.1, "X": 0.2})
    path = io.write(f, tmp_path / "a.mrc")
    back = io.read(path)
    assert (back.axes, back.shape, back.data.dtype, back.spacing) == (axes, shape, f.data.dtype, f.spacing)
    assert np.array_equal(back.data, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with mrcfile.open(path) as m:
            assert np.array_equal(m.data.reshape(shape), data)
            volumes = np.prod(shape[:-3]) if axes.endswith("ZYX") else 0
            assert (m.is_volume(), m.is_volume_stack()) == (volumes == 1, volumes > 1)
            assert m.voxel_size.x == pytest.approx(2000)


def test_what_we_write_is_valid_mrc2014(tmp_path, capsys):
    f = frame(values((2, 8, 9), "float32"), "ZYX", spacing={"Z": 0.3, "Y": 0.2, "X": 0.1})
    path = io.write(f, tmp_path / "a.mrc")
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as m:
        assert float(m.header.dmin) == f.data.min()
        assert float(m.header.dmean) == pytest.approx(f.data.mean(), abs=1e-6)


def test_axes_shape_and_step_stand_in_the_labels_without_companions(tmp_path):
    f = frame(values((2, 3, 4, 5), "float32"), "CZYX", spacing={"Y": 0.1, "X": 0.2}).then("restore.denoise")
    path = io.write(f, tmp_path / "a.mrc")
    (tmp_path / "a.mrc.json").unlink()
    back = io.read(path)
    assert (back.axes, back.shape) == ("CZYX", (2, 3, 4, 5))
    assert back.spacing["X"] == pytest.approx(0.2)
    assert any("restore.denoise" in t for t in back.observation.header["labels"])


def test_noise_std_and_flags_come_back(tmp_path):
    data = values((6, 7), "uint16")
    f = frame(data, "YX", noise=Noise(0.5, 2.0, 100.0), std=np.ones((6, 7), "f4"), flags=np.eye(6, 7, dtype="u1"))
    back = io.read(io.write(f, tmp_path / "a.mrc"))
    assert (back.noise.a, back.noise.b, back.noise.offset, back.unit) == (0.5, 2.0, 100.0, Unit.ADU)
    assert np.array_equal(back.std, f.std)
    assert np.array_equal(back.flags, f.flags)


def test_unsigned_bytes_are_widened_not_wrapped(tmp_path):
    data = np.array([[0, 127, 128, 255]], np.uint8)
    path = io.write(frame(data, "YX"), tmp_path / "a.mrc")
    assert np.array_equal(io.read(path).data, data)
    with mrcfile.open(path) as m:
        assert np.array_equal(m.data, data)


def test_mode_0_is_signed_unless_imod_or_the_maximum_says_otherwise(tmp_path):
    path = written(tmp_path / "a.mrc", np.array([[-1, 5]], np.int8))
    assert io.read(path).data.tolist() == [[-1, 5]]
    raw = bytearray(path.read_bytes())
    raw[152:160] = struct.pack("<2i", 1146047817, 0)
    path.write_bytes(raw)
    assert io.read(path).data.tolist() == [[255, 5]]
    raw[156] = 1
    path.write_bytes(raw)
    assert io.read(path).data.tolist() == [[-1, 5]]
    raw[80:84] = struct.pack("<f", 255)
    raw[152:160] = bytes(8)
    path.write_bytes(raw)
    assert io.read(path).data.tolist() == [[255, 5]]


def test_stack_or_volume_by_space_group_and_by_name(tmp_path):
    data = values((4, 3, 2), "int16")
    for name, ispg, mz, axes in [
        ("a.mrc", 0, 1, "TYX"),
        ("a.mrc", 1, 4, "ZYX"),
        ("a.mrc", 401, 2, "TZYX"),
        ("a.mrcs", 1, 4, "TYX"),
        ("a.st", 1, 4, "TYX"),
        ("a.map", 0, 4, "ZYX"),
        ("a.rec", 0, 4, "ZYX"),
    ]:
        f = io.read(written(tmp_path / name, data, ispg=ispg, mz=mz))
        assert f.axes == axes, (name, ispg)
        assert np.array_equal(f.data.reshape(data.shape), data)
        assert ("Z" in f.spacing) == ("Z" in axes)
    with pytest.raises(ReadError, match="volumes of 3 sections"):
        io.read(written(tmp_path / "a.mrc", data, ispg=401, mz=3))


def test_turned_axes_stand_upright(tmp_path):
    data = values((2, 3, 4), "float32")  # sections along X, rows along Z, columns along Y
    path = written(tmp_path / "a.map", data, mapc=2, mapr=3, maps=1, nxstart=7)
    f = io.read(path)
    assert f.shape == (3, 4, 2)
    assert all(f.data[z, y, x] == data[x, z, y] for z in range(3) for y in range(4) for x in range(2))
    back = io.read(io.write(f, tmp_path / "b.map"))
    assert np.array_equal(back.data, f.data)
    assert back.observation.header["start"] == (0, 0, 0)  # it counted along other axes
    with pytest.raises(ReadError, match="only a volume"):
        io.read(written(tmp_path / "a.mrcs", data, mapc=2, mapr=1))
    with pytest.raises(ReadError, match="MAPC"):
        io.read(written(tmp_path / "a.mrc", data, mapc=2, mapr=2))


def test_skewed_cell_has_no_spacing(tmp_path):
    path = written(tmp_path / "a.map", values((2, 3, 4), "float32"))
    with mrcfile.open(path, mode="r+") as m:
        m.header.cellb.gamma = 120
    assert io.read(path).spacing == {}


def test_big_endian_and_no_stamp(tmp_path):
    data = values((2, 3, 4), "float32")
    path = written(tmp_path / "a.mrc", data)
    raw = path.read_bytes()
    h = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE).astype(mrcfile.dtypes.HEADER_DTYPE.newbyteorder(">"))
    h["machst"] = (0x11, 0x11, 0, 0)
    h["label"][0, 0] = b"kept"
    h["nlabl"] = 1
    path.write_bytes(h.tobytes() + data.astype(">f4").tobytes())
    f = io.read(path)
    assert np.array_equal(f.data, data)
    back = io.write(f, tmp_path / "b.mrc")
    assert np.array_equal(io.read(back).data, data)
    with mrcfile.open(back) as m:
        assert np.array_equal(m.data, data)
        assert m.get_labels()[0].strip() == "kept"
    h["map"], h["machst"] = b"", (0, 0, 0, 0)
    path.write_bytes(h.tobytes() + data.astype(">f4").tobytes())
    assert np.array_equal(io.read(path).data, data)


def test_extended_header_is_kept_for_as_many_sections(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, values((2, 3, 4), "int16")) as m:
        m.set_extended_header(np.frombuffer(bytes(range(96)), "V1"))
        m.header.origin.x = 12.5
        m.header.nxstart = -3
    f = io.read(path)
    back = io.read(io.write(f, tmp_path / "b.mrc"))
    assert bytes(back.observation.header["extended"]) == bytes(range(96))
    assert back.observation.header["origin"][0] == 12.5
    assert back.observation.header["start"] == (-3, 0, 0)
    part = io.read(io.write(f.crop(Box((0, 0, 0), (1, 3, 4))), tmp_path / "c.mrc"))
    assert part.observation.header["extended"].size == 0


def test_labels_stay_within_ten(tmp_path):
    f = frame(values((2, 3), "float32"), "YX")
    f = f.replace(observation=Observation(header={"format": "MRC", "labels": tuple(f"label {i}" for i in range(10))}))
    for i in range(3):
        f = io.read(io.write(f, tmp_path / f"{i}.mrc"))
    labels = f.observation.header["labels"]
    assert len(labels) == 10
    assert labels[7] == "label 7"


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_maps(tmp_path, suffix, pack):
    data = values((3, 4, 5), "float32")
    path = tmp_path / f"a.map{suffix}"
    path.write_bytes(pack(written(tmp_path / "a.map", data, ispg=0).read_bytes()))
    f = io.read(path)
    assert f.axes == "ZYX"
    assert np.array_equal(f.data, data)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ReadError, match=r"a\.map"):
        io.read(path)
    with pytest.raises(WriteError, match="compressed"):
        io.write(f, tmp_path / f"b.mrc{suffix}")


@pytest.mark.parametrize("mode", [3, 4, 101])
def test_refused_modes(tmp_path, mode):
    path = written(tmp_path / "a.mrc", values((2, 3), "float32"), mode=mode)
    with pytest.raises(ReadError, match=f"mode {mode}"):
        io.read(path)


def test_damaged_files_say_what_is_wrong(tmp_path):
    path = written(tmp_path / "a.mrc", values((4, 5, 6), "float32"))
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(ReadError, match=r"1504 bytes.*has 1503"):
        io.read(path)
    path.write_bytes(raw[:500])
    with pytest.raises(ReadError, match="500 bytes"):
        io.read(path)
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(ReadError, match="not an MRC file"):
        io.read(path)
    for fields in ({"nx": 10**6, "ny": 10**6}, {"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1}, {"nsymbt": 2**31 - 1}):
        written(path, values((4, 5, 6), "float32"), **fields)
        with pytest.raises(ReadError, match="announces"):
            io.read(path)
    for fields in ({"nx": 0}, {"ny": -4}, {"nsymbt": -8}):
        written(path, values((4, 5, 6), "float32"), **fields)
        with pytest.raises(ReadError, match="damaged MRC header"):
            io.read(path)
    with pytest.raises(ReadError, match="one image"):
        io.read(path, ext=1)


def test_types_that_mrc_lacks_are_refused(tmp_path):
    for dtype in ("float64", "int32", "uint32", "int64", "bool"):
        with pytest.raises(WriteError, match=dtype):
            io.write(frame(np.zeros((2, 3), dtype), "YX"), tmp_path / "a.mrc")
    with pytest.raises(WriteError, match="2\\^31"):
        io.write(frame(np.zeros((0, 3), "f4"), "YX"), tmp_path / "a.mrc")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    class Stop(Exception):
        pass

    f = frame(values((4, 5), "float32"), "YX")

    def interrupted():
        with io.create(tmp_path / "a.mrc", f, std=True) as out:
            out.put(Box((0, 0), (2, 5)), f.data[:2], f.data[:2])
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert list(tmp_path.iterdir()) == []


# DeltaVision


def deltavision(path, sections, *, sequence, times=1, waves=1, mode=6, order="<", records=None, title=b"", **more):
    """A file written from Priism's layout, independent of dv.py's table."""
    raw = bytearray(1024)
    _, ny, nx = sections.shape
    struct.pack_into(order + "4i", raw, 0, nx, ny, len(sections), mode)
    struct.pack_into(order + "3f", raw, 40, 0.1, 0.2, 0.3)
    struct.pack_into(order + "h", raw, 96, -16224)
    struct.pack_into(order + "2h", raw, 180, times, sequence)
    struct.pack_into(order + "6h", raw, 196, waves, 525, 632, 0, 0, 0)
    struct.pack_into(order + "f", raw, 208, 42.0)  # an origin, which dv.py has no name for
    raw[224 : 224 + len(title)] = title
    extended = b""
    if records is not None:
        struct.pack_into(order + "2h", raw, 128, 8, 32)
        extended = b"".join(struct.pack(order + "8i", *[0] * 8) + r.astype(order + "f4").tobytes() for r in records)
        struct.pack_into(order + "i", raw, 92, len(extended))
    for offset, value in more.items():
        struct.pack_into(order + "h", raw, int(offset[1:]), value)
    path.write_bytes(bytes(raw) + extended + sections.astype(sections.dtype.newbyteorder(order)).tobytes())
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("sequence", "stored"), [(0, "CTZ"), (1, "TZC"), (2, "TCZ")])
def test_sections_of_every_order(tmp_path, sequence, stored, order):
    truth = values((2, 2, 3, 4, 5), "uint16")  # TCZYX
    size = {"T": 2, "C": 2, "Z": 3}
    lie = truth.transpose(*("TCZ".index(a) for a in stored), 3, 4).reshape(12, 4, 5)
    records = np.zeros((12, 32), "f4")
    records[:, 8] = 0.25
    records[:, 1] = np.arange(12)
    path = deltavision(
        tmp_path / "a.dv", lie, sequence=sequence, times=2, waves=2, order=order, records=records, title=b"a title"
    )
    f = io.read(path)
    assert (f.axes, f.shape, f.unit) == ("TCZYX", truth.shape, Unit.ADU)
    assert np.array_equal(f.data, truth)
    assert f.spacing == pytest.approx({"Z": 0.3, "Y": 0.2, "X": 0.1})
    assert (f.observation.band, f.observation.exposure) == ("525 nm; 632 nm", 0.25)
    back = io.read(io.write(f, tmp_path / "b.dv"))
    assert np.array_equal(back.data, truth)
    assert (back.axes, back.unit, back.observation.band) == (
        f.axes,
        f.unit,
        f.observation.band if order == "<" else back.observation.band,
    )
    if order == "<":
        written = back.observation.header
        assert struct.unpack_from("<f", written["main"], 208) == (42.0,)
        assert written["titles"] == ["a title", "firstlight: written"]
        times = np.frombuffer(bytes(written["extended"]), "<f4").reshape(12, 40)[:, 8 + 1]
        assert np.array_equal(
            times.reshape(2, 2, 3), np.arange(12).reshape([size[a] for a in stored]).transpose([stored.index(a) for a in "TCZ"])
        )


def test_dv_round_trip_of_single_axes(tmp_path):
    for axes, shape in [("YX", (3, 4)), ("CYX", (1, 3, 4)), ("TCZYX", (1, 2, 1, 3, 4)), ("ZYX", (5, 3, 4))]:
        for dtype in ("uint8", "int16", "uint16", "int32", "float32"):
            f = frame(values(shape, dtype), axes)
            back = io.read(io.write(f, tmp_path / "a.dv"))
            assert (back.axes, back.data.dtype) == (axes, f.data.dtype)
            assert np.array_equal(back.data, f.data)


def test_dv_refusals(tmp_path):
    data = values((6, 4, 5), "uint16")
    for more, cause in [
        ({"mode": 4}, "mode 4"),
        ({"sequence": 7}, "section order 7"),
        ({"waves": 4}, "6 sections"),
        ({"_132": 3}, "pyramid"),
    ]:
        path = deltavision(tmp_path / "a.dv", data, **({"sequence": 0} | more))
        with pytest.raises(ReadError, match=cause):
            io.read(path)
    path = deltavision(tmp_path / "a.dv", data, sequence=0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReadError, match="truncated"):
        io.read(path)
    for f in (frame(data, "AYX"), frame(data, "CYX"), frame(data.astype("f8"), "ZYX")):
        with pytest.raises(WriteError, match="DeltaVision"):
            io.write(f, tmp_path / "b.dv")
    assert not (tmp_path / "b.dv").exists()


def test_channels_exposed_differently_share_no_exposure(tmp_path):
    records = np.zeros((2, 32), "f4")
    records[:, 8] = 0.1, 0.5
    f = io.read(deltavision(tmp_path / "a.dv", values((2, 4, 5), "int16"), sequence=1, waves=2, mode=1, records=records))
    assert (f.axes, f.observation.exposure) == ("CYX", None)


# real files


def test_fei2_scan(data):
    f = io.read(data / "microscopy/mrc/HAADFscan_fei2.mrc")
    assert (f.axes, f.shape, f.data.dtype, f.unit) == ("YX", (16, 16), np.dtype("uint16"), Unit.ADU)
    with mrcfile.open(data / "microscopy/mrc/HAADFscan_fei2.mrc") as m:
        assert np.array_equal(f.data, m.data)
    assert f.spacing["X"] == pytest.approx(5.67913129e-3, rel=1e-6)  # the extended header's Pixel size X: 5.67913129e-09 m
    assert f.observation.instrument == "Spectra HAADF"
    assert f.observation.exposure == 0.01  # its dwell time
    assert f.observation.time.startswith("2022-12-05")
    assert f.observation.header["fei"]["HT"] == 300000


def test_emdb_map(data, tmp_path):
    f = io.read(data / "microscopy/mrc/EMD-3197.map")
    with mrcfile.open(data / "microscopy/mrc/EMD-3197.map") as m:
        assert np.array_equal(f.data, m.data)
    assert (f.axes, f.unit, f.observation.header["start"]) == ("ZYX", Unit.ARBITRARY, (-2, 0, 0))
    assert f.spacing == pytest.approx({"Z": 1.14e-3, "Y": 1.14e-3, "X": 1.14e-3})
    path = io.write(f, tmp_path / "a.map")
    with mrcfile.open(path) as m:
        assert m.header.nxstart == -2
        assert "EMD-3197" in m.get_labels()[0]


def test_deltavision_file(data):
    path = data / "microscopy/mrc/toxo_2ch.dv"
    f = io.read(path)
    assert (f.axes, f.shape, f.data.dtype) == ("CZYX", (2, 17, 128, 128), np.dtype("uint16"))
    assert f.spacing == pytest.approx({"Z": 0.3, "Y": 0.13262, "X": 0.13262})
    assert f.observation.band == "525 nm; 632 nm"
    # the header's section order is 0, channels one after the other: mean level 150 in the first, 390 in the second
    levels = np.mean(f.data, axis=(2, 3))
    assert levels[0].max() < 200 < levels[1].min()
    assert f.unit == Unit.ARBITRARY
    assert "deconvolved" in f.noise.reason  # its third title is DECON3D
    assert dv.matches(path.read_bytes()[:1024])
