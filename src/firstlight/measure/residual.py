"""What a restorer took away, judged against the noise that the frame says it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.measure.sample import LIMIT, Block, blocks, same_pixels
from firstlight.noise import Noise, Unmodelled, spread

__all__ = ["Residual", "SignalBin", "judged", "residual"]

Array = NDArray[Any]
LOW, HIGH = 0.9, 1.1
ENOUGH = 1000  # pixels of a signal bin from which on it is judged alone
CLOSE = 0.02  # chi-square of a bin beside its expectation: near zero no ratio can be asked of it
LEFT = 0.1  # correlation of neighbouring residuals from which on structure was taken away; a good restorer's is below 0
LOST = 0.01  # share of the flux, if by five of its standard errors


@dataclass(frozen=True)
class SignalBin:
    """Pixels of similar restored signal, low..high [unit]: chi-square, its expectation, their ratio; bias [unit]."""

    low: float
    high: float
    n: int
    chi2: float | None
    expected: float | None
    ratio: float | None
    bias: float
    bias_error: float


@dataclass(frozen=True)
class Residual:
    """Statistics of y - x_hat; chi-square figures are None, with the reason, where the noise is not modelled.

    r = (y - x_hat)/sqrt(v(x_hat)); chi2 = mean r^2, chi2_expected = 1 - mean(std^2/v): x_hat has seen y. lag1: correlation
    of neighbouring residuals along y, x, and their mean, None where there is no residual. bias [unit] = mean(y - x_hat).
    flux = sum x_hat / sum y, both above the offset, and its standard error, None where sum y is within five of its noise.
    """

    chi2: float | None
    chi2_error: float | None
    chi2_expected: float | None
    ratio: float | None
    has_std: bool
    by_signal: tuple[SignalBin, ...]
    lag1_y: float | None
    lag1_x: float | None
    lag1: float | None
    bias: float
    bias_error: float
    flux: float | None
    flux_error: float | None
    n: int
    excluded: int
    reason: str | None = None

    @property
    def passed(self) -> bool | None:
        """Chi-square over its expectation within 0.9 to 1.1; without a std only an excess fails; None without a noise model."""
        if self.chi2 is None or self.chi2_expected is None:
            return None
        if self.ratio is None:  # the restorer claims that nothing was gained: then nothing may have been taken away
            return self.chi2 <= HIGH - 1
        return self.ratio <= HIGH and (self.ratio >= LOW or not self.has_std)

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against the restoration, a few words each: of the whole, of bins of 1000 pixels, neighbours and flux."""
        found = [] if self.passed is not False else [f"chi-square {_said(self.ratio)} of its expectation"]
        wrong = [b for b in self.by_signal if b.n >= ENOUGH and not self._near(b)]
        found += [f"chi-square {b.chi2:.3f}, expected {b.expected:.3f}, at signal {b.low:.4g} to {b.high:.4g}" for b in wrong]
        lag = max((v for v in (self.lag1_y, self.lag1_x) if v is not None), default=0.0)
        found += [f"neighbouring residuals correlate by {lag:.3f}"] if lag > LEFT + 5 / max(self.n, 1) ** 0.5 else []
        if self.flux is not None and self.flux_error is not None and abs(self.flux - 1) > max(LOST, 5 * self.flux_error):
            found.append(f"flux {self.flux:.4f} +- {self.flux_error:.4f} of the input's")
        return tuple(found)

    def _near(self, part: SignalBin) -> bool:
        if part.chi2 is None or part.expected is None:
            return True
        slack = CLOSE + 3 * part.chi2 * (2 / part.n) ** 0.5  # chi-square of n pixels has the variance 2 n
        least = LOW * part.expected - slack if self.has_std else -np.inf
        return bool(least <= part.chi2 <= HIGH * part.expected + slack)

    def line(self) -> str:
        """The self-check in one line."""
        if self.chi2 is None:
            return f"not possible: {self.reason}"
        ratios = [b.ratio for b in self.by_signal if b.n >= ENOUGH and b.ratio is not None and (b.expected or 0) > CLOSE]
        bins = f" ({min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} signal levels)" if len(ratios) > 1 else ""
        flux = "-" if self.flux is None else f"{self.flux:.4f} +- {self.flux_error:.4f}"
        text = (
            f"chi-square {_said(self.ratio)} of its expectation{bins}, neighbours {_said(self.lag1_y)} (y) "
            f"{_said(self.lag1_x)} (x), flux {flux} of the input's"
        )
        return f"{'FAILED' if self.problems else 'good'}: {text}"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, for JSON."""
        return {**asdict(self), "by_signal": [asdict(b) for b in self.by_signal], "passed": self.passed}


class _Parts(NamedTuple):
    signal: Array  # (n,) x_hat
    taken: Array  # (n,) y - x_hat
    variance: Array | None  # (n,) v(x_hat)
    shrink: Array | None  # (n,) std^2 / v
    above: Array | None  # (n,) x_hat above the offset


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def residual(frame: Frame, restored: Frame, *, bins: int = 8, edge: int = 0, pixels: int = LIMIT) -> Residual:
    """Chi-square per bin of the restored signal beside its expectation, lag-1 correlation, bias and flux balance.

    `frame` is the calibrated noisy frame, `restored` the same pixels in the same unit; flagged (in either) and non-finite
    pixels and `edge` px along the border are left out and counted, and above `pixels` pixels blocks are sampled. v(x_hat) is
    itself an estimate: where the noise at zero signal is below a few electrons, and on a blank sky, where x_hat scatters
    about zero and shot noise is counted for its positive errors alone, the ratio of a faithful restorer lies 3 to 15 % off 1.
    Raises FrameError where frames do not match or no pixel is left.
    """
    same_pixels("residual", frame, restored=restored)
    if bins < 1 or edge < 0:
        raise FrameError(f"residual: bins {bins}, edge {edge}; expected at least 1 and 0")
    return _of(zip(blocks(frame, pixels, edge), blocks(restored, pixels, edge), strict=True), bins, frame, restored)


def judged(pairs: Sequence[tuple[Frame, Frame]], *, bins: int = 8) -> Residual:
    """As `residual`, of parts of a frame and of what was restored of them: all their pixels count.

    Raises FrameError where the two of a pair do not match, there is no pair, or no pixel is left.
    """
    if not pairs:
        raise FrameError("residual: no part of the frame was restored, expected at least one")
    for noisy, clean in pairs:
        same_pixels("residual", noisy, restored=clean)
    both = (one for noisy, clean in pairs for one in zip(blocks(noisy, 1 << 62), blocks(clean, 1 << 62), strict=True))
    return _of(both, bins, *pairs[0])


def _of(pairs: Iterable[tuple[Block, Block]], bins: int, frame: Frame, restored: Frame) -> Residual:
    parts, products, seen = [], _Products(), 0
    for noisy, clean in pairs:
        seen += noisy.data.size
        part, plane, good = _part(noisy, clean)
        parts.append(part)
        products.add(plane, good)
    joined = _Parts(*(None if v[0] is None else np.concatenate(v) for v in zip(*parts, strict=True)))  # type: ignore[arg-type]
    if joined.taken.size < 2:
        raise FrameError(f"residual: {joined.taken.size} of {seen} pixels are unflagged and finite, expected at least 2")
    reason = frame.noise.reason if isinstance(frame.noise, Unmodelled) else None
    return _summary(joined, bins, products, seen, reason=reason, has_std=restored.std is not None)


def _part(noisy: Block, clean: Block) -> tuple[_Parts, Array, Array]:
    good = noisy.good & clean.good
    taken = noisy.data - clean.data
    if not isinstance(noisy.frame.noise, Noise):
        return _Parts(clean.data[good], taken[good], None, None, None), taken, good
    # NaN pixels are left out; variance() must not see them
    mean = np.where(good, clean.data, 0).reshape(noisy.frame.shape)
    variance = noisy.frame.noise.variance(mean).reshape(taken.shape).astype(np.float64)
    good &= variance > 0
    if clean.frame.std is None:
        shrink = np.zeros(np.count_nonzero(good))
    else:
        std = np.broadcast_to(np.asarray(clean.frame.std, dtype=np.float64), clean.frame.shape).reshape(taken.shape)
        good &= np.isfinite(std)
        shrink = std[good] ** 2 / variance[good]
    plane = taken / np.sqrt(np.where(good, variance, 1))
    offset = np.broadcast_to(spread(noisy.frame.noise.offset, noisy.frame.shape), noisy.frame.shape).reshape(taken.shape)
    return _Parts(clean.data[good], taken[good], variance[good], shrink, (clean.data - offset)[good]), plane, good


class _Products:
    """Sums over neighbouring pixels of the products of their residuals, plane by plane."""

    def __init__(self) -> None:
        self.sums = np.zeros((2, 4))  # per direction: pairs, sum ab, sum a + b, sum a^2 + b^2

    def add(self, plane: Array, good: Array) -> None:
        filled = np.where(good, plane, 0)
        for k, (u, ok) in enumerate(((filled, good), (filled.T, good.T))):
            both = ok[1:] & ok[:-1]
            a, b = u[1:][both], u[:-1][both]
            self.sums[k] += (a.size, a @ b, a.sum() + b.sum(), a @ a + b @ b)

    def correlations(self) -> tuple[float | None, float | None]:
        n, ab, plain, squares = self.sums.T
        mean = plain / np.maximum(2 * n, 1)
        spread = squares / np.maximum(2 * n, 1) - mean**2
        rho = [float((p / m - q * q) / s) if m > 1 and s > 0 else None for p, m, q, s in zip(ab, n, mean, spread, strict=True)]
        return rho[0], rho[1]


def _summary(parts: _Parts, bins: int, products: _Products, seen: int, *, reason: str | None, has_std: bool) -> Residual:
    chi2, chi2_error, expected = _chi2(parts)
    bias, bias_error = _mean(parts.taken)
    flux, flux_error = _flux(parts)
    lag_y, lag_x = products.correlations()
    return Residual(
        chi2=chi2,
        chi2_error=chi2_error,
        chi2_expected=expected,
        ratio=_ratio(chi2, expected),
        has_std=has_std,
        by_signal=tuple(_by_signal(parts, bins)),
        lag1_y=lag_y,
        lag1_x=lag_x,
        lag1=None if lag_y is None or lag_x is None else (lag_y + lag_x) / 2,
        bias=bias,
        bias_error=bias_error,
        flux=flux,
        flux_error=flux_error,
        n=parts.taken.size,
        excluded=seen - parts.taken.size,
        reason=reason,
    )


def _mean(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / np.sqrt(values.size))


def _flux(parts: _Parts) -> tuple[float | None, float | None]:
    """sum x_hat / sum y and its standard error: sum (y - x_hat) has at most the variance of the noise, sum v."""
    if parts.above is None or parts.variance is None:
        return None, None
    restored, noise = float(parts.above.sum()), float(np.sqrt(parts.variance.sum()))
    given = restored + float(parts.taken.sum())
    return (None, None) if given < 5 * noise else (restored / given, noise / given)


def _chi2(parts: _Parts) -> tuple[float | None, float | None, float | None]:
    if parts.variance is None or parts.shrink is None:
        return None, None, None
    chi2, error = _mean(parts.taken**2 / parts.variance)
    return chi2, error, float(1 - parts.shrink.mean())


def _ratio(chi2: float | None, expected: float | None) -> float | None:
    if chi2 is None or expected is None or abs(expected) < 1e-3:
        return None
    return chi2 / expected


def _by_signal(parts: _Parts, bins: int) -> list[SignalBin]:
    out = []
    for here in _bins(parts, bins):
        part = _Parts(*(None if p is None else p[here] for p in parts))  # type: ignore[arg-type]
        chi2, _, expected = _chi2(part)
        low, high = float(part.signal.min()), float(part.signal.max())
        out.append(SignalBin(low, high, part.taken.size, chi2, expected, _ratio(chi2, expected), *_mean(part.taken)))
    return out


def _bins(parts: _Parts, bins: int) -> list[Array]:
    """Index arrays of quantile bins and the brightest 1 % and 0.1 %, merged until their medians lie a noise sd apart.

    Slices of one flat level would sort pixels by the error of x_hat, not by their signal.
    """
    n = parts.signal.size
    tails = [p for p in (0.99, 0.999) if n * (1 - p) >= 200 and bins > 1]
    cuts = np.unique(np.rint(n * np.concatenate([np.linspace(0, 1, bins + 1), tails])).astype(int))
    order = np.argsort(parts.signal, kind="stable")
    out: list[Array] = []
    for here in np.split(order, cuts[1:-1]):
        if (
            out
            and here.size
            and parts.signal[here[here.size // 2]] - parts.signal[out[-1][out[-1].size // 2]] < _sd(parts, here)
        ):
            out[-1] = np.concatenate([out[-1], here])
        elif here.size:
            out.append(here)
    return out


def _sd(parts: _Parts, here: Array) -> float:
    values = parts.taken[here] ** 2 if parts.variance is None else parts.variance[here]
    return float(np.sqrt(values.mean()))
