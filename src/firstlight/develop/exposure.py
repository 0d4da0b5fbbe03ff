"""Exposure from what the file says, never from what the picture holds; and pixels turned upright.

A meter puts 18 % grey at 12.7 % of saturation (ISO 12232, saturation-based speed), so that diffuse white lies at 70.6 %. A file
that was exposed for less says so: DNG's BaselineExposure [stops], Fujifilm's dynamic ranges of 200 and 400 % (1 and 2 stops).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.geometry import Mosaic
from firstlight.io import exif

__all__ = ["GREY", "dynamic_range", "expose", "stops", "upright"]

Array = NDArray[Any]
GREY, WHITE = 0.127, 0.127 / 0.18  # of saturation
FUJI_SETTING, FUJI_CHOSEN, FUJI_AUTOMATIC = 0x1402, 0x1403, 0x140B  # dynamic range in Fujifilm's maker note
MANUAL, AUTOMATIC = 1, 0
WIDE = {0x100: 100, 0x200: 230, 0x201: 400}


def dynamic_range(note: bytes) -> int | None:
    """Dynamic range [%] that a Fujifilm maker note states: 100, 200, 400; None where it states none.

    A little-endian TIFF directory whose offset follows the 8 bytes FUJIFILM. Older cameras name their range in the setting.
    """
    if note[:8] != b"FUJIFILM" or len(note) < 14:
        return None
    setting = _short(note, FUJI_SETTING)
    if setting in WIDE:
        return WIDE[setting]
    return _short(note, FUJI_AUTOMATIC if setting == AUTOMATIC else FUJI_CHOSEN)


def _short(note: bytes, code: int) -> int | None:
    at = struct.unpack_from("<I", note, 8)[0]
    count = struct.unpack_from("<H", note, at)[0] if at + 2 <= len(note) else 0
    for i in range(count):
        entry = note[at + 2 + 12 * i : at + 14 + 12 * i]
        if len(entry) == 12 and struct.unpack_from("<HH", entry) == (code, 3):
            return int(struct.unpack_from("<H", entry, 8)[0])
    return None


def stops(frame: Frame) -> float:
    """By how many stops the file asks to be rendered brighter than its saturation says: BaselineExposure, dynamic range."""
    tags = getattr(frame.observation.header, "tags", None) or {}
    found = exif.number(tags.get("BaselineExposure")) or 0.0
    note = tags.get("MakerNote")
    percent = dynamic_range(bytes(note)) if isinstance(note, bytes | bytearray) else None
    return found + (float(np.log2(percent / 100)) if percent else 0.0)


def expose(frame: Frame, *, ev: float = 0.0, white: float | None = None, saturation: float | None = None) -> Frame:
    """Linear colours relative to diffuse white (1), float32: divided by where it lies, times 2^ev; nothing is clipped.

    white: where diffuse white lies, a share of saturation; None: 0.706 over 2^`stops`, by the file's own tags. saturation:
    green's [unit]; None: the observation's. Raises FrameError where it is unknown, or for a level that is not positive.
    """
    level = frame.observation.saturation if saturation is None else saturation
    if level is None:
        raise FrameError("develop.expose: the saturation level is unknown, so exposure is; give it (--detector saturation=...)")
    more = stops(frame)
    share = WHITE / 2**more if white is None else float(white)
    top = float(np.min(level))
    if not (share > 0 and top > 0 and np.isfinite(ev)):
        raise FrameError(
            f"develop.expose: white {share:g} of saturation {top:g}, ev {ev:g}; expected positive levels, finite stops"
        )
    gain = float(2**ev / (share * top))
    data = np.asarray(frame.data) * np.float32(gain)
    seen = replace(frame.observation, saturation=top * gain)
    told = {"ev": ev, "white": white, "stops of the file": more, "gain": gain}
    return frame.then("develop.expose", told, data=data, std=None, observation=seen)


def upright(frame: Frame) -> Frame:
    """The picture turned as EXIF's orientation 1..8 asks, orientation 1; flags and std with it.

    Raises FrameError for a mosaic, which stays as it was recorded, or an orientation that there is not.
    """
    told = frame.observation.orientation
    if told == 1:
        return frame
    if isinstance(frame.geometry, Mosaic) or not 1 <= told <= 8:
        raise FrameError(f"develop.upright: orientation {told}; expected 1..8 of a picture, colours (CYX) or one plane (YX)")
    maps = {k: None if (v := getattr(frame, k)) is None else _turned(np.asarray(v), told) for k in ("std", "flags")}
    seen = replace(frame.observation, orientation=1)
    data = _turned(np.asarray(frame.data), told)
    return frame.then("develop.upright", {"orientation": told}, data=data, observation=seen, **maps)


def _turned(plane: Array, orientation: int) -> Array:
    """(..., Y, X) of which row and column 0 are the visual sides that EXIF 2.3, 4.6.4 A lists."""
    if orientation >= 5:
        plane = np.swapaxes(plane, -1, -2)
    if orientation in (2, 3, 6, 7):
        plane = plane[..., ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[..., ::-1, :]
    return np.ascontiguousarray(plane)
