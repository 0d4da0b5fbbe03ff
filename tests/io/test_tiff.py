import gc
import gzip
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import Scan
from firstlight.io.tiff_write import OME_TYPES
from firstlight.noise import Noise, Unmodelled

TYPES = ["uint8", "uint16", "int16", "int32", "float32", "float64", "float16", "uint64"]
GREY = {"photometric": "minisblack"}
KEEP = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def values(shape, dtype="uint16", seed=1):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)


def frame(data, axes, **kw):
    return Frame(data, axes, **({"unit": Unit.ELECTRON, "noise": Unmodelled("test")} | kw))


# what we write


@given(
    st.sampled_from([".tif", ".ome.tif"]),
    st.sampled_from(TYPES),
    st.sampled_from(["", "T", "S", "C", "Z", "A", "TCZ", "CZ", "TSCZA"]),
    st.data(),
)
@KEEP
def test_round_trip_and_tifffile_agrees(tmp_path, suffix, dtype, lead, draw):
    axes = lead + "YX"
    if suffix == ".ome.tif" and (lead == "TSCZA" or dtype not in OME_TYPES):
        return
    shape = tuple(draw.draw(st.integers(1, 5)) for _ in axes)
    data = values(shape, dtype)
    f = frame(data, axes, spacing={"Y": 0.123, "X": 0.2})
    path = tmp_path / f"a{suffix}"
    with io.create(path, f) as out:
        for box in io.blocks(shape, data.itemsize, limit=draw.draw(st.integers(1, 200))):
            out.put(box, data[box.slices])
    back = io.read(path)
    assert (back.axes, back.shape, back.unit, back.spacing) == (axes, shape, f.unit, f.spacing)
    assert back.data.dtype == data.dtype
    assert np.array_equal(back.data, data)
    assert np.array_equal(tifffile.imread(path).reshape(shape), data)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_axes_and_spacing_stand_in_the_file_itself(tmp_path, suffix):
    spacing = {"Z": 0.5, "Y": 0.1, "X": 0.25}
    for axes in ("TCZYX", "CZYX", "ZYX", "TYX", "CYX", "YX"):
        data = values((2, 3, 4, 5, 6)[5 - len(axes) :], "float32")
        path = io.write(frame(data, axes, spacing=spacing), tmp_path / f"a{suffix}")
        (tmp_path / f"a{suffix}.json").unlink()
        back = io.read(path)
        assert back.axes == axes
        assert back.spacing == pytest.approx({a: v for a, v in spacing.items() if a in axes})
        assert back.unit == (Unit.ELECTRON if suffix == ".tif" else Unit.ARBITRARY)


def test_resolution_tags_and_ome_xml(tmp_path):
    f = frame(values((2, 4, 5)), "CYX", spacing={"Y": 0.1, "X": 0.25}, observation=Observation(time="2024-05-06T07:08:09"))
    with tifffile.TiffFile(io.write(f, tmp_path / "a.tif")) as t:
        page = t.pages[0]
        assert page.tags["ResolutionUnit"].value == 3
        assert np.divide(*page.tags["XResolution"].value) == pytest.approx(4e4)
    with tifffile.TiffFile(io.write(f, tmp_path / "a.ome.tif")) as t:
        assert t.is_ome
        found = tifffile.xml2dict(t.ome_metadata)["OME"]["Image"]
        assert found["Pixels"]["PhysicalSizeX"] == 0.25
        assert found["AcquisitionDate"] == "2024-05-06T07:08:09"


def test_noise_std_flags_and_angles_come_back(tmp_path):
    data = values((3, 6, 7))
    f = frame(
        data,
        "AYX",
        noise=Noise(0.5, 2.0, 100.0),
        std=np.ones(data.shape, "f4"),
        flags=np.eye(6, 7, dtype="u1"),
        geometry=Scan(np.array([0.0, 0.1, 0.2]), center=3.5),
    ).then("calibrate.detector")
    for suffix in (".tif", ".ome.tif"):
        back = io.read(io.write(f, tmp_path / f"a{suffix}"))
        assert (back.noise.a, back.noise.b, back.noise.offset, back.unit) == (0.5, 2.0, 100.0, f.unit)
        assert np.array_equal(back.std, f.std)
        assert np.array_equal(back.flags, f.flags)
        assert back.geometry.center == 3.5
        assert back.history[0].step == "calibrate.detector"


