"""The sources of a tile set to tiles, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from firstlight import io
from firstlight.dataset.cut import cut, save
from firstlight.dataset.journal import TILES
from firstlight.dataset.options import Choice, chosen
from firstlight.dataset.pair import Candidate
from firstlight.dataset.prepare import each
from firstlight.dataset.rows import Source, TileRow
from firstlight.dataset.state import State
from firstlight.errors import FirstlightError, WriteError
from firstlight.frame import Frame

__all__ = ["work"]

Tick = Callable[[int, int, str], None]


class _Stopped(Exception):
    """The run ends: a worker leaves its source."""


class _Shared:
    """What the workers of a run share: its state, the word to stop, and the folder that they write to."""

    def __init__(self, state: State) -> None:
        self.state, self.stop = state, threading.Event()
        self._maps, self._folders = threading.Lock(), set[Path]()

    def go_on(self) -> None:
        """Leave the source where the run ends."""
        if self.stop.is_set():
            raise _Stopped

    def put(self, name: str, array: Any) -> int:
        """Write an array as `name` below the set's folder; returns its bytes."""
        self.go_on()
        path = self.state.out / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        if name.startswith(f"{TILES}/"):
            return save(path, array)
        with self._maps:  # a map's name is its content: sources that agree share it
            return path.stat().st_size if path.exists() else save(path, array)


def work(state: State, *, workers: int = 1, detector: Choice = None, unit: Choice = None, tick: Tick | None = None) -> None:
    """Every source that is left, in threads. A file that cannot be used is noted; a disk that refuses ends the run."""
    lots = state.lots()
    total, n = sum(len(sources) for sources, _ in lots), 0
    shared = _Shared(state)
    some = partial(_some, shared, detector=detector, unit=unit)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tiles")
    try:
        futures = {pool.submit(some, sources, pairs): sources for sources, pairs in lots}
        for future in as_completed(futures):
            sources = futures.pop(future)
            future.result()
            for source in sources:
                if tick:
                    tick(n, total, source.path)
                n += 1
                if source.path in state.finished:
                    state.done(source)
    finally:
        shared.stop.set()
        pool.shutdown(cancel_futures=True)
    if tick:
        tick(total, total, "")


def _some(shared: _Shared, sources: list[Source], pairs: list[Candidate], *, detector: Choice, unit: Choice) -> None:
    """The tiles of some sources, and each of `pairs` as soon as both its files have been read."""
    frames, state, left = _Frames(shared, both=bool(pairs)), shared.state, list(pairs)

    def look(ready: Callable[[Candidate], bool]) -> None:
        for one in [c for c in left if ready(c)]:
            assert state.proofs is not None
            state.proofs.look(one, frames.read)
            left.remove(one)

    for source in sources:
        try:
            _one(shared, source, frames.read, detector=chosen(detector, source), unit=chosen(unit, source))
        except WriteError:
            raise
        except FirstlightError as error:
            cause = " ".join(str(error).removeprefix(f"{state.root / source.path}: ").split())
            state.summary.unreadable.append({"path": source.path, "cause": cause})
        look(lambda c: {c.noisy.path, c.clean.path} <= frames.kept.keys())
    look(lambda c: True)


class _Frames:
    """The frames of a worker by path, the last two kept where both of a pair are wanted; pixels stay on disk where they can."""

    def __init__(self, shared: _Shared, *, both: bool) -> None:
        self.kept: dict[str, Frame] = {}
        self._shared, self._both = shared, both

    def read(self, path: str) -> Frame:
        self._shared.go_on()
        frame = self.kept.pop(path, None) or io.read(self._shared.state.root / path)
        if self._both:
            self.kept[path] = frame
            if len(self.kept) > 2:
                del self.kept[next(iter(self.kept))]
        return frame


def _one(shared: _Shared, source: Source, read: Callable[[str], Frame], *, detector: str | None, unit: str | None) -> None:
    """One source to tiles and, last, its journal entry; where that fails, nothing of it stays."""
    state, files, rows = shared.state, dict[str, int](), list[TileRow]()

    def put(name: str, array: Any) -> None:
        files[name] = shared.put(name, array)

    def at_hand(_: str | Path) -> Frame:
        return read(source.path)

    try:
        given = {"profile": state.profile, "detector": detector, "unit": unit}
        for one in each(state.root / source.path, source, **given, read=at_hand):  # type: ignore[arg-type]
            rows += cut(one, source, state.out, profile=state.profile, put=put)
        state.journal.add(source, files, rows)
        state.finished.add(source.path)  # here, so that a run which is being stopped counts it too
    except BaseException:
        for name in files:
            if name.startswith(f"{TILES}/"):
                (state.out / name).unlink(missing_ok=True)
        raise
