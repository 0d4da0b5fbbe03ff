"""A file as its user hands it over: read, and its noise model completed from `--detector`, the header or a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate, domains, io
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame, Record, Unit
from firstlight.geometry import Mosaic
from firstlight.measure.doubts import flat_noise
from firstlight.noise import Detector, Noise, Unmodelled

__all__ = ["Intake", "check_white", "complete", "hashed", "load", "read_detector", "to_electrons", "with_bias"]

# Lag-1 correlation above which, by three of its standard errors, a white-noise model is refused. bench/white.py: up to it
# chi-square over its expectation stays within 0.91 to 1.03 and the std honest to 13 % on every scene, at a cost of 0.8 dB
# (0.1: 0.25 dB); at 0.30 the first scene leaves 0.9 to 1.1. Unresolved stars in a crowded field are seen as about 0.15.
WHITE = 0.25


@dataclass(frozen=True, eq=False)
class Intake:
    """A frame and where its noise figures came from: "header", "table ...", "user ...", "data ..." or why there are none."""

    frame: Frame
    source: str


def read_detector(text: str) -> dict[str, Any]:
    """Fields of a detector: a JSON file's path (as `transfer` writes it), or "gain=2.1,read_noise=3,offset=100".

    Raises ReadError for a file that is not one, FrameError for unknown fields; what is missing the header may supply.
    """
    if "=" not in text or Path(text).exists():
        return _json_fields(Path(text))
    try:
        fields: dict[str, Any] = {k.strip(): float(v) for k, v in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise FrameError(f"detector {text!r}: expected a JSON file or gain=2.1,read_noise=3,offset=100") from None
    return fields | {"source": text}


def _json_fields(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise ReadError(f"{path}: no such detector file; write one with `firstlight transfer`") from None
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: not a detector file in JSON ({error})") from None
    if not isinstance(found, dict):
        raise ReadError(f"{path}: holds a {type(found).__name__}, expected an object with gain and read_noise")
    return {**found, "source": found.get("source") or str(path)}


def load(path: str | Path, *, detector: str | None = None, unit: str | None = None, ext: str | int | None = None) -> Intake:
    """Read a file and complete its noise: `detector` (user) over the header over the table of known cameras.

    `unit` reinterprets the numbers ("adu" for a picture file that holds raw counts). Raises as `io.read` does.
    """
    return complete(io.read(path, ext), detector=detector, unit=unit)


def hashed(frame: Frame, path: Path) -> Frame:
    """The frame with the file that it was read from, and its sha256, in its history."""
    record = Record("io.read", {"path": path.name}, {path.name: io.sha256(path)})
    return frame.replace(history=(*frame.history, record))


def complete(frame: Frame, *, detector: str | None = None, unit: str | None = None) -> Intake:
    """A frame as it was read, its noise completed; detector and unit as in `load`."""
    if unit is not None:
        frame = io.assume(frame, unit=unit)
    elif detector is not None and frame.unit in (Unit.DISPLAY, Unit.ARBITRARY) and np.dtype(frame.data.dtype).kind in "iu":
        frame = io.assume(frame, unit="adu")  # whoever gives a detector says that whole numbers are raw counts
    if detector is not None:
        return Intake(_with_detector(frame, read_detector(detector)), f"user: {detector}")
    if isinstance(frame.noise, Noise):
        return Intake(frame, "header" if not frame.history else "the frame's own description")
    return _from_table(frame)


def _with_detector(frame: Frame, fields: dict[str, Any]) -> Frame:
    """User's figures over the header's; the header's offset is in ADU and serves raw counts alone."""
    known = {k: v for k, v in io.stated(frame).items() if k in ("gain", "read_noise", "offset", "saturation")}
    if frame.observation.offset is not None:
        known["offset"] = frame.observation.offset
    if frame.unit is not Unit.ADU:
        known = {"gain": 1.0} | {k: v for k, v in known.items() if k == "read_noise"}
    row = Detector.from_dict(known | fields)
    if frame.unit is Unit.ADU:
        return calibrate.assign(frame, detector=row)
    electrons = replace(row.noise(), offset=0.0).scaled(row.gain)
    if frame.unit is Unit.ELECTRON:
        return frame.replace(noise=electrons)
    if frame.unit is Unit.ELECTRON_RATE and frame.observation.exposure:
        return frame.replace(noise=electrons.scaled(1 / frame.observation.exposure))
    raise FrameError(f"a detector describes counts or electrons, this frame is in {frame.unit}; say --unit adu if it is raw")


def _from_table(frame: Frame) -> Intake:
    camera, reason = frame.observation.instrument, frame.noise
    assert isinstance(reason, Unmodelled)
    if frame.unit is not Unit.ADU or not camera:
        return Intake(frame, f"none: {reason.reason}")
    try:
        row = domains.detector(camera, frame.observation.setting, offset=frame.observation.offset)
    except FirstlightError as error:
        return Intake(frame, f"none: {reason.reason}; {error}")
    return Intake(calibrate.assign(frame, detector=row), f"table: {row.source}")


def with_bias(frame: Frame, bias: Frame) -> Frame:
    """The frame with its header's gain and read noise and, for an offset the header lacks, the bias frame's median level."""
    facts = io.stated(frame)
    if isinstance(frame.noise, Noise) or frame.unit is not Unit.ADU or not {"gain", "read_noise"} <= set(facts):
        return frame
    if np.ndim(facts["gain"]) or np.ndim(facts["read_noise"]):  # amplifiers differ: the user must say which
        return frame
    offset = float(np.median(np.asarray(bias.data)))
    row = Detector(facts["gain"], facts["read_noise"], offset, facts.get("saturation"), source="header, offset from the bias")
    return calibrate.assign(frame, detector=row)


def to_electrons(frame: Frame) -> Frame:
    """The frame in electrons where it is raw counts with a known gain; else unchanged."""
    known = isinstance(frame.noise, Noise) and frame.unit is Unit.ADU
    return calibrate.to_electrons(frame) if known else frame


def check_white(frame: Frame, what: str = "restoring") -> None:
    """Raises FrameError where neighbouring pixels' noise correlates, which a white-noise model would take for signal."""
    if isinstance(frame.noise, Unmodelled):
        raise FrameError(f"{what} needs the noise of each pixel, and there is none: {frame.noise.reason}")
    if isinstance(frame.geometry, Mosaic):  # a colour filter array has not been resampled
        return
    found = flat_noise(frame)
    if found is None:  # too little flat area to tell
        return
    if max(found.lag_y, found.lag_x) > WHITE + 3 * found.error:
        raise FrameError(
            f"{what} with a white-noise model would take noise for structure: neighbouring pixels correlate by "
            f"{found.lag_y:.2f} (y) and {found.lag_x:.2f} (x), expected below {WHITE}; start from the frames before "
            "resampling, or say --assume-white"
        )
