"""MRC (MRC2014, IMOD's and FEI's dialects, EMDB maps) and, by their magic number, DeltaVision files.

Axes: ISPG 1 is a volume, ZYX; ISPG 0 a stack of images, TYX; ISPG 401 and up a stack of volumes, TZYX; one section is
YX. The names .map and .rec are always volumes, .mrcs and .st always stacks. Rows stand as in the file.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.io import dv
from firstlight.io.contiguous import ContiguousWriter, described_axes, mapped, opened, refuse_ext, refuse_packed
from firstlight.io.formats import kind
from firstlight.io.partial import read_described
from firstlight.noise import Unmodelled

__all__ = ["create", "read"]

HEAD = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
REFUSED = {3: "complex 16-bit integers", 4: "complex floats, a Fourier transform", 101: "packed 4-bit integers"}
# unsigned bytes become mode 6: mode 0 means signed to one half of the programs that read it
WRITTEN = {"int8": 0, "int16": 1, "float32": 2, "uint8": 6, "uint16": 6, "float16": 12}
ANGSTROM = 1e-4  # micrometre
IMOD_STAMP = 1146047817  # "IMOD" at byte 152; bit 0 of the next integer: bytes are signed
LABEL = re.compile(r"firstlight ([TSCZA]*YX)((?: \d+)+)")
NO_GAIN = "no gain in the header: pass a detector"


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The image, stack or volume of an MRC or DeltaVision file, memory-mapped; axes as this module says, spacing in um.

    Unit: arbitrary (densities); integers with an FEI header and integers of a DeltaVision camera are adu. Noise
    unmodelled. Raises ReadError for complex and packed modes, cut files, skewed stacks, and what is not MRC.
    """
    refuse_ext(path, ext)
    with opened(path) as file:
        raw = file.read(HEAD)
        if len(raw) < HEAD:
            raise ReadError(f"{path}: {len(raw)} bytes, an MRC header has {HEAD}: truncated, or not an MRC file")
        return dv.read(path, file, raw) if dv.matches(raw) else _read(path, file, raw)


def _read(path: Path, file: IO[bytes], raw: bytes) -> Frame:
    order, h = _header(path, raw)
    labels = _labels(h)
    size = int(h["nsymbt"])
    extended = mapped(path, file, np.uint8, HEAD, (size,)) if size else np.empty(0, np.uint8)
    fei = _fei(h, extended)
    dtype = np.dtype(order + _pixel(h, raw, order))
    axes, shape = _layout(path, h, labels)
    data: Any = _upright(path, h, axes, mapped(path, file, dtype, HEAD + size, shape))
    if (wanted := described_axes(path)) and len(wanted) != len(axes) and set(axes) <= set(wanted):
        data, axes = data.reshape([data.shape[axes.index(a)] if a in axes else 1 for a in wanted]), wanted
    header = {
        "format": "MRC",
        "labels": labels,
        "start": tuple(int(h[f"n{a}start"]) for a in "xyz"),
        "origin": tuple(float(h["origin"][a]) for a in "xyz"),
        "fei": fei,
        "order": order,
        "main": raw,
        "extended": extended,
    }
    plain = Frame(
        data,
        axes,
        Unit.ADU if fei and dtype.kind in "iu" else Unit.ARBITRARY,
        Unmodelled(NO_GAIN),
        spacing=_spacing(h, axes, fei),
        observation=_observation(fei, header, path),
    )
    return read_described(data, path, plain)


def _header(path: Path, raw: bytes) -> tuple[str, Any]:
    from mrcfile.dtypes import HEADER_DTYPE

    little, big = (np.frombuffer(raw, HEADER_DTYPE.newbyteorder(o))[0] for o in "<>")
    stamp = raw[212]
    order = "<" if stamp == 0x44 or (stamp != 0x11 and 0 < little["nx"] < big["nx"]) else ">"
    h = little if order == "<" else big
    mode, counts = int(h["mode"]), [int(h[k]) for k in ("nx", "ny", "nz")]
    if mode in REFUSED:
        raise ReadError(f"{path}: MRC mode {mode} ({REFUSED[mode]}) is not read; expected one of {sorted(MODES)}; convert it")
    if mode not in MODES or min(counts) < 1 or int(h["nsymbt"]) < 0:
        stamped = raw[208:211] == b"MAP"
        raise ReadError(
            f"{path}: {'damaged MRC header' if stamped else 'not an MRC file'}: nx, ny, nz = {counts}, mode {mode}, "
            f"extended header of {int(h['nsymbt'])} bytes"
        )
    return order, h


