"""Gridding: images from sinograms and back through the Fourier slice theorem, batches of slices at a time, exact and fast.

Row FFTs of the padded projections; each sample of the spectrum is spread onto a grid of the image's spectrum (or read from
it) with a kernel four cells wide; one 2-D FFT. O'Sullivan (1985), Fessler and Sutton (2003); error 1e-5 of the maximum.
Two slices travel as one complex number and a batch of pairs fills a cache line, so the kernel's weights are shared.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from firstlight.errors import FrameError
from firstlight.operators.kernel import grid_side, kernel

__all__ = ["Gridding"]

Array = NDArray[Any]
CHUNK = 1 << 20  # bytes of projections transformed at a time: they stay in the cache until they are spread
PAD = 3
TABLES = 4 << 20  # bytes that the kernel's table takes while it is made
SOME = 64  # angles whose waves are made at a time, in double precision


@dataclass(frozen=True, eq=False)
class _Work:
    """Arrays that one thread uses again and again: fresh ones would cost more in page faults than the arithmetic.

    Views of two lines of memory, of which fewer pairs use less: one such line a thread, however batches differ.
    """

    z: Array  # (chunk, width, batch) complex64
    grid: Array  # (side + 2 PAD, side + 2 PAD, batch) complex64
    memory: tuple[Array, Array]


class Gridding:
    """A parallel-beam geometry with its tables and workspaces; methods may be called from several threads.

    angles [rad]; columns: detector pixels; size: image side [px], the rotation axis at (size - 1) / 2 of both axes;
    width: samples of a padded projection, even, twice the field by default; filtered: all
    images come through the ramp filter, so that a coarser grid is exact; pairs: most pairs of slices at a time (1, 2, 4 or
    8), which decides memory; workers: threads. Image x is column, y is row, both increasing
    with the index; at angle t the detector coordinate is x cos t + y sin t + center.
    """

    def __init__(
        self,
        angles: Array,
        columns: int,
        *,
        size: int | None = None,
        width: int | None = None,
        filtered: bool = True,
        pairs: int = 8,
        workers: int | None = None,
    ) -> None:
        self.angles = np.asarray(angles, dtype=np.float64)
        self.columns, self.size = int(columns), int(columns if size is None else size)
        _check(self.angles, self.columns, self.size, width, pairs, workers)
        field = max(self.columns, self.size)
        self.width = padded(field) if width is None else width
        self.side = grid_side(field, filtered)
        full = kernel(field, self.side, filtered)
        shift = field // 2 - self.size // 2
        self._table = full.table.ravel()
        self._correction = np.ascontiguousarray(full.correction[shift : shift + self.size])
        self._cos, self._sin = np.cos(self.angles), np.sin(self.angles)
        self._pairs, self._most = pairs, self.angles.size
        self._workers = workers or len(os.sched_getaffinity(0))
        self._spare: SimpleQueue[tuple[Array, Array]] = SimpleQueue()

    def bytes_per_worker(self, pairs: int | None = None) -> int:
        """Memory [bytes] of one thread's workspace."""
        return 8 * sum(_cells(self._most, self.width, self.side, self._pairs if pairs is None else pairs))

    def subset(self, angles: slice) -> Gridding:
        """The same geometry with part of its angles; it shares the tables and the workspaces."""
        part = copy(self)
        part.angles, part._cos, part._sin = self.angles[angles], self._cos[angles], self._sin[angles]
        return part

    def phases(self, center: float, nyquist: float = 0.5) -> Array:
        """exp(2 pi i m (center + d (cos t + sin t)) / width) over width, (A, width / 2 + 1): the response of the adjoint.

        d: the rotation axis between two pixels where the size is even. nyquist: weight of each end of the spectrum; 0 makes
        A^T A a convolution exactly.
        """
        turn = (2j * np.pi / self.width) * np.arange(self.width // 2 + 1)
        offset = center + (0.5 if self.size % 2 == 0 else 0.0) * (self._cos + self._sin)
        out = np.empty((offset.size, turn.size), np.complex64)
        for a in range(0, offset.size, SOME):
            out[a : a + SOME] = np.exp(turn * offset[a : a + SOME, None]) / self.width
        out[:, -1] *= np.float32(nyquist)
        return out

    def adjoint(
        self,
        sinograms: Array,
        response: Array,
        *,
        turns: Array | None = None,
        edge: int = 0,
        out: Array | None = None,
    ) -> Array:
        """Images (S, size, size), float32, of sinograms (A, S, X): the adjoint of `forward` for the same response.

        response (A, width / 2 + 1) complex64: phases times any filter and angular weight. turns (S,): further shift of each
        slice [columns / width].
        edge: columns at either end whose means pad a row, instead of zeros. Raises FrameError where not finite.
        """
        p = self._checked(sinograms)
        out = np.empty((p.shape[1], self.size, self.size), np.float32) if out is None else out
        self._batches(
            p.shape[1], lambda part, work: self._adjoint(p[:, part], response, _at(turns, part), edge, work, out[part])
        )
        return out

    def forward(self, images: Array, response: Array, *, turns: Array | None = None, out: Array | None = None) -> Array:
        """Line integrals (A, S, X), float32, of images (S, size, size), for the conjugate of `response`."""
        f = np.asarray(images, dtype=np.float32)
        if f.ndim != 3 or f.shape[1:] != (self.size, self.size):
            raise FrameError(f"gridding: images of shape {f.shape}, expected (slices, {self.size}, {self.size})")
        shape = (self.angles.size, f.shape[0], self.columns)
        out = np.empty(shape, np.float32) if out is None else out
        self._batches(f.shape[0], lambda part, work: self._forward(f[part], response, _at(turns, part), work, out[:, part]))
        return out

    def points(self, response: Array) -> Array:
        """The image (size, size) of projections whose spectrum is 1: the sum of `response`'s waves, from pixel size // 2."""
        work, out = self._borrow(1), np.empty((1, self.size, self.size), np.float32)
        work.grid[:] = 0
        for rows in self._chunks(work):
            z = work.z[: rows.stop - rows.start]
            z[:] = 1
            self._spread(z, response, rows, work.grid)
        self._image(work.grid, out)
        image: Array = out[0]
        return image

    def _checked(self, sinograms: Array) -> Array:
        p = np.asarray(sinograms)
        p = p if p.dtype == np.float32 else p.astype(np.float32)
        if p.ndim != 3 or (p.shape[0], p.shape[2]) != (self.angles.size, self.columns):
            raise FrameError(
                f"gridding: sinograms of shape {p.shape}, expected ({self.angles.size} angles, slices, {self.columns} columns)"
            )
        return p

    def _batches(self, slices: int, run: Any) -> None:
        pairs = pairs_of(slices, self._pairs)
        parts = [slice(i, min(i + 2 * pairs, slices)) for i in range(0, slices, 2 * pairs)]

        def one(part: slice) -> None:
            work = self._borrow(pairs)
            try:
                run(part, work)
            finally:
                self._spare.put(work.memory)

        if len(parts) <= 1 or self._workers == 1:
            for part in parts:
                one(part)
            return
        with ThreadPoolExecutor(min(self._workers, len(parts))) as pool:
            list(pool.map(one, parts))

    def _borrow(self, pairs: int) -> _Work:
        cells, side = _cells(self._most, self.width, self.side, pairs), self.side + 2 * PAD
        memory = None
        with suppress(Empty):
            memory = self._spare.get_nowait()
        if memory is not None and any(m.size < n for m, n in zip(memory, cells, strict=True)):
            memory = None
        if memory is None:
            memory = (_aligned(cells[0]), _aligned(cells[1]))
        z, grid = (m[:n] for m, n in zip(memory, cells, strict=True))
        return _Work(z.reshape(-1, self.width, pairs), grid.reshape(side, side, pairs), memory)

    def _chunks(self, work: _Work) -> Sequence[slice]:
        step, total = work.z.shape[0], self.angles.size
        return [slice(a, min(a + step, total)) for a in range(0, total, step)]

    def _adjoint(self, p: Array, response: Array, turns: Array | None, edge: int, work: _Work, out: Array) -> None:
        from firstlight.operators import spread

        work.grid[:] = 0
        for rows in self._chunks(work):
            z = work.z[: rows.stop - rows.start]
            if not spread.pack(p, rows.start, edge, z.view(np.float32)):
                raise FrameError("gridding: the sinogram is not finite; replace what is not, or flag and floor it before")
            z = fft.fft(z, axis=1, overwrite_x=True)
            if turns is not None:
                spread.recentre(z, turns)
            self._spread(z, response, rows, work.grid)
        self._image(work.grid, out)

    def _spread(self, z: Array, response: Array, rows: slice, grid: Array) -> None:
        from firstlight.operators.spread import spread

        line, flat = z.reshape(len(z), -1).view(np.float32), grid.reshape(-1).view(np.float32)
        spread[z.shape[2]](line, response[rows], self._cos[rows], self._sin[rows], self.side, self._table, flat)

    def _image(self, grid: Array, out: Array) -> None:
        from firstlight.operators.spread import crop

        fold(grid, self.side)
        inner = fft.ifft(grid[PAD:-PAD, PAD:-PAD], axis=0, norm="forward", overwrite_x=True)
        for first, rows, start in self._rows():
            part = fft.ifft(inner[rows], axis=1, norm="forward", overwrite_x=True)
            crop(part.view(np.float32), self._correction, first, start, out)

    def _forward(self, f: Array, response: Array, turns: Array | None, work: _Work, out: Array) -> None:
        from firstlight.operators import spread

        grid, lanes = work.grid, work.z.shape[2]
        inner = grid[PAD:-PAD, PAD:-PAD]
        inner[...] = 0
        real = grid.view(np.float32)[PAD:-PAD, PAD:-PAD]
        for first, rows, start in self._rows():
            spread.embed(f, self._correction, first, start, real[rows])
            fft.fft(inner[rows], axis=1, overwrite_x=True)  # in place: complex64 stays where it is
        fft.fft(inner, axis=0, overwrite_x=True)
        unfold(grid, self.side)
        loop, flat = spread.gather[lanes], grid.reshape(-1).view(np.float32)
        for rows in self._chunks(work):
            z = work.z[: rows.stop - rows.start]
            loop(
                flat,
                response[rows],
                self._cos[rows],
                self._sin[rows],
                self.side,
                self._table,
                z.reshape(len(z), -1).view(np.float32),
            )
            if turns is not None:
                spread.recentre(z, -turns)
            z = fft.ifft(z, axis=1, norm="forward", overwrite_x=True)
            spread.unpack(z.view(np.float32), rows.start, out)

    def _rows(self) -> list[tuple[int, slice, int]]:
        """(first image row, rows of the grid, first column of the grid) of the two parts around the grid's origin."""
        half = self.size // 2
        start = self.side - half
        return [(0, slice(start, self.side), start), (half, slice(0, self.size - half), start)]


def pairs_of(slices: int, most: int = 8) -> int:
    """Pairs of slices that travel together, a power of two."""
    return min(most, 1 << max(0, (-(-slices // 2) - 1).bit_length()))


def workspace(angles: int, columns: int, size: int, slices: int) -> int:
    """Bytes of one thread's workspace and of the tables of a filtered geometry, its waves included."""
    field = max(columns, size)
    width, side = padded(field), grid_side(field, filtered=True)
    tables = 8 * angles * (width // 2 + 1) + 64 * SOME * width + TABLES
    return 8 * sum(_cells(angles, width, side, pairs_of(slices))) + tables


def padded(field: int) -> int:
    """Samples of a padded projection."""
    return 2 * int(fft.next_fast_len(field))


def _cells(angles: int, width: int, side: int, pairs: int) -> tuple[int, int]:
    """Complex numbers in a chunk of projections and in the grid."""
    chunk = max(1, min(angles, CHUNK // (8 * width * pairs)))
    return chunk * width * pairs, (side + 2 * PAD) ** 2 * pairs


def _check(angles: Array, columns: int, size: int, width: int | None, pairs: int, workers: int | None) -> None:
    if angles.ndim != 1 or not np.all(np.isfinite(angles)):
        raise FrameError(f"gridding: angles of shape {angles.shape}, expected a list of finite numbers [rad]")
    if columns < 2 or size < 1 or angles.size < 1:
        raise FrameError(f"gridding: {angles.size} angles, {columns} columns, size {size}; expected at least 1, 2, 1")
    if pairs not in (1, 2, 4, 8) or (workers is not None and workers < 1):
        raise FrameError(f"gridding: {pairs} pairs, {workers} workers; expected 1, 2, 4 or 8 pairs and at least one worker")
    if width is not None and (width % 2 or width < columns):
        raise FrameError(f"gridding: width {width}, expected an even number of at least {columns} columns")


def fold(grid: Array, side: int) -> None:
    """Add the cells beyond the grid to those they stand for."""
    grid[side : side + PAD] += grid[:PAD]
    grid[PAD : 2 * PAD] += grid[side + PAD :]
    grid[:, side : side + PAD] += grid[:, :PAD]
    grid[:, PAD : 2 * PAD] += grid[:, side + PAD :]


def unfold(grid: Array, side: int) -> None:
    """The adjoint of `fold`: copy the edges to the cells beyond."""
    grid[:, :PAD] = grid[:, side : side + PAD]
    grid[:, side + PAD :] = grid[:, PAD : 2 * PAD]
    grid[:PAD] = grid[side : side + PAD]
    grid[side + PAD :] = grid[PAD : 2 * PAD]


def _at(turns: Array | None, part: slice) -> Array | None:
    if turns is None:
        return None
    own = np.asarray(turns, dtype=np.float64)[part]
    return np.append(own, 0.0) if own.size % 2 else own


def _aligned(cells: int) -> Array:
    """Complex64 zeros that start on a cache line: a vector across two lines costs twice."""
    raw = np.zeros(8 * cells + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + 8 * cells].view(np.complex64)
