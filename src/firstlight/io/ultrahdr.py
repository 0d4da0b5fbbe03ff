"""UltraHDR (ISO 21496-1 gain map in a JPEG): an SDR picture for any viewer, HLG's light for those that know, by libultrahdr."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.errors import WriteError
from firstlight.io.jpeg import QUALITY, exif_segment
from firstlight.io.rendered import Rendered, codes_at

__all__ = ["packed", "write"]

SIDES = (8, 8192)  # px, libultrahdr's limits
BT_2100, HLG, FULL = 2, 1, 1  # libultrahdr's gamut, transfer and range
STRIP = 256  # rows packed at once
ENTRY = 0xB002  # MP entries, 16 bytes a picture (CIPA DC-007)


def write(picture: Rendered, path: Path, quality: float | None) -> None:
    """Write HLG codes of 10 bits: libultrahdr makes the SDR base (Display P3) and the gain map. Sides of 8 to 8192 px.

    Raises WriteError for other sides.
    """
    from imagecodecs import ultrahdr_encode

    _, height, width = picture.frame.shape
    if min(height, width) < SIDES[0] or max(height, width) > SIDES[1]:
        raise WriteError(f"{path}: {height} x {width} px, UltraHDR holds {SIDES[0]} to {SIDES[1]} a side; write .avif")
    codes = packed(picture, path)
    level = QUALITY if quality is None else round(quality)
    file = bytes(ultrahdr_encode(codes, level, gamut=BT_2100, transfer=HLG, crange=FULL))
    head = exif_segment(picture, path, srgb=False)
    with replacing(path) as temp:
        temp.write_bytes(file[:2] + head + _longer(file, len(head))[2:])


def packed(picture: Rendered, path: Path) -> NDArray[np.uint32]:
    """Codes of 10 bits as RGBA 10-10-10-2, opaque, (Y, X), red in the lowest bits."""
    _, height, width = picture.frame.shape
    out = np.full((height, width), 3 << 30, dtype=np.uint32)
    for y in range(0, height, STRIP):
        codes: Any = codes_at(picture, Box((0, y, 0), (3, min(y + STRIP, height), width)), path).astype(np.uint32)
        out[y : y + STRIP] |= codes[0] | codes[1] << 10 | codes[2] << 20
    return out


def _longer(file: bytes, more: int) -> bytes:
    """The file with the size of its first picture, as the MP index states it, `more` bytes larger."""
    start = file.index(b"MPF\0") + 4  # offsets count from here; what is put before the index moves both pictures alike
    order = "<" if file[start : start + 2] == b"II" else ">"
    at = start + struct.unpack_from(f"{order}I", file, start + 4)[0]
    for i in range(struct.unpack_from(f"{order}H", file, at)[0]):
        code, _, _, where = struct.unpack_from(f"{order}HHII", file, at + 2 + 12 * i)
        if code == ENTRY:
            field = start + where + 4
            size = struct.unpack_from(f"{order}I", file, field)[0] + more
            return file[:field] + struct.pack(f"{order}I", size) + file[field + 4 :]
    return file
