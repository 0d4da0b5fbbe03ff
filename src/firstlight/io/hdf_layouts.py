"""Where HDF5 files keep a tomography scan: APS Data Exchange (De Carlo et al. 2014) and NeXus NXtomo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ReadError
from firstlight.frame import Observation, Unit
from firstlight.geometry import WHITES_AT, Scan

__all__ = ["Header", "exchange_observation", "exchange_scan", "image_key", "nexus_observation", "nexus_scan", "text", "unit"]

Array = NDArray[Any]
MICROMETRE = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "nm": 1e-3}
KEV = {"kev": 1.0, "ev": 1e-3, "mev": 1e3}
SECOND = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
DEGREES, RADIANS = ("deg", "degs", "degree", "degrees", "°"), ("rad", "rads", "radian", "radians")
COUNTS = ("", "count", "counts", "adu", "dn", "raw", "a.u.")
DETECTOR = "measurement/instrument/detector"
PIXEL = (  # Data Exchange: first the pixel at the sample, then the detector's own
    "measurement/instrument/detection_system/objective/resolution",
    f"{DETECTOR}/actual_pixel_size_x",
    f"{DETECTOR}/pixel_size_x",
    f"{DETECTOR}/pixel_size",
)
ENERGY = ("measurement/instrument/monochromator/energy",)
DISTANCE = (
    "measurement/instrument/detector_motor_stack/setup/camera_distance",
    "measurement/instrument/camera_motor_stack/setup/camera_distance",
    "measurement/instrument/detector_motor_stack/detector_distance",
    f"{DETECTOR}/distance",
)


@dataclass(frozen=True, eq=False)
class Header:
    """Which layout a frame came from, what the file states of its detector (nothing yet), and doubts."""

    layout: str
    stated: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def text(value: Any) -> str | None:
    """A string attribute or dataset as str, None where there is none."""
    if value is None:
        return None
    if hasattr(value, "shape") and hasattr(value, "id"):
        value = value[()]
    value = np.ravel(np.asarray(value, dtype=object))[0] if np.size(value) else ""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ") or None


def unit(dataset: Any) -> Unit:
    """A dataset's `units` attribute as our unit; raw counts where it names none, ARBITRARY where it names another."""
    said = (text(dataset.attrs.get("units")) or "").lower()
    if said in COUNTS:
        return Unit.ADU
    return Unit(said) if said in set(Unit) else Unit.ARBITRARY


def _number(group: Any, name: str) -> tuple[float, str] | None:
    """The first number of a dataset and its units in lower case; None where it is absent or no finite number."""
    node = group.get(name)
    if node is None or not hasattr(node, "shape"):
        return None
    try:
        value = float(np.ravel(node[()])[0])
    except (ValueError, TypeError, IndexError):
        return None
    return (value, (text(node.attrs.get("units")) or "").lower()) if np.isfinite(value) else None


def _positive(group: Any, names: tuple[str, ...], factors: dict[str, float], default: str | None) -> float | None:
    """The first positive number among `names`, converted by its units attribute (`default` where it has none)."""
    for name in names:
        found = _number(group, name)
        if found and found[0] > 0 and (factor := factors.get(found[1] or default or "")):
            return found[0] * factor
    return None


def _pixel(group: Any, names: tuple[str, ...]) -> float | None:
    """Pixel size [micrometre]; without units metres, as Data Exchange has it, but a pixel over 1 mm is micrometres."""
    for name in names:
        found = _number(group, name)
        if found and found[0] > 0:
            plain = 1e6 if found[0] < 1e-3 else 1.0
            return found[0] * (MICROMETRE.get(found[1], 0.0) if found[1] else plain) or None
    return None


