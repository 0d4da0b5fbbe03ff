"""A frame's description as JSON, and its maps as arrays: what every format keeps, inside the file or beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from firstlight.errors import FrameError, ReadError
from firstlight.frame import Frame, Observation, Record, Unit
from firstlight.geometry import Geometry, Mosaic, Scan, Sky
from firstlight.noise import CELL, Noise, Unmodelled

__all__ = ["MAPS", "attach", "digest", "dumps", "map_shape", "maps"]

NOISE = ("a", "b", "offset", "c", "d")
MAPS = ("std", "flags", "psf", *(f"noise_{k}" for k in NOISE))
SMALL = CELL * CELL  # parameters up to this many numbers stand in the JSON


def maps(frame: Frame) -> dict[str, Any]:
    """The frame's arrays by name: flags, psf and noise maps too large for the JSON; std is written block by block."""
    found: dict[str, Any] = {k: getattr(frame, k) for k in ("flags", "psf") if getattr(frame, k) is not None}
    if isinstance(frame.noise, Noise):
        found |= {f"noise_{k}": v for k in NOISE if not _in_json(v := getattr(frame.noise, k))}
    return found


def map_shape(part: Any) -> tuple[int, ...]:
    """Shape of a map as written."""
    return tuple(int(n) for n in part.shape)


def _in_json(value: Any) -> bool:
    return isinstance(value, float) or value.size <= SMALL


def _param(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return value
    return value.tolist() if _in_json(value) else {"map": name}


def dumps(frame: Frame, std: bool = False) -> str:
    """The description as one JSON text (ASCII); `std` says that an error plane is written too."""
    noise = frame.noise
    obs = frame.observation
    return json.dumps(
        {
            "firstlight": 1,
            "axes": frame.axes,
            "unit": str(frame.unit),
            "noise": {k: _param(f"noise_{k}", getattr(noise, k)) for k in NOISE}
            if isinstance(noise, Noise)
            else {"unmodelled": noise.reason},
            "geometry": _geometry(frame.geometry),
            "spacing": dict(frame.spacing),
            "observation": {
                k: np.asarray(v).tolist() if k in ("offset", "saturation") else v
                for k in Observation.__dataclass_fields__
                if k not in ("header", "source") and (v := getattr(obs, k)) is not None
            },
            "history": [{"step": r.step, "params": r.params, "inputs": r.inputs} for r in frame.history],
            "maps": [*maps(frame), *(["std"] if std else [])],
        },
        default=_plain,
    )


def digest(value: Any) -> str:
    """A short fingerprint of plain values, equal where they are equal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_plain).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _geometry(geometry: Geometry) -> Any:
    match geometry:
        case Mosaic():
            return {"mosaic": {"pattern": geometry.pattern, "phase": geometry.phase, "colors": geometry.colors}}
        case Sky():
            return {"sky": geometry.cards}
        case Scan():
            return {
                "scan": {
                    k: _plain(v) if k == "angles" else v
                    for k in Scan.__dataclass_fields__
                    if (v := getattr(geometry, k)) is not None
                }
            }
    return None


def attach(data: Any, text: str, arrays: Mapping[str, Any], header: Any = None, source: str | None = None) -> Frame:
    """The Frame that `dumps` described: data and named maps from the file; raises ReadError where they do not agree."""
    try:
        d = json.loads(text)
        missing = [k for k in d["maps"] if k not in arrays]
        if missing:
            raise ReadError(f"{source}: its description names the maps {missing}, which are not there; write the file again")
        obs = dict(d["observation"])
        for key in ("white_balance", "color_matrix"):
            if key in obs:
                obs[key] = _tuples(obs[key])
        for key in ("offset", "saturation"):
            if isinstance(obs.get(key), list):
                obs[key] = np.asarray(obs[key], dtype=np.float64)
        return Frame(
            data,
            d["axes"],
            Unit(d["unit"]),
            _noise(d["noise"], arrays),
            std=arrays["std"] if "std" in d["maps"] else None,
            flags=arrays["flags"] if "flags" in d["maps"] else None,
            geometry=_read_geometry(d["geometry"]),
            psf=arrays["psf"] if "psf" in d["maps"] else None,
            spacing=d["spacing"],
            observation=Observation(**obs, header=header, source=source),
            history=tuple(Record(**r) for r in d["history"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, FrameError) as error:
        raise ReadError(
            f"{source}: its firstlight description is damaged or belongs to another file ({error}); write it again"
        ) from error


def _noise(d: Mapping[str, Any], arrays: Mapping[str, Any]) -> Noise | Unmodelled:
    if "unmodelled" in d:
        return Unmodelled(d["unmodelled"])
    return Noise(**{k: np.asarray(arrays[v["map"]]) if isinstance(v, dict) else np.asarray(v) for k, v in d.items()})


def _read_geometry(d: Any) -> Geometry:
    match d:
        case {"mosaic": m}:
            return Mosaic(_tuples(m["pattern"]), tuple(m["phase"]), m["colors"])
        case {"sky": cards}:
            return Sky(_tuples(cards))
        case {"scan": s}:
            return Scan(**{**s, "angles": np.asarray(s["angles"]), "extra": _tuples(s.get("extra", ()))})
    return None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
