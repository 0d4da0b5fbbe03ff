"""Rounding, chunks and codecs."""

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from firstlight import io
from firstlight.box import Box
from firstlight.errors import FrameError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.io.storage import DEPTH, rounded, section_chunks
from firstlight.noise import Unmodelled


def floats(dtype, low, high):
    return arrays(dtype, 40, elements=st.floats(low, high, width=np.dtype(dtype).itemsize * 8))


@given(floats(np.float32, 2.0**-14, 60000.0))
def test_eleven_bits_are_half_precision(x):
    assert np.array_equal(rounded(x, 11), x.astype(np.float16).astype(np.float32))
    assert np.array_equal(rounded(-x, 11), -rounded(x, 11))


@given(floats(np.float64, -1e30, 1e30).filter(lambda x: bool(np.all((x == 0) | (np.abs(x) > 1e-30)))))
def test_twenty_four_bits_of_double_precision_are_single_precision(x):
    assert np.array_equal(rounded(x, 24), x.astype(np.float32).astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bits", [1, 2, 7, 10])
def test_what_is_not_finite_stays_and_rounding_twice_changes_nothing(dtype, bits):
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.999, 3.14159], dtype)
    with np.errstate(invalid="ignore"):
        got = rounded(x, bits)
    assert np.array_equal(got[:6], x[:6], equal_nan=True)
    assert np.array_equal(np.signbit(got), np.signbit(x))
    assert np.array_equal(rounded(got, bits), got, equal_nan=True)
    payload = np.array([0x7F800001, 0x7FFFFFFF], np.uint32).view(np.float32)
    assert np.all(np.isnan(rounded(payload, bits)))


def test_integers_and_all_digits_are_left_alone():
    x = np.arange(9)
    assert rounded(x, 3) is x or np.array_equal(rounded(x, 3), x)
    y = np.random.default_rng(1).random(9).astype(np.float32)
    assert np.array_equal(rounded(y, 24), y)
    frame = Frame(np.ones((3, 4)), "YX", Unit.ADU, Unmodelled("x"))
    with pytest.raises(FrameError, match="at least 1"):
        io.round_bits(frame, bits=0)


@pytest.mark.parametrize("section", [1, 2, 3, 7, 8, 12, 16, 30, 64])
@pytest.mark.parametrize(("axes", "shape"), [("ZYX", (97, 300, 2500)), ("AYX", (720, 97, 1024)), ("ZYX", (2, 640, 640))])
def test_no_two_sections_share_a_chunk(section, axes, shape):
    axis = 0 if axes == "ZYX" else 1
    chunks = section_chunks(shape, axis, section, 4, 4 << 20)
    assert np.prod(chunks) * 4 <= 4 << 20
    assert section % chunks[axis] == 0 or chunks[axis] == shape[axis]
    assert chunks[axis] <= DEPTH
    assert np.prod(chunks) * 4 >= (1 << 20) / DEPTH or np.prod(chunks) == np.prod(shape)


def volume(shape=(20, 300, 270), **changes):
    data = np.random.default_rng(2).random(shape).astype(np.float32)
    spacing = {"Z": 2.0, "Y": 1.5, "X": 1.5}
    return Frame(data, "ZYX", Unit.ATTENUATION, Unmodelled("reconstructed"), spacing=spacing).replace(**changes)


def filled(path, frame, step=8, **asked):
    with io.create(path, frame, **asked) as out:
        for box in out.sections(step):
            out.put(box, frame.data[box.slices])
    return path


CODECS = {"bitshuffle-lz4": "lz4", "zstd": "zstd"}


@pytest.mark.parametrize("codec", ["bitshuffle-lz4", "zstd", "gzip", "none", None])
def test_codecs_of_zarr(codec, tmp_path):
    array = zarr.open_group(filled(tmp_path / "a.zarr", volume(), section=8, codec=codec), mode="r")["0"]
    used = [c.to_dict() for c in array.compressors]
    if codec == "none":
        assert used == []
    elif codec == "gzip":
        assert [c["name"] for c in used] == ["gzip"]
    else:
        said = used[0]["configuration"]
        assert (used[0]["name"], said["cname"], said["shuffle"]) == ("blosc", CODECS[codec or "bitshuffle-lz4"], "bitshuffle")


FILTERS = {
    "bitshuffle-lz4": [hdf5plugin.BSHUF_ID],
    "lz4": [h5py.h5z.FILTER_SHUFFLE, hdf5plugin.LZ4_ID],
    "zstd": [hdf5plugin.BSHUF_ID],
    "gzip": [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE],
    "none": [],
}


@pytest.mark.parametrize("resume", [None, "key"])
@pytest.mark.parametrize("codec", FILTERS)
def test_codecs_of_hdf5(codec, resume, tmp_path):
    with h5py.File(filled(tmp_path / "a.h5", volume(), section=8, codec=codec, resume=resume)) as file:
        plist = file["firstlight/data"].id.get_create_plist()
        assert [plist.get_filter(i)[0] for i in range(plist.get_nfilters())] == FILTERS[codec]
        assert file["firstlight/data"].shape == (20, 300, 270)
        assert np.array_equal(file["firstlight/data"][()], volume().data)


