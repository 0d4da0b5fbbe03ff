"""PNG and JPEG: display-referred pictures, 8 or 16 bits, grey or RGB; no noise model.

Colour becomes axis C. Transparency is kept for the writer; pixels of alpha 0 set Flag.NO_DATA. A PNG that holds raw counts is
declared so by the user: `io.assume(frame, unit="adu")`. PNG holds uint8 and uint16 as they are, and floating display values
0..1 as 16 bits; JPEG holds 8 bits, loses detail, and says so.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.io import exif_write
from firstlight.io.contiguous import refuse_ext
from firstlight.io.partial import Partial, read_described
from firstlight.noise import Unmodelled

__all__ = ["REASON", "Alpha", "create", "planes", "read"]

MAX_PIXELS = 1 << 29  # decoded whole: half a gigapixel is 3 GB of 16-bit RGB
QUALITY = 95  # of JPEG, with colour at full resolution: within a few codes of what was given
LOSSY = f"JPEG loses detail (quality {QUALITY}): write .png or .tif to keep every code"
DEFLATE = 1032  # zlib packs at most 1032 : 1
REASON = "display-referred: gamma and quantisation hide the detector; where the file holds raw counts, say so (unit adu)"
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


@dataclass(frozen=True, eq=False)
class Alpha:
    """The opacity plane (Y, X) of a picture, for the writer."""

    plane: NDArray[Any]


def read(path: Path, ext: str | int | None = None) -> Frame:
    """A PNG or JPEG picture: YX, or CYX for RGB, in display codes (uint8 or uint16)."""
    refuse_ext(path, ext)
    raw = path.read_bytes()
    pixels = _png(path, raw) if raw.startswith(b"\x89PNG\r\n\x1a\n") else _jpeg(path, raw)
    data, alpha = planes(path, pixels)
    flags = None
    if alpha is not None and not np.all(alpha):
        flags = np.where(alpha == 0, np.uint8(Flag.NO_DATA), np.uint8(0))
    note = Observation(orientation=_orientation(raw), header=None if alpha is None else Alpha(alpha), source=str(path))
    axes = "YX" if data.ndim == 2 else "CYX"
    plain = Frame(data, axes, Unit.DISPLAY, Unmodelled(REASON), flags=flags, observation=note)
    return read_described(data, path, exif_write.embedded(plain, exif_write.comment(_exif(raw))))


def planes(path: Path, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Data (Y, X) or (3, Y, X), and the opacity plane where there is one."""
    if pixels.ndim == 2:
        return pixels, None
    n = pixels.shape[2]
    if n not in (1, 2, 3, 4):
        raise ReadError(f"{path}: has {n} channels, expected grey or RGB with or without alpha")
    colour = np.ascontiguousarray(np.moveaxis(pixels[..., : 1 if n < 3 else 3], 2, 0))
    return (colour[0] if n < 3 else colour), (np.ascontiguousarray(pixels[..., -1]) if n in (2, 4) else None)