def test_pictures_stay_rgb(tmp_path):
    data = values((3, 8, 9), "uint8")
    path = io.write(frame(data, "CYX", unit=Unit.DISPLAY), tmp_path / "a.tif")
    with tifffile.TiffFile(path) as t:
        assert t.pages[0].photometric == 2
    (tmp_path / "a.tif.json").unlink()
    back = io.read(path)
    assert (back.axes, back.unit) == ("CYX", Unit.DISPLAY)
    assert np.array_equal(back.data, data)


def test_bigtiff_from_four_gigabytes_on_without_memory(tmp_path):
    like = frame(values((2, 2)), "YX")
    with io.create(tmp_path / "a.tif", like, (48000, 48000)) as out:  # a sparse file
        out.put(Box((47999, 47998), (48000, 48000)), np.array([[7, 9]], "u2"))
    with tifffile.TiffFile(tmp_path / "a.tif") as t:
        assert t.is_bigtiff
    assert io.read(tmp_path / "a.tif").data[-1, -3:].tolist() == [0, 7, 9]
    (tmp_path / "a.tif").unlink()


def test_the_source_description_is_kept(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", values((4, 5)), description="Objective 60x", metadata=None)
    tifffile.imwrite(tmp_path / "s.ome.tif", values((4, 5)), metadata={"axes": "YX", "Name": "Actin & <tubulin>"})
    for source, word in (("s.tif", "Objective 60x"), ("s.ome.tif", "Actin")):
        for suffix in (".tif", ".ome.tif"):
            with tifffile.TiffFile(io.write(io.read(tmp_path / source), tmp_path / f"o{suffix}")) as t:
                assert word in t.pages[0].description


def test_what_tiff_or_ome_cannot_hold_is_refused(tmp_path):
    for f, suffix, cause in [
        (frame(values((2, 2, 3, 4)), "TAYX"), ".ome.tif", "TAYX"),
        (frame(values((2, 2, 3, 4)), "SCYX"), ".ome.tif", "SCYX"),
        (frame(values((3, 4), "uint64"), "YX"), ".ome.tif", "uint64"),
        (frame(np.zeros((3, 4), "c8"), "YX"), ".tif", "complex64"),
        (frame(np.zeros((3, 0)), "YX"), ".tif", "empty"),
        (frame(values((3, 4)), "YX"), ".tif.gz", "compressed"),
    ]:
        with pytest.raises(WriteError, match=cause):
            io.write(f, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    class Stop(Exception):
        pass

    def interrupted():
        with io.create(tmp_path / "a.ome.tif", frame(values((4, 5)), "YX"), std=True) as out:
            out.put(Box((0, 0), (2, 5)), np.zeros((2, 5)), np.zeros((2, 5)))
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert list(tmp_path.iterdir()) == []


# what others write


LAYOUTS = {
    "plain": GREY,
    "strips": GREY | {"compression": "zlib", "rowsperstrip": 5},
    "lzw": GREY | {"compression": "lzw", "predictor": True},
    "zstd tiles": GREY | {"compression": "zstd", "tile": (16, 16)},
    "tiles": GREY | {"tile": (16, 16)},
    "big": GREY | {"bigtiff": True, "compression": "zlib"},
    "big-endian": GREY | {"byteorder": ">"},
    "big-endian zlib": GREY | {"byteorder": ">", "compression": "zlib"},
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ome", [False, True])
@given(
    key=st.tuples(
        *(st.one_of(st.integers(-n, n - 1), st.slices(n).filter(lambda s: s.step in (None, 1))) for n in (2, 3, 33, 20))
    )
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_layout_slices_like_its_array(tmp_path, name, ome, key):
    data = values((2, 3, 33, 20))
    path = tmp_path / f"{name}{ome}.tif"
    if not path.exists():
        tifffile.imwrite(path, data, ome=ome, metadata={"axes": "CZYX"}, **LAYOUTS[name])
    f = io.read(path)
    assert (f.axes, f.shape, f.unit) == ("CZYX", data.shape, Unit.ADU)
    assert isinstance(f.data, np.memmap) == (name in ("plain", "big-endian"))
    assert np.array_equal(f.data[key], data[key])
    assert np.array_equal(f.data[...], data)
    assert np.array_equal(f.data[1:, ..., 3:9], data[1:, ..., 3:9])


def test_order_of_axes_is_made_ours(tmp_path):
    data = values((2, 3, 4, 20, 24))
    for axes in ("TZCYX", "CTZYX", "ZCTYX"):
        truth = data.transpose([axes.index(a) for a in "TCZYX"])
        for options in ({}, {"compression": "zlib"}):
            tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": axes}, **GREY, **options)
            f = io.read(tmp_path / "a.ome.tif")
            assert f.axes == "TCZYX"
            assert np.array_equal(f.data[...], truth)
            assert np.array_equal(f.data[1, :, 1, 3:7], truth[1, :, 1, 3:7])


def test_colour_samples_are_channels_for_display(tmp_path):
    data = values((20, 24, 3), "uint8")
    for options in ({}, {"compression": "zlib"}):
        tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", **options)
        f = io.read(tmp_path / "a.tif")
        assert (f.axes, f.unit) == ("CYX", Unit.DISPLAY)
        assert np.array_equal(f.data[...], data.transpose(2, 0, 1))
        assert "display" in f.noise.reason


def test_units_of_types_and_photometric_kinds(tmp_path):
    for dtype, options, unit in [
        ("uint8", GREY, Unit.ADU),
        ("uint16", GREY, Unit.ADU),
        ("float32", GREY, Unit.ARBITRARY),
        ("uint8", {"photometric": "miniswhite"}, Unit.ARBITRARY),
        ("uint8", {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, Unit.ARBITRARY),
    ]:
        tifffile.imwrite(tmp_path / "a.tif", values((4, 5), dtype), **options)
        f = io.read(tmp_path / "a.tif")
        assert f.unit == unit, options
        assert isinstance(f.noise, Unmodelled)


def test_unnamed_axes(tmp_path):
    data = values((3, 20, 24))
    with tifffile.TiffWriter(tmp_path / "a.tif") as t:
        for page in data:
            t.write(page, metadata=None, contiguous=False, **GREY)
    assert io.read(tmp_path / "a.tif").axes == "TYX"
    tifffile.imwrite(tmp_path / "b.tif", data, **GREY)
    assert io.read(tmp_path / "b.tif").axes == "ZYX"
    tifffile.imwrite(tmp_path / "c.tif", values((2, 3, 20, 24)), **GREY)
    f = io.read(tmp_path / "c.tif")
    assert (f.axes, f.shape) == ("TZYX", (2, 3, 20, 24))
    tifffile.imwrite(tmp_path / "d.tif", values((2, 2, 3, 20, 24)), **GREY)
    with pytest.raises(ReadError, match="axes 'QQQYX'"):
        io.read(tmp_path / "d.tif")
    tifffile.imwrite(tmp_path / "e.tif", data, metadata={"axes": "HYX"}, **GREY)
    with pytest.raises(ReadError, match="axes 'HYX'"):
        io.read(tmp_path / "e.tif")


def test_mosaic_of_a_tiff_ep_image(tmp_path):
    data = values((6, 8))
    tags = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([1, 2, 0, 1]), True)]
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="cfa", extratags=tags, metadata=None)
    f = io.read(tmp_path / "a.tif")
    assert f.geometry.cell().tolist() == [[1, 2], [0, 1]]


def test_ome_metadata(tmp_path):
    data = values((2, 3, 4, 5))
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 65,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.065,
        "PhysicalSizeZ": 0.0003,
        "PhysicalSizeZUnit": "mm",
        "Channel": {"Name": ["DAPI", "GFP"], "EmissionWavelength": [450, 525]},
        "Plane": {"ExposureTime": [250.0] * 6, "ExposureTimeUnit": ["ms"] * 6},
        "AcquisitionDate": "2024-05-06T07:08:09",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata, **GREY)
    f = io.read(tmp_path / "a.ome.tif")
    assert f.spacing == pytest.approx({"Z": 0.3, "Y": 0.065, "X": 0.065})
    assert f.observation.exposure == 0.25
    assert f.observation.band == "DAPI 450 nm; GFP 525 nm"
    assert f.observation.time == "2024-05-06T07:08:09"
    metadata["Plane"]["ExposureTime"] = [100.0] * 3 + [200.0] * 3
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata, **GREY)
    assert io.read(tmp_path / "a.ome.tif").observation.exposure is None


