"""Camera raw files through LibRaw: the sensor's own numbers before demosaicking, nothing subtracted; DNG is written too.

Read: ARW, RAF, DNG, NEF, CR2, CR3. LibRaw decodes; what the file says of itself (camera, ISO, exposure, a DNG's black and
white levels and noise profile) is read from its own tags. Two greens are one colour of the mosaic; levels that differ
between them stay apart in cells of `observation.offset` and `observation.saturation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import Mosaic
from firstlight.io import dng, exif
from firstlight.noise import Noise, Param, Unmodelled

__all__ = ["Header", "create", "read"]

Array = NDArray[Any]
FLIP = {0: 1, 3: 3, 5: 8, 6: 6}  # LibRaw's flip -> EXIF orientation
CODES = "RGBCMYW"  # of colours in a DNG
NO_GAIN = "no gain: pass a detector"
LINEAR = "demosaicked by its writer: neighbouring pixels are correlated"


@dataclass(frozen=True, eq=False)
class Header:
    """A raw file's tags by name, what it states of its detector, and doubts about that."""

    tags: dict[str, Any]
    stated: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Decoded:
    """What LibRaw says of a file: per-channel lists are indexed by `cell`, LibRaw's colour numbers at the data's origin."""

    data: Array
    cell: Array | None
    letters: str
    black: tuple[float, ...]
    white: tuple[float, ...]
    balance: tuple[float, ...]
    matrix: Array
    flip: int
    iso: float | None
    shutter: float | None
    margins: tuple[int, int] = (0, 0)


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The visible sensor area (Y, X) uint16 [ADU], black level not subtracted, Mosaic as seen from its first pixel.

    A demosaicked (linear) DNG is (C, Y, X). Noise from a DNG's NoiseProfile only, else Unmodelled; black and white level
    [ADU] in `observation`, per CFA cell where they differ. Raises ReadError for a truncated or floating-point file.
    """
    if ext not in (None, 0, "data"):
        raise ReadError(f"{path}: holds one image, got ext={ext!r}; leave it out")
    tags = exif.tags(path)
    if path.suffix.lower() not in (".raf", ".cr3") and not {"Make", "DNGVersion"} & set(tags):
        raise ReadError(f"{path}: is a TIFF that names no camera, no raw file; name it .tif")
    if 3 in np.atleast_1d(tags.get("SampleFormat", 1)):
        raise ReadError(f"{path}: holds floating-point samples, which LibRaw rounds to integers; convert it to 16-bit integers")
    raw = _decode(path)
    frame = _frame(path, replace(raw, letters=_letters(raw, tags)), tags)
    return dng.restored(frame, path, tags)


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> dng.Writer:
    """A writer of a CFA DNG, see `firstlight.io.dng`; other raw formats are their makers' and cannot be written."""
    if path.suffix.lower() != ".dng":
        raise WriteError(f"{path}: {path.suffix} is a camera maker's format and cannot be written; name it .dng, .fits or .tif")
    return dng.create(path, like, shape, dtype, std)


def _decode(path: Path) -> _Decoded:
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            return _copied(raw)
    except rawpy.LibRawError as error:
        cause = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ReadError(f"{path}: LibRaw cannot decode it ({cause}); is it complete, and a raw file?") from error


def _copied(raw: Any) -> _Decoded:
    data = raw.raw_image_visible.copy()
    colors = 4 if data.ndim == 2 else raw.num_colors
    cell = None if raw.raw_pattern is None or raw.num_colors == 1 or data.ndim == 3 else _cell(raw)
    other = getattr(raw, "other", None)
    limits = getattr(raw, "camera_white_level_per_channel", None) or (0,) * 4
    return _Decoded(
        data if data.ndim == 2 else np.ascontiguousarray(np.moveaxis(data[..., :colors], -1, 0)),
        cell,
        raw.color_desc.decode(),
        tuple(float(b) for b in raw.black_level_per_channel),
        # the camera's own limit where it states one: LibRaw's white level is that of the number format
        tuple(float(w or raw.white_level) for w in limits),
        tuple(float(w) for w in raw.camera_whitebalance),
        np.asarray(raw.rgb_xyz_matrix, dtype=np.float64),
        int(raw.sizes.flip),
        float(other.iso_speed) or None if other else None,
        float(other.shutter_speed) or None if other else None,
        (int(raw.sizes.top_margin), int(raw.sizes.left_margin)),
    )


