"""What a file holds, in plain figures for people and for JSON."""

from __future__ import annotations

from math import lcm, prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate, cfa, intake, io
from firstlight import measure as mea
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic, Scan
from firstlight.noise import CELL, Noise, Param, crop_map, spread

__all__ = ["flag_counts", "flagged", "info", "info_text", "plain"]

RAW = ("offset", "saturation", "white_balance", "color_matrix")  # of an observation: what `raw` says colour by colour
IN_MEMORY = 64 << 20  # pixels up to which flags are found for the whole frame at once, not block by block


def info(path: Path, *, detector: str | None = None, unit: str | None = None, ext: str | None = None) -> dict[str, Any]:
    """What a file holds, in plain figures: axes, shape, unit, noise, geometry, flags, header, history, doubts.

    Of a camera's frame also `raw`: pattern, phase, levels, balance and saturated pixels colour by colour; of an AVIF `cicp`;
    of a developed picture `picture`: transfer and bits of its codes.
    """
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
        **_raw(found.frame),
        **_cicp(frame),
        **_shown(frame),
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
    raw = facts.get("raw", {})
    rows += [("geometry", _short(facts["geometry"]))] if facts["geometry"] and not raw else []
    rows += [("flags", _short(facts["flags"]) or "none")]
    rows += [("spacing", _short(facts["spacing"]) + " um")] if facts["spacing"] else []
    rows += [(k, _short(v)) for k, v in facts["observation"].items() if not (raw and k in RAW)]
    rows += [(k.replace("_", " "), _short(v)) for k, v in raw.items() if v is not None]
    rows += [(k, _short(facts[k])) for k in ("cicp", "picture") if k in facts]
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


def _shown(frame: Frame) -> dict[str, Any]:
    """Transfer, primaries, bits and diffuse white of codes that were rendered, as the file's history has it."""
    last = frame.history[-1] if frame.history else None
    if last is None or last.step != "develop.render":
        return {}
    primaries = "srgb" if last.params["transfer"] == "srgb" else "rec2020"
    return {"picture": {"primaries": primaries, **last.params}}


def _raw(frame: Frame) -> dict[str, Any]:
    """Of a camera's frame: pattern and phase, levels per cell and colour, balance, matrix, pixels at or above white."""
    obs, mosaic = frame.observation, frame.geometry
    if frame.unit is not Unit.ADU or not (isinstance(mosaic, Mosaic) or obs.white_balance or obs.color_matrix):
        return {}
    black, white = obs.offset, obs.saturation
    colors = mosaic.colors if isinstance(mosaic, Mosaic) else "RGB" if frame.axes == "CYX" else "W"
    return {"raw": {
        **(_pattern(mosaic) if isinstance(mosaic, Mosaic) else {}),
        "black": None if black is None else plain(np.asarray(black)),
        "white": None if white is None else _levels(white, frame, colors),
        "saturated": None if white is None else _at_white(frame, white, colors),
        "white_balance": None if obs.white_balance is None else dict(zip(colors, obs.white_balance, strict=False)),
        "color_matrix": obs.color_matrix,
    }}  # fmt: skip


def _pattern(mosaic: Mosaic) -> dict[str, Any]:
    """Letters of one period from the first pixel on, row by row, and the phase (Y, X) of the family that they are of."""
    found = {"cfa": "other", "cell": ["".join(mosaic.colors[i] for i in row) for row in mosaic.cell()], "phase": None}
    for name, pattern in (("Bayer", BAYER), ("X-Trans", XTRANS)):
        for phase in np.ndindex(Mosaic(pattern).period):
            if cfa.same(mosaic, Mosaic(pattern, (phase[0], phase[1]))):
                return found | {"cfa": name, "phase": list(phase)}
    return found


def _levels(level: Param, frame: Frame, colors: str) -> dict[str, Any]:
    """A level of each colour; where it differs between pixels of one, its values in order."""
    mosaic = frame.geometry
    if not isinstance(mosaic, Mosaic):
        return dict(zip(colors, np.broadcast_to(np.ravel(level), len(colors)).tolist(), strict=True))
    side = [lcm(n, m) if m <= CELL else m for n, m in zip(mosaic.period, np.shape(level) or (1, 1), strict=True)]
    cell, color = np.broadcast_to(spread(level, side), side), mosaic.at((side[0], side[1]))
    found = {c: np.unique(cell[color == i]).tolist() for i, c in enumerate(colors)}
    return {c: v[0] if len(v) == 1 else plain(np.array(v)) for c, v in found.items()}


def _at_white(frame: Frame, white: Param, colors: str) -> dict[str, int]:
    """Pixels of each colour at or above white, counted block by block."""
    total = np.zeros(len(colors), dtype=np.int64)
    for box in io.blocks(frame.shape, frame.data.dtype.itemsize):
        part = np.asarray(frame.data[box.slices])
        hit = np.nonzero(part >= spread(crop_map(white, frame.shape, box), part.shape))
        if isinstance(frame.geometry, Mosaic):
            cell = frame.geometry.crop(frame.axes, box).cell()
            color = cell[hit[-2] % cell.shape[0], hit[-1] % cell.shape[1]]
        else:
            color = hit[0] + box.start[0] if len(colors) > 1 else np.zeros(hit[0].size, dtype=np.intp)
        total += np.bincount(color, minlength=len(colors))
    return dict(zip(colors, total.tolist(), strict=True))


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
