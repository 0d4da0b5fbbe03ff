"""A chain of steps over a scan larger than memory, in sections of detector rows with all their angles.

One thread reads the next section, one a worker (or device) computes, one writes: at most `memory` bytes are in use. What each
step needs (halo, memory, a sample of the whole) it declares, see firstlight.needs. Sections are independent of each other and
of the number of workers, so a run that stopped goes on at the section.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from queue import SimpleQueue
from threading import Lock, Semaphore
from typing import Any, NamedTuple, Protocol

import numpy as np

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.geometry import Scan
from firstlight.needs import Needs, needs_of

__all__ = ["NOTHING", "Call", "Plan", "Seconds", "Section", "plan", "probe", "run", "sample", "settle", "timed"]

BATCH = 16  # slices that the gridding takes at once: sections of whole batches
SAMPLES = 4  # places of a scan that a sample is taken from


@dataclass(frozen=True)
class Call:
    """A step with its parameters; frames among them (white, dark) are cut to the section's rows.

    before: by parameter, the calls that its frame goes through first (zingers of the white frames).
    """

    step: Callable[..., Frame]
    params: Mapping[str, Any]
    before: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Room and function, as recipes name it."""
        return f"{self.step.__module__.split('.')[-2]}.{self.step.__name__}"

    @property
    def needs(self) -> Needs:
        """What the step declares; raises FrameError where it declares nothing."""
        found = needs_of(self.step)
        if found is None:
            raise FrameError(f"{self.name}: does not say what it needs of a section, so it cannot run on a scan in parts")
        return found


@dataclass(frozen=True)
class Section:
    """Rows `first` to `stop` of the scan, computed from rows `low` to `high`."""

    first: int
    stop: int
    low: int
    high: int


@dataclass(frozen=True)
class Plan:
    """Sections of a scan, the halo between them [rows], threads that compute, and the most memory in use [bytes]."""

    sections: tuple[Section, ...]
    halo: int
    workers: int
    memory: int


class Sink(Protocol):
    """What takes the results, one at a time: a writer of io."""

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Take `block` at `box` (all axes), and its standard error where there is one."""


class Seconds(NamedTuple):
    """What a step took, summed over sections: of CPU, and by the clock of its own thread."""

    cpu: float
    wall: float


def plan(frame: Frame, calls: Sequence[Call], *, memory: int, workers: int, rows: int | None = None, pixels: int = 0) -> Plan:
    """Sections of as many rows as the memory holds, whole batches of slices or a power of two; `rows` at most where given.

    pixels: of one row of the output (its slice), where that is larger than the row that goes in. Raises FrameError where not
    even one row fits.
    """
    if "".join(frame.axes) != "AYX":
        raise FrameError(f"sections: axes {frame.axes}, expected a scan with axes AYX")
    halo = sum(c.needs.rows(frame, c.params) for c in calls if not c.needs.sample)
    total, halo = frame.shape[1], min(halo, frame.shape[1])

    def needed(n: int) -> int:
        return int(_bytes(frame, calls, min(total, n + 2 * halo), n, workers, pixels))

    if needed(1) > memory:
        raise FrameError(
            f"sections: one row with {halo} rows of halo on each side needs {needed(1) / 2**20:.0f} MiB, "
            f"got {memory / 2**20:.0f}; give more memory, or fewer workers than {workers}"
        )
    most = min(total, rows or max(BATCH, 2 * halo, -(-total // (4 * workers))))
    n = next(k for k in range(most, 0, -1) if needed(k) <= memory)
    if n < total and rows is None:
        n = n // BATCH * BATCH if n >= BATCH else 1 << (n.bit_length() - 1)
    starts = range(0, total, n)
    sections = [Section(y, min(y + n, total), max(0, y - halo), min(total, y + n + halo)) for y in starts]
    return Plan(tuple(sections), halo, min(workers, len(sections)), needed(n))


def _bytes(frame: Frame, calls: Sequence[Call], rows: int, own: int, workers: int, pixels: int) -> float:
    """Peak memory: a section being read, `workers` computed, one written; workspaces stay between sections."""
    per_row = frame.shape[0] * frame.shape[2]
    size = np.result_type(frame.data.dtype, np.float32).itemsize  # 8 for what float32 does not hold
    section, out = float(size * rows * per_row), 4.0 * own * max(pixels, per_row)
    beside, peak, workspace = 0.0 if frame.std is None else 2 * section, section, 0.0
    for needs, params in ((c.needs, c.params) for c in calls if not c.needs.sample):
        fixed = needs.workspace(frame, params, section)
        peak = max(peak, needs.memory(frame, params, section) - fixed + beside)
        workspace += fixed
        beside += needs.kept(frame, params) * section
    return section + workers * max(peak + workspace + _fields(frame, calls, rows), section + out) + 2 * out


def _fields(frame: Frame, calls: Sequence[Call], rows: int) -> float:
    """Bytes of a section's white and dark frames, and of what they go through."""
    total = 0.0
    for call in calls:
        for name, value in call.params.items():
            parts = [v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, Frame)]
            size = sum(4.0 * rows * np.prod(v.shape[:-2]) * v.shape[-1] for v in parts if v.shape[-2:] == frame.shape[-2:])
            total += float(max([size, *(c.needs.memory(frame, c.params, size) for c in call.before.get(name, ()))]))
    return total


