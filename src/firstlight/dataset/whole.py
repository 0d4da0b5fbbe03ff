"""Folders that appear whole or not at all, and the files in them."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.metadata import is_inside
from firstlight.errors import FrameError, WriteError

__all__ = ["copy_maps", "new_folder", "save_tile"]


@contextmanager
def new_folder(dest: str | Path) -> Iterator[Path]:
    """A folder beside `dest` that takes its name where the block ends well, and is removed where it does not.

    Raises WriteError where `dest` holds something already, or the disk refuses.
    """
    dest = Path(dest).absolute()
    temp = dest.with_name(f".{os.getpid()}.part.{dest.name}")
    try:
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise WriteError(f"{dest}: exists and is not empty; choose another folder")
        for left in dest.parent.glob(f".*.part.{escape(dest.name)}"):
            warnings.warn(f"{left}: left by a run that was killed, or that is still at it; remove it if none is", stacklevel=3)
        temp.mkdir(parents=True)
        yield temp
        temp.replace(dest)
    except OSError as error:
        raise WriteError(
            f"{dest}: cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def save_tile(folder: Path, name: str, tile: NDArray[Any]) -> None:
    """Write a tile as `name`, a POSIX path inside `folder`; raises FrameError for a name that leads out of it."""
    path = _inside(folder, name)
    try:
        with path.open("wb") as file:
            np.save(file, tile)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        save_tile(folder, name, tile)


def copy_maps(rows: Iterable[Mapping[str, Any]], source: Path, dest: Path) -> None:
    """Copy the noise maps that the rows name, once each."""
    for name in sorted({row[key] for row in rows for key in ("noise_a", "noise_b") if isinstance(row.get(key), str)}):
        _inside(dest, name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, _inside(dest, name))


def _inside(folder: Path, name: str) -> Path:
    if not is_inside(name):
        raise FrameError(f"tiles: {name!r} leads out of the set's folder; expected a path relative to its JSON")
    return folder / name
