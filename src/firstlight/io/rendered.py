"""Developed pictures: codes and what they mean (transfer, primaries, bits), written as AVIF, UltraHDR, JPEG XL, TIFF or JPEG.

Linear and mosaic frames go to DNG through `firstlight.io.write` instead: a CYX frame becomes a LinearRaw DNG.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError, WriteError
from firstlight.frame import Frame

__all__ = ["TARGETS", "Kind", "Rendered", "Target", "codes_at", "write_rendered"]


@dataclass(frozen=True)
class Kind:
    """What codes mean: transfer "hlg", "srgb" or "linear"; primaries "rec2020" or "srgb"; bits 8, 10, 16, or 32 for float32."""

    transfer: str
    primaries: str
    bits: int

    def __str__(self) -> str:
        return f"{self.transfer} in {self.primaries}, {'float32' if self.bits == 32 else f'{self.bits} bits'}"


HLG = Kind("hlg", "rec2020", 10)
SRGB8, SRGB16 = Kind("srgb", "srgb", 8), Kind("srgb", "srgb", 16)
LINEAR16, LINEAR32 = Kind("linear", "rec2020", 16), Kind("linear", "rec2020", 32)


@dataclass(frozen=True)
class Target:
    """A format: its suffixes (the usual one first) and the kinds that it holds (the usual one first)."""

    module: str
    suffixes: tuple[str, ...]
    kinds: tuple[Kind, ...]


TARGETS = {
    "avif": Target("avif", (".avif",), (HLG,)),
    "ultrahdr": Target("ultrahdr", (".jpg", ".jpeg"), (HLG,)),
    "jxl": Target("jxl", (".jxl",), (LINEAR32,)),
    "tiff": Target("rgb_tiff", (".tif", ".tiff"), (SRGB16, LINEAR16, LINEAR32)),
    "jpeg": Target("jpeg", (".jpg", ".jpeg"), (SRGB8,)),
}


@dataclass(frozen=True, eq=False)
class Rendered:
    """A picture as a file holds it.

    frame: axes CYX, (3, Y, X): whole codes 0..2^bits - 1 (full range; uint8 for 8 bits, uint16 otherwise), or float32 for
    scene-linear values with diffuse white at 1, below 0 and above 1 allowed. Its history and its observation (EXIF of the raw
    file) are embedded; flags and std are not. Pixels stand upright: orientation is written as 1. Raises FrameError where the
    data are none of this.
    """

    frame: Frame
    kind: Kind

    def __post_init__(self) -> None:
        shape, dtype = self.frame.shape, np.dtype(self.frame.data.dtype)
        wanted = np.dtype({8: np.uint8, 32: np.float32}.get(self.kind.bits, np.uint16))
        if self.frame.axes != "CYX" or shape[0] != 3 or min(shape) < 1:
            raise FrameError(f"rendered: axes {self.frame.axes} of shape {shape}, expected CYX of three channels; develop it")
        if dtype != wanted:
            raise FrameError(f"rendered: {dtype} for {self.kind}, expected {wanted}; render it for that kind")
        if self.frame.observation.orientation != 1:
            raise FrameError(f"rendered: orientation {self.frame.observation.orientation}, expected upright pixels; turn them")


def write_rendered(picture: Rendered, path: Path, *, to: str, quality: float | None = None) -> Path:
    """Write a developed picture to `path` (temporary name, then renamed); returns the path.

    to: a key of TARGETS. quality: 0 to 100, the format's usual one where None; 100 keeps every code in "avif"; "jxl" and "tiff"
    lose nothing and take none. Raises WriteError for a kind, size or quality that the format cannot hold, a wrong suffix, a
    missing folder.
    """
    target = TARGETS.get(to)
    if target is None:
        raise WriteError(f"{path}: no format {to!r}, expected one of {', '.join(TARGETS)}")
    if path.suffix.lower() not in target.suffixes:
        raise WriteError(f"{path}: a picture of format {to} is named {' or '.join(target.suffixes)}; rename it")
    if picture.kind not in target.kinds:
        raise WriteError(f"{path}: {to} holds {' or '.join(map(str, target.kinds))}, not {picture.kind}; render it for {to}")
    if quality is not None and not 0 <= quality <= 100:
        raise WriteError(f"{path}: quality {quality}, expected 0 to 100")
    if not path.parent.is_dir():
        raise WriteError(f"{path}: the folder {path.parent} does not exist; create it first")
    import_module(f"firstlight.io.{target.module}").write(picture, path, quality)
    return path


def codes_at(picture: Rendered, box: Box, path: Path) -> NDArray[Any]:
    """The codes in `box`, (3, Y, X); raises WriteError for codes beyond the kind's bits and values that are not finite."""
    block = np.asarray(picture.frame.data[box.slices])
    if picture.kind.bits == 32:
        good, what = bool(np.all(np.isfinite(block))), "values that are not finite"
    else:
        good, what = int(block.max()) < 1 << picture.kind.bits, f"codes up to {block.max()}"
    if not good:
        raise WriteError(f"{path}: {what} in {picture.kind}; render it again")
    return block
