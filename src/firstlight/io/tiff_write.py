"""Writing TIFF, BigTIFF and OME-TIFF: one uncompressed array, filled block by block through a memory map."""

from __future__ import annotations

from functools import partial as bound
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.errors import WriteError
from firstlight.frame import Frame, Unit
from firstlight.io.contiguous import refuse_packed
from firstlight.io.partial import MappedWriter, Partial
from firstlight.io.storage import Storage

__all__ = ["CODECS", "OME_TYPES", "create"]

CODECS = ("none",)

CLASSIC_BYTES = (1 << 32) - (1 << 26)  # offsets of 32 bits, with room for the pages' tables
OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")


def create(
    path: Path,
    like: Frame,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    std: bool,
    *,
    storage: Storage,
    partial: Partial,
) -> MappedWriter:
    """A writer of one uncompressed TIFF (BigTIFF from 4 GB on), OME-TIFF where named .ome.tif, with companions.

    Raises WriteError for types that TIFF or OME do not have, and for OME of both T and A, or C and S.
    """
    import tifffile

    refuse_packed(path)
    if dtype.kind not in "fiu" or dtype.name == "longdouble" or dtype.itemsize > 8:
        raise WriteError(f"{path}: TIFF holds real numbers, got {dtype}; cast the data")
    if min(shape) < 1:
        raise WriteError(f"{path}: TIFF holds no empty axis, got shape {shape}")
    ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    options = _ome(path, like, dtype) if ome else _shaped(like, shape, dtype)
    if storage.levels is not None:
        raise WriteError(f"{path}: TIFF is written with one level; leave levels out or choose .zarr")
    make = bound(
        tifffile.memmap,
        shape=shape,
        dtype=dtype.newbyteorder("="),
        bigtiff=prod(shape) * dtype.itemsize > CLASSIC_BYTES,
        software="firstlight",
        resolution=tuple(1e4 / like.spacing[a] if like.spacing.get(a) else 1.0 for a in "XY"),
        resolutionunit="CENTIMETER" if {"X", "Y"} <= set(like.spacing) else "NONE",
        **options,
    )
    return MappedWriter(path, like, shape, std, make, partial=partial, again=lambda temp: _mapped(temp, shape))


def _mapped(path: Path, shape: tuple[int, ...]) -> Any:
    import tifffile

    return tifffile.memmap(path, mode="r+").reshape(shape)


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
