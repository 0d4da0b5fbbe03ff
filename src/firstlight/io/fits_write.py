"""Writing FITS block by block: the source's cards and other HDUs kept, the description and maps in extensions.

The frame's HDU keeps its place and name; ERR (std), DQ (our flags; FLAGS where the source has a foreign DQ of its own, which
is kept), PSF, NOISE_A .. and FIRSTLIGHT (the description as JSON text in bytes) follow at the end, tied to it by FLFRAME.
Cards that say the same as the description are made to agree with it: BUNIT, GAIN, RDNOISE, the WCS, HISTORY.
"""

from __future__ import annotations

import bz2
import gzip
import re
import shutil
import warnings
from math import prod, sqrt
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from firstlight import io
from firstlight.box import Box
from firstlight.errors import WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Sky
from firstlight.io import describe, fits_cards
from firstlight.io.fits import Cards, digests
from firstlight.io.fits_layout import Hdu, layout, unpacked
from firstlight.io.partial import Partial
from firstlight.noise import Noise

__all__ = ["FitsWriter"]

BLOCK = 2880
# dtype: BITPIX, BZERO
STORED = {"u1": (8, 0), "i1": (8, -128), "i2": (16, 0), "u2": (16, 1 << 15), "i4": (32, 0), "u4": (32, 1 << 31)}
STORED |= {"i8": (64, 0), "u8": (64, 1 << 63), "f4": (-32, 0), "f8": (-64, 0)}
STRUCTURE = re.compile(
    r"^(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|DATAMIN|DATAMAX|END|"
    r"Z(IMAGE|BITPIX|NAXIS\d*|TILE\d|CMPTYPE|NAME\d|VAL\d|QUANTIZ|DITHER0|SIMPLE|EXTEND|TENSION|PCOUNT|GCOUNT|BLANK|HECKSUM|"
    r"DATASUM)|TFIELDS|TTYPE\d+|TFORM\d+|NPIX\d|PIXVALUE)$"
)
Slot = tuple[np.dtype[Any], int, tuple[int, ...]]  # stored dtype, offset in the file [bytes], shape


def _code(path: Path, dtype: np.dtype[Any]) -> tuple[int, int]:
    code = STORED.get(f"{dtype.kind}{dtype.itemsize}")
    if code is None:
        raise WriteError(f"{path}: FITS holds no {dtype}; write integers or floats of 32 or 64 bits")
    return code


def _structure(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], extension: bool) -> Any:
    """The cards that FITS demands of an image, in their order."""
    from astropy.io import fits

    bitpix, zero = _code(path, dtype)
    header = fits.Header()
    header.append(("XTENSION", "IMAGE", "Image extension") if extension else ("SIMPLE", True, "conforms to FITS standard"))
    header.append(("BITPIX", bitpix, "array data type"), end=True)
    header.append(("NAXIS", len(shape), "number of array dimensions"), end=True)
    for i, n in enumerate(reversed(shape)):
        header.append((f"NAXIS{i + 1}", n), end=True)
    for card in [("PCOUNT", 0), ("GCOUNT", 1)] if extension else [("EXTEND", True)]:
        header.append(card, end=True)
    if zero:
        header.append(("BSCALE", 1), end=True)
        header.append(("BZERO", zero), end=True)
    return header


def _header(path: Path, frame: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], source: Cards | None) -> Any:
    """The frame's header: demanded cards, then the source's, then what the frame says today."""
    header = _structure(path, dtype, shape, extension=source is not None and source.key != "PRIMARY")
    old = source.header.cards if source else ()
    for card in old:
        ours = card.keyword == "HISTORY" and str(card.value).startswith("firstlight: ")
        if not STRUCTURE.match(card.keyword) and not ours:
            header.append(card, end=True)
    _say_unit(header, frame)
    _say_noise(header, frame)
    _say_sky(header, frame)
    for record in frame.history:
        params = ", ".join(f"{k}={v}" for k, v in record.params.items())
        said = f"firstlight: {record.step}({params})".encode("ascii", "backslashreplace").decode()
        header.add_history(said.replace("\n", " "))
    return header


def _say_unit(header: Any, frame: Frame) -> None:
    kept = fits_cards.unit(header, integer=False)
    if frame.unit == Unit.ARBITRARY and kept != Unit.ARBITRARY:
        header.remove("BUNIT")
    elif frame.unit != kept:
        header["BUNIT"] = fits_cards.BUNIT.get(frame.unit, str(frame.unit))


