"""EXIF, written: the camera and exposure of a raw file, orientation 1, and the frame's history for `firstlight.io.read`.

Tags of EXIF 2.32, little-endian. The history stands as JSON in UserComment, in words in ImageDescription.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import __version__
from firstlight.frame import Frame, Observation
from firstlight.io import describe, exif
from firstlight.noise import Unmodelled

__all__ = [
    "EXIF_IFD",
    "NO_NOISE",
    "append",
    "block",
    "camera",
    "comment",
    "described",
    "directory",
    "embedded",
    "exposure",
    "inner",
    "rationals",
]

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
EXIF_IFD = 34665
PREFIX = b"ASCII\0\0\0"  # UserComment's character code
START = '{"firstlight": '
NO_NOISE = "developed for display: the detector's noise is not carried in the file"
KEPT = ("instrument", "setting", "exposure", "time", "band")
Entry = tuple[int, int, int, bytes]


def block(frame: Frame, *, srgb: bool) -> bytes:
    """An EXIF block (a TIFF structure) of the frame's observation and history; `srgb` is its ColorSpace, else uncalibrated."""
    pointer = (EXIF_IFD, LONG, 1, struct.pack("<I", 0))
    end = 8 + len(directory([*camera(frame), pointer], 8))
    pointer = (EXIF_IFD, LONG, 1, struct.pack("<I", end))
    return b"II*\0" + struct.pack("<I", 8) + directory([*camera(frame), pointer], 8) + inner(frame, end, srgb=srgb)


def append(path: Path, make: Callable[[int], bytes]) -> None:
    """Give a TIFF file an EXIF directory: `make(at)` at its end, and its tag 34664 (one LONG) renamed to the pointer."""
    import tifffile

    with path.open("r+b") as f:
        at = f.seek(0, 2)
        at += f.write(b"\0" * (at % 2))
        f.write(make(at))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page: Any = tiff.pages[0]
        entry = page.tags[EXIF_IFD - 1]
        entry.overwrite(at)
    with path.open("r+b") as f:  # tifffile writes no EXIF pointer of its own
        f.seek(entry.offset)
        f.write(struct.pack("<H", EXIF_IFD))


def directory(entries: list[Entry], at: int) -> bytes:
    """A TIFF directory that starts at byte `at`, the last of its chain; values of more than four bytes follow it."""
    start = at + 2 + 12 * len(entries) + 4
    out, data = struct.pack("<H", len(entries)), b""
    for code, kind, count, value in sorted(entries):
        inline = len(value) <= 4
        out += struct.pack("<HHI", code, kind, count)
        out += value.ljust(4, b"\0") if inline else struct.pack("<I", start + len(data))
        data += b"" if inline else value + b"\0" * (len(value) % 2)
    return out + struct.pack("<I", 0) + data


def exposure(frame: Frame) -> list[Entry]:
    """Exposure [s], aperture, ISO, time, focal length [mm] and lens, where known: entries of an EXIF directory."""
    obs, tags = frame.observation, _tags(frame)
    found = [
        _rational(33434, obs.exposure),
        _rational(33437, exif.number(tags.get("FNumber"))),
        *_iso(obs.setting),
        _stamp(36867, obs.time),
        _rational(37386, exif.number(tags.get("FocalLength"))),
        _text(42036, tags.get("LensModel")),
    ]
    return [e for e in found if e is not None]


def camera(frame: Frame) -> list[Entry]:
    """What was done, camera, software and time, orientation 1: entries of a TIFF's first directory."""
    steps = " > ".join(r.step for r in frame.history)
    found = [
        _text(270, steps),
        _text(271, _tags(frame).get("Make")),
        _text(272, frame.observation.instrument),
        (274, SHORT, 1, struct.pack("<H", 1)),
        _text(305, f"firstlight {__version__}"),
        _stamp(306, frame.observation.time),
    ]
    return [e for e in found if e is not None]


def inner(frame: Frame, at: int, *, srgb: bool) -> bytes:
    """The EXIF directory at byte `at`: exposure, colour space, and the frame's description."""
    comment = PREFIX + described(frame).encode("ascii")
    said = [
        (36864, UNDEFINED, 4, b"0232"),
        (37510, UNDEFINED, len(comment), comment),
        (40961, SHORT, 1, struct.pack("<H", 1 if srgb else 0xFFFF)),
    ]
    return directory([*exposure(frame), *said], at)


def _tags(frame: Frame) -> dict[str, Any]:
    return getattr(frame.observation.header, "tags", None) or {}


def _text(code: int, value: Any) -> Entry | None:
    text = str(value or "").strip("\0 ").encode("ascii", "replace")
    return (code, ASCII, len(text) + 1, text + b"\0") if text else None


def _rational(code: int, value: float | None) -> Entry | None:
    known = value is not None and 0 <= value < 2**32
    return (code, RATIONAL, 1, struct.pack("<II", *rationals(value, 1 << 20))) if known else None


def rationals(values: Any, limit: int = 1 << 16) -> tuple[int, ...]:
    """Numerators and denominators (at most `limit`) of numbers, each within 32 signed bits."""
    bounded = [(float(v), max(1, min(limit, int(2**31 / max(1.0, abs(v)))))) for v in np.ravel(values)]
    pairs = [Fraction(v).limit_denominator(most) for v, most in bounded]
    return tuple(n for f in pairs for n in (f.numerator, f.denominator))


def _iso(setting: str | None) -> list[Entry]:
    """ISO speed; from 65535 on in the tag of 32 bits besides (SensitivityType 2: recommended exposure index)."""
    found = re.fullmatch(r"(?:ISO ?)?(\d+)", setting or "")
    if not found or int(found[1]) >= 2**32:
        return []
    iso = int(found[1])
    short = (34855, SHORT, 1, struct.pack("<H", min(iso, 65535)))
    return (
        [short] if iso < 65535 else [short, (34864, SHORT, 1, struct.pack("<H", 2)), (34866, LONG, 1, struct.pack("<I", iso))]
    )


def _stamp(code: int, time: str | None) -> Entry | None:
    if not time or not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", time):
        return None
    return _text(code, time[:19].replace("-", ":").replace("T", " "))


def _upright(frame: Frame) -> Frame:
    """The frame as a picture's file describes it: history, camera and exposure; no noise model, maps or geometry."""
    obs = Observation(**{f.name: getattr(frame.observation, f.name) for f in fields(Observation) if f.name in KEPT})
    bare = frame.replace(std=None, flags=None, psf=None, geometry=None, spacing={})
    return bare.replace(noise=Unmodelled(NO_NOISE), observation=obs)


def described(frame: Frame) -> str:
    """What a picture's file keeps of the frame, as JSON (ASCII)."""
    return describe.dumps(_upright(frame))


def comment(exif_block: bytes) -> str | None:
    """The description that an EXIF block of ours holds, None where it holds none."""
    _, found, text = exif_block.partition(PREFIX + START.encode())
    return START + text.partition(b"\0")[0].decode("ascii", "replace") if found else None


def embedded(plain: Frame, comment: str | None) -> Frame:
    """`plain`, or, where a file's comment is our description, the Frame it describes, with plain's data and header."""
    if comment is None or not comment.startswith(START):
        return plain
    obs = plain.observation
    text = comment[: json.JSONDecoder().raw_decode(comment)[1]]  # other tags may follow it
    return describe.attach(plain.data, text, {}, header=obs.header, source=obs.source)
