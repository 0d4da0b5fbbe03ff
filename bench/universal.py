"""The shipped denoiser on the benchmark's scenes, none of which it has seen: PSNR beside doing nothing and classical filters.

python bench/universal.py [--model MODEL.safetensors] [--ensemble] [--card OUT.safetensors]

PSNR [dB] with the scene's peak; gain over NLM + GAT of the same run, beside it what BM3D + GAT gained over NLM + GAT when that
was measured (photo 30 e- 1.7 / 1.4 / .8, 300 e- 1.2 / 1.1 / .9, tubules 1.9, spots 3.1, sky 2.2; BM3D's licence keeps it out).
cover: share of the truth within 1.645 standard errors, least and greatest over bins of the truth of 1000 pixels and more;
chi2: of the residual, over its expectation, likewise by bins of the restored signal. Noise
seed: scenes.SEED. --card writes the model again with these figures on its card.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import Scene, all_scenes
from scipy.ndimage import gaussian_filter

from firstlight import Frame, Noise, Unit, measure, model_file
from firstlight.restore import denoise, nonlocal_means

Array = NDArray[Any]
BM3D = (1.7, 1.4, 0.8, 1.2, 1.1, 0.9, 1.9, 3.1, 2.2, 2.2, 2.2)
LEAST, BINS = 1000, 12


def psnr(x: Array, scene: Scene) -> float:
    return float(10 * np.log10(scene.peak**2 / np.mean((x - scene.truth) ** 2)))


def cover(found: Frame, truth: Array) -> list[float]:
    """Shares inside the 90 % interval, by bins of the truth that hold equally many pixels."""
    inside = np.abs(np.asarray(found.data) - truth) < 1.6449 * np.asarray(found.std)
    order = np.argsort(truth, axis=None)
    bins = np.array_split(order, max(1, min(BINS, truth.size // LEAST)))
    return [float(inside.ravel()[part].mean()) for part in bins]


def row(scene: Scene, model: str | None, options: dict[str, Any]) -> tuple[list[float], Frame, Frame]:
    y, noise = scene.noisy().astype(np.float32), Noise(1.0, scene.read_noise**2)
    frame = Frame(y, "YX", Unit.ELECTRON, noise)
    found = denoise(frame, model=model, std=True, **options)
    images = (y, gaussian_filter(y, 1.0), nonlocal_means(frame, std=False).data, found.data)
    return [psnr(np.asarray(image), scene) for image in images], frame, found


def with_figures(model: str | None, measured: dict[str, Any], out: Path) -> None:
    found = model_file.load(model_file.shipped() if model is None else Path(model))
    model_file.save(replace(found, card={**found.card, "figures": {"psnr_db": measured}}), out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--ensemble", action="store_true", help="the mean over flips and quarter turns, at 8 times the cost")
    parser.add_argument("--card", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {"ensemble": True} if given.ensemble else {}
    heads = ("noisy", "gauss1", "NLM+GAT", "network", "gain", "BM3D's", "cover", "", "chi2", "")
    print(f"{'scene':26s}" + "".join(f"{h:>9s}" for h in heads), flush=True)
    inside: list[float] = []
    measured: dict[str, Any] = {"rows": "bench/universal.py, seed scenes.SEED, none trained on: network, NLM + GAT [dB]"}
    for scene, bar in zip(all_scenes(), BM3D, strict=True):
        figures, frame, found = row(scene, given.model, options)
        shares = cover(found, scene.truth)
        ratios = [b.ratio for b in measure.judged([(frame, found)]).by_signal if b.n >= LEAST]
        inside += shares
        measured[scene.name] = [round(figures[3], 2), round(figures[2], 2)]
        text = f"{scene.name:26s}" + "".join(f"{f:9.2f}" for f in figures) + f"{figures[-1] - figures[-2]:+9.2f}{bar:+9.2f}"
        print(text + "".join(f"{f:9.3f}" for f in (min(shares), max(shares), min(ratios), max(ratios))), flush=True)
    good = np.mean([0.87 <= s <= 0.93 for s in inside])
    if given.card:
        with_figures(given.model, measured, given.card)
    print(f"bins whose 90 % intervals hold 87 to 93 %: {good:.0%} of {len(inside)}")


if __name__ == "__main__":
    main()