def _say_noise(header: Any, frame: Frame) -> None:
    """GAIN, RDNOISE and their synonyms, where the frame's noise is that of one gain and one read noise."""
    noise = frame.noise
    if not isinstance(noise, Noise) or not all(isinstance(p, float) for p in (noise.a, noise.b, noise.offset)):
        return
    if frame.unit not in (Unit.ADU, Unit.ELECTRON) or not float(noise.a) > 0:
        return
    gain = 1.0 if frame.unit == Unit.ELECTRON else 1 / float(noise.a)
    now = {"gain": gain, "read_noise": sqrt(float(noise.b)) / float(noise.a), "offset": float(noise.offset)}
    said = fits_cards.stated(header)
    for what, keys, unit in (("gain", fits_cards.GAIN, "electron/adu"), ("read_noise", fits_cards.READ_NOISE, "electron")):
        if isinstance(said.get(what), float) and np.isclose(said[what], now[what], rtol=1e-9):
            continue
        present = [k for k in keys if k in header] or [keys[0] if what == "read_noise" else "GAIN"]
        for key in present:
            if key in header and what in said:
                header.add_history(f"{key} was {header[key]} before firstlight")
            header[key] = (now[what], f"[{unit}]")
    for key in fits_cards.OFFSET:
        if key in header and header[key] != now["offset"]:
            header.add_history(f"{key} was {header[key]} before firstlight")
            header[key] = now["offset"]


def _say_sky(header: Any, frame: Frame) -> None:
    cards = dict(frame.geometry.cards) if isinstance(frame.geometry, Sky) else {}
    if not cards and fits_cards.sky(header) is None:
        return
    for key in [k for k in header if fits_cards.is_wcs(k) and k not in cards]:
        header.remove(key, remove_all=True)
    for key, value in cards.items():
        if key not in header or header[key] != value:
            header[key] = value


def _source(path: Path, frame: Frame) -> Cards | None:
    """The header of the FITS file that the frame comes from, if that file can still give its other HDUs."""
    cards = frame.observation.header
    if not isinstance(cards, Cards):
        return None
    if cards.units > 1:
        if not cards.path.exists():
            raise WriteError(f"{path}: the other extensions of {cards.path} cannot be kept, the file is gone")
        stat = cards.path.stat()
        if (stat.st_mtime_ns, stat.st_size) != cards.stamp:
            raise WriteError(f"{path}: {cards.path} was changed since it was read; read it again to keep its other extensions")
    return cards


