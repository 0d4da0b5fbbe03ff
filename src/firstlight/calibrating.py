"""The jobs of `firstlight calibrate` and `transfer`: files in, files and plain figures out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate as cal
from firstlight import intake, io, outputs
from firstlight.atomic import write_text
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.facts import flag_counts, plain
from firstlight.frame import Frame, Unit
from firstlight.noise import Detector, Noise

__all__ = ["Calibration", "calibrate", "calibrated", "transfer", "written"]

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Calibration:
    """Options of `calibrate`, as the CLI's flags."""

    bias: Sequence[Path] = ()
    dark: Sequence[Path] = ()
    flat: Sequence[Path] = ()
    detector: str | None = None
    unit: str | None = None
    cosmic_rays: bool = False
    hot_pixels: bool = False


def calibrate(lights: Sequence[Path], out: Path, options: Calibration, *, stack: bool, tick: Tick) -> list[dict[str, Any]]:
    """Calibrate files into `out`; returns one row per output: input, output, unit, flags, summary; errors: `outputs.each`."""
    others = (options.bias, options.dark, options.flat)
    outputs.distinct(lights if stack else lights[:1], *others)
    goals = [outputs.target(lights[0], out, False)] if stack else outputs.targets(lights, out)
    outputs.spare(goals, lights, *others)
    masters = _masters(options, lights[0])
    if stack:
        done = []
        for i, path in enumerate(lights):
            tick(i, len(lights), path.name)
            with outputs.naming(path):
                done.append(calibrated(path, options, masters))
        return [written(cal.combine(cal.register(done)), lights[0], goals[0], out)]

    def one(path: Path, goal: Path) -> dict[str, Any]:
        tick(lights.index(path), len(lights), path.name)
        return written(calibrated(path, options, masters), path, goal, out)

    return outputs.each(lights, goals, one)


def written(frame: Frame, source: Path, path: Path, out: Path) -> dict[str, Any]:
    """Write a frame; returns its row: input, output, unit, flags, summary."""
    with outputs.placed(path, out):
        io.write(frame, path)
    counts = flag_counts(frame)
    flags = ", ".join(f"{n} {k}" for k, n in counts.items()) or "nothing flagged"
    return {
        "input": str(source),
        "output": str(path),
        "unit": str(frame.unit),
        "flags": counts,
        "summary": f"[{frame.unit}] {flags}",
    }


def _masters(options: Calibration, light: Path) -> dict[str, list[Frame]]:
    found = {}
    for name in ("bias", "dark", "flat"):
        paths = getattr(options, name)
        found[name] = [intake.load(p, detector=options.detector, unit=options.unit).frame for p in paths]
    _one_gain(light, options, found)
    if found["bias"]:
        level = found["bias"][0]
        found = {k: [intake.with_bias(f, level) for f in v] for k, v in found.items()}
    return {k: [cal.master(v)] if len(v) > 1 else v for k, v in found.items()}


def calibrated(path: Path, options: Calibration, masters: dict[str, list[Frame]] | None = None) -> Frame:
    """One light, calibrated; a scan that holds its own white and dark frames becomes transmission."""
    found = intake.load(path, detector=options.detector, unit=options.unit)
    frame = intake.hashed(found.frame, path)
    masters = _masters(options, path) if masters is None else masters
    if "A" in frame.axes and not any(masters.values()):
        return _transmission(frame, path)
    one = {k: v[0] if v else None for k, v in masters.items()}
    if one["bias"] is not None:
        frame = intake.with_bias(frame, one["bias"])
    if frame.unit is Unit.ADU:
        frame = cal.calibrate(frame, bias=one["bias"], dark=one["dark"], flat=one["flat"])
    if options.hot_pixels:
        frame = cal.flag_hot_pixels(frame, reference=one["dark"])
    return cal.flag_cosmic_rays(frame) if options.cosmic_rays else frame


