"""Torture pictures and photographs before and after training that mixes a tenth of torture in.

python bench/torture.py PHOTOS IMAGES [--start MODEL] [--first "60s"] [--budget "60s"] [--share 0.1] [--alone] [--kinds]

PHOTOS: what is learned from; IMAGES: a folder of pictures that are judged, not among them. Without --start a network is trained
on PHOTOS alone for --first. Then it goes on for --budget with PHOTOS alone, and, from the same start, with torture mixed in;
with --alone on torture alone too: what so many seconds could give at most, and what it costs photographs.
Torture sets: --pictures of seed 1 to learn from, 130 of seed 2 to judge. PSNR [dB] of sRGB values sampled as if linear,
one mean square over three channels, 10 px of border left out, the mean over images. X-Trans; CPU seconds of one thread, or with
--device cuda of the GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firstlight import Frame, Mosaic, Noise, Observation, Unit, io, model_file
from firstlight.dataset import read_torture, write_torture
from firstlight.evaluation.demosaickers import psnr
from firstlight.geometry import XTRANS
from firstlight.restore import demosaic
from firstlight.simulate import KINDS
from firstlight.train import Learning, learn_demosaic
from firstlight.train.pictures import encoded


def figures(truths: list[Any], **params: Any) -> list[float]:
    """PSNR of each of pictures (3, Y, X) of sRGB values."""
    found = []
    for truth in truths:
        samples = np.take_along_axis(truth, Mosaic(XTRANS).at(truth.shape[1:])[None], axis=0)[0]
        seen = Observation(saturation=1.0)
        frame = Frame(samples, "YX", Unit.ARBITRARY, Noise(0.0, 0.0), geometry=Mosaic(XTRANS), observation=seen)
        found.append(psnr(demosaic(frame, **params).data, truth))
    return found


def told(name: str, torture: list[Any], photos: list[Any], kinds: bool, **params: Any) -> None:
    hard, real = (figures(truths, **params) for truths in (torture, photos))
    each = [f"{np.mean(hard[k :: len(KINDS)]):5.1f}" for k in range(len(KINDS))] if kinds else []
    print(f"{name:32s}{np.mean(hard):7.2f}{np.mean(real):13.2f}   {' '.join(each)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--first", default="60s")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--shrink", type=int, nargs="+", default=[3, 4, 6])
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--pictures", type=int, default=1300)
    parser.add_argument("--images-count", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_torture(here / "learn.npz", count=options.pictures, seed=1)
        write_torture(here / "judge.npz", count=130, seed=2)
        torture = [encoded(p.astype(np.float32)).astype(np.float32) for p in read_torture(here / "judge.npz")[0]]
        paths = [p for p in sorted(options.images.iterdir()) if p.suffix in (".png", ".jpg", ".tif")]
        photos = [np.asarray(io.read(p).data, dtype=np.float32) / 255 for p in paths[: options.images_count]]
        common: dict[str, Any] = {"noisy": 0.0, "validations": 1, "rate": options.rate, "device": options.device}
        real = {**common, "shrink": tuple(options.shrink)}
        if options.start is None:
            first = Learning(width=options.width, depth=options.depth, budget=options.first, **real)
            learn_demosaic(options.photos, here / "before.safetensors", first)
        start = options.start or here / "before.safetensors"
        on: dict[str, tuple[Path, Learning]] = {
            "photographs alone": (options.photos, Learning(start=start, budget=options.budget, **real)),
            "mixed": (
                options.photos,
                Learning(start=start, budget=options.budget, mix=(f"{here / 'learn.npz'}:{options.share}",), **real),
            ),
        }
        if options.alone:
            on["torture alone"] = (here / "learn.npz", Learning(start=start, budget=options.budget, **common))
        print(f"{'':32s}torture  photographs" + (f"   {' '.join(KINDS)}" if options.kinds else ""))
        told("bilinear", torture, photos, options.kinds, method="bilinear")
        told("lmmse", torture, photos, options.kinds, method="lmmse")
        told("before", torture, photos, options.kinds, method="net", model=model_file.load(start), bf16=False)
        for name, (data, learning) in on.items():
            path = here / f"{name}.safetensors"
            steps = learn_demosaic(data, path, learning)["steps"]
            params = {"method": "net", "model": model_file.load(path), "bf16": False}
            told(f"on, {name}, {steps} steps", torture, photos, options.kinds, **params)


if __name__ == "__main__":
    main()
