"""Train the universal Poisson-Gaussian denoiser that ships as src/firstlight/weights/universal.safetensors.

python scripts/train_universal.py PHOTOS OUT.safetensors [--seconds 4200] [--start MODEL.safetensors] [--rate 1e-3] [--seed 5]

PHOTOS: a folder of photographs that may be trained on (JPEG) with their licences (LICENCES.tsv: file name, tab, licence); they
are shrunk by 2, 3, 4, 6 and 8 in linear light, which removes compression and noise. With them photographs that come with
scikit-image (never astronaut, coffee or camera, which the benchmark judges on), filaments, membranes, nuclei, spots, star
fields with galaxies and charts of firstlight.simulate from seeds of their own. Each step draws 8 patches of 64 px, a signal
level (6 to 1500 e-, star fields 4 to 300 e- of sky) and a read noise (0.3 to 13 e-; one step in four with heavy tails, row
noise, rounding and a full well besides), and asks for E[stabilise(y) | truth]: objective `supervised` with residuals beyond 5
held there. CPU seconds of one thread.
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
SHARE = {"photo": 0.62, "filaments": 0.1, "membranes": 0.03, "nuclei": 0.03, "stars": 0.11, "spots": 0.07, "charts": 0.04}
BUNDLED = (
    *("chelsea", "coins", "moon", "brick", "grass", "gravel", "rocket", "immunohistochemistry", "clock", "page", "text"),
    *("retina", "hubble_deep_field", "stereo_motorcycle"),
)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
PREFILTER, BATCH, SIDE, CLIP, HEAD = "limited", 8, 64, 5.0, 0.1


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
        image = cv2.imread(str(path))[..., ::-1]
        pool["photo"] += shrunk(image, (2, 3, 4, 6, 8) if min(image.shape[:2]) > 1000 else (1, 2))
    for name in BUNDLED:
        try:
            image = getattr(data, name)()
            image = np.asarray(image[0] if isinstance(image, tuple) else image)
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
        chart = simulate.chart(shape, rng).mean(-1)
        pool["charts"].append(chart / np.percentile(chart, 99.5))
    for i in range(12):
        rng = np.random.default_rng(1100 + i)
        for kind, image in (
            ("membranes", simulate.membranes(shape, rng, size=rng.uniform(20, 70), width=rng.uniform(1, 2.5))),
            ("nuclei", simulate.nuclei(shape, rng, radius=rng.uniform(7, 22), density=rng.uniform(2e-4, 1e-3))),
        ):
            pool[kind].append(image / np.percentile(image, 99.5))
        pool["stars"].append(sky(shape, rng))
    return pool


def sky(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Stars and galaxies over 40 e- of sky, the seeing from 1.6 to 5 px."""
    fwhm = rng.uniform(1.6, 5)
    field = simulate.star_field(shape, rng, n=int(rng.integers(60, 500)), fwhm=fwhm, slope=rng.uniform(0.4, 0.9))[0]
    galaxies = [
        simulate.Galaxy(
            *rng.uniform(0, shape[0], 2),
            flux=100 * rng.pareto(0.7) + 200,
            radius=rng.uniform(1, 9),
            sersic=rng.uniform(0.5, 4),
            ratio=rng.uniform(0.25, 1),
            angle=rng.uniform(0, np.pi),
        )
        for _ in range(25)
    ]
    return np.asarray(field + np.minimum(simulate.render(shape, galaxies, fwhm=fwhm), 30000))


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
    real = rng.random() < 0.25
    counts = simulate.read_out(
        truth,
        rng,
        read_noise=read_noise,
        tails=rng.uniform(0.01, 0.12) if real else 0,
        rows=rng.uniform(0, 0.05) if real else 0,
        step=read_noise * rng.uniform(0.1, 0.6) if real else 0,
        full_well=rng.uniform(0.8, 4) * float(truth.max()) if real else np.inf,
    )
    pair = noise.stabilise(counts), expected(noise, truth)
    return tuple(torch.as_tensor(np.asarray(part, np.float32)[:, None]) for part in pair)  # type: ignore[return-value]


def train(net: nn.Module, pool: dict[str, list[Array]], seconds: float, seed: int, top: float) -> dict[str, torch.Tensor]:
    """The averaged weights after so many CPU seconds; the rate warms up, then falls as a cosine."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    average = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=top, weight_decay=1e-4, betas=(0.9, 0.99))
    start, step, told = time.process_time(), 0, 0.0
    while (spent := time.process_time() - start) < seconds:
        rate = top * min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * spent / seconds)) + 1e-6
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
    parser.add_argument("--seconds", type=float, default=4200)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = (options.photos / "LICENCES.tsv").read_text().splitlines()
    licences = dict(line.split("\t") for line in table if line)
    if missing := [p.name for p in options.photos.glob("*.jpg") if p.name not in licences]:
        parser.error(f"no licence in LICENCES.tsv for {', '.join(sorted(missing))}")
    config = {"inputs": 2, "outputs": 2}
    scaling = {"domain": "stabilised", "prefilter": PREFILTER}
    start = None if options.start is None else model_file.load(options.start).net
    net = model_file.new("lean", config, scaling=scaling, net=start).net
    net.load_state_dict(train(net, scenes(options.photos), options.seconds, options.seed, options.rate))
    made = model_file.new(
        "lean",
        config,
        scaling=scaling,
        net=net,
        data=[{"name": p.name, "licence": licences[p.name]} for p in sorted(options.photos.glob("*.jpg"))],
        command=" ".join(["python", *sys.argv]),
        seed=options.seed,
    )
    model_file.save(made, options.out)


if __name__ == "__main__":
    main()
