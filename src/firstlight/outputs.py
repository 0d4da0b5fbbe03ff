"""Where results go: one goal per source, in the source's format unless told; nothing is made before it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from firstlight import io
from firstlight.errors import FirstlightError, FrameError, WriteError

__all__ = [
    "apart",
    "distinct",
    "each",
    "folder",
    "naming",
    "one_each",
    "placed",
    "spare",
    "stem",
    "target",
    "targets",
    "volume",
]

CAMERA = (".arw", ".raf", ".nef", ".cr2", ".cr3")  # read only: a mosaic is written as DNG


def target(source: Path, out: Path, several: bool, to: str | None = None) -> Path:
    """Where the result of `source` goes: `out` itself, or a file in the folder `out`, in the same format unless told.

    Raises WriteError where `out` is a file or device in a folder's place, or is named like a file of no known format.
    """
    suffix = "." + to.lstrip(".") if to else _suffix(source)
    if not several and out.suffix.lower() in (*io.FORMATS, *io.PACKED) and not out.is_dir():
        return out
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out}: is a file, expected a folder for {'several results' if several else f'a {suffix} file'}")
    if not several and out.suffix[1:].isalpha() and not out.is_dir():
        raise WriteError(
            f"{out}: unknown format {out.suffix}; expected one of {', '.join(io.FORMATS)}, or a folder: make it first"
        )
    return out / (stem(source) + suffix)


def volume(source: Path, out: Path, suffix: str | None) -> Path:
    """Where the volume of the scan `source` goes: `out` itself, or NAME_rec in the folder `out`, as `suffix` (.zarr) says.

    TIFF in a folder is one file a slice. Raises WriteError where `out` is a file in a folder's place, of no known format, or
    of another than `suffix`.
    """
    named = out.suffix.lower()
    if named in io.FORMATS and not (out.is_dir() and named != ".zarr"):
        if suffix is not None and io.FORMATS[named] != io.FORMATS[suffix]:
            raise WriteError(f"{out}: the recipe's output_format is {suffix}; name the output so, or change the recipe")
        return out
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out}: is a file, expected a folder, or the name of a .zarr, .h5 or .tif")
    if named[1:].isalpha() and not out.is_dir():
        raise WriteError(f"{out}: unknown format {named}; expected .zarr, .h5, .tif or recon_#####.tif, or a folder")
    name = f"{stem(source)}_rec" + ("_#####.tif" if suffix == ".tif" else suffix or ".zarr")
    return out / name


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes[-2:] in ([".ome", ".tif"], [".ome", ".tiff"]):
        return ".ome.tif"
    if suffixes[-2:] == [".fits", ".gz"]:
        return ".fits.gz"
    last = io.kind(path)
    return ".dng" if last in CAMERA else last


def targets(sources: Sequence[Path], out: Path, to: str | None = None) -> list[Path]:
    """One goal per source; raises WriteError where two sources of the same name would meet in one folder."""
    goals = [target(p, out, len(sources) > 1, to) for p in sources]
    one_each(goals, sources)
    return goals


def one_each(goals: Sequence[Path], sources: Sequence[Path]) -> None:
    """Raises WriteError where two sources of the same name would meet in one folder."""
    for i, goal in enumerate(goals):
        if goal in goals[:i]:
            twin = sources[goals.index(goal)]
            raise WriteError(f"{goal}: {twin} and {sources[i]} have the same name; write them to different folders")


def stem(path: Path) -> str:
    """A file's name without the extensions of its format."""
    name = path.name
    for suffix in path.suffixes[::-1]:
        if suffix.lower() not in (*io.FORMATS, *io.PACKED, ".ome"):
            break
        name = name[: -len(suffix)]
    return name


def folder(path: Path) -> Path:
    """Make the folder `path`, with its parents; raises WriteError where it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: cannot be made a folder ({error.strerror or error})") from error
    return path


@contextmanager
def placed(goal: Path, out: Path) -> Iterator[None]:
    """The folder `out` stands while a goal in it is written; one made for nothing is removed again."""
    if goal == out:  # a file whose folder the user named
        yield
        return
    new = not out.exists()
    folder(out)
    try:
        yield
    finally:
        if new and not any(out.iterdir()):
            out.rmdir()


def spare(goals: Sequence[Path], *inputs: Sequence[Path]) -> None:
    """Raises WriteError where a goal is one of the inputs, by whatever name."""
    read = {os.path.realpath(p): p for group in inputs for p in group}
    for goal in goals:
        if (twin := read.get(os.path.realpath(goal))) is not None:
            raise WriteError(f"{goal}: would overwrite the input {twin}; choose another name")


def apart(*goals: Path) -> None:
    """Raises WriteError where two results would be one file."""
    named = [os.path.realpath(g) for g in goals]
    for i, goal in enumerate(goals):
        if named[i] in named[:i]:
            raise WriteError(f"{goal}: named for two results, the second would replace the first; name two files")


def distinct(*groups: Sequence[Path]) -> None:
    """Raises FrameError where one file is given twice, by whatever name: its noise would count as independent."""
    seen: dict[str, Path] = {}
    for path in (p for group in groups for p in group):
        twin = seen.setdefault(os.path.realpath(path), path)
        if twin is not path:
            raise FrameError(f"{path}: given twice{'' if twin == path else f', also as {twin}'}; name each exposure once")


def each(files: Sequence[Path], goals: Sequence[Path], work: Callable[[Path, Path], dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per file; where there are several, one that fails is a row with `error` and no output, and the rest goes on."""
    rows = []
    for path, goal in zip(files, goals, strict=True):
        try:
            with naming(path):
                rows.append(work(path, goal))
        except FirstlightError as error:
            if len(files) == 1:
                raise
            rows.append({"input": str(path), "output": None, "error": str(error)})
    return rows


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors say which file they are about."""
    try:
        yield
    except FirstlightError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
