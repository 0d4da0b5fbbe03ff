"""Camera raw: what LibRaw and the file's tags say, and the CFA DNG that LibRaw reads back exactly."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation, Record, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.io import exif, raw
from firstlight.noise import Noise, Unmodelled

SONY = "raw/sony_ilce-7rm3_iso3200.ARW"
BLACK = np.array([[512.0, 513.0], [514.25, 515.0]])
OBSERVATION = Observation(
    instrument="Test Camera",
    setting="ISO 1600",
    exposure=1 / 640,
    time="2026-03-04T05:06:07",
    offset=BLACK,
    saturation=16000.0,
    white_balance=(2.5, 1.0, 1.6),
    color_matrix=((0.7, -0.2, -0.05), (-0.5, 1.3, 0.2), (-0.1, 0.2, 0.6)),
    orientation=6,
)


def mosaic_frame(shape=(40, 60), pattern=BAYER, phase=(0, 0), seed=1, **changes):
    data = np.random.default_rng(seed).integers(300, 16000, shape).astype(np.uint16)
    fields = {"noise": Unmodelled("no gain: pass a detector"), "geometry": Mosaic(pattern, phase), "observation": OBSERVATION}
    return Frame(data, "YX", Unit.ADU, **(fields | changes))


def foreign(path):
    """Take our own description out of a DNG, so that it reads as anyone's."""
    path.write_bytes(path.read_bytes().replace(b"firstlight\0{", b"somebodyXX\0{"))
    return path


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_libraw_reads_a_bayer_dng_as_it_was_written(tmp_path, phase):
    frame = mosaic_frame(phase=phase)
    path = io.write(frame, tmp_path / "a b ü.dng")
    with rawpy.imread(str(path)) as r:
        assert np.array_equal(r.raw_image_visible, frame.data)
        letters = np.array(list("RGBG"))[r.raw_colors_visible]
        assert np.array_equal(letters, np.array(list("RGB"))[frame.geometry.at(frame.shape)])
        seen = np.take(r.black_level_per_channel, r.raw_colors_visible[:2, :2])
        assert np.array_equal(seen, np.floor(BLACK))  # LibRaw keeps whole numbers
        assert r.white_level == 16000
        assert r.camera_whitebalance[:3] == pytest.approx([2.5, 1.0, 1.6], rel=1e-6)
        assert r.sizes.flip == 6
        assert r.other.iso_speed == 1600
        assert r.other.shutter_speed == pytest.approx(1 / 640)


@pytest.mark.parametrize("phase", [(0, 0), (1, 2), (4, 5)])
def test_libraw_reads_an_xtrans_dng_as_it_was_written(tmp_path, phase):
    cell = 1023 + np.arange(36.0).reshape(6, 6)
    frame = mosaic_frame(pattern=XTRANS, phase=phase, observation=replace(OBSERVATION, offset=cell))
    path = io.write(frame, tmp_path / "x.dng")
    with rawpy.imread(str(path)) as r:
        assert np.array_equal(r.raw_image_visible, frame.data)
        assert np.array_equal(r.raw_pattern, frame.geometry.cell())
    back = io.read(foreign(path))
    assert np.array_equal(back.geometry.at(back.shape), frame.geometry.at(frame.shape))
    assert np.array_equal(back.observation.offset, cell)


def test_tags_alone_give_the_frame_back(tmp_path):
    frame = mosaic_frame()
    back = io.read(foreign(io.write(frame, tmp_path / "a.dng")))
    assert np.array_equal(back.data, frame.data)
    assert back.data.dtype == np.uint16
    assert (back.unit, back.axes, back.history) == (Unit.ADU, "YX", ())
    for name in ("instrument", "setting", "exposure", "time", "saturation", "orientation"):
        assert getattr(back.observation, name) == getattr(OBSERVATION, name), name
    assert np.allclose(back.observation.offset, BLACK)
    assert back.observation.white_balance == pytest.approx(OBSERVATION.white_balance)
    assert np.allclose(back.observation.color_matrix, OBSERVATION.color_matrix, atol=1e-4)
    assert back.noise == frame.noise
    assert io.stated(back)["saturation"] == 16000


def test_noise_profile_is_the_files_own_noise(tmp_path):
    frame = mosaic_frame(noise=Noise(0.25, 9.0, 512.0))
    path = io.write(frame, tmp_path / "a.dng")
    with tifffile.TiffFile(path) as tiff:
        s, o = tiff.pages[0].tags["NoiseProfile"].value
    span = 16000 - 512
    assert s * span == pytest.approx(0.25)
    assert o * span**2 == pytest.approx(9.0)
    back = io.read(foreign(path))
    assert (back.noise.a, back.noise.b, back.noise.offset) == pytest.approx((0.25, 9.0, 512.0))


