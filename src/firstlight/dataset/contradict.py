"""Labels that the data contradict: a clean image noisier than its noisy one, a pair that does not register, a noise model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from firstlight.dataset.alike import reduced
from firstlight.dataset.listing import Listing, unreadable
from firstlight.dataset.proof import WHITE, Proof, prove
from firstlight.frame import Frame
from firstlight.noise import Noise

__all__ = ["WRONG", "Judged", "NoiseCheck", "Verdict", "judge"]

PER_PAIR = 3  # tiles of one pair of sources looked at
NOISIER = 1.2  # noise of the clean image over that of the noisy one, at one brightness
SURE = 8.0  # confidence of a registration
SHIFT = 1.5  # px
STRUCTURE = 2.0  # detail over noise in a band pass; pure noise: 1.0
WRONG = 2.0  # measured over stated variance of a proved pair of tiles, or its inverse: another gain or read noise
PASSED = 0.128  # of white noise by that band pass: sqrt((1/s^2 + 1/t^2)/(4 pi) - 1/(pi (s^2 + t^2))), s = 2, t = 8 px


class Verdict(NamedTuple):
    """One pair of sources whose labels the data contradict: the entries looked at, why, and the figures."""

    members: list[int]
    kind: str
    reason: str
    figures: dict[str, float]


class NoiseCheck(NamedTuple):
    """Measured variance over the stated one, of a noisy tile and of its clean one; NaN where it is not stated."""

    noisy: float
    clean: float


class Judged(NamedTuple):
    """How many pairs of sources were looked at, how many tell nothing, those that the data contradict, and their noise."""

    pairs: int
    looked_at: int
    open: int
    verdicts: list[Verdict]
    unreadable: list[tuple[str, str]]
    noise: list[NoiseCheck]


def judge(listing: Listing, most: int) -> Judged:
    """The labels of at most `most` pairs of images, spread evenly; of tiles, PER_PAIR of each pair of sources.

    A contradiction needs evidence against the label: two images without clear structure tell nothing. Of tiles, most of those
    looked at must agree.
    """
    sources: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for i, k in listing.pairs:
        sources.setdefault((listing.source[i], listing.source[k]), []).append((i, k))
    every = [sources[k] for k in sorted(sources)]
    room = max(1, most // min(PER_PAIR, max((len(p) for p in every), default=1)))
    taken = [every[j] for j in sorted({round(x) for x in np.linspace(0, len(every) - 1, min(room, len(every)))})]
    failed: list[tuple[str, str]] = []
    noise: list[NoiseCheck] = []
    found = [_pair(listing, tiles, failed, noise) for tiles in taken]
    return Judged(len(every), len(taken), found.count(None), [v for v in found if isinstance(v, Verdict)], failed, noise)


def _pair(
    listing: Listing, tiles: Sequence[tuple[int, int]], failed: list[tuple[str, str]], noise: list[NoiseCheck]
) -> Verdict | bool | None:
    """The verdict of one pair of sources; False where nothing contradicts its labels, None where nothing is told."""
    some = [tiles[round(x)] for x in np.linspace(0, len(tiles) - 1, min(PER_PAIR, len(tiles)))]
    votes: list[Verdict | bool] = []
    for i, k in dict.fromkeys(some):
        noisy, clean = (unreadable(listing.read, n, listing.path[n], failed) for n in (i, k))
        if noisy is not None and clean is not None and (said := _one([i, k], noisy, clean, noise)) is not None:
            votes.append(said)
    against = [v for v in votes if isinstance(v, Verdict)]
    if not votes:
        return None
    return against[0] if 2 * len(against) > len(votes) else False


def _one(members: list[int], noisy: Frame, clean: Frame, noise: list[NoiseCheck]) -> Verdict | bool | None:
    proof = prove(noisy, clean)
    figures = dict(proof.figures)
    checked = _noise(figures, clean)
    if checked is not None:
        noise.append(checked)
    if proof.proved:
        return False
    if checked is not None and not 1 / WRONG < checked.noisy < WRONG:
        said = f"the noise in the noisy one has {checked.noisy:.2g} times the variance that its row states"
        return Verdict(members, "noise", said, figures)
    if noisy.shape != clean.shape:
        return Verdict(members, "unregistered", proof.reason, figures)
    if figures.get("noise_ratio", 0.0) > NOISIER:
        ratio = figures["noise_ratio"]
        return Verdict(members, "noisier", f"the clean image has {ratio:.2f} times the noise of the noisy one", figures)
    return _registration(members, proof, noisy, clean)


def _noise(figures: Mapping[str, float], clean: Frame) -> NoiseCheck | None:
    """What a residual says of the noise that both frames state; None where it is no noise, or none is stated."""
    white = max(abs(figures.get(k, 1.0)) for k in ("lag1_y", "lag1_x")) <= WHITE
    if "chi2" not in figures or not white:
        return None
    mean = np.nanmedian(np.asarray(clean.data, dtype=np.float64), axis=(-2, -1), keepdims=True)
    mean = np.broadcast_to(mean, clean.shape)  # the noise may be a map
    stated = float(np.median(clean.noise.variance(mean))) if isinstance(clean.noise, Noise) else 0.0
    return NoiseCheck(figures["chi2"], figures["noise_clean"] ** 2 / stated if stated > 0 else float("nan"))


def _registration(members: list[int], proof: Proof, noisy: Frame, clean: Frame) -> Verdict | bool | None:
    figures = dict(proof.figures)
    sure = figures.get("confidence", 0.0) >= SURE
    shift = max(abs(figures.get("shift_y", 0.0)), abs(figures.get("shift_x", 0.0)))
    if sure and shift <= SHIFT and "noise_ratio" in figures:
        return False  # refused for another reason than its labels
    if not all(_structured(k) for k in (noisy, clean)):
        return None
    if sure and shift <= SHIFT:
        return None if figures.get("correlation", 1.0) > 0 else Verdict(members, "unregistered", proof.reason, figures)
    return Verdict(members, "unregistered", proof.reason, figures)


def _structured(frame: Frame) -> bool:
    """Whether smooth detail stands out of the noise: the spread of a band pass over what white noise would leave of it."""
    import cv2

    plane = reduced(frame, median=False)
    h, w = (n // 2 * 2 for n in plane.shape)
    a = plane[:h, :w]
    haar = (a[::2, ::2] - a[1::2, ::2] - a[::2, 1::2] + a[1::2, 1::2]) / 2
    noise = 1.4826 * float(np.median(np.abs(haar)))
    detail = cv2.GaussianBlur(plane, (0, 0), 2) - cv2.GaussianBlur(plane, (0, 0), 8)
    return float(detail.std()) > STRUCTURE * PASSED * noise and float(np.ptp(plane)) > 0
