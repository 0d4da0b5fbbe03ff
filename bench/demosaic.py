"""Demosaicking on Kodak 1-12 and McMaster 1-9: CPSNR of sRGB values, and CPU seconds of one thread per Mpx.

python bench/demosaic.py DATA [--images N] [--cfa xtrans|bayer] [--model MODEL.safetensors] [--domain enc|lin] [--only WORD]

DATA holds kodak/*.png and mcmaster/*.tif. enc: sRGB values are sampled as if linear, the habit of the literature. lin: light
is sampled, without noise, colours are encoded as sRGB for the metric. One MSE over the three channels, 10 px of border left
out, output clipped to [0, 1], the mean over images. Every method gets the same samples; those of others with 36 px more
around the picture, of the truth mirrored. LibRaw is fed a 16-bit CFA DNG; its time is that of its postprocessing, theirs
is that of the call, ours of a frame in, a frame out. In lin ours interpolate (strength 0) in the curve that `develop` assumes
where no noise is known. Without --model the shipped network runs. Peers from the package registry: demosaic_peers.py says how.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from demosaic_peers import PEERS, peers
from numpy.typing import NDArray

from firstlight import Frame, Mosaic, Noise, Observation, Unit, io, model_file, operators, simulate
from firstlight.develop.pipeline import ELECTRONS, READ
from firstlight.errors import FirstlightError
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import demosaic

Array = NDArray[Any]
Method = Callable[[Array], tuple[Array, float]]  # samples, EDGE px wider than the picture: colours, CPU seconds per px
PATTERN = {"xtrans": XTRANS, "bayer": BAYER}
# LibRaw sends every X-Trans image to Markesteijn and takes from the algorithm only the number of passes
LIBRAW = {
    "xtrans": {"LibRaw bilinear": "LINEAR", "LibRaw Markesteijn 1-pass": "PPG", "LibRaw Markesteijn 3-pass": "AHD"},
    "bayer": {"LibRaw bilinear": "LINEAR", "LibRaw AHD": "AHD", "LibRaw DHT": "DHT", "LibRaw AAHD": "AAHD"},
}
BORDER, EDGE = 10, 36
WHITE, LEAST = 51000, 516  # LibRaw recovers highlights without headroom, and refuses X-Trans sides under 512 px
STILL = Noise(0.0, 0.0)


def srgb(linear: Array) -> Array:
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def pictures(data: Path, count: int) -> Iterator[tuple[int, Array]]:
    """0 for Kodak, 1 for McMaster, and sRGB values (Y, X, 3)."""
    for k, ending in enumerate(("kodak/*.png", "mcmaster/*.tif")):
        for path in sorted(data.glob(ending))[:count]:
            yield k, cv2.imread(str(path))[..., ::-1].astype(np.float32) / 255


def samples(truth: Array, pattern: Any) -> Array:
    """Of the picture (Y, X, 3) mirrored, EDGE px and more around it."""
    more = [(EDGE, EDGE + max(LEAST - n - 2 * EDGE, 0) + -n % 6) for n in truth.shape[:2]]
    wide = np.pad(truth, (*more, (0, 0)), mode="symmetric")
    return operators.mosaic(pattern, wide.shape[:2])(np.ascontiguousarray(wide.transpose(2, 0, 1)))


def inside(wide: Array, shape: tuple[int, ...]) -> Array:
    return wide[EDGE : EDGE + shape[0], EDGE : EDGE + shape[1]]


def libraw(wide: Array, pattern: Any, name: str) -> tuple[Array, float]:
    """Colours (Y, X, 3) and CPU seconds per pixel; samples that end elsewhere than at 0 and 1 are lifted and put back."""
    import rawpy

    low, high = min(float(wide.min()), 0.0), max(float(wide.max()), 1.0)
    scale = WHITE / (high - low)
    seen = Observation(offset=0.0, saturation=65535.0, white_balance=(1.0, 1.0, 1.0))
    data = np.round((wide - low) * scale).astype(np.uint16)
    frame = Frame(data, "YX", Unit.ADU, Noise(1.0, 1.0), geometry=Mosaic(pattern), observation=seen)
    with tempfile.TemporaryDirectory() as folder:
        io.write(frame, Path(folder) / "mosaic.dng")
        with rawpy.imread(str(Path(folder) / "mosaic.dng")) as raw:
            start = time.process_time()
            out = raw.postprocess(
                demosaic_algorithm=getattr(rawpy.DemosaicAlgorithm, name),
                output_color=rawpy.ColorSpace.raw,
                gamma=(1, 1),
                no_auto_bright=True,
                no_auto_scale=True,
                user_wb=[1.0, 1.0, 1.0, 1.0],
                user_flip=0,
                output_bps=16,
            )
            taken = time.process_time() - start
    return out.astype(np.float32) / scale + low, taken / data.size


def cropped(run: Method, wide: Array, shape: tuple[int, ...]) -> tuple[Array, float]:
    out, taken = run(wide)
    return inside(out, shape), taken


def framed(values: Array, pattern: Any, noise: Noise) -> Frame:
    seen = Observation(saturation=1.0)
    return Frame(values, "YX", Unit.ARBITRARY, noise, geometry=Mosaic(pattern), observation=seen)


def ours(wide: Array, shape: tuple[int, ...], pattern: Any, noise: Noise, **params: Any) -> tuple[Array, float]:
    """Colours (Y, X, 3) of a picture of this shape inside the samples, and CPU seconds per pixel."""
    frame = framed(np.ascontiguousarray(inside(wide, shape)), pattern, noise)
    start = time.process_time()
    out = demosaic(frame, **params)
    return out.data.transpose(1, 2, 0), (time.process_time() - start) / frame.data.size


def network(options: argparse.Namespace) -> Any:
    """The model that is named or shipped; None, and why, where none is."""
    try:
        return model_file.load(options.model or model_file.shipped(f"demosaic_{options.cfa}"))
    except FirstlightError as error:
        print(f"net left out: {error}", flush=True)
        return None


def methods(options: argparse.Namespace) -> dict[str, Callable[[Array, tuple[int, ...]], tuple[Array, float]]]:
    """By name: samples and the picture's shape to colours of that shape, and CPU seconds per pixel."""
    pattern = PATTERN[options.cfa]
    linear = options.domain == "lin"
    noise = Noise(1 / ELECTRONS, (READ / ELECTRONS) ** 2) if linear else STILL
    table: dict[str, Any] = {}
    others: dict[str, Method] = {name: partial(libraw, pattern=pattern, name=key) for name, key in LIBRAW[options.cfa].items()}
    if any(options.only in name for name in PEERS):
        others |= peers(options.cfa)
    for name, run in others.items():
        table[name] = partial(cropped, run)
    params: dict[str, dict[str, Any]] = {"bilinear": {"method": "bilinear"}, "lmmse": {"method": "lmmse", "strength": 0.0}}
    if (model := network(options)) is not None:
        net = {"method": "net", "model": model, "strength": 0.0, "keep_samples": True}
        params |= {"net, float32": net | {"bf16": False}, "net, bfloat16": net | {"bf16": True}}
        params |= {"net, samples not kept": net | {"keep_samples": False}}
    for name, given in params.items():
        table[name] = partial(ours, pattern=pattern, noise=noise, **given)
        if options.only in name:
            table[name](np.full((120, 120), 0.5, dtype=np.float32), (48, 48))  # filters are solved once
    return {name: run for name, run in table.items() if options.only in name}


