"""What a file holds, in plain figures for people and for JSON."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate, intake, io
from firstlight import measure as mea
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Mosaic, Scan
from firstlight.noise import Noise

__all__ = ["flag_counts", "flagged", "info", "info_text", "plain"]

IN_MEMORY = 64 << 20  # pixels up to which flags are found for the whole frame at once, not block by block


def info(path: Path, *, detector: str | None = None, unit: str | None = None, ext: str | None = None) -> dict[str, Any]:
    """What a file holds, in plain figures: axes, shape, unit, noise, geometry, flags, header, history, doubts."""
    found = intake.load(path, detector=detector, unit=unit, ext=ext)
    frame, obs = flagged(found.frame), found.frame.observation
    restored = any(r.step.startswith("restore.") for r in frame.history)  # its pixels no longer show the detector's noise
    return {
        "file": str(path),
        "axes": frame.axes,
        "shape": list(frame.shape),
        "dtype": str(frame.data.dtype),
        "unit": str(frame.unit),
        "noise": _noise_facts(found),
        "geometry": _geometry_facts(frame),
        "flags": flag_counts(frame),
        "spacing": dict(frame.spacing),
        "observation": {
            k: plain(v)
            for k in obs.__dataclass_fields__
            if k not in ("header", "source") and (v := getattr(obs, k)) is not None
        },
        **_cicp(frame),
        "history": [r.step for r in found.frame.history],
        "doubts": [*io.doubts(frame), *([] if restored else mea.plausibility(frame))],
    }


def info_text(facts: dict[str, Any]) -> str:
    """The figures of `info` as aligned lines."""
    size = " x ".join(str(n) for n in facts["shape"])
    rows = [("file", facts["file"]), ("image", f"{facts['axes']} {size} {facts['dtype']} [{facts['unit']}]")]
    noise = facts["noise"]
    names = {"gain": "e-/ADU", "read_noise": "e-", "offset": "ADU" if facts["unit"] == "adu" else facts["unit"]}
    known = [f"{k} {_short(noise[k])} {u}" for k, u in names.items() if noise[k] is not None]
    rows += [("noise", ", ".join(known) or "unknown"), ("from", noise["source"])]
    rows += [("geometry", _short(facts["geometry"]))] if facts["geometry"] else []
    rows += [("flags", _short(facts["flags"]) or "none")]
    rows += [("spacing", _short(facts["spacing"]) + " um")] if facts["spacing"] else []
    rows += [(k, _short(v)) for k, v in facts["observation"].items()]
    rows += [("cicp", _short(facts["cicp"]))] if "cicp" in facts else []
    rows += [("history", " > ".join(facts["history"]))] if facts["history"] else []
    rows += [("doubt", d) for d in facts["doubts"]]
    return "\n".join(f"{k:14s} {v}" for k, v in rows)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "[" + " ".join(_short(v) for v in value) + "]"
    return str(value)


def _noise_facts(found: intake.Intake) -> dict[str, Any]:
    noise, unit = found.frame.noise, found.frame.unit
    stated = {k: plain(v) for k, v in io.stated(found.frame).items() if k in ("gain", "read_noise", "offset")}
    offset = found.frame.observation.offset
    facts = {"gain": None, "read_noise": None, "offset": None if offset is None else plain(offset)} | stated
    facts["source"] = found.source
    if isinstance(noise, Noise):
        gain = 1 / np.asarray(noise.a) if unit is Unit.ADU and np.all(np.asarray(noise.a) > 0) else None
        rms = np.sqrt(np.asarray(noise.b))
        facts |= {
            "gain": plain(gain),
            "read_noise": plain(rms * gain if gain is not None else rms),
            "offset": plain(noise.offset),
        }
        facts |= {"model": "var = a s + b + c s^2 + d", "a": plain(noise.a), "b": plain(noise.b)}
    else:
        facts["reason"] = noise.reason
    return facts


def plain(value: Any) -> Any:
    """Numbers and short lists as they are; a map as its median and range."""
    if value is None or isinstance(value, str | int | float):
        return value
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    if array.size <= 64:
        return array.tolist()
    if array.min() == array.max():
        return float(array.flat[0])
    return {"median": float(np.median(array)), "min": float(array.min()), "max": float(array.max())}


def _cicp(frame: Frame) -> dict[str, Any]:
    """What an AVIF states of its codes (ITU-T H.273), where it states it."""
    said = getattr(frame.observation.header, "cicp", None)
    return {} if said is None else {"cicp": said._asdict()}


def _geometry_facts(frame: Frame) -> dict[str, Any] | None:
    match frame.geometry:
        case None:
            return None
        case Mosaic() as mosaic:
            return {"kind": "mosaic", "pattern": mosaic.cell().tolist(), "colors": mosaic.colors}
        case Scan() as scan:
            span = float(np.degrees(scan.angles[-1] - scan.angles[0])) if scan.angles.size else 0.0
            return {"kind": "scan", "angles": int(scan.angles.size), "span_deg": span, "center": scan.center}
        case sky:
            cards = dict(sky.cards)
            return {"kind": "sky"} | {k: cards[k] for k in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2") if k in cards}


def flagged(frame: Frame) -> Frame:
    """Raw counts with their saturated pixels flagged, where a level is stated and the frame fits into memory."""
    raw = frame.unit is Unit.ADU and frame.flags is None and frame.observation.saturation is not None
    if not raw or prod(frame.shape) > IN_MEMORY:
        return frame
    return calibrate.flag_saturated(frame)


def flag_counts(frame: Frame) -> dict[str, int]:
    """Flagged pixels by the flag's name; flags that nothing carries are left out."""
    if frame.flags is None:
        return {}
    flags = np.asarray(frame.flags)
    return {str(f.name).lower(): n for f in Flag if (n := int(np.count_nonzero(flags & f.value)))}