def _bounded(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or width < 1 or height < 1:
        raise ReadError(
            f"{path}: its header claims {width} x {height} pixels, expected 1 to {MAX_PIXELS}; convert larger pictures to TIFF"
        )


def _png(path: Path, raw: bytes) -> NDArray[Any]:
    if len(raw) < 33 or raw[12:16] != b"IHDR":
        raise ReadError(f"{path}: truncated in the PNG header; copy the file again")
    width, height, depth, colour = struct.unpack(">IIBB", raw[16:26])
    _bounded(path, width, height)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    if width * height * samples * depth // 8 > DEFLATE * len(raw):
        raise ReadError(
            f"{path}: its header claims {width} x {height} pixels, more than its {len(raw)} bytes can hold; damaged"
        )
    if b"IEND" not in raw[-4096:]:
        raise ReadError(f"{path}: truncated, the PNG end mark is missing; copy the file again")
    from imagecodecs import png_decode

    return np.asarray(png_decode(raw))


def _jpeg(path: Path, raw: bytes) -> NDArray[Any]:
    if not raw.startswith(b"\xff\xd8"):
        raise ReadError(f"{path}: is neither PNG nor JPEG by its first bytes")
    size = _jpeg_size(raw)
    if size is None or raw.rfind(b"\xff\xd9") < len(raw) // 2:
        raise ReadError(f"{path}: truncated, the JPEG end mark is missing; copy the file again")
    height, width, channels = size
    _bounded(path, width, height)
    if channels not in (1, 3):
        raise ReadError(f"{path}: a JPEG of {channels} channels (CMYK?), expected grey or RGB; convert it first")
    from imagecodecs import jpeg_decode

    return np.asarray(jpeg_decode(raw))


def _segments(raw: bytes) -> Any:
    """Marker and payload of each JPEG segment up to the image data."""
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        yield marker, raw[at + 4 : at + 2 + length]
        if marker == 0xDA or length < 2:
            return
        at += 2 + length


def _jpeg_size(raw: bytes) -> tuple[int, int, int] | None:
    for marker, body in _segments(raw):
        if marker in _SOF and len(body) >= 6:
            height, width, channels = struct.unpack(">HHB", body[1:6])
            return height, width, channels
    return None


def _exif(raw: bytes) -> bytes:
    """The EXIF block of a JPEG, empty where there is none."""
    found = _segments(raw) if raw[:2] == b"\xff\xd8" else ()
    return next((b[6:] for m, b in found if m == 0xE1 and b.startswith(b"Exif\0\0")), b"")


def _orientation(raw: bytes) -> int:
    """EXIF orientation 1..8 of a JPEG; 1 where the file states none. The pixels are not turned."""
    exif = _exif(raw)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 1
    at = struct.unpack(f"{order}I", exif[4:8])[0]
    count = struct.unpack(f"{order}H", exif[at : at + 2])[0] if at + 2 <= len(exif) else 0
    for i in range(count):
        entry = exif[at + 2 + 12 * i : at + 14 + 12 * i]
        if len(entry) == 12 and struct.unpack(f"{order}H", entry[:2])[0] == 0x0112:
            value = int(struct.unpack(f"{order}H", entry[8:10])[0])
            return value if 1 <= value <= 8 else 1
    return 1


class _Writer:
    """Collects the blocks in a temporary array on disk and encodes them on closing."""

    def __init__(self, path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> None:
        _holds(path, like, shape, dtype)
        self._partial = Partial(path)
        self._jpeg = path.suffix.lower() != ".png"
        wide: np.dtype[Any] = np.dtype(np.uint8 if self._jpeg else np.uint16)
        self._codes: np.dtype[Any] = wide if dtype.kind == "f" else dtype
        header = like.observation.header
        self._alpha = header.plane if isinstance(header, Alpha) and header.plane.shape == shape[-2:] else None
        self._raw = self._partial.temp.with_name(f"{self._partial.temp.name}.codes")
        try:
            self._data: Any = np.memmap(self._raw, mode="w+", dtype=self._codes, shape=shape)
            self._std = self._partial.describe(like, shape, std)
        except BaseException:
            self.abort()
            raise

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write display codes, or display values 0..1, at `box`; raises WriteError for values outside."""
        values = np.asarray(block)
        if values.dtype.kind == "f":
            if not (np.all(values >= 0) and np.all(values <= 1)):
                raise WriteError(
                    f"{self._partial.path}: display values from {values.min():g} to {values.max():g}, expected 0..1; scale them"
                )
            values = np.rint(values * np.iinfo(self._codes).max)
        self._data[box.slices] = values.astype(self._codes)
        if self._std is not None:
            self._std[box.slices] = std

    def close(self) -> None:
        """Encode and rename."""
        from imagecodecs import jpeg_encode, png_encode

        data = self._data if self._data.ndim == 2 else np.moveaxis(self._data, 0, 2)
        if self._alpha is not None:
            alpha = _depth(self._alpha, self._codes)
            data = np.dstack([data, alpha])
        data = np.ascontiguousarray(data)
        code = jpeg_encode(data, level=QUALITY, subsampling="444") if self._jpeg else png_encode(data)
        self._partial.temp.write_bytes(code)
        self._data = None
        self._raw.unlink()
        self._partial.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._data = None
        self._raw.unlink(missing_ok=True)
        self._partial.abort()


def _depth(plane: NDArray[Any], codes: np.dtype[Any]) -> NDArray[Any]:
    """Codes of 8 bits as 16 (times 257, exact) or of 16 bits as 8, or as they are."""
    if plane.dtype == codes:
        return plane
    return plane.astype(np.uint16) * np.uint16(257) if codes == np.uint16 else np.rint(plane / 257).astype(np.uint8)


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> _Writer:
    """A writer of one PNG or JPEG with companions; raises WriteError for what it cannot hold, warns that JPEG loses detail."""
    return _Writer(path, like, shape, dtype, std)


def _holds(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raises WriteError for what a picture cannot hold; warns of JPEG."""
    jpeg = path.suffix.lower() != ".png"
    name = "JPEG" if jpeg else "PNG"
    if not (like.axes == "YX" or (like.axes == "CYX" and shape[0] == 3)):
        raise WriteError(
            f"{path}: {name} holds YX or three channels CYX, not {like.axes} of shape {shape}; write .tif or .fits"
        )
    real = dtype.kind == "f" and like.unit == Unit.DISPLAY
    if not real and dtype not in (np.uint8, np.uint16):
        raise WriteError(
            f"{path}: {name} holds whole codes or display values 0..1, not {dtype} in {like.unit}; write .tif, .fits or .npy"
        )
    if not jpeg:
        return
    if dtype == np.uint16:
        raise WriteError(f"{path}: JPEG holds 8 bits, not 16; write .png or .tif")
    if isinstance(like.observation.header, Alpha):
        raise WriteError(f"{path}: JPEG holds no opacity, which the picture has; write .png")
    warnings.warn(f"{path}: {LOSSY}", UserWarning, stacklevel=2)
