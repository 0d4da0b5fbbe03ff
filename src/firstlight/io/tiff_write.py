"""Writing TIFF, BigTIFF and OME-TIFF: one uncompressed array, filled block by block through a memory map."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.box import Box
from firstlight.errors import WriteError
from firstlight.frame import Frame, Unit
from firstlight.io.contiguous import refuse_packed
from firstlight.io.partial import Partial

__all__ = ["OME_TYPES", "create"]

CLASSIC_BYTES = (1 << 32) - (1 << 26)  # offsets of 32 bits, with room for the pages' tables
OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")


class _Writer:
    def __init__(self, path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> None:
        import tifffile

        self._partial = Partial(path)
        try:
            options = (
                _ome(path, like, dtype)
                if path.name.lower().endswith((".ome.tif", ".ome.tiff"))
                else _shaped(like, shape, dtype)
            )
            self._data = tifffile.memmap(
                self._partial.temp,
                shape=shape,
                dtype=dtype.newbyteorder("="),
                bigtiff=prod(shape) * dtype.itemsize > CLASSIC_BYTES,
                software="firstlight",
                resolution=tuple(1e4 / like.spacing[a] if like.spacing.get(a) else 1.0 for a in "XY"),
                resolutionunit="CENTIMETER" if {"X", "Y"} <= set(like.spacing) else "NONE",
                **options,
            )
            self._std = self._partial.describe(like, shape, std)
        except BaseException:
            self._partial.abort()
            raise

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        self._data[box.slices] = block
        if self._std is not None:
            self._std[box.slices] = std

    def close(self) -> None:
        self._data.flush()
        self._partial.commit()

    def abort(self) -> None:
        self._partial.abort()


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> _Writer:
    """A writer of one uncompressed TIFF (BigTIFF from 4 GB on), OME-TIFF where named .ome.tif, with companions.

    Raises WriteError for types that TIFF or OME do not have, and for OME of both T and A, or C and S.
    """
    refuse_packed(path)
    if dtype.kind not in "fiu" or dtype.name == "longdouble" or dtype.itemsize > 8:
        raise WriteError(f"{path}: TIFF holds real numbers, got {dtype}; cast the data")
    if min(shape) < 1:
        raise WriteError(f"{path}: TIFF holds no empty axis, got shape {shape}")
    return _Writer(path, like, shape, dtype, std)


def _source(like: Frame) -> str:
    header = like.observation.header
    return str(header.get("description", "")) if isinstance(header, dict) and header.get("format") == "TIFF" else ""


def _shaped(like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """tifffile's own JSON description, with unit, spacing and the source's description; S is colour there, so Q."""
    axes = like.axes.replace("S", "Q")
    rgb = like.unit == Unit.DISPLAY and axes == "CYX" and shape[0] == 3 and dtype.kind == "u"
    own = {"axes": like.axes, "unit": str(like.unit), "spacing": dict(like.spacing), "source": _source(like)}
    return {
        "photometric": "rgb" if rgb else "minisblack",
        "planarconfig": "separate" if rgb else None,
        "metadata": {"axes": "SYX" if rgb else axes, "firstlight": own},
        "ome": False,
    }


def _ome(path: Path, like: Frame, dtype: np.dtype[Any]) -> dict[str, Any]:
    """OME's metadata; projections A stand as T, samples S as C, and the companion says so."""
    axes = like.axes
    if {"T", "A"} <= set(axes) or {"C", "S"} <= set(axes):
        raise WriteError(f"{path}: OME-TIFF holds T, C, Z only, got {axes}; choose .tif")
    if dtype.name not in OME_TYPES:
        raise WriteError(f"{path}: OME-TIFF holds {', '.join(OME_TYPES)}, got {dtype.name}; cast the data or choose .tif")
    metadata: dict[str, Any] = {"axes": axes.replace("A", "T").replace("S", "C")}
    for a, value in like.spacing.items():
        if a in "ZYX":
            metadata |= {f"PhysicalSize{a}": value, f"PhysicalSize{a}Unit": "µm"}
    if source := _source(like):
        metadata["CommentAnnotation"] = {"Value": source, "Description": "description of the source file"}
    if like.observation.time:
        metadata["AcquisitionDate"] = like.observation.time
    return {"photometric": "minisblack", "metadata": metadata, "ome": True}