def test_noise_profile_per_colour_becomes_cells():
    tags = {"NoiseProfile": (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6)}
    noise = raw._noise(tags, Mosaic(BAYER, (1, 0)), 0.0, 1000.0)
    assert np.allclose(noise.a, [[0.2, 0.3], [0.1, 0.2]])
    assert np.allclose(noise.b, [[2, 3], [1, 2]])


def test_everything_comes_back_from_our_own_description(tmp_path):
    flags = np.zeros((40, 60), np.uint8)
    flags[3, 4] = Flag.HOT
    frame = mosaic_frame(
        phase=(1, 0),
        flags=flags,
        std=np.full((40, 60), 2.5, np.float32),
        noise=Noise(np.full((2, 2), 0.3), np.linspace(1, 2, 2400).reshape(40, 60), BLACK),
        history=(Record("calibrate.x", {"k": 1}),),
    )
    back = io.read(io.write(frame, tmp_path / "a.dng"))
    assert back.geometry == frame.geometry
    assert np.array_equal(back.flags, flags)
    assert np.array_equal(back.std, frame.std)
    assert np.array_equal(back.noise.a, frame.noise.a)
    assert np.array_equal(back.noise.b, frame.noise.b)
    assert np.array_equal(back.observation.offset, BLACK)
    assert [r.step for r in back.history] == ["calibrate.x"]
    (tmp_path / "a.dng.flags.npy").unlink()
    with pytest.raises(ReadError, match="flags"):
        io.read(tmp_path / "a.dng")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_restored_electrons_come_back_to_quantisation(tmp_path, dtype):
    rng = np.random.default_rng(2)
    data = rng.normal(40, 30, (48, 54)).astype(dtype)
    data[5, 5] = 5000.5
    assert data.min() < 0
    frame = mosaic_frame(noise=Noise(1.0, 9.0, 0.0)).replace(data=data, unit=Unit.ELECTRON)
    path = io.write(frame, tmp_path / "e.dng")
    back = io.read(path)
    step = (data.max() - data.min()) / 65534 * 2  # the scale is a power of two
    assert np.abs(back.data - data).max() <= step / 2
    assert (back.data.dtype, back.unit) == (np.dtype(dtype), Unit.ELECTRON)
    other = io.read(foreign(path))  # another program sees no light at the black level
    dark = np.abs(data) < 0.05
    assert np.abs(other.data[dark].astype(float) - other.observation.offset).max() < 0.05 / step * 2 + 1
    assert other.data.max() <= other.observation.saturation
    assert not list(tmp_path.glob("*.spool"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), low=st.floats(-1e5, 1e5), span=st.floats(0, 1e6))
def test_any_real_mosaic_comes_back_to_quantisation(tmp_path_factory, seed, low, span):
    data = low + span * np.random.default_rng(seed).random((22, 24))
    frame = mosaic_frame(noise=Noise(1.0, 9.0, 0.0), observation=Observation()).replace(data=data, unit=Unit.ELECTRON)
    path = io.write(frame, tmp_path_factory.mktemp("dng") / "e.dng")
    back = io.read(path)
    reach = max(data.max(), 0) - min(data.min(), 0)
    assert np.abs(back.data - data).max() <= max(0.5 if reach == 0 else 0, 1.001 * reach / 65534) + 2**-33
    other = io.read(foreign(path)).observation
    assert 0 <= other.offset < other.saturation <= 65535


def test_odd_names_and_long_exposures(tmp_path):
    odd = replace(
        OBSERVATION, instrument="Caméra №1", exposure=98765.4321, white_balance=(0.0, 1.0, 2.0), color_matrix=((1.0,),)
    )
    path = io.write(mosaic_frame(observation=odd), tmp_path / "a.dng")
    assert io.read(path).observation.instrument == "Caméra №1"
    other = io.read(foreign(path)).observation
    assert other.exposure == pytest.approx(98765.4321)
    assert other.white_balance == (1, 1, 1)


def test_fractional_adu_keep_black_and_white_level(tmp_path):
    data = np.random.default_rng(3).uniform(500, 15000, (30, 30)).astype(np.float32)
    path = io.write(mosaic_frame().replace(data=data), tmp_path / "f.dng")
    back = io.read(path)
    assert np.abs(back.data - data).max() <= 1 / 8  # 16000 ADU leave room for a scale of 4
    assert np.array_equal(back.observation.offset, BLACK)
    assert io.stated(back) == {}  # not the black level of the stored numbers
    other = io.read(foreign(path))
    assert np.allclose(other.observation.offset, 4 * BLACK)
    assert other.observation.saturation == 4 * 16000


