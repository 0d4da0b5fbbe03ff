"""JPEG XL masters: what the codestream itself says of its colours, bit by bit (ISO/IEC 18181-1), and exact numbers."""

from pathlib import Path

import numpy as np
from imagecodecs import jpegxl_decode

from firstlight import io
from firstlight.frame import Frame, Unit
from firstlight.io import icc
from firstlight.io.isobmff import children, inside
from firstlight.io.rendered import TARGETS, Rendered, write_rendered
from firstlight.noise import Unmodelled

LINEAR = TARGETS["jxl"].kinds[0]
U6, U9 = ((0, 0), (1, 0), (2, 4), (18, 6)), ((1, 9), (1, 13), (1, 18), (1, 30))


def written(folder: Path, data: np.ndarray) -> Path:
    frame = Frame(data.astype(np.float32), "CYX", Unit.REC2020, Unmodelled("x"))
    return write_rendered(Rendered(frame, LINEAR), folder / "a.jxl", to="jxl")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.at = int.from_bytes(data, "little"), 0

    def take(self, n: int) -> int:
        found = self.value >> self.at & ((1 << n) - 1)
        self.at += n
        return found

    def pick(self, choices: tuple[tuple[int, int], ...]) -> int:
        base, more = choices[self.take(2)]
        return base + self.take(more)


def header(stream: bytes) -> dict[str, object]:
    """The image header up to the transfer function; asserts on the paths that our files do not take."""
    bits, found = _Bits(stream[2:200]), {}
    small = bits.take(1)
    found["height"] = 8 * (bits.take(5) + 1) if small else bits.pick(U9)
    assert bits.take(3) == 0  # no ratio: the width follows
    found["width"] = 8 * (bits.take(5) + 1) if small else bits.pick(U9)
    assert bits.take(1) == 0  # metadata are not all the default
    found["orientation"] = bits.take(3) + 1 if bits.take(1) else 1
    found["float"] = bits.take(1)
    found["bits"] = bits.pick(((32, 0), (16, 0), (24, 0), (1, 6)))
    found["exponent"] = bits.take(4) + 1
    bits.take(1)
    assert bits.pick(((0, 0), (1, 0), (2, 4), (1, 12))) == 0  # no extra channels
    found["xyb"] = bits.take(1)
    assert bits.take(1) == 0  # colours are not all the default (which is sRGB with its curve)
    assert bits.take(1) == 0  # no ICC profile
    found["space"], found["white"], found["primaries"] = (bits.pick(U6) for _ in range(3))
    assert bits.take(1) == 0  # no gamma
    found["transfer"] = bits.pick(U6)
    return found


def test_the_codestream_says_linear_srgb_float32(tmp_path: Path) -> None:
    """space 0 RGB, white point 1 D65, primaries 1 sRGB, transfer 8 linear; 32 bits with 8 of exponent; not XYB: lossless."""
    stream = inside(written(tmp_path, np.random.default_rng(1).random((3, 37, 51))).read_bytes(), b"jxlc")
    said = header(stream)
    assert stream[:2] == b"\xff\n"
    assert said == {
        "height": 37, "width": 51, "orientation": 1, "float": 1, "bits": 32, "exponent": 8, "xyb": 0,
        "space": 0, "white": 1, "primaries": 1, "transfer": 8,
    }  # fmt: skip


def test_numbers_are_linear_srgb_negatives_and_highlights_included(tmp_path: Path) -> None:
    data = np.random.default_rng(2).normal(0.5, 1.0, (3, 33, 70))
    got = np.moveaxis(jpegxl_decode(written(tmp_path, data).read_bytes()), 2, 0)
    turn = np.linalg.inv(icc.to_xyz("srgb")) @ icc.to_xyz("rec2020")
    want = np.einsum("ij,jyx->iyx", turn, data.astype(np.float32).astype(np.float64)).astype(np.float32)
    assert want.min() < -1
    assert want.max() > 2
    assert np.array_equal(got, want)


def test_read_gives_rec2020_again(tmp_path: Path) -> None:
    data = np.random.default_rng(3).normal(0.5, 1.0, (3, 300, 20)).astype(np.float32)
    got = io.read(written(tmp_path, data))
    assert got.unit is Unit.REC2020
    assert np.abs(got.data - data).max() < 2e-6


def test_exif_stands_in_its_box(tmp_path: Path) -> None:
    file = written(tmp_path, np.zeros((3, 9, 9))).read_bytes()
    kinds = [k for k, _ in children(file)]
    assert kinds[:2] == [b"JXL ", b"ftyp"]
    assert {b"jxlc", b"Exif"} <= set(kinds)
    assert inside(file, b"Exif")[:8] == bytes(4) + b"II*\0"