def _one_gain(light: Path, options: Calibration, masters: dict[str, list[Frame]]) -> None:
    """Raises FrameError where a bias or dark was taken at another gain than the light: their counts do not compare."""
    if options.detector is not None or not (masters["bias"] or masters["dark"]):
        return
    gain = None
    with suppress(ReadError):  # said when the light's own turn comes
        gain = _gain(intake.load(light, unit=options.unit).frame)
    for name in ("bias", "dark"):
        for path, frame in zip(getattr(options, name), masters[name], strict=True):
            other = _gain(frame)
            if gain is not None and other is not None and not np.allclose(gain, other, rtol=0.01):
                raise FrameError(
                    f"{path}: a gain of {plain(other)} e-/ADU, {light} has {plain(gain)}; give a {name} of its setting"
                )


def _gain(frame: Frame) -> Any:
    if isinstance(frame.noise, Noise) and frame.unit is Unit.ADU and np.all(np.asarray(frame.noise.a) > 0):
        return np.median(1 / np.asarray(frame.noise.a))
    stated = io.stated(frame).get("gain")
    return None if stated is None else np.median(stated)


def _transmission(frame: Frame, path: Path) -> Frame:
    parts = io.read_set(path)
    if "white" not in parts or "dark" not in parts:
        raise FrameError(f"{path}: a scan with {', '.join(parts)}, expected white and dark frames too; give --flat and --dark")
    return cal.transmission(frame, white=parts["white"], dark=parts["dark"])


def transfer(
    flats: Sequence[Path], darks: Sequence[Path], *, unit: str, gain: float | None, out: Path | None, plot: Path | None
) -> tuple[dict[str, Any], str]:
    """Photon transfer of files; writes the detector file and plot where asked; returns (figures, text)."""
    outputs.distinct(flats, darks)
    outputs.spare([p for p in (out, plot) if p is not None], flats, darks)
    if out is not None and out.suffix.lower() in io.FORMATS:
        raise WriteError(f"{out}: is named like an image, and a detector file is JSON; name it .json")
    with outputs.naming(flats[0]) if len(flats) == 1 else nullcontext():
        result = _curve(flats, darks, unit, gain)
    detector: Detector = result.detector
    if out is not None:
        write_text(out, json.dumps(detector.to_dict(), indent=1) + "\n")
    if plot is not None:
        cal.plot(result, plot)
    figures = {k: plain(getattr(detector, k)) for k in detector.__dataclass_fields__}
    figures |= {} if result.efficiency is None else {"quantum_efficiency": result.efficiency}
    text = [_transfer_text(detector, result.efficiency), *(f"{'doubt':12s} {d}" for d in result.doubts)]
    return figures | {"doubts": list(result.doubts)}, "\n".join(text)


def _curve(flats: Sequence[Path], darks: Sequence[Path], unit: str, gain: float | None) -> Any:
    if len(flats) == 1 and flats[0].suffix.lower() == ".txt":
        return _emva(flats[0])
    frames = [_counts(p, unit) for p in flats]
    if len(frames) == 1 and not darks:
        return cal.transfer_single(frames[0], gain=gain)
    return cal.transfer(frames, darks=[_counts(p, unit) for p in darks])


def _counts(path: Path, unit: str) -> Frame:
    frame = io.read(path)
    return frame if frame.unit is Unit.ADU else io.assume(frame, unit=unit)


def _emva(path: Path) -> Any:
    descriptor = cal.emva_descriptor(path)
    flats, darks, photons = descriptor.load(lambda p: np.asarray(io.read(p).data))
    return cal.transfer(flats, darks=darks, photons=photons)


def _transfer_text(d: Detector, efficiency: float | None) -> str:
    def line(name: str, value: Any, std: float | None, unit: str) -> str:
        if value is None:
            return f"{name:12s} not reached"
        return f"{name:12s} {float(np.median(value)):.6g}" + (f" +- {std:.2g}" if std is not None else "") + f" {unit}"

    rows = [
        line("gain", d.gain, d.gain_std, "e-/ADU"),
        line("read noise", d.read_noise, d.read_noise_std, "e-"),
        line("offset", d.offset, d.offset_std, "ADU"),
        line("saturation", d.saturation, d.saturation_std, "ADU"),
    ]
    return "\n".join(rows + ([line("efficiency", efficiency, None, "")] if efficiency is not None else []))
