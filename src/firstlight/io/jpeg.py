"""JPEG of a developed picture: sRGB codes of 8 bits with EXIF and ICC profile; the segments of any JPEG."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.errors import WriteError
from firstlight.io import exif_write, icc
from firstlight.io.rendered import Rendered, codes_at

__all__ = ["QUALITY", "exif_segment", "segment", "write"]

QUALITY = 95
LARGEST = 65500  # px a side, libjpeg's own limit
SEGMENT = 65533  # bytes that one segment holds


def write(picture: Rendered, path: Path, quality: float | None) -> None:
    """Write sRGB codes of 8 bits, colour at full resolution. Raises WriteError over 65500 px a side."""
    from imagecodecs import jpeg_encode

    shape = picture.frame.shape
    if max(shape) > LARGEST:
        raise WriteError(f"{path}: {shape[1:]} px, JPEG holds {LARGEST} a side; write .tif")
    codes = np.stack([*codes_at(picture, Box.whole(shape), path)], axis=-1)
    file = jpeg_encode(codes, level=QUALITY if quality is None else round(quality), subsampling="444")
    head = exif_segment(picture, path, srgb=True) + segment(0xE2, b"ICC_PROFILE\0\x01\x01" + icc.profile("srgb", "srgb"), path)
    with replacing(path) as temp:
        temp.write_bytes(file[:2] + head + file[2:])


def segment(marker: int, body: bytes, path: Path) -> bytes:
    """A JPEG segment; raises WriteError where it holds more than 65533 bytes."""
    if len(body) > SEGMENT:
        raise WriteError(f"{path}: EXIF with its history is {len(body)} bytes, JPEG holds {SEGMENT}; write .avif or .tif")
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif_segment(picture: Rendered, path: Path, *, srgb: bool) -> bytes:
    """The APP1 segment with the picture's EXIF."""
    return segment(0xE1, b"Exif\0\0" + exif_write.block(picture.frame, srgb=srgb), path)
