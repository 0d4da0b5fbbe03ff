"""Train the universal Poisson-Gaussian denoiser that ships as src/firstlight/weights/universal.safetensors.

python scripts/train_universal.py PHOTOS OUT.safetensors [--seconds 1730] [--start MODEL.safetensors] [--seed 5]

PHOTOS: a folder of photographs that may be trained on (JPEG); they are shrunk by 2, 3 and 4 in linear light, which removes
compression and noise. With them thirteen photographs that come with scikit-image (never astronaut, coffee or camera, which the
benchmark judges on), filaments, spots, star fields and charts of firstlight.simulate from seeds of their own. Each step draws 8
patches of 64 px, a signal level (6 to 1500 e-, star fields 4 to 300 e- of sky) and a read noise (0.3 to 13 e-), and asks for
E[stabilise(y) | truth]: objective `supervised` with residuals beyond 5 held there. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firstlight import model_file, simulate
from firstlight.denoiser import estimate
from firstlight.noise import Noise
from firstlight.train.sources import expected

Array = NDArray[Any]
READ_NOISE = (0.3, 0.6, 1.0, 1.6, 2.3, 3.2, 4.5, 6.5, 9.0, 13.0)
SHARE = {"photo": 0.62, "filaments": 0.12, "stars": 0.12, "spots": 0.08, "charts": 0.06}
BUNDLED = (
    *("chelsea", "coins", "moon", "brick", "grass", "gravel", "rocket", "immunohistochemistry", "clock", "page", "text"),
    *("retina", "hubble_deep_field"),
)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
PREFILTER, BATCH, SIDE, RATE, CLIP, HEAD = "limited", 8, 64, 1e-3, 5.0, 0.1


def shrunk(image: Array, factors: tuple[int, ...]) -> list[Array]:
    grey = simulate.linearise(image)
    grey = (grey @ LUMINANCE if grey.ndim == 3 else grey).astype(np.float32)
    sizes = [(grey.shape[1] // k, grey.shape[0] // k) for k in factors]
    parts = [cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for size in sizes if min(size) >= 2 * SIDE]
    return [part / max(float(np.percentile(part, 99.5)), 1e-3) for part in parts]


def scenes(photos: Path) -> dict[str, list[Array]]:
    from skimage import data

    pool: dict[str, list[Array]] = {kind: [] for kind in SHARE}
    for path in sorted(photos.glob("*.jpg")):
        pool["photo"] += shrunk(cv2.imread(str(path))[..., ::-1], (2, 3, 4))
    for name in BUNDLED:
        try:
            image = np.asarray(getattr(data, name)())
        except Exception as error:  # some are not in the wheel
            print(f"{name}: left out ({type(error).__name__})")
            continue
        pool["photo"] += shrunk(image[..., :3] if image.ndim == 3 else image, (1, 2))
    for i in range(24):
        rng, shape = np.random.default_rng(1000 + i), (512, 512)
        for kind, draw in (("filaments", simulate.filaments), ("spots", simulate.spots)):
            image = draw(shape, rng)
            pool[kind].append(image / np.percentile(image, 99.5))
        pool["stars"].append(simulate.star_field(shape, rng)[0])
        chart = simulate.chart(shape, rng)
        chart = chart.mean(-1) if chart.ndim == 3 else chart
        pool["charts"].append(chart / np.percentile(chart, 99.5))
    return pool


def electrons(pool: dict[str, list[Array]], rng: np.random.Generator) -> Array:
    """A patch of truth [e-], turned and flipped."""
    kind = rng.choice(list(SHARE), p=list(SHARE.values()))
    image = pool[kind][rng.integers(len(pool[kind]))]
    y, x = (rng.integers(n - SIDE + 1) for n in image.shape)
    patch = np.rot90(image[y : y + SIDE, x : x + SIDE], rng.integers(4))
    patch = patch[::-1] if rng.random() < 0.5 else patch
    if kind == "stars":
        sky, gain = np.exp(rng.uniform(np.log(4), np.log(300))), np.exp(rng.uniform(np.log(0.3), np.log(3)))
        return np.maximum(sky + (patch - 40) * gain, 0)
    light = patch * np.exp(rng.uniform(np.log(6), np.log(1500)))
    return np.maximum(light + (np.exp(rng.uniform(0, np.log(100))) if rng.random() < 0.2 else 0), 0)


def batch(pool: dict[str, list[Array]], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Stabilised counts and what they are on average, (BATCH, 1, SIDE, SIDE)."""
    read_noise = READ_NOISE[rng.integers(len(READ_NOISE))]
    noise = Noise(1.0, read_noise**2)
    truth = np.stack([electrons(pool, rng) for _ in range(BATCH)])
    counts = rng.poisson(truth) + rng.normal(0, read_noise, truth.shape)
    pair = noise.stabilise(counts), expected(noise, truth)
    return tuple(torch.as_tensor(np.asarray(part, np.float32)[:, None]) for part in pair)  # type: ignore[return-value]


def train(net: nn.Module, pool: dict[str, list[Array]], seconds: float, seed: int) -> dict[str, torch.Tensor]:
    """The averaged weights after so many CPU seconds; the rate warms up, then falls as a cosine."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    average = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    start, step, told = time.process_time(), 0, 0.0
    while (spent := time.process_time() - start) < seconds:
        rate = RATE * min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * spent / seconds)) + 1e-6
        for group in optimizer.param_groups:
            group["lr"] = rate
        z, target = batch(pool, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = estimate(net, z, PREFILTER)
        square = (found.mean.float() - target) ** 2
        assert found.log_variance is not None
        held = 0.5 * (square.detach() * torch.exp(-found.log_variance) + found.log_variance)
        loss = square.clamp(max=CLIP**2).mean() + HEAD * held.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        keep = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                average[k].lerp_(v, 1 - keep)
        if spent > told:
            told += 60
            print(f"{spent:6.0f} s  step {step}  squared error {float(square.mean().detach()):.4f}", flush=True)
    return average


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1730)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = {"inputs": 2, "outputs": 2}
    scaling = {"domain": "stabilised", "prefilter": PREFILTER}
    start = None if options.start is None else model_file.load(options.start).net
    net = model_file.new("lean", config, scaling=scaling, net=start).net
    net.load_state_dict(train(net, scenes(options.photos), options.seconds, options.seed))
    made = model_file.new(
        "lean",
        config,
        scaling=scaling,
        net=net,
        data=[{"name": p.name, "licence": "see the folder's README"} for p in sorted(options.photos.glob("*.jpg"))],
        command=" ".join(["python", *sys.argv]),
        seed=options.seed,
    )
    model_file.save(made, options.out)


if __name__ == "__main__":
    main()
