"""X-ray tomography: projections with white and dark fields; gains come from their photon statistics, not from a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.domains.rows import DetectorRow, Grid, Layout, Preset
from firstlight.scaling import Scaling

DETECTORS: tuple[DetectorRow, ...] = ()

SCALINGS: dict[str, Scaling] = {}

PRESETS: tuple[Preset, ...] = ()

GRIDS: tuple[Grid, ...] = ()

LAYOUTS: tuple[Layout, ...] = ()

STEP_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}

RECIPE = "tomography"