def _pixel(h: Any, raw: bytes, order: str) -> str:
    """Type of a pixel; mode 0 is signed unless IMOD's stamp, or a maximum over 127, says otherwise."""
    if int(h["mode"]) != 0:
        return MODES[int(h["mode"])]
    stamp, flags = np.frombuffer(raw[152:160], order + "i4")
    return "u1" if (stamp == IMOD_STAMP and not flags & 1) or float(h["dmax"]) > 127 else "i1"


def _labels(h: Any) -> tuple[str, ...]:
    texts = (bytes(t).decode("latin-1").strip(" \0") for t in h["label"])
    return tuple(t for t in texts if t)


def _layout(path: Path, h: Any, labels: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    """Axes and shape of the array as it lies in the file."""
    nx, ny, nz, mz, group = (int(h[k]) for k in ("nx", "ny", "nz", "mz", "ispg"))
    for found in map(LABEL.match, labels):
        shape = tuple(int(n) for n in found[2].split()) if found else ()
        if found and len(shape) == len(found[1]) and shape[-2:] == (ny, nx) and prod(shape[:-2]) == nz:
            return found[1], shape
    if nz == 1:
        return "YX", (ny, nx)
    suffix = kind(path)
    if suffix in (".mrcs", ".st") or (group == 0 and suffix not in (".map", ".rec")):
        return "TYX", (nz, ny, nx)
    if group > 400 and 0 < mz < nz:
        if nz % mz:
            raise ReadError(f"{path}: a stack of volumes of {mz} sections, but {nz} sections in all; expected a multiple")
        return "TZYX", (nz // mz, mz, ny, nx)
    return "ZYX", (nz, ny, nx)


def _upright(path: Path, h: Any, axes: str, data: Any) -> Any:
    """The array with its axes in the order Z, Y, X, whatever MAPC, MAPR, MAPS say."""
    order = [int(h[k]) for k in ("maps", "mapr", "mapc")]
    if order in ([3, 2, 1], [0, 0, 0]):
        return data
    if sorted(order) != [1, 2, 3]:
        raise ReadError(f"{path}: MAPC, MAPR, MAPS = {order[::-1]}, expected 1, 2, 3 in some order; the header is damaged")
    if axes != "ZYX":
        raise ReadError(f"{path}: columns, rows, sections along axes {order[::-1]} in a {axes}; only a volume can be turned")
    return data.transpose([order.index(k) for k in (3, 2, 1)])


def _spacing(h: Any, axes: str, fei: dict[str, Any]) -> dict[str, float]:
    """Voxel size [um] of the axes X, Y, Z; none for a skewed cell."""
    angles = {round(float(h["cellb"][k]), 3) for k in ("alpha", "beta", "gamma")}
    if not angles <= {0.0, 90.0}:
        return {}
    found = {a: float(h["cella"][a.lower()]) / max(1, int(h[f"m{a.lower()}"])) * ANGSTROM for a in axes if a in "ZYX"}
    for a in "YX":
        found[a] = found[a] or float(fei.get(f"Pixel size {a}") or 0) * 1e6
    return {a: v for a, v in found.items() if np.isfinite(v) and v > 0}


def _fei(h: Any, extended: Any) -> dict[str, Any]:
    """The first record of an FEI1 or FEI2 extended header, by FEI's own names; empty where there is none."""
    from mrcfile.dtypes import get_ext_header_dtype

    name = bytes(h["exttyp"])
    if name not in (b"FEI1", b"FEI2"):
        return {}
    dtype = get_ext_header_dtype(name, "<")
    if extended.size < dtype.itemsize:
        return {}
    record = np.frombuffer(bytes(extended[: dtype.itemsize]), dtype)[0]
    values = {k: record[k].item() for k in dtype.names}
    return {k: v.decode("latin-1").strip(" \0") if isinstance(v, bytes) else v for k, v in values.items()}


def _observation(fei: dict[str, Any], header: dict[str, Any], path: Path) -> Observation:
    # FEI's "Gain" and "Offset" are the amplifier settings of a STEM detector, no e-/ADU. A scan's pixel is exposed for
    # the dwell time, a camera's for the integration time.
    names = (fei.get("Microscope type"), fei.get("STEM Detector name") or fei.get("Camera name"))
    days = float(fei.get("Timestamp") or 0)  # OLE automation date: days since 1899-12-30
    return Observation(
        instrument=" ".join(n for n in names if n) or None,
        exposure=float(fei.get("Integration time") or fei.get("Dwell time") or 0) or None,
        time=(datetime(1899, 12, 30) + timedelta(days=days)).isoformat(timespec="seconds") if 0 < days < 1e6 else None,
        header=header,
        source=str(path),
    )


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> ContiguousWriter:
    """A writer of one MRC file (int8, int16, uint16, float16, float32; uint8 as uint16), or DeltaVision where named .dv.

    A source's MRC header is kept: extended header where the sections are as many, origin, labels; voxel size from
    `like.spacing`; one label tells axes and shape, one the last step. Raises WriteError for types MRC does not have.
    """
    refuse_packed(path)
    if kind(path) == ".dv":
        return dv.create(path, like, shape, dtype, std)
    if dtype.name not in WRITTEN:
        raise WriteError(f"{path}: MRC holds {', '.join(WRITTEN)}, got {dtype.name}; cast the data, or choose .fits or .npy")
    if min(shape) < 1 or max(prod(shape[:-2]), *shape[-2:]) >= 2**31:
        raise WriteError(f"{path}: MRC counts sections, rows and columns from 1 to 2^31 - 1, got shape {shape}")
    source = like.observation.header
    source = source if isinstance(source, dict) and source.get("format") == "MRC" else {}
    order = source.get("order", "<")  # an extended header is opaque: its byte order is the file's
    h, extended = _new_header(like, shape, WRITTEN[dtype.name], source, order)
    patch = partial(_patched, h)
    stored = np.dtype(order + MODES[WRITTEN[dtype.name]])
    return ContiguousWriter(path, like, shape, stored, std, head=h.tobytes() + extended, patch=patch)


def _patched(h: Any, low: float, high: float, mean: float) -> bytes:
    if np.isfinite([low, high, mean]).all():
        h["dmin"], h["dmax"], h["dmean"] = low, high, mean
    return bytes(h.tobytes())


def _new_header(like: Frame, shape: tuple[int, ...], mode: int, source: dict[str, Any], order: str) -> tuple[Any, bytes]:
    from mrcfile.dtypes import HEADER_DTYPE

    h = np.frombuffer(source.get("main", bytes(HEAD)), HEADER_DTYPE.newbyteorder(order)).copy()
    sections = prod(shape[:-2])
    extended = bytes(source.get("extended", b"")) if int(h["nz"][0]) == sections else b""
    depth = shape[-3] if like.axes.endswith("ZYX") else 1
    if shape[-2:] != (int(h["ny"][0]), int(h["nx"][0])) or [int(h[k][0]) for k in ("mapc", "mapr", "maps")] != [1, 2, 3]:
        h["nxstart"] = h["nystart"] = h["nzstart"] = 0
    h["nx"], h["ny"], h["nz"], h["mode"] = shape[-1], shape[-2], sections, mode
    h["mx"], h["my"], h["mz"] = shape[-1], shape[-2], depth
    h["mapc"], h["mapr"], h["maps"] = 1, 2, 3
    for axis, n in (("x", shape[-1]), ("y", shape[-2]), ("z", depth)):
        h["cella"][axis] = like.spacing.get(axis.upper(), 0.0) / ANGSTROM * n
    for angle in ("alpha", "beta", "gamma"):
        h["cellb"][angle] = 90.0
    h["ispg"] = 0 if not like.axes.endswith("ZYX") else 1 if sections == depth else 401
    h["nsymbt"] = len(extended)
    h["exttyp"] = h["exttyp"] if extended else b""
    h["nversion"], h["map"] = 20140, b"MAP "
    h["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    h["extra2"] = b"" if mode == 0 else h["extra2"]  # an IMOD stamp may call bytes unsigned
    h["dmin"], h["dmax"], h["dmean"], h["rms"] = 0, -1, -2, -1  # MRC2014 for "not determined"
    kept = [t for t in source.get("labels", ()) if not t.startswith("firstlight ")][:8]
    last = like.history[-1].step if like.history else "written"
    labels = [*kept, f"firstlight {like.axes} {' '.join(map(str, shape))}", f"firstlight : {last}"]
    h["nlabl"] = len(labels)
    h["label"] = [t[:80].encode("latin-1", "replace").ljust(80) for t in labels] + [b""] * (10 - len(labels))
    return h, extended
