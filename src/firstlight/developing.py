"""Developing photographs: a raw file or folders of them into pictures, one after the other or side by side, resumed by what
each picture says of its making.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from firstlight import intake, io, outputs, processes
from firstlight.atomic import writable
from firstlight.dataset.remote import RAWS, files_in
from firstlight.develop import pipeline
from firstlight.develop.documented import documented
from firstlight.develop.options import (
    DNGS,
    FORMATS,
    Developing,
    agree,
    denoising,
    format_of,
    given,
    multipliers,
    nits,
    suffixes,
)
from firstlight.develop.raws import linear_raw, mosaic_raw
from firstlight.errors import FirstlightError, ReadError, WriteError
from firstlight.frame import Frame, Record
from firstlight.io.exif_write import START
from firstlight.io.rendered import Rendered, write_rendered
from firstlight.noise import Detector
from firstlight.restore.demosaic import SHIPPED, network

__all__ = ["FORMATS", "Developing", "develop"]

Tick = Callable[[int, int, str], None]
Lap = Callable[[str], None]
Row = dict[str, Any]
STAGES = ("read", "noise", "demosaic", "render", "encode")
RENDERED: dict[str, dict[str, Any]] = {
    "avif": {"transfer": "hlg"},
    "ultrahdr": {"transfer": "hlg"},
    "jxl": {"transfer": "linear"},
    "tiff": {"transfer": "srgb", "bits": 16},
    "jpeg": {"transfer": "srgb"},
}
HEAD = 1 << 20  # bytes in which a picture's description ends
DEFAULTS = Developing()


class Task(NamedTuple):
    """A photograph, the picture that it becomes, and what the picture is to say of its making."""

    path: Path
    goal: Path
    said: dict[str, Any]


def develop(photos: Sequence[Path], out: Path, options: Developing = DEFAULTS, tick: Tick | None = None) -> list[Row]:
    """Develop raw files, and folders of them with their subfolders, into `out`; a row each, in order.

    A picture of the same file and options is left as it is (`skipped`); one of others is refused unless `anew`. A file of
    several that fails is a row with `error`. Raises FrameError for options that contradict each other or the format, ReadError
    where there is nothing to read, WriteError for outputs that would meet, replace an input, or cannot be written.
    """
    found = _listed(photos, out)
    several = len(found) > 1 or any(p.is_dir() for p in photos)
    options = replace(options, to=format_of(out, options, several))
    agree(options)
    tasks = _tasks(found, out, several, options)
    due = [t for t in tasks if options.anew or not _made(t)]
    _ready(due, out, options)
    rows: dict[Path, Row] = {}
    with ExitStack() as stack:
        for folder in sorted({t.goal.parent for t in due if t.goal != out}):
            stack.enter_context(outputs.placed(folder / "picture", folder))
        work = _alone if options.jobs == 1 or len(due) < 2 else _beside
        for task, row in work(due, options, len(tasks) == 1, tick or (lambda done, total, what: None)):
            rows[task.goal] = row
    return [rows.get(t.goal) or _left(t) for t in tasks]


def _ready(tasks: Sequence[Task], out: Path, options: Developing) -> None:
    """What would fail alike for every photograph fails once, before any work: detector, network, folders."""
    if options.detector is not None and tasks:
        with outputs.naming(Path(options.detector)):
            Detector.from_dict({"gain": 1.0, "read_noise": 0.0} | intake.read_detector(options.detector))
    if options.model is not None and tasks:
        network(options.model)
    for task in tasks:
        if task.goal == out or task.goal.parent.is_dir():  # other folders are made
            writable(task.goal)


def _left(task: Task) -> Row:
    return {"input": str(task.path), "output": str(task.goal), "skipped": True, "summary": "is there already"}


def _listed(photos: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Files, each with the folder below `out` that its picture goes to; what lies in `out` itself is a result."""
    found: dict[Path, Path] = {}
    inside = Path(os.path.realpath(out))
    for photo in photos:
        if not photo.is_dir():
            found.setdefault(photo, Path())
            continue
        own = [p for p in files_in(photo, RAWS) if os.path.realpath(photo) == str(inside) or not _within(p, inside)]
        if not own:
            raise ReadError(f"{photo}: no file in it ends in {', '.join(sorted(RAWS))}; name a folder that holds raw files")
        for path in own:
            found.setdefault(path, path.parent.relative_to(photo))
    return list(found.items())


def _within(path: Path, folder: Path) -> bool:
    return folder in Path(os.path.realpath(path)).parents


