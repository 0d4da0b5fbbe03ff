"""Restoration: a better image from a calibrated one. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {"halo": "denoise", "nonlocal_means": "denoise"}

__all__ = ["halo", "nonlocal_means"]


if TYPE_CHECKING:
    from firstlight.restore.denoise import halo, nonlocal_means
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.restore.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.restore' has no attribute {name!r}")
