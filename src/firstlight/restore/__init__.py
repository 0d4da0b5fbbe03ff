"""Restoration: a better image from a calibrated one. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "demosaic": "demosaic",
    "denoise": "learned",
    "denoise_picture": "pictured",
    "halo": "means",
    "nonlocal_means": "means",
    "sharpest_center": "center_sharpness",
    "reconstruct": "reconstruct",
    "samples": "learned",
    "cgls": "iterative",
    "laminography": "lamino",
    "landweber": "iterative",
    "least_squares": "iterative",
    "mlem": "iterative",
    "osem": "iterative",
    "sirt": "iterative",
    "tikhonov": "iterative",
    "progress": "driver",
    "total_variation": "primal_dual",
}

__all__ = [
    "cgls",
    "demosaic",
    "denoise",
    "denoise_picture",
    "halo",
    "laminography",
    "landweber",
    "least_squares",
    "mlem",
    "nonlocal_means",
    "osem",
    "progress",
    "reconstruct",
    "samples",
    "sharpest_center",
    "sirt",
    "tikhonov",
    "total_variation",
]


if TYPE_CHECKING:
    from firstlight.restore.center_sharpness import sharpest_center
    from firstlight.restore.driver import progress
    from firstlight.restore.iterative import cgls, landweber, least_squares, mlem, osem, sirt, tikhonov
    from firstlight.restore.lamino import laminography
    from firstlight.restore.learned import denoise, samples
    from firstlight.restore.means import halo, nonlocal_means
    from firstlight.restore.pictured import denoise_picture
    from firstlight.restore.primal_dual import total_variation
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.restore.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.restore' has no attribute {name!r}")


# Functions named like their files: bound here for good, or the first import of a file would put the module in its place.
from firstlight.restore.demosaic import demosaic as demosaic  # noqa: E402
from firstlight.restore.reconstruct import reconstruct as reconstruct  # noqa: E402
