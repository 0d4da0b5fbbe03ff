"""Calibration: one file a detector effect, in processing order. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "assign": "detector",
    "assign_maps": "detector",
    "calibrate": "dark_flat",
    "combine": "outliers",
    "divide_flat": "dark_flat",
    "documented": "detector",
    "emva_descriptor": "emva",
    "flag_cosmic_rays": "outliers",
    "flag_hot_pixels": "outliers",
    "flag_saturated": "detector",
    "master": "dark_flat",
    "measure_shift": "register",
    "plot": "photon_transfer",
    "register": "register",
    "shift_between": "register",
    "subtract_bias": "dark_flat",
    "subtract_dark": "dark_flat",
    "subtract_offset": "detector",
    "to_counts": "detector",
    "to_electrons": "detector",
    "Transfer": "line",
    "transfer": "photon_transfer",
    "transfer_single": "single",
    "transmission": "scan",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"firstlight.calibrate.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'firstlight.calibrate' has no attribute {name!r}")


# A function named like its file: bound here for good, or the first import of the file would put the module in its place.
from firstlight.calibrate.register import register as register  # noqa: E402
