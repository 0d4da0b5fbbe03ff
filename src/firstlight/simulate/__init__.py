"""Scenes with known truth, and the detector that records them. Seeds and conventions are fixed here.

Conventions: a scene is the mean number of electrons per pixel of one exposure (float64, axes YX unless said otherwise); pixel
(0, 0) is centred on coordinate (0, 0); every random thing takes a `numpy.random.Generator`. The scenes that benchmarks are
judged on (`bench/scenes.py`) draw from here with seeds of their own, and nothing is ever trained on those.
"""

from firstlight.simulate.cells import membranes, nuclei
from firstlight.simulate.detector import Sensor, make_sensor, read_out
from firstlight.simulate.inject import Galaxy, inject, render
from firstlight.simulate.phantom import Ellipse, phantom, projections, shepp_logan, shepp_logan_ellipses
from firstlight.simulate.scenes import (
    Star,
    chart,
    cosmic_rays,
    filaments,
    linearise,
    phantom_projections,
    spots,
    star_field,
)
from firstlight.simulate.torture import KINDS, torture

__all__ = [
    "KINDS",
    "Ellipse",
    "Galaxy",
    "Sensor",
    "Star",
    "chart",
    "cosmic_rays",
    "filaments",
    "inject",
    "linearise",
    "make_sensor",
    "membranes",
    "nuclei",
    "phantom",
    "phantom_projections",
    "projections",
    "read_out",
    "render",
    "shepp_logan",
    "shepp_logan_ellipses",
    "spots",
    "star_field",
    "torture",
]