def psnr(found: Array, truth: Array) -> float:
    error = (np.clip(found, 0, 1) - truth)[BORDER:-BORDER, BORDER:-BORDER]
    return float(-10 * np.log10(np.mean(error.astype(np.float64) ** 2)))


def arguments(*, images: int = 12) -> argparse.ArgumentParser:
    """Options that the benchmarks of demosaickers share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--cfa", choices=sorted(PATTERN), default="xtrans")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--domain", choices=("enc", "lin"), default="enc")
    parser.add_argument("--only", default="", help="methods whose names hold this")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return parser


def main() -> None:
    parser = arguments()
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    table = methods(options)
    found: dict[str, list[list[float]]] = {name: [[], []] for name in table}
    taken: dict[str, list[float]] = {name: [] for name in table}
    for k, truth in pictures(options.data, options.images):
        light = truth if options.domain == "enc" else simulate.linearise(truth).astype(np.float32)
        wide = samples(light, PATTERN[options.cfa])
        for name, run in table.items():
            out, seconds = run(wide, truth.shape)
            found[name][k].append(psnr(out if options.domain == "enc" else srgb(out), truth))
            taken[name].append(seconds)
    print(f"{options.cfa}, {options.domain}{'':30s}Kodak  McMaster   CPU s/Mpx")
    for name, (kodak, mcmaster) in found.items():
        print(f"{name:40s}{np.mean(kodak):6.2f}{np.mean(mcmaster):10.2f}{1e6 * np.median(taken[name]):12.3f}", flush=True)


if __name__ == "__main__":
    main()
