"""A recipe and a scan made ready: steps with their frames, how they run, what comes out of them, in words too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import getdoc, signature
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import recipe as rec
from firstlight import scale
from firstlight.errors import FrameError
from firstlight.frame import Frame, Record
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Unmodelled
from firstlight.tomography.doubts import angle_doubts

__all__ = [
    "HOUSE",
    "Job",
    "Resources",
    "assumed",
    "call_of",
    "cores",
    "like",
    "lines",
    "planned",
    "prepared",
    "settled",
    "summary",
    "takes",
    "whole",
]

SLACK = 1.2  # what the allocator holds beyond what is in use
OVERHEAD = 8  # rows: what a section costs beyond its rows, since few slices fill half-empty vectors
HOUSE = 320 << 20  # bytes: the interpreter, its libraries and compiled loops; measured by tests/tomography/test_run.py


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Resources:
    """What a run may use and leave behind, as the CLI's flags.

    memory [bytes], of the whole process; workers: threads that compute, None: one for each processor; save_projections: a file
    for what enters the last step; codec of the outputs; anew: an unfinished output is removed, not gone on with.
    """

    memory: int = 4 << 30
    workers: int | None = None
    save_projections: Path | None = None
    codec: str | None = None
    anew: bool = False

    @property
    def room(self) -> float:
        """Bytes that sections may take."""
        return (self.memory - HOUSE) / SLACK

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise FrameError(f"workers {self.workers}, expected at least 1")


@dataclass(frozen=True, eq=False)
class Job:
    """A scan, the recipe's steps bound to it, the same as calls for sections, and how they run."""

    frame: Frame
    bound: Sequence[rec.Call]
    calls: Sequence[scale.Call]
    options: rec.Options
    plan: scale.Plan
    first: Frame

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output."""
        return whole(self.first, self.frame)


def takes(frame: Frame, bound: Sequence[rec.Call]) -> bool:
    """Whether a recipe can run on a frame in sections: a scan, and every step says what it needs."""
    return frame.axes == "AYX" and isinstance(frame.geometry, Scan) and all(needs_of(c.function) is not None for c in bound)


def prepared(frame: Frame, bound: Sequence[rec.Call], options: rec.Options, resources: Resources) -> Job:
    """The job, its sections planned; one row goes through the steps to see what comes out. Raises as they do, and FrameError
    for too little memory."""
    frame, calls = _centred(frame, [call_of(c) for c in bound])
    first = scale.probe(frame, assumed(frame, calls))
    plan = planned(frame, calls, first, options, resources)
    return Job(frame, bound, calls, options, plan, first)


def settled(job: Job, calls: Sequence[scale.Call], resources: Resources) -> Job:
    """The job once its axis is known, on which the width of what comes out may depend (stitch_360)."""
    first = scale.probe(job.frame, calls)
    plan = job.plan if first.shape == job.first.shape else planned(job.frame, job.calls, first, job.options, resources)
    return replace(job, first=first, plan=plan)


def planned(
    frame: Frame, calls: Sequence[scale.Call], first: Frame | None, options: rec.Options, resources: Resources
) -> scale.Plan:
    """Sections within the memory that the program leaves, by as many workers as finish soonest, unless they are named."""
    if resources.room <= 0:
        raise FrameError(
            f"memory: got {resources.memory / 2**20:.0f} MiB, of which the program itself takes {HOUSE / 2**20:.0f}; "
            f"give more memory: --memory {2 * HOUSE / 2**20:.0f}M"
        )
    pixels = 0 if first is None else int(np.prod(first.shape[1:])) if "Z" in first.axes else 0
    most = len(options.devices) or resources.workers or cores()
    fewest = most if options.devices or resources.workers else 1
    plans, short, room = [], None, int(resources.room)
    for workers in range(most, fewest - 1, -1):
        try:
            plans.append(scale.plan(frame, calls, memory=room, workers=workers, rows=options.rows, pixels=pixels))
        except FrameError as error:
            short = error
    if not plans:
        raise FrameError(f"{short} (of {resources.memory / 2**20:.0f} MiB, {HOUSE / 2**20:.0f} are the program's own)")
    return min(plans, key=_effort)


def _effort(plan: scale.Plan) -> float:
    """Rows that a worker computes, halo included, and OVERHEAD for each of its sections."""
    return sum(s.high - s.low + OVERHEAD for s in plan.sections) / plan.workers


def call_of(call: rec.Call) -> scale.Call:
    """A recipe's step as a call for sections."""
    before = {k: tuple(scale.Call(c.function, c.values) for c in v) for k, v in call.before.items()}
    return scale.Call(call.function, call.values, before)


