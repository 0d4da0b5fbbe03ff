"""FITS: images of the primary or of extensions, SCI with its ERR and DQ as one frame, scaled, packed or tile-compressed.

Data stay on disk and are decoded slice by slice (a packed file is unpacked to a temporary one first). Leading axes of
length 1 are dropped. BLANK, NaN and a foreign DQ plane's non-zero values set Flag.NO_DATA; NaN stay NaN in the data.

Our own outputs carry the description in an extension FIRSTLIGHT. Where somebody changed BUNIT, the detector's cards or the
WCS afterwards, the cards win over the description, and `io.doubts` says so.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation
from firstlight.io import describe, fits_cards
from firstlight.io.fits_layout import Hdu, layout, unpacked
from firstlight.io.lazy import Lazy
from firstlight.noise import Unmodelled

__all__ = ["Cards", "create", "digests", "read", "read_set"]

STORED = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
UNSIGNED = {(8, -128): "i1", (16, 1 << 15): "u2", (32, 1 << 31): "u4", (64, 1 << 63): "u8"}
SCAN_PIXELS = 1 << 24  # NaN and BLANK are looked for on reading in images up to this size, else only where used


@dataclass(frozen=True, eq=False)
class Cards:
    """A frame's FITS header, for the writer: its cards, its place in the file, and what `io.stated` and `io.doubts` say."""

    header: Any
    path: Path
    key: str
    stamp: tuple[int, int]
    units: int
    stated: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


class _File(NamedTuple):
    path: Path
    plain: Path
    hdus: list[Hdu]


def _image_header(plain: Path, hdu: Hdu) -> Any:
    """The header of the image that a tile-compressed table holds."""
    if not hdu.compressed:
        return hdu.header
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"), plain.open("rb") as f, fits.open(f, memmap=False) as units:
        return units[hdu.index].header.copy()


def _stored(file: _File, hdu: Hdu) -> Any:
    """The numbers as they stand in the file, before BSCALE and BZERO: a memory map, or tiles unpacked on use."""
    bitpix = hdu.header["ZBITPIX" if hdu.compressed else "BITPIX"]
    if not hdu.compressed:
        return np.memmap(file.plain, mode="r", dtype=STORED[bitpix], shape=hdu.shape, offset=hdu.data)
    tiles = Lazy(hdu.shape, np.dtype(STORED[bitpix]).newbyteorder("="), lambda key: _tiles(file.plain, hdu.index, key))
    return tiles if file.plain == file.path else tiles[...]


def _tiles(plain: Path, index: int, key: Any) -> NDArray[Any]:
    from astropy.io import fits

    with (
        warnings.catch_warnings(action="ignore"),
        plain.open("rb") as f,
        fits.open(f, memmap=False, do_not_scale_image_data=True) as units,
    ):
        return np.asarray(units[index].section[key])


def _decoded(stored: Any, header: Any) -> Lazy:
    """Values in native byte order: BZERO for unsigned integers stays integer, any other scaling gives floats."""
    bitpix = int(header["BITPIX"])
    scale, zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    native = np.dtype(STORED[bitpix]).newbyteorder("=")
    if scale == 1 and zero == 0:
        return Lazy(stored.shape, native, lambda key: np.array(stored[key], dtype=native))
    if scale == 1 and (bitpix, int(zero)) in UNSIGNED:
        other = np.dtype(UNSIGNED[bitpix, int(zero)])
        flip = native.type(np.iinfo(native).min if bitpix > 8 else 128)
        return Lazy(stored.shape, other, lambda key: (np.array(stored[key], dtype=native) ^ flip).view(other))
    wide = np.dtype(np.float32 if bitpix in (8, 16, -32) else np.float64)
    blank = header.get("BLANK") if bitpix > 0 else None

    def scaled(key: Any) -> NDArray[Any]:
        raw = np.array(stored[key], dtype=native)
        value = (raw * np.float64(scale) + zero).astype(wide)
        return value if blank is None else np.where(raw == blank, wide.type(np.nan), value)

    return Lazy(stored.shape, wide, scaled)


def _flags(stored: Any, data: Lazy, header: Any, quality: Lazy | None) -> Any:
    """NO_DATA where BLANK, NaN or a foreign quality plane says so, uint8; None where none is."""
    blank = header.get("BLANK") if data.dtype.kind in "iu" else None
    if data.dtype.kind != "f" and blank is None and quality is None:
        return None

    def marked(key: Any) -> NDArray[Any]:
        bad: Any = False
        if data.dtype.kind == "f":
            bad = np.isnan(data[key])
        elif blank is not None:
            bad = np.asarray(stored[key]) == blank
        if quality is not None:
            bad = bad | (quality[key] != 0)
        return np.where(bad, np.uint8(Flag.NO_DATA), np.uint8(0))

    plane = Lazy(data.shape, np.uint8, marked)
    if data.size > SCAN_PIXELS:
        return plane
    whole = plane[...]
    return whole if whole.any() else None


