"""Photography: camera RAW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.domains.rows import DetectorRow, Grid, Layout, Preset
from firstlight.scaling import Scaling

DETECTORS = (
    DetectorRow(
        cameras=("Sony A7S II", "ILCE-7SM2", "Sony ILCE-7SM2", "Sony A7S2", "A7S II", "A7SM2"),
        gain_times_iso=1010.0,
        iso_range=(100.0, 102400.0),  # the native range; below and above it the camera scales numbers
        offset=512.0,
        saturation=16383.0,
        source="gain 1010/ISO e-/ADU (ISO 200: 5.05, document 1's 5.0 there); black 512 and white 16383 of the SID set "
        "(Chen et al. 2018); read noise not measured",
    ),
)

SCALINGS = {"documented": Scaling(80000.0)}

PRESETS = (
    Preset(
        "sony",
        "documented",
        SCALINGS["documented"],
        gain=5.0,
        read_noise=3.56,
        source="document 1, one gain for all ISO: right near ISO 200 only, gain goes as 1/ISO; no black level (512) removed",
    ),
    Preset(
        "fuji",
        "documented",
        SCALINGS["documented"],
        gain=1.8,
        read_noise=3.75,
        source="document 1, one gain for all ISO: gain goes as 1/ISO; no black level (1024) removed",
    ),
    Preset(
        "sony-iso2000",
        "document0",
        SCALINGS["documented"],
        gain=2.1,
        read_noise=6.0,
        source="document 0, Sony A7S II at ISO 2000: 2.1 is DN/e- upside down, 1010/2000 is 0.505 e-/ADU",
    ),
    Preset(
        "sony-iso4000",
        "document0",
        SCALINGS["documented"],
        gain=0.79,
        read_noise=2.5,
        source="document 0, Sony A7S II at ISO 4000, called unity gain there: 0.79 is not 1, and 1010/4000 is 0.2525 e-/ADU",
    ),
    Preset(
        "fuji-range",
        "document0",
        SCALINGS["documented"],
        gain_range=(0.75, 1.8),
        read_noise_range=(2.5, 3.75),
        source="document 0, Fuji X-T30, 'base ISO to high ISO': a range is no calibration, and e-/ADU falls with ISO",
    ),
)

GRIDS = (
    Grid("sony", (1424, 2128), 6, 9, 256, pairs=231),
    Grid("fuji", (1008, 1508), 4, 6, 256, pairs=193),
)

_SID = r"(?P<camera>Sony|Fuji)/(?P<kind>short|long)/(?P<scene>\d{5})_(?P<frame>\d\d)_(?P<seconds>[\d.]+)s\.(?i:arw|raf|dng)"

LAYOUTS = (
    Layout(
        "sid",
        "photography",
        _SID,
        scene="photo_{scene}",  # both cameras number from 00001: one scene too few is safe, one too many leaks
        view="photo_{camera}_{scene}",
        data_type="{kind}",
        level="{seconds}s",
        exposure="{seconds}",
        labels={"short": "noisy", "long": "clean"},
    ),
    Layout(
        "sid",
        "photography",
        _SID,
        scene="photo_{scene}",
        view="photo_{camera}_{scene}",
        data_type="{kind}",
        level="{seconds}s",
        exposure="{seconds}",
        labels={"short": "noisy", "long": "clean"},
        profile="documented",
        warning="SID: one short frame a scene is used, the others are left out; the clean frames of training scenes are the "
        "test set",
    ),
)

STEP_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}

RECIPE = "photography"
