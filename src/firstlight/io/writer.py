"""An output being written block by block: what every format's writer has in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from firstlight.box import Box
from firstlight.errors import FirstlightError, WriteError

__all__ = ["Format", "Writer", "writing"]


class Format(Protocol):
    """What a format module's `create` returns."""

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""

    def close(self) -> None:
        """Finish and rename to the final name."""

    def abort(self) -> None:
        """Remove what was written."""


class Writer:
    """An output being written block by block; a context manager that commits on success and removes itself on failure.

    chunks: sides of the blocks that the format stores as one, which threads may put at once; None where it has none. What
    goes wrong is a WriteError that names the file.
    """

    def __init__(self, path: Path, output: Format) -> None:
        self.chunks: tuple[int, ...] | None = getattr(output, "chunks", None)
        self._path, self._output = path, output

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""
        with writing(self._path):
            self._output.put(box, block, std)

    def close(self) -> None:
        """Finish and rename to the final name; where that fails, remove what was written."""
        try:
            with writing(self._path):
                self._output.close()
        except BaseException:
            self._output.abort()
            raise

    def abort(self) -> None:
        """Remove what was written."""
        self._output.abort()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.abort() if kind else self.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line that names the file and the cause."""
    try:
        yield
    except FirstlightError:
        raise
    except Exception as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise WriteError(f"{path}: cannot be written ({cause or type(error).__name__})") from error
