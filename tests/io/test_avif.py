"""AVIF byte by byte, against libavif's own decoder (imagecodecs) and Pillow's."""

import struct
from pathlib import Path

import numpy as np
import pytest
from imagecodecs import avif_decode, avif_encode
from PIL import Image

from firstlight import io
from firstlight.errors import ReadError, WriteError
from firstlight.facts import info, info_text
from firstlight.frame import Frame, Unit
from firstlight.io import avif
from firstlight.io.isobmff import box, children, full, inside
from firstlight.io.rendered import TARGETS, Rendered, write_rendered
from firstlight.noise import Unmodelled

HLG = TARGETS["avif"].kinds[0]


def picture(height: int, width: int) -> Rendered:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 37 + y / 91), np.cos(x / 53), np.sin(y / 29)]) / 2 + 0.5
    return Rendered(Frame(np.rint(waves * 1023).astype(np.uint16), "CYX", Unit.DISPLAY, Unmodelled("x")), HLG)


def written(folder: Path, shape: tuple[int, int] = (70, 90), quality: float | None = None) -> tuple[np.ndarray, Path]:
    shown = picture(*shape)
    return shown.frame.data, write_rendered(shown, folder / "a.avif", to="avif", quality=quality)


def test_bytes_of_the_container(tmp_path: Path) -> None:
    """colr nclx 9/18/9 full range, pixi 10/10/10, av1C of profile 1 (4:4:4) and 10 bits, ispe (ISO/IEC 23008-12)."""
    _, path = written(tmp_path)
    file = path.read_bytes()
    assert file[:32] == bytes.fromhex("00000020") + b"ftypavif\0\0\0\0avifmif1miafMA1A"
    stock = dict(children(inside(file, b"meta", b"iprp", b"ipco")))
    assert stock[b"colr"].hex() == "6e636c78" + "0009" + "0012" + "0009" + "80"
    assert stock[b"pixi"].hex() == "00000000" + "03" + "0a0a0a"
    assert stock[b"ispe"].hex() == "00000000" + "0000005a" + "00000046"
    version, profile_level, depth = stock[b"av1C"][:3]
    assert (version, profile_level >> 5, depth & 0b0111_1100) == (0x81, 1, 0b0100_0000)
    assert b"prof" not in file[: file.index(b"mdat")]  # no ICC profile beside it


def test_items_lie_where_the_container_says(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    file = path.read_bytes()
    meta = inside(file, b"meta")
    place = inside(meta, b"iloc")
    count = struct.unpack(">H", place[6:8])[0]
    items = {r[0]: file[r[3] : r[3] + r[4]] for r in struct.iter_unpack(">HHHII", place[8:])}
    assert count == len(items) == 2
    assert items[2][:8] == bytes(4) + b"II*\0"  # the offset of the EXIF block's own header, and that header
    assert file.endswith(items[2])
    assert inside(meta, b"iref", b"cdsc") == struct.pack(">HHH", 2, 1, 1)
    av1 = file[file.index(b"mdat") + 4 :]
    assert av1.startswith(items[1])


@pytest.mark.parametrize(("quality", "most"), [(None, 12), (100, 0)])
def test_decodes_to_what_was_written(quality: float | None, most: int, tmp_path: Path) -> None:
    codes, path = written(tmp_path, quality=quality)
    got = np.moveaxis(avif_decode(path.read_bytes()), 2, 0)
    assert got.dtype == np.uint16
    assert np.abs(got.astype(int) - codes).max() <= most
    assert np.array_equal(io.read(path).data, got)


def test_lossless_says_that_its_matrix_is_none(tmp_path: Path) -> None:
    assert avif.cicp(written(tmp_path, quality=100)[1]) == (9, 18, 0, True, 10)
    assert avif.cicp(written(tmp_path)[1]) == (9, 18, 9, True, 10)


def test_grey_stays_grey(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1023, 256).round().astype(np.uint16), (3, 64, 256)).copy()
    frame = Frame(ramp, "CYX", Unit.DISPLAY, Unmodelled("x"))
    got = io.read(write_rendered(Rendered(frame, HLG), tmp_path / "a.avif", to="avif")).data.astype(int)
    assert np.abs(got - ramp).max() <= 4
    assert np.ptp(got, axis=0).max() <= 2


def test_pillow_opens_it(tmp_path: Path) -> None:
    codes, path = written(tmp_path)
    with Image.open(path) as image:
        assert image.size == (90, 70)
        eight = np.moveaxis(np.asarray(image), 2, 0).astype(int)
    assert np.abs(eight - codes / 1023 * 255).max() < 4