def _room(f: IO[bytes], header: Any, dtype: Any, shape: tuple[int, ...]) -> Slot:
    """Write a header and leave room for its data; returns where they go."""
    f.write(header.tostring().encode("ascii"))
    start, kind = f.tell(), np.dtype(dtype)
    f.seek(start + -(-prod(shape) * kind.itemsize // BLOCK) * BLOCK)
    return kind, start, shape


class _Owner(NamedTuple):
    """The frame that extensions belong to: its key, its EXTVER, and the file for messages."""

    key: str
    version: int
    path: Path


def _extension(owner: _Owner, name: str, role: str, dtype: Any, shape: tuple[int, ...]) -> Any:
    header = _structure(owner.path, np.dtype(dtype), shape, extension=True)
    for card in [("EXTNAME", name), ("EXTVER", owner.version), ("FLFRAME", owner.key), ("FLMAP", role)]:
        header.append(card, end=True)
    return header


def _replaced(hdu: Hdu, owner: _Owner, science: bool) -> bool:
    """True for an HDU that belongs to the frame being written: our extensions of it, and the ERR of a SCI."""
    return hdu.header.get("FLFRAME") == owner.key or (science and hdu.name == "ERR" and hdu.version == owner.version)


def _copy(old: IO[bytes], out: IO[bytes], start: int, stop: int) -> None:
    old.seek(start)
    left = stop - start
    while left > 0 and (block := old.read(min(left, 1 << 20))):
        out.write(block)
        left -= len(block)
    out.write(b"\0" * left)  # a last block that the source left unpadded


def _mapped(path: Path, slot: Slot) -> Any:
    dtype, start, shape = slot
    code = ">u1" if dtype.itemsize == 1 else f">{'f' if dtype.kind == 'f' else 'i'}{dtype.itemsize}"
    return np.memmap(path, mode="r+", dtype=code, shape=shape, offset=start)


def _encoded(block: Any, dtype: np.dtype[Any]) -> Any:
    """Values of `dtype` as FITS stores them: unsigned 16 to 64 bit and signed 8 bit shifted by BZERO."""
    zero = STORED[f"{dtype.kind}{dtype.itemsize}"][1]
    values = np.asarray(block).astype(dtype, copy=False)
    if not zero:
        return values
    bits = 8 * dtype.itemsize
    return (values.view(f"u{dtype.itemsize}") ^ np.array(1 << (bits - 1), f"u{dtype.itemsize}")).view(
        f"i{dtype.itemsize}" if bits > 8 else "u1"
    )


class FitsWriter:
    """One image written block by block; everything else is written on opening."""

    def __init__(self, path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> None:
        _code(path, dtype)
        source = _source(path, like)
        self._partial = Partial(path)
        self._packer = io.PACKED.get(path.suffix.lower())
        temp = self._partial.temp
        self._plain = temp.with_name(f"{temp.name}.plain") if self._packer else temp
        try:
            with warnings.catch_warnings(action="ignore"):
                header = _header(path, like, shape, dtype, source)
                self._data, self._std = _lay_out(self._plain, (header, dtype, shape), like, std, source)
        except BaseException:
            self.abort()
            raise

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write data [unit] and, where there is an error plane, std [unit] at `box`."""
        for (out, dtype), values in zip((self._data, self._std), (block, std), strict=True):
            if out is not None:
                out[box.slices] = _encoded(values, dtype)

    def close(self) -> None:
        """Flush, pack where the name says so, and rename."""
        self._release()
        if self._packer:
            # a fixed time stamp: the same frame gives the same bytes
            with self._plain.open("rb") as plain, self._partial.temp.open("wb") as raw, _packing(self._packer, raw) as out:
                shutil.copyfileobj(plain, out, 1 << 20)
            self._plain.unlink()
        self._partial.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._data = self._std = (None, np.dtype("f4"))
        self._plain.unlink(missing_ok=True)
        self._partial.abort()

    def _release(self) -> None:
        for out, _ in (self._data, self._std):
            if out is not None:
                out.flush()
        self._data = self._std = (None, np.dtype("f4"))


def _packing(packer: Any, raw: IO[bytes]) -> Any:
    return gzip.GzipFile("", "wb", 6, raw, mtime=0) if packer is gzip.open else bz2.open(raw, "wb")


Open = tuple[Any, np.dtype[Any]]


def _lay_out(
    path: Path, main: tuple[Any, np.dtype[Any], tuple[int, ...]], like: Frame, std: bool, source: Cards | None
) -> tuple[Open, Open]:
    """Write every header, map and kept HDU; returns the open data and std planes. `main`: header, dtype, shape."""
    header, dtype, shape = main
    owner = _Owner(source.key if source else "PRIMARY", int(header.get("EXTVER", 1)), path)
    maps: list[tuple[Slot, Any]] = []
    plane: Slot | None = None
    with path.open("wb") as f:
        data, quality = _around(f, main, owner, source)
        if std:
            plane = _room(f, _extension(owner, "ERR", "std", "f4", shape), "f4", shape)
        for name, part in describe.maps(like).items():
            title = {"flags": "FLAGS" if quality else "DQ"}.get(name, name.upper())
            head = _extension(owner, title, name, part.dtype, tuple(part.shape))
            maps.append((_room(f, head, part.dtype, tuple(part.shape)), part))
        note = np.frombuffer(describe.dumps(like, std=std).encode("ascii"), np.uint8)
        said = _extension(owner, "FIRSTLIGHT", "description", "u1", note.shape)
        for key, value in digests(type(header).fromstring(header.tostring())).items():
            said[key] = value
        maps.append((_room(f, said, "u1", note.shape), note))
        f.truncate(f.tell())
    for slot, part in maps:
        _fill(path, slot, part)
    return (_mapped(path, data), dtype), (_mapped(path, plane) if plane else None, np.dtype("f4"))


def _around(f: IO[bytes], main: Any, owner: _Owner, source: Cards | None) -> tuple[Slot, bool]:
    """The frame's HDU, the source's other ones around it byte by byte; returns its slot, and whether a foreign DQ is kept."""
    if source is None or source.units == 1:
        return _room(f, *main), False
    slot, quality = None, False
    with unpacked(source.path) as plain, plain.open("rb") as old:
        for hdu in layout(source.path, plain):
            if hdu.key == source.key:
                slot = _room(f, *main)
            elif not _replaced(hdu, owner, main[0].get("EXTNAME") == "SCI"):
                quality |= hdu.name == "DQ" and hdu.version == owner.version
                _copy(old, f, hdu.start, hdu.stop)
    if slot is None:
        raise WriteError(f"{owner.path}: {source.path} no longer has the image {source.key}; read it again")
    return slot, quality


def _fill(path: Path, slot: Slot, part: Any) -> None:
    out = _mapped(path, slot)
    for box in io.blocks(slot[2], slot[0].itemsize):
        out[box.slices] = _encoded(part[box.slices], slot[0])
    out.flush()
