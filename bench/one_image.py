"""What one noisy image alone gives: R2R on the scene itself, nothing else learned from, beside what needs no learning.

python bench/one_image.py [--budget 60s] [--alpha A] [--seed 0] [--scenes tubules spots astro]

As `firstlight train r2r FILE` followed by `firstlight restore FILE --model`: default options, seed stated, one thread, CPU
seconds of the process, validation included. PSNR [dB] against the truth with the scene's peak; gain over NLM + GAT in the same
run. adapted: the shipped model fine-tuned on the image alone (--finetune), and whether held-out pixels let it be kept.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import Scene, all_scenes
from scipy.ndimage import gaussian_filter

from firstlight import Frame, Noise, Unit, io, model_file
from firstlight.restore import denoise, nonlocal_means
from firstlight.train import Options, finetune, train

Array = NDArray[Any]


def psnr(x: Array, scene: Scene) -> float:
    return float(10 * np.log10(scene.peak**2 / np.mean((x - scene.truth) ** 2)))


def learned(frame: Frame, options: Options) -> tuple[Frame, dict[str, Any]]:
    """The frame restored by a model that saw nothing but it, and that training's figures."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "scene.fits"), Path(folder, "model.safetensors")
        io.write(frame, path)
        row = train("r2r", path, out, options)
        return denoise(frame, model=model_file.load(out)), row


def rows(scene: Scene, options: Options, adapt: bool) -> str:
    y, noise = scene.noisy().astype(np.float32), Noise(1.0, scene.read_noise**2)
    frame = Frame(y, "YX", Unit.ELECTRON, noise)
    nlm = psnr(nonlocal_means(frame, std=False).data, scene)
    found, row = learned(frame, options)
    figures = [psnr(y, scene), psnr(gaussian_filter(y, 1.0), scene), nlm, psnr(found.data, scene)]
    text = f"{scene.name:26s}" + "".join(f"{f:10.2f}" for f in figures) + f"{figures[-1] - nlm:+8.2f}"
    text += f"{row['steps']:8d}{row['seconds']:8.1f}{row['risk']:9.4f}"
    return text + (adapted(scene, frame, options) if adapt else "")


def adapted(scene: Scene, frame: Frame, options: Options) -> str:
    shipped = model_file.load(model_file.shipped())
    model = finetune(frame, shipped, budget=options.budget, seed=options.seed)
    before, after = (psnr(denoise(frame, model=m).data, scene) for m in (shipped, model))
    return f"{before:10.2f}{after:10.2f}{after - before:+8.2f}  {'kept as it was' if model is shipped else 'adapted'}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--alpha", type=float, default=Options.alpha)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", nargs="+", default=["tubules", "spots", "astro"], help="beginnings of names")
    parser.add_argument("--adapt", action="store_true", help="fine-tune the shipped model too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = Options(budget=given.budget, alpha=given.alpha, seed=given.seed)
    print(f"R2R from one image: {given.budget} of one core, alpha {given.alpha:g}, batch {options.batch}, seed {given.seed}")
    heads = ("noisy", 10), ("gauss1", 10), ("NLM+GAT", 10), ("R2R", 10), ("gain", 8), ("steps", 8), ("CPU s", 8), ("risk", 9)
    more = (("shipped", 10), ("adapted", 10), ("gain", 8)) if given.adapt else ()
    print(f"{'scene':26s}" + "".join(f"{name:>{width}s}" for name, width in (*heads, *more)), flush=True)
    for scene in all_scenes():
        if scene.name.startswith(tuple(given.scenes)):
            print(rows(scene, options, given.adapt), flush=True)


if __name__ == "__main__":
    main()
