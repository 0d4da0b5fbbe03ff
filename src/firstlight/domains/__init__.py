"""What differs between domains, as tables: detectors, scalings, presets, grids, recipes. Data; the only code is the look-up.

Profile `physical` holds measured detectors with a source. Profiles `documented` and `document0` hold the constants of a
published pipeline as it states them, each with what is wrong with it, and warn.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from firstlight.domains import astronomy, microscopy, photography, tomography
from firstlight.domains.rows import DetectorRow, Grid, Layout, Preset
from firstlight.errors import FrameError
from firstlight.noise import Detector, Param
from firstlight.scaling import Scaling

__all__ = [
    "DetectorRow",
    "Grid",
    "Layout",
    "Preset",
    "cameras",
    "default_recipe",
    "defaults",
    "detector",
    "grids",
    "layouts",
    "names",
    "preset",
    "presets",
    "scaling",
]

PROFILES = ("physical", "documented", "document0")
_TABLES: dict[str, ModuleType] = {
    "photography": photography,
    "microscopy": microscopy,
    "astronomy": astronomy,
    "tomography": tomography,
}


def names() -> tuple[str, ...]:
    """The domains."""
    return tuple(_TABLES)


def cameras() -> tuple[str, ...]:
    """The cameras of the physical table, each by its first name."""
    return tuple(dict.fromkeys(row.cameras[0] for row in _rows()))


def detector(
    camera: str,
    setting: str | float | None = None,
    *,
    profile: str = "physical",
    read_noise: float | None = None,
    offset: Param | None = None,
) -> Detector:
    """The Detector of a camera [name as files write it] at a setting [ISO, gain mode or None].

    read_noise [e-] and offset [ADU]: measured figures, over the table's; the gain is the table's alone. Other profiles take
    a preset's name as `camera`, have no offset (0) and warn. Raises FrameError with the known names otherwise.
    """
    if profile != "physical":
        return _documented(camera, profile)
    row = _find(camera, setting)
    gain = row.gain if row.gain is not None else _by_law(row, camera, setting)
    given = [f"{k} as given" for k, v in (("read noise", read_noise), ("offset", offset)) if v is not None]
    return Detector(
        gain,
        _filled(row, "read_noise", row.read_noise, read_noise, "e-"),
        _filled(row, "offset", row.offset, offset, "ADU"),
        row.saturation,
        source="; ".join([row.source, *given]),
    )


def _rows() -> Iterator[DetectorRow]:
    for table in _TABLES.values():
        yield from table.DETECTORS


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find(camera: str, setting: str | float | None) -> DetectorRow:
    known = {_key(alias): row.cameras[0] for row in _rows() for alias in row.cameras}
    rows = [row for row in _rows() if _key(camera) in map(_key, row.cameras)]
    if not rows:
        near = get_close_matches(_key(camera), known, 1, 0.76)  # another digit is another camera
        raise _unknown(
            "camera", camera, cameras(), known[near[0]] if near else None, "or measure it: firstlight transfer, then --detector"
        )
    if len(rows) == 1 and rows[0].gain_times_iso is not None:
        return rows[0]
    same = [row for row in rows if _key(str(setting or "")) == _key(row.setting or "")]
    if not same:
        settings = ", ".join(repr(row.setting) for row in rows)
        raise FrameError(f"detector: setting {setting!r} of {rows[0].cameras[0]} is not in the table; expected {settings}")
    return same[0]


def _by_law(row: DetectorRow, camera: str, setting: str | float | None) -> float:
    assert row.gain_times_iso is not None
    assert row.iso_range is not None
    found = re.fullmatch(r"\s*(?:ISO\s*)?(\d+(?:\.\d+)?)\s*", str(setting), re.IGNORECASE)
    low, high = row.iso_range
    if found is None or not low <= float(found[1]) <= high:
        raise FrameError(
            f"detector: setting {setting!r} of {camera}, expected its ISO from {low:g} to {high:g}, where gain goes as 1/ISO"
        )
    return row.gain_times_iso / float(found[1])


def _filled(row: DetectorRow, name: str, known: float | None, given: Param | None, unit: str) -> Param:
    value = known if given is None else given
    if value is None:
        raise FrameError(
            f"detector: the {name.replace('_', ' ')} of {row.cameras[0]} is not in the table; pass {name}= [{unit}], or "
            f"measure the camera: firstlight transfer"
        )
    return value


def _documented(name: str, profile: str) -> Detector:
    if profile not in PROFILES:
        raise _unknown("profile", profile, PROFILES)
    row = preset(name)
    if row.profile != profile:
        raise FrameError(f"detector: preset {name!r} belongs to profile {row.profile!r}, not {profile!r}; name that one")
    if row.gain is None or row.read_noise is None:
        raise FrameError(f"detector: preset {name!r} gives a range, not a calibration ({row.source}); choose another")
    warnings.warn(f"detector {name!r}: {row.source}", UserWarning, stacklevel=3)
    return Detector(row.gain, row.read_noise, source=row.source)


def presets(profile: str | None = None) -> tuple[Preset, ...]:
    """The presets of one profile, or of all."""
    return tuple(p for table in _TABLES.values() for p in table.PRESETS if profile in (None, p.profile))


def preset(name: str) -> Preset:
    """The preset of that name; raises FrameError with the known ones."""
    found = [p for p in presets() if p.name == name]
    if not found:
        raise _unknown("preset", name, [p.name for p in presets()])
    return found[0]


def scaling(domain: str, profile: str = "documented") -> Scaling:
    """A domain's fixed scaling [electron] under a profile; raises FrameError where there is none."""
    rows: Mapping[str, Scaling] = _table(domain).SCALINGS
    if profile not in rows:
        raise FrameError(f"scaling: {domain} has none in profile {profile!r}; expected one of: {', '.join(rows) or 'none'}")
    return rows[profile]


