"""Phase retrieval from one distance: contact transmission of a homogeneous object from its propagated projections.

All are one linear filter H(f) of each projection, before the logarithm, with chi = pi lambda z f^2, lambda the wavelength, z
the distance, f the frequency and delta/beta of the object's refractive index 1 - delta + i beta:

    paganin   1/(1 + (delta/beta) chi)                              near field: chi well below 1
    gpaganin  the same with f^2 as the grid's own Laplacian has it  near field, details of a few pixels kept
    farago    1/(cos chi + (delta/beta) sin chi)                    further out, any absorption
    ctf       the same on I - 1, then exp                           further out, weak absorption

TomoPy's alpha is beta/(4 pi^2 delta): delta_beta = 1/(4 pi^2 alpha).
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs
from firstlight.noise import Unmodelled

__all__ = ["ctf", "farago", "gpaganin", "halo_rows", "paganin"]

Array = NDArray[Any]
KEV_MICROMETRE = 1.239841984e-3  # h c
DECAYS = 9.2  # lengths of the kernel e^(-r/l) after which 1e-4 of it is left
PADS = 7.0  # lengths of edge padding: what wraps round is damped to 1e-3
SOME = 32  # rows of the filter made at a time, in double precision
IDLE = 1e-3  # a filter that changes nothing by more than this has its parameters in wrong units


class _Optics(NamedTuple):
    """chi = `chi` x f^2 with f in cycles a pixel; length: decay of the near-field kernel [px]."""

    delta_beta: float
    chi: float

    @property
    def length(self) -> float:
        """sqrt(lambda z delta / (4 pi beta)) [px]."""
        return sqrt(self.delta_beta * self.chi) / (2 * pi)


Response = Callable[[Array, Array, _Optics], Array]


def halo_rows(frame: Frame, *, delta_beta: float, energy: Any = None, distance: Any = None, pixel: Any = None, **_: Any) -> int:
    """Rows [px] beyond its own that a section must hold, so that it equals the whole within 1e-3 of the data's range.

    9.2 decay lengths of the near-field kernel, and the reach lambda z/(2 pixel) of the finest detail's diffraction.
    """
    optics = _optics("calibrate.paganin", frame, delta_beta, energy, distance, pixel)
    return ceil(DECAYS * optics.length + optics.chi / (2 * pi)) + 1


def _pad(optics: _Optics, pad: int | None) -> int:
    return ceil(PADS * optics.length) if pad is None else pad


def _padded(
    frame: Frame, *, delta_beta: float, energy: Any = None, distance: Any = None, pixel: Any = None, pad: int | None = None
) -> tuple[int, int]:
    """Edge on each side, and columns with both [px]; a tenth more for a length that transforms fast."""
    edge = _pad(_optics("phase retrieval", frame, delta_beta, energy, distance, pixel), pad)
    return edge, ceil(1.1 * (frame.shape[-1] + 2 * edge))


def _copies(frame: Frame, **params: Any) -> float:
    """Projections before and after, gaps filled and flags; buffer and filter, 12 bytes a padded pixel."""
    _, columns = _padded(frame, **_optical(params))
    return 3.75 + 1.1 * 12 * columns / (4 * frame.shape[0] * frame.shape[-1])


def _fixed(frame: Frame, **params: Any) -> float:
    edge, columns = _padded(frame, **_optical(params))
    return columns * (1.1 * 12 * (2 * edge + 8) + 64 * SOME)


def _optical(params: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in params.items() if k in ("delta_beta", "energy", "distance", "pixel", "pad")}


@needs(halo=halo_rows, copies=_copies, fixed=_fixed)
def paganin(
    frame: Frame,
    *,
    delta_beta: float,
    energy: float | None = None,
    distance: float | None = None,
    pixel: float | None = None,
    pad: int | None = None,
) -> Frame:
    """Contact transmission (A, Y, X) or (Y, X) [1, float32] of a homogeneous object from propagated transmission.

    energy [keV], distance [mm] sample to detector, pixel [micrometre] at the sample; None: as the scan says. pad [px]: edge
    values round each projection, None: 7 decay lengths of the kernel. A flat field is kept; -log of the result over mu is the
    thickness. Non-finite pixels are filled along X and flagged NO_DATA. Noise becomes unmodelled: neighbours are correlated;
    std is dropped. Raises FrameError for other units or axes, parameters that are missing, out of range or without effect.
    Paganin et al., J. Microsc. 206, 33 (2002), eq. 10.
    """
    return _retrieved("calibrate.paganin", _paganin, frame, delta_beta, energy, distance, pixel, pad)


@needs(halo=halo_rows, copies=_copies, fixed=_fixed)
def gpaganin(
    frame: Frame,
    *,
    delta_beta: float,
    energy: float | None = None,
    distance: float | None = None,
    pixel: float | None = None,
    pad: int | None = None,
) -> Frame:
    """Like paganin, with the Laplacian of the pixel grid: fine details are blurred less.

    1/(1 - (2 tau/W^2)(cos W k_x + cos W k_y - 2)), W the pixel, tau = lambda z delta/(4 pi beta).
    Paganin et al., J. Phys. D 53, 494004 (2020), eq. 19. Parameters, result and errors as paganin.
    """
    return _retrieved("calibrate.gpaganin", _gpaganin, frame, delta_beta, energy, distance, pixel, pad)


@needs(halo=halo_rows, copies=_copies, fixed=_fixed)
def farago(
    frame: Frame,
    *,
    delta_beta: float,
    energy: float | None = None,
    distance: float | None = None,
    pixel: float | None = None,
    regularize: float = 0.1,
    pad: int | None = None,
) -> Frame:
    """Like paganin, for longer distances and any absorption: 1/(cos chi + (delta/beta) sin chi).

    regularize: damps where that would divide by nothing, beyond chi = pi/2: D/(D^2 + w), w rising to
    regularize^2 (1 + (delta/beta)^2) at chi = pi; 0 to divide plainly, refused where the filter passes through a zero.
    Farago et al., Opt. Lett. 49, 5159 (2024). Other parameters, result and errors as paganin.
    """
    return _retrieved(
        "calibrate.farago",
        _transfer(regularize, "calibrate.farago"),
        frame,
        delta_beta,
        energy,
        distance,
        pixel,
        pad,
        regularize,
    )


@needs(halo=halo_rows, copies=_copies, fixed=_fixed)
def ctf(
    frame: Frame,
    *,
    delta_beta: float,
    energy: float | None = None,
    distance: float | None = None,
    pixel: float | None = None,
    regularize: float = 0.1,
    pad: int | None = None,
) -> Frame:
    """Contrast transfer function of a weakly absorbing homogeneous object: exp of the farago filter on I - 1.

    Cloetens et al., Appl. Phys. Lett. 75, 2912 (1999), with the object's delta/beta; parameters, result, errors as farago.
    """
    response = _transfer(regularize, "calibrate.ctf")
    return _retrieved("calibrate.ctf", response, frame, delta_beta, energy, distance, pixel, pad, regularize, linear=True)


def _paganin(fy: Array, fx: Array, optics: _Optics) -> Array:
    return np.asarray(1 / (1 + optics.delta_beta * optics.chi * (fy * fy + fx * fx)))


def _gpaganin(fy: Array, fx: Array, optics: _Optics) -> Array:
    return np.asarray(1 / (1 - 2 * optics.length**2 * (np.cos(2 * pi * fx) + np.cos(2 * pi * fy) - 2)))


def _transfer(regularize: float, step: str) -> Response:
    if not 0 <= regularize <= 1:
        raise FrameError(f"{step}: regularize {regularize}, expected 0 (none) to 1, such as 0.1")

    def response(fy: Array, fx: Array, optics: _Optics) -> Array:
        chi = optics.chi * (fy * fy + fx * fx)
        d = np.cos(chi) + optics.delta_beta * np.sin(chi)
        least = (regularize**2) * (1 + optics.delta_beta**2) * np.clip(2 * chi / pi - 1, 0, 1)
        if regularize == 0 and d.min() <= 0:
            raise FrameError(
                f"{step}: the transfer function passes through zero within the grid's frequencies (chi up to "
                f"{chi.max():.1f}, {chi.max() / pi:.1f} pi); give regularize= above 0"
            )
        return np.asarray(d / (d * d + least))

    return response


def _optics(step: str, frame: Frame, delta_beta: float, energy: Any, distance: Any, pixel: Any) -> _Optics:
    scan = frame.geometry if isinstance(frame.geometry, Scan) else None
    values = {"energy": energy, "distance": distance, "pixel": pixel}
    for name, value in values.items():
        values[name] = getattr(scan, name, None) if value is None else value
    missing = [f"{k}=" for k, v in values.items() if v is None]
    if missing:
        raise FrameError(f"{step}: the scan does not state {', '.join(missing)}; give energy [keV], distance [mm], pixel [um]")
    ranges = {"energy": (1, 1000, "keV"), "distance": (0, 1e6, "mm"), "pixel": (0.005, 1000, "micrometre")}
    for name, (low, high, unit) in ranges.items():
        if not low <= float(values[name]) <= high:
            raise FrameError(f"{step}: {name} {values[name]:g}, expected {low:g} to {high:g} {unit}; is it in another unit?")
    if not 0 <= delta_beta <= 1e6:
        raise FrameError(f"{step}: delta_beta {delta_beta:g}, expected 0 to 1e6; it is 1/(4 pi^2 alpha) of TomoPy's alpha")
    wavelength = KEV_MICROMETRE / float(values["energy"])
    return _Optics(float(delta_beta), pi * wavelength * float(values["distance"]) * 1e3 / float(values["pixel"]) ** 2)


def _retrieved(
    step: str,
    response: Response,
    frame: Frame,
    delta_beta: float,
    energy: float | None,
    distance: float | None,
    pixel: float | None,
    pad: int | None,
    regularize: float | None = None,
    linear: bool = False,
) -> Frame:
    frame.need(f"{step}: phase retrieval comes before the logarithm", Unit.TRANSMISSION)
    if frame.axes not in ("AYX", "YX"):
        raise FrameError(f"{step}: got axes {frame.axes}, expected projections AYX or YX")
    optics = _optics(step, frame, delta_beta, energy, distance, pixel)
    given = {
        "delta_beta": delta_beta,
        "energy": energy,
        "distance": distance,
        "pixel": pixel,
        "regularize": regularize,
        "pad": pad,
    }
    params = {k: v for k, v in given.items() if v is not None}
    noise = Unmodelled(f"{step}: the filter correlates neighbouring pixels")
    data, flags = _finite(step, frame)
    if delta_beta > 0:
        _sensible(step, optics, data.shape[2])
    if delta_beta > 0 or response not in (_paganin, _gpaganin):  # these two are 1 everywhere without phase
        data = _filtered(data, response, optics, _pad(optics, pad), step, linear)
    return frame.then(step, params, data=data.reshape(frame.shape), noise=noise, std=None, flags=flags)


def _sensible(step: str, optics: _Optics, columns: int) -> None:
    """Refuse a filter that changes nothing, or blurs all: the parameters are in other units then."""
    change = 1 - 1 / (1 + optics.delta_beta * optics.chi / 4)
    if change < IDLE or optics.length > columns / 2:
        raise FrameError(
            f"{step}: with these parameters the kernel is {optics.length:.3g} px long, expected a hundredth of a pixel or more "
            f"and half the width of {columns} or less; are energy in keV, distance in mm and pixel in micrometre?"
        )


def _finite(step: str, frame: Frame) -> tuple[Array, Any]:
    """The data as float32 (A, Y, X) without non-finite values, and the flags with NO_DATA where they were."""
    data = np.asarray(frame.data, dtype=np.float32).reshape(-1, *frame.shape[-2:])
    if np.isfinite(data.sum(dtype=np.float64)):
        return data, frame.flags
    from firstlight.calibrate.gaps import filled

    data, bits = filled(data, step)
    bits = bits.reshape(frame.shape)
    return data, bits if frame.flags is None else np.bitwise_or(frame.flags, bits)


def _filtered(data: Array, response: Response, optics: _Optics, pad: int, step: str, linear: bool) -> Array:
    """Every projection times the response, two at a time as real and imaginary part: H(f) is real and even."""
    if pad < 0 or pad != int(pad):
        raise FrameError(f"{step}: pad {pad}, expected 0 or more whole pixels")
    number, height, width = data.shape
    shape = tuple(scipy.fft.next_fast_len(n + 2 * pad) for n in (height, width))
    grid = [np.fft.fftfreq(n) for n in shape]
    h = np.empty(shape, dtype=np.float32)
    for y in range(0, shape[0], SOME):
        h[y : y + SOME] = response(grid[0][y : y + SOME, None], grid[1][None], optics)
    less = np.float32(linear)
    out, buffer = np.empty_like(data), np.zeros(shape, dtype=np.complex64)
    rows, inner = buffer[pad : pad + height], slice(pad, pad + width)
    for a in range(0, number, 2):
        np.subtract(data[a], less, out=rows.real[:, inner])
        np.subtract(data[min(a + 1, number - 1)], less, out=rows.imag[:, inner])
        _through(buffer, rows, inner, pad, h)
        out[a] = rows.real[:, inner]
        if a + 1 < number:
            out[a + 1] = rows.imag[:, inner]
    return np.exp(out, out=out) if linear else out


def _through(buffer: Array, rows: Array, inner: slice, pad: int, h: Array) -> None:
    """In place: edges along X, transform; edges along Y, where they are copies of a transformed row; filter and back."""
    rows[:, :pad], rows[:, inner.stop :] = rows[:, inner.start, None], rows[:, inner.stop - 1, None]
    _in_place(scipy.fft.fft, rows, 1)
    buffer[:pad], buffer[pad + len(rows) :] = rows[0], rows[-1]
    _in_place(scipy.fft.fft, buffer, 0)
    buffer *= h
    _in_place(scipy.fft.ifft, buffer, 0)
    _in_place(scipy.fft.ifft, rows, 1)


def _in_place(transform: Callable[..., Any], array: Array, axis: int) -> None:
    """scipy.fft writes into complex input that it may overwrite; where it did not, copy."""
    out = transform(array, axis=axis, overwrite_x=True)
    if out.__array_interface__["data"][0] != array.__array_interface__["data"][0]:
        array[...] = out
