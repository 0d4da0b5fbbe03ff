"""Are these two frames one view, once noisy and once clean? Registration, brightness relation and residual say so, or not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.calibrate.register import Shift, measure_shift
from firstlight.dataset import pieces as both
from firstlight.dataset.alike import reduced
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.noise import Noise

__all__ = ["Proof", "evidence", "prove"]

Array = NDArray[Any]
LIMITS = (1 << 18, 1 << 20)  # pixels looked at in a plane: the second where the first do not prove it
STEPS, FEW = 20, 4  # of registration, per pixel of a block and of a quarter of it
CONFIDENCE = 8.0  # of registration; two frames of pure noise stay below about 6
SHIFT = 0.5  # px; beyond it a whole-pixel shift would register better
PLAIN = 4.0  # standard errors by which a part must be better explained once it is shifted
CORRELATED = 4.0  # variance of a sum over what a 3 x 3 median leaves of white noise, over that of as many white values
SMOOTH = 8.0  # px; what is wider is no structure to register by
LEVEL = 0.15  # of a mosaic's period, what registration of binned periods can tell, where that is more
FLOOR, RELATED = 0.5, 0.9  # correlation of the means of cells: as it stands, and with their noise taken out
BIN = 8  # px, a cell's side; doubled while noise hides the relation
BENT = 0.03  # deviation from a straight line over the range of brightness
FACTOR = 2.0  # between the scale found and that of the exposures
QUIETER = 0.9  # noise of the clean frame, scaled, over that of the noisy one
WHITE = 0.15  # lag-1 correlation of the residual
CHI2 = (0.8, 1.25)  # where the noise is modelled


@dataclass(frozen=True)
class Proof:
    """Whether a pair is proved, or the `reason` why not; figures: see `prove`."""

    proved: bool
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)


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
        if (more := both.boxes(clean, limit)) != boxes and not out.proved:
            boxes = more
            figures: dict[str, float] = {}
            try:
                _prove([both.piece(noisy, clean, box) for box in boxes], figures)
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
    if min(noisy.shape[-2:]) < 4 * both.TILE * noisy.period()[0] / 2:
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


def _prove(pieces: list[both.Piece], figures: dict[str, float]) -> None:
    if all(np.array_equal(p.noisy, p.clean) for p in pieces):
        raise _Refused("both hold the same numbers: copies of one image")
    _registered(pieces, figures)
    scale, offset = _related(pieces, figures)
    _exposed(*pieces[0].frames, scale, figures)
    _quieter(figures)
    _residual(pieces, scale, offset, figures)


def _registered(pieces: list[both.Piece], figures: dict[str, float]) -> None:
    """Every block, or quarter of a whole plane, that shows enough must lie within the limit: rotation and scale show there."""
    looked_at = [p.frames for p in pieces]
    found = [_shift(n, c, STEPS) for n, c in looked_at]
    best = max(found, key=lambda s: s.confidence)
    figures |= {"shift_y": best.dy, "shift_x": best.dx, "confidence": best.confidence}
    if best.confidence < CONFIDENCE:
        raise _Refused(
            f"does not register: the best match of structure has confidence {best.confidence:.1f} (pure noise: up to 6), "
            f"expected {CONFIDENCE:g}"
        )
    if len(pieces) < both.BLOCKS:
        quarters = list(zip(*map(_quarters, pieces[0].frames), strict=True))
        found += [_shift(n, c, FEW) for n, c in quarters]
        looked_at += quarters
    limit = max(SHIFT, LEVEL * max(pieces[0].frames[0].period()))
    parts = [(s, pair) for s, pair in zip(found, looked_at, strict=True) if s.confidence >= CONFIDENCE]
    parts.sort(key=lambda k: -max(abs(k[0].dy), abs(k[0].dx)))
    whole = next(k for k in parts if k[0] is best)
    for what, (s, pair), most in (("", whole, limit), *(("in part ", part, 2 * limit) for part in parts)):
        if max(abs(s.dy), abs(s.dx)) >= most and evidence(*pair, s) > (0 if what == "" else PLAIN):
            figures |= {"shift_y": s.dy, "shift_x": s.dx, "confidence": s.confidence}
            raise _Refused(f"{what}shifted by ({s.dy:.2f}, {s.dx:.2f}) px, expected less than {most:g}")


def evidence(noisy: Frame, clean: Frame, shift: Shift) -> float:
    """How much better, in standard errors, the clean frame explains the noisy one once it is moved by the shift.

    With m and c the moved and the unmoved one, each on its least-squares line, and s^2 the rest's variance:
    z = (|n - c|^2 - |n - m|^2) / (2 s |m - c|), Gaussian about -|m - c|/2s where nothing is shifted, +|m - c|/2s where it is.
    In smooth or faint parts a registration errs by pixels though its confidence is high; z is small there.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.ndimage import shift as move

    # as `reduced` and less what is wide: hot pixels and shading, which all frames of a detector share, stand where they are
    n, c = (k - gaussian_filter(k, SMOOTH) for k in map(reduced, (noisy, clean)))
    by = [-d / p for d, p in zip((shift.dy, shift.dx), noisy.period(), strict=True)]
    edge = ceil(max(map(abs, by))) + 1
    if min(n.shape) < 4 * edge:
        return float("inf")
    inner = np.s_[edge:-edge, edge:-edge]
    n, still, moved = (k[inner] - k[inner].mean() for k in (n, c, move(c, by)))
    still, moved = (k * (float((k * n).sum()) / max(float((k * k).sum()), 1e-30)) for k in (still, moved))
    rest = [float(np.square(n - k).sum()) for k in (still, moved)]
    apart = (CORRELATED * min(rest) / n.size * float(np.square(moved - still).sum())) ** 0.5
    return (rest[0] - rest[1]) / (2 * apart) if apart > 0 else 0.0


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