def test_imagej_calibration(tmp_path):
    data = values((3, 2, 4, 5))
    options = {"imagej": True, "resolution": (4.0, 8.0)}
    for unit, scale in (("um", 1.0), ("\\u00B5m", 1.0), ("micron", 1.0), ("nm", 1e-3)):
        tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZCYX", "unit": unit, "spacing": 0.5}, **options)
        f = io.read(tmp_path / "a.tif")
        assert f.axes == "CZYX"
        assert np.array_equal(f.data, data.transpose(1, 0, 2, 3))
        assert f.spacing == pytest.approx({"Z": 0.5 * scale, "Y": 0.125 * scale, "X": 0.25 * scale})
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZCYX", "unit": "pixel"}, **options)
    assert io.read(tmp_path / "a.tif").spacing == {}


def test_resolution_in_centimetres_is_a_spacing_and_dots_per_inch_are_none(tmp_path):
    for unit, spacing in (("CENTIMETER", {"Y": 2.0, "X": 1.0}), ("INCH", {}), ("NONE", {})):
        tifffile.imwrite(tmp_path / "a.tif", values((4, 5)), resolution=(1e4, 5e3), resolutionunit=unit, metadata=None)
        assert io.read(tmp_path / "a.tif").spacing == pytest.approx(spacing)


