"""Exposure by the file's tags; pixels turned upright."""

import struct

import cv2
import numpy as np
import pytest

from firstlight import Flag, Frame, Mosaic, Observation, Unit, Unmodelled
from firstlight.develop.exposure import dynamic_range, expose, stops, upright
from firstlight.errors import FrameError
from firstlight.geometry import BAYER
from firstlight.io.raw import Header


def note(**shorts):
    """A Fujifilm maker note: name, offset 12, a little-endian directory of SHORTs."""
    codes = {"setting": 0x1402, "chosen": 0x1403, "automatic": 0x140B, "version": 0x1000}
    entries = [struct.pack("<HHIHH", codes[k], 3, 1, v, 0) for k, v in shorts.items()]
    return b"FUJIFILM" + struct.pack("<I", 12) + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def colours(tags=None, **changes):
    seen = Observation(saturation=2.0, header=None if tags is None else Header(tags))
    data = np.full((3, 4, 6), 0.254, np.float32)
    return Frame(data, "CYX", Unit.REC2020, Unmodelled("x"), observation=seen).replace(**changes)


@pytest.mark.parametrize(
    ("found", "percent"),
    [
        (note(setting=1, chosen=200), 200),
        (note(version=7, setting=1, chosen=400), 400),
        (note(setting=0, chosen=100, automatic=200), 200),
        (note(setting=0x201), 400),
        (note(setting=0x100), 100),
        (note(version=7), None),
        (b"Nikon\0 and more bytes", None),
        (b"FUJIFILM" + struct.pack("<I", 1 << 30) + bytes(9), None),
        (note(setting=1, chosen=200)[:30], None),
    ],
)
def test_fujifilms_dynamic_range(found, percent):
    """Tags as ExifTool documents them: DynamicRangeSetting, DevelopmentDynamicRange, AutoDynamicRange."""
    assert dynamic_range(found) == percent


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [(None, 0), ({}, 0), ({"BaselineExposure": (0.5,)}, 0.5), ({"MakerNote": note(setting=1, chosen=200)}, 1),
     ({"MakerNote": note(setting=1, chosen=400)}, 2), ({"MakerNote": note(setting=1, chosen=100)}, 0)],
)  # fmt: skip
def test_a_file_that_was_exposed_for_less_is_rendered_brighter(tags, wanted):
    """12.7 % of saturation is 18 % grey: x2 for DR200, x4 for DR400; the data of the file stay as they are."""
    frame = colours(tags)
    assert stops(frame) == wanted
    out = expose(frame)
    assert np.abs(out.data - 0.18 * 2**wanted).max() < 1e-6
    assert frame.data.max() == np.float32(0.254)
    assert out.observation.saturation == pytest.approx(0.18 / 0.127 * 2**wanted)


def test_what_is_given_goes_before_what_the_file_says():
    frame = colours({"BaselineExposure": (3.0,)})
    assert expose(frame, white=0.5).data[0, 0, 0] == pytest.approx(0.254)
    assert expose(frame, white=0.5, ev=1.0).data[0, 0, 0] == pytest.approx(0.508)
    assert expose(frame, white=0.5, saturation=4.0).data[0, 0, 0] == pytest.approx(0.127)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_turn_as_a_jpeg_reader_turns_them(orientation):
    """OpenCV turns a JPEG by its EXIF orientation: the same picture must come out."""
    block = np.kron(np.array([[20, 80, 140], [60, 200, 250]]), np.ones((16, 16))).astype(np.uint8)
    code = cv2.imencode(".jpg", block, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    whole = code[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + code[2:]
    wanted = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_GRAYSCALE)
    seen = Observation(orientation=orientation)
    frame = Frame(block, "YX", Unit.DISPLAY, Unmodelled("x"), flags=(block > 100).astype(np.uint8), observation=seen)
    out = upright(frame)
    assert out.data.shape == wanted.shape
    assert np.abs(out.data.astype(int) - wanted).max() < 5
    assert np.array_equal(out.flags, out.data > 100)
    assert out.observation.orientation == 1
    assert np.array_equal(upright(out).data, out.data)  # once


def test_refusals():
    with pytest.raises(FrameError, match="saturation level is unknown"):
        expose(colours(observation=Observation()))
    for params in ({"white": 0.0}, {"ev": np.inf}, {"saturation": -1.0}):
        with pytest.raises(FrameError, match="positive levels"):
            expose(colours(), **params)
    turned = Frame(np.zeros((4, 4)), "YX", Unit.ADU, Unmodelled("x"), geometry=Mosaic(BAYER))
    with pytest.raises(FrameError, match="orientation 6"):
        upright(turned.replace(observation=Observation(orientation=6), flags=np.full((4, 4), int(Flag.HOT))))
