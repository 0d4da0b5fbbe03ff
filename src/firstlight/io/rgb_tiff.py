"""TIFF of a developed picture: sRGB or linear BT.2020 with its ICC profile and EXIF, uncompressed, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.errors import WriteError
from firstlight.io import exif_write, icc
from firstlight.io.rendered import Rendered, codes_at

__all__ = ["write"]

STRIP = 256  # rows of a strip
CLASSIC = (1 << 32) - (1 << 26)  # bytes that offsets of 32 bits reach


def write(picture: Rendered, path: Path, quality: float | None) -> None:
    """Write codes of 16 bits or float32 as they are. Raises WriteError for a quality, or 4 GB and more."""
    import tifffile

    if quality is not None:
        raise WriteError(f"{path}: quality {quality:g} for a TIFF, which loses nothing; leave it out")
    frame, kind = picture.frame, picture.kind
    _, height, width = frame.shape
    dtype = np.dtype(frame.data.dtype)
    if 3 * height * width * dtype.itemsize > CLASSIC:
        raise WriteError(f"{path}: {height} x {width} px are over 4 GB, more than a TIFF with EXIF holds; write it as a volume")
    with replacing(path) as temp:
        tifffile.imwrite(
            temp,
            _strips(picture, path),
            shape=(height, width, 3),
            dtype=dtype,
            byteorder="<",
            photometric="rgb",
            rowsperstrip=STRIP,
            iccprofile=icc.profile(kind.primaries, kind.transfer),
            metadata=None,
            extratags=[(exif_write.EXIF_IFD - 1, 4, 1, 0, True), *((*e, True) for e in exif_write.camera(frame))],
            software=False,
        )
        exif_write.append(temp, lambda at: exif_write.inner(frame, at, srgb=kind.transfer == "srgb"))


def _strips(picture: Rendered, path: Path) -> Iterator[NDArray[np.generic]]:
    _, height, width = picture.frame.shape
    for y in range(0, height, STRIP):
        rows = codes_at(picture, Box((0, y, 0), (3, min(y + STRIP, height), width)), path)
        yield np.ascontiguousarray(np.moveaxis(rows, 0, 2))
