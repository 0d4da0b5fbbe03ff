"""Where everything lies in a FITS file: its header-data units, checked against the bytes that there are."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import IO, Any

from firstlight.errors import ReadError
from firstlight.io.formats import PACKED

__all__ = ["Hdu", "layout", "unpacked"]

TILE_PIXELS = 1 << 28


@dataclass(frozen=True, eq=False)
class Hdu:
    """One header-data unit: where it lies in the unpacked file [bytes] and what it holds; `shape` () where no image."""

    index: int
    name: str
    version: int
    header: Any
    shape: tuple[int, ...]
    start: int
    data: int
    stop: int
    compressed: bool

    @property
    def key(self) -> str:
        """The name by which `ext` finds it."""
        if self.index == 0:
            return "PRIMARY"
        return f"{self.name},{self.version}" if self.name else str(self.index)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary copy of what a .gz or .bz2 file holds, removed on leaving (maps of it stay valid)."""
    if path.suffix.lower() not in PACKED:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="firstlight") as folder:
        plain = Path(folder) / "unpacked.fits"
        room = shutil.disk_usage(folder).free // 2
        with _packed(path) as packed, plain.open("wb") as out:
            while block := packed.read(1 << 20):
                room -= len(block)
                if room < 0:
                    raise ReadError(f"{path}: unpacks to more than the temporary folder can hold; unpack it elsewhere first")
                out.write(block)
        yield plain


def _packed(path: Path) -> IO[bytes]:
    opened: IO[bytes] = PACKED[path.suffix.lower()](path, "rb")
    return opened


def layout(path: Path, plain: Path) -> list[Hdu]:
    """Every HDU of an unpacked file; raises ReadError where a header claims more bytes than there are."""
    from astropy.io import fits

    size = plain.stat().st_size
    with plain.open("rb") as f:
        if not f.read(9).startswith(b"SIMPLE  "):
            raise ReadError(f"{path}: is not a FITS file (it does not begin with SIMPLE)")
    found: list[Hdu] = []
    with (
        warnings.catch_warnings(action="ignore"),
        plain.open("rb") as f,  # astropy leaves a file that it opened itself open where it fails
        fits.open(f, memmap=False, disable_image_compression=True, output_verify="ignore") as units,
    ):
        for i, unit in enumerate(units):
            found.append(_hdu(path, i, unit, size))
    _complete(path, plain, found[-1].stop, size)
    return found


def _complete(path: Path, plain: Path, stop: int, size: int) -> None:
    if stop >= size:
        return
    with plain.open("rb") as f:
        f.seek(stop)
        if f.read(8) == b"XTENSION":
            raise ReadError(f"{path}: truncated in the header of an extension; copy the file again")


def _hdu(path: Path, index: int, unit: Any, size: int) -> Hdu:
    info, header = unit.fileinfo(), unit.header
    start, data, span = info["hdrLoc"], info["datLoc"], info["datSpan"]
    packed = header.get("ZIMAGE") is True and header.get("XTENSION") == "BINTABLE"
    prefix = "Z" if packed else ""
    image = packed or "SIMPLE" in header or header.get("XTENSION") == "IMAGE"
    naxis = int(header.get(f"{prefix}NAXIS", 0)) if image and not header.get("GROUPS") else 0
    shape = tuple(int(header[f"{prefix}NAXIS{i}"]) for i in range(naxis, 0, -1))
    needed = _bytes(header)
    if data + needed > size:
        what = f"{' x '.join(map(str, shape))} pixels" if shape else "a table"
        raise ReadError(
            f"{path}: truncated: HDU {index} claims {what}, {needed} bytes, and the file holds {max(0, size - data)} of them"
        )
    if packed:
        _check_tiles(path, index, header, shape)
    shape = shape if naxis >= 2 and 0 not in shape else ()
    return Hdu(index, str(unit.name or "").strip(), int(unit.ver), header, shape, start, data, data + span, packed)


def _bytes(header: Any) -> int:
    n = int(header.get("NAXIS", 0))
    lengths = [int(header.get(f"NAXIS{i}", 0)) for i in range(1, n + 1)]
    if header.get("GROUPS"):
        lengths = lengths[1:]
    if not lengths:
        return 0
    each = abs(int(header["BITPIX"])) // 8
    return each * int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + prod(lengths))


def _check_tiles(path: Path, index: int, header: Any, shape: tuple[int, ...]) -> None:
    n = len(shape)
    tile = [int(header.get(f"ZTILE{i}", shape[-1] if i == 1 else 1)) for i in range(n, 0, -1)]
    tiles = prod(ceil(a / max(1, t)) for a, t in zip(shape, tile, strict=True))
    if tiles != int(header["NAXIS2"]) or prod(tile) > TILE_PIXELS:
        raise ReadError(
            f"{path}: HDU {index} claims {' x '.join(map(str, shape))} pixels in tiles of {' x '.join(map(str, tile))}, "
            f"and holds {header['NAXIS2']} tiles; the header is damaged"
        )
