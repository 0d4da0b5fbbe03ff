"""Which noisy frame belongs to which clean one: proved by what the frames show, or refused with the figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from firstlight import io
from firstlight.dataset import layout
from firstlight.dataset.proof import prove
from firstlight.dataset.rows import Pair, Source
from firstlight.errors import FrameError, ReadError
from firstlight.frame import Frame

__all__ = ["Candidate", "candidates", "check", "pair"]

Tick = Callable[[int, int, str], None]
UNPROVED = "as documented, not proved"


class Candidate(NamedTuple):
    """Two sources that names make a pair of."""

    noisy: Source
    clean: Source


def pair(root: str | Path, sources: Iterable[Source], *, profile: str = "physical", tick: Tick | None = None) -> list[Pair]:
    """Every pair of the sources, in the order of views.

    "physical": each noisy source with each clean one of its view, and each documented claim, proved or refused. "documented":
    one pair a view as names claim, none proved; warns with what is wrong. Raises FrameError for another profile.
    """
    if profile == "documented":
        return _documented(sources)
    if profile != "physical":
        raise FrameError(f"pairs of profile {profile!r}; known: physical, documented")
    found, out = candidates(sources), []
    reader = _Reader(Path(root))
    for i, candidate in enumerate(found):
        if tick:
            tick(i, len(found), candidate.noisy.path)
        out.append(check(root, *candidate, read=reader))
    if tick:
        tick(len(found), len(found), "")
    return out


def candidates(sources: Iterable[Source]) -> list[Candidate]:
    """What names alone make a pair of, sorted so that pairs with one clean frame follow each other."""
    sources = list(sources)
    by_path = {s.path: s for s in sources}
    claims = [Candidate(by_path[n.path], by_path[c.path]) for n, c in _first(layout.documented(sources))]
    every = [Candidate(n, c) for noisy, clean in _views(sources) for n, c in product(noisy, clean)]
    unique = {(c.noisy.path, c.clean.path): c for c in (*every, *claims)}
    return sorted(unique.values(), key=lambda c: (c.noisy.domain, c.clean.view, c.clean.path, c.noisy.path))


def check(root: str | Path, noisy: Source, clean: Source, *, read: Callable[[str], Frame] | None = None) -> Pair:
    """One pair proved or refused, from the two files below `root`; see `proof.prove` for the figures."""
    if noisy.sha256 and noisy.sha256 == clean.sha256:
        return _refused(noisy, clean, "byte-identical files: copies of one image")
    if noisy.shape and clean.shape and noisy.shape != clean.shape:
        sizes = [" x ".join(map(str, s.shape)) for s in (noisy, clean)]
        return _refused(noisy, clean, f"{sizes[0]} px against {sizes[1]} px: not the same pixels")
    read = read or _Reader(Path(root))
    try:
        frames = read(noisy.path), read(clean.path)
    except ReadError as error:
        return _refused(noisy, clean, f"cannot be read: {error}")
    proof = prove(*frames)
    return Pair(noisy.path, clean.path, clean.view, proof.proved, proof.reason, proof.figures)


def _refused(noisy: Source, clean: Source, reason: str) -> Pair:
    return Pair(noisy.path, clean.path, clean.view, False, reason)


class _Reader:
    """Reads frames below a root and keeps the last two, so that a clean frame of many noisy ones is decoded once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: dict[str, Frame] = {}

    def __call__(self, path: str) -> Frame:
        frame = self._kept.pop(path, None) or io.read(self.root / path)
        self._kept[path] = frame
        if len(self._kept) > 2:
            del self._kept[next(iter(self._kept))]
        return frame


def _views(sources: Iterable[Source]) -> Iterator[tuple[list[Source], list[Source]]]:
    """Noisy and clean sources of each view, by path, in the order of views."""
    views: dict[tuple[str, str], tuple[list[Source], list[Source]]] = {}
    for source in sorted(sources, key=lambda s: s.path):
        group = views.setdefault((source.domain, source.view), ([], []))
        if source.data_type in ("noisy", "clean"):
            group[source.data_type == "clean"].append(source)
    for key in sorted(views):
        yield views[key]


def _first(sources: Iterable[Source]) -> list[Candidate]:
    return [Candidate(noisy[0], clean[0]) for noisy, clean in _views(sources) if noisy and clean]


def _documented(sources: Iterable[Source]) -> list[Pair]:
    found = _first(layout.documented(sources))
    reasons = [layout.warning(c.noisy) for c in found]
    for text in dict.fromkeys(filter(None, reasons)):
        warnings.warn(text, UserWarning, stacklevel=3)
    return [
        Pair(n.path, c.path, n.view, False, f"{UNPROVED}: {text}" if text else UNPROVED)
        for (n, c), text in zip(found, reasons, strict=True)
    ]
