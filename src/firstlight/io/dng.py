"""DNG, written: an uncompressed 16-bit mosaic (CFA) or linear RGB (LinearRaw) that raw developers open, described inside.

uint16 data are stored as they are. Anything else (restored data: fractions, negative electrons) is stored as
round(x * scale) + pedestal with scale a power of two that uses the 16 bits, so that it reads back to within 1/(2 scale);
LibRaw truncates floating-point CFA data to integers, so there is no better way. Black and white level follow the scale.
Linear Rec.2020 (diffuse white 1) states its primaries as the camera's matrix, white as balanced, and its scale by
BaselineExposure, so that developers show it equally bright whatever its brightest value is. Developers refuse to demosaic an
X-Trans DNG with a side under 512 px (reading it is fine), and all refuse one under 22 px.
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.io import describe, exif, exif_write, icc
from firstlight.io.exif_write import rationals
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
SRGB = ((3.2404542, -1.5371385, -0.4985314), (-0.9692660, 1.8760108, 0.0415560), (0.0556434, -0.2040259, 1.0572252))
CFA, LINEAR_RAW = 32803, 34892
BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 10, 12
Tag = tuple[int, int, int, Any, bool]


class Writer:
    """A DNG being written: uint16 straight into the file, anything else into a spool that `close` scales to 16 bits."""

    def __init__(self, path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> None:
        self._partial = Partial(path)
        self._like, self._shape, self._with_std = like, shape, std
        self._spool = self._partial.temp.with_name(f"{self._partial.temp.name}.spool")
        self._exact = bool(dtype == np.uint16 and np.min(_black(like)) >= 0)
        try:
            self._data: Any = (
                _image_file(self._partial.temp, like, shape, std, _storage(1.0, 0, 65535, dtype))
                if self._exact
                else np.lib.format.open_memmap(self._spool, mode="w+", dtype=dtype, shape=shape)
            )
            self._std = self._partial.maps(like, shape, std)
        except BaseException:  # nobody else could remove it
            self.abort()
            raise

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
        out = _image_file(self._partial.temp, self._like, self._shape, self._with_std, storage)
        for box in blocks(self._shape, 8):
            out[box.slices] = np.rint(self._data[box.slices] * scale) + pedestal
        self._data = out

    def abort(self) -> None:
        """Remove what was written."""
        self._spool.unlink(missing_ok=True)
        self._partial.abort()


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> Writer:
    """A writer of a DNG: (Y, X) of any real type [unit of `like`] with a Mosaic, or linear colours (C, Y, X) of R, G and B.

    Tags: DNG 1.4 specification; flags, std and large maps are companions beside the file. Raises WriteError for other
    axes, colours that DNG does not know, sides under 22 px, or values that are not finite.
    """
    linear = like.axes == "CYX" and shape[0] == 3
    if not linear and (like.axes != "YX" or not isinstance(like.geometry, Mosaic)):
        raise WriteError(
            f"{path}: a DNG holds one camera mosaic or linear R, G, B, got {like.axes} of shape {shape}; write .fits or .tif"
        )
    if linear and like.unit == Unit.DISPLAY:
        raise WriteError(f"{path}: a DNG holds linear colours, got display codes; write .tif or .png")
    mosaic = None if linear else like.geometry
    strange = set(getattr(mosaic, "colors", "")) - set(CODES)
    if strange or max(getattr(mosaic, "period", (1, 1))) > CELL:
        raise WriteError(
            f"{path}: DNG has no colours {''.join(sorted(strange))!r}, expected {''.join(CODES)}; write .fits or .tif"
        )
    if min(shape[-2:]) < LEAST or dtype.kind not in "fiu" or 2 * prod(shape) > 2**32 - 2**20:
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


def _image_file(path: Path, like: Frame, shape: tuple[int, ...], std: bool, storage: dict[str, Any]) -> Any:
    """A DNG of zeros with its tags; returns the image in it, memory-mapped, (Y, X) or (C, Y, X) uint16."""
    import tifffile

    linear = like.axes == "CYX"
    stored = (*shape[-2:], 3) if linear else shape
    tifffile.imwrite(
        path,
        shape=stored,
        dtype=np.uint16,
        byteorder="<",
        photometric=LINEAR_RAW if linear else CFA,
        planarconfig="contig" if linear else None,
        rowsperstrip=stored[0],
        metadata=None,
        software=MAKER,
        extratags=[*_tags(like, shape, storage), _description(like, std, storage)],
    )
    exif_write.append(path, lambda at: exif_write.directory(exif_write.exposure(like), at))
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[0]
    image = np.memmap(path, dtype="<u2", mode="r+", offset=start, shape=stored)
    return np.moveaxis(image, 2, 0) if linear else image


def _description(like: Frame, std: bool, storage: dict[str, Any]) -> Tag:
    text = json.dumps(json.loads(describe.dumps(like, std=std)) | {"storage": storage})
    data = PRIVATE + text.encode()
    return (50740, BYTE, len(data), data, True)


def _tags(like: Frame, shape: tuple[int, ...], storage: dict[str, Any]) -> list[Tag]:
    obs = like.observation
    scale, pedestal = storage["scale"], storage["pedestal"]
    black = _black(like) * scale + pedestal
    limit = _white(like)
    white = storage["top"] if limit is None else min(65535, int(limit * scale + pedestal))
    height, width = shape[-2:]
    model = (obs.instrument or UNKNOWN).encode("ascii", "replace").decode()  # TIFF text; the description keeps the name
    colors = like.geometry.colors if like.axes == "YX" and isinstance(like.geometry, Mosaic) else "RGB"
    balance, matrix = _colour(like, len(colors))
    return [
        (271, ASCII, 0, MAKER, True),
        (272, ASCII, 0, model, True),
        (274, SHORT, 1, obs.orientation, True),
        (exif_write.EXIF_IFD - 1, LONG, 1, 0, True),
        (50706, BYTE, 4, (1, 4, 0, 0), True),
        (50707, BYTE, 4, (1, 1, 0, 0), True),
        (50708, ASCII, 0, f"{MAKER} {model}", True),
        *_levels(like, black, white),
        (50719, SHORT, 2, (0, 0), True),
        (50720, LONG, 2, (width, height), True),
        (50721, SRATIONAL, 3 * len(matrix), rationals(matrix), True),
        (50728, RATIONAL, len(balance), rationals([1 / g for g in balance]), True),
        *_baseline(like, (white - pedestal) / scale),
        (50778, SHORT, 1, 21, True),
        (50829, LONG, 4, (0, 0, height, width), True),
        *_noise_profile(like, scale, white - float(black.mean())),
    ]


def _levels(like: Frame, black: Array, white: int) -> list[Tag]:
    """The mosaic's pattern, and black and white level: per cell of a mosaic, per channel of linear colours."""
    mosaic = like.geometry
    if like.axes != "YX" or not isinstance(mosaic, Mosaic):
        levels = np.broadcast_to(black.mean(), 3)
        return [(50714, RATIONAL, 3, rationals(levels), True), (50717, LONG, 3, (white,) * 3, True)]
    codes = [CODES[c] for c in mosaic.colors]
    cell = np.take(codes, mosaic.cell()).astype(np.uint8)
    return [
        (33421, SHORT, 2, cell.shape, True),
        (33422, BYTE, cell.size, cell.tobytes(), True),
        (50710, BYTE, len(codes), bytes(codes), True),
        (50711, SHORT, 1, 1, True),
        (50713, SHORT, 2, black.shape, True),
        (50714, RATIONAL, black.size, rationals(black), True),
        (50717, LONG, 1, white, True),
    ]


def _colour(like: Frame, colors: int) -> tuple[Any, Any]:
    """White balance and XYZ-to-data matrix: of linear Rec.2020 its own, of anything else what the frame states."""
    if like.unit == Unit.REC2020:
        return (1.0,) * colors, np.linalg.inv(icc.to_xyz("rec2020"))
    stated = like.observation
    return _fitting(stated.white_balance, (1.0,) * colors), _fitting(stated.color_matrix, (SRGB * 2)[:colors])


def _baseline(like: Frame, full: float) -> list[Tag]:
    """BaselineExposure [EV]: shows 1 of linear Rec.2020 as white where the stored range ends at `full`; else the file's own."""
    if like.unit == Unit.REC2020:
        return [(50730, SRATIONAL, 1, rationals(np.log2(full)), True)] if full > 0 else []
    stated = exif.number((getattr(like.observation.header, "tags", None) or {}).get("BaselineExposure"))
    return [(50730, SRATIONAL, 1, rationals(stated), True)] if stated else []


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