def _cell(raw: Any) -> Array:
    # the first period of raw_colors_visible, which makes a byte for every pixel of the sensor to say so
    margins = (-raw.sizes.top_margin, -raw.sizes.left_margin)
    return np.asarray(np.roll(raw.raw_pattern, margins, axis=(0, 1)), dtype=np.intp)


def _letters(raw: _Decoded, tags: dict[str, Any]) -> str:
    """The letter of each of LibRaw's colour numbers: a DNG's own, where LibRaw says RGBG of three and GMCY of four colours."""
    planes = bytes(tags.get("CFAPlaneColor", b"")) if "DNGVersion" in tags else b""
    if raw.cell is None or len(planes) not in (3, 4):
        return raw.letters
    stated = "".join(CODES[k] if k < len(CODES) else "?" for k in planes)
    return stated + stated[1] if len(stated) == 3 else stated  # a second green has a number of its own


def _frame(path: Path, raw: _Decoded, tags: dict[str, Any]) -> Frame:
    mosaic, order = _mosaic(raw)
    offset, doubts = _offset(raw, tags)
    saturation = _saturation(raw, tags)
    stated = {"offset": offset, "saturation": saturation, "source": f"{path.suffix[1:].upper()} header"}
    observation = Observation(
        instrument=tags.get("Model"),
        setting=_setting(tags.get("ISOSpeedRatings") or raw.iso),
        exposure=exif.number(tags.get("ExposureTime")) or raw.shutter,
        time=exif.time(tags.get("DateTimeOriginal") or tags.get("DateTime")),
        offset=offset,
        saturation=saturation,
        white_balance=_balance(raw.balance, raw.letters, order, tags),
        color_matrix=_matrix(raw.matrix, order, tags),
        orientation=int(tags.get("Orientation") or FLIP.get(raw.flip, 1)),
        header=Header(tags, stated, doubts),
        source=str(path),
    )
    noise = _noise(tags, mosaic, offset, saturation) if raw.data.ndim == 2 else Unmodelled(LINEAR)
    axes = "YX" if raw.data.ndim == 2 else "CYX"
    return Frame(raw.data, axes, Unit.ADU, noise, geometry=mosaic, observation=observation)


def _mosaic(raw: _Decoded) -> tuple[Mosaic | None, list[int]]:
    """The mosaic with one letter per colour, and LibRaw's first channel number of each of its colours."""
    if raw.cell is None:
        return None, list(range(3 if raw.data.ndim == 3 else 0))
    used = [i for i in range(len(raw.letters)) if i in raw.cell]
    colors = "".join(
        dict.fromkeys(raw.letters[i] for i in range(len(raw.letters)) if raw.letters[i] in {raw.letters[j] for j in used})
    )
    colors = "RGB" if set(colors) == set("RGB") else colors
    index = [colors.find(letter) for letter in raw.letters]
    pattern = tuple(tuple(index[i] for i in row) for row in raw.cell)
    return Mosaic(pattern, colors=colors), [raw.letters.index(c) for c in colors]


def _level(cell: Array) -> Param:
    """A cell as a scalar where all its values agree."""
    return float(cell.flat[0]) if np.all(cell == cell.flat[0]) else np.asarray(cell, dtype=np.float64)


def _offset(raw: _Decoded, tags: dict[str, Any]) -> tuple[Param, tuple[str, ...]]:
    """Black level [ADU]: the file's own tags where it is a DNG or RAF, else LibRaw's, undoubled; and doubts."""
    stated = exif.black(tags)
    if stated is not None:
        planes = _per_plane(raw, tags.get("BlackLevel", 0))
        return _level(_visible(stated, raw, tags)) if planes is None else planes, ()
    cell = np.array(raw.black[:1]) if raw.cell is None else np.take(raw.black, raw.cell)
    # some LibRaw builds add an X-Trans black level to itself; no sensor has a thousandth of its pixels far below black
    if cell.shape == (6, 6) and np.quantile(raw.data, 0.001) < 0.75 * cell.min():
        doubt = f"LibRaw gives a black level of {cell.min():g} ADU, the darkest pixels lie near half of it: halved"
        return _level(cell / 2), (doubt,)
    return _level(cell), ()


