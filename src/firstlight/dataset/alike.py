"""Frames that show the same scene, found by content among many: hashed triplets of local extrema, then registration.

A triplet's hash is made of the offsets between three extrema of a band-passed image and of their signs, so it survives a
shift, a brightness change, noise, and a crop. Images that share several hashes at one offset are candidates; the count of
comparisons follows the count of images, not its square. A candidate is confirmed by the cross-correlation of the two images
over their overlap (`calibrate.measure_shift`). After the landmark triplets of star trackers and of audio search (Wang 2003).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.noise import Unmodelled

__all__ = ["Candidate", "Match", "Print", "band", "candidates", "confirm", "fingerprint", "reduced"]

Array = NDArray[Any]
SCALES = (2.0, 5.0)  # px of the reduced image: the inner width of the two band passes
ALONE = 6.0  # an extremum rules over this many widths about it
CLEAR, FEW = 3.5, 4  # extrema above so many times the noise, where there are so many; else all: a texture has few
NEAREST = 6  # neighbours that it forms triplets with
BIN = 2.0  # widths: how exactly two triplets must agree
VOTES = 3  # triplets that must agree on one offset
CROWD = 48  # images of one triplet compared all with all; of more, with the first of each part
ANCHORS = 3
NEAR = 4  # px: how exactly a candidate's offset is known
# least correlation over the overlap, and in standard errors, for small ones, of one independent value in 7 x 7 px; less
# where many triplets agree already: by chance 12 do not, and noisy images of one scene correlate at 0.3
LEAST, SIGMAS = 0.45, 12.0
MANY, LEAST_OF_MANY, SIGMAS_OF_MANY = 20, 0.3, 6.0
CORRELATED = 7.0
MOST = 1 << 26  # values of a frame that are averaged over its leading axes
LEAST_OVERLAP = 48  # px of the reduced image: less shows too little


class Print(NamedTuple):
    """The triplets of one image: hash (n,) uint64, position (n, 2) int16 [px of the reduced image] of their first corner."""

    hashes: Array
    points: Array


class Candidate(NamedTuple):
    """Images `a` and `b` share `votes` triplets at which b's coordinates + (dy, dx) are a's [px of the reduced images]."""

    a: int
    b: int
    dy: int
    dx: int
    votes: int


class Match(NamedTuple):
    """A confirmed candidate: the shift [px of the reduced images], correlation over the overlap, its share, confidence."""

    dy: float
    dx: float
    correlation: float
    overlap: float
    confidence: float


def reduced(frame: Frame, shrink: int = 1, *, median: bool = True) -> Array:
    """One float32 plane (Y, X) of a frame: leading axes averaged, isolated pixels taken out, binned by `shrink`.

    Of a large stack the middle plane is taken, a mosaic is binned by its period. A 3x3 median takes out hot pixels, which all
    frames of one detector share. Flagged and non-finite pixels take the median's value.
    """
    import cv2

    if prod(frame.shape) > MOST:
        at = tuple(n // 2 for n in frame.shape[:-2])
        frame = frame.crop(Box((*at, 0, 0), (*(i + 1 for i in at), *frame.shape[-2:])))
    data = np.asarray(frame.data, dtype=np.float32)
    if frame.flags is not None:
        flags = np.broadcast_to(np.asarray(frame.flags).astype(np.int64), frame.shape)
        data = np.where(flags & ~int(Flag.SATURATED), np.float32(np.nan), data)
    plane = _mean(data.reshape(-1, *data.shape[-2:]))
    rows, cols = frame.period()
    plane = _binned(plane, rows, cols)
    plane = cv2.medianBlur(np.ascontiguousarray(plane), 3) if median and min(plane.shape) > 2 else plane
    return _binned(plane, shrink, shrink)


def _mean(planes: Array) -> Array:
    known = np.isfinite(planes)
    if known.all():
        return np.asarray(planes.mean(axis=0, dtype=np.float32))
    count = known.sum(axis=0)
    plane = np.where(known, planes, 0).sum(axis=0, dtype=np.float32) / np.maximum(count, 1)
    middle = np.median(plane[count > 0]) if (count > 0).any() else 0.0
    return np.asarray(np.where(count > 0, plane, middle), dtype=np.float32)


def _binned(plane: Array, rows: int, cols: int) -> Array:
    if (rows, cols) == (1, 1) or plane.shape[0] < rows or plane.shape[1] < cols:
        return plane
    h, w = plane.shape[0] // rows, plane.shape[1] // cols
    folded = plane[: h * rows, : w * cols].reshape(h, rows, w, cols)
    return np.asarray(folded.mean(axis=(1, 3), dtype=np.float32))


def fingerprint(small: Array) -> Print:
    """The triplets of a reduced image (Y, X); none for a constant one."""
    parts = [_triplets(*_extrema(small, sigma), sigma, k) for k, sigma in enumerate(SCALES)]
    hashes, points = (np.concatenate(p) for p in zip(*parts, strict=True))
    unique, first = np.unique(hashes, return_index=True)  # a periodic texture repeats its triplets: each counts once
    return Print(unique, points[first])


def _extrema(small: Array, sigma: float) -> tuple[Array, Array]:
    """Positions (n, 2) and signs (n,) of the extrema of a band-passed image that are the strongest about them."""
    import cv2

    none = np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=bool)
    reach = int(ALONE * sigma)
    if min(small.shape) < 2 * reach or not np.ptp(small) > 0:
        return none
    small = (small - small.mean()) / small.std()
    band = cv2.GaussianBlur(small, (0, 0), sigma) - cv2.GaussianBlur(small, (0, 0), 2 * sigma)
    size = np.abs(band)
    top = cv2.dilate(size, np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8))
    noise = float(np.quantile(size, 0.25)) / 0.3186  # the quiet quarter: where there is little but noise
    best = (size == top) & (size > 1e-6)
    if np.count_nonzero(clear := best & (size > CLEAR * noise)) >= FEW:
        best = clear
    edge = int(sigma)
    best[:edge], best[-edge:], best[:, :edge], best[:, -edge:] = False, False, False, False
    at = np.argwhere(best).astype(np.int32)
    return at, band[at[:, 0], at[:, 1]] > 0


def _triplets(at: Array, positive: Array, sigma: float, scale: int) -> tuple[Array, Array]:
    from scipy.spatial import cKDTree

    count = min(NEAREST, len(at) - 1)
    if count < 2:
        return np.zeros(0, dtype=np.uint64), np.zeros((0, 2), dtype=np.int16)
    _, near = cKDTree(at).query(at, k=count + 1)
    offset = at[near[:, 1:]] - at[:, None]  # (n, count, 2)
    code = np.floor(offset / (BIN * sigma)).astype(np.int64) & 0x3FF
    code = (code[..., 0] << 11) | (code[..., 1] << 1) | positive[near[:, 1:]]
    i, j = np.triu_indices(count, 1)
    low, high = np.minimum(code[:, i], code[:, j]), np.maximum(code[:, i], code[:, j])
    own = (np.int64(scale) << 1) | positive[:, None].astype(np.int64)
    hashes = ((own << 42) | (high << 21) | low).astype(np.uint64)
    return hashes.ravel(), np.repeat(at, len(i), axis=0).astype(np.int16)


def candidates(prints: Sequence[Print], parts: Sequence[int], groups: Sequence[int]) -> list[Candidate]:
    """Pairs of images in different `parts` and different `groups` that share triplets at one offset, best first.

    parts: the split each image is in; groups: what is known to belong together already (a scene), negative where unknown.
    Where more than CROWD images share a triplet, each is compared with the first ANCHORS of every other part.
    """
    if not prints:
        return []
    image = np.repeat(np.arange(len(prints), dtype=np.int32), [len(p.hashes) for p in prints])
    hashes, points = np.concatenate([p.hashes for p in prints]), np.concatenate([p.points for p in prints])
    order = np.lexsort((image, hashes))
    hashes, image, points = hashes[order], image[order], points[order]
    part, group = np.asarray(parts, dtype=np.int16)[image], np.asarray(groups, dtype=np.int32)[image]
    keys, offsets = [], []
    for first, second in _together(hashes, part):
        keep = (group[first] != group[second]) | (group[first] < 0)
        left, right = first[keep], second[keep]
        offset = points[left] - points[right]
        cell = (offset.astype(np.int64) + 4 >> 3) + 2048
        keys.append((((image[left].astype(np.int64) << 20) | image[right]) << 24) | (cell[:, 0] << 12) | cell[:, 1])
        offsets.append(offset)
    return _agreed(np.concatenate(keys), np.concatenate(offsets)) if keys else []


def _together(hashes: Array, part: Array) -> Iterator[tuple[Array, Array]]:
    """Index pairs (left < right) into the sorted table that share a hash and lie in different parts, some at a time."""
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
    lengths = np.diff(np.r_[starts, len(hashes)])
    for gap in range(1, CROWD):
        runs = (lengths > gap) & (lengths <= CROWD)
        if not runs.any():
            break
        here = _ranges(starts[runs], lengths[runs] - gap)
        here = here[part[here] != part[here + gap]]
        yield here, here + gap
    for start, length in zip(starts[lengths > CROWD], lengths[lengths > CROWD], strict=True):
        run = np.arange(start, start + length)
        heads = np.concatenate([run[part[run] == p][:ANCHORS] for p in np.unique(part[run])])
        a, b = (k.ravel() for k in np.meshgrid(heads, run, indexing="ij"))
        differ = part[a] != part[b]
        yield np.minimum(a, b)[differ], np.maximum(a, b)[differ]


def _ranges(starts: Array, lengths: Array) -> Array:
    """arange(s, s + n) of each start and length, joined."""
    ends = np.cumsum(lengths)
    return np.asarray(np.arange(ends[-1]) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths))


def _agreed(key: Array, offset: Array) -> list[Candidate]:
    """The offset of each pair of images on which most votes agree, where at least VOTES do; best first.

    key: (image a, image b, cell of the offset) packed as 20, 20, 24 bits.
    """
    ordered = np.sort(key)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=np.int64)
    votes = np.diff(np.r_[starts, len(ordered)])
    unique, votes = ordered[starts[votes >= VOTES]], votes[votes >= VOTES]
    if not len(unique):
        return []
    where = np.searchsorted(unique, key).clip(max=len(unique) - 1)
    hit = unique[where] == key
    mean = [np.bincount(where[hit], offset[hit, k], len(unique)) / votes for k in (0, 1)]
    pair = unique >> 24
    order = np.lexsort((unique, -votes, pair))
    best = order[np.r_[True, pair[order][1:] != pair[order][:-1]]]
    best = best[np.lexsort((unique[best], -votes[best]))]
    return [
        Candidate(int(pair[k] >> 20), int(pair[k] & 0xFFFFF), round(mean[0][k]), round(mean[1][k]), int(votes[k])) for k in best
    ]


def band(small: Array) -> Array:
    """The detail of a reduced image, int8: band-passed, in tenths of the noise of its quiet parts, clipped at 12 sigma."""
    import cv2

    passed = cv2.GaussianBlur(small, (0, 0), SCALES[0]) - cv2.GaussianBlur(small, (0, 0), 4 * SCALES[0])
    noise = float(np.quantile(np.abs(passed), 0.25)) / 0.3186
    return np.asarray(np.clip(np.rint(passed / max(noise, 1e-12) * 10), -120, 120), dtype=np.int8)


def confirm(first: Array, second: Array, found: Candidate) -> Match | None:
    """Whether two bands agree where they overlap once `second` is moved as the candidate says; None where not."""
    from firstlight.calibrate import measure_shift

    dy, dx = found.dy, found.dx
    overlap = [(max(0, d), min(n, m + d)) for d, n, m in zip((dy, dx), first.shape, second.shape, strict=True)]
    height, width = (b - a for a, b in overlap)
    if min(height, width) < LEAST_OVERLAP:
        return None
    one = first[overlap[0][0] : overlap[0][1], overlap[1][0] : overlap[1][1]].astype(np.float32)
    two = second[overlap[0][0] - dy : overlap[0][1] - dy, overlap[1][0] - dx : overlap[1][1] - dx].astype(np.float32)
    r = max(_correlation(cut(one), cut(two)) for cut in (_clipped, _standing_out))
    least, sigmas = (LEAST_OF_MANY, SIGMAS_OF_MANY) if found.votes >= MANY else (LEAST, SIGMAS)
    if r < max(least, sigmas * CORRELATED / np.sqrt(height * width)):
        return None
    frames = [Frame(k, "YX", Unit.ARBITRARY, Unmodelled("band-passed")) for k in (one, two)]
    try:
        rest = measure_shift(*frames, upsample=2)
    except FrameError:  # no structure
        return None
    if max(abs(rest.dy), abs(rest.dx)) > NEAR:
        return None
    return Match(dy + rest.dy, dx + rest.dx, r, height * width / min(first.size, second.size), rest.confidence)


def _correlation(one: Array, two: Array) -> float:
    """The best correlation of two images for shifts of up to NEAR px."""
    import cv2

    inner = two[NEAR:-NEAR, NEAR:-NEAR]
    if not (np.ptp(inner) > 0 and np.ptp(one) > 0):
        return 0.0
    found = cv2.matchTemplate(one, np.ascontiguousarray(inner), cv2.TM_CCOEFF_NORMED)
    return float(found[np.isfinite(found)].max(initial=0.0))


def _clipped(detail: Array) -> Array:
    """Clipped, so that one bright star does not decide alone."""
    top = 2 * float(np.quantile(np.abs(detail), 0.9))
    return np.clip(detail, -top, top)


def _standing_out(detail: Array) -> Array:
    """What exceeds 3 sigma, at most 6: a faint star counts as much as a bright one, and noise not at all."""
    return np.asarray(np.sign(detail) * np.clip(np.abs(detail) - 30, 0, 30))
