"""The table of formats, and what a file is by its name and by its first bytes."""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from firstlight.errors import FirstlightError, ReadError

__all__ = ["FORMATS", "PACKED", "checked", "kind", "module_of", "slices_of"]

FORMATS: dict[str, str] = {
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".fz": "fits",
    ".mrc": "mrc",
    ".mrcs": "mrc",
    ".map": "mrc",
    ".rec": "mrc",
    ".st": "mrc",
    ".dv": "mrc",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".arw": "raw",
    ".raf": "raw",
    ".dng": "raw",
    ".nef": "raw",
    ".cr2": "raw",
    ".cr3": "raw",
    ".h5": "hdf",
    ".hdf5": "hdf",
    ".hdf": "hdf",
    ".nxs": "hdf",
    ".zarr": "zarr",
    ".npy": "npy",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".avif": "avif",
    ".jxl": "jxl",
}
SLICES = re.compile(r"#{3,}[^#]*\.tiff?$", re.IGNORECASE)  # recon_#####.tif: one file a slice
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}  # a suffix before these counts: .fits.gz
# kind by its first bytes, and the modules that read that kind (camera raw files are TIFF inside)
_MAGIC: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", ("picture",)),
    (b"\xff\xd8\xff", "JPEG", ("picture",)),
    (b"II*\0", "TIFF", ("tiff", "raw")),
    (b"MM\0*", "TIFF", ("tiff", "raw")),
    (b"II+\0", "BigTIFF", ("tiff",)),
    (b"MM\0+", "BigTIFF", ("tiff",)),
    (b"\x89HDF\r\n\x1a\n", "HDF5", ("hdf",)),
    (b"SIMPLE  =", "FITS", ("fits",)),
    (b"\x93NUMPY", "NPY", ("npy",)),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw", ("raw",)),
    (b"PK\x03\x04", "ZIP", ("zarr",)),
    (b"%PDF", "PDF", ()),
    (b"GIF8", "GIF", ()),
)
_PACKED_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2"}


def kind(path: Path) -> str:
    """The suffix that names the format, in lower case: ".map" for "a.MAP.gz", "" where there is none."""
    return next((s for s in (s.lower() for s in path.suffixes[::-1]) if s not in PACKED), "")


def module_of(path: Path, error: type[FirstlightError]) -> Any:
    """The module of a path's format; raises `error` for an unknown one."""
    name = "slices" if slices_of(path) else FORMATS.get(kind(path))
    if name is None:
        raise error(f"{path}: unknown format {path.suffix or '(no extension)'}; expected one of {', '.join(FORMATS)}")
    return import_module(f"firstlight.io.{name}")


def slices_of(path: Path) -> bool:
    """Whether a name stands for one file a slice: it ends in ###.tif (three or more) and no file has that very name."""
    return SLICES.search(path.name) is not None and not path.exists() and not path.is_symlink()


def checked(path: Path, module: Any) -> None:
    """Raises ReadError where a file's first bytes say that it is something else than its name says."""
    if path.is_dir() or slices_of(path):
        return
    with path.open("rb") as f:
        head = f.read(16)
    for magic, suffix in _PACKED_MAGIC.items():
        if head.startswith(magic):
            if path.suffix.lower() == suffix:
                return
            raise ReadError(f"{path}: is compressed ({suffix}) by its first bytes but named {path.suffix}; add {suffix}")
    name = module.__name__.rpartition(".")[2]
    for magic, kind, readers in _MAGIC:
        if head.startswith(magic) and name not in readers:
            raise ReadError(f"{path}: is a {kind} file by its first bytes but named {path.suffix}; rename it to what it is")
