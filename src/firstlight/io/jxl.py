"""JPEG XL: scene-linear float32 masters, lossless, in linear sRGB with values below 0 and above 1 as they are.

The encoder at hand tags what it writes as linear sRGB and takes no other colours, so the values are turned to sRGB's
primaries before and the tag is true: nothing is clipped, colours beyond sRGB are negative numbers. Diffuse white is 1 and no
absolute luminance is stated. Lossy coding errs by half of white beyond 0..1 and is refused. Only files written here are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.io import exif_write, icc
from firstlight.io.contiguous import refuse_ext
from firstlight.io.isobmff import box, inside
from firstlight.io.rendered import Rendered, codes_at
from firstlight.noise import Unmodelled

__all__ = ["read", "write"]

EFFORT = 1  # of libjxl for lossless float: 3 takes 1.8 times as long and gains 1 %
STRIP = 256  # rows at once
CONTAINER = box(b"JXL ", b"\r\n\x87\n")
NOT_OURS = "a JPEG XL that firstlight did not write: what its numbers mean is not known; convert it to .tif or .png"


def write(picture: Rendered, path: Path, quality: float | None) -> None:
    """Write scene-linear float32, lossless. Raises WriteError for any quality but 100."""
    from imagecodecs import jpegxl_encode

    if quality not in (None, 100):
        raise WriteError(f"{path}: quality {quality:g}, expected 100: a master in JPEG XL is lossless; write .avif")
    file = jpegxl_encode(_srgb(picture, path), lossless=True, effort=EFFORT, usecontainer=True)
    if not file.startswith(CONTAINER):
        raise WriteError(f"{path}: the JPEG XL encoder wrote no container, which EXIF needs; write .tif")
    exif = box(b"Exif", bytes(4), exif_write.block(picture.frame, srgb=False))
    with replacing(path) as temp, temp.open("wb") as f:
        f.write(file)
        f.write(exif)


def _srgb(picture: Rendered, path: Path) -> NDArray[np.float32]:
    """The picture (Y, X, 3) in linear sRGB."""
    turn = np.linalg.solve(icc.to_xyz("srgb"), icc.to_xyz("rec2020"))
    _, height, width = picture.frame.shape
    out = np.empty((height, width, 3), dtype=np.float32)
    for y in range(0, height, STRIP):
        rows = codes_at(picture, Box((0, y, 0), (3, min(y + STRIP, height), width)), path)
        out[y : y + STRIP] = np.moveaxis(_mixed(turn, rows), 0, 2)
    return out


def _mixed(turn: NDArray[Any], rgb: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.einsum("ij,j...->i...", turn, rgb, optimize=False))


def read(path: Path, ext: str | int | None = None) -> Frame:
    """A master that `write` wrote: CYX float32, linear Rec.2020, diffuse white 1. Raises ReadError for any other JPEG XL."""
    from imagecodecs import jpegxl_decode

    refuse_ext(path, ext)
    file = path.read_bytes()
    text = exif_write.comment(_exif(path, file)) if file.startswith(CONTAINER) else None
    if text is None:
        raise ReadError(f"{path}: {NOT_OURS}")
    turn = np.linalg.solve(icc.to_xyz("rec2020"), icc.to_xyz("srgb"))
    pixels = np.moveaxis(np.asarray(jpegxl_decode(file, numthreads=1)), 2, 0)
    data = np.empty(pixels.shape, dtype=np.float32)
    for y in range(0, pixels.shape[1], STRIP):
        data[:, y : y + STRIP] = _mixed(turn, pixels[:, y : y + STRIP])
    plain = Frame(data, "CYX", Unit.REC2020, Unmodelled(exif_write.NO_NOISE), observation=Observation(source=str(path)))
    return exif_write.embedded(plain, text)


def _exif(path: Path, file: bytes) -> bytes:
    try:
        return inside(file, b"Exif")
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from error
