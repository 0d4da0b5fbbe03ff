"""A recipe on a scan, section by section, into a file: resumable, within the memory stated, with figures at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from firstlight import io, outputs, scale
from firstlight import recipe as rec
from firstlight.box import Box
from firstlight.errors import FirstlightError, FrameError
from firstlight.facts import plain
from firstlight.frame import Flag, Frame
from firstlight.geometry import Scan
from firstlight.tomography.chain import Job, Resources, like, lines, settled, summary, whole
from firstlight.tomography.doubts import angle_doubts
from firstlight.tomography.pictures import Middle, save_middle

__all__ = ["run", "summary_text"]

CHUNK = 8  # slices that sections are multiples of, so that another memory limit can go on with an unfinished output
SEARCH = "calibrate.find_center"
FAR = 2.0  # px between a stated axis and the one found


def run(
    job: Job,
    source: Path,
    goal: Path,
    resources: Resources,
    *,
    detector: str | None = None,
    tick: Callable[[int, int, str], None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Do the job; returns its figures. say: told the plan before anything runs."""
    begun, busy = time.perf_counter(), time.process_time()
    for line in lines(job, str(source), str(goal), resources):
        say(line)
    if resources.save_projections is not None and not io.resumable(resources.save_projections):
        raise FrameError(f"{resources.save_projections}: expected a .h5 (or .zarr, .tif) for the projections")
    if resources.save_projections is not None and resources.save_projections.resolve() == goal.resolve():
        raise FrameError(f"{goal}: named for the volume and for its projections; give --save-projections another name")
    scan = job.frame.geometry
    assert isinstance(scan, Scan)
    doubts = angle_doubts(scan)
    files = rec.files_of(job.frame, job.bound)
    with ThreadPoolExecutor(1) as beside:  # the files are read once more for their hashes, while the axis is looked for
        hashes = {str(f): beside.submit(io.sha256, f) for f in files}
        taken: dict[str, scale.Seconds] = {}
        tick(0, len(job.plan.sections), "rotation axis")
        with ExitStack() as undo:
            undo.callback(beside.shutdown, wait=False, cancel_futures=True)
            calls, found = scale.settle(job.frame, job.calls, memory=resources.room, seconds=taken)
        job = settled(job, calls, resources)
        hashed = {name: future.result() for name, future in hashes.items()}
    center = _center(found, scan, job)
    text = rec.dumps(rec.Recipe(tuple(c.step for c in job.bound)))
    how = replace(job.options, devices=(), rows=None)
    axis = repr(center["center"])  # a search within less memory may find another, and one volume has one
    key = io.resume_key(text, repr(how), resources.codec, detector, job.frame.shape, axis, inputs=files)
    done = _written(job, calls, _repeatable(job.bound, found), hashed, goal, resources, key, tick)
    _add(taken, done.pop("seconds"))
    picture = _picture(job, goal, done.pop("middle"))
    end = time.perf_counter() - begun
    return {
        "input": str(source),
        "output": str(goal),
        "projections": None if resources.save_projections is None else str(resources.save_projections),
        "picture": picture,
        "plan": summary(job, resources),
        **center,
        "doubts": [*doubts, *center["doubts"]],
        **done,
        "seconds": {k: {"cpu": round(taken[k].cpu, 3), "wall": round(taken[k].wall, 3)} for k in _in_order(job, taken)},
        "cpu": round(time.process_time() - busy, 3),
        "wall": round(end, 3),
    }


def _in_order(job: Job, taken: Mapping[str, scale.Seconds]) -> list[str]:
    names = ["read", *dict.fromkeys(c.name for c in job.calls), "write", "finish"]
    return [n for n in names if n in taken]


