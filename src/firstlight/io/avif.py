"""AVIF: HDR pictures, 10 bits, full range, HLG in BT.2020 (CICP 9/18/9), 4:4:4, with EXIF; any AVIF is read to its codes.

The AV1 encoder is libavif's, through imagecodecs; the container is ours (ISO/IEC 23008-12, AVIF 1.1), for imagecodecs writes
no EXIF and no grid. A coded image stays within AV1 level 6.0 (35.6 Mpx), as AVIF's advanced profile asks, and within memory:
pictures over 26 Mpx are a grid of cells.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.io import exif_write
from firstlight.io.contiguous import refuse_ext
from firstlight.io.isobmff import box, children, full, inside
from firstlight.io.picture import REASON, planes
from firstlight.io.rendered import Rendered, codes_at
from firstlight.noise import Unmodelled

__all__ = ["Cicp", "Header", "cicp", "read", "write"]

QUALITY = 95
SPEED = 8  # of libavif: at quality 95 no worse than 6 and three times as fast
WHOLE = (26_214_400, 8704, 16384)  # pixels (the encoder takes 43 bytes each), rows, columns of AV1 level 6.0
LEVEL_5 = (8_912_896, 4352, 8192)  # AV1 annex A, levels 5: one cell of a grid
CELL = 64  # least side of a grid's cell (MIAF, ISO/IEC 23000-22)
LARGEST = 32768  # side beyond which decoders refuse
BRANDS = b"avifmif1miafMA1A"  # MA1A: advanced profile, the one with 4:4:4
TURNS = {(0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6}  # irot, imir -> EXIF orientation
MIRRORS = {(0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5, (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7}


class Cicp(NamedTuple):
    """Coding-independent code points (ITU-T H.273) of a picture, and the bits of its codes."""

    primaries: int
    transfer: int
    matrix: int
    full_range: bool
    bits: int | None = None


@dataclass(frozen=True, eq=False)
class Header:
    """What an AVIF says of its codes, nothing of a detector, and doubts."""

    cicp: Cicp | None
    stated: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def write(picture: Rendered, path: Path, quality: float | None) -> None:
    """Write HLG codes of 10 bits; quality 100 is lossless (RGB as it is: CICP 9/18/0). Raises WriteError over 32768 px a side.

    Where a grid's last cells end early, edges are repeated in them, which decoders cut off.
    """
    if max(picture.frame.shape) > LARGEST:
        raise WriteError(f"{path}: {picture.frame.shape[1:]} px, AVIF decoders stop at {LARGEST} a side; write .tif")
    level = QUALITY if quality is None else round(quality)
    _, height, width = picture.frame.shape
    rows, cols = _grid(height, width)
    least = 1 if rows * cols == 1 else CELL
    cell = max(least, ceil(height / rows)), max(least, ceil(width / cols))
    boxes = [
        Box((0, y, x), (3, min(y + cell[0], height), min(x + cell[1], width)))
        for y in range(0, height, cell[0])
        for x in range(0, width, cell[1])
    ]
    coded = [_coded(codes_at(picture, b, path), cell, level) for b in boxes]
    exif = struct.pack(">I", 0) + exif_write.block(picture.frame, srgb=False)
    with replacing(path) as temp:
        temp.write_bytes(_container(coded, (height, width), cell, (rows, cols), exif))


def _grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of cells: one where WHOLE holds the picture, else of level 5's size, as square as may be."""
    if _within(height, width, WHOLE):
        return 1, 1
    rows = cols = 1
    while not _within(ceil(height / rows), ceil(width / cols), LEVEL_5):
        rows, cols = (rows + 1, cols) if height / rows > width / cols else (rows, cols + 1)
    return rows, cols


def _within(height: int, width: int, level: tuple[int, int, int]) -> bool:
    return height * width <= level[0] and height <= level[1] and width <= level[2]


