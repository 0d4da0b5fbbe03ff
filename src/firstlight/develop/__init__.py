"""RAW development: a mosaic into scene-linear colours, and those into the codes of a display. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "camera_matrix": "colour",
    "compress_gamut": "colour",
    "convert": "colour",
    "develop": "pipeline",
    "expose": "exposure",
    "neutral": "highlights",
    "render": "pipeline",
    "upright": "exposure",
}

__all__ = ["camera_matrix", "compress_gamut", "convert", "develop", "expose", "neutral", "render", "upright"]

if TYPE_CHECKING:
    from firstlight.develop.colour import camera_matrix, compress_gamut, convert
    from firstlight.develop.exposure import expose, upright
    from firstlight.develop.highlights import neutral
    from firstlight.develop.pipeline import develop, render
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.develop.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.develop' has no attribute {name!r}")
