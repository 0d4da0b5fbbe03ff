"""Microscopy: fluorescence cameras, and the cameras of EMVA 1288."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.domains.rows import DetectorRow, Grid, Preset
from firstlight.scaling import Scaling

DETECTORS = (
    DetectorRow(
        cameras=("EMVA 1288 reference CCD", "EMVA1288_ReferenceSet_001_CCD_12Bit"),
        gain=3.57,
        read_noise=10.9,
        offset=14.8,
        saturation=3890.0,
        source="EMVA 1288 reference set 001 (Basler, 2011): 0.280 DN/e-, dark noise 10.9 e-, saturation near 3890 DN; "
        "offset: mean of its dark images",
    ),
)

SCALINGS = {"documented": Scaling(66000.0)}

PRESETS = (
    Preset(
        "microscopy",
        "documented",
        SCALINGS["documented"],
        gain=1.0,
        read_noise=1.5,
        source="document 1, sCMOS: the camera's offset stays in; sCMOS gain and noise differ per pixel",
    ),
    Preset(
        "biosr-scmos",
        "document0",
        SCALINGS["documented"],
        gain=1.0,
        read_noise=1.5,
        gain_range=(0.5, 1.5),
        read_noise_range=(1.0, 2.0),
        source="document 0, BioSR sCMOS, 'typical' figures with ranges: not measured on the camera, offset left in",
    ),
)

GRIDS = (
    Grid("standard", (1004, 1004), 4, 4, 256, pairs=619),
    Grid("raw SIM", (502, 502), 4, 4, 256),
)

STEP_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}

RECIPE = "microscopy"