def _centred(frame: Frame, calls: Sequence[scale.Call]) -> tuple[Frame, list[scale.Call]]:
    """Centres that a step states for each row belong to the scan, which sections cut."""
    many = [np.asarray(c.params["center"], dtype=np.float64) for c in calls if isinstance(c.params.get("center"), list | tuple)]
    if many and many[-1].shape not in ((), (1,), (frame.shape[1],)):
        raise FrameError(f"center: {many[-1].size} centres for {frame.shape[1]} detector rows; give one, or one for each row")
    if not many or many[-1].shape != (frame.shape[1],) or not isinstance(frame.geometry, Scan):
        return frame, list(calls)
    frame = frame.replace(geometry=replace(frame.geometry, center=many[-1]))
    return frame, [replace(c, params={k: v for k, v in c.params.items() if k != "center"}) for c in calls]


def _middle(frame: Frame) -> Frame:
    assert isinstance(frame.geometry, Scan)
    known = frame.geometry.center
    return frame.replace(geometry=replace(frame.geometry, center=(frame.shape[2] - 1) / 2 if known is None else known))


_middle.needs = scale.NOTHING  # type: ignore[attr-defined]


def assumed(frame: Frame, calls: Sequence[scale.Call]) -> list[scale.Call]:
    """The calls, with the axis in the middle instead of searched for."""
    return [scale.Call(_middle, {}) if c.needs.sample else c for c in calls]


def whole(first: Frame, frame: Frame) -> tuple[int, ...]:
    """The shape of all rows of the scan, from what comes out of one."""
    axis = first.axes.index("Z" if "Z" in first.axes else "Y")
    return tuple(frame.shape[1] if i == axis else n for i, n in enumerate(first.shape))


def like(first: Frame, frame: Frame) -> Frame:
    """What the output is like: one row's result without its maps; inputs of its history are not hashed as if whole."""
    history = (*frame.history, *(Record(r.step, r.params) for r in first.history[len(frame.history) :]))
    noise = first.noise if isinstance(first.noise, Unmodelled) else Unmodelled("made in sections: its noise map was not kept")
    geometry = first.geometry
    if isinstance(geometry, Scan) and isinstance(frame.geometry, Scan) and isinstance(frame.geometry.center, np.ndarray):
        geometry = replace(geometry, center=frame.geometry.center)
    return first.replace(history=history, noise=noise, flags=None, std=None, geometry=geometry)


def lines(job: Job, source: str, goal: str | None, resources: Resources) -> list[str]:
    """The plan for people: the scan, each step and what it does, sections and memory, the output."""
    scan = job.frame.geometry
    assert isinstance(scan, Scan)
    a, y, x = job.frame.shape
    turn = np.degrees([scan.angles.min(), scan.angles.max()])
    pixel = "pixel size unknown" if scan.pixel is None else f"{scan.pixel:g} um"
    out = [f"{source}: {a} projections of {y} x {x} px, {turn[0]:g} to {turn[1]:g} degrees, {pixel} [{job.frame.unit}]"]
    out += [f"{i + 1} {_words(c)}" for i, c in enumerate(job.bound)]
    plan, rows = job.plan, max(s.stop - s.first for s in job.plan.sections)
    out.append(
        f"{len(plan.sections)} sections of {rows} rows, halo {plan.halo}, {plan.workers} workers"
        + (f" on {', '.join(job.options.devices)}" if job.options.devices else "")
        + f"; {_peak(plan) / 2**20:.0f} MiB at most of {resources.memory / 2**20:.0f}"
    )
    size = _size(int(np.prod(job.shape)) * np.dtype(job.options.dtype).itemsize)
    what = f"{job.first.axes} {' x '.join(map(str, job.shape))} {job.options.dtype} [{job.first.unit}]"
    doubts = [f"doubt: {d}" for d in angle_doubts(scan)]
    return [*out, f"output {goal or ''}: {what}, {size} before compression", *doubts]


def _peak(plan: scale.Plan) -> int:
    return int(plan.memory * SLACK) + HOUSE


def _size(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _words(call: rec.Call) -> str:
    given = {k: v for k, v in call.step.params.items() if v != _default(call.function, k)}
    params = ", ".join(f"{k}={v}" for k, v in given.items())
    also = f", {', '.join(call.step.also)} too" if call.step.also else ""
    first = (getdoc(call.function) or "").split("\n")[0].split(";")[0].rstrip(".")
    return f"{call.step.use}({params}){also}: {first}"


def _default(function: Any, name: str) -> Any:
    return signature(function).parameters[name].default


def summary(job: Job, resources: Resources) -> Mapping[str, Any]:
    """The plan as plain values."""
    plan = job.plan
    return {
        "steps": [c.step.use for c in job.bound],
        "sections": len(plan.sections),
        "rows": max(s.stop - s.first for s in plan.sections),
        "halo": plan.halo,
        "workers": plan.workers,
        "devices": list(job.options.devices),
        "memory": _peak(plan),
        "memory_limit": resources.memory,
        "shape": list(job.shape),
        "axes": job.first.axes,
        "unit": str(job.first.unit),
        "dtype": job.options.dtype,
    }