def _named(hdus: list[Hdu], name: str, version: int) -> Hdu | None:
    return next((h for h in hdus if h.name == name and h.version == version and "FLFRAME" not in h.header), None)


def _groups(hdus: list[Hdu]) -> dict[str, Hdu]:
    """The image of every frame by name: planes of a frame (ERR, DQ of a SCI; our own maps) are not frames."""
    science = {h.version for h in hdus if h.name == "SCI" and h.shape}
    images = [h for h in hdus if h.shape and "FLFRAME" not in h.header]
    return {h.key: h for h in images if not (h.name in ("ERR", "DQ") and h.version in science)}


def _choose(path: Path, hdus: list[Hdu], ext: str | int | None) -> Hdu:
    groups = _groups(hdus)
    if not groups:
        raise ReadError(f"{path}: holds no image, only {len(hdus)} header(s) or tables")
    if ext is None:
        return next((h for h in groups.values() if h.name == "SCI"), next(iter(groups.values())))
    wanted = str(ext).strip().upper().replace(" ", "")
    for h in hdus:
        named = h.name.upper()
        if h.shape and wanted in (str(h.index), h.key.upper(), named, f"{named},{h.version}"):
            return h
    raise ReadError(f"{path}: has no image {ext!r}; it has {', '.join(groups)}")


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The first SCI image, or the first image, or `ext`: an index, a name ("SCI" or "SCI,2"), or "PRIMARY"."""
    with unpacked(path) as plain:
        file = _File(path, plain, layout(path, plain))
        return _frame(file, _choose(path, file.hdus, ext))


def read_set(path: Path) -> dict[str, Frame]:
    """Every image with its planes by name: "SCI,1", "SCI,2", "PRIMARY", or the HDU's index where it has no name."""
    with unpacked(path) as plain:
        file = _File(path, plain, layout(path, plain))
        _choose(path, file.hdus, None)
        return {key: _frame(file, h) for key, h in _groups(file.hdus).items()}


def _plane(file: _File, hdu: Hdu | None, shape: tuple[int, ...]) -> Lazy | None:
    if hdu is None or hdu.shape != shape:
        return None
    return _decoded(_stored(file, hdu), _image_header(file.plain, hdu))


def _frame(file: _File, hdu: Hdu) -> Frame:
    header = _image_header(file.plain, hdu)
    stored = _stored(file, hdu)
    data = _decoded(stored, header)
    own = {str(h.header["FLMAP"]): h for h in file.hdus if h.header.get("FLFRAME") == hdu.key and "FLMAP" in h.header}
    if "description" in own:
        return _described(file, hdu, header, data, own)
    error = quality = None
    if hdu.name == "SCI":
        error = _plane(file, _named(file.hdus, "ERR", hdu.version), hdu.shape)
        quality = _plane(file, _named(file.hdus, "DQ", hdu.version), hdu.shape)
    flags = _flags(stored, data, header, quality)
    drop = 0
    while len(hdu.shape) - drop > 2 and hdu.shape[drop] == 1:
        drop += 1
    frame = _foreign(file, hdu, header, _dropped(data, drop))
    return frame.replace(std=_dropped(error, drop), flags=_dropped(flags, drop))


def _dropped(plane: Any, n: int) -> Any:
    if plane is None or n == 0:
        return plane
    lead = (0,) * n
    if isinstance(plane, np.ndarray):
        return plane[lead]
    return Lazy(plane.shape[n:], plane.dtype, lambda key: plane[(*lead, *(key if isinstance(key, tuple) else (key,)))])


def _merged(hdus: list[Hdu], header: Any, hdu: Hdu) -> Any:
    """The HDU's cards, then the primary's where it lacks them (EXPTIME, INSTRUME, ... stand there)."""
    if hdu.index == 0 or header.get("INHERIT") is False:
        return header
    merged = header.copy()
    for card in hdus[0].header.cards:
        if card.keyword not in merged and card.keyword not in ("", "COMMENT", "HISTORY"):
            merged.append(card)
    return merged


