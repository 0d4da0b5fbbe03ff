"""The main job: read, calibrate, restore and measure, on the sample set or on the user's files."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight import calibrate as cal
from firstlight import calibrating, intake, io, outputs, restoring
from firstlight import measure as mea
from firstlight.errors import FirstlightError, ReadError
from firstlight.frame import Frame, Unit
from firstlight.io.describe import MAPS
from firstlight.noise import Unmodelled
from firstlight.sample import write_sample

__all__ = ["run"]

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Case:
    """One image of the job: its file, how to calibrate it, its truth where there is one."""

    name: str
    light: Path
    options: calibrating.Calibration
    truth: Path | None = None


def run(out: Path, data: Path | None, *, detector: str | None, tick: Tick) -> tuple[list[dict[str, Any]], Any, bool]:
    """Run the job into the folder `out`; returns (one row per image, text table, all checks passed).

    Writes calibrated and restored images and report.html. A file of the user's that cannot be restored is listed with the
    reason and the job goes on; on the sample set that is an error. Raises ReadError where there is nothing to read.
    """
    start = time.perf_counter()
    cases = _sample(out, tick) if data is None else _own(data, out, detector)
    outputs.folder(out / "restored")
    rows, entries = [], []
    for i, (case, goal) in enumerate(zip(cases, _goals(cases, out / "restored"), strict=True)):
        tick(i, len(cases), case.name)
        try:
            row, entry = _one(case, goal)
            entries.append(entry)
        except FirstlightError as error:
            if data is None:
                raise
            row = {"name": case.name, "file": str(case.light), "restored": None, "passed": None, "reason": str(error)}
        rows.append(row)
    report = mea.html(entries, out / "report.html", title="firstlight: from raw counts to a measured image")
    passed = all(r["passed"] is not False for r in rows)
    return rows, _text(rows, report, time.perf_counter() - start), passed


def _sample(out: Path, tick: Tick) -> list[Case]:
    folder = outputs.folder(out / "sample")
    tick(0, 1, "writing the sample set")
    manifest = write_sample(folder)
    return [_sample_case(folder, entry, out) for entry in manifest["entries"]]


def _sample_case(folder: Path, entry: dict[str, Any], out: Path) -> Case:
    def paths(key: str) -> list[Path]:
        return [folder / p for p in entry.get(key, ())]

    detector = str(folder / entry["detector"]) if "detector" in entry else None
    if "transfer" in entry:
        made = out / f"{entry['domain']}.detector.json"
        if not made.exists():
            plot = out / f"{entry['domain']}.transfer.png"
            calibrating.transfer(paths("transfer"), paths("transfer_darks"), unit="adu", gain=None, out=made, plot=plot)
        detector = str(made)
    options = calibrating.Calibration(
        paths("bias"), paths("dark"), paths("flat"), detector, None, entry.get("cosmic_rays", False), bool(entry.get("dark"))
    )
    return Case(f"{entry['domain']}: {entry['name']}", folder / entry["lights"][0], options, folder / entry["truth"])


def _own(data: Path, out: Path, detector: str | None) -> list[Case]:
    if not data.exists():
        raise ReadError(f"{data}: no such file or folder")
    files = [data] if data.is_file() or data.suffix == ".zarr" else sorted(p for p in data.rglob("*") if _ours(p, data, out))
    if not files:
        raise ReadError(f"{data}: no file in it that firstlight reads; expected one of {', '.join(io.FORMATS)}")
    options = calibrating.Calibration(detector=detector)
    return [Case(p.name if data.is_file() else str(p.relative_to(data)), p, options) for p in files]


def _ours(path: Path, data: Path, out: Path) -> bool:
    made = [out / "restored", out / "sample"] if out.resolve() == data.resolve() else [out]
    hidden = path.name.startswith(".") or any(m.resolve() in path.resolve().parents for m in made)
    companion = path.suffix == ".npy" and Path(path.stem).suffix[1:] in MAPS
    inside = any(p.suffix == ".zarr" for p in path.parents)
    return io.kind(path) in io.FORMATS and not (hidden or companion or inside)


def _goals(cases: list[Case], folder: Path) -> list[Path]:
    """A file in `folder` for each case, named after it; names that would meet are numbered."""
    goals: list[Path] = []
    for case in cases:
        name = re.sub(r"[^\w.-]+", "_", outputs.stem(Path(case.name))).strip("_")
        suffix = outputs.target(case.light, folder, True).name.removeprefix(outputs.stem(case.light))
        numbered = (folder / f"{name}{n}{suffix}" for n in ("", *(f"_{i}" for i in range(2, len(cases) + 2))))
        goals.append(next(g for g in numbered if g not in goals))
    return goals


def _one(case: Case, goal: Path) -> tuple[dict[str, Any], mea.Entry]:
    frame, source = _ready(case)
    restoring.restored(frame, goal, restoring.Restoration(std=True))
    restored = io.read(goal)
    truth = None if case.truth is None else io.read(case.truth)
    figures = mea.measure(frame, restored, truth)
    row = {"name": case.name, "file": str(case.light), "restored": str(goal), "noise": source, **figures}
    return row, mea.Entry(case.name, frame, restored, figures, truth, f"noise from {source}")


def _ready(case: Case) -> tuple[Frame, str]:
    """The calibrated frame with a white noise model, and where that came from; raises where there is none."""
    found = intake.load(case.light, detector=case.options.detector, unit=case.options.unit)
    frame, source = found.frame, found.source
    raw = frame.unit is Unit.ADU and isinstance(frame.noise, Unmodelled)
    if raw and not case.options.bias and "A" not in frame.axes:
        frame, source = _from_data(frame)
    else:
        frame = calibrating.calibrated(case.light, case.options)
        source = "header, offset from the bias" if case.options.bias else source
    if case.truth is None:
        intake.check_white(frame)
    return frame, source


def _from_data(frame: Frame) -> tuple[Frame, str]:
    assert isinstance(frame.noise, Unmodelled)
    try:
        detector = cal.transfer_single(frame).detector
    except FirstlightError as error:
        raise type(error)(f"{frame.noise.reason}; and from the image itself: {error}") from error
    return cal.assign(frame, detector=detector), f"data: {detector.source}"


def _text(rows: list[dict[str, Any]], report: Path, seconds: float) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table

    head = ("image", "chi2", "lag-1", "restored", "unchanged", "median 3", "verdict")
    table = Table(*head, box=box.SIMPLE, caption="chi2: residual over its expectation; restored ... median 3: PSNR [dB]")
    left = [f"{r['name']}: {r['reason']}" for r in rows if r["restored"] is None]
    for r in (r for r in rows if r["restored"] is not None):
        name = r["name"].split(": ")[-1]
        psnr = [r.get("psnr"), r.get("unchanged", {}).get("psnr"), r.get("median3", {}).get("psnr")]
        verdict = {True: "good", False: "failed", None: str(r["reason"])}[r["passed"]]
        table.add_row(name, _number(r["chi2_ratio"], 3), _number(r["lag1"], 3), *(_number(v, 2) for v in psnr), verdict)
    told = ["not restored:", *left, ""] if left else []
    return Group(*([table] if table.row_count else []), *told, f"report: {report}   {seconds:.1f} s")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
