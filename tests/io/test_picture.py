"""Pictures: PNG and JPEG against OpenCV, which writes the inputs; their claims, their alpha, and when they are counts."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from firstlight import io
from firstlight.box import Box
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.io.picture import Alpha
from firstlight.noise import Noise, Unmodelled


def codes(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def display(data: np.ndarray, axes: str = "YX") -> Frame:
    return Frame(data, axes, Unit.DISPLAY, Unmodelled("display-referred"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_as_opencv_writes_it(dtype: str, channels: int, tmp_path: Path) -> None:
    pixels = codes((7, 9, channels), dtype)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    frame = io.read(tmp_path / "a.png")
    assert (frame.unit, frame.data.dtype, frame.axes) == (Unit.DISPLAY, np.dtype(dtype), "YX" if channels == 1 else "CYX")
    want = pixels[..., 0] if channels == 1 else np.moveaxis(pixels[..., 2::-1], 2, 0)  # OpenCV stores BGR
    np.testing.assert_array_equal(frame.data, want)
    assert isinstance(frame.noise, Unmodelled)
    assert "display-referred" in frame.noise.reason


def test_jpeg_as_opencv_reads_it(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(codes((40, 50, 3)), (0, 0), 4)
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), smooth, [cv2.IMWRITE_JPEG_QUALITY, 98])
    frame = io.read(path)
    want = np.moveaxis(cv2.imread(str(path))[..., ::-1], 2, 0)
    assert frame.axes == "CYX"
    assert np.max(np.abs(frame.data.astype(int) - want)) <= 2  # two decoders
    cv2.imwrite(str(path), smooth[..., 0])
    assert io.read(path).axes == "YX"


def test_alpha_flags_what_is_invisible_and_is_written_again(tmp_path: Path) -> None:
    pixels = codes((7, 9, 4))
    pixels[..., 3] = 255
    pixels[2, 3, 3], pixels[2, 4, 3] = 0, 100
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    frame = io.read(tmp_path / "a.png")
    assert np.argwhere(frame.flags == Flag.NO_DATA).tolist() == [[2, 3]]
    out = io.write(frame, tmp_path / "b.png")
    np.testing.assert_array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED), pixels)
    deep = io.write(frame.replace(data=frame.data.astype(np.uint16) * 257), tmp_path / "c.png")
    assert cv2.imread(str(deep), cv2.IMREAD_UNCHANGED)[2, 4, 3] == 100 * 257


def test_floating_display_values_become_16_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 63).reshape(7, 9)
    got = io.read(io.write(display(values), tmp_path / "a.png"))
    np.testing.assert_array_equal(got.data, np.rint(values * 65535).astype(np.uint16))


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan])
def test_nothing_is_clipped(wrong: float, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 63).reshape(7, 9)
    values[3, 3] = wrong
    with pytest.raises(WriteError, match=r"expected 0\.\.1"):
        io.write(display(values), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_what_a_picture_does_not_hold(tmp_path: Path) -> None:
    counts = Frame(np.ones((4, 4), np.float32), "YX", Unit.ELECTRON, Noise(1.0, 9.0))
    with pytest.raises(WriteError, match=r"write \.tif, \.fits or \.npy"):
        io.write(counts, tmp_path / "a.png")
    with pytest.raises(WriteError, match="CYX"):
        io.write(display(codes((2, 4, 4)), "TYX"), tmp_path / "a.png")
    with pytest.raises(WriteError, match="8 bits, not 16"):
        io.write(display(codes((4, 4)).astype(np.uint16)), tmp_path / "a.jpg")
    clear = display(codes((4, 4)).astype(np.uint8))
    clear = clear.replace(observation=Observation(header=Alpha(np.full((4, 4), 9, np.uint8))))
    with pytest.raises(WriteError, match="no opacity"):
        io.write(clear, tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("shape", [(40, 56), (3, 40, 56)])
def test_jpeg_is_written_with_a_warning_and_read_by_opencv(shape: tuple[int, ...], real: bool, tmp_path: Path) -> None:
    y, x = np.mgrid[0:40, 0:56]
    smooth = np.broadcast_to(np.rint(100 + 2 * y + x / 2), shape).astype(np.uint8).copy()
    smooth[..., 10:20, 10:20] //= 2
    path, axes = tmp_path / "a.jpg", "YX" if len(shape) == 2 else "CYX"
    with pytest.warns(UserWarning, match="JPEG loses detail"):
        io.write(display(smooth / 255 if real else smooth, axes), path)
    seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert seen.shape == (40, 56, *shape[:-2])
    assert seen.dtype == np.uint8
    plane = seen if seen.ndim == 2 else np.moveaxis(seen[..., ::-1], 2, 0)
    assert np.abs(plane.astype(int) - smooth).mean() < 1.5
    assert io.read(path).axes == axes


def claims(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10**6, 10**6), (20000, 20000), (0, 5)])
def test_a_png_that_claims_too_much(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(claims(width, height, bytes(100)))
    with pytest.raises(ReadError, match=f"{width} x {height}"):
        io.read(path)


def test_a_jpeg_that_claims_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), codes((16, 16)))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"\xff\xc0")
    raw[at + 5 : at + 9] = struct.pack(">HH", 65535, 65535)
    path.write_bytes(raw)
    with pytest.raises(ReadError, match="65535 x 65535"):
        io.read(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_cut_jpeg(part: float, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), codes((64, 64, 3)))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(ReadError, match="truncated"):
        io.read(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation(order: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), codes((8, 8)))
    raw = path.read_bytes()
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    path.write_bytes(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:])
    assert io.read(path).observation.orientation == 6
    path.write_bytes(raw)
    assert io.read(path).observation.orientation == 1


def test_raw_counts_on_the_users_word(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), codes((7, 9), "uint16"))
    frame = io.read(tmp_path / "a.png")
    counts = io.assume(frame, unit="adu")
    assert counts.unit == Unit.ADU
    assert counts.data is frame.data
    assert isinstance(counts.noise, Unmodelled)
    assert "detector" in counts.noise.reason
    assert (counts.history[-1].step, counts.history[-1].params) == ("io.assume", {"unit": "adu"})
    assert (frame.unit, frame.history) == (Unit.DISPLAY, ())
    assert io.assume(counts, unit="adu") is counts
    with pytest.raises(FrameError, match="expected one of"):
        io.assume(frame, unit="photons")
    with pytest.raises(FrameError, match="fractions of white"):
        io.assume(display(np.zeros((4, 4))), unit="adu")


def test_blocks_do_not_reach_the_file_before_the_end(tmp_path: Path) -> None:
    frame = display(codes((8, 8)))
    out = io.create(tmp_path / "a.png", frame)
    out.put(Box((0, 0), (4, 8)), frame.data[:4])
    assert not (tmp_path / "a.png").exists()
    out.abort()
    assert not list(tmp_path.iterdir())


# --- observations ------------------------------------------------------------------------------------------------------------


def test_emva_images_are_12_bits(data: Path) -> None:
    path = data / "detector" / "emva1288_ccd" / "images" / "b_000_snap_001.png"
    if not path.exists():
        pytest.skip("the EMVA set is absent")
    frame = io.read(path)
    assert (frame.unit, frame.data.dtype, frame.shape) == (Unit.DISPLAY, np.uint16, (480, 640))
    assert np.max(frame.data) < 4096


def test_sky_pictures(data: Path) -> None:
    files = sorted((data / "astronomy" / "rgb").glob("*.*g"))
    if not files:
        pytest.skip("the pictures are absent")
    for path in files:
        frame = io.read(path)
        assert (frame.axes, frame.unit, frame.data.dtype) == ("CYX", Unit.DISPLAY, np.uint8)