def _related(pieces: list[both.Piece], figures: dict[str, float]) -> tuple[float, float]:
    """Scale and offset of noisy = scale clean + offset, by cell means; refuses where there is no straight line."""
    n, c, weight, r = _bright(pieces)
    figures["correlation"] = r
    if not r >= FLOOR:
        raise _Refused(f"brightness is not related: cell means correlate by {r:.2f}, expected at least {FLOOR}")
    plain = _line(n, c)
    scale = plain[0]
    for _ in range(3):  # noise in the clean frame flattens a least-squares line: var(c) holds it
        sigma = both.noises(pieces, scale)
        if not np.isfinite(sigma).all():
            raise _Refused("too few unsaturated pixels to measure its noise")
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


def _bright(pieces: list[both.Piece]) -> tuple[Array, Array, float, float]:
    """Means of cells wide enough for their noise not to hide the relation, pixels in each, and their correlation."""
    width, longest = BIN, max(pieces[0].frames[0].period())
    while True:
        n, c, weight = both.cells(pieces, max(1, round(width / longest)))
        r = float(np.corrcoef(n, c)[0, 1]) if n.size > 2 and np.ptp(n) > 0 and np.ptp(c) > 0 else 0.0
        if abs(r) > 0.8 or width >= 4 * BIN or n.size < 256:
            return n, c, weight, r
        width *= 2


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


def _residual(pieces: list[both.Piece], scale: float, offset: float, figures: dict[str, float]) -> None:
    """What the straight line leaves must be white, and as large as the noise model says where there is one."""
    lags, chi2 = np.zeros((2, 2)), []
    for p in pieces:
        r = p.noisy - np.float32(scale) * p.clean - np.float32(offset)
        r = np.where(p.good, r, np.nan)
        with np.errstate(invalid="ignore"):
            r = r - both.median(r.reshape(r.shape[0], -1))[:, None, None]
        lags += both.lags(r)
        if isinstance(p.frames[0].noise, Noise):
            chi2.append(both.chi2(p, r, scale, offset, figures["noise_clean"]))
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