def _center(found: Frame | None, scan: Scan, job: Job) -> dict[str, Any]:
    """Centre, its confidence and how the methods agree, as far as they are known."""
    result: Mapping[str, Any] = {}
    if found is not None:
        result = next((r.params["found"] for r in reversed(found.history) if "found" in r.params), {})
    stated = [c.params["center"] for c in job.calls if c.params.get("center") is not None]
    center = stated[-1] if stated else result.get("center", scan.center)
    doubts, off = list(result.get("doubts", [])), 0.0
    if stated and "center" in result:
        off = float(np.mean(center) - np.mean(result["center"]))
    if abs(off) > FAR:
        doubts.append(f"the centre stated lies {abs(off):.1f} px {'right' if off > 0 else 'left'} of the one found")
    return {
        "center": None if center is None else plain(center),
        "confidence": None if stated else result.get("confidence"),
        "methods": dict(result.get("methods", {})),
        "doubts": doubts,
    }


def _written(
    job: Job,
    calls: Sequence[scale.Call],
    last: Sequence[rec.Call],
    hashed: Mapping[str, str],
    goal: Path,
    resources: Resources,
    key: str,
    tick: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Put the sections that are not there; returns what was found on the way. last: the steps that repeat the output."""
    first = job.first
    output = rec.entered(like(first, job.frame), last, len(job.frame.history), hashed)
    section = _section(job.plan)
    with ExitStack() as stack:
        out = stack.enter_context(
            io.create(
                goal,
                output,
                job.shape,
                dtype=np.dtype(job.options.dtype),
                std=first.std is not None,
                codec=resources.codec,
                section=section,
                resume=key if io.resumable(goal) else None,
                anew=resources.anew,
            )
        )
        saver = _Projections(stack, job, calls, last, hashed, resources, key, section) if resources.save_projections else None
        middle = Middle(out, job.shape) if "Z" in first.axes else None
        flags = _Flags(calls[-1].name)
        spans = job.plan.sections
        done = {s.first for s in spans if out.has(_box(first, s, job.shape)) and (saver is None or saver.has(s))}
        seconds = scale.run(
            job.frame,
            calls,
            middle or out,
            job.plan,
            done=done,
            devices=job.options.devices,
            tick=lambda n, total: tick(n, total, "sections"),
            also=lambda section, name, frame: _both(saver, flags, section, name, frame),
        )
        tick(len(spans), len(spans), "finishing")
        with scale.timed(seconds, "finish"):
            stack.close()
    return {"seconds": seconds, "middle": middle, "flags": flags.counts, "sections_done_before": len(done)}


def _both(saver: _Projections | None, flags: _Flags, section: scale.Section, name: str, frame: Frame) -> None:
    flags.look(name, frame)
    if saver is not None:
        saver.look(section, name, frame)


def _repeatable(bound: Sequence[rec.Call], found: Frame | None) -> list[rec.Call]:
    """The steps as they repeat this output: the axis found is stated where it is first used, not searched for again."""
    searches = [i for i, c in enumerate(bound) if c.step.use == SEARCH]
    if not searches or found is None or not isinstance(found.geometry, Scan) or found.geometry.center is None:
        return list(bound)
    takes = [i for i, c in enumerate(bound) if i > searches[-1] and "center" in (c.function.__kwdefaults__ or {})]
    if not takes:
        return list(bound)
    call = bound[takes[0]]
    if call.step.params.get("center") is None:
        params = {**call.step.params, "center": plain(found.geometry.center)}
        call = replace(call, step=replace(call.step, params=params))
    return [call if i == takes[0] else c for i, c in enumerate(bound) if i not in searches]


def _section(plan: scale.Plan) -> int:
    rows = [s.stop - s.first for s in plan.sections]
    return CHUNK if max(rows) % CHUNK == 0 else max(rows)


def _box(first: Frame, section: scale.Section, shape: Sequence[int]) -> Box:
    axis = first.axes.index("Z" if "Z" in first.axes else "Y")
    start = tuple(section.first if i == axis else 0 for i in range(len(shape)))
    return Box(start, tuple(section.stop if i == axis else n for i, n in enumerate(shape)))


class _Projections:
    """The projections that the last step sees, written beside the volume by the threads that compute."""

    def __init__(
        self,
        stack: ExitStack,
        job: Job,
        calls: Sequence[scale.Call],
        bound: Sequence[rec.Call],
        hashed: Mapping[str, str],
        resources: Resources,
        key: str,
        section: int,
    ) -> None:
        assert resources.save_projections is not None
        first = scale.probe(job.frame, calls[:-1])
        if first.axes != "AYX":
            raise FrameError(f"save-projections: the last step but one gives axes {first.axes}, expected AYX")
        self._last, self._shape, self._lock = calls[-1].name, whole(first, job.frame), Lock()
        self._first = first
        self._out = stack.enter_context(
            io.create(
                resources.save_projections,
                rec.entered(like(first, job.frame), bound[:-1], len(job.frame.history), hashed),
                self._shape,
                dtype=np.float32,
                codec=resources.codec,
                section=section,
                resume=key,
                anew=resources.anew,
            )
        )

    def has(self, section: scale.Section) -> bool:
        """Whether an earlier run has written a section."""
        return self._out.has(_box(self._first, section, self._shape))

    def look(self, section: scale.Section, name: str, frame: Frame) -> None:
        """Write what is about to enter the last step."""
        if name == self._last:
            with self._lock:
                self._out.put(_box(self._first, section, self._shape), frame.data)


class _Flags:
    """How many pixels of the projections each flag stands at, before the last step."""

    def __init__(self, last: str) -> None:
        self._last, self._lock, self.counts = last, Lock(), dict[str, int]()

    def look(self, name: str, frame: Frame) -> None:
        if name != self._last or frame.flags is None:
            return
        scale_up = int(np.prod(frame.shape)) // int(np.prod(frame.flags.shape))
        found = {str(f.name).lower(): int(np.count_nonzero(np.asarray(frame.flags) & int(f))) * scale_up for f in Flag}
        with self._lock:
            for flag, n in found.items():
                if n:
                    self.counts[flag] = self.counts.get(flag, 0) + n


def _add(total: dict[str, scale.Seconds], more: Mapping[str, scale.Seconds]) -> None:
    for name, s in more.items():
        old = total.get(name, scale.Seconds(0.0, 0.0))
        total[name] = scale.Seconds(old.cpu + s.cpu, old.wall + s.wall)


def _picture(job: Job, goal: Path, middle: Middle | None) -> str | None:
    """The PNG of three orthogonal slices beside the output; sections of an earlier run are read back."""
    if middle is None:
        return None
    path = goal.with_name(outputs.stem(goal).rstrip("#_") + ".png")
    try:
        middle.fill(io.read(goal).data, _section(job.plan))
        save_middle(middle.planes, path, str(job.first.unit))
    except FirstlightError as error:
        return f"not drawn: {error}"
    return str(path)


def summary_text(row: Mapping[str, Any]) -> str:
    """A run's figures for people: the axis, the seconds of each step, what was flagged, where the picture is."""
    out = [f"{row['output']}: {' x '.join(map(str, row['plan']['shape']))} [{row['plan']['unit']}]"]
    if row["sections_done_before"]:
        out.append(f"{row['sections_done_before']} of {row['plan']['sections']} sections were there from an earlier run")
    if row["center"] is not None:
        sure = "as stated" if row["confidence"] is None else f"confidence {row['confidence']:.2f}"
        methods = ", ".join(f"{k} {v:.2f}" for k, v in row["methods"].items())
        center = row["center"] if isinstance(row["center"], str) else f"{np.mean(row['center']):.2f}"
        out.append(f"centre {center} px, {sure}{f' ({methods})' if methods else ''}")
    out += [f"doubt: {d}" for d in row["doubts"]]
    if row["flags"]:
        out.append("flagged: " + ", ".join(f"{n} {k}" for k, n in row["flags"].items()))
    out += [f"{k:34s} {v['cpu']:8.2f} s CPU {v['wall']:8.2f} s wall" for k, v in row["seconds"].items()]
    out.append(f"{'all':34s} {row['cpu']:8.2f} s CPU {row['wall']:8.2f} s wall")
    out += [f"{k} {row[k]}" for k in ("projections", "picture") if row[k]]
    return "\n".join(out)
