"""EMVA 1288 descriptor files: what they say, and what is wrong with bad ones."""

import numpy as np
import pytest

from firstlight import Unit
from firstlight.calibrate.emva import emva_descriptor
from firstlight.errors import ReadError

GOOD = """# comment
v 3.0
n 12 4 3
b 40000.0 120.0
i images\\a.png
i images/b.png

d 40000
i images/c d#1.png
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "c d#1.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    return tmp_path


def written(folder, text):
    (folder / "set.txt").write_text(text)
    return folder / "set.txt"


def test_a_descriptor_says_what_each_image_is(folder):
    d = emva_descriptor(written(folder, GOOD))
    assert (d.version, d.bits, d.width, d.height) == ("3.0", 12, 4, 3)
    assert [(v.exposure, v.photons, v.dark) for v in d.levels] == [(40000, 120, False), (40000, None, True)]
    assert [p.relative_to(folder).as_posix() for v in d.levels for p in v.images] == [
        "images/a.png",
        "images/b.png",
        "images/c d#1.png",
    ]


def test_windows_line_ends_and_a_byte_order_mark_are_read(folder):
    path = folder / "set.txt"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert len(emva_descriptor(path).levels) == 2


def test_load_gives_raw_frames_with_exposure_and_last_code(folder):
    flats, darks, photons = emva_descriptor(written(folder, GOOD)).load(lambda path: np.zeros((3, 4), dtype=np.uint16))
    assert (len(flats), len(darks), photons) == (2, 1, [120, 120])
    assert flats[0].unit is Unit.ADU
    assert flats[0].observation.exposure == pytest.approx(40e-6)
    assert flats[0].observation.saturation == 4095


@pytest.mark.parametrize(
    ("image", "says"), [(np.zeros((4, 3)), "shape"), (np.full((3, 4), 4096), "12 bits"), (np.zeros((3, 4, 3)), "shape")]
)
def test_images_that_contradict_the_descriptor_are_refused(folder, image, says):
    with pytest.raises(ReadError, match=says):
        emva_descriptor(written(folder, GOOD)).load(lambda path: image)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "n bits width height"),
        ("v 3.0\nn 12 640\n", "line 2.*3 numbers"),
        ("n 12 640 x\n", "3 numbers"),
        ("n 99 640 480\nb 1 2\ni images/a.png\n", "1 to 32 bits"),
        ("n 12 4 3\nb 40000\n", "exposure photons"),
        ("n 12 4 3\nb -1 5\n", "2 numbers"),
        ("n 12 4 3\nb nan 5\n", "2 numbers"),
        ("n 12 4 3\nd\n", "1 numbers"),
        ("n 12 4 3\ni images/a.png\n", "before any b or d"),
        ("n 12 4 3\nb 1 2\ni\n", "without a name"),
        ("n 12 4 3\nb 1 2\ni images/gone.png\n", "does not exist"),
        ("n 12 4 3\nb 1 2\n", "without images"),
        ("n 12 4 3\nd 1\ni images/a.png\n", "bright levels"),
        ("hello world\n", "line 1: unknown line"),
    ],
)
def test_malformed_descriptors_are_refused_with_line_and_cause(folder, text, says):
    with pytest.raises(ReadError, match=says):
        emva_descriptor(written(folder, text))


def test_what_is_no_text_file_is_refused(tmp_path):
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff\xfe\x00")
    for path in (tmp_path / "picture.txt", tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ReadError, match="not readable"):
            emva_descriptor(path)


def test_the_reference_descriptor(data):
    path = data / "detector" / "emva1288_ccd" / "EMVA1288_Data_subset.txt"
    if not path.exists():
        pytest.skip("the EMVA 1288 set is absent")
    d = emva_descriptor(path)
    assert (d.bits, d.width, d.height) == (12, 640, 480)
    assert sum(len(v.images) for v in d.levels if not v.dark) == 46
    assert sum(len(v.images) for v in d.levels if v.dark) == 46
