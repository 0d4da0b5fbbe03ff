"""CFA DNG, written: an uncompressed 16-bit mosaic that raw developers open, our own description and scale inside it.

uint16 mosaics are stored as they are. Anything else (a restored mosaic: fractions, negative electrons) is stored as
round(x * scale) + pedestal with scale a power of two that uses the 16 bits, so that it reads back to within 1/(2 scale);
LibRaw truncates floating-point CFA data to integers, so there is no better way. Black and white level follow the scale.
Developers refuse to demosaic an X-Trans DNG with a side under 512 px (reading it is fine), and all refuse one under 22 px.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.io import describe
from firstlight.io.partial import Partial
from firstlight.io.storage import blocks
from firstlight.noise import CELL, Noise

__all__ = ["Writer", "create", "restored"]

Array = NDArray[Any]
MAKER = "firstlight"  # a maker that no developer knows: a known camera's own crop table would shift the mosaic's phase
UNKNOWN = "mosaic"
PRIVATE = MAKER.encode() + b"\0"
CODES = {"R": 0, "G": 1, "B": 2, "C": 3, "M": 4, "Y": 5, "W": 6}
LEAST = 22
FINEST = 32  # no finer than 2^-32 of a unit
EXIF = 34665
SRGB = ((3.2404542, -1.5371385, -0.4985314), (-0.9692660, 1.8760108, 0.0415560), (0.0556434, -0.2040259, 1.0572252))
BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 10, 12
Tag = tuple[int, int, int, Any, bool]


class Writer:
    """A DNG being written: uint16 straight into the file, anything else into a spool that `close` scales to 16 bits."""

    def __init__(self, path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> None:
        self._partial = Partial(path)
        self._like, self._shape, self._with_std = like, shape, std
        self._spool = self._partial.temp.with_name(f"{self._partial.temp.name}.spool")
        exact = dtype == np.uint16 and np.min(_black(like)) >= 0
        self._data: Any = (
            _mosaic_file(self._partial.temp, like, shape, std, _storage(1.0, 0, 65535, dtype))
            if exact
            else np.lib.format.open_memmap(self._spool, mode="w+", dtype=dtype, shape=shape)
        )
        self._exact = exact
        self._std = self._partial.maps(like, shape, std)

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (Y, X), and its standard error where the output has one."""
        self._data[box.slices] = _whole(block, self._partial.path) if self._exact else block
        if self._std is not None:
            self._std[box.slices] = std

    def close(self) -> None:
        """Scale where needed, finish and rename to the final name."""
        if not self._exact:
            self._scale()
        self._data.flush()
        self._partial.commit()
        self._spool.unlink(missing_ok=True)

    def _scale(self) -> None:
        low, high = _range(self._data, self._partial.path)
        saturation = _white(self._like)
        black = _black(self._like)
        low, high = min(low, float(np.min(black))), max(high, float(np.max(black)), saturation or high)
        scale = 2.0 ** min(FINEST, np.floor(np.log2(65534 / (high - low)))) if high > low else 1.0
        pedestal = int(np.ceil(-low * scale))
        top = max(int(high * scale), int(np.max(black) * scale) + 1) + pedestal
        storage = _storage(scale, pedestal, top, self._data.dtype)
        out = _mosaic_file(self._partial.temp, self._like, self._shape, self._with_std, storage)
        for box in blocks(self._shape, 8):
            out[box.slices] = np.rint(self._data[box.slices] * scale) + pedestal
        self._data = out

    def abort(self) -> None:
        """Remove what was written."""
        self._spool.unlink(missing_ok=True)
        self._partial.abort()


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> Writer:
    """A writer of a CFA DNG, (Y, X) of any real type [unit of `like`], which must have a Mosaic.

    Tags: DNG 1.4 specification; flags, std and large maps are companions beside the file. Raises WriteError for a frame
    without mosaic, colours that DNG does not know, sides under 22 px, or values that are not finite.
    """
    if like.axes != "YX" or not isinstance(like.geometry, Mosaic):
        raise WriteError(f"{path}: a DNG holds one camera mosaic, got axes {like.axes} without one; write .fits or .tif")
    strange = set(like.geometry.colors) - set(CODES)
    if strange or max(like.geometry.period) > CELL:
        raise WriteError(
            f"{path}: DNG has no colours {''.join(sorted(strange))!r}, expected {''.join(CODES)}; write .fits or .tif"
        )
    if min(shape) < LEAST or dtype.kind not in "fiu" or 2 * shape[0] * shape[1] > 2**32 - 2**20:
        raise WriteError(
            f"{path}: {shape} of {dtype} does not fit a DNG (real numbers, {LEAST} px a side to 4 GB); write .fits"
        )
    return Writer(path, like, shape, dtype, std)