def _radians(path: Path, dataset: Any, n: int) -> tuple[Array, str]:
    """Angles [rad] of `n` projections and how their unit was known: attribute, else span, else degrees."""
    theta = np.ravel(dataset[()]).astype(np.float64)
    if theta.size != n:
        raise ReadError(f"{path}: {n} projections but {theta.size} angles in {dataset.name}; cut the longer to the other's")
    if not np.all(np.isfinite(theta)):
        raise ReadError(f"{path}: {dataset.name} holds angles that are not finite; repair them")
    said = (text(dataset.attrs.get("units")) or "").lower()
    if said and said not in DEGREES + RADIANS:
        raise ReadError(f"{path}: {dataset.name} is in {said!r}, expected degrees or radians; correct its units attribute")
    # half a turn of 3 "degrees" is no scan
    by_span = not said and theta.size > 3 and 2.5 < np.ptp(theta) < 6.6
    radians = said in RADIANS or by_span
    how = "attribute" if said else "span" if by_span else "default"
    return theta if radians else np.deg2rad(theta), f"{'radians' if radians else 'degrees'} by {how}"


def exchange_scan(path: Path, file: Any, n: int) -> Scan:
    """Geometry of /exchange/data: theta, and energy [keV], distance [mm] and pixel [micrometre] of /measurement."""
    theta = file.get("exchange/theta")
    if theta is None:
        raise ReadError(f"{path}: holds no /exchange/theta; add the angle of each projection, in degrees")
    angles, how = _radians(path, theta, n)
    return Scan(
        angles,
        energy=_positive(file, ENERGY, KEV, "kev"),
        distance=_positive(file, DISTANCE, {k: v / 1e3 for k, v in MICROMETRE.items()}, "mm"),
        pixel=_pixel(file, PIXEL),
        extra=(("theta", how),),
    )


def exchange_observation(path: Path, file: Any) -> Observation:
    """Instrument, exposure [s] and start time that /measurement states."""
    return Observation(
        instrument=text(file.get("measurement/instrument/name")) or text(file.get("measurement/instrument/instrument_name")),
        exposure=_positive(file, (f"{DETECTOR}/exposure_time",), SECOND, "s"),
        time=text(file.get("process/acquisition/start_date")) or text(file.get("measurement/start_date")),
        header=Header("exchange"),
        source=str(path),
    )


def image_key(file: Any) -> Any | None:
    """The group of an NXtomo that holds `data` and `image_key` (0 projection, 1 flat, 2 dark, 3 invalid), or None."""
    found: list[Any] = []

    def look(name: str, node: Any) -> None:
        if name.rpartition("/")[2] == "image_key" and hasattr(node, "shape") and "data" in node.parent:
            found.append(node.parent)

    file.visititems(look)
    return min(found, key=lambda g: "detector" not in g.name) if found else None


def nexus_scan(path: Path, file: Any, group: Any, keep: Array) -> Scan:
    """Geometry of the frames `keep` of an NXtomo: rotation_angle beside the data or anywhere in the file."""
    n = group["image_key"].shape[0]
    found: list[Any] = [group["rotation_angle"]] if "rotation_angle" in group else []
    file.visititems(lambda name, node: found.append(node) if name.rpartition("/")[2] == "rotation_angle" else None)
    if not found:
        raise ReadError(f"{path}: an NXtomo without rotation_angle; add the angle of each frame, in degrees")
    angles, how = _radians(path, found[0], n)
    keys = np.ravel(group["image_key"][()])
    dropped, before = int(np.sum(keys == 3)), np.cumsum(keys == 0)[keys == 1]
    return Scan(
        angles[keep],
        energy=_positive(file, _paths(file, "incident_energy"), KEV, "kev"),
        distance=_positive(group, ("distance",), {k: v / 1e3 for k, v in MICROMETRE.items()}, None),
        pixel=_pixel(group, ("x_pixel_size",)),
        extra=(
            ("theta", how),
            *((("invalid frames left out", dropped),) if dropped else ()),
            *(((WHITES_AT, tuple(before.tolist())),) if before.size else ()),
        ),
    )


def _paths(file: Any, name: str) -> tuple[str, ...]:
    found: list[str] = []
    file.visititems(lambda path, node: found.append(path) if path.rpartition("/")[2] == name else None)
    return tuple(found)


def nexus_observation(path: Path, file: Any, group: Any) -> Observation:
    """Exposure [s] and start time that an NXtomo states."""
    starts = _paths(file, "start_time")
    return Observation(
        exposure=_positive(group, ("count_time",), SECOND, "s"),
        time=text(file[starts[0]]) if starts else None,
        header=Header("nxtomo"),
        source=str(path),
    )
