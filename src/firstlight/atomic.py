"""Files that appear whole or not at all: written beside their final name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firstlight.errors import WriteError

__all__ = ["beside", "replacing", "write_text"]


def beside(path: Path) -> Path:
    """A hidden name in the same folder, with the same suffix, that no other process takes."""
    return path.with_name(f".{os.getpid()}.part.{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write: renamed to `path` where the block ends well, removed where it does not.

    Raises WriteError naming `path` and the cause where the system refuses.
    """
    temp = beside(path)
    try:
        yield temp
        temp.replace(path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error}); name a writable file") from error
    finally:
        temp.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file (UTF-8); returns its path. Raises WriteError."""
    with replacing(path) as temp:
        temp.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be no text
    return path
