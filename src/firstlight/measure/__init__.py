"""Measurement: numbers that tell whether an image can be trusted.

The modules import numpy alone when loaded. Functions and modules share names (residual, fidelity), so they are bound here
at once: a name bound on first use would be replaced by its module when that is imported.
"""

from firstlight.measure.aperture import Fluxes, aperture_flux
from firstlight.measure.completeness import (
    Gain,
    Operating,
    Recovered,
    Sweep,
    at_purity,
    background_bias,
    by_flux,
    gain,
    recover,
    sweep,
)
from firstlight.measure.detect import Found, detect, star_width
from firstlight.measure.doubts import noise_correlation, plausibility
from firstlight.measure.fidelity import affine_fit, fidelity, median3, psnr, ssim
from firstlight.measure.match import match
from firstlight.measure.pictures import picture
from firstlight.measure.report import Entry, html, measure, table
from firstlight.measure.residual import Residual, judged, residual
from firstlight.measure.sample import LIMIT, boxes
from firstlight.measure.sources import sources

__all__ = [
    "LIMIT",
    "Entry",
    "Fluxes",
    "Found",
    "Gain",
    "Operating",
    "Recovered",
    "Residual",
    "Sweep",
    "affine_fit",
    "aperture_flux",
    "at_purity",
    "background_bias",
    "boxes",
    "by_flux",
    "detect",
    "fidelity",
    "gain",
    "html",
    "judged",
    "match",
    "measure",
    "median3",
    "noise_correlation",
    "picture",
    "plausibility",
    "psnr",
    "recover",
    "residual",
    "sources",
    "ssim",
    "star_width",
    "sweep",
    "table",
]
