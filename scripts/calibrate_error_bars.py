"""Measure how wide a model's error bars must be, and write the model again with that table in its scaling.

python scripts/calibrate_error_bars.py MODEL.safetensors PHOTOS OUT.safetensors [--seed 77]

Scenes as in train_universal.py, drawn from other seeds and photographs shrunk by other factors; none is the benchmark's. The
table T(stabilised level, log-variance) is the one that makes 90 % of |error| smaller than 1.645 exp(log_variance / 2 + T) at
every level and log-variance: a quantile regression (Koenker & Bassett 1978), which heavy tails do not widen. Deterministic;
about half a minute of one core.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from train_universal import READ_NOISE, SHARE, Array, shrunk, sky

from firstlight import Noise, model_file, simulate
from firstlight.inference import predict, ready
from firstlight.model_file import Model
from firstlight.restore.error_bars import KEY, corners
from firstlight.train.sources import expected

SIDE, PATCHES, PIXELS = 192, 320, 2500
SHARES, WIDE = 0.9, 1.6449  # of |error| within so many standard errors
LEVEL = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
LOG_VARIANCE = (-5.5, -4.5, -3.5, -2.5, -1.5, -0.5, 0.5)
SMOOTH, STEPS = 2e-4, 300


def scenes(photos: Path) -> dict[str, list[Array]]:
    pool: dict[str, list[Array]] = {kind: [] for kind in SHARE}
    for path in sorted(photos.glob("*.jpg")):
        pool["photo"] += shrunk(cv2.imread(str(path))[..., ::-1], (3, 5, 7))
    shape = (384, 384)
    for i in range(8):
        rng = np.random.default_rng(5000 + i)
        drawn = {
            "filaments": simulate.filaments(shape, rng),
            "spots": simulate.spots(shape, rng),
            "charts": simulate.chart(shape, rng).mean(-1),
            "membranes": simulate.membranes(shape, rng, size=rng.uniform(20, 70), width=rng.uniform(1, 2.5)),
            "nuclei": simulate.nuclei(shape, rng, radius=rng.uniform(7, 22), density=rng.uniform(2e-4, 1e-3)),
        }
        for kind, image in drawn.items():
            pool[kind].append(image / np.percentile(image, 99.5))
        pool["stars"] += [simulate.star_field(shape, rng)[0], sky(shape, rng)]
    return {kind: [image for image in images if min(image.shape) >= SIDE] for kind, images in pool.items()}


def electrons(pool: dict[str, list[Array]], rng: np.random.Generator) -> Array:
    kind = rng.choice(list(SHARE), p=list(SHARE.values()))
    image = pool[kind][rng.integers(len(pool[kind]))]
    y, x = (rng.integers(n - SIDE + 1) for n in image.shape)
    patch = image[y : y + SIDE, x : x + SIDE]
    if kind == "stars":
        dark, gain = np.exp(rng.uniform(np.log(4), np.log(300))), np.exp(rng.uniform(np.log(0.3), np.log(3)))
        return np.asarray(np.maximum(dark + (patch - 40) * gain, 0))
    light = patch * np.exp(rng.uniform(np.log(6), np.log(1500)))
    return np.asarray(np.maximum(light + (np.exp(rng.uniform(0, np.log(100))) if rng.random() < 0.2 else 0), 0))


def errors(model: Model, pool: dict[str, list[Array]], seed: int) -> NDArray[np.float64]:
    """(3, n): the network's stabilised mean, its log-variance, and |mean - truth|."""
    rng, net, found = np.random.default_rng(seed), ready(model.net, bf16=False), []
    for _ in range(PATCHES):
        read_noise = READ_NOISE[rng.integers(len(READ_NOISE))]
        noise, truth = Noise(1.0, read_noise**2), electrons(pool, rng)
        counts = rng.poisson(truth) + rng.normal(0, read_noise, truth.shape)
        mean, log_variance = predict(model, noise.stabilise(counts)[None].astype(np.float32), net=net)
        if log_variance is None:
            raise SystemExit("this model has no log-variance head")
        chosen = rng.permutation(truth.size)[:PIXELS]
        off = np.abs(expected(noise, truth) - mean[0])
        found.append(np.stack([part.ravel()[chosen] for part in (mean[0], log_variance[0], off)]))
    return np.concatenate(found, axis=1, dtype=np.float64)


def table(mean: Array, log_variance: Array, off: Array) -> Array:
    """log_scale (level, log_variance): the pinball loss of log|error| - log(WIDE) - log_variance / 2, and its smoothness."""
    parts = corners(LEVEL, LOG_VARIANCE, mean, log_variance)
    index = torch.as_tensor(np.stack([i for i, _ in parts]))
    weight = torch.as_tensor(np.stack([w for _, w in parts]), dtype=torch.float32)
    wanted = torch.as_tensor(np.log(np.maximum(off, 1e-4) / WIDE) - log_variance / 2, dtype=torch.float32)
    found = torch.zeros((len(LEVEL), len(LOG_VARIANCE)), requires_grad=True)
    optimizer = torch.optim.Adam([found], lr=0.05)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / STEPS) + 1e-3
        over = wanted - (found.ravel()[index] * weight).sum(0)
        rough = sum((found.diff(dim=axis) ** 2).sum() for axis in (0, 1))
        loss = torch.maximum(SHARES * over, (SHARES - 1) * over).mean() + SMOOTH * rough
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.asarray(found.detach().numpy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = model_file.load(options.model)
    made = table(*errors(model, scenes(options.photos), options.seed))
    rounded = [[round(float(value), 3) for value in row] for row in made]
    scale = {"level": list(LEVEL), "log_variance": list(LOG_VARIANCE), "log_scale": rounded}
    card = {**model.card, "error_bars": f"python scripts/calibrate_error_bars.py MODEL PHOTOS OUT --seed {options.seed}"}
    model_file.save(replace(model, scaling={**model.scaling, KEY: scale}, card=card), options.out)
    print("\n".join(" ".join(f"{value:6.3f}" for value in row) for row in rounded))


if __name__ == "__main__":
    main()