def _tasks(found: Sequence[tuple[Path, Path]], out: Path, several: bool, options: Developing) -> list[Task]:
    to = str(options.to)
    goals = [outputs.target(path, out / below, several, suffixes(to)[0]) for path, below in found]
    sources = [path for path, _ in found]
    outputs.one_each(goals, sources)
    outputs.spare(goals, sources, [Path(f) for f in (options.model, options.detector) if f])
    asked = _asked(options)
    return [Task(path, goal, {**_source(path), "develop": asked}) for (path, _), goal in zip(found, goals, strict=True)]


def _asked(options: Developing) -> dict[str, Any]:
    """The options that are not as usual, and what is in the files that they name."""
    told = {name: getattr(options, name) for name in sorted(given(options) | {"to"})}
    named = {k: Path(v) for k in ("model", "detector") if (v := told.get(k)) is not None}
    if options.model is not None and not named["model"].is_file():
        raise ReadError(f"{options.model}: no such model file; name one that `train demosaic` wrote")
    for name, path in named.items():
        if path.is_file():
            told[name] = f"{path.name}, sha256 {io.sha256(path)}"
    return told


def _source(path: Path) -> dict[str, Any]:
    with suppress(OSError):
        info = path.stat()
        return {"path": path.name, "size": info.st_size, "modified": info.st_mtime_ns}
    return {"path": path.name}


def _made(task: Task) -> bool:
    """Whether the picture is there and says that it is this one; raises WriteError where it is another."""
    if not task.goal.exists():
        return False
    told = _said(task.goal)
    if told is None:
        raise WriteError(f"{task.goal}: is there already and does not say how it was made; --anew replaces it")
    params, digest = told.get("params", {}), next(iter(told.get("inputs", {}).values()), None)
    before, asked = params.get("develop", {}), task.said["develop"]
    if other := sorted(k for k in {*before, *asked} if before.get(k) != asked.get(k)):
        what = ", ".join(f"{k} {before.get(k, 'as usual')}, now {asked.get(k, 'as usual')}" for k in other)
        raise WriteError(f"{task.goal}: was developed otherwise ({what}); --anew replaces it, or name another output")
    same = all(params.get(k) == task.said.get(k) for k in ("path", "size", "modified"))
    if not same and (not task.path.is_file() or digest != io.sha256(task.path)):
        raise WriteError(f"{task.goal}: was developed from another file than {task.path} is now; --anew replaces it")
    if told["weights"] is not None and "model" not in asked and told["weights"] not in _shipped():
        raise WriteError(f"{task.goal}: was developed by a network that came with another version; --anew replaces it")
    return True


@cache
def _shipped() -> frozenset[str]:
    """Digests of the networks that come with firstlight."""
    from firstlight import model_file

    return frozenset(model_file.load(model_file.shipped(name)).digest() for name in SHIPPED.values())


