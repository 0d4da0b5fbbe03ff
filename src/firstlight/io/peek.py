"""What a file says of itself, without its pixels: camera, setting, exposure, time, shape. Camera raw is not decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from firstlight import io
from firstlight.errors import FirstlightError, ReadError
from firstlight.frame import Frame
from firstlight.io import exif
from firstlight.io.dng import MAKER

__all__ = ["Facts", "peek"]

UNDECODED = (".arw", ".raf", ".nef", ".cr2", ".cr3", ".dng")


class Facts(NamedTuple):
    """A file's header: instrument, setting (ISO), exposure [s], time, shape and dtype as `io.read` gives them, doubts."""

    instrument: str | None
    setting: str | None
    exposure: float | None
    time: str | None
    shape: tuple[int, ...]
    dtype: str
    doubts: tuple[str, ...] = ()


def peek(path: str | Path) -> Facts:
    """The header of a file; pixels are left alone where the format allows. Raises ReadError as `io.read` does."""
    path = Path(path)
    if path.suffix.lower() not in UNDECODED or not path.is_file() or path.stat().st_size == 0:
        return _of(io.read(path))
    try:
        tags = exif.tags(path)
        plain = not _ours(tags) and not _linear(tags) and {"Make", "DNGVersion"} & set(tags)
        return _raw(path, tags) if plain else _of(io.read(path))
    except FirstlightError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{path}: cannot be read, damaged or not what its name says ({cause})") from error


def _of(frame: Frame) -> Facts:
    seen = frame.observation
    dtype = str(np.dtype(frame.data.dtype).name)
    return Facts(seen.instrument, seen.setting, seen.exposure, seen.time, frame.shape, dtype, tuple(io.doubts(frame)))


def _ours(tags: dict[str, Any]) -> bool:
    return tags.get("Make") == MAKER


def _linear(tags: dict[str, Any]) -> bool:
    return tags.get("PhotometricInterpretation") == exif.LINEAR_RAW or int(np.max(tags.get("SamplesPerPixel", 1))) > 1


def _raw(path: Path, tags: dict[str, Any]) -> Facts:
    import rawpy

    try:
        raw = rawpy.imread(str(path))  # opens; LibRaw decodes when pixels are asked for
    except rawpy.LibRawError as error:
        raise ReadError(f"{path}: LibRaw cannot open it ({error}); is it complete, and a raw file?") from error
    with raw:
        shape = (int(raw.sizes.height), int(raw.sizes.width))
        iso = np.atleast_1d(tags.get("ISOSpeedRatings") or 0)[0]
        exposure = exif.number(tags.get("ExposureTime"))
        if not iso or exposure is None:  # what LibRaw knows from maker notes; asking decodes the image
            other = getattr(raw, "other", None)
            iso = iso or (float(other.iso_speed) if other else 0)
            exposure = exposure or (float(other.shutter_speed) or None if other else None)
    return Facts(
        tags.get("Model"),
        f"ISO {iso:g}" if iso else None,
        exposure,
        exif.time(tags.get("DateTimeOriginal") or tags.get("DateTime")),
        shape,
        "uint16",
    )