def _foreign(file: _File, hdu: Hdu, header: Any, data: Any) -> Frame:
    lead = len(data.shape) - 2
    if lead > 3:
        raise ReadError(f"{file.path}: {hdu.key} has {lead + 2} axes, expected 2 to 5")
    cards = _merged(file.hdus, header, hdu)
    integer = data.dtype.kind in "iu"
    kind = fits_cards.unit(cards, integer)
    facts = fits_cards.stated(cards)
    if "offset" not in facts and integer and (level := _overscan(cards, data)) is not None:
        facts |= {"offset": level, "source": f"{facts.get('source', 'header:')}; offset from data: BIASSEC"}
    kept = _cards(file, hdu, header, facts)
    kept = replace(kept, doubts=fits_cards.doubts(cards, kind, facts))
    return Frame(
        data,
        fits_cards.axes(header, lead, integer),
        kind,
        fits_cards.noise(kind, cards, facts),
        geometry=fits_cards.sky(header),
        observation=Observation(**fits_cards.observation(cards, kind, facts), header=kept, source=str(file.path)),
    )


def _cards(file: _File, hdu: Hdu, header: Any, facts: dict[str, Any]) -> Cards:
    stat = file.path.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    return Cards(header.copy(), file.path.absolute(), hdu.key, stamp, len(file.hdus), facts)


def _overscan(header: Any, data: Any) -> float | None:
    """Median [ADU] of the overscan that BIASSEC names, [x1:x2,y1:y2] from 1, of the first plane."""
    section = re.fullmatch(r"\[(\d+):(\d+),(\d+):(\d+)\]", re.sub(r"\s", "", fits_cards.text(header, "BIASSEC") or ""))
    if section is None:
        return None
    x0, x1, y0, y1 = (int(n) for n in section.groups())
    if not (1 <= x0 <= x1 <= data.shape[-1] and 1 <= y0 <= y1 <= data.shape[-2]):
        return None
    plane = data[(*(0,) * (len(data.shape) - 2), slice(y0 - 1, y1), slice(x0 - 1, x1))]
    return float(np.median(plane))


def digests(header: Any) -> dict[str, str]:
    """What the cards say of unit, detector and sky, to find out whether somebody changed them."""
    sky = fits_cards.sky(header)
    return {
        "FLUNIT": fits_cards.text(header, "BUNIT") or "none",
        "FLDETEC": describe.digest(fits_cards.stated(header)),
        "FLSKY": describe.digest(sky.cards if sky else ()),
    }


def _described(file: _File, hdu: Hdu, header: Any, data: Lazy, own: dict[str, Hdu]) -> Frame:
    """The frame that our own extensions describe, as far as nobody changed the cards since."""
    note = own.pop("description")
    text = bytes(_map(file.plain, note)).decode("ascii", "replace")
    arrays: dict[str, Any] = {k: _decoded(_map(file.plain, h), h.header) for k, h in own.items()}
    arrays = {k: v[...] if k == "psf" or v.size <= SCAN_PIXELS else v for k, v in arrays.items()}
    cards = _merged(file.hdus, header, hdu)
    kept = _cards(file, hdu, header, fits_cards.stated(cards))
    frame = describe.attach(data, text, arrays, header=kept, source=str(file.path))
    now = digests(header)
    changed = [k for k in now if note.header.get(k, "") != now[k]]
    return _edited(frame, cards, kept, changed) if changed else frame


def _edited(frame: Frame, cards: Any, kept: Cards, changed: list[str]) -> Frame:
    """What the cards say now, where somebody changed them after we wrote the file."""
    what = {"FLUNIT": "BUNIT", "FLDETEC": "the detector's cards", "FLSKY": "the WCS"}
    doubt = f"{', '.join(what[k] for k in changed)}: changed after firstlight wrote the file; the cards win"
    kept = replace(kept, doubts=(doubt,))
    changes: dict[str, Any] = {"observation": replace(frame.observation, header=kept)}
    if "FLSKY" in changed:
        changes["geometry"] = fits_cards.sky(kept.header)
    if "FLUNIT" in changed:
        changes["unit"] = fits_cards.unit(cards, frame.data.dtype.kind in "iu")
        changes["noise"] = Unmodelled("BUNIT was changed after firstlight wrote the file: pass a detector")
    elif "FLDETEC" in changed:
        changes["noise"] = fits_cards.noise(frame.unit, cards, kept.stated)
    return frame.replace(**changes)


def _map(plain: Path, hdu: Hdu) -> Any:
    n = int(hdu.header["NAXIS"])
    shape = tuple(int(hdu.header[f"NAXIS{i}"]) for i in range(n, 0, -1))
    return np.memmap(plain, mode="r", dtype=STORED[hdu.header["BITPIX"]], shape=shape, offset=hdu.data)


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> Any:
    """A writer that keeps the source's cards and its other HDUs; `.gz` and `.bz2` names are packed on closing."""
    from firstlight.io.fits_write import FitsWriter

    if path.suffix.lower() == ".fz":
        raise WriteError(f"{path}: tile-compressed FITS is read but not written; write .fits or .fits.gz")
    return FitsWriter(path, like, shape, dtype, std)
