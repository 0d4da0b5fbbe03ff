"""Demosaickers of other projects, for demosaic.py. To have them:

PACKAGES='demosaicnet==0.0.14 setuptools<80 tqdm wget imageio colour-demosaicing==0.2.7 colour-science'
python -m pip install --target PEERS --no-deps $PACKAGES
PYTHONPATH=PEERS python bench/demosaic.py ...

demosaicnet: Gharbi et al. 2016, its weights in the wheel. colour-demosaicing: Malvar et al. 2004, Menon et al. 2007.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from firstlight import Mosaic
from firstlight.geometry import BAYER, XTRANS

__all__ = ["PEERS", "peers"]

Array = NDArray[Any]
PEERS = ("demosaicnet", "colour-demosaicing Malvar", "colour-demosaicing Menon")
Peer = Callable[[Array], tuple[Array, float]]


def peers(cfa: str) -> dict[str, Peer]:
    """Functions of samples (Y, X) to colours (Y, X, 3) and CPU seconds per pixel; says what is absent."""
    found: dict[str, Peer] = {}
    for add in (_gharbi, *((_colour,) if cfa == "bayer" else ())):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found |= add(cfa)
        except ImportError as error:
            print(f"left out: {error}; see bench/demosaic_peers.py for how to get it", flush=True)
    return found


def _gharbi(cfa: str) -> dict[str, Peer]:
    import demosaicnet

    net = (demosaicnet.XTransDemosaick if cfa == "xtrans" else demosaicnet.BayerDemosaick)().eval()
    pattern, shift = (XTRANS, 0) if cfa == "xtrans" else (BAYER, 1)  # its Bayer pattern is GRBG

    def run(wide: Array) -> tuple[Array, float]:
        color = Mosaic(pattern).at((wide.shape[0], wide.shape[1]))
        planes = (wide * (color == np.arange(3)[:, None, None])).astype(np.float32)
        planes = np.ascontiguousarray(planes[:, :, shift : wide.shape[1] - shift])
        start = time.process_time()
        with torch.inference_mode():
            part = net(torch.from_numpy(planes)[None])[0].numpy()
        taken = (time.process_time() - start) / planes[0].size
        out = np.zeros((3, *wide.shape), dtype=np.float32)
        lost = [(n - m) // 2 for n, m in zip(wide.shape, part.shape[1:], strict=True)]  # valid convolutions
        out[:, lost[0] : lost[0] + part.shape[1], lost[1] : lost[1] + part.shape[2]] = part
        return out.transpose(1, 2, 0), taken

    return {"demosaicnet": run}


def _colour(cfa: str) -> dict[str, Peer]:
    import colour_demosaicing

    def way(method: Callable[..., Array]) -> Peer:
        def run(wide: Array) -> tuple[Array, float]:
            start = time.process_time()
            out = method(wide, pattern="RGGB")
            return out.astype(np.float32), (time.process_time() - start) / wide.size

        return run

    names = {"Malvar": "demosaicing_CFA_Bayer_Malvar2004", "Menon": "demosaicing_CFA_Bayer_Menon2007"}
    return {f"colour-demosaicing {k}": way(getattr(colour_demosaicing, name)) for k, name in names.items()}