def test_blocks_in_any_order(tmp_path):
    frame = mosaic_frame()
    with io.create(tmp_path / "a.dng", frame) as out:
        for box in reversed(list(io.blocks(frame.shape, 2, 300))):
            out.put(box, frame.data[box.slices])
    assert np.array_equal(io.read(tmp_path / "a.dng").data, frame.data)


@pytest.mark.parametrize("value", [0.5, -1, 65536, np.nan])
def test_blocks_that_uint16_would_change_are_refused(tmp_path, value):
    block = np.full((40, 60), 7.0)
    block[3, 4] = value

    def put():
        with io.create(tmp_path / "a.dng", mosaic_frame()) as out:
            out.put(Box.whole((40, 60)), block)

    with pytest.raises(WriteError, match="float32"):
        put()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frame", "name", "match"),
    [
        (mosaic_frame(geometry=None), "a.dng", "mosaic"),
        (mosaic_frame(shape=(20, 40)), "a.dng", "22 px"),
        (mosaic_frame(geometry=Mosaic(BAYER, colors="RGE")), "a.dng", "'E'"),
        (mosaic_frame(), "a.arw", "cannot be written"),
        (mosaic_frame().replace(data=np.full((30, 30), np.nan, np.float32)), "a.dng", "NaN"),
    ],
)
def test_what_a_dng_cannot_hold_is_refused_and_leaves_nothing(tmp_path, frame, name, match):
    with pytest.raises(WriteError, match=match):
        io.write(frame, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_output_leaves_nothing(tmp_path):
    def fail():
        with io.create(tmp_path / "a.dng", mosaic_frame(), dtype=np.float32, std=True):
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_truncated_files_are_refused(tmp_path):
    path = io.write(mosaic_frame(), tmp_path / "a.dng")
    whole = path.read_bytes()
    for keep in (200, 2000, len(whole) // 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(ReadError, match=r"a\.dng"):
            io.read(path)


@pytest.mark.parametrize("name", ["a.arw", "a.raf", "a.cr3", "a.dng"])
def test_what_is_no_raw_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no raw file at all " * 50)
    with pytest.raises(ReadError, match=name):
        io.read(tmp_path / name)


def test_a_plain_tiff_named_dng_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.dng", np.zeros((40, 40), np.uint16))
    with pytest.raises(ReadError, match="names no camera"):
        io.read(tmp_path / "a.dng")


def test_an_ext_of_a_single_image_is_refused(tmp_path):
    path = io.write(mosaic_frame(), tmp_path / "a.dng")
    with pytest.raises(ReadError, match="one image"):
        io.read(path, "SCI")


def linear_dng(path, dtype):
    data = np.random.default_rng(4).integers(0, 16000, (40, 60, 3)).astype(dtype)
    tags = [
        (271, 2, 0, "X", True),
        (272, 2, 0, "Y", True),
        (50706, 1, 4, (1, 4, 0, 0), True),
        (50714, 3, 3, (64, 64, 64), True),
        (50717, 4, 3, (16383,) * 3, True),
    ]
    tifffile.imwrite(path, data, photometric=34892, planarconfig=1, extratags=tags, metadata=None)
    return data


def test_a_linear_dng_is_three_correlated_planes(tmp_path):
    data = linear_dng(tmp_path / "l.dng", np.uint16)
    frame = io.read(tmp_path / "l.dng")
    assert frame.axes == "CYX"
    assert np.array_equal(frame.data, np.moveaxis(data, -1, 0))
    assert frame.geometry is None
    assert "correlated" in frame.noise.reason
    assert frame.observation.offset == 64


def test_a_floating_point_dng_is_refused(tmp_path):
    linear_dng(tmp_path / "l.dng", np.float32)
    with pytest.raises(ReadError, match="floating-point"):
        io.read(tmp_path / "l.dng")


def decoded(black, floor):
    data = np.full((60, 60), floor, np.uint16)
    return raw._Decoded(data, np.array(XTRANS), "RGBG", (black,) * 4, (16383.0,) * 4, (1,) * 4, np.eye(4, 3), 0, None, None)


def test_an_xtrans_black_level_reported_twice_is_halved_with_a_doubt():
    level, doubts = raw._offset(decoded(2046.0, 1015), {})
    assert level == 1023
    assert "halved" in doubts[0]
    assert raw._offset(decoded(1023.0, 1015), {}) == (1023.0, ())
    assert raw._offset(decoded(2046.0, 1015), {"FujiBlackLevel": (1024,) * 36}) == (1024.0, ())


def exif_block(tmp_path):
    path = tmp_path / "exif.tif"
    tags = [(271, 2, 0, "FUJIFILM", True), (272, 2, 0, "X-T30", True), (33434, 5, 1, (1, 250), True), (34855, 3, 1, 800, True)]
    tifffile.imwrite(path, np.zeros((1, 1), np.uint8), extratags=tags, metadata=None)
    return path.read_bytes()


def test_exif_and_black_level_inside_a_raf(tmp_path):
    jpeg = b"\xff\xd8\xff\xe1\0\0Exif\0\0" + exif_block(tmp_path)
    levels = struct.pack("<36I", *range(1000, 1036))
    fuji = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIII", 1, 0xF000, 13, 1, 26, 0)
    fuji += struct.pack("<HHHIII", 1, 0xF00A, 4, 36, 44, 0) + levels
    head = bytearray(108)
    head[:15] = b"FUJIFILMCCD-RAW"
    struct.pack_into(">IIIIII", head, 84, 108, len(jpeg), 0, 0, 108 + len(jpeg), len(fuji))
    path = tmp_path / "a.raf"
    path.write_bytes(bytes(head) + jpeg + fuji)
    tags = exif.tags(path)
    assert (tags["Model"], tags["ISOSpeedRatings"]) == ("X-T30", 800)
    assert exif.number(tags["ExposureTime"]) == 1 / 250
    assert np.array_equal(exif.black(tags), np.arange(1000, 1036).reshape(6, 6))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ReadError, match="truncated"):
        exif.tags(path)


def test_exif_inside_a_cr3(tmp_path):
    def box(kind, content):
        return struct.pack(">I", 8 + len(content)) + kind + content

    path = tmp_path / "a.cr3"
    path.write_bytes(box(b"ftyp", b"crx 0000") + box(b"moov", box(b"CMT1", exif_block(tmp_path))) + box(b"mdat", b"\0" * 99))
    assert exif.tags(path)["Model"] == "X-T30"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ReadError, match="truncated"):
        exif.tags(path)


