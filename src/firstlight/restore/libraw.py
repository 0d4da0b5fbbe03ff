"""LibRaw's demosaicking methods, as references: the mosaic as a synthetic camera file, through rawpy.

LibRaw sends every X-Trans image to Markesteijn's method and takes from the algorithm asked for only its number of passes: the
others are named for Bayer patterns alone here. None of them knows noise. It refuses X-Trans sides under 512 px, so that
smaller mosaics are extended by whole periods of pixels of like colour.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import cfa, io
from firstlight.errors import FrameError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Unmodelled

__all__ = ["METHODS", "colours", "ran"]

Array = NDArray[Any]
BAYERS = {"vng": "VNG", "ppg": "PPG", "ahd": "AHD", "dcb": "DCB", "dht": "DHT", "aahd": "AAHD"}
XTRANSES = {"vng": "VNG", "markesteijn": "AHD", "markesteijn1": "PPG"}
METHODS = (*BAYERS, "markesteijn", "markesteijn1")
LEAST = {2: 24, 6: 516}  # px of a side, by the period
WHITE = 51000  # code of the brightest sample: LibRaw recovers highlights that end at the last code


def ran(method: str, mosaic: Mosaic) -> str:
    """What LibRaw does when asked for `method`, for the history; raises FrameError where it does not apply to the mosaic."""
    import rawpy

    kind = _kind(mosaic)
    if method not in kind:
        whose = "X-Trans" if kind is XTRANSES else "Bayer" if kind is BAYERS else "other"
        apply = ("net", "lmmse", "bilinear", *kind)
        raise FrameError(
            f"restore.demosaic: method {method!r} does not apply to {whose} mosaics; expected one of {', '.join(apply)}"
        )
    passes = {"markesteijn": "Markesteijn, 3 passes", "markesteijn1": "Markesteijn, 1 pass"}.get(method, method.upper())
    return f"LibRaw {'.'.join(str(n) for n in rawpy.libraw_version)}, {passes}"


def _kind(mosaic: Mosaic) -> dict[str, str]:
    for pattern, kind in ((BAYER, BAYERS), (XTRANS, XTRANSES)):
        if cfa.shift_to(mosaic, np.array(pattern)) is not None:
            return kind
    return {}


def colours(samples: Array, mosaic: Mosaic, method: str) -> Array:
    """R, G and B (3, Y, X) float32 of balanced linear samples (Y, X), 16 bits deep; negatives are lifted and put back."""
    import rawpy

    period = max(mosaic.period)
    edges = [(2 * period, 2 * period + max(LEAST[period] - n - 4 * period, 0) + -n % period) for n in samples.shape]
    wide, grown = cfa.extend(samples, mosaic, (edges[0], edges[1]))
    low, high = min(float(wide.min()), 0.0), float(wide.max())
    scale = WHITE / (high - low) if high > low else 1.0
    codes = np.rint((wide - np.float32(low)) * np.float32(scale)).astype(np.uint16)
    seen = Observation(offset=0.0, saturation=65535.0, white_balance=(1.0, 1.0, 1.0))
    frame = Frame(codes, "YX", Unit.ADU, Unmodelled("codes"), geometry=grown, observation=seen)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.dng"
        io.write(frame, path)
        with rawpy.imread(str(path)) as raw:
            found = raw.postprocess(
                demosaic_algorithm=getattr(rawpy.DemosaicAlgorithm, _kind(mosaic)[method]),
                output_color=rawpy.ColorSpace.raw,
                gamma=(1, 1),
                no_auto_bright=True,
                no_auto_scale=True,
                user_wb=[1.0, 1.0, 1.0, 1.0],
                user_flip=0,
                output_bps=16,
            )
    inside = found[edges[0][0] :, edges[1][0] :][: samples.shape[0], : samples.shape[1]]
    out = np.empty((3, *samples.shape), dtype=np.float32)
    for k in range(3):
        np.multiply(inside[..., k], np.float32(1 / scale), out=out[k])
    out += np.float32(low)
    return out