def restored(plain: Frame, path: Path, tags: dict[str, Any]) -> Frame:
    """`plain`, or, where we wrote the file, the frame that was written: unit, noise, maps, history, unscaled data."""
    private = bytes(tags.get("DNGPrivateData") or b"")
    if tags.get("Make") != MAKER or not private.startswith(PRIVATE):
        model = plain.observation.instrument
        return plain if model != UNKNOWN else plain.replace(observation=replace(plain.observation, instrument=None))
    text = private[len(PRIVATE) :].decode()
    found = {m: np.load(f, mmap_mode="r") for m in describe.MAPS if (f := path.with_name(f"{path.name}.{m}.npy")).is_file()}
    try:
        stored, header = json.loads(text)["storage"], plain.observation.header
        data = _unscaled(plain.data, stored["scale"], stored["pedestal"], stored["dtype"])
        if data is not plain.data:  # the tags speak of the stored numbers
            header = replace(header, stated={})
        return describe.attach(data, text, found, header=header, source=str(path))
    except (FrameError, KeyError, TypeError, ValueError) as error:
        raise ReadError(f"{path}: its firstlight description does not fit the image ({error}); was it edited?") from error


def _storage(scale: float, pedestal: int, top: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    """stored = round(x * scale) + pedestal, at most `top`; `dtype` is that of x."""
    return {"scale": float(scale), "pedestal": pedestal, "top": top, "dtype": dtype.name}


def _unscaled(data: Array, scale: float, pedestal: int, dtype: str) -> Array:
    if (scale, pedestal, dtype) == (1.0, 0, data.dtype.name):
        return data
    x = (data.astype(np.float64) - pedestal) / scale
    return (np.rint(x) if np.dtype(dtype).kind in "iu" else x).astype(dtype)


def _whole(block: Any, path: Path) -> Array:
    """A block as uint16; raises WriteError where that would change a value (restored data want dtype float32)."""
    with np.errstate(invalid="ignore"):
        out = np.asarray(block).astype(np.uint16)
    if not np.array_equal(out, block):
        raise WriteError(f"{path}: fractions or values beyond 0..65535 in an output of uint16; create it with dtype float32")
    return out


def _range(data: Array, path: Path) -> tuple[float, float]:
    ends = [(float(np.min(part)), float(np.max(part))) for box in blocks(data.shape, 8) if (part := data[box.slices]).size]
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    if not np.isfinite(low) or not np.isfinite(high):
        raise WriteError(f"{path}: holds NaN or infinite values, which 16-bit integers cannot; flag those pixels, fill them")
    return min(low, 0.0), high


def _cell(value: Any) -> Array:
    """A level as a cell of at most CELL x CELL; a map by its mean (the description keeps the map)."""
    array = np.atleast_2d(np.asarray(value, dtype=np.float64))
    return array if array.ndim == 2 and max(array.shape) <= CELL else np.full((1, 1), array.mean())


def _black(like: Frame) -> Array:
    """The level of no light, (rows, cols) in the frame's unit."""
    if isinstance(like.noise, Noise):
        return _cell(like.noise.offset)
    stated = like.observation.offset
    return _cell(stated if like.unit == Unit.ADU and stated is not None else 0.0)


def _white(like: Frame) -> float | None:
    saturation = like.observation.saturation
    return None if saturation is None or like.unit != Unit.ADU else float(np.min(saturation))


def _rationals(values: Any, limit: int = 1 << 16) -> tuple[int, ...]:
    bounded = [(float(v), max(1, min(limit, int(2**31 / max(1.0, abs(v)))))) for v in np.ravel(values)]
    pairs = [Fraction(v).limit_denominator(most) for v, most in bounded]
    return tuple(n for f in pairs for n in (f.numerator, f.denominator))


def _mosaic_file(path: Path, like: Frame, shape: tuple[int, ...], std: bool, storage: dict[str, Any]) -> Any:
    """A DNG of zeros with its tags; returns the image in it, memory-mapped, (Y, X) uint16."""
    import tifffile

    extra = [*_tags(like, shape, storage), _description(like, std, storage)]
    tifffile.imwrite(
        path,
        shape=shape,
        dtype=np.uint16,
        byteorder="<",
        photometric=32803,
        rowsperstrip=shape[0],
        metadata=None,
        software=MAKER,
        extratags=extra,
    )
    with path.open("r+b") as f:
        exif_at = f.seek(0, 2)
        f.write(_exif(like, exif_at))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page: Any = tiff.pages[0]
        start, entry = page.dataoffsets[0], page.tags[EXIF - 1]
        entry.overwrite(exif_at)
    with path.open("r+b") as f:  # tifffile writes no EXIF pointer of its own: a neighbouring tag is renamed to it
        f.seek(entry.offset)
        f.write(struct.pack("<H", EXIF))
    return np.memmap(path, dtype="<u2", mode="r+", offset=start, shape=shape)


def _description(like: Frame, std: bool, storage: dict[str, Any]) -> Tag:
    text = json.dumps(json.loads(describe.dumps(like, std=std)) | {"storage": storage})
    data = PRIVATE + text.encode()
    return (50740, BYTE, len(data), data, True)


def _tags(like: Frame, shape: tuple[int, ...], storage: dict[str, Any]) -> list[Tag]:
    mosaic, obs = like.geometry, like.observation
    assert isinstance(mosaic, Mosaic)
    scale, pedestal = storage["scale"], storage["pedestal"]
    black = _black(like) * scale + pedestal
    limit = _white(like)
    white = storage["top"] if limit is None else min(65535, int(limit * scale + pedestal))
    height, width = shape
    model = (obs.instrument or UNKNOWN).encode("ascii", "replace").decode()  # TIFF text; the description keeps the name
    codes = [CODES[c] for c in mosaic.colors]
    cell = np.take(codes, mosaic.cell()).astype(np.uint8)
    balance = _fitting(obs.white_balance, (1.0,) * len(codes))
    matrix = _fitting(obs.color_matrix, (SRGB * 2)[: len(codes)])
    return [
        (271, ASCII, 0, MAKER, True),
        (272, ASCII, 0, model, True),
        (274, SHORT, 1, obs.orientation, True),
        (33421, SHORT, 2, cell.shape, True),
        (33422, BYTE, cell.size, cell.tobytes(), True),
        (EXIF - 1, LONG, 1, 0, True),
        (50706, BYTE, 4, (1, 4, 0, 0), True),
        (50707, BYTE, 4, (1, 1, 0, 0), True),
        (50708, ASCII, 0, f"{MAKER} {model}", True),
        (50710, BYTE, len(codes), bytes(codes), True),
        (50711, SHORT, 1, 1, True),
        (50713, SHORT, 2, black.shape, True),
        (50714, RATIONAL, black.size, _rationals(black), True),
        (50717, LONG, 1, white, True),
        (50719, SHORT, 2, (0, 0), True),
        (50720, LONG, 2, (width, height), True),
        (50721, SRATIONAL, 3 * len(matrix), _rationals(matrix), True),
        (50728, RATIONAL, len(balance), _rationals([1 / g for g in balance]), True),
        (50778, SHORT, 1, 21, True),
        (50829, LONG, 4, (0, 0, height, width), True),
        *_noise_profile(like, scale, white - float(black.mean())),
    ]


def _fitting(value: Any, default: Any) -> Any:
    """What the frame states per colour, or the default where it states nothing, or not one positive gain a colour."""
    fits = value is not None and len(value) == len(default) and (np.ndim(value) > 1 or min(value) > 0)
    return value if fits else default


def _noise_profile(like: Frame, scale: float, span: float) -> list[Tag]:
    """DNG 1.4 NoiseProfile: var = S x + O of x = (stored - black)/span; where noise is one a and b and nothing shared."""
    n = like.noise
    if span <= 0 or not isinstance(n, Noise) or not all(isinstance(v, float) for v in (n.a, n.b, n.c, n.d)) or n.c or n.d:
        return []
    return [(51041, DOUBLE, 2, (float(n.a) * scale / span, float(n.b) * scale**2 / span**2), True)]


def _exif(like: Frame, at: int) -> bytes:
    """An EXIF directory that starts at byte `at`: exposure [s], ISO and time, where known (EXIF 2.3, little-endian)."""
    obs = like.observation
    iso = re.fullmatch(r"(?:ISO ?)?(\d+)", obs.setting or "")
    entries: list[tuple[int, int, int, bytes]] = []
    if obs.exposure is not None and obs.exposure >= 0:
        entries.append((33434, RATIONAL, 1, struct.pack("<II", *_rationals(obs.exposure, 1 << 20))))
    if iso and int(iso[1]) < 65536:
        entries.append((34855, SHORT, 1, struct.pack("<HH", int(iso[1]), 0)))
    if obs.time and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", obs.time):
        stamp = obs.time[:19].replace("-", ":").replace("T", " ").encode() + b"\0"
        entries.append((36867, ASCII, len(stamp), stamp))
    data, out = b"", struct.pack("<H", len(entries))
    start = at + 2 + 12 * len(entries) + 4
    for code, kind, count, value in entries:
        inline = len(value) <= 4
        out += struct.pack("<HHI", code, kind, count) + (value if inline else struct.pack("<I", start + len(data)))
        data += b"" if inline else value + b"\0" * (len(value) % 2)
    return out + struct.pack("<I", 0) + data
