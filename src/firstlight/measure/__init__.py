"""Measurement: numbers that tell whether an image can be trusted. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES: dict[str, str] = {}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"firstlight.measure.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'firstlight.measure' has no attribute {name!r}")
