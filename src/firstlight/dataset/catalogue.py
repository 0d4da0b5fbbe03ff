"""The images below a folder as lines of images.csv: what each is, by its bytes and by its own header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import io
from firstlight.dataset.listing import by_cause, few
from firstlight.dataset.manifest import Image, read_images
from firstlight.dataset.scan import images_below, walk
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame, Unit
from firstlight.io.peek import UNDECODED, peek
from firstlight.io.picture import Alpha

__all__ = ["Catalogue", "catalogue", "sampled"]

Tick = Callable[[int, int, str], None]
ID = 12  # hexadecimal digits of the sha1
PIL = {1: "L", 3: "RGB"}  # names of modes as published catalogues have them
_WORD = r"(?i)(?:^|[^a-z0-9])(?:{})(?:[^a-z0-9]|$)"
TELESCOPES = {
    name: re.compile(_WORD.format(words))
    for name, words in (
        ("HST", "hst|hubble"),
        ("JWST", "jwst|webb"),
        ("Spitzer", "spitzer"),
        ("Chandra", "chandra"),
        ("SDSS", "sdss"),
        ("DECam", "decam"),
        ("Euclid", "euclid"),
        ("Gaia", "gaia"),
    )
}
BAND = re.compile(r"(?i)(?:^|[^a-z0-9])(f\d{3,4}(?:lp|[wmnx])|(?:sdss|ps1|des)[_-]([ugrizy]))(?:[^a-z0-9]|$)")


@dataclass(frozen=True)
class Catalogue:
    """The images, sorted by path; (path, cause) of what could not be read; notes: what the names alone said, copies, others."""

    images: tuple[Image, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: counts, unreadable files, notes."""
        bad = [{"path": p, "cause": c} for p, c in self.unreadable]
        return {"images": len(self.images), **self.counts(), "unreadable": bad, "notes": list(self.notes)}

    def counts(self) -> dict[str, dict[str, int]]:
        """How many of each format, mode, size, telescope and band, most first."""
        size = [f"{i.width} x {i.height}" for i in self.images]
        columns = {k: [getattr(i, k) or "unknown" for i in self.images] for k in ("fmt", "mode", "telescope", "band")}
        return {k: dict(Counter(v).most_common()) for k, v in {**columns, "size": size}.items()}

    def text(self, summary: bool = False) -> str:
        """For people: one line, with `summary` the counts, and whatever could not be read."""
        copies = len(self.images) - len({i.sha1 for i in self.images})
        lines = [f"{len(self.images)} images, {sum(i.bytes for i in self.images) / 1e6:.1f} MB, {copies} copies of others"]
        for name, count in self.counts().items() if summary else ():
            lines += ["", name, *(f"  {n:>7}  {what}" for what, n in count.items())]
        lines += ["", *(f"note: {n}" for n in self.notes)] if self.notes else []
        lines += [f"unreadable: {few(paths)}: {cause}" for cause, paths in by_cause(self.unreadable)]
        return "\n".join(lines)


def catalogue(root: str | Path, *, tick: Tick | None = None) -> Catalogue:
    """Every image below `root`, or those of an images.csv. Pixels are decoded only where a format has no header to read alone.

    Raises ReadError where `root` is neither, or holds no image; a file that cannot be read is listed.
    """
    root = Path(root)
    if root.is_file():
        return Catalogue(tuple(read_images(root)))
    paths, shut = walk(images_below(root))
    images, failed, notes = list[Image](), list(shut), list[str]()
    known = [p for p in paths if io.kind(Path(p)) in io.FORMATS]
    for n, path in enumerate(known):
        if tick:
            tick(n, len(known), path)
        try:
            image, said = _image(root, path)
        except (FirstlightError, OSError) as error:
            cause = " ".join(str(getattr(error, "strerror", None) or error).split())
            failed.append((path, cause.removeprefix(f"{root / path}: ")))
            continue
        images.append(image)
        notes += said
    if not images and not failed:
        raise ReadError(f"{root}: holds no image that can be read; expected files such as {', '.join(list(io.FORMATS)[:6])}")
    return Catalogue(tuple(images), tuple(failed), (*notes, *_others(paths, known), *_copies(images)))


