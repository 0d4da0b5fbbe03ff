"""The tags of a camera raw file: TIFF structure (ARW, DNG, NEF, CR2), or the EXIF blocks inside RAF and CR3."""

from __future__ import annotations

import io
import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ReadError

__all__ = ["black", "color_matrix", "number", "tags", "time"]

CFA, LINEAR_RAW = 32803, 34892
RATIONALS = (5, 10)
FUJI, FUJI_BLACK = 0xF000, 0xF00A
BIG = 1 << 16  # values longer than this (maker notes, previews, profiles) are not kept
D65 = 21


def tags(path: Path) -> dict[str, Any]:
    """Tags by their TIFF/EXIF/DNG names: first directory, EXIF, then the raw image's own directory, later ones winning.

    Raises ReadError where the file ends before the image it describes (LibRaw would fill it with zeros).
    """
    with path.open("rb") as f:
        head = f.read(108)
    if head.startswith(b"FUJIFILMCCD-RAW"):
        return _raf(path, head)
    if head[4:11] == b"ftypcrx":
        return _cr3(path)
    return _tiff(path, path)


def _tiff(path: Path, file: Any) -> dict[str, Any]:
    import tifffile

    with _quiet(), tifffile.TiffFile(file) as tiff:
        pages = [p for page in tiff.pages for p in (page, *(getattr(page, "pages", None) or ()))]
        if file is path:
            _complete(path, pages)
        found = _values(pages[0])
        raw = [p for p in pages if _photometric(p) in (CFA, LINEAR_RAW)]
        if raw:
            found |= _values(max(raw, key=lambda p: p.imagewidth * p.imagelength))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """What tifffile logs of tags that it cannot read is not shown: `_complete` tells what is missing."""
    logger, thread = logging.getLogger("tifffile"), threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _photometric(page: Any) -> int:
    tag = page.tags.get(262)
    return int(tag.value) if tag is not None else -1


def _complete(path: Path, pages: list[Any]) -> None:
    size = path.stat().st_size
    ends = [o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=False)]
    if ends and max(ends) > size:
        raise ReadError(f"{path}: truncated, its image ends at byte {max(ends)} and the file at {size}; copy it again")


