"""TIFF, BigTIFF, ImageJ and OME-TIFF through tifffile: mapped where contiguous, else decoded where sliced.

Axes: T, C, Z, A as the file names them; colour samples are C; unnamed pages ("I": a plain sequence) are T, unnamed axes
of arrays ("Q") are Z; two unnamed axes are T and Z.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.errors import ReadError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import Mosaic
from firstlight.io import exif_write
from firstlight.io.contiguous import described_axes, mapped, opened
from firstlight.io.formats import PACKED
from firstlight.io.lazy import Lazy
from firstlight.io.ome import imagej_spacing, ome_facts
from firstlight.io.partial import read_described
from firstlight.io.tiff_write import CODECS, create
from firstlight.noise import Unmodelled

__all__ = ["CODECS", "create", "read", "read_set"]

MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR, CFA = 0, 1, 2, 3, 6, 32803
SEGMENT_BYTES = 2 << 30  # a strip or tile is decoded whole
RESOLUTION_UNIT = {3: 1e4}  # um; 2, inches, is a printer's resolution and says nothing of the specimen
NO_GAIN = "no gain in the header: pass a detector"


def read(path: Path, ext: str | int | None = None) -> Frame:
    """Series `ext` (its number or name; the first where None) of a TIFF file, on disk until sliced; spacing in um.

    Unit: grey integers adu, floats arbitrary, RGB display; our own files say it. Noise unmodelled. Raises ReadError for
    axes without a meaning here, complex numbers, cut files and headers that announce more than the file holds.
    """
    with _damage(path), _opened(path) as tif:
        series = _choose(path, tif, ext)
        return _frame(path, tif, tif.series.index(series), alone=len(tif.series) == 1)


def read_set(path: Path) -> dict[str, Frame]:
    """Every series of a TIFF file by name, or by number where names are missing or repeated; "data" for a single one."""
    with _damage(path), _opened(path) as tif:
        names = _names(tif)
        return {name: _frame(path, tif, i, alone=len(names) == 1) for i, name in enumerate(names)}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open TiffFile with its series found; raises ReadError for what is not TIFF."""
    import tifffile

    with ExitStack() as stack:
        try:
            if path.suffix.lower() in PACKED:
                tif = stack.enter_context(tifffile.TiffFile(stack.enter_context(opened(path)), name=path.name))
            else:
                tif = stack.enter_context(tifffile.TiffFile(path))
            found = bool(tif.pages) and bool(tif.series)
        except (tifffile.TiffFileError, EOFError, LookupError, ValueError, TypeError, struct.error) as error:
            raise ReadError(f"{path}: not a TIFF file, or a damaged one ({' '.join(str(error).split())})") from error
        if not found:
            raise ReadError(f"{path}: a TIFF file without an image: truncated?")
        yield tif


