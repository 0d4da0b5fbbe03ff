"""The jobs of `firstlight check`, `run` and `center`: a recipe and a file, checked or run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firstlight import intake, outputs, tomography
from firstlight import recipe as rec
from firstlight.calibrating import written
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame

__all__ = ["Checked", "Scanning", "center", "check", "run"]

Tick = Callable[[int, int, str], None]
Scanning = tomography.Resources


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
    return written(rec.run(loaded, frame, inputs=named, overrides=pairs), file, goal, out)


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