def _visible(cell: Array, raw: _Decoded, tags: dict[str, Any]) -> Array:
    """A DNG's cell, which starts with its active area, as of the data's first pixel: LibRaw begins Bayer areas at even rows."""
    origin = tags.get("ActiveArea", (*raw.margins, 0, 0))
    return np.roll(cell, (int(origin[0]) - raw.margins[0], int(origin[1]) - raw.margins[1]), axis=(0, 1))


def _per_plane(raw: _Decoded, levels: Any) -> Param | None:
    """Levels (C, 1, 1) of demosaicked colours, where each has one and they differ."""
    found = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    differ = raw.data.ndim == 3 and found.shape == raw.data.shape[:1] and np.ptp(found) > 0
    return found[:, None, None] if differ else None


def _saturation(raw: _Decoded, tags: dict[str, Any]) -> Param:
    """White level [ADU]: a DNG's WhiteLevel, else the camera's own limit per channel, else LibRaw's."""
    if "DNGVersion" in tags and "WhiteLevel" in tags:
        planes = _per_plane(raw, tags["WhiteLevel"])
        return float(np.min(tags["WhiteLevel"])) if planes is None else planes
    return _level(np.array(raw.white[:1]) if raw.cell is None else np.take(raw.white, raw.cell))


def _setting(iso: Any) -> str | None:
    value = np.atleast_1d(iso)[0] if iso is not None else None
    return f"ISO {value:g}" if value else None


def _balance(gains: tuple[float, ...], letters: str, order: list[int], tags: dict[str, Any]) -> tuple[float, ...] | None:
    """Multipliers over green's; None where one is no positive number (LibRaw makes 1 of a DNG's n/0)."""
    found = [gains[i] for i in order]
    stated = np.asarray(tags.get("AsShotNeutral", ()), dtype=np.float64)
    if not found or not (np.all(np.isfinite(stated)) and all(0 < g < np.inf for g in found)):
        return None
    green = gains[letters.index("G")] if "G" in letters else min(found)
    return tuple(g / green for g in found)


def _matrix(matrix: Array, order: list[int], tags: dict[str, Any]) -> tuple[tuple[float, ...], ...] | None:
    rows, planes = matrix[order] if order else matrix[:0], bytes(tags.get("CFAPlaneColor", b""))
    if not np.any(rows) or planes != bytes(sorted(planes)):  # LibRaw leaves balance in the order of the planes, not this
        stated = exif.color_matrix(tags)
        stated = stated if stated is None or len(stated) < len(order) else stated[order]
        rows = stated if stated is not None and len(stated) == len(order) else rows
    return tuple(tuple(float(v) for v in row) for row in rows) if np.any(rows) else None


def _noise(tags: dict[str, Any], mosaic: Mosaic | None, black: Param, white: Param) -> Noise | Unmodelled:
    """A DNG's NoiseProfile: var = S x + O with x = (ADU - black)/(white - black), so a = S R and b = O R^2 (DNG 1.4)."""
    profile = np.atleast_1d(np.asarray(tags.get("NoiseProfile", ()), dtype=np.float64))
    planes = 1 if mosaic is None else len(mosaic.colors)
    if profile.size not in (2, 2 * planes):
        return Unmodelled(NO_GAIN)
    scale, floor = profile.reshape(-1, 2).T
    span = np.asarray(white) - np.asarray(black)
    if profile.size > 2 and mosaic is not None:
        scale, floor = scale[mosaic.cell()], floor[mosaic.cell()]
    a, b = np.broadcast_arrays(scale * span, floor * span**2)
    try:
        return Noise(_level(a), _level(b), black)
    except FrameError:
        return Unmodelled("the file's NoiseProfile is negative or not finite: pass a detector")
