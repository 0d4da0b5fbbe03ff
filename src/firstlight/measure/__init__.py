"""Measurement: numbers that tell whether an image can be trusted.

The modules import numpy alone when loaded. Functions and modules share names (residual, fidelity), so they are bound here
at once: a name bound on first use would be replaced by its module when that is imported.
"""

from firstlight.measure.doubts import noise_correlation, plausibility
from firstlight.measure.fidelity import affine_fit, fidelity, median3, psnr, ssim
from firstlight.measure.pictures import picture
from firstlight.measure.report import Entry, html, measure, table
from firstlight.measure.residual import Residual, residual

__all__ = [
    "Entry",
    "Residual",
    "affine_fit",
    "fidelity",
    "html",
    "measure",
    "median3",
    "noise_correlation",
    "picture",
    "plausibility",
    "psnr",
    "residual",
    "ssim",
    "table",
]