def grids(domain: str) -> tuple[Grid, ...]:
    """A domain's published tile grids."""
    return tuple(_table(domain).GRIDS)


def layouts(profile: str = "physical") -> tuple[Layout, ...]:
    """How published collections name their files, in the order in which a name is tried; `documented` warns, row by row."""
    if profile not in PROFILES:
        raise _unknown("profile", profile, PROFILES)
    return tuple(row for table in _TABLES.values() for row in table.LAYOUTS if row.profile == profile)


def default_recipe(domain: str) -> str:
    """The name of a domain's shipped recipe."""
    return str(_table(domain).RECIPE)


def defaults(domain: str | None, preset_name: str | None = None) -> dict[str, dict[str, Any]]:
    """What a domain's row, and a preset, set in a recipe: {step: {parameter: value}}."""
    out = {step: dict(row) for step, row in _table(domain).STEP_DEFAULTS.items()} if domain is not None else {}
    if preset_name is None:
        return out
    row = preset(preset_name)
    if row.gain is None or row.read_noise is None:
        raise FrameError(f"preset {preset_name!r} gives a range, not a calibration ({row.source}); choose another")
    if domain is not None and row not in _table(domain).PRESETS:
        raise FrameError(
            f"preset {preset_name!r} is not of {domain}; expected {_listed(p.name for p in _table(domain).PRESETS)}"
        )
    out["calibrate.documented"] = {"gain": row.gain, "read_noise": row.read_noise}
    out["scaling.scale"] = {"scale": row.scaling.scale, "offset": row.scaling.offset}
    return out


def _table(domain: str) -> Any:
    if domain not in _TABLES:
        raise _unknown("domain", domain, names())
    return _TABLES[domain]


def _listed(values: Any) -> str:
    return ", ".join(values) or "none"


def _unknown(what: str, got: str, known: Sequence[str], near: str | None = None, otherwise: str = "") -> FrameError:
    near = near or next(iter(get_close_matches(got, known, 1)), None)
    hint = f"; did you mean {near!r}?" if near else ";"
    return FrameError(f"unknown {what} {got!r}{hint} known: {_listed(known)}{'; ' + otherwise if otherwise else ''}")
