"""What microscopes' metadata in a TIFF say: OME-XML and ImageJ's text, as plain facts.

OME's Detector Gain and ImageJ's calibration are settings of an amplifier or a display, never e-/ADU: they are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

__all__ = ["LENGTH", "imagej_spacing", "ome_facts"]

LENGTH = {  # micrometre
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "in": 25400.0,
    "inch": 25400.0,
}
SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}


def _positive(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None


def _named(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (e for e in root.iter() if e.tag.rpartition("}")[2] == name)


def ome_facts(xml: str, index: int) -> dict[str, Any]:
    """spacing {axis: um}, exposure [s], band, instrument, time of image `index` of an OME-XML text; only what it states."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    images = list(_named(root, "Image"))
    if index >= len(images):
        return {}
    image = images[index]
    pixels = next(_named(image, "Pixels"), image)
    facts = {
        "spacing": _spacing(pixels),
        "exposure": _exposure(pixels),
        "band": "; ".join(b for c in _named(pixels, "Channel") if (b := _band(c))) or None,
        "instrument": _instrument(root, pixels),
        "time": next((e.text.strip() for e in _named(image, "AcquisitionDate") if e.text), None),
    }
    return {k: v for k, v in facts.items() if v}


def _spacing(pixels: ElementTree.Element) -> dict[str, float]:
    found = {}
    for axis in "ZYX":
        unit = LENGTH.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
        value = _positive(pixels.get(f"PhysicalSize{axis}"))
        if value and unit:
            found[axis] = value * unit
    return found


def _exposure(pixels: ElementTree.Element) -> float | None:
    """The exposure [s] that all planes share; channels exposed differently have none in common."""
    times = {
        value * SECONDS[unit]
        for plane in _named(pixels, "Plane")
        if (value := _positive(plane.get("ExposureTime"))) and (unit := plane.get("ExposureTimeUnit", "s")) in SECONDS
    }
    return times.pop() if len(times) == 1 else None


def _band(channel: ElementTree.Element) -> str:
    wave = _positive(channel.get("EmissionWavelength"))
    parts = (channel.get("Name", ""), f"{wave:g} {channel.get('EmissionWavelengthUnit', 'nm')}" if wave else "")
    return " ".join(p for p in parts if p)


def _instrument(root: ElementTree.Element, pixels: ElementTree.Element) -> str | None:
    used = {s.get("ID") for s in _named(pixels, "DetectorSettings")}
    detectors = [d for d in _named(root, "Detector") if not used or d.get("ID") in used]
    parts = [next(_named(root, "Microscope"), None), detectors[0] if detectors else None]
    names = (e.get(k, "") for e in parts if e is not None for k in ("Manufacturer", "Model"))
    return " ".join(n for n in names if n) or None


def imagej_spacing(metadata: Mapping[str, Any], per_unit: Mapping[str, float]) -> dict[str, float]:
    """{axis: um} from ImageJ's unit and slice spacing and the pixels per unit along X and Y; empty where uncalibrated."""
    text = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), str(metadata.get("unit", "")))
    unit = LENGTH.get(text.strip().lower())
    if unit is None:
        return {}
    found = {a: unit / per_unit[a] for a in "YX" if per_unit.get(a)}
    depth = _positive(metadata.get("spacing"))
    return {"Z": depth * unit, **found} if depth else found