@pytest.mark.parametrize("shape", [(150, 233), (65, 300), (301, 64), (200, 129)])
def test_a_grid_equals_the_picture(shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits made small: cells in order, edges cut where the last ones end early, EXIF still there."""
    monkeypatch.setattr(avif, "WHOLE", (9000, 200, 250))
    monkeypatch.setattr(avif, "LEVEL_5", (9000, 120, 110))
    codes, path = written(tmp_path, shape, quality=100)
    file = path.read_bytes()
    assert b"grid" in file
    assert np.array_equal(np.moveaxis(avif_decode(file), 2, 0), codes)
    assert avif.cicp(path) == (9, 18, 0, True, 10)
    with Image.open(path) as image:
        assert image.size == shape[::-1]
        assert image.getexif()[274] == 1
    kinds = [body[8:12] for _, body in children(inside(file, b"meta", b"iinf")[6:])]
    rows, cols = avif._grid(*shape)
    assert kinds == [b"grid", *[b"av01"] * (rows * cols), b"Exif"]
    assert rows * cols > 1


def test_a_strip_narrower_than_a_cell_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avif, "WHOLE", (9000, 200, 250))
    codes, path = written(tmp_path, (3, 400), quality=100)
    assert np.array_equal(io.read(path).data, codes)


@pytest.mark.parametrize(
    ("shape", "grid"), [((4000, 6000), (1, 1)), ((6000, 4000), (1, 1)), ((5304, 7952), (2, 3)), ((8736, 11648), (3, 4))]
)
def test_sizes_of_cameras_stay_within_the_levels_of_av1(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    rows, cols = avif._grid(*shape)
    assert (rows, cols) == grid
    height, width = -(-shape[0] // rows), -(-shape[1] // cols)
    most = (35_651_584, 8704, 16384) if grid == (1, 1) else (8_912_896, 4352, 8192)
    assert height * width <= most[0]
    assert height <= most[1]
    assert width <= most[2]
    assert (rows - 1) * height < shape[0]  # no cell is all beyond the edge
    assert (cols - 1) * width < shape[1]


def test_sides_that_decoders_refuse_are_refused(tmp_path: Path) -> None:
    frame = Frame(np.zeros((3, 1, 32769), np.uint16), "CYX", Unit.DISPLAY, Unmodelled("x"))
    with pytest.raises(WriteError, match="AVIF decoders stop at 32768"):
        write_rendered(Rendered(frame, HLG), tmp_path / "a.avif", to="avif")


def test_cicp_of_files_by_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "b.avif"
    codes = np.zeros((16, 16, 3), np.uint8)
    path.write_bytes(avif_encode(codes, 80, primaries=1, transfer=13, matrix=6))
    assert avif.cicp(path) == (1, 13, 6, True, 8)
    with Image.fromarray(codes) as image:
        image.save(path, "AVIF")
    assert avif.cicp(path) == (1, 13, 6, True, 8)


def test_cicp_takes_the_primary_picture_s_property(tmp_path: Path) -> None:
    """Two colr boxes, two items, wide item numbers and wide indices (ipma version 1, flags 1): only the primary's counts."""
    colr = [box(b"colr", b"nclx", struct.pack(">HHHB", p, 13, 6, 0)) for p in (1, 12)]
    table = struct.pack(">I", 2) + struct.pack(">IBH", 7, 1, 1) + struct.pack(">IBH", 70000, 1, 0x8002)
    parts = (
        full(b"pitm", 1, 0, struct.pack(">I", 70000)),
        box(b"iprp", box(b"ipco", *colr), full(b"ipma", 1, 1, table)),
    )
    path = tmp_path / "b.avif"
    path.write_bytes(box(b"ftyp", b"avif", bytes(4)) + full(b"meta", 0, 0, *parts))
    assert avif.cicp(path) == (12, 13, 6, False, None)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\0\0\0\x10ftypheic\0\0\0\0", box(b"ftyp", b"avif", bytes(4))])
def test_cicp_of_what_is_no_avif(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.avif"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"b\.avif: .*AVIF"):
        avif.cicp(path)


@pytest.mark.parametrize(
    ("turn", "mirror", "orientation"),
    [(0, None, 1), (1, None, 8), (2, None, 3), (3, None, 6), (0, 1, 2), (0, 0, 4), (1, 0, 5), (1, 1, 7)],
)
def test_turns_stated_by_the_container(turn: int, mirror: int | None, orientation: int) -> None:
    """irot and imir against Pillow's reading of EXIF's orientation: both bring a picture upright (ISO/IEC 23008-12, 6.5.10)."""
    stored = np.arange(6).reshape(2, 3)
    upright = np.rot90(stored, turn)  # anticlockwise
    upright = upright if mirror is None else upright[:, ::-1] if mirror else upright[::-1]
    exif = Image.Exif()
    exif[274] = orientation
    with Image.fromarray(stored.astype(np.uint8)) as image:
        image.info["exif"] = exif.tobytes()
        from PIL import ImageOps

        turned = ImageOps.exif_transpose(image)
        assert np.array_equal(np.asarray(turned), upright)
    assert (avif.TURNS | avif.MIRRORS)[turn, mirror] == orientation


def test_info_prints_the_cicp(tmp_path: Path) -> None:
    facts = info(written(tmp_path)[1])
    assert facts["cicp"] == {"primaries": 9, "transfer": 18, "matrix": 9, "full_range": True, "bits": 10}
    assert "primaries 9, transfer 18, matrix 9" in info_text(facts)
    assert any("codes of 10 bits" in d for d in facts["doubts"])
