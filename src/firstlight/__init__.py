"""firstlight: from raw detector counts to calibrated, restored and measured images.

Public names load on first use, so that importing the package costs numpy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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

__all__ = ["__version__", *_NAMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"firstlight.{_NAMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"firstlight.{name}")
    raise AttributeError(f"module 'firstlight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
