"""The images of a listing compared by content: which of them, though in different splits, show one scene."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.alike import Candidate, Match, Print, band, candidates, confirm, fingerprint, reduced
from firstlight.dataset.listing import Listing, unreadable

__all__ = ["Content", "Groups", "chosen", "compare"]

AREA = 1 << 16  # px that an image is reduced to, about
FRUITLESS = 1000  # candidates refused before the search ends, and four more for each image


class Content(NamedTuple):
    """Groups of entries that show one scene, with the matches that say so; what was compared, what could not be."""

    groups: list[tuple[list[int], list[tuple[int, int, Match]]]]
    compared: int
    blank: int
    refused: int
    untried: int
    shrink: int
    unreadable: list[tuple[str, str]]


class Groups:
    """Entries joined into groups, as a forest."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def of(self, i: int) -> int:
        """The group's representative."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one group of two."""
        a, b = sorted((self.of(i), self.of(j)))
        self._parent[b] = a


def chosen(listing: Listing, most: int) -> list[int]:
    """At most `most` entries that have a split: of every source its middle tile first, clean before noisy, all scenes alike."""
    where = [i for i, s in enumerate(listing.split) if s]
    if len(where) <= most:
        return where
    rank = _rank_in_source(listing, where)
    turn: dict[tuple[str, str], int] = {}
    keyed = []
    for i in sorted(where, key=lambda i: (rank[i], listing.data_type[i] != "clean", listing.path[i])):
        scene = (listing.split[i], listing.scene[i] or listing.source[i])
        turn[scene] = turn.get(scene, -1) + 1
        keyed.append((turn[scene], rank[i], listing.path[i], i))
    return sorted(i for *_, i in sorted(keyed)[:most])


def _rank_in_source(listing: Listing, where: Sequence[int]) -> dict[int, int]:
    """The place of each entry among those of its source, from the middle of the image outwards."""
    if listing.corner is None:
        return dict.fromkeys(where, 0)
    source = np.unique(np.array(listing.source, dtype=object)[where].astype(str), return_inverse=True)[1]
    corner = listing.corner[where].astype(float)
    count = np.bincount(source)
    middle = np.stack([np.bincount(source, corner[:, k]) / count for k in (0, 1)], axis=1)
    far = np.square(corner - middle[source]).sum(axis=1)
    order = np.lexsort((corner[:, 1], corner[:, 0], np.rint(far), source))
    starts = np.cumsum(count) - count
    rank = np.empty(len(where), dtype=int)
    rank[order] = np.arange(len(where)) - starts[source[order]]
    return dict(zip(where, rank.tolist(), strict=True))


def compare(listing: Listing, most: int, tick: Any = None) -> Content:
    """Groups of images of one scene that lie in different splits, found among at most `most` images.

    Images that share a scene by name are not compared: the name says it. Cost follows the number of images; one reduced copy
    of each, about 64 kB, is held.
    """
    where = chosen(listing, most)
    prints, bands, failed, shrink, blank = _taken(listing, where, tick)
    names = {name: k for k, name in enumerate(dict.fromkeys(listing.scene)) if name}
    parts = list(dict.fromkeys(listing.split))
    found = candidates(prints, [parts.index(listing.split[i]) for i in where], [names.get(listing.scene[i], -1) for i in where])
    joined, matches, refused, untried = _confirmed(found, bands)
    groups: dict[int, tuple[set[int], list[tuple[int, int, Match]]]] = {}
    for a, b, match in matches:
        members, evidence = groups.setdefault(joined.of(a), (set(), []))
        members |= {where[a], where[b]}
        evidence.append((where[a], where[b], match))
    return Content(
        [(sorted(m), e) for _, (m, e) in sorted(groups.items())],
        len(where) - len(failed),
        blank,
        refused,
        untried,
        shrink,
        failed,
    )


def _taken(
    listing: Listing, where: Sequence[int], tick: Any
) -> tuple[list[Print], list[NDArray[np.int8]], list[tuple[str, str]], int, int]:
    prints, bands, shrink, blank = [], [], 0, 0
    failed: list[tuple[str, str]] = []
    for n, i in enumerate(where):
        if tick:
            tick(n, len(where), listing.path[i])
        frame = unreadable(listing.read, i, listing.path[i], failed)
        small = np.zeros((1, 1), dtype=np.float32)
        if frame is not None:
            plain = reduced(frame)
            # one factor for all, from the first: images of one scale can then overlap
            shrink = shrink or max(1, ceil(sqrt(plain.size / AREA) - 0.5))
            # a much larger image is no other's overlap, and must not fill memory
            own = max(shrink, ceil(sqrt(plain.size / (8 * AREA))))
            small = reduced(frame, own) if own > 1 else plain
        blank += frame is not None and not np.ptp(small) > 0
        prints.append(fingerprint(small))
        bands.append(band(small) if min(small.shape) > 1 else np.zeros((1, 1), dtype=np.int8))
    if tick:
        tick(len(where), len(where), "")
    return prints, bands, failed, max(shrink, 1), blank


def _confirmed(
    found: Sequence[Candidate], bands: Sequence[NDArray[np.int8]]
) -> tuple[Groups, list[tuple[int, int, Match]], int, int]:
    """The candidates that hold, best first, the counts of refused and of untried; what is one group already is passed over."""
    joined, refused = Groups(len(bands)), 0
    matches: list[tuple[int, int, Match]] = []
    for n, one in enumerate(found):
        if refused > FRUITLESS + 4 * len(bands):
            return joined, matches, refused, len(found) - n
        if joined.of(one.a) == joined.of(one.b):
            continue
        match = confirm(bands[one.a], bands[one.b], one)
        if match is None:
            refused += 1
            continue
        joined.join(one.a, one.b)
        matches.append((one.a, one.b, match))
    return joined, matches, refused, 0
