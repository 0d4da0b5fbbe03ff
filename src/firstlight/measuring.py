"""The jobs of `firstlight measure` and `sources`: files in, figures and a catalogue out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate as cal
from firstlight import intake, io, outputs
from firstlight import measure as mea
from firstlight.atomic import replacing
from firstlight.errors import WriteError
from firstlight.facts import flagged
from firstlight.frame import Frame, Unit
from firstlight.noise import Unmodelled

__all__ = ["measure", "sources"]

CATALOGUES = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}
SHOWN = 20  # rows of a catalogue that a terminal gets


def measure(
    file: Path,
    restored: Path | None,
    truth: Path | None,
    *,
    peak: float | None = None,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
) -> tuple[dict[str, Any], Any, bool]:
    """Figures of a file, its restoration and the truth; returns (JSON figures, text table, passed)."""
    frame = intake.load(file, detector=detector, unit=unit, ext=ext).frame
    others = [None if p is None else io.read(p) for p in (restored, truth)]
    frame, better, true = _one_unit(frame, *others)
    report = mea.measure(frame, better, true, peak=peak)
    return report, mea.table(report), report["passed"] is not False


def _one_unit(frame: Frame, restored: Frame | None, truth: Frame | None) -> tuple[Frame, Frame | None, Frame | None]:
    """All in electrons where they differ and the gain is known."""
    units = {f.unit for f in (frame, restored, truth) if f is not None}
    if len(units) < 2 or isinstance(frame.noise, Unmodelled) or frame.unit is not Unit.ADU:
        return frame, restored, truth
    noise = frame.noise
    if restored is not None and restored.unit is Unit.ADU:
        restored = cal.to_electrons(restored.replace(noise=noise)).replace(noise=restored.noise)
    return intake.to_electrons(frame), restored, truth


def sources(
    file: Path,
    restored: Path | None,
    out: Path | None,
    *,
    threshold: float,
    fwhm: float | None,
    way: str = "filter",
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    assume_white: bool = False,
) -> tuple[dict[str, Any], str]:
    """Stars of a file, `restored` helping where given, measured on `file`; returns (JSON figures, text), writes `out`."""
    if out is not None and out.suffix.lower() not in CATALOGUES:
        raise WriteError(f"{out}: a catalogue is {', '.join(CATALOGUES)}; name it so")
    if out is not None:
        outputs.spare([out], [p for p in (file, restored) if p is not None])
    with outputs.naming(file):
        frame = intake.load(file, detector=detector, unit=unit, ext=ext).frame
        if not assume_white:
            intake.check_white(frame, "measuring fluxes")
        frame = flagged(frame)
        if frame.observation.saturation is not None and frame.unit is Unit.ADU and frame.flags is None:
            frame = cal.flag_saturated(frame)
        frame, better, _ = _one_unit(frame, None if restored is None else io.read(restored, ext), None)
        table = mea.sources(frame, restored=better, threshold=threshold, fwhm=fwhm, way=way)
    if out is not None:
        _catalogue(table, out)
    found = [{k: _number(row[k]) for k in table.colnames} for row in table]
    units = {k: str(table[k].unit) for k in table.colnames if table[k].unit is not None}
    figures = {"input": str(file), "restored": None if restored is None else str(restored), "output": out and str(out)}
    return figures | dict(table.meta) | {"units": units, "sources": found}, _sources_text(table, out)


def _number(value: Any) -> Any:
    number = value.item()
    return number if isinstance(number, int) or np.isfinite(number) else None


def _catalogue(table: Any, out: Path) -> None:
    kind = CATALOGUES[out.suffix.lower()]
    if kind == "fits":  # header keys have eight letters, and the standard's units no electron
        table = table.copy()
        table.meta = {k[:8]: v for k, v in table.meta.items()} | {"fluxunit": str(table["flux"].unit)}
        for name in ("flux", "flux_std", "background", "background_std"):
            table[name].unit = None
    with replacing(out) as temp:
        table.write(temp, format=kind, overwrite=True)


def _sources_text(table: Any, out: Path | None) -> str:
    m = table.meta
    searched = "the restored image" if m["way"] in ("restored", "peaks") else "the calibrated image, the restored one helping"
    where = f"on {searched}, measured on the calibrated one" if m["dual"] else "and measured on the same image"
    head = f"{len(table)} sources above {m['threshold']:g} standard errors, detected {where}"
    rows = [head, f"FWHM {m['fwhm']:.3g} px, aperture {m['radius']:.3g} px, sky {m['inner']:.3g} to {m['outer']:.3g} px"]
    names = [k for k in table.colnames if k not in ("background_std", "area")]
    if len(table):
        part = table[:SHOWN][names]
        for name in names:
            part[name].format = ".5f" if name in ("ra", "dec") else None if name in ("id", "flags") else ".2f"
        rows += part.pformat(max_lines=-1, max_width=-1, show_unit=True)
    if len(table) > SHOWN:
        rows.append(f"... and {len(table) - SHOWN} more" + ("" if out is not None else "; --out writes all"))
    return "\n".join([*rows, *([str(out)] if out is not None else [])])