def _coded(codes: NDArray[Any], cell: tuple[int, int], level: int) -> tuple[bytes, dict[bytes, bytes]]:
    """AV1 data of one cell and its properties as libavif states them."""
    from imagecodecs import avif_encode

    short = [(0, 0), (0, cell[0] - codes.shape[1]), (0, cell[1] - codes.shape[2])]
    block = np.stack([*(np.pad(codes, short, "edge") if np.any(short) else codes)], axis=-1)
    matrix = 0 if level == 100 else 9
    file = avif_encode(block, level, speed=SPEED, bitspersample=10, pixelformat="444", primaries=9, transfer=18, matrix=matrix)
    file = bytes(file)
    return inside(file, b"mdat"), dict(children(inside(file, b"meta", b"iprp", b"ipco")))


def _container(
    coded: list[tuple[bytes, dict[bytes, bytes]]],
    size: tuple[int, int],
    cell: tuple[int, int],
    grid: tuple[int, int],
    exif: bytes,
) -> bytes:
    """The file. Items: 1 the picture (coded, or a grid of 2 ...), last the EXIF block that describes it."""
    single = len(coded) == 1
    cells = [] if single else list(range(2, len(coded) + 2))
    data = [d for d, _ in coded] if single else [_grid_item(grid, size), *(d for d, _ in coded)]
    last = len(data) + 1
    kinds = [b"av01" if single or i else b"grid" for i in range(len(data))]
    entries = [_entry(i + 1, kind, hidden=i > 0) for i, kind in enumerate(kinds)] + [_entry(last, b"Exif", hidden=False)]
    refs = [] if single else [box(b"dimg", struct.pack(">HH", 1, len(cells)), *(struct.pack(">H", i) for i in cells))]
    refs.append(box(b"cdsc", struct.pack(">HHH", last, 1, 1)))
    fixed = (
        full(b"hdlr", 0, 0, struct.pack(">I4s12xx", 0, b"pict")),
        full(b"pitm", 0, 0, struct.pack(">H", 1)),
        full(b"iinf", 0, 0, struct.pack(">H", len(entries)), *entries),
        full(b"iref", 0, 0, *refs),
        _properties(coded[0][1], size, cell, cells),
    )
    head = box(b"ftyp", b"avif", bytes(4), BRANDS)
    payload = [*data, exif]
    start = len(head) + len(full(b"meta", 0, 0, *fixed, _places(payload, 0))) + 8
    return head + full(b"meta", 0, 0, *fixed, _places(payload, start)) + box(b"mdat", *payload)


def _grid_item(grid: tuple[int, int], size: tuple[int, int]) -> bytes:
    return struct.pack(">BBBBHH", 0, 0, grid[0] - 1, grid[1] - 1, size[1], size[0])


def _entry(item: int, kind: bytes, hidden: bool) -> bytes:
    return full(b"infe", 2, int(hidden), struct.pack(">HH4sx", item, 0, kind))


def _places(payload: list[bytes], start: int) -> bytes:
    """iloc, version 0: offset and length of each item, from the file's first byte."""
    rows = []
    for i, part in enumerate(payload):
        rows.append(struct.pack(">HHHII", i + 1, 0, 1, start, len(part)))
        start += len(part)
    return full(b"iloc", 0, 0, struct.pack(">HH", 0x4400, len(rows)), *rows)


def _properties(said: dict[bytes, bytes], size: tuple[int, int], cell: tuple[int, int], cells: list[int]) -> bytes:
    """ispe, pixi, colr and av1C, and which item has which; av1C (bit 7 set) is essential."""
    extent = [full(b"ispe", 0, 0, struct.pack(">II", w, h)) for h, w in (size, cell)]
    shared = [box(k, said[k]) for k in (b"pixi", b"colr", b"av1C")]
    own = [1, 2, 3] if cells else [1, 2, 3, 4 | 0x80]
    rows = [(1, own), *((i, [5, 2, 3, 4 | 0x80]) for i in cells)]
    table = b"".join(struct.pack(">HB", i, len(p)) + bytes(p) for i, p in rows)
    contents = box(b"ipco", extent[0], *shared, *([extent[1]] if cells else []))
    return box(b"iprp", contents, full(b"ipma", 0, 0, struct.pack(">I", len(rows)), table))


def cicp(path: str | Path) -> Cicp | None:
    """The CICP that an AVIF's container states for its picture, None where it states none (or an ICC profile instead).

    Raises ReadError for a file that is no AVIF, or a damaged one.
    """
    path = Path(path)
    return _cicp(_properties_of(path, path.read_bytes()))


