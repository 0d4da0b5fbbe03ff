"""Are these two frames one view, once noisy and once clean? Registration, brightness relation and residual say so, or not.

Model: noisy = scale clean + offset + noise, both noises independent. With H a filter that differs pixels (Haar's diagonal
detail, gain 1 for white noise), noise of each follows without any flat region: what both share is the scene,
    var(noisy) = <Hn Hn> - scale <Hn Hc>,    var(clean) = <Hc Hc> - <Hn Hc> / scale.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.calibrate.register import Shift, measure_shift
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.noise import Noise

__all__ = ["Proof", "prove"]

Array = NDArray[Any]
LIMITS = (1 << 18, 1 << 20)  # pixels looked at in a plane: the second where the first do not prove it
BLOCKS = 4  # of a plane that holds more
STEPS, FEW = 20, 4  # of registration, per pixel of a block and of a quarter of it
CONFIDENCE = 8.0  # of registration; two frames of pure noise stay below about 6
SHIFT = 0.5  # px; beyond it a whole-pixel shift would register better
LEVEL = 0.15  # of a mosaic's period, what registration of binned periods can tell, where that is more
FLOOR, RELATED = 0.5, 0.9  # correlation of the means of cells: as it stands, and with their noise taken out
BIN = 8  # px, a cell's side; doubled while noise hides the relation
BENT = 0.03  # deviation from a straight line over the range of brightness
FACTOR = 2.0  # between the scale found and that of the exposures
QUIETER = 0.9  # noise of the clean frame, scaled, over that of the noisy one
WHITE = 0.15  # lag-1 correlation of the residual
CHI2 = (0.8, 1.25)  # where the noise is modelled
TILE = 16  # px of one colour, a piece whose noise is measured


@dataclass(frozen=True)
class Proof:
    """Whether a pair is proved, or the `reason` why not; figures: see `prove`."""

    proved: bool
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)


class _Piece(NamedTuple):
    """One block of both frames: (positions, Y, X) with one position per pixel of the CFA's period, 1 without a mosaic."""

    noisy: Array
    clean: Array
    good: Array
    frames: tuple[Frame, Frame]
    moments: tuple[Array, Array, Array]  # of each tile: <Hn Hn>, <Hc Hc>, <Hn Hc>


class _Refused(Exception):
    """A pair that fails; the message is the reason."""


def prove(noisy: Frame, clean: Frame) -> Proof:
    """Prove that two frames show one view, the second with less noise; blocks of large frames are looked at.

    figures: shift_y, shift_x [px], confidence; scale, offset of noisy = scale clean + offset, expected_scale of the exposures;
    correlation of cell means, bend; noise_noisy, noise_clean [units of each], noise_ratio (clean's, scaled, over noisy's);
    lag1_y, lag1_x of the residual; chi2 of the residual where the noisy frame's noise is known.
    """
    try:
        _comparable(noisy, clean)
    except _Refused as error:
        return Proof(False, str(error))
    found = Proof(True)
    for name, n, c in _channels(noisy, clean):
        found = _tried(n, c)
        if not found.proved:
            return Proof(False, f"{name}{found.reason}", found.figures)
    return found


def _tried(noisy: Frame, clean: Frame) -> Proof:
    boxes: list[Box] = []
    out = Proof(False)
    for limit in LIMITS:
        if (more := _boxes(clean, limit)) != boxes and not out.proved:
            boxes = more
            figures: dict[str, float] = {}
            try:
                _prove([_piece(noisy, clean, box) for box in boxes], figures)
                out = Proof(True, "", _rounded(figures))
            except _Refused as error:
                out = Proof(False, str(error), _rounded(figures))
    return out


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {k: float(f"{v:.6g}") for k, v in figures.items() if np.isfinite(v)}


def _comparable(noisy: Frame, clean: Frame) -> None:
    sizes = [" x ".join(map(str, f.shape)) for f in (noisy, clean)]
    if noisy.shape != clean.shape or noisy.axes != clean.axes:
        raise _Refused(f"{sizes[0]} px ({noisy.axes}) against {sizes[1]} px ({clean.axes}): not the same pixels")
    a, b = (f.geometry.cell() if isinstance(f.geometry, Mosaic) else np.zeros((1, 1)) for f in (noisy, clean))
    if not np.array_equal(a, b):
        raise _Refused("their colour filter arrays have another pattern or phase")
    if min(noisy.shape[-2:]) < 4 * TILE * noisy.period()[0] / 2:
        raise _Refused(f"{sizes[0]} px: too small to prove anything")


