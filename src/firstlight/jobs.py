"""What each command does: files in, files and plain figures out. The CLI prints; the demo strings these together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate as cal
from firstlight import intake, io, outputs, tomography
from firstlight import measure as mea
from firstlight import recipe as rec
from firstlight.atomic import replacing, write_text
from firstlight.errors import FirstlightError, FrameError, ReadError, WriteError
from firstlight.facts import flag_counts, flagged, plain
from firstlight.frame import Frame, Unit
from firstlight.noise import Detector, Noise, Unmodelled

__all__ = [
    "Calibration",
    "Checked",
    "Scanning",
    "calibrate",
    "calibrated",
    "center",
    "check",
    "measure",
    "run",
    "sources",
    "transfer",
]

Tick = Callable[[int, int, str], None]
Scanning = tomography.Resources


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
        return [_written(cal.combine(cal.register(done)), lights[0], goals[0], out)]

    def one(path: Path, goal: Path) -> dict[str, Any]:
        tick(lights.index(path), len(lights), path.name)
        return _written(calibrated(path, options, masters), path, goal, out)

    return outputs.each(lights, goals, one)


def _written(frame: Frame, source: Path, path: Path, out: Path) -> dict[str, Any]:
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


CATALOGUES = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}
SHOWN = 20  # rows of a catalogue that a terminal gets


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


@dataclass(frozen=True)
class Checked:
    """Every problem of a recipe, one line each; the recipe as it would run and the plan, as far as they can be told."""

    problems: list[str]
    recipe: str | None = None
    plan: list[str] = field(default_factory=list)


def check(
    recipe: str,
    file: Path | None,
    inputs: Sequence[str] = (),
    *,
    overrides: Sequence[str] = (),
    scan: Scanning | None = None,
    out: Path | None = None,
) -> Checked:
    """Every problem of a recipe, of a file, and of the one on the other; nothing runs but a few rows of a scan."""
    problems: list[str] = []
    frame = loaded = None
    rec.source(recipe)
    if file is not None and not file.exists():
        raise ReadError(f"{file}: no such file")
    with _noting(problems):
        frame = None if file is None else intake.load(file).frame
    with _noting(problems):
        loaded = rec.load(recipe)
    if loaded is None:
        return Checked(problems)
    pairs, named = dict(rec.flag(o) for o in overrides), _inputs(inputs)
    text = None
    with suppress(FirstlightError):
        text = rec.dumps(rec.resolved(loaded, overrides=pairs))
    bound, found = rec.bound(loaded, frame, inputs=named, overrides=pairs)
    if frame is None or file is None or not tomography.takes(frame, bound):
        found = found or rec.check(loaded, frame, inputs=named, overrides=pairs)
        return Checked([*problems, *map(str, found)], text)
    return _checked_scan(frame, bound, [*problems, *map(str, found)], loaded, text, file, out, scan or Scanning())


def _checked_scan(
    frame: Frame,
    bound: Sequence[rec.Call],
    problems: list[str],
    loaded: rec.Recipe,
    text: str | None,
    file: Path,
    out: Path | None,
    scan: Scanning,
) -> Checked:
    options = rec.Options()
    with suppress(FirstlightError):  # said by the recipe's own problems
        options = rec.options(loaded)
    if out is not None:
        with _noting(problems):
            outputs.volume(file, out, options.suffix)
    found, job = tomography.problems(frame, bound, options, scan)
    plan = [] if job is None else tomography.lines(job, str(file), None if out is None else str(out), scan)
    return Checked([*problems, *map(str, found)], text, plan)


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except FirstlightError as error:
        problems += str(error).splitlines()


def run(
    recipe: str,
    file: Path,
    out: Path,
    *,
    detector: str | None,
    overrides: Sequence[str],
    inputs: Sequence[str] = (),
    scan: Scanning | None = None,
    tick: Tick = lambda done, total, what: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run a recipe on one file; returns a row: input, output, unit, summary. A scan runs in sections and tells more."""
    frame = intake.load(file, detector=detector).frame
    loaded, named = rec.load(recipe), _inputs(inputs)
    pairs = dict(rec.flag(o) for o in overrides)
    bound, problems = rec.bound(loaded, frame, inputs=named, overrides=pairs)
    rec.raise_all(problems)
    files = [file, *(p for v in named.values() for p in (v if isinstance(v, list) else [v]))]
    if tomography.takes(frame, bound):
        return _scan(frame, bound, rec.options(loaded), file, out, scan or Scanning(), detector, files, tick, say)
    if scan is not None and scan != Scanning():
        raise FrameError(f"{file}: --memory, --workers, --save-projections, --codec and --anew are for scans in sections")
    goal = outputs.target(file, out, False)
    outputs.spare([goal], files)
    return _written(rec.run(loaded, frame, inputs=named, overrides=pairs), file, goal, out)


def _scan(
    frame: Frame,
    bound: Sequence[rec.Call],
    options: rec.Options,
    file: Path,
    out: Path,
    scan: Scanning,
    detector: str | None,
    files: Sequence[Path],
    tick: Tick,
    say: Callable[[str], None],
) -> dict[str, Any]:
    goal = outputs.volume(file, out, options.suffix)
    outputs.spare([goal, *([scan.save_projections] if scan.save_projections else [])], files)
    with outputs.naming(file):
        job = tomography.prepared(frame, bound, options, scan)
        with outputs.placed(goal, out):
            row = tomography.run(job, file, goal, scan, detector=detector, tick=tick, say=say)
    return row | {"unit": str(job.first.unit), "summary": tomography.summary_text(row)}


def center(file: Path, *, sheet: Path | None, detector: str | None = None, **options: Any) -> tomography.Found:
    """The rotation axis of a scan; options as tomography.find takes them."""
    if sheet is not None:
        outputs.spare([sheet], [file])
    with outputs.naming(file):
        return tomography.find(intake.load(file, detector=detector).frame, sheet=sheet, **options)


def _inputs(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=PATH pairs as {name: path or list of paths}."""
    found: dict[str, list[Path]] = {}
    for pair in pairs:
        name, mark, path = pair.partition("=")
        if not mark or not name or not path:
            raise FrameError(f"--input {pair!r}: expected NAME=FILE such as dark=dark.fits")
        found.setdefault(name, []).append(Path(path))
    return {k: v[0] if len(v) == 1 else v for k, v in found.items()}