def _others(paths: Sequence[str], known: Sequence[str]) -> list[str]:
    rest = Counter(io.kind(Path(p)) or "no extension" for p in set(paths) - set(known))
    kinds = ", ".join(f"{n} {k}" for k, n in sorted(rest.items()))
    return [f"{sum(rest.values())} files are no image that firstlight reads: {kinds}"] if rest else []


def _copies(images: Sequence[Image]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for image in images:
        groups.setdefault(image.sha1, []).append(image.path)
    return [f"{g[0]} has the same bytes as {few(g[1:])}" for g in groups.values() if len(g) > 1]


def _image(root: Path, path: str) -> tuple[Image, list[str]]:
    file = root / path
    raw = file.suffix.lower() in UNDECODED
    frame = None if raw else io.read(file)
    facts = peek(file) if frame is None else None
    shape = facts.shape if facts else frame.shape  # type: ignore[union-attr]
    telescope, band, notes = _named(path, facts.instrument if facts else _text(frame, "instrument"), _text(frame, "band"))
    digest, seen = io.sha1(file), file.stat()
    size = sum(p.stat().st_size for p in file.rglob("*") if p.is_file()) if file.is_dir() else seen.st_size
    return Image(
        id=digest[:ID],
        sha1=digest,
        path=str(file.absolute()),
        filename=file.name,
        fmt=_format(file),
        mode=f"{facts.dtype} mosaic" if facts else _mode(frame),  # type: ignore[arg-type]
        width=shape[-1],
        height=shape[-2],
        channels=1 if frame is None or "C" not in frame.axes else shape[frame.axes.index("C")],
        telescope=telescope,
        band=band,
        bytes=size,
        mtime=datetime.fromtimestamp(seen.st_mtime, UTC).isoformat(timespec="seconds"),
    ), notes + _several(file, path)


def _text(frame: Frame | None, name: str) -> str | None:
    return None if frame is None else getattr(frame.observation, name)


def _several(file: Path, path: str) -> list[str]:
    if io.FORMATS[io.kind(file)] != "fits" or (n := len(io.read_set(file))) < 2:
        return []
    return [f"{path}: holds {n} images, the first is taken; save the others as files of their own"]


def _format(file: Path) -> str:
    name = io.FORMATS[io.kind(file)]
    return {"picture": "PNG" if io.kind(file) == ".png" else "JPEG", "raw": io.kind(file)[1:].upper()}.get(name, name.upper())


def _mode(frame: Frame) -> str:
    """L, LA, RGB or RGBA of a picture, ";16" behind it where it has 16 bits; else the type, with axes beyond C, Y and X."""
    dtype, channels = np.dtype(frame.data.dtype), 1 if frame.axes == "YX" else frame.shape[0]
    if frame.unit is Unit.DISPLAY and frame.axes in ("YX", "CYX") and channels in PIL and dtype in (np.uint8, np.uint16):
        alpha = "A" if isinstance(frame.observation.header, Alpha) else ""
        return f"{PIL[channels]}{alpha}{';16' if dtype == np.uint16 else ''}"
    return dtype.name if frame.axes in ("YX", "CYX") else f"{dtype.name} {frame.axes}"


def _named(path: str, telescope: str | None, band: str | None) -> tuple[str, str, list[str]]:
    """Telescope and band by the header, else by the name, which is told; "" where neither says."""
    scope = next((name for name, word in TELESCOPES.items() if word.search(path)), "")
    found = BAND.search(path)
    colour = (found[2] or found[1].upper()) if found else ""
    notes = [
        f"{path}: {what} {by_name} by its name alone"
        for what, header, by_name in (("telescope", telescope, scope), ("band", band, colour))
        if by_name and not header
    ]
    if band and colour and colour.lower() not in re.split(r"[^a-z0-9']+", band.lower()):
        notes.append(f"{path}: its header says band {band}, its name {colour}: the header's is taken")
    return telescope or scope, band or colour, notes


def sampled(found: Catalogue, count: int, seed: int) -> Catalogue:
    """`count` of the images, drawn without replacement by default_rng(seed), in their own order. Raises FrameError."""
    if not 1 <= count <= len(found.images):
        raise FrameError(f"sample of {count} images, expected 1 to {len(found.images)}")
    kept = sorted(np.random.default_rng(seed).choice(len(found.images), count, replace=False))
    note = f"{count} of {len(found.images)} images drawn with seed {seed}"
    return replace(found, images=tuple(found.images[int(i)] for i in kept), notes=(*found.notes, note))