def test_micro_manager_and_camera_tags(tmp_path):
    import json

    text = json.dumps({"Camera": "Andor Zyla", "Exposure-ms": 50, "PixelSizeUm": 0.1}).encode()
    tags = [(51123, 2, len(text) + 1, text, True)]
    tifffile.imwrite(tmp_path / "a.tif", values((4, 5)), extratags=tags, metadata=None)
    f = io.read(tmp_path / "a.tif")
    assert (f.observation.instrument, f.observation.exposure, f.spacing) == ("Andor Zyla", 0.05, {"Y": 0.1, "X": 0.1})
    tags = [(271, 2, 6, b"Acme\0\0", True), (272, 2, 5, b"CCD1\0", True), (306, 2, 20, b"2024:05:06 07:08:09\0", True)]
    tifffile.imwrite(tmp_path / "a.tif", values((4, 5)), extratags=tags, metadata=None)
    assert io.read(tmp_path / "a.tif").observation.instrument == "Acme CCD1"


def test_several_series(tmp_path):
    a, b = values((4, 5)), values((3, 20, 24), seed=2)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as t:
        t.write(a, metadata={"axes": "YX", "Name": "low", "PhysicalSizeX": 2.0}, **GREY)
        t.write(b, metadata={"axes": "ZYX", "Name": "high", "PhysicalSizeX": 0.5}, compression="zlib", **GREY)
    found = io.read_set(tmp_path / "a.ome.tif")
    assert list(found) == ["low", "high"]
    assert np.array_equal(found["high"].data[...], b)
    assert found["high"].spacing == {"X": 0.5}
    assert np.array_equal(io.read(tmp_path / "a.ome.tif").data, a)
    for ext in ("high", 1, "1"):
        assert np.array_equal(io.read(tmp_path / "a.ome.tif", ext).data[...], b)
    with pytest.raises(ReadError, match="low, high"):
        io.read(tmp_path / "a.ome.tif", "other")
    tifffile.imwrite(tmp_path / "b.tif", a)
    assert list(io.read_set(tmp_path / "b.tif")) == ["data"]


