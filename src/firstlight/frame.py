"""Frame: an image that knows its axes, its unit and how noisy it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as _replace
from enum import IntFlag, StrEnum
from hashlib import sha256
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.geometry import Geometry, Mosaic, Scan
from firstlight.noise import Noise, Param, Unmodelled, crop_map

__all__ = ["Flag", "Frame", "Observation", "Record", "Unit"]

LEADING = "TSCZA"
AXES = frozenset("".join(c) + "YX" for n in range(len(LEADING) + 1) for c in combinations(LEADING, n))


class Unit(StrEnum):
    """What one number of a frame measures."""

    ADU = "adu"
    ADU_RATE = "adu/s"
    ELECTRON = "electron"
    ELECTRON_RATE = "electron/s"
    TRANSMISSION = "transmission"
    OPTICAL_DEPTH = "optical depth"  # minus the logarithm of transmission: the line integral of attenuation
    ATTENUATION = "1/mm"
    PER_PIXEL = "1/px"  # attenuation where nobody knows the size of a pixel
    CAMERA = "linear camera RGB"
    REC2020 = "linear Rec.2020"
    DISPLAY = "display"
    ARBITRARY = "arbitrary"


class Flag(IntFlag):
    """Why a pixel is not to be trusted; OR-ed, never a boolean."""

    SATURATED = 1
    COSMIC_RAY = 2
    HOT = 4
    DEAD = 8
    EDGE = 16
    FLOORED = 32
    DEFECT = 64
    NO_DATA = 128


@dataclass(frozen=True)
class Record:
    """One line of history: the step, its parameters, and sha256 of the files that entered, by name."""

    step: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Observation:
    """What the file says about the exposure; `header` and `source` are for writers and people, never for algorithms.

    exposure [s]; offset: the file's own black level [ADU], 0 once removed; saturation [the data's unit, carried along]; each
    a scalar or a CFA cell; white_balance: multipliers per colour; color_matrix: XYZ to camera; orientation: EXIF 1..8;
    `header`: the format's own header; `source`: the file's path.
    """

    instrument: str | None = None
    setting: str | None = None
    exposure: float | None = None
    time: str | None = None
    band: str | None = None
    offset: Param | None = None
    saturation: Param | None = None
    white_balance: tuple[float, ...] | None = None
    color_matrix: tuple[tuple[float, ...], ...] | None = None
    orientation: int = 1
    header: Any = None
    source: str | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """An image with its unit, noise and history. Never changed in place: a step returns a new Frame that shares the rest.

    data: anything with shape, dtype and slicing, axes any of T S C Z A in that order, then YX. std [unit]: standard error
    per pixel, no independence claimed. flags: Flag bits. std and flags broadcast to data. spacing: {axis: micrometre}.
    Raises FrameError where the parts contradict each other.
    """

    data: Any
    axes: str
    unit: Unit
    noise: Noise | Unmodelled
    std: Any = None
    flags: Any = None
    geometry: Geometry = None
    psf: NDArray[Any] | None = None
    spacing: Mapping[str, float] = field(default_factory=dict)
    observation: Observation = field(default_factory=Observation)
    history: tuple[Record, ...] = ()

    def __post_init__(self) -> None:
        if not all(hasattr(self.data, k) for k in ("shape", "dtype", "__getitem__")):
            raise FrameError(f"frame: data is {type(self.data).__name__}, expected an array with shape, dtype and slicing")
        if self.axes not in AXES:
            raise FrameError(f"frame: axes {self.axes!r}, expected any of T S C Z A in that order, then YX, such as 'CZYX'")
        if len(self.axes) != len(self.data.shape):
            raise FrameError(f"frame: axes {self.axes!r} name {len(self.axes)} axes, the data have {len(self.data.shape)}")
        try:
            object.__setattr__(self, "unit", Unit(self.unit))
        except ValueError:
            raise FrameError(f"frame: unit {self.unit!r}, expected one of {', '.join(Unit)}") from None
        for name in ("std", "flags"):
            part = getattr(self, name)
            if part is not None and not _broadcasts(part.shape, self.data.shape):
                raise FrameError(f"frame: {name} of shape {part.shape} does not broadcast to data of shape {self.data.shape}")
        if self.flags is not None and np.dtype(self.flags.dtype).kind not in "iu":
            raise FrameError(f"frame: flags are {self.flags.dtype}, expected integer Flag bits")
        if isinstance(self.geometry, Scan) and "A" in self.axes:
            n = self.data.shape[self.axes.index("A")]
            if n != self.geometry.angles.size:
                raise FrameError(f"frame: {n} projections but {self.geometry.angles.size} angles")

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        noise = f"unmodelled: {self.noise.reason}" if isinstance(self.noise, Unmodelled) else "noise known"
        return f"<Frame {self.axes} {size} {self.data.dtype} [{self.unit}], {noise}, {len(self.history)} steps>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths along each axis [px]."""
        return tuple(int(n) for n in self.data.shape)

    def replace(self, **changes: Any) -> Frame:
        """A new Frame with these fields changed; the others are shared."""
        return _replace(self, **changes)

    def then(self, step: str, params: Mapping[str, Any] | None = None, **changes: Any) -> Frame:
        """A new Frame with these fields changed and one line added to its history."""
        return _replace(self, history=(*self.history, Record(step, dict(params or {}))), **changes)

    def crop(self, box: Box) -> Frame:
        """The part inside `box` (all axes, or the last ones): data, noise, std, flags, geometry, black and white levels."""
        lead = len(self.shape) - box.ndim
        box = Box((0,) * lead + box.start, self.shape[:lead] + box.stop)
        if not Box.whole(self.shape).contains(box):
            raise FrameError(f"frame: box {box.start}..{box.stop} leaves data of shape {self.shape}; intersect it first")
        cells = {k: crop_map(getattr(self.observation, k), self.shape, box) for k in ("offset", "saturation")}
        return _replace(
            self,
            data=self.data[box.slices],
            noise=self.noise.crop(self.shape, box) if isinstance(self.noise, Noise) else self.noise,
            std=_crop_plane(self.std, box),
            flags=_crop_plane(self.flags, box),
            geometry=None if self.geometry is None else self.geometry.crop(self.axes, box),
            observation=_replace(self.observation, **cells),
        )

    def digest(self) -> str:
        """Hexadecimal sha256 of the data in C order, as history names a frame that came in."""
        return sha256(np.ascontiguousarray(self.data).tobytes()).hexdigest()

    def known_noise(self, what: str) -> Noise:
        """The noise model that `what` needs; raises FrameError with the reason where there is none."""
        if isinstance(self.noise, Unmodelled):
            raise FrameError(f"{what} needs the noise of each pixel, and this frame has none: {self.noise.reason}")
        return self.noise

    def need(self, what: str, *units: Unit) -> None:
        """Raises FrameError unless the frame's unit is one of `units`."""
        if self.unit not in units:
            raise FrameError(f"{what}: got a frame in {self.unit}, expected {' or '.join(units)}")

    def period(self) -> tuple[int, int]:
        """The mosaic's period [px], (1, 1) where there is none."""
        return self.geometry.period if isinstance(self.geometry, Mosaic) else (1, 1)


def _broadcasts(part: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    tail = shape[len(shape) - len(part) :]
    return len(part) <= len(shape) and all(m in (1, n) for m, n in zip(part, tail, strict=True))


def _crop_plane(plane: Any, box: Box) -> Any:
    if plane is None:
        return None
    tail = box.slices[box.ndim - len(plane.shape) :]
    return plane[tuple(slice(0, 1) if m == 1 else s for m, s in zip(plane.shape, tail, strict=True))]