def _said(path: Path) -> dict[str, Any] | None:
    """The line of a picture's history that tells what it was developed from, and the `weights` that ran; None without one."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            at = held.find(START.encode())
            text = held[at : at + HEAD].decode("ascii", "replace") if at >= 0 else ""
        history = json.JSONDecoder().raw_decode(text)[0]["history"] if text else []
    except (OSError, ValueError, LookupError, TypeError):
        return None
    lines = [r for r in history[::-1] if isinstance(r, dict)]
    line = next((r for r in lines if "develop" in r.get("params", {})), None)
    weights = next((r["params"].get("weights") for r in lines if r.get("step") == "restore.demosaic"), None)
    return None if line is None else line | {"weights": weights}


def _alone(tasks: Sequence[Task], options: Developing, single: bool, tick: Tick) -> Iterator[tuple[Task, Row]]:
    for i, task in enumerate(tasks):

        def said(stage: str, done: int = i * len(STAGES), name: str = task.path.name) -> None:
            tick(done + STAGES.index(stage), len(STAGES) * len(tasks), f"{name}: {stage}")

        yield task, _one(task, options, single, said)


def _beside(tasks: Sequence[Task], options: Developing, single: bool, tick: Tick) -> Iterator[tuple[Task, Row]]:
    count = min(options.jobs, len(tasks))
    work = partial(_one, options=options, single=False, said=_quiet)
    for k, (task, row) in enumerate(processes.spread(work, tasks, count)):
        tick(k + 1, len(tasks), task.path.name)
        yield task, row


def _quiet(stage: str) -> None:
    """What a process says of its stages."""


def _one(task: Task, options: Developing, single: bool, said: Lap) -> Row:
    """The row of one photograph; an error is one in it, unless it is the only one."""
    seconds: dict[str, float] = {}
    start = [time.perf_counter(), time.process_time()]

    def lap(stage: str) -> None:
        now = time.perf_counter()
        seconds[stage] = now - start[0]
        start[0] = now
        after = STAGES.index(stage) + 1
        said(STAGES[min(after, len(STAGES) - 1)])

    try:
        with outputs.naming(task.path):
            said("read")
            frame = _written(task, options, lap)
    except FirstlightError as error:
        if single:
            raise
        return {"input": str(task.path), "output": None, "error": str(error)}
    taken = {k: round(v, 3) for k, v in seconds.items()}
    return _row(task, frame) | {
        "seconds": taken,
        "cpu_seconds": round(time.process_time() - start[1], 3),
        "peak_memory": _peak(),
    }


def _written(task: Task, options: Developing, lap: Lap) -> Frame:
    """Develop one photograph into its file; returns what was written, its data still in it. Frames end as soon as they can."""
    to = str(options.to)
    if to in DNGS:
        frame = (mosaic_raw if to == "cfa-dng" else linear_raw)(_seen(task, options, lap))
        lap("render")
        io.write(frame, task.goal)
        lap("encode")
        return frame
    picture = _rendered(task, options, lap)
    write_rendered(picture, task.goal, to=to, quality=options.quality)
    lap("encode")
    return picture.frame


def _rendered(task: Task, options: Developing, lap: Lap) -> Rendered:
    if options.profile == "documented":
        picture = documented(_read(task, options, lap), model=str(options.model))
        lap("demosaic")
        return picture
    kind = RENDERED[str(options.to)] | ({"transfer": "linear"} if options.transfer == "linear" else {})
    frame = pipeline.finished(_seen(task, options, lap), ev=options.ev)
    picture = pipeline.render(frame, **kind, white_nits=nits(options))
    lap("render")
    return picture


def _seen(task: Task, options: Developing, lap: Lap) -> pipeline.Camera:
    light = partial(pipeline.prepared, denoise=denoising(options.denoise))
    seen = pipeline.camera(
        _lapped(light(_finishable(_read(task, options, lap), options)), lap, "noise"),
        method=options.method,
        model=options.model,
        denoise=denoising(options.denoise),
        ensemble=options.ensemble,
        keep_samples=options.keep_samples,
        wb=multipliers(options.wb),
    )
    lap("demosaic")
    return seen


def _finishable(frame: Frame, options: Developing) -> Frame:
    if options.to not in DNGS:  # those hold the camera's own colours
        pipeline.finishable(frame)
    return frame


def _lapped(frame: Frame, lap: Lap, stage: str) -> Frame:
    lap(stage)
    return frame


def _read(task: Task, options: Developing, lap: Lap) -> Frame:
    """The raw frame, with a first line of history that says from which file and how a picture is made of it."""
    path = task.path
    if path.exists() and io.kind(path) not in RAWS:
        raise ReadError(f"{path}: ends in {path.suffix or 'nothing'}, expected a raw file: {', '.join(sorted(RAWS))}")
    frame = intake.load(path, detector=options.detector).frame
    line = Record("io.read", task.said, {path.name: io.sha256(path)})
    lap("read")
    return frame.replace(history=(*frame.history, line))


def _row(task: Task, frame: Frame) -> Row:
    ran = {r.step: dict(r.params) for r in frame.history}
    how, height, width = ran.get("restore.demosaic", {}), *frame.shape[-2:]
    name = how.get("ran") or how.get("method") or "no demosaicking"
    noise = _noise(ran)
    summary = f"{width} x {height} px, {name}, {noise}"
    return {
        "input": str(task.path),
        "output": str(task.goal),
        "shape": [height, width],
        "method": name,
        "noise": noise,
        "summary": summary,
    }


def _noise(ran: dict[str, dict[str, Any]]) -> str:
    how = ran.get("restore.demosaic", {})
    if how.get("method") not in ("net", "lmmse") or not how.get("strength") or "develop.documented" in ran:
        return "not denoised"
    row = ran.get("calibrate.assign", {}).get("detector", {})
    known = {k: row[k] for k in ("gain", "read_noise") if isinstance(row, dict) and isinstance(row.get(k), float)}
    if len(known) < 2:
        return "noise from the file"
    return f"gain {known['gain']:.3g} e-/ADU, read noise {known['read_noise']:.3g} e-"


def _peak() -> int | None:
    """Bytes that the process has held at most so far; None where the system does not say."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # not a POSIX system
        return None
    import sys

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