def probe(frame: Frame, calls: Sequence[Call], row: int | None = None) -> Frame:
    """One row (the middle one) with its halo through the calls: what axes, unit, shape and history come out."""
    y = frame.shape[1] // 2 if row is None else row
    halo = min(frame.shape[1], sum(c.needs.rows(frame, c.params) for c in calls))
    return _computed(frame, calls, Section(y, y + 1, max(0, y - halo), min(frame.shape[1], y + 1 + halo)), {})


def settle(
    frame: Frame, calls: Sequence[Call], *, memory: float = np.inf, seconds: dict[str, Seconds] | None = None
) -> tuple[list[Call], Frame | None]:
    """Run what needs a sample of the whole scan once, of as many rows as `memory` holds: its call becomes one that states
    what was found.

    Returns the calls for the sections and the sample's frame after the last such step (None where there is none).
    """
    taken = {} if seconds is None else seconds
    done: list[Call] = []
    found: Frame | None = None
    for call in calls:
        if not call.needs.sample:
            done.append(call)
            continue
        rows = call.params.get("rows")
        asked = call.needs.sample if rows is None else rows
        size = 4.0 * frame.shape[0] * frame.shape[2] * (asked if isinstance(asked, int) else len(asked))
        copies = call.needs.memory(frame, call.params, size) / size
        part = sample(frame, done, asked, memory=memory, copies=copies, seconds=taken)
        params = {**call.params, "rows": len(rows)} if isinstance(rows, list | tuple) else call.params
        with timed(taken, call.name):
            found = call.step(part, **params)
        record = found.history[-1]
        done.append(Call(_located, {"scan": found.geometry, "record": record, "name": call.name}))
    return done, found


def _located(frame: Frame, *, scan: Scan, record: Any, name: str) -> Frame:
    geometry = frame.geometry
    center = scan.center
    if isinstance(geometry, Scan):
        geometry = replace(geometry, center=center, angles=geometry.angles)
    return frame.replace(geometry=geometry, history=(*frame.history, record))


NOTHING = Needs(0, 1.0)
_located.needs = NOTHING  # type: ignore[attr-defined]


