"""firstlight: from raw detector counts to calibrated, restored and measured images.

Public names load on first use, so that importing the package costs numpy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import_module("firstlight.compiled").find_room()

__version__ = "0.1.0"

_NAMES = {
    "Box": "box",
    "Detector": "noise",
    "Flag": "frame",
    "Frame": "frame",
    "Mosaic": "geometry",
    "Noise": "noise",
    "Observation": "frame",
    "Scan": "geometry",
    "Sky": "geometry",
    "Unit": "frame",
    "Unmodelled": "noise",
    "FirstlightError": "errors",
    "read": "io",
    "read_set": "io",
    "write": "io",
    "create": "io",
    "detector": "domains",
}
_ROOMS = ("calibrate", "domains", "io", "likelihood", "measure", "recipe", "restore", "scale", "simulate", "tiles")

__all__ = [
    "Box",
    "Detector",
    "FirstlightError",
    "Flag",
    "Frame",
    "Mosaic",
    "Noise",
    "Observation",
    "Scan",
    "Sky",
    "Unit",
    "Unmodelled",
    "__version__",
    "calibrate",
    "create",
    "detector",
    "domains",
    "io",
    "likelihood",
    "measure",
    "read",
    "read_set",
    "recipe",
    "restore",
    "scale",
    "simulate",
    "tiles",
    "write",
]


if TYPE_CHECKING:  # what type checkers and editors see of _NAMES and _ROOMS; tests/test_names.py holds them equal
    from firstlight import (
        calibrate,
        domains,
        io,
        likelihood,
        measure,
        recipe,
        restore,
        scale,
        simulate,
        tiles,
    )
    from firstlight.box import Box
    from firstlight.domains import detector
    from firstlight.errors import FirstlightError
    from firstlight.frame import Flag, Frame, Observation, Unit
    from firstlight.geometry import Mosaic, Scan, Sky
    from firstlight.io import create, read, read_set, write
    from firstlight.noise import Detector, Noise, Unmodelled
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.{_NAMES[name]}"), name)
        if name in _ROOMS:
            return import_module(f"firstlight.{name}")
        raise AttributeError(f"module 'firstlight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
