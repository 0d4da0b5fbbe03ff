"""LinearRaw DNG: LibRaw reads it back exactly and shows its colours as they are."""

from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile

from firstlight import io
from firstlight.errors import WriteError
from firstlight.frame import Frame, Observation, Record, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.io import icc
from firstlight.noise import Unmodelled

PATCHES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0.2, 0.5, 0.3]]).T  # linear sRGB


def linear(data: np.ndarray, unit: Unit = Unit.REC2020, **about: object) -> Frame:
    return Frame(data, "CYX", unit, Unmodelled("x"), observation=Observation(**about), history=(Record("develop.develop"),))


@pytest.mark.parametrize("shape", [(22, 22), (65, 67), (24, 301)])
def test_libraw_reads_sixteen_bits_exactly(shape: tuple[int, int], tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 65536, (3, *shape)).astype(np.uint16)
    path = io.write(linear(codes, Unit.CAMERA), tmp_path / "a.dng")
    with rawpy.imread(str(path)) as raw:
        assert np.array_equal(np.moveaxis(raw.raw_image_visible[..., :3], 2, 0), codes)
        assert (raw.white_level, raw.black_level_per_channel[:3]) == (65535, [0, 0, 0])
    got = io.read(path)
    assert got.data.dtype == np.uint16
    assert np.array_equal(got.data, codes)
    assert [r.step for r in got.history] == ["develop.develop"]


@pytest.mark.parametrize("pattern", [BAYER, XTRANS], ids=["Bayer", "X-Trans"])
@pytest.mark.parametrize("phase", [(0, 0), (1, 0), (1, 1)])
def test_libraw_reads_mosaics_exactly_with_their_colours(pattern: tuple, phase: tuple[int, int], tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(0, 65536, (63, 65)).astype(np.uint16)
    mosaic = Mosaic(pattern, phase)
    path = io.write(Frame(codes, "YX", Unit.ADU, Unmodelled("x"), geometry=mosaic), tmp_path / "a.dng")
    with rawpy.imread(str(path)) as raw:
        assert np.array_equal(raw.raw_image_visible, codes)
        colours = np.array(["RGBG".index(raw.color_desc.decode()[i]) for i in range(4)])[raw.raw_colors_visible]
        assert np.array_equal(colours, mosaic.at(codes.shape))


def test_linear_rec2020_is_shown_as_the_colours_that_it_is(tmp_path: Path) -> None:
    """Patches of sRGB, written in Rec.2020 with a highlight at 4: LibRaw's linear sRGB is the patches over the white level."""
    data = np.empty((3, 40, 100), dtype=np.float32)
    for i, rgb in enumerate(PATCHES.T):
        data[:, :, 20 * i : 20 * i + 20] = (np.linalg.solve(icc.to_xyz("rec2020"), icc.to_xyz("srgb")) @ rgb)[:, None, None]
    data[:, :2, :2] = 4
    path = io.write(linear(data), tmp_path / "a.dng")
    with rawpy.imread(str(path)) as raw:
        flat = {"gamma": (1, 1), "no_auto_bright": True, "output_bps": 16, "use_camera_wb": True, "user_flip": 0}
        shown = raw.postprocess(**flat)[20, 10::20].astype(float) / 65535
    assert np.abs(shown.T * 4 - PATCHES).max() < 1e-3
    with tifffile.TiffFile(path) as tiff:
        n, d = tiff.pages[0].tags[50730].value
        assert tiff.pages[0].photometric == 34892
    assert n / d == pytest.approx(2, abs=1e-3)  # log2(4) EV bring 1 back to white


@pytest.mark.parametrize("top", [0.5, 3.0, 40.0])
def test_negatives_and_highlights_return_to_half_a_step(top: float, tmp_path: Path) -> None:
    data = np.random.default_rng(2).uniform(-0.2, top, (3, 30, 31)).astype(np.float32)
    got = io.read(io.write(linear(data), tmp_path / "a.dng"))
    assert got.unit is Unit.REC2020
    assert got.data.dtype == np.float32
    assert np.abs(got.data - data).max() <= (top + 0.2) / 32768 / 2 * 1.001  # scale is a power of two: 15 bits or more


def test_exposure_stands_in_the_exif(tmp_path: Path) -> None:
    frame = linear(
        np.ones((3, 30, 31), np.float32), instrument="X", setting="ISO 800", exposure=0.01, time="2018-07-11T01:18:47"
    )
    with tifffile.TiffFile(io.write(frame, tmp_path / "a.dng")) as tiff:
        exif = tiff.pages[0].tags[34665].value
    assert exif["ExposureTime"] == (1, 100)
    assert (exif["ISOSpeedRatings"], exif["DateTimeOriginal"]) == (800, "2018:07:11 01:18:47")


@pytest.mark.parametrize(
    ("shape", "unit", "words"),
    [
        ((3, 30, 30), Unit.DISPLAY, "display codes"),
        ((4, 30, 30), Unit.CAMERA, "linear R, G, B"),
        ((3, 21, 30), Unit.CAMERA, "22 px"),
    ],
)
def test_what_a_dng_cannot_hold(shape: tuple[int, ...], unit: Unit, words: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=words):
        io.write(linear(np.zeros(shape, np.uint16), unit), tmp_path / "a.dng")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, **more: object) -> None:
        path.write_bytes(b"as much as there was room for")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(WriteError, match="No space left"):
        io.write(linear(np.zeros((3, 24, 24), np.float32)), tmp_path / "a.dng")
    assert not list(tmp_path.iterdir())
