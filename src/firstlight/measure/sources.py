"""A catalogue: detected with the restored image's help, measured on the calibrated one, with the variance of its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstlight.frame import Frame, Unit
from firstlight.geometry import Sky
from firstlight.measure.aperture import ANNULUS, RADIUS, fluxes
from firstlight.measure.detect import plane, search, star_width

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["sources"]

Array = NDArray[Any]
UNITS = {Unit.ADU: "adu", Unit.ADU_RATE: "adu/s", Unit.ELECTRON: "electron", Unit.ELECTRON_RATE: "electron/s"}


def sources(
    frame: Frame,
    *,
    restored: Frame | None = None,
    threshold: float = 5.0,
    fwhm: float | None = None,
    radius: float = RADIUS,
    annulus: tuple[float, float] = ANNULUS,
    way: str = "filter",
) -> Table:
    """Stars of a frame as an astropy Table, most significant first: dual-image mode where `restored` is given.

    frame: (Y, X) [counts or electrons] with known noise. threshold: significance in standard errors of a star's flux on
    `frame`, whichever image is searched. fwhm [px]: of a star, measured from bright lone ones (`star_width`) where it is
    left out. radius, annulus: of the aperture and of the local sky, in units of fwhm. way: "filter", "stars", "restored" or
    "peaks", as in `detect`.

    Columns: id; y, x [px, first pixel's centre is 0]; ra, dec [deg, ICRS] where the frame has a celestial WCS; flux,
    flux_std [unit] in the aperture on `frame`, never on `restored`; snr; background, background_std [unit/px]; significance
    of the detection; area [px]; flags (Flag bits in the aperture, EDGE where it leaves the image). Its meta names the
    parameters. Raises FrameError as `detect` and `star_width` do.
    """
    from astropy.table import Table

    width = star_width(frame) if fwhm is None else fwhm
    p = plane(frame, restored, width)
    found = search(p, restored is not None, threshold, width, way)
    got = fluxes(p, found.y, found.x, width, radius, annulus, np.stack([found.y, found.x], axis=1))
    table = Table()
    table["id"] = np.arange(1, len(found.y) + 1)
    table["y"], table["x"] = found.y, found.x
    for name, values in _celestial(frame, found.y, found.x).items():
        table[name] = values
        table[name].unit = "deg"
    for name in ("flux", "flux_std", "background", "background_std"):
        table[name] = getattr(got, name)
        table[name].unit = UNITS[frame.unit] + ("" if name.startswith("flux") else "/pix")
    table["snr"] = got.flux / got.flux_std
    table["significance"], table["area"], table["flags"] = found.significance, got.area, got.flags
    table.meta |= {"threshold": threshold, "fwhm": width, "radius": radius * width}
    table.meta |= {"inner": annulus[0] * width, "outer": annulus[1] * width, "way": way, "dual": restored is not None}
    return table


def _celestial(frame: Frame, y: Array, x: Array) -> dict[str, Array]:
    if not isinstance(frame.geometry, Sky):
        return {}
    wcs = frame.geometry.wcs()
    if not wcs.has_celestial:
        return {}
    if not len(y):
        return {"ra": np.zeros(0), "dec": np.zeros(0)}
    place = wcs.pixel_to_world(x, y).icrs
    return {"ra": np.asarray(place.ra.deg), "dec": np.asarray(place.dec.deg)}
