"""What every writer of developed pictures does: refuse by name, write whole or not at all, carry EXIF and history."""

import json
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

from firstlight import io
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Frame, Observation, Record, Unit
from firstlight.io.raw import Header
from firstlight.io.rendered import TARGETS, Kind, Rendered, write_rendered
from firstlight.noise import Unmodelled

EVERY = [(to, kind) for to, target in TARGETS.items() for kind in target.kinds]
TAGS = {"Make": "SONY", "LensModel": "E 55-210mm F4.5-6.3 OSS", "FNumber": (63, 10), "FocalLength": (1290, 10)}
HISTORY = (Record("develop.develop", {"method": "lmmse", "ev": 0.5}, {"a.ARW": "00ff"}), Record("develop.render", {}))
OBSERVATION = Observation("ILCE-7RM3", "ISO 3200", 1 / 640, "2018-07-11T01:18:47", header=Header(TAGS))


def picture(kind: Kind, height: int = 45, width: int = 67, observation: Observation = OBSERVATION) -> Rendered:
    """Smooth waves over the whole range of the kind, of linear values from -0.2 to 3."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 17 + y / 31), np.cos(x / 23), np.sin(y / 13)]) / 2 + 0.5
    if kind.bits == 32:
        return Rendered(_frame((waves * 3.2 - 0.2).astype(np.float32), Unit.REC2020, observation), kind)
    codes = np.rint(waves * (2**kind.bits - 1)).astype(np.uint8 if kind.bits == 8 else np.uint16)
    return Rendered(_frame(codes, Unit.DISPLAY, observation), kind)


def _frame(data: np.ndarray, unit: Unit, observation: Observation) -> Frame:
    return Frame(data, "CYX", unit, Unmodelled("x"), observation=observation, history=HISTORY)


def written(to: str, kind: Kind, folder: Path, **options: Any) -> tuple[Rendered, Path]:
    shown = picture(kind)
    return shown, write_rendered(shown, folder / f"a{TARGETS[to].suffixes[0]}", to=to, **options)


def exif_of(path: Path) -> tuple[dict[int, Any], dict[int, Any]]:
    """Tags of the first and of the EXIF directory, as Pillow reads them."""
    with Image.open(path) as image:
        first = image.getexif()
        return dict(first), dict(first.get_ifd(34665))


every = pytest.mark.parametrize(("to", "kind"), EVERY, ids=[f"{t}-{k.transfer}-{k.bits}" for t, k in EVERY])


@every
def test_history_and_exposure_return_through_read(to: str, kind: Kind, tmp_path: Path) -> None:
    shown, path = written(to, kind, tmp_path)
    got = io.read(path)
    assert got.shape == shown.frame.shape
    assert [(r.step, dict(r.params), dict(r.inputs)) for r in got.history] == [
        (r.step, dict(r.params), dict(r.inputs)) for r in HISTORY
    ]
    want = OBSERVATION
    for name in ("instrument", "setting", "exposure", "time", "orientation"):
        assert getattr(got.observation, name) == getattr(want, name)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing beside it, nothing left over


@every
def test_pillow_reads_the_exif(to: str, kind: Kind, tmp_path: Path) -> None:
    _, path = written(to, kind, tmp_path)
    if to == "jxl" or kind.bits == 32:
        with pytest.raises(UnidentifiedImageError):
            Image.open(path)
        return
    first, inner = exif_of(path)
    assert (first[271], first[272], first[274], first[306]) == ("SONY", "ILCE-7RM3", 1, "2018:07:11 01:18:47")
    assert first[270] == "develop.develop > develop.render"
    assert first[305].startswith("firstlight")
    assert (inner[34855], inner[36867], inner[42036]) == (3200, "2018:07:11 01:18:47", TAGS["LensModel"])
    assert (float(inner[33434]), float(inner[33437]), float(inner[37386])) == (1 / 640, 6.3, 129.0)
    assert json.loads(inner[37510][8:])["history"][0]["params"] == {"method": "lmmse", "ev": 0.5}
    assert inner[40961] == (1 if kind.transfer == "srgb" else 0xFFFF)


@every
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (41, 1), (8, 9), (33, 17)])
def test_odd_and_tiny_sizes(to: str, kind: Kind, shape: tuple[int, int], tmp_path: Path) -> None:
    shown = picture(kind, *shape)
    path = tmp_path / f"a{TARGETS[to].suffixes[0]}"
    if to == "ultrahdr" and min(shape) < 8:
        with pytest.raises(WriteError, match="UltraHDR holds 8 to 8192"):
            write_rendered(shown, path, to=to)
        assert not list(tmp_path.iterdir())
    else:
        write_rendered(shown, path, to=to)
        assert io.read(path).shape == (3, *shape)


@pytest.mark.parametrize(
    ("to", "kind", "most"), [("tiff", k, 0) for k in TARGETS["tiff"].kinds] + [("jxl", TARGETS["jxl"].kinds[0], 1e-6)]
)
def test_what_is_lossless_returns(to: str, kind: Kind, most: float, tmp_path: Path) -> None:
    shown, path = written(to, kind, tmp_path)
    got = io.read(path)
    assert got.unit == shown.frame.unit
    assert np.max(np.abs(np.asarray(got.data) - shown.frame.data.astype(np.float64))) <= most


def test_jpeg_is_near_and_carries_srgb(tmp_path: Path) -> None:
    shown, path = written("jpeg", TARGETS["jpeg"].kinds[0], tmp_path)
    with Image.open(path) as image:
        pixels, profile = np.moveaxis(np.asarray(image), 2, 0).astype(int), image.info["icc_profile"]
    assert np.abs(pixels - shown.frame.data).max() <= 6
    found = ImageCms.ImageCmsProfile(BytesIO(profile))
    assert ImageCms.getProfileDescription(found).strip() == "sRGB"


@pytest.mark.parametrize("shape", [(1, 65501), (65501, 1)])
def test_jpeg_refuses_sides_beyond_libjpeg(tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(WriteError, match=r"JPEG holds 65500 a side; write \.tif"):
        write_rendered(picture(TARGETS["jpeg"].kinds[0], *shape), tmp_path / "a.jpg", to="jpeg")
    assert list(tmp_path.iterdir()) == []


def test_jpeg_of_the_longest_side_opens(tmp_path: Path) -> None:
    path = write_rendered(picture(TARGETS["jpeg"].kinds[0], 2, 65500), tmp_path / "a.jpg", to="jpeg")
    with Image.open(path) as seen:
        assert seen.size == (65500, 2)


def test_jpeg_refuses_a_history_that_it_cannot_hold(tmp_path: Path) -> None:
    shown = picture(TARGETS["jpeg"].kinds[0])
    long = Rendered(shown.frame.then("a.b", {"text": "x" * 70000}), shown.kind)
    with pytest.raises(WriteError, match="JPEG holds 65533"):
        write_rendered(long, tmp_path / "a.jpg", to="jpeg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("iso", [100, 65534, 65535, 409600])
def test_iso_of_any_size(iso: int, tmp_path: Path) -> None:
    kind = TARGETS["jpeg"].kinds[0]
    shown = picture(kind, observation=replace(OBSERVATION, setting=f"ISO {iso}"))
    _, inner = exif_of(write_rendered(shown, tmp_path / "a.jpg", to="jpeg"))
    assert (inner[34855], inner.get(34866, inner[34855])) == (min(iso, 65535), iso)


def test_nothing_known_of_the_exposure_is_nothing_said(tmp_path: Path) -> None:
    shown = picture(TARGETS["jpeg"].kinds[0], observation=Observation())
    first, inner = exif_of(write_rendered(shown, tmp_path / "a.jpg", to="jpeg"))
    assert not {271, 272, 306} & set(first)
    assert not {33434, 33437, 34855, 36867, 37386, 42036} & set(inner)


@every
def test_codes_beyond_the_bits_are_refused_and_leave_nothing(to: str, kind: Kind, tmp_path: Path) -> None:
    shown = picture(kind)
    data = shown.frame.data.copy()
    if kind.bits in (8, 16):
        return  # the type holds no more
    data[1, 20, 30] = np.nan if kind.bits == 32 else 1 << kind.bits
    with pytest.raises(WriteError, match=r"a\.\w+: (codes up to 1024|values that are not finite)"):
        write_rendered(Rendered(shown.frame.replace(data=data), kind), tmp_path / f"a{TARGETS[to].suffixes[0]}", to=to)
    assert not list(tmp_path.iterdir())


def test_wrong_requests_are_refused_by_name(tmp_path: Path) -> None:
    hlg, srgb = (picture(TARGETS[to].kinds[0]) for to in ("avif", "jpeg"))
    for shown, name, to, options, words in [
        (hlg, "a.avif", "heic", {}, "no format 'heic', expected one of avif"),
        (hlg, "a.jpg", "avif", {}, "is named .avif"),
        (srgb, "a.avif", "avif", {}, "avif holds hlg in rec2020, 10 bits, not srgb in srgb, 8 bits"),
        (hlg, "a.avif", "avif", {"quality": 101}, "quality 101, expected 0 to 100"),
        (hlg, "no/a.avif", "avif", {}, "does not exist; create it first"),
        (picture(TARGETS["tiff"].kinds[0]), "a.tif", "tiff", {"quality": 90}, "loses nothing"),
        (picture(TARGETS["jxl"].kinds[0]), "a.jxl", "jxl", {"quality": 90}, "expected 100"),
    ]:
        with pytest.raises(WriteError, match=words):
            write_rendered(shown, tmp_path / name, to=to, **options)
    assert not list(tmp_path.iterdir())


def test_what_is_no_rendered_picture_is_refused() -> None:
    good = picture(TARGETS["avif"].kinds[0])
    kind, frame = good.kind, good.frame
    turned = frame.replace(observation=replace(OBSERVATION, orientation=6))
    for bad, words in [
        (frame.replace(data=frame.data[0], axes="YX"), "expected CYX of three channels"),
        (frame.replace(data=frame.data[:2]), "expected CYX of three channels"),
        (frame.replace(data=frame.data.astype(np.float32)), "float32 for hlg"),
        (turned, "expected upright"),
    ]:
        with pytest.raises(FrameError, match=words):
            Rendered(bad, kind)


@every
def test_an_older_file_stays_where_writing_fails(to: str, kind: Kind, tmp_path: Path, monkeypatch: Any) -> None:
    _, path = written(to, kind, tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", _refuse)
    with pytest.raises(WriteError, match="No space left"):
        write_rendered(picture(kind, 20, 20), path, to=to)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def _refuse(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("to", ["avif", "jxl"])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.6, 0.95])
def test_truncated_files_get_one_line(to: str, part: float, tmp_path: Path) -> None:
    _, path = written(to, TARGETS[to].kinds[0], tmp_path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ReadError, match=path.name) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("to", ["avif", "jxl"])
def test_any_damaged_byte_gives_a_frame_or_a_read_error(to: str, tmp_path: Path) -> None:
    shown = picture(TARGETS[to].kinds[0], 8, 8)
    path = write_rendered(shown, tmp_path / f"a.{to}", to=to)
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(ReadError):
            io.read(path)


def test_a_foreign_jxl_is_refused(tmp_path: Path) -> None:
    from imagecodecs import jpegxl_encode

    path = tmp_path / "b.jxl"
    path.write_bytes(jpegxl_encode(np.zeros((9, 9, 3), dtype=np.uint8)))
    with pytest.raises(ReadError, match="firstlight did not write"):
        io.read(path)


def test_the_real_photograph_keeps_its_camera(data: Path, tmp_path: Path) -> None:
    raw = io.read(data / "raw" / "sony_ilce-7rm3_iso3200.ARW")
    shown = picture(TARGETS["avif"].kinds[0], observation=raw.observation)
    first, inner = exif_of(write_rendered(shown, tmp_path / "a.avif", to="avif"))
    assert (first[271], first[272], inner[42036]) == ("SONY", "ILCE-7RM3", "E 55-210mm F4.5-6.3 OSS")
