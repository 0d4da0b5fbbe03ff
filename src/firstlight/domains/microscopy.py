"""Microscopy: fluorescence cameras, and the cameras of EMVA 1288."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.domains.rows import DetectorRow, Grid, Layout, Preset
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

_CELL = r"(?P<structure>[^/]+)/Cell_(?P<cell>\d+)"
_SCENE = "micro_{structure}_Cell_{cell}"  # all levels, phases and reconstructions of one cell

_BIOSR = (
    Layout(
        "biosr er raw",
        "microscopy",
        r"(?P<structure>ER)/Cell_(?P<cell>\d+)/RawSIMData_level_(?P<level>\d+)\.mrc",
        scene=_SCENE,
        view=f"{_SCENE}_level_{{level}}",  # a living cell: each level has its own clean frame
        data_type="noisy",
        level="{level}",
    ),
    Layout(
        "biosr er raw gt",
        "microscopy",
        _CELL + r"/RawGTSIMData/RawGTSIMData_level_(?P<level>\d+)\.mrc",
        scene=_SCENE,
        view=f"{_SCENE}_level_{{level}}",
        data_type="clean",
        level="{level}",
    ),
    Layout(
        "biosr er sim",
        "microscopy",
        _CELL + r"/GTSIM/GTSIM_level_(?P<level>\d+)\.mrc",
        scene=_SCENE,
        view=f"{_SCENE}_level_{{level}}",
        data_type="clean",
        level="{level}",
    ),
    Layout(
        "biosr raw",
        "microscopy",
        _CELL + r"/RawSIMData_level_(?P<level>\d+)\.mrc",
        scene=_SCENE,
        view=_SCENE,
        data_type="noisy",
        level="{level}",
    ),
    Layout(
        "biosr raw gt", "microscopy", _CELL + r"/RawSIMData_gt\.mrc", scene=_SCENE, view=_SCENE, data_type="clean", level="gt"
    ),
    Layout("biosr sim", "microscopy", _CELL + r"/SIM_gt(?:_a)?\.mrc", scene=_SCENE, view=_SCENE, data_type="clean", level="gt"),
)

_RECONSTRUCTION = (
    "BioSR: a raw SIM frame (502 px, stripes of light) and its reconstruction (1004 px) are no noisy/clean pair; "
    "the scene ids name a noise level, not a cell, so that every cell is in one scene and a cell's frames in several"
)

_BIOSR_DOCUMENTED = (
    Layout(
        "biosr raw gt",
        "microscopy",
        _CELL + r"/RawSIMData_gt\.mrc",
        scene="micro_gt",
        view=_SCENE,
        data_type="noisy",  # its table of folders and its scene list say clean; its counts rest on noisy
        level="gt",
        profile="documented",
        warning=_RECONSTRUCTION,
    ),
    Layout(
        "biosr sim",
        "microscopy",
        _CELL + r"/SIM_gt(?:_a)?\.mrc",
        scene="micro_gt",
        view=_SCENE,
        data_type="clean",
        level="gt",
        profile="documented",
        warning=_RECONSTRUCTION,
    ),
    Layout(
        "biosr raw",
        "microscopy",
        _CELL + r"/(?P<stem>RawSIMData_level_(?P<level>\d+))\.mrc",
        scene="micro_{stem}",
        view=f"{_SCENE}_{{stem}}",
        data_type="noisy",
        level="{level}",
        profile="documented",
        warning=_RECONSTRUCTION,
    ),
    Layout(
        "biosr er",
        "microscopy",
        _CELL + r"/[^/]+/(?P<stem>(?P<kind>RawGTSIMData|GTSIM)_level_(?P<level>\d+))\.mrc",
        scene="micro_{stem}",
        view=f"{_SCENE}_level_{{level}}",
        data_type="{kind}",
        level="{level}",
        labels={"RawGTSIMData": "noisy", "GTSIM": "clean"},
        profile="documented",
        warning=_RECONSTRUCTION,
    ),
)

LAYOUTS = (
    *_BIOSR,
    *_BIOSR_DOCUMENTED,
    Layout(
        "w2s",
        "microscopy",
        r"(?P<kind>input|target)_avg(?P<level>\d+)_(?P<field>\d+)_(?P<channel>\d+)\.(?i:tiff?)",
        scene="micro_w2s_{field}",  # three channels of one field
        view="micro_w2s_{field}_{channel}",
        data_type="{kind}",
        level="avg{level}",
        channel="{channel}",
        labels={"input": "noisy", "target": "clean"},
    ),
)

STEP_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}

RECIPE = "microscopy"