def test_eight_bits_of_noise_take_less_than_half_the_room(tmp_path):
    def size(**asked):
        path = filled(tmp_path / "a.zarr", volume(), section=8, **asked)
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())

    assert size(bits=8) * 2 < size()


@pytest.mark.parametrize(
    ("name", "asked", "match"),
    [
        ("a.zarr", {"codec": "lz77"}, "'lz77'"),
        ("a.tif", {"codec": "gzip"}, "expected codec none"),
        ("a.npy", {"codec": "gzip"}, "no codec"),
        ("a.zarr", {"section": 0}, "at least 1"),
        ("a.zarr", {"levels": 0}, "at least 1"),
        ("a.h5", {"levels": 2}, "one level"),
        ("a.tif", {"levels": 2}, "one level"),
        ("a_###.tif", {"levels": 2}, "one level"),
    ],
)
def test_what_a_format_lacks_is_refused(name, asked, match, tmp_path):
    with pytest.raises(WriteError, match=match):
        io.create(tmp_path / name, volume(), **asked)
    assert not list(tmp_path.iterdir())


def means(data):
    """Means of 2 x 2 x 2 voxels, odd ends repeated: by reshaping, in float64."""
    data = np.pad(data.astype(np.float64), [(0, n % 2) for n in data.shape], mode="edge")
    z, y, x = (n // 2 for n in data.shape)
    return data.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))


@pytest.mark.parametrize("step", [8, 16, 7])
@pytest.mark.parametrize("resume", [None, "key"])
@pytest.mark.parametrize("shape", [(21, 301, 530), (8, 520, 33), (5, 513, 3)])
def test_levels_are_means_whatever_the_order_of_sections(shape, resume, step, tmp_path):
    frame = volume(shape)
    out = io.create(tmp_path / "a.zarr", frame, section=8, resume=resume)
    starts = range(0, shape[0], step if resume is None else 8)
    for z in reversed(starts):
        box = Box((z, 0, 0), (min(shape[0], z + (starts.step)), *shape[1:]))
        out.put(box, frame.data[box.slices])
    out.close()
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert len(datasets) == 2 + (max(shape) > 512)
    want = frame.data
    for k, level in enumerate(datasets):
        assert np.allclose(group[level["path"]][...], want, rtol=0, atol=2e-7)
        scale, *moved = level["coordinateTransformations"]
        assert scale["scale"] == [2.0 * 2**k, 1.5 * 2**k, 1.5 * 2**k]
        if k:
            assert moved[0]["translation"] == [2.0 * (2**k - 1) / 2, 1.5 * (2**k - 1) / 2, 1.5 * (2**k - 1) / 2]
        want = means(want)
    assert [a["unit"] for a in group.attrs["ome"]["multiscales"][0]["axes"]] == ["micrometer"] * 3


def test_levels_of_integers_are_rounded_and_of_one_slice_stay_one_slice(tmp_path):
    data = np.random.default_rng(3).integers(0, 65535, (1, 600, 40), dtype=np.uint16, endpoint=True)
    io.write(volume(data.shape, data=data), tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    want = np.rint(data.reshape(1, 300, 2, 20, 2).mean((2, 4)))
    assert np.array_equal(group["1"][...], want)
    assert group["1"].dtype == np.uint16
    assert group.attrs["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"] == [2.0, 3.0, 3.0]


def test_as_many_levels_as_asked_for(tmp_path):
    filled(tmp_path / "a.zarr", volume((4, 1030, 4)), section=4, levels=2)
    assert sorted(zarr.open_group(tmp_path / "a.zarr", mode="r").array_keys()) == ["0", "1"]


def test_ome_tools_accept_the_metadata(tmp_path):
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs is not installed")
    filled(tmp_path / "a.zarr", volume(), section=8)
    text = (tmp_path / "a.zarr" / "zarr.json").read_text()
    assert yaozarrs.validate_ome_json(text) is not None


def test_a_scan_in_sections_of_rows_is_a_data_exchange_file(tmp_path):
    """Preprocessed projections: all angles of some rows at a time, with centre, unit and history."""
    data = np.random.default_rng(4).random((90, 20, 64)).astype(np.float32)
    scan = Scan(np.linspace(0, 3, 90), center=31.25, energy=20.0, pixel=0.65)
    frame = Frame(data, "AYX", Unit.OPTICAL_DEPTH, Unmodelled("filtered"), geometry=scan, spacing={"Y": 0.65, "X": 0.65})
    frame = frame.then("calibrate.minus_log", {"floor": 0.001})
    for resume in (None, "key"):
        path = filled(tmp_path / "a.h5", frame, section=8, resume=resume)
        with h5py.File(path) as file:
            assert file["exchange/data"].chunks == (90, 8, 64)
            assert np.array_equal(file["exchange/data"][()], data)
            assert file["exchange/data"].attrs["units"] == "optical depth"
            assert np.allclose(file["exchange/theta"][()], np.rad2deg(scan.angles))
        back = io.read(path)
        assert io.section(back) == 8
        assert (back.geometry.center, back.geometry.energy, back.unit) == (31.25, 20.0, Unit.OPTICAL_DEPTH)
        assert np.array_equal(back.geometry.angles, scan.angles)
        assert [r.step for r in back.history] == ["calibrate.minus_log"]