def sample(
    frame: Frame,
    calls: Sequence[Call],
    rows: int | Sequence[int],
    *,
    memory: float = np.inf,
    copies: float = 4.0,
    seconds: dict[str, Seconds] | None = None,
) -> Frame:
    """So many rows from a few places of the scan, or those named, through the calls, as one frame.

    Fewer than asked for where `copies` of them do not fit the memory. Raises FrameError for rows that the scan does not have.
    """
    total = frame.shape[1]
    halo = min(total, sum(c.needs.rows(frame, c.params) for c in calls))
    if isinstance(rows, int):
        count = min(_fitting(frame, calls, rows, halo, memory, copies), total)
        each = max(1, count // SAMPLES)
        starts = [0] if total <= count else [round(f * (total - each)) for f in np.linspace(0.1, 0.9, SAMPLES)]
        each = total if total <= count else each
    else:
        starts, each = [int(r) for r in rows], 1
        if not starts or min(starts) < 0 or max(starts) >= total:
            raise FrameError(f"sections: rows {starts}, expected rows of 0..{total - 1}")
    spans = [Section(y, y + each, max(0, y - halo), min(total, y + each + halo)) for y in starts]
    parts = [_computed(frame, calls, span, {} if seconds is None else seconds) for span in spans]
    data = np.concatenate([np.asarray(p.data) for p in parts], axis=1)
    flags = None
    if any(p.flags is not None for p in parts):
        planes = [np.zeros((1, 1, 1), np.uint8) if p.flags is None else np.asarray(p.flags) for p in parts]
        flags = np.concatenate([np.broadcast_to(f, p.shape) for f, p in zip(planes, parts, strict=True)], axis=1)
    return parts[0].replace(data=data, flags=flags, std=None, noise=_unmodelled(parts))


def _fitting(frame: Frame, calls: Sequence[Call], rows: int, halo: int, memory: float, copies: float) -> int:
    """So many rows, or half, a quarter ... of them, SAMPLES at least."""
    per_row = 4.0 * frame.shape[0] * frame.shape[2]
    while rows > SAMPLES:
        each = -(-rows // SAMPLES)
        if max(_bytes(frame, calls, each + 2 * halo, each, 1, 0) + per_row * rows, copies * per_row * rows) <= memory:
            break
        rows //= 2
    return rows


def _unmodelled(parts: Sequence[Frame]) -> Any:
    from firstlight.noise import Unmodelled

    return parts[0].noise if len(parts) == 1 else Unmodelled("sections: rows from several places of the scan")


def run(
    frame: Frame,
    calls: Sequence[Call],
    out: Sink,
    sections: Plan,
    *,
    done: Collection[int] = (),
    devices: Sequence[str] = (),
    tick: Callable[[int, int], None] | None = None,
    also: Callable[[Section, str, Frame], None] | None = None,
) -> dict[str, Seconds]:
    """Put every section (but those whose first row is in `done`) through the steps into `out`; the seconds of each step.

    devices: one for each thread that computes, handed to steps that take `device`; the plan's workers otherwise. also: called
    with each section and step, before it, with the frame cut to the section's own rows (to save projections).
    """
    todo = [s for s in sections.sections if s.first not in done]
    total = len(sections.sections)
    seconds: dict[str, Seconds] = {}
    with _Lanes(devices or ["cpu"] * sections.workers) as lanes:
        finished = total - len(todo)
        if tick:
            tick(finished, total)
        for section, result in lanes.results(frame, calls, todo, seconds, also):
            with timed(seconds, "write"):
                stop = section.first + result.shape[0] if "Z" in result.axes else section.stop
                out.put(_place(result, section.first, stop), result.data, result.std)
            finished += 1
            if tick:
                tick(finished, total)
    return seconds


def _place(result: Frame, first: int, stop: int) -> Box:
    """Where a result lies in the output: along Z for a volume, along Y for projections."""
    axis = result.axes.index("Z") if "Z" in result.axes else result.axes.index("Y")
    start = tuple(first if i == axis else 0 for i in range(len(result.shape)))
    return Box(start, tuple(stop if i == axis else n for i, n in enumerate(result.shape)))


class _Lanes:
    """Threads: one that reads ahead, one for each device. A result waits for the writer before the next section starts."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices: SimpleQueue[str] = SimpleQueue()
        for device in devices:
            self._devices.put(device)
        self._reader = ThreadPoolExecutor(1)
        self._workers = ThreadPoolExecutor(len(devices))
        self._slots = Semaphore(len(devices) + 1)
        self._stop = False

    def __enter__(self) -> _Lanes:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop = True
        for _ in range(2):
            self._slots.release()
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def results(
        self, frame: Frame, calls: Sequence[Call], todo: Sequence[Section], seconds: dict[str, Seconds], also: Any
    ) -> Iterator[tuple[Section, Frame]]:
        """Results in the order of the sections."""
        waiting: SimpleQueue[Future[Frame] | None] = SimpleQueue()
        feeder = self._reader.submit(self._feed, frame, calls, todo, seconds, also, waiting)
        for section in todo:
            future = waiting.get()
            if future is None:
                feeder.result()
                return
            yield section, future.result()
            self._slots.release()

    def _feed(
        self,
        frame: Frame,
        calls: Sequence[Call],
        todo: Sequence[Section],
        seconds: dict[str, Seconds],
        also: Any,
        waiting: SimpleQueue[Future[Frame] | None],
    ) -> None:
        try:
            for section in todo:
                self._slots.acquire()
                if self._stop:
                    return
                with timed(seconds, "read"):
                    part = _read(frame, section)
                    own = [replace(c, params={k: _cut(v, frame, section) for k, v in c.params.items()}) for c in calls]
                waiting.put(self._workers.submit(self._compute, [part], own, section, seconds, also))
                del part, own
        except BaseException:
            waiting.put(None)
            raise

    def _compute(
        self, parts: list[Frame], calls: Sequence[Call], section: Section, seconds: dict[str, Seconds], also: Any
    ) -> Frame:
        """Takes the section out of its list: whoever still held it would keep its memory until the last step."""
        device = self._devices.get()
        try:
            return _through(parts.pop(), calls, section, seconds, device, also)
        finally:
            self._devices.put(device)


_clock = Lock()


@contextmanager
def timed(seconds: dict[str, Seconds], name: str) -> Iterator[None]:
    """Add what the block takes in this thread to `seconds[name]`."""
    cpu, wall = time.thread_time(), time.perf_counter()
    yield
    with _clock:
        old = seconds.get(name, Seconds(0.0, 0.0))
        seconds[name] = Seconds(old.cpu + time.thread_time() - cpu, old.wall + time.perf_counter() - wall)


def _read(frame: Frame, section: Section) -> Frame:
    part = frame.crop(Box((0, section.low, 0), (frame.shape[0], section.high, frame.shape[2])))
    return part.replace(data=np.asarray(part.data))


def _cut(value: Any, frame: Frame, section: Section) -> Any:
    """A frame of the detector's size cut to the section's rows and read; anything else as it is."""
    if isinstance(value, list | tuple):
        return type(value)(_cut(v, frame, section) for v in value)
    if not isinstance(value, Frame) or value.shape[-2:] != frame.shape[-2:]:
        return value
    part = value.crop(Box((section.low, 0), (section.high, value.shape[-1])))
    return part.replace(data=np.asarray(part.data))


def _computed(frame: Frame, calls: Sequence[Call], section: Section, seconds: dict[str, Seconds]) -> Frame:
    own = [replace(c, params={k: _cut(v, frame, section) for k, v in c.params.items()}) for c in calls]
    return _own_rows(_through(_read(frame, section), own, section, seconds, "cpu", None), section)


def _through(
    part: Frame, calls: Sequence[Call], section: Section, seconds: dict[str, Seconds], device: str, also: Any
) -> Frame:
    """The steps one after the other; rows of halo are cut as soon as no later step looks at them."""
    left = [sum(c.needs.rows(part, c.params) for c in calls[i:]) for i in range(len(calls))]
    low, high = section.low, section.high
    for call, halo in zip(calls, left, strict=True):
        part, low, high = _trim(part, section, low, high, halo)
        if also:
            also(section, call.name, _trim(part, section, low, high, 0)[0])
        known = signature(call.step).parameters
        extra = {k: v for k, v in (("device", device), ("workers", 1)) if k in known and k not in call.params}
        with timed(seconds, str(call.params["name"]) if call.step is _located else call.name):
            params = {k: _rows(_before(v, call.before.get(k, ())), part, low - section.low) for k, v in call.params.items()}
            part = call.step(part, **(params | extra))
    return _trim(part, section, low, high, 0)[0] if "Z" not in part.axes else part


def _trim(part: Frame, section: Section, low: int, high: int, halo: int) -> tuple[Frame, int, int]:
    if "Z" in part.axes:
        return part, low, high
    new = max(low, section.first - halo), min(high, section.stop + halo)
    if new == (low, high):
        return part, low, high
    return part.crop(Box((0, new[0] - low, 0), (part.shape[0], new[1] - low, part.shape[2]))), *new


def _before(value: Any, calls: Sequence[Call]) -> Any:
    """A frame, or each of several, through the calls that stand before it."""
    if isinstance(value, list | tuple):
        return type(value)(_before(v, calls) for v in value)
    for call in calls:
        value = call.step(value, **call.params)
    return value


def _rows(value: Any, part: Frame, offset: int) -> Any:
    """A frame among the parameters, cut to the rows that are left of the section."""
    if isinstance(value, list | tuple):
        return type(value)(_rows(v, part, offset) for v in value)
    if not isinstance(value, Frame) or value.shape[-2:] == part.shape[-2:]:
        return value
    return value.crop(Box((offset, 0), (offset + part.shape[1], value.shape[-1])))


def _own_rows(part: Frame, section: Section) -> Frame:
    """The section's own rows, where the steps have left more."""
    if "Z" in part.axes or part.shape[1] == section.stop - section.first:
        return part
    return part.crop(Box((0, section.first - section.low, 0), (part.shape[0], section.stop - section.low, part.shape[2])))