@pytest.mark.parametrize("options", [GREY, GREY | {"compression": "zlib"}])
def test_packed_files(tmp_path, options):
    data = values((3, 20, 24))
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    (tmp_path / "b.tif.gz").write_bytes(gzip.compress((tmp_path / "a.tif").read_bytes()))
    f = io.read(tmp_path / "b.tif.gz")
    assert np.array_equal(f.data[...], data)
    assert np.array_equal(f.data[1, 2:4], data[1, 2:4])


def test_a_compressed_file_is_read_in_parts_by_several_threads_and_closed(tmp_path, monkeypatch):
    data = values((8, 64, 64))
    tifffile.imwrite(tmp_path / "a.tif", data, compression="zlib", tile=(16, 16), **GREY)
    whole = []
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *a, **k: whole.append(1))
    lazy = io.read(tmp_path / "a.tif").data
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lazy.__getitem__, [(i, slice(5, 40)) for i in range(8)]))
    assert np.array_equal(parts, data[:, 5:40])
    assert not whole
    with pytest.raises(IndexError, match="step"):
        lazy[:, ::2]
    with pytest.raises(IndexError, match="length 8"):
        lazy[8]
    del lazy
    gc.collect()  # an open file would be a ResourceWarning, which pytest makes an error


# damage


def _pages(path, data):
    with tifffile.TiffWriter(path) as t:
        for page in data:
            t.write(page, metadata=None, contiguous=False, **GREY)


MAKERS = {
    "shaped": lambda p, d: tifffile.imwrite(p, d, **GREY),
    "pages": _pages,
    "zlib": lambda p, d: tifffile.imwrite(p, d, compression="zlib", rowsperstrip=8, **GREY),
    "tiles": lambda p, d: tifffile.imwrite(p, d, tile=(16, 16), **GREY),
    "imagej": lambda p, d: tifffile.imwrite(p, d, imagej=True, metadata={"axes": "ZYX"}),
    "ome": lambda p, d: tifffile.imwrite(p, d, ome=True, metadata={"axes": "ZYX"}, **GREY),
    "ome zlib": lambda p, d: tifffile.imwrite(p, d, ome=True, metadata={"axes": "ZYX"}, compression="zlib", **GREY),
    "bigtiff": lambda p, d: tifffile.imwrite(p, d, bigtiff=True, compression="lzw", metadata=None, **GREY),
    "ours": lambda p, d: io.write(frame(d, "ZYX"), p),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_cut_file_is_refused_or_whole_never_less(tmp_path, name, caplog):
    data = values((3, 20, 20))
    path = tmp_path / "a.tif"
    MAKERS[name](path, data)
    raw = path.read_bytes()
    assert np.array_equal(io.read(path).data[...], data)
    rng = np.random.default_rng(5)
    cuts = {
        1,
        4,
        8,
        9,
        12,
        len(raw) - 1,
        *rng.integers(1, len(raw), 25).tolist(),
        *rng.integers(len(raw) - 300, len(raw), 8).tolist(),
    }
    refused = []
    for cut in sorted(cuts):
        path.write_bytes(raw[:cut])
        try:
            f = io.read(path)
        except ReadError as error:
            refused.append(str(error))
        else:
            assert np.array_equal(f.data[...], data), cut
    assert len(refused) > len(cuts) // 2
    assert all("a.tif" in line and "\n" not in line for line in refused)
    assert caplog.records == []


def test_not_a_tiff(tmp_path):
    for raw in (b"hello, world, this is text", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\0", bytes(200)):
        (tmp_path / "a.tif").write_bytes(raw)
        with pytest.raises(ReadError, match=r"a\.tif"):
            io.read(tmp_path / "a.tif")


def _claim(path, **tags):
    """Overwrite tags of the first page in place."""
    with tifffile.TiffFile(path, mode="r+b") as t:
        for name, value in tags.items():
            t.pages[0].tags[name].overwrite(value)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"compression": "zlib", "tile": (16, 16)}]
)
def test_headers_that_announce_too_much(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values((32, 32)), metadata=None, **GREY, **options)
    claim = {"ImageWidth": 10**6, "ImageLength": 10**6} | ({} if "tile" in options else {"RowsPerStrip": 10**6})
    _claim(path, **claim)
    with pytest.raises(ReadError, match=r"announces|truncated|damaged"):
        io.read(path)
    if "tile" in options and "compression" in options:
        _claim(path, TileWidth=2**20, TileLength=2**20)
        with pytest.raises(ReadError, match="compressed blocks of"):
            io.read(path)