def _properties_of(path: Path, data: bytes) -> list[tuple[bytes, bytes]]:
    """Properties of an AVIF's primary item, in order; raises ReadError."""
    try:
        return _primary(_meta(data))
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from error


def _cicp(found: list[tuple[bytes, bytes]]) -> Cicp | None:
    colr = next((v for k, v in found if k == b"colr" and v[:4] == b"nclx" and len(v) >= 11), None)
    pixi = next((v for k, v in found if k == b"pixi" and len(v) > 5), None)
    if colr is None:
        return None
    primaries, transfer, matrix, span = struct.unpack(">HHHB", colr[4:11])
    return Cicp(primaries, transfer, matrix, bool(span & 0x80), pixi[5] if pixi else None)


def _meta(data: bytes) -> bytes:
    if data[4:8] != b"ftyp" or not any(b in data[8 : int.from_bytes(data[:4], "big")] for b in (b"avif", b"avis")):
        raise ReadError("is no AVIF by its first bytes")
    meta = inside(data, b"meta")
    if not meta:
        raise ReadError("an AVIF without a picture (no box 'meta'); copy it again")
    return meta


def _primary(meta: bytes) -> list[tuple[bytes, bytes]]:
    """Properties of the primary item, in order."""
    pitm, ipma = inside(meta, b"pitm"), inside(meta, b"iprp", b"ipma")
    stock = list(children(inside(meta, b"iprp", b"ipco")))
    if len(pitm) < 6 or len(ipma) < 8:
        raise ReadError("an AVIF that names no primary picture; copy it again")
    item = int.from_bytes(pitm[4:8] if pitm[0] else pitm[4:6], "big")
    wide, at = 4 if ipma[0] else 2, 8
    size = 2 if ipma[3] & 1 else 1
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        name, count = int.from_bytes(ipma[at : at + wide], "big"), int.from_bytes(ipma[at + wide : at + wide + 1], "big")
        at += wide + 1
        if name == item:
            marks = [int.from_bytes(ipma[at + i * size : at + (i + 1) * size], "big") for i in range(count)]
            index = [m & (0x7FFF if size == 2 else 0x7F) for m in marks]
            return [stock[i - 1] for i in index if 0 < i <= len(stock)]
        at += count * size
    return []


def read(path: Path, ext: str | int | None = None) -> Frame:
    """An AVIF picture: YX, or CYX for RGB, in display codes (uint8, or uint16 that hold 10 or 12 bits), not turned."""
    from imagecodecs import avif_decode

    refuse_ext(path, ext)
    file = path.read_bytes()
    listed = _properties_of(path, file)
    found, said = dict(listed), _cicp(listed)
    pixels = np.asarray(avif_decode(file, numthreads=1))
    if pixels.ndim > 3:
        raise ReadError(f"{path}: a sequence of {pixels.shape[0]} pictures, expected one; convert it first")
    data, alpha = planes(path, pixels)
    flags = None if alpha is None or np.all(alpha) else np.where(alpha == 0, np.uint8(Flag.NO_DATA), np.uint8(0))
    turn = found.get(b"irot", b"\0")[0] & 3
    mirror = found[b"imir"][0] & 1 if b"imir" in found else None
    orientation = TURNS[turn, None] if mirror is None else MIRRORS[turn, mirror]
    note = Observation(orientation=orientation, header=Header(said, doubts=_doubts(said, alpha)), source=str(path))
    axes = "YX" if data.ndim == 2 else "CYX"
    plain = Frame(data, axes, Unit.DISPLAY, Unmodelled(REASON), flags=flags, observation=note)
    return exif_write.embedded(plain, exif_write.comment(file))


def _doubts(said: Cicp | None, alpha: Any) -> tuple[str, ...]:
    words = []
    if said is None:
        words.append("the file states no CICP: what its codes mean is not known")
    elif said.bits not in (None, 8):
        words.append(
            f"codes of {said.bits} bits (0 to {2**said.bits - 1}), CICP {said.primaries}/{said.transfer}/{said.matrix}"
        )
    if alpha is not None:
        words.append("its opacity is not kept, but for NO_DATA where it is 0")
    return tuple(words)
