"""Calibration: one file a detector effect, in processing order. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES: dict[str, str] = {}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"firstlight.calibrate.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'firstlight.calibrate' has no attribute {name!r}")
