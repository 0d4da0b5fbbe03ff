"""Restoration: a better image from a calibrated one. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {"halo": "denoise", "nonlocal_means": "denoise"}

__all__ = ["halo", "nonlocal_means", "reconstruct"]


if TYPE_CHECKING:
    from firstlight.restore.denoise import halo, nonlocal_means
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.restore.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.restore' has no attribute {name!r}")


# A function named like its file: bound here for good, or the first import of the file would put the module in its place.
from firstlight.restore.reconstruct import reconstruct as reconstruct  # noqa: E402