def test_planes_that_are_not_there(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values((3, 20, 24)), metadata={"axes": "ZYX"}, compression="zlib", **GREY)
    path.write_bytes(path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="9"').replace(b'PlaneCount="3"', b'PlaneCount="9"'))
    with pytest.raises(ReadError, match=r"damaged|not in the file"):
        io.read(path)


def test_a_damaged_block_is_named_when_it_is_sliced(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values((32, 32)), compression="zlib", metadata=None, **GREY)
    with tifffile.TiffFile(path) as t:
        start = t.pages[0].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[start : start + 40] = b"x" * 40
    path.write_bytes(raw)
    with pytest.raises(ReadError, match="cannot be decoded"):
        io.read(path).data[...]


def test_complex_numbers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), "c8"), **GREY)
    with pytest.raises(ReadError, match="complex64"):
        io.read(tmp_path / "a.tif")


def test_other_log_lines_still_show(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", values((4, 5)))
    io.read(tmp_path / "a.tif")
    assert logging.getLogger("tifffile").filters == []
    logging.getLogger("tifffile").warning("seen")
    assert [r.getMessage() for r in caplog.records] == ["seen"]


# real files


def test_evolve_frame(data):
    f = io.read(data / "microscopy/raw16/FA_0488_Evolve.tif")
    assert (f.axes, f.shape, f.unit) == ("YX", (512, 512), Unit.ADU)
    assert f.spacing == pytest.approx({"Y": 1 / 4.038496, "X": 1 / 4.038496})  # its XResolution, pixels per micrometre
    assert np.array_equal(f.data, tifffile.imread(data / "microscopy/raw16/FA_0488_Evolve.tif"))


def test_w2s_pair(data):
    for name in ("input_avg1_001_0", "target_avg400_001_0"):
        f = io.read(data / f"microscopy/w2s/{name}.tif")
        assert (f.axes, f.data.dtype, f.unit, f.spacing) == ("YX", np.uint8, Unit.ADU, {})


def test_bpae_stack(data):
    path = data / "microscopy/fmd/confocal_BPAE_3ch_raw.tif.gz"
    f = io.read(path)
    with gzip.open(path) as g:
        truth = tifffile.imread(g)
    assert (f.axes, f.unit) == ("ZYX", Unit.ARBITRARY)  # its three channels are headed slices
    assert np.array_equal(f.data, truth)


def test_electrode_volume(data):
    f = io.read(data / "tomography/electrode_3phase.tiff")
    assert (f.axes, f.shape, f.unit) == ("ZYX", (256, 256, 256), Unit.ADU)
    share = [float(np.mean(f.data[:32] == v)) for v in (0, 85, 170)]
    assert sum(share) == 1
    whole = np.bincount(f.data[...].ravel(), minlength=171)[[0, 85, 170]] / 256**3
    assert whole == pytest.approx([0.4499, 0.4005, 0.1496], abs=1e-4)


def test_mcmaster_picture(data):
    f = io.read(data / "demosaic/mcmaster/1.tif")
    assert (f.axes, f.shape, f.unit) == ("CYX", (3, 500, 500), Unit.DISPLAY)