def _values(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in page.tags:
        value = _ratios(tag.value) if tag.dtype in RATIONALS else tag.value
        if isinstance(value, dict):
            found |= {k: v for k, v in value.items() if _small(v)}
        elif _small(value) or tag.name == "DNGPrivateData":
            found[tag.name] = value
    return found


def _ratios(flat: tuple[int, ...]) -> tuple[float, ...]:
    """Numerators and denominators, as tifffile gives rationals, as numbers; n/0 is NaN."""
    return tuple(n / d if d else float("nan") for n, d in zip(flat[::2], flat[1::2], strict=True))


def _small(value: Any) -> bool:
    return not isinstance(value, str | bytes | tuple | np.ndarray) or len(value) <= BIG


def _raf(path: Path, head: bytes) -> dict[str, Any]:
    """EXIF of the embedded JPEG (offset and length at byte 84), sensor tags of the TIFF block before the data (byte 100)."""
    data = path.read_bytes()
    jpeg, jpeg_size, cfa, cfa_size = (int.from_bytes(head[i : i + 4], "big") for i in (84, 88, 100, 104))
    if max(jpeg + jpeg_size, cfa + cfa_size) > len(data):
        raise ReadError(
            f"{path}: truncated, the file ends at byte {len(data)} and its image at {cfa + cfa_size}; copy it again"
        )
    preview = data[jpeg : jpeg + jpeg_size]
    start = preview.find(b"Exif\0\0")
    found = _block(preview[start + 6 :]) if start >= 0 else {}
    levels = _fuji_black(data[cfa : cfa + cfa_size])
    return found | ({"FujiBlackLevel": levels} if levels else {})


def _fuji_black(block: bytes) -> tuple[int, ...]:
    """Black levels [ADU] of the directory that a RAF's TIFF block holds under tag 0xF000; empty where there are none."""
    if block[:4] != b"II*\0":
        return ()
    inner = _entry(block, struct.unpack_from("<I", block, 4)[0], FUJI)
    found = inner and _entry(block, inner[1], FUJI_BLACK)
    if not found or 4 * found[0] + found[1] > len(block):
        return ()
    return struct.unpack_from(f"<{found[0]}I", block, found[1]) if found[0] > 1 else (found[1],)


def _entry(block: bytes, at: int, code: int) -> tuple[int, int] | None:
    """Count and value (or offset) of a tag in the little-endian directory at byte `at`."""
    if at + 2 > len(block):
        return None
    for i in range(struct.unpack_from("<H", block, at)[0]):
        if at + 14 + 12 * i <= len(block) and struct.unpack_from("<H", block, at + 2 + 12 * i)[0] == code:
            return struct.unpack_from("<II", block, at + 6 + 12 * i)
    return None


def _cr3(path: Path) -> dict[str, Any]:
    """EXIF blocks CMT1 (camera) and CMT2 (exposure) of an ISO base media file."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as f:
        while at < size:
            f.seek(at)
            head = f.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length or size - at
            at += max(length, 8)
        if at > size:
            raise ReadError(f"{path}: truncated, its last box ends at byte {at} and the file at {size}; copy it again")
        f.seek(0)
        data = f.read(1 << 20)
    found: dict[str, Any] = {}
    for name in (b"CMT1", b"CMT2"):
        start = data.find(name)
        if start >= 4:
            found |= _block(data[start + 4 : start - 4 + int.from_bytes(data[start - 4 : start], "big")])
    return found


def _block(data: bytes) -> dict[str, Any]:
    """Tags of a TIFF block in memory, empty where it is none: metadata are welcome, not needed."""
    import tifffile

    try:
        return _tiff(Path(), io.BytesIO(data))
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError):
        return {}


def number(value: Any) -> float | None:
    """A number, or an EXIF rational (numerator, denominator), as a float; None where it is absent or n/0."""
    flat = np.atleast_1d(value) if value is not None else np.zeros(0)
    found = flat[0] / flat[1] if flat.size == 2 and flat[1] else flat[0] if flat.size == 1 else np.nan
    return float(found) if np.isfinite(found) else None


def _numbers(value: Any) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def black(tags: dict[str, Any]) -> NDArray[np.float64] | None:
    """A DNG's black level [ADU] as a cell (rows, cols), row and column deltas by their mean; a RAF's own; else None."""
    if "FujiBlackLevel" in tags:
        levels = _numbers(tags["FujiBlackLevel"])
        side = {1: 1, 4: 2, 36: 6}.get(levels.size)
        return levels.reshape(side, side) if side else None
    if "DNGVersion" not in tags:
        return None
    rows, cols = (int(n) for n in tags.get("BlackLevelRepeatDim", (1, 1)))
    levels = _numbers(tags.get("BlackLevel", 0))
    samples = levels.size // (rows * cols)
    if levels.size != rows * cols * samples or not np.all(np.isfinite(levels)):
        return None
    deltas = sum(float(np.mean(tags[k])) for k in ("BlackLevelDeltaH", "BlackLevelDeltaV") if k in tags)
    return np.asarray(levels.reshape(rows, cols, samples).mean(axis=2) + deltas)


def color_matrix(tags: dict[str, Any]) -> NDArray[np.float64] | None:
    """A DNG's XYZ-to-camera matrix for daylight (D65) where it has one, else its first; rows are colours."""
    for i in (2, 1):
        if f"ColorMatrix{i}" in tags and (tags.get(f"CalibrationIlluminant{i}") == D65 or i == 1):
            return _numbers(tags[f"ColorMatrix{i}"]).reshape(-1, 3)
    return None


def time(text: Any) -> str | None:
    """EXIF's 2018:07:11 01:18:47 as ISO 8601; None where it is absent or no time."""
    try:
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None
