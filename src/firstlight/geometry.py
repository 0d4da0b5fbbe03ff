"""How a frame's pixels map to the scene: Mosaic (CFA), Sky (WCS), Scan (tomography), or None."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError

__all__ = ["BAYER", "WHITES_AT", "XTRANS", "Geometry", "Mosaic", "Scan", "Sky"]

Pattern = tuple[tuple[int, ...], ...]

BAYER: Pattern = ((0, 1), (1, 2))  # RGGB; indices into Mosaic.colors
XTRANS: Pattern = (  # 8 R, 20 G, 8 B; translation by (3, 3) is a symmetry
    (1, 2, 1, 1, 0, 1),
    (0, 1, 0, 2, 1, 2),
    (1, 2, 1, 1, 0, 1),
    (1, 0, 1, 1, 2, 1),
    (2, 1, 2, 0, 1, 0),
    (1, 0, 1, 1, 2, 1),
)
WHITES_AT = "projections before each white"  # a key of Scan.extra: counts, one for each white exposure of the file


@dataclass(frozen=True)
class Mosaic:
    """A colour filter array: pattern[(y + phase[0]) % rows][(x + phase[1]) % cols] is the colour index at pixel (y, x)."""

    pattern: Pattern
    phase: tuple[int, int] = (0, 0)
    colors: str = "RGB"

    def __post_init__(self) -> None:
        rows = tuple(tuple(int(i) for i in row) for row in self.pattern)
        if not rows or len({len(r) for r in rows}) != 1 or not rows[0]:
            raise FrameError(f"mosaic: pattern rows have lengths {[len(r) for r in rows]}, expected a rectangle")
        top = max(max(r) for r in rows)
        if min(min(r) for r in rows) < 0 or top >= len(self.colors):
            raise FrameError(f"mosaic: colour indices up to {top} for colours {self.colors!r}; give one letter per index")
        object.__setattr__(self, "pattern", rows)
        object.__setattr__(self, "phase", (int(self.phase[0]) % len(rows), int(self.phase[1]) % len(rows[0])))

    @property
    def period(self) -> tuple[int, int]:
        """Rows and columns of the pattern [px]."""
        return len(self.pattern), len(self.pattern[0])

    def cell(self) -> NDArray[np.intp]:
        """Colour indices (rows, cols) of one period starting at the data's pixel (0, 0)."""
        return np.roll(np.array(self.pattern, dtype=np.intp), (-self.phase[0], -self.phase[1]), axis=(0, 1))

    def at(self, shape: tuple[int, int]) -> NDArray[np.intp]:
        """Colour index of each pixel of a (Y, X) array."""
        cell = self.cell()
        return np.asarray(cell[np.arange(shape[0])[:, None] % cell.shape[0], np.arange(shape[1])[None, :] % cell.shape[1]])

    def crop(self, axes: str, box: Box) -> Mosaic:
        """The mosaic as seen from the box's first pixel."""
        return replace(self, phase=(self.phase[0] + box.start[-2], self.phase[1] + box.start[-1]))


@dataclass(frozen=True)
class Sky:
    """A celestial WCS as FITS cards (key, value), pixel convention of FITS (first pixel is 1); built by astropy on use."""

    cards: tuple[tuple[str, Any], ...]

    def wcs(self) -> Any:
        """The astropy.wcs.WCS of these cards."""
        import warnings

        from astropy.io import fits
        from astropy.wcs import WCS, FITSFixedWarning

        header = fits.Header()
        for key, value in self.cards:
            header[key] = value
        with warnings.catch_warnings(action="ignore", category=FITSFixedWarning):  # RADECSYS, dates: repaired and said
            return WCS(header).celestial

    def crop(self, axes: str, box: Box) -> Sky:
        """The WCS with its reference pixel counted from the box's first pixel."""
        move = {f"CRPIX{i + 1}": start for i, start in enumerate(reversed(box.start))}
        return Sky(tuple((k, v - move[k[:6]] if k[:6] in move and len(k) <= 7 else v) for k, v in self.cards))


@dataclass(frozen=True, eq=False)
class Scan:
    """A parallel-beam tomography scan: angles [rad] along axis A, rotation axis `center` [px along X] or None if unknown.

    `center` is one number, or one for each detector row (Y,) where the axis leans.
    `distance` [mm] sample to detector, `energy` [keV] and `pixel` [micrometre] where the file states them.
    """

    angles: NDArray[np.float64]
    center: float | NDArray[np.float64] | None = None
    energy: float | None = None
    distance: float | None = None
    pixel: float | None = None
    extra: tuple[tuple[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        angles = np.asarray(self.angles, dtype=np.float64)
        if angles.ndim != 1 or not np.all(np.isfinite(angles)):
            raise FrameError(f"scan: angles of shape {angles.shape}, expected one finite angle [rad] per projection")
        object.__setattr__(self, "angles", angles)

    def crop(self, axes: str, box: Box) -> Scan:
        """The projections inside the box, the centre counted from its first column."""
        a = axes.find("A")
        angles = self.angles if a < 0 else self.angles[box.start[a] : box.stop[a]]
        center = self.center
        if isinstance(center, np.ndarray) and center.size > 1:
            center = center[box.start[-2] : box.stop[-2]]
        part = angles.size < self.angles.size  # what counts projections of the file no longer does
        extra = tuple(e for e in self.extra if e[0] != WHITES_AT) if part else self.extra
        return replace(self, angles=angles, center=None if center is None else center - box.start[-1], extra=extra)


Geometry = Mosaic | Sky | Scan | None
