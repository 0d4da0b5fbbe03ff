"""Demosaicking on Kodak 1-12 and McMaster 1-9: CPSNR of sRGB values, and CPU seconds of one thread per Mpx.

python bench/demosaic.py DATA [--images N] [--cfa xtrans|bayer] [--model MODEL.safetensors] [--domain enc|lin]

DATA holds kodak/*.png and mcmaster/*.tif. enc: sRGB values are sampled as if linear, the habit of the literature. lin: light
is sampled, without noise, colours are encoded as sRGB for the metric. One MSE over the three channels, 10 px of border left
out, output clipped to [0, 1], the mean over images. LibRaw's methods are fed a 16-bit CFA DNG, padded by mirroring the
truth; its time is that of its postprocessing. Ours: a frame in, a frame out; in lin with the noise of 60 000 e- at white and
3 e- of read noise stated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from firstlight import Frame, Mosaic, Noise, Observation, Unit, io, operators, simulate
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import demosaic

Array = NDArray[Any]
Method = Callable[[Array], tuple[Array, float]]
PATTERN = {"xtrans": XTRANS, "bayer": BAYER}
BORDER, WHITE, LEAST = 10, 51000, 516  # LibRaw refuses X-Trans sides under 512 px, and recovers highlights without headroom


def srgb(linear: Array) -> Array:
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def samples(truth: Array, pattern: Any) -> Array:
    return operators.mosaic(pattern, truth.shape[:2])(np.ascontiguousarray(truth.transpose(2, 0, 1)))


def libraw(truth: Array, pattern: Any, algorithm: Any) -> tuple[Array, float]:
    """Colours (Y, X, 3) and CPU seconds per pixel."""
    import rawpy

    (h, w), edge = truth.shape[:2], 12
    more = [(edge, edge + max(LEAST - n - 2 * edge, 0) + -n % 6) for n in (h, w)]
    wide = np.pad(truth, (*more, (0, 0)), mode="symmetric")
    seen = Observation(offset=0.0, saturation=65535.0, white_balance=(1.0, 1.0, 1.0))
    data = np.round(samples(wide, pattern) * WHITE).astype(np.uint16)
    frame = Frame(data, "YX", Unit.ADU, Noise(1.0, 1.0), geometry=Mosaic(pattern), observation=seen)
    with tempfile.TemporaryDirectory() as folder:
        path = io.write(frame, Path(folder) / "mosaic.dng") or Path(folder) / "mosaic.dng"
        with rawpy.imread(str(path)) as raw:
            start = time.process_time()
            out = raw.postprocess(
                demosaic_algorithm=algorithm,
                output_color=rawpy.ColorSpace.raw,
                gamma=(1, 1),
                no_auto_bright=True,
                no_auto_scale=True,
                user_wb=[1.0, 1.0, 1.0, 1.0],
                user_flip=0,
                output_bps=16,
            )
            taken = time.process_time() - start
    return out[edge : edge + h, edge : edge + w].astype(np.float32) / WHITE, taken / data.size


def ours(truth: Array, pattern: Any, noise: Noise, **params: Any) -> tuple[Array, float]:
    seen = Observation(saturation=1.0)
    frame = Frame(samples(truth, pattern), "YX", Unit.ARBITRARY, noise, geometry=Mosaic(pattern), observation=seen)
    start = time.process_time()
    out = demosaic(frame, **params)
    return out.data.transpose(1, 2, 0), (time.process_time() - start) / frame.data.size


def methods(options: argparse.Namespace) -> dict[str, Callable[[Array], tuple[Array, float]]]:
    from rawpy import DemosaicAlgorithm as Algorithm

    pattern = PATTERN[options.cfa]
    noise = Noise(0.0, 0.0) if options.domain == "enc" else Noise(1 / 60000, (3 / 60000) ** 2)
    # LibRaw sends every X-Trans image to Markesteijn and takes from the algorithm only the number of passes
    names = {
        "xtrans": {"LibRaw bilinear": "LINEAR", "LibRaw Markesteijn 1-pass": "PPG", "LibRaw Markesteijn 3-pass": "AHD"},
        "bayer": {"LibRaw bilinear": "LINEAR", "LibRaw AHD": "AHD", "LibRaw DHT": "DHT", "LibRaw AAHD": "AAHD"},
    }[options.cfa]
    table: dict[str, Method] = {
        name: lambda t, key=key: libraw(t, pattern, getattr(Algorithm, key)) for name, key in names.items()
    }
    table["bilinear"] = lambda t: ours(t, pattern, noise, method="bilinear")
    table["lmmse"] = lambda t: ours(t, pattern, noise, method="lmmse")
    if options.model is not None:
        from firstlight import model_file

        model = model_file.load(options.model)
        for label, bf16 in (("net, float32", False), ("net, bfloat16", True)):
            table[label] = lambda t, b=bf16: ours(t, pattern, noise, method="net", model=model, bf16=b, keep_samples=True)
    return table


def psnr(found: Array, truth: Array) -> float:
    error = (np.clip(found, 0, 1) - truth)[BORDER:-BORDER, BORDER:-BORDER]
    return float(-10 * np.log10(np.mean(error.astype(np.float64) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--cfa", choices=sorted(PATTERN), default="xtrans")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--domain", choices=("enc", "lin"), default="enc")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = methods(options)
    found: dict[str, list[list[float]]] = {name: [] for name in table}
    taken: dict[str, list[float]] = {name: [] for name in table}
    for ending in ("kodak/*.png", "mcmaster/*.tif"):
        for rows in found.values():
            rows.append([])
        for path in sorted(options.data.glob(ending))[: options.images]:
            truth = cv2.imread(str(path))[..., ::-1].astype(np.float32) / 255
            light = truth if options.domain == "enc" else simulate.linearise(truth).astype(np.float32)
            for name, run in table.items():
                out, seconds = run(light)
                found[name][-1].append(psnr(out if options.domain == "enc" else srgb(out), truth))
                taken[name].append(seconds)
    print(f"{options.cfa}, {options.domain}{'':30s}Kodak  McMaster   CPU s/Mpx")
    for name, (kodak, mcmaster) in found.items():
        print(f"{name:40s}{np.mean(kodak):6.2f}{np.mean(mcmaster):10.2f}{1e6 * np.median(taken[name]):12.3f}", flush=True)


if __name__ == "__main__":
    main()
