"""An output being written block by block: what every format's writer has in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from firstlight.box import Box
from firstlight.errors import FirstlightError, WriteError
from firstlight.io.partial import Partial
from firstlight.io.storage import along, ends, pieces, rounded, whole_section

__all__ = ["Format", "Writer", "writing"]


class Format(Protocol):
    """What a format module's `create` returns; one that can be resumed has `flush(box)` and `keep()` besides."""

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""

    def close(self) -> None:
        """Finish and rename to the final name."""

    def abort(self) -> None:
        """Remove what was written."""


class Writer:
    """An output being written block by block; a context manager that commits on success.

    On failure it removes itself, or, where it can be resumed, leaves the sections done for the next run. What goes wrong is a
    WriteError that names the file.

    chunks: sides of the blocks that the format stores as one, which threads may put at once; None where it has none.
    axis: the axis that sections divide. done: the boxes that an earlier run and this one have put.
    """

    def __init__(
        self,
        path: Path,
        output: Format,
        axes: str,
        shape: tuple[int, ...],
        bits: int | None = None,
        partial: Partial | None = None,
    ) -> None:
        self.chunks: tuple[int, ...] | None = getattr(output, "chunks", None)
        self.axis, self.shape = along(axes), shape
        self._path = path
        self._output: Any = output
        self._bits = bits
        self._partial = partial if partial and partial.journal else None

    @property
    def done(self) -> frozenset[Box]:
        """Sections on disk; always empty where the output cannot be resumed."""
        return frozenset(self._partial.journal.done) if self._partial and self._partial.journal else frozenset()

    def has(self, box: Box) -> bool:
        """Whether the sections done cover a box."""
        there = np.zeros(self.shape[self.axis], dtype=bool)
        for part in self.done:
            there[part.slices[self.axis]] = True
        return bool(there[box.slices[self.axis]].all())

    def sections(self, step: int) -> list[Box]:
        """Boxes of about `step` slices (of a scan: rows), cut where chunks end."""
        depth = self.chunks[self.axis] if self.chunks else 1
        return pieces(self.shape, self.axis, -(-step // depth) * depth)

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one.

        Where the output can be resumed, raises WriteError for a box that is no whole section.
        """
        self._whole(box)
        with writing(self._path, self._kept):
            self._output.put(box, block if self._bits is None else rounded(block, self._bits), std)
            if self._partial and self._partial.journal:
                self._output.flush(box)
                self._partial.journal.add(box)

    def _whole(self, box: Box) -> None:
        if not self._partial:
            return
        depth = tuple(c if i == self.axis else 1 for i, c in enumerate(self.chunks or self.shape))
        if not whole_section(box, self.shape, self.axis) or (self.chunks and not ends(box, self.shape, depth)):
            raise WriteError(
                f"{self._path}: a block {box.start}..{box.stop} of a resumable output of {self.shape}, expected whole sections "
                f"along axis {self.axis}, cut at multiples of {depth[self.axis] if self.chunks else 1}"
            )

    @property
    def _kept(self) -> str:
        return f"; {self._partial.temp.parent} keeps what is done: run again to go on" if self._partial else ""

    def close(self) -> None:
        """Finish and rename to the final name; where that fails, remove (resumable: keep) what was written."""
        try:
            if self._partial and not self.has(Box.whole(self.shape)):
                raise WriteError(f"{self._path}: closed before all its sections were put{self._kept}")
            with writing(self._path, self._kept):
                self._output.close()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Stop here: a resumable output stays for another run, any other is removed."""
        self._output.keep() if self._partial else self._output.abort()

    def abort(self) -> None:
        """Remove what was written."""
        self._output.abort()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.leave() if kind else self.close()


@contextmanager
def writing(path: Path, kept: str = "") -> Iterator[None]:
    """Whatever goes wrong inside becomes one line that names the file and the cause."""
    try:
        yield
    except FirstlightError:
        raise
    except Exception as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise WriteError(f"{path}: cannot be written ({cause or type(error).__name__}){kept}") from error
