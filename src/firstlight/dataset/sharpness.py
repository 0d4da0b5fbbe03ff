"""Which pictures are sharp: the variance of each one's Laplacian, as a table, and lists of the sharpest."""

from __future__ import annotations

import csv
import io as text_io
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate, io
from firstlight.atomic import replacing, writable, write_text
from firstlight.dataset.remote import PICTURES, RAWS, files_in
from firstlight.errors import FirstlightError, FrameError, ReadError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic

__all__ = ["Sharpness", "laplacian_variance", "sharpness"]

Tick = Callable[[int, int, str], None]
SQLITE = frozenset({".sqlite", ".sqlite3", ".db"})
EVERY = 50  # files, after which the table is written


@dataclass(frozen=True)
class Sharpness:
    """A file's score: its path from the folder on, its size [bytes] and time of change [ns], which tell whether it changed."""

    path: str
    score: float
    bytes: int
    changed: int


def laplacian_variance(frame: Frame) -> float:
    """The variance of the Laplacian of the mean of all colours, [of white]^2; a mosaic is binned to superpixels first.

    Pech-Pacheco et al. 2000. It grows with exposure and with noise, and compares pictures of one kind alone. Raises FrameError
    for another frame than a picture or a raw mosaic, or a raw mosaic without black and white level.
    """
    if isinstance(frame.geometry, Mosaic) and frame.unit is Unit.ADU:
        if frame.observation.saturation is None:
            raise FrameError("sharpness: the raw file states no white level; expected one that does")
        light = calibrate.subtract_offset(frame)
        planes = calibrate.superpixels(light).data / np.min(np.asarray(light.observation.saturation))
    elif frame.unit is Unit.DISPLAY and frame.axes in ("YX", "CYX"):
        data = np.asarray(frame.data)
        planes = data / (np.iinfo(data.dtype).max if data.dtype.kind == "u" else 1.0)
    else:
        raise FrameError(f"sharpness: a frame in {frame.unit} with axes {frame.axes!r}, expected a raw mosaic or a picture")
    from scipy.ndimage import laplace

    grey = planes.mean(axis=0) if planes.ndim == 3 else planes
    return float(np.var(laplace(np.asarray(grey, dtype=np.float32)), dtype=np.float64))


def sharpness(folder: Path, out: Path, *, top: Sequence[int] = (), tick: Tick | None = None) -> list[dict[str, Any]]:
    """Write the scores of every raw file and picture below `folder` to `out`, sharpest first; rows of files.

    out: .csv or .sqlite, a table; .json, {"folder/filename": score} with the table beside it as STEM.csv. top: for each N,
    STEM_topN holds the whole paths of the N sharpest, as lines (.txt) or beside a .json as a list (.json). Files that an
    earlier table holds unchanged are not read again; the table is kept up to date, so that an interrupted run goes on. Files
    that cannot be read have a row with "error". Raises ReadError, WriteError.
    """
    if out.suffix not in SQLITE | {".csv", ".json"} or any(n < 1 for n in top):
        raise WriteError(f"{out}, top {list(top)}: expected a name that ends in .csv, .sqlite or .json, and positive numbers")
    if not folder.is_dir():
        raise ReadError(f"{folder}: no such folder; name one that holds raw files or pictures")
    writable(out)
    paths = files_in(folder, RAWS | PICTURES)
    table = out.with_suffix(".csv") if out.suffix == ".json" else out
    if table != out and out.exists() and not table.exists():
        raise ReadError(f"{out}: its table {table.name} is not beside it; name another file, or remove this one")
    before = {s.path: s for s in _read(table)}
    found, failed = dict[str, Sharpness](), list[dict[str, Any]]()
    try:
        for i, path in enumerate(paths):
            if tick:
                tick(i, len(paths), str(path))
            name = path.relative_to(folder).as_posix()
            try:
                found[name] = _scored(path, name, before.get(name))
            except FirstlightError as error:
                failed.append({"input": str(path), "error": " ".join(str(error).split())})
            if (i + 1) % EVERY == 0:
                _write(table, {**before, **found}.values())
    except BaseException:
        _write(table, {**before, **found}.values())
        raise
    ranked = _write(table, found.values())
    if table != out:
        _write_json(out, {s.path: s.score for s in ranked})
    for n in top:
        lines = [str((folder / s.path).resolve()) for s in ranked[:n]]
        if table != out:
            _write_json(out.with_name(f"{out.stem}_top{n}.json"), lines)
        else:
            write_text(out.with_name(f"{out.stem}_top{n}.txt"), "".join(f"{line}\n" for line in lines))
    rows = [{"input": str(folder / s.path), "output": str(out), "summary": f"{s.score:.4g}", "score": s.score} for s in ranked]
    return [*rows, *failed]


def _scored(path: Path, name: str, before: Sharpness | None) -> Sharpness:
    stat = path.stat()
    if before is not None and (before.bytes, before.changed) == (stat.st_size, stat.st_mtime_ns):
        return before
    try:
        score = laplacian_variance(io.read(path))
    except FrameError as error:
        raise FrameError(f"{path}: {error}") from error
    return Sharpness(name, score, stat.st_size, stat.st_mtime_ns)


def _write_json(out: Path, what: Any) -> None:
    write_text(out, json.dumps(what, indent=1, allow_nan=False) + "\n")


def _write(out: Path, rows: Any) -> list[Sharpness]:
    """The table, sharpest first."""
    ranked = sorted(rows, key=lambda s: (-s.score, s.path))
    names = [f.name for f in fields(Sharpness)]
    if out.suffix == ".csv":
        text = text_io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([names, *map(astuple, ranked)])
        write_text(out, text.getvalue())
        return ranked
    with replacing(out) as temp:
        try:
            with closing(sqlite3.connect(temp)) as base, base:
                base.execute("create table sharpness (path text primary key, score real, bytes integer, changed integer)")
                base.executemany("insert into sharpness values (?, ?, ?, ?)", map(astuple, ranked))
        except sqlite3.Error as error:
            raise WriteError(f"{out}: cannot be written ({error}); name a writable file with room") from error
    return ranked


def _read(out: Path) -> list[Sharpness]:
    """What an earlier run wrote. Raises ReadError for a file of something else, which it would replace."""
    if not out.is_file():
        return []
    try:
        if out.suffix == ".csv":
            with out.open(newline="", encoding="utf-8") as file:
                rows = [(r["path"], float(r["score"]), int(r["bytes"]), int(r["changed"])) for r in csv.DictReader(file)]
        else:
            with closing(sqlite3.connect(out)) as base:
                rows = list(base.execute("select path, score, bytes, changed from sharpness"))
    except (KeyError, ValueError, TypeError, sqlite3.Error) as error:
        raise ReadError(f"{out}: no table of `firstlight sharpness` ({error}); name another file") from error
    return [Sharpness(*row) for row in rows]
