"""UltraHDR, judged by libultrahdr's own decoder: nits of HLG's anchors, the SDR base, the index of its two pictures."""

from pathlib import Path

import numpy as np
import pytest
from imagecodecs import jpeg_decode, ultrahdr_decode
from PIL import Image

from firstlight.errors import WriteError
from firstlight.frame import Frame, Unit
from firstlight.io.rendered import TARGETS, Rendered, write_rendered
from firstlight.noise import Unmodelled

HLG = TARGETS["ultrahdr"].kinds[0]
WHITE = 203.0  # nits of libultrahdr's linear 1.0
# code of 10 bits -> nits at a peak of 1000 (BT.2100, system gamma 1.2): 18 % grey, diffuse white, +1 EV
ANCHORS = {387: 26.2, 767: 203.0, 903: 467.0}


def written(folder: Path, codes: np.ndarray, **options: float) -> Path:
    frame = Frame(codes.astype(np.uint16), "CYX", Unit.DISPLAY, Unmodelled("x"))
    return write_rendered(Rendered(frame, HLG), folder / "a.jpg", to="ultrahdr", **options)


def patches() -> np.ndarray:
    return np.broadcast_to(np.repeat(list(ANCHORS), 32), (3, 64, 96)).copy()


def test_anchors_of_hlg_decode_to_their_nits(tmp_path: Path) -> None:
    light = ultrahdr_decode(written(tmp_path, patches()).read_bytes())
    for i, nits in enumerate(ANCHORS.values()):
        assert light[32, 32 * i + 16, :3].astype(float) * WHITE == pytest.approx(nits, rel=0.02)


def test_colours_return_as_hlg_codes(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :128]
    codes = np.rint(np.stack([500 + 250 * np.sin(x / 40), 480 + 200 * np.cos(y / 33), 450 + 150 * np.sin((x + y) / 50)]))
    got = ultrahdr_decode(written(tmp_path, codes).read_bytes(), dtype="uint16")[..., :3]
    error = np.moveaxis(got, 2, 0).astype(float) - codes
    assert np.sqrt((error**2).mean()) < 8  # of 1023: an 8-bit base times an 8-bit gain


def test_the_sdr_base_is_a_plain_jpeg(tmp_path: Path) -> None:
    file = written(tmp_path, patches()).read_bytes()
    base = jpeg_decode(file)
    assert base.shape == (64, 96, 3)
    assert np.ptp(base[32, ::16].astype(int), axis=1).max() <= 2  # grey
    assert np.all(np.diff(base[32, 16::32, 0].astype(int)) > 20)
    assert base.max() < 255  # +1 EV is not cut off


def test_the_index_names_both_pictures_after_exif_was_put_in(tmp_path: Path) -> None:
    path = written(tmp_path, patches())
    file = path.read_bytes()
    assert file[2:4] == b"\xff\xe1"
    with Image.open(path) as image:
        assert image.format == "MPO"
        first, second = image.mpinfo[0xB002]
        assert image.n_frames == 2
        image.seek(1)
        image.load()
    assert first["DataOffset"] == 0
    assert file[first["Size"] - 2 : first["Size"]] == b"\xff\xd9"
    start = second["DataOffset"] + file.index(b"MPF\0") + 4
    assert file[start : start + 2] == b"\xff\xd8"
    assert first["Size"] == start
    assert start + second["Size"] == len(file)


@pytest.mark.parametrize("shape", [(7, 100), (100, 7), (8, 8193), (8193, 8)])
def test_sides_that_libultrahdr_refuses(shape: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"UltraHDR holds 8 to 8192 a side; write \.avif"):
        written(tmp_path, np.zeros((3, *shape)))
    assert not list(tmp_path.iterdir())


def test_a_lower_quality_is_smaller(tmp_path: Path) -> None:
    noisy = np.random.default_rng(5).integers(300, 800, (3, 64, 64))
    sizes = [written(tmp_path, noisy, quality=q).stat().st_size for q in (50, 98)]
    assert sizes[0] < 0.7 * sizes[1]
