"""How noisy an image looks where nobody knows its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.noise import Noise

__all__ = ["noise_scale", "with_white_noise"]

ROUNDING = 12**-0.5  # codes


def noise_scale(data: ArrayLike) -> float:
    """Standard deviation [unit of data] of white noise, from second differences over the last two axes, 0 where there is none.

    Immerkaer 1996 (Comput. Vis. Image Underst. 64, 300) with a median for the mean, so that structure counts little.
    """
    from scipy.ndimage import convolve

    values: Any = np.asarray(data, dtype=np.float64)
    second = np.outer((1, -2, 1), (1, -2, 1)).reshape(*[1] * (values.ndim - 2), 3, 3)
    kept = np.abs(convolve(values, second)[..., 1:-1, 1:-1])
    kept = kept[np.isfinite(kept)]
    return float(np.median(kept)) / (6 * 0.6745) if kept.size else 0.0


def with_white_noise(frame: Frame) -> Frame:
    """The frame with constant white noise of `noise_scale` about its median, where no model is known.

    An order of magnitude for methods that need no more; of whole numbers at least their rounding, 1/sqrt(12), since dark skies
    of pictures are often cut to one code. Raises FrameError where the data show no noise.
    """
    data = np.asarray(frame.data)
    sigma = max(noise_scale(data), ROUNDING if data.dtype.kind in "iu" and data.size and np.ptp(data) > 0 else 0.0)
    if not sigma > 0:
        raise FrameError("the noise is unknown and the data show none; give --detector")
    return frame.replace(noise=Noise(0.0, sigma**2, float(np.nanmedian(data.astype(np.float64)))))