def _channels(noisy: Frame, clean: Frame) -> list[tuple[str, Frame, Frame]]:
    if "C" not in noisy.axes:
        return [("", noisy, clean)]
    at, out = noisy.axes.index("C"), []
    for c in range(noisy.shape[at]):
        box = Box(
            tuple(c if i == at else 0 for i in range(len(noisy.shape))),
            tuple(c + 1 if i == at else n for i, n in enumerate(noisy.shape)),
        )
        out.append((f"channel {c}: " if noisy.shape[at] > 1 else "", noisy.crop(box), clean.crop(box)))
    return out


def _prove(pieces: list[_Piece], figures: dict[str, float]) -> None:
    if all(np.array_equal(p.noisy, p.clean) for p in pieces):
        raise _Refused("both hold the same numbers: copies of one image")
    _registered(pieces, figures)
    scale, offset = _related(pieces, figures)
    _exposed(*pieces[0].frames, scale, figures)
    _quieter(figures)
    _residual(pieces, scale, offset, figures)


def _boxes(frame: Frame, limit: int) -> list[Box]:
    """The whole plane, first and last of a stack, of small frames; of large ones the blocks with most structure."""
    lead, (h, w) = frame.shape[:-2], frame.shape[-2:]
    every = list(product(*(range(n) for n in lead)))
    corners = [(0, 0, h, w)] if h * w <= limit else _corners(frame, every[0], limit)
    chosen = list(dict.fromkeys((every[0], every[-1])))
    return [Box((*i, y, x), (*(k + 1 for k in i), y + high, x + wide)) for i in chosen for y, x, high, wide in corners]