class _Collected(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.lines: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self.thread:
            return True
        self.lines.append(record.getMessage())
        return False


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raises ReadError where tifffile, which logs damage and goes on with what is left, has logged some; nothing is shown."""
    logger, collected = logging.getLogger("tifffile"), _Collected()
    logger.addFilter(collected)
    try:
        yield
    finally:
        logger.removeFilter(collected)
    signs = ("corrupt", "invalid page offset", "invalid offset to", "missing data", "incorrect Strip", "out of range", "zeroed")
    bad = [line for line in collected.lines if any(s in line for s in signs)]
    if bad:
        raise ReadError(f"{path}: damaged or truncated TIFF: {' '.join(bad[0].split())}")


def _names(tif: Any) -> list[str]:
    if len(tif.series) == 1:
        return ["data"]
    names = [str(s.name or "") for s in tif.series]
    return [n if n and names.count(n) == 1 else str(i) for i, n in enumerate(names)]


def _choose(path: Path, tif: Any, ext: str | int | None) -> Any:
    if ext is None:
        return tif.series[0]
    names = _names(tif)
    index = names.index(str(ext)) if str(ext) in names else int(ext) if str(ext).isdecimal() else -1
    if not 0 <= index < len(names):
        raise ReadError(f"{path}: no image {ext!r}; it has {', '.join(names)}, or 0 to {len(names) - 1}")
    return tif.series[index]


def _frame(path: Path, tif: Any, index: int, alone: bool) -> Frame:
    series = tif.series[index]
    page = series.keyframe
    _plausible(path, series, tif.filehandle.size)
    if np.dtype(series.dtype).kind not in "fiub":
        raise ReadError(f"{path}: pixels are {series.dtype}, expected real numbers; convert it")
    stored, shape = _stored(path, series, described_axes(path) if alone else None)
    axes = "".join(a for a in "TSCZA" if a in stored) + "YX"
    order = [stored.index(a) for a in axes]
    data = _data(path, tif, index, shape, order)
    facts = _facts(tif, series)
    unit, reason = _unit(page, np.dtype(series.dtype), facts)
    header = {
        "format": "TIFF",
        "kind": str(series.kind),
        "series": index,
        "software": facts.get("software"),
        "description": str(page.description or ""),
        "photometric": int(page.photometric),
        "extrasamples": [int(s) for s in page.extrasamples],
    }
    plain = Frame(
        data,
        axes,
        unit,
        Unmodelled(reason),
        geometry=_mosaic(page),
        spacing={a: v for a, v in facts.get("spacing", {}).items() if a in axes},
        observation=Observation(
            instrument=facts.get("instrument"),
            exposure=facts.get("exposure"),
            time=facts.get("time"),
            band=facts.get("band"),
            header=header,
            source=str(path),
        ),
    )
    return read_described(data, path, exif_write.embedded(plain, _comment(page))) if alone else plain


def _comment(page: Any) -> str | None:
    """EXIF's UserComment, where a developed picture keeps its history."""
    tag = page.tags.get(exif_write.EXIF_IFD)
    found = tag.value.get("UserComment") if tag is not None and isinstance(tag.value, dict) else None
    return found if isinstance(found, str) else None


def _plausible(path: Path, series: Any, size: int) -> None:
    """Raises ReadError, before anything is allocated, where the pages are not all there or announce too much."""
    if prod(int(n) for n in series.shape) < 1:
        raise ReadError(f"{path}: an image of shape {series.shape}, expected at least one pixel")
    page = series.keyframe
    segments = prod(int(n) for n in page.chunked)
    chunk = prod(int(n) for n in page.chunks) * np.dtype(series.dtype).itemsize
    if page.compression != 1 and chunk > SEGMENT_BYTES:
        raise ReadError(f"{path}: its header announces compressed blocks of {chunk} bytes, at most {SEGMENT_BYTES} are read")
    pages = list(series.pages)
    missing = sum(p is None for p in pages)
    if missing:
        raise ReadError(f"{path}: {missing} of {len(pages)} planes are not in the file: truncated, or part of a set of files")
    for p in pages:
        if len(p.dataoffsets) < segments or len(p.databytecounts) < segments:
            raise ReadError(
                f"{path}: its header announces {page.imagelength} x {page.imagewidth} pixels in {segments} blocks and lists "
                f"{min(len(p.dataoffsets), len(p.databytecounts))}; it is damaged"
            )
        end = 0 if series.is_multifile else max(o + n for o, n in zip(p.dataoffsets, p.databytecounts, strict=False))
        if end > size:
            raise ReadError(f"{path}: truncated: its blocks end at byte {end}, the file has {size}")


def _stored(path: Path, series: Any, wanted: str | None) -> tuple[str, tuple[int, ...]]:
    """Axes as Frame names them and lengths, in the file's order; single-element axes as a description wants them."""
    full = [(a, int(n)) for a, n in zip(series.get_axes(False), series.get_shape(False), strict=True)]
    axes = str(_own(series.keyframe).get("axes", ""))
    if len(axes) == len(full):
        return axes, tuple(n for _, n in full)
    kept = [(a, n) for a, n in full if n > 1 or a in "YX"]
    if wanted:
        # our OME files hold projections A as T, samples S as C
        sizes = [dict(full).get({"A": "T", "S": "C"}.get(a, a), 1) for a in wanted]
        if [n for n in sizes[:-2] if n > 1] == [n for a, n in kept if a not in "YX"]:
            return wanted, tuple(sizes)
    return _letters(path, "".join(a for a, _ in kept)), tuple(n for _, n in kept)


def _letters(path: Path, axes: str) -> str:
    """Frame's letter for each of a file's axes."""
    letters = ["C" if a == "S" else a for a in axes]
    unnamed = [i for i, a in enumerate(axes) if a in "IQ"]
    choice = "TZ" if len(unnamed) == 2 or "I" in axes else "ZT"
    for i, letter in zip(unnamed, (c for c in choice if c not in letters), strict=False):
        letters[i] = letter
    if not set(letters) <= set("TCZAYX") or len(set(letters)) != len(letters):
        raise ReadError(f"{path}: axes {axes!r}, expected T, C (or colour samples S), Z, A, Y, X, each at most once")
    return "".join(letters)


def _data(path: Path, tif: Any, index: int, shape: tuple[int, ...], order: list[int]) -> Any:
    """The array in Frame's order of axes: a memory map where possible, else one that decodes what is sliced."""
    series = tif.series[index]
    offset = None if series.is_multifile else series.dataoffset
    if offset is not None:
        dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
        return mapped(path, tif.filehandle, dtype, offset, shape).transpose(order)
    return _decoded(path, index, shape, order)


def _decoded(path: Path, index: int, shape: tuple[int, ...], order: list[int]) -> Lazy:
    import zarr

    stack = ExitStack()
    try:
        tif = stack.enter_context(_opened(path))
        series = tif.series[index]
        array: Any = zarr.open_array(series.aszarr(level=0), mode="r")
    except BaseException:
        stack.close()
        raise
    squeezed = tuple(int(n) for n in array.shape)
    lock = threading.Lock()

    def get(key: Any) -> Any:
        parts, drop = _box(key, [shape[i] for i in order])
        stored = [parts[order.index(i)] for i in range(len(order))]
        try:
            with lock, _damage(path):
                block = np.asarray(array[_matched(stored, shape, squeezed)])
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(f"{path}: a block cannot be decoded, the file is damaged ({error})") from error
        block = block.reshape([s.stop - s.start for s in stored]).transpose(order)
        return block[tuple(0 if i in drop else slice(None) for i in range(block.ndim))]

    lazy = Lazy([shape[i] for i in order], np.dtype(array.dtype).newbyteorder("="), get)
    weakref.finalize(lazy, stack.close)
    return lazy


def _box(key: Any, shape: list[int]) -> tuple[list[slice], set[int]]:
    """One slice with bounds per axis, and the axes that an integer drops; raises IndexError for other kinds of keys."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    keys += [slice(None)] * (len(shape) - len(keys))
    parts, drop = [], set()
    for axis, (k, n) in enumerate(zip(keys, shape, strict=True)):
        if isinstance(k, slice):
            start, stop, step = k.indices(n)
            if step != 1:
                raise IndexError(f"a compressed TIFF is sliced with step 1, got {k}; slice first, then stride")
            parts.append(slice(start, max(start, stop)))
            continue
        i = int(k) + (n if k < 0 else 0)
        if not 0 <= i < n:
            raise IndexError(f"index {k} on an axis of length {n}")
        parts.append(slice(i, i + 1))
        drop.add(axis)
    return parts, drop


def _matched(parts: list[slice], shape: tuple[int, ...], squeezed: tuple[int, ...]) -> tuple[slice, ...]:
    """Slices for an array that has the same lengths but other axes of length 1."""
    full = [slice(0, 1) if n == 1 else None for n in squeezed]
    wide = iter([p for p, n in zip(parts, shape, strict=True) if n > 1])
    empty = any(p.stop == p.start for p in parts)
    found = tuple(s or next(wide) for s in full)
    return found if not empty else tuple(slice(0, 0) for _ in found)


def _unit(page: Any, dtype: np.dtype[Any], facts: dict[str, Any]) -> tuple[Unit, str]:
    photometric = int(page.photometric)
    if facts.get("unit") in set(Unit):
        return Unit(facts["unit"]), NO_GAIN
    if photometric in (RGB, YCBCR) and dtype.kind in "iu":
        return Unit.DISPLAY, "a picture for display: how its numbers follow from light is not in the file"
    if photometric == PALETTE:
        return Unit.ARBITRARY, "numbers of a colour table, no signal"
    if photometric == MINISWHITE:
        return Unit.ARBITRARY, "larger numbers are darker (photometric MinIsWhite): invert it, then pass a detector"
    return (Unit.ADU if dtype.kind in "iu" else Unit.ARBITRARY), NO_GAIN


def _mosaic(page: Any) -> Mosaic | None:
    """The colour filter array of a TIFF/EP image."""
    rows_cols, cell = page.tags.valueof(33421), page.tags.valueof(33422)
    if int(page.photometric) != CFA or not rows_cols or cell is None:
        return None
    rows, cols = (int(n) for n in rows_cols)
    flat = [int(i) for i in bytes(cell)]
    return Mosaic(tuple(tuple(flat[r * cols : (r + 1) * cols]) for r in range(rows)))


def _facts(tif: Any, series: Any) -> dict[str, Any]:
    """What tags and metadata say: spacing [um], exposure [s], instrument, time, band, and, in our own files, the unit."""
    page = series.keyframe
    tags = {k: page.tags.valueof(n) for k, n in (("make", 271), ("model", 272), ("software", 305), ("time", 306))}
    instrument = " ".join(str(tags[k]).strip(" \0") for k in ("make", "model") if tags[k]) or None
    per_unit = {a: r for a, n in (("X", 282), ("Y", 283)) if (r := _ratio(page.tags.valueof(n)))}
    facts: dict[str, Any] = {"instrument": instrument, "time": tags["time"], "software": tags["software"]}
    if series.kind == "ome":
        index = [s for s in tif.series if s.kind == "ome"].index(series)
        return facts | ome_facts(tif.ome_metadata or "", index)
    if tif.is_imagej:
        return facts | {"spacing": imagej_spacing(tif.imagej_metadata or {}, per_unit)}
    facts |= _micromanager(page)
    if unit := RESOLUTION_UNIT.get(int(page.tags.valueof(296) or 0)):
        facts["spacing"] = {a: unit / r for a, r in per_unit.items()}
    own = _own(page)
    if own:
        facts |= {"unit": own.get("unit"), "spacing": own.get("spacing") or {}}
    return facts


def _ratio(value: Any) -> float | None:
    try:
        return value[0] / value[1] or None
    except (TypeError, ZeroDivisionError, IndexError):
        return None


def _own(page: Any) -> dict[str, Any]:
    """The JSON description of a file that we wrote."""
    try:
        found = json.loads(page.description)
        return dict(found["firstlight"])
    except (ValueError, KeyError, TypeError):
        return {}


def _micromanager(page: Any) -> dict[str, Any]:
    # Micro-Manager's page metadata; its "Gain" is the camera's setting, no e-/ADU
    found = page.tags.valueof(51123)
    if not isinstance(found, dict):
        return {}
    facts: dict[str, Any] = {}
    if camera := found.get("Camera"):
        facts["instrument"] = str(camera)
    if exposure := found.get("Exposure-ms"):
        facts["exposure"] = float(exposure) / 1e3
    if pixel := found.get("PixelSizeUm"):
        facts["spacing"] = {"Y": float(pixel), "X": float(pixel)}
    return facts
