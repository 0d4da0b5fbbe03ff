"""Files that appear whole or not at all: written beside their final name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firstlight.errors import WriteError

__all__ = ["beside", "replacing", "writable", "write_text"]


SHORT = "requested and"  # of what numpy says where a file takes a part of an array alone


def beside(path: Path) -> Path:
    """A hidden name in the same folder, with the same suffix, that no other process takes."""
    return path.with_name(f".{os.getpid()}.part.{path.name}")


def writable(path: Path) -> None:
    """Raises WriteError where `path` cannot be written: said before long work. A full disk is found out later."""
    folder = path.parent
    if not folder.is_dir():
        raise WriteError(f"{path}: the folder {folder} does not exist; make it, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{path}: the folder {folder} cannot be written to; make it writable, or name another")
    if path.is_dir():
        raise WriteError(f"{path}: is a folder, expected the name of a file to write")


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
        cause = error.strerror or ("no room for all of it" if SHORT in str(error) else error)
        raise WriteError(f"{path}: cannot be written ({cause}); name a writable file with room") from error
    finally:
        temp.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file (UTF-8); returns its path. Raises WriteError."""
    with replacing(path) as temp:
        temp.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be no text
    return path
