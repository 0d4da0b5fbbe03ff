"""Plain arrays: axes by count, mapped, and refused where they are no images."""

from pathlib import Path

import numpy as np
import pytest

from firstlight import io
from firstlight.errors import ReadError
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise, Unmodelled


@pytest.mark.parametrize(("ndim", "axes"), [(2, "YX"), (3, "CYX"), (4, "CZYX"), (5, "TCZYX")])
def test_axes_by_count(ndim: int, axes: str, tmp_path: Path) -> None:
    data = np.arange(2**ndim, dtype=np.int16).reshape((2,) * ndim)
    np.save(tmp_path / "a.npy", data)
    frame = io.read(tmp_path / "a.npy")
    assert (frame.axes, frame.unit) == (axes, Unit.ARBITRARY)
    assert isinstance(frame.noise, Unmodelled)
    assert isinstance(frame.data, np.memmap)
    np.testing.assert_array_equal(frame.data, data)


@pytest.mark.parametrize(
    "array", [np.zeros(4), np.zeros((2,) * 6), np.zeros((3, 3), complex), np.array([["a", "b"]]), np.array([[{}]])]
)
def test_no_image(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ReadError, match=r"a\.npy"):
        io.read(tmp_path / "a.npy")


def test_a_claim_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((10, 10)))
    path.write_bytes(path.read_bytes().replace(b"(10, 10), }      ", b"(1000000, 99999),"[:17]))
    with pytest.raises(ReadError, match=r"a\.npy"):
        io.read(path)


def test_a_companion_of_another_program_is_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    (tmp_path / "a.npy.json").write_text('{"title": "mine"}')
    assert io.read(tmp_path / "a.npy").unit == Unit.ARBITRARY


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    frame = Frame(np.zeros((3, 4)), "YX", Unit.ADU, Noise(1.0, 1.0), flags=np.ones((3, 4), np.uint8))
    io.write(frame, tmp_path / "a.npy")
    (tmp_path / "a.npy.flags.npy").unlink()
    with pytest.raises(ReadError, match="flags"):
        io.read(tmp_path / "a.npy")