@pytest.fixture(scope="module")
def sony(data):
    return io.read(data / SONY)


def test_sony_arw(sony):
    assert sony.shape == (3464, 5184)
    assert (sony.data.dtype, sony.unit, sony.axes) == (np.uint16, Unit.ADU, "YX")
    assert sony.geometry == Mosaic(((0, 1), (1, 2)))
    assert (sony.data.min(), sony.data.max()) == (262, 16628)
    obs = sony.observation
    assert (obs.instrument, obs.setting, obs.exposure, obs.time) == ("ILCE-7RM3", "ISO 3200", 1 / 640, "2018-07-11T01:18:47")
    assert (obs.offset, obs.saturation, obs.orientation) == (512, 15360, 1)
    assert obs.white_balance == (2528 / 1024, 1, 1564 / 1024)
    assert np.allclose(obs.color_matrix[0], (0.664, -0.1847, -0.0503))
    assert sony.noise == Unmodelled("no gain: pass a detector")


def test_sony_arw_as_dng(sony, tmp_path):
    path = io.write(sony, tmp_path / "sony.dng")
    with rawpy.imread(str(path)) as r:
        assert np.array_equal(r.raw_image_visible, sony.data)
        assert r.raw_pattern.tolist() == [[0, 1], [3, 2]]
        assert r.other.iso_speed == 3200


def test_a_truncated_arw_is_refused(data, tmp_path):
    whole = (data / SONY).read_bytes()
    (tmp_path / "t.arw").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="truncated"):
        io.read(tmp_path / "t.arw")


@pytest.mark.skipif("FIRSTLIGHT_RAF" not in os.environ, reason="FIRSTLIGHT_RAF names no X-Trans RAF")
def test_a_real_xtrans_raf():
    frame = io.read(Path(os.environ["FIRSTLIGHT_RAF"]))
    assert sorted(np.bincount(np.ravel(frame.geometry.cell())).tolist()) == [8, 8, 20]
    assert np.max(frame.observation.offset) < 1.05 * np.median(np.sort(frame.data, axis=None)[:1000])


def test_of_a_truncated_dng_one_line_is_said(tmp_path, caplog) -> None:
    """EXIF lies behind the image: tifffile logs that its directory is not there."""
    codes = np.arange(96 * 96, dtype=np.uint16).reshape(96, 96)
    seen = Observation(offset=0.0, saturation=16000.0, white_balance=(2.0, 1.0, 1.5))
    frame = Frame(codes, "YX", Unit.ADU, Unmodelled("none"), geometry=Mosaic(((0, 1), (1, 2))), observation=seen)
    io.write(frame, tmp_path / "a.dng")
    (tmp_path / "cut.dng").write_bytes((tmp_path / "a.dng").read_bytes()[:9000])
    with pytest.raises(ReadError, match="truncated"):
        io.read(tmp_path / "cut.dng")
    assert not caplog.records