def _corners(frame: Frame, plane: tuple[int, ...], limit: int) -> list[tuple[int, int, int, int]]:
    """Blocks on the mosaic's period, by the spread of a thinned-out plane, its brightest thousandth set back."""
    (h, w), (py, px) = frame.shape[-2:], frame.period()
    side = int((limit / BLOCKS) ** 0.5)
    high, wide = (min(n // p * p, side // p * p) for n, p in ((h, py), (w, px)))
    step = (8 * py, 8 * px)
    thin = np.asarray(frame.data[(*plane, slice(None, None, step[0]), slice(None, None, step[1]))], dtype=np.float64)
    thin = np.minimum(thin, np.nanquantile(thin, 0.999))
    found = []
    for y, x in product(range(0, h - high + 1, high), range(0, w - wide + 1, wide)):
        part = thin[-(-y // step[0]) : (y + high) // step[0], -(-x // step[1]) : (x + wide) // step[1]]
        found.append((-float(np.nanstd(part)) if np.isfinite(part).any() else 0.0, y, x))
    return [(y, x, high, wide) for _, y, x in sorted(found)[:BLOCKS]]


def _piece(noisy: Frame, clean: Frame, box: Box) -> _Piece:
    frames = noisy.crop(box), clean.crop(box)
    n, c = (np.asarray(f.data, dtype=np.float32).reshape(f.shape[-2:]) for f in frames)
    good = _usable(frames[0], n) & _usable(frames[1], c)
    n, c, good = (_positions(k, noisy.period()) for k in (n, c, good))
    return _Piece(n, c, good, frames, _moments(n, c, good))


def _usable(frame: Frame, plane: Array) -> Array:
    """Finite, unflagged, below saturation, and not at an end of the range where values pile up."""
    good = np.isfinite(plane)
    if frame.flags is not None:
        good &= np.broadcast_to(np.asarray(frame.flags), frame.shape).reshape(plane.shape) == 0
    if not good.any():
        return good
    for end in (plane[good].min(), plane[good].max()):
        if np.count_nonzero(plane == end) > max(8, 1e-4 * plane.size):
            good &= plane != end
    if frame.observation.saturation is not None:
        good &= plane < 0.98 * float(np.min(frame.observation.saturation))
    return good


def _positions(plane: Array, period: tuple[int, int]) -> Array:
    """(Y, X) as (position in the period, Y / rows, X / cols)."""
    (py, px), (h, w) = period, (n // p for n, p in zip(plane.shape, period, strict=True))
    cut = plane[: h * py, : w * px].reshape(h, py, w, px)
    return cut.transpose(1, 3, 0, 2).reshape(py * px, h, w)


def _registered(pieces: list[_Piece], figures: dict[str, float]) -> None:
    """Every block, or quarter of a whole plane, that shows enough must lie within the limit: rotation and scale show there."""
    found = [_shift(*p.frames, STEPS) for p in pieces]
    best = max(found, key=lambda s: s.confidence)
    figures |= {"shift_y": best.dy, "shift_x": best.dx, "confidence": best.confidence}
    if best.confidence < CONFIDENCE:
        raise _Refused(
            f"does not register: the best match of structure has confidence {best.confidence:.1f} (pure noise: up to 6), "
            f"expected {CONFIDENCE:g}"
        )
    if len(pieces) < BLOCKS:
        found += [_shift(n, c, FEW) for n, c in zip(*map(_quarters, pieces[0].frames), strict=True)]
    sure = [s for s in found if s.confidence >= CONFIDENCE]
    limit = max(SHIFT, LEVEL * max(pieces[0].frames[0].period()))
    worst = max(sure, key=lambda s: max(abs(s.dy), abs(s.dx)))
    for what, s, most in (("", best, limit), ("in part ", worst, 2 * limit)):
        if max(abs(s.dy), abs(s.dx)) >= most:
            figures |= {"shift_y": s.dy, "shift_x": s.dx, "confidence": s.confidence}
            raise _Refused(f"{what}shifted by ({s.dy:.2f}, {s.dx:.2f}) px, expected less than {most:g}")


def _shift(noisy: Frame, clean: Frame, steps: int) -> Shift:
    try:
        return measure_shift(clean, noisy, upsample=steps)
    except FrameError as error:
        raise _Refused(f"cannot be registered: {str(error).removeprefix('calibrate.register: ')}") from error


def _quarters(frame: Frame) -> list[Frame]:
    (h, w), (py, px) = frame.shape[-2:], frame.period()
    y, x = h // 2 // py * py, w // 2 // px * px
    ends = [(0, 0, y, x), (0, x, y, w), (y, 0, h, x), (y, x, h, w)]
    return [frame.crop(Box(e[:2], e[2:])) for e in ends] if min(y // py, x // px) >= 64 else []


def _related(pieces: list[_Piece], figures: dict[str, float]) -> tuple[float, float]:
    """Scale and offset of noisy = scale clean + offset, by cell means; refuses where there is no straight line."""
    n, c, weight, r = _bright(pieces)
    figures["correlation"] = r
    if not r >= FLOOR:
        raise _Refused(f"brightness is not related: cell means correlate by {r:.2f}, expected at least {FLOOR}")
    plain = _line(n, c)
    scale = plain[0]
    for _ in range(3):  # noise in the clean frame flattens a least-squares line: var(c) holds it
        sigma = _noises(pieces, scale)
        share = [min(v / weight / float(np.var(k)), 0.9) for v, k in zip(sigma, (n, c), strict=True)]
        scale = plain[0] / (1 - share[1])
    offset = float(np.median(n - scale * c))
    r = min(r / ((1 - share[0]) * (1 - share[1])) ** 0.5, 1.0)
    figures |= {"scale": scale, "offset": offset, "noise_noisy": sigma[0] ** 0.5, "noise_clean": sigma[1] ** 0.5}
    figures["correlation"] = r
    if r < RELATED:
        raise _Refused(f"brightness is not related: cell means, noise apart, correlate by {r:.2f}, expected {RELATED}")
    bend = figures["bend"] = _bend(n - plain[0] * c - plain[1], c, scale)  # given c with its noise, the plain line is right
    if bend > BENT:
        raise _Refused(
            f"brightness is not related by a straight line: {bend:.0%} of its range off, expected at most {BENT:.0%}"
        )
    return scale, offset


def _bright(pieces: list[_Piece]) -> tuple[Array, Array, float, float]:
    """Means of cells wide enough for their noise not to hide the relation, pixels in each, and their correlation."""
    width, longest = BIN, max(pieces[0].frames[0].period())
    while True:
        n, c, weight = _cells(pieces, max(1, round(width / longest)))
        r = float(np.corrcoef(n, c)[0, 1]) if n.size > 2 and np.ptp(n) > 0 and np.ptp(c) > 0 else 0.0
        if abs(r) > 0.8 or width >= 4 * BIN or n.size < 256:
            return n, c, weight, r
        width *= 2


def _cells(pieces: list[_Piece], k: int) -> tuple[Array, Array, float]:
    """Means of noisy and clean over cells of k x k periods without a bad pixel, and the number of pixels in each."""
    out = []
    for p in pieces:
        h, w = (n // k for n in p.good.shape[1:])
        cut = np.s_[:, : h * k, : w * k]
        n, c, g = (
            np.asarray(a[cut], dtype=np.float64).reshape(-1, h, k, w, k).mean(axis=(0, 2, 4))
            for a in (p.noisy, p.clean, p.good)
        )
        out.append((n[g == 1], c[g == 1]))
    n, c = (np.concatenate(v) for v in zip(*out, strict=True))
    return n, c, float(k * k * pieces[0].good.shape[0])


def _line(n: Array, c: Array) -> tuple[float, float]:
    """Huber's straight line n = scale c + offset, by iterated weights."""
    weight = np.ones(n.size)
    scale = offset = 0.0
    for _ in range(10):
        total = weight.sum()
        mn, mc = float(weight @ n / total), float(weight @ c / total)
        scale = float(weight @ ((n - mn) * (c - mc)) / max(float(weight @ (c - mc) ** 2), 1e-300))
        offset = mn - scale * mc
        off = np.abs(n - scale * c - offset)
        weight = 1 / np.maximum(off / max(2 * float(np.median(off)), 1e-300), 1)
    return scale, offset


def _bend(off: Array, c: Array, scale: float) -> float:
    """The largest mean deviation in ten steps of brightness that four standard errors do not explain, over the range."""
    low, high = np.quantile(c, [0.005, 0.995])
    if not high > low:
        return 0.0
    step = np.clip(((c - low) / (high - low) * 10).astype(int), 0, 9)
    worst = 0.0
    for i in range(10):
        here = off[step == i]
        if here.size >= 8:
            mean, error = abs(float(here.mean())), float(here.std()) / here.size**0.5
            worst = max(worst, mean - 4 * error)
    return worst / (abs(scale) * float(high - low))


def _noises(pieces: list[_Piece], scale: float) -> tuple[float, float]:
    """Variance of the noise of both frames [units of each, squared]: medians over tiles; 0 where it is below zero."""
    nn, cc, nc = (np.concatenate(v) for v in zip(*(p.moments for p in pieces), strict=True))
    if not nn.size:
        raise _Refused("too few unsaturated pixels to measure its noise")
    return max(float(np.median(nn - scale * nc)), 0.0), max(float(np.median(cc - nc / scale)), 0.0)


def _moments(noisy: Array, clean: Array, good: Array) -> tuple[Array, Array, Array]:
    whole = good[:, :-1, :-1] & good[:, 1:, :-1] & good[:, :-1, 1:] & good[:, 1:, 1:]
    n, c = (np.where(whole, _haar(a), 0) for a in (noisy, clean))
    count = _tiles(whole).sum(axis=-1)
    some = count > TILE * TILE / 2
    nn, cc, nc = (_tiles(a).sum(axis=-1, dtype=np.float64)[some] / count[some] for a in (n * n, c * c, n * c))
    return nn, cc, nc


def _haar(a: Array) -> Array:
    a = np.where(np.isfinite(a), a, 0)
    return np.asarray((a[:, :-1, :-1] - a[:, 1:, :-1] - a[:, :-1, 1:] + a[:, 1:, 1:]) / 2)


def _tiles(a: Array) -> Array:
    """(positions, Y, X) as (tiles, pixels of a tile); what does not fill a tile is left out."""
    k, (h, w) = a.shape[0], (n // TILE for n in a.shape[1:])
    cut = a[:, : h * TILE, : w * TILE].reshape(k, h, TILE, w, TILE)
    return np.asarray(cut.transpose(0, 1, 3, 2, 4).reshape(k * h * w, TILE * TILE))


def _exposed(noisy: Frame, clean: Frame, scale: float, figures: dict[str, float]) -> None:
    expected = _expected(noisy, clean)
    if expected is None:
        return
    figures["expected_scale"] = expected
    if not expected / FACTOR < scale < expected * FACTOR:
        raise _Refused(f"brightness scales by {scale:.3g}, exposures and settings by {expected:.3g}")


def _expected(noisy: Frame, clean: Frame) -> float | None:
    """The scale that exposures [s] and ISO of the headers tell: counts go with both, electrons with exposure."""
    if noisy.unit != clean.unit:
        return None
    if noisy.unit in (Unit.ADU_RATE, Unit.ELECTRON_RATE):
        return 1.0
    times = [f.observation.exposure for f in (noisy, clean)]
    if noisy.unit not in (Unit.ADU, Unit.ELECTRON) or not all(times):
        return None
    settings = [f.observation.setting for f in (noisy, clean)]
    gain = 1.0
    if noisy.unit == Unit.ADU and settings[0] != settings[1]:
        iso = [re.fullmatch(r"ISO (\d+(?:\.\d+)?)", s or "") for s in settings]
        if iso[0] is None or iso[1] is None:
            return None
        gain = float(iso[0][1]) / float(iso[1][1])
    return float(times[0] or 0) / float(times[1] or 1) * gain


def _quieter(figures: dict[str, float]) -> None:
    n, c = figures["noise_noisy"], figures["noise_clean"] * figures["scale"]
    if not n > 0 and not c > 0:
        raise _Refused("no noise in the noisy frame that the clean one does not have: copies, or one made from the other")
    if n > 0:
        figures["noise_ratio"] = c / n
    if c > QUIETER * n:
        raise _Refused(
            f"the clean frame is not less noisy: {c:.3g} against {n:.3g} at one brightness, expected at most {QUIETER:g} of it"
        )


def _residual(pieces: list[_Piece], scale: float, offset: float, figures: dict[str, float]) -> None:
    """What the straight line leaves must be white, and as large as the noise model says where there is one."""
    lags, chi2 = np.zeros((2, 2)), []
    for p in pieces:
        r = p.noisy - np.float32(scale) * p.clean - np.float32(offset)
        r = np.where(p.good, r, np.nan)
        with np.errstate(invalid="ignore"):
            r = r - _nanmedian(r.reshape(r.shape[0], -1))[:, None, None]
        lags += _lags(r)
        if isinstance(p.frames[0].noise, Noise):
            chi2.append(_chi2(p, r, scale, offset, figures["noise_clean"]))
    rho = lags[:, 0] / np.maximum(lags[:, 1], 1)
    figures |= {"lag1_y": float(rho[0]), "lag1_x": float(rho[1])}
    limit = WHITE + 3 / float(np.sqrt(max(lags[:, 1].min(), 1)))
    if chi2:
        figures["chi2"] = float(np.median(np.concatenate(chi2)))
        if not CHI2[0] <= figures["chi2"] <= CHI2[1]:
            raise _Refused(
                f"the residual has {figures['chi2']:.2f} times the variance of the noise model, expected {CHI2[0]} to {CHI2[1]}"
            )
    if max(abs(rho)) > limit:
        raise _Refused(
            f"the residual is no noise: neighbours correlate by {rho[0]:.2f} (y), {rho[1]:.2f} (x), expected within "
            f"{limit:.2f}: other structure, another focus, or resampled"
        )


def _nanmedian(rows: Array) -> Array:
    """The lower median of each row's numbers, 0 where it has none."""
    ordered = np.sort(rows, axis=-1)  # NaN at the end
    last = np.isfinite(rows).sum(axis=-1) - 1
    return np.where(last >= 0, ordered[np.arange(len(rows)), np.maximum(last, 0) // 2], 0)


def _lags(r: Array) -> Array:
    """Sums over neighbours along y and x, (products, squares), of residuals scaled by each tile's noise; outliers left out."""
    h, w = (n // TILE * TILE for n in r.shape[1:])
    tiles = _tiles(r)
    sd = 1.4826 * _nanmedian(np.abs(tiles))
    sd = sd.reshape(r.shape[0], h // TILE, w // TILE).repeat(TILE, axis=1).repeat(TILE, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = r[:, :h, :w] / sd
    u = np.where(np.abs(u) < 6, u, np.nan)
    out = []
    for a, b in ((u[:, 1:], u[:, :-1]), (u[:, :, 1:], u[:, :, :-1])):
        both = np.isfinite(a) & np.isfinite(b)
        out.append((float(a[both] @ b[both]), float((a[both] @ a[both] + b[both] @ b[both]) / 2)))
    return np.array(out)


def _chi2(p: _Piece, r: Array, scale: float, offset: float, clean_noise: float) -> Array:
    """Mean of r^2 / v of each tile, v by the noise model at the clean frame's brightness, plus the clean frame's own."""
    noisy, clean = p.frames
    assert isinstance(noisy.noise, Noise)
    mean = np.nan_to_num(scale * np.asarray(clean.data, dtype=np.float64) + offset)
    v = _positions(noisy.noise.variance(mean).reshape(noisy.shape[-2:]), noisy.period()) + (scale * clean_noise) ** 2
    q = r * r / v
    q = _tiles(np.where(q < 36, q, np.nan))
    count = np.isfinite(q).sum(axis=-1)
    return np.asarray(np.nansum(q, axis=-1)[count > TILE * TILE / 2] / count[count > TILE * TILE / 2])
