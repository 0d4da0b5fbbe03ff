"""Train the network that ships as src/firstlight/weights/demosaic_{xtrans,bayer}.safetensors, and fit its linear estimate.

python scripts/train_demosaic.py PHOTOS OUT.safetensors --cfa xtrans|bayer [--seconds 2400] [--start MODEL] [--resume]
python scripts/train_demosaic.py PHOTOS OUT.npz --fit          the covariance of colours alone

PHOTOS: a folder of pictures that may be trained on (JPEG or PNG, sRGB; .npy, linear RGB panoramas) with their licences
(LICENCES.tsv: file name, tab, licence). Photographs are shrunk by 2 to 8 in linear light, which removes compression and
noise. With them charts, edges and letters, coloured and grey, from seeds of their own, grey gratings, which teach what is
false colour, and flat fields with straight borders. Half of the patches get another saturation (x 0.6-2.2) and other channel
gains (0.6-1.3).

Half of the steps are without noise, sRGB values or square roots of light, half are exposures of a detector of 60 000 e- at
ISO 100 and 2 to 4 e- read noise, at ISO 100 to 25 600 and up to 6 stops under, white-balanced. The loss is the mean absolute
error of encoded colours and, a quarter as much, of their differences from green, over what the noise of the step makes
unavoidable. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firstlight import model_file, simulate
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import lmmse
from firstlight.train.budget import Budget
from firstlight.train.demosaic import packed
from firstlight.train.job import checkpoint_for
from firstlight.train.loop import fit
from firstlight.train.mosaics import Light, MosaicBatches
from firstlight.train.pictures import Pool, drawn, encoded
from firstlight.train.validation import objective_risk

Array = NDArray[Any]
PATTERN = {"xtrans": XTRANS, "bayer": BAYER}
SHARE = {"photo": 0.5, "art": 0.05, "panorama": 0.1, "drawn": 0.1, "grating": 0.15, "edge": 0.1}
CHROMA = 0.25  # share of differences from green in the loss
BATCH, SIDE = 12, 96
ACTIVITY = 4e-3  # mean square of differences between neighbours, along Y and X together, of sRGB values: a mean photograph's


def shrunk(linear: Array, factors: tuple[int, ...]) -> list[Array]:
    out = []
    for k in factors:
        size = (linear.shape[1] // k, linear.shape[0] // k)
        if min(size) >= 2 * SIDE:
            part = linear if k == 1 else cv2.resize(linear, size, interpolation=cv2.INTER_AREA)
            out.append(encoded(np.clip(part, 0, 1)).transpose(2, 0, 1).astype(np.float16))
    return out


def pictures(folder: Path) -> dict[str, Pool]:
    """sRGB values (3, Y, X) by kind, drawn by the root of their area."""
    pool: dict[str, list[Array]] = {kind: [] for kind in SHARE}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npy":
            light = np.load(path).astype(np.float32)
            for top in (80, 95, 99):  # exposures
                pool["panorama"] += shrunk(np.maximum(light, 0) / np.percentile(light, top), (1,))
        elif path.suffix in (".jpg", ".png"):
            linear = simulate.linearise(cv2.imread(str(path))[..., ::-1]).astype(np.float32)
            kind = "art" if path.name.startswith(("ukui", "Painting")) else "photo"
            pool[kind] += shrunk(linear, (2, 3, 4, 6, 8) if min(linear.shape[:2]) > 1000 else (1, 2))
    pool["drawn"] = [drawing(np.random.default_rng(3000 + i), i).transpose(2, 0, 1).astype(np.float16) for i in range(160)]
    pool["grating"] = [grating(np.random.default_rng(9000 + i)).astype(np.float16) for i in range(240)]
    pool["edge"] = [edges(np.random.default_rng(7000 + i)).astype(np.float16) for i in range(160)]
    roots = {kind: np.sqrt([i.shape[1] * i.shape[2] for i in images]) for kind, images in pool.items()}
    return {kind: Pool(images, roots[kind] / roots[kind].sum()) for kind, images in pool.items()}


def drawing(rng: np.random.Generator, kind: int, side: int = 256) -> Array:
    """A picture (side, side, 3) of edges no photograph is sharp enough for, area-averaged from four times the size."""
    if kind % 8 == 0:
        return encoded(simulate.chart((side, side), rng)).astype(np.float32)
    if kind % 8 == 1:
        y, x = (np.mgrid[:side, :side] - rng.uniform(0, side, (2, 1, 1))).astype(np.float32)
        wave = 0.5 + 0.5 * np.cos((y * y + x * x) * rng.uniform(0.3, 1) * math.pi / side + rng.uniform(0, 6))
        low, high = rng.uniform(0, 1, (2, 3)) if rng.random() < 0.5 else np.repeat(rng.uniform(0, 1, (2, 1)), 3, 1)
        return (low + (high - low) * wave[..., None]).astype(np.float32)
    big = np.empty((4 * side, 4 * side, 3), np.uint8)
    colourful = 0.7 if kind % 8 > 3 else 0.0
    big[:] = rng.uniform(0, 256, 3) if colourful else rng.uniform(0, 256)
    for _ in range(int(rng.integers(60, 400))):
        color = rng.uniform(0, 255, 3) if rng.random() < colourful else np.repeat(rng.uniform(0, 255), 3)
        at, to = rng.integers(0, 4 * side, (2, 2)).tolist()
        width = int(rng.integers(3, 24))
        match int(rng.integers(5)):
            case 0:
                cv2.line(big, at, to, color.tolist(), width, cv2.LINE_AA)
            case 1:
                cv2.circle(big, at, int(rng.integers(4, 200)), color.tolist(), width, cv2.LINE_AA)
            case 2:
                span = rng.integers(8, 260, 2)
                cv2.rectangle(big, at, (int(at[0] + span[0]), int(at[1] + span[1])), color.tolist(), -1)
            case 3:
                text = "".join(chr(c) for c in rng.integers(48, 122, 7))
                cv2.putText(
                    big, text, at, int(rng.integers(6)), rng.uniform(1.5, 6), color.tolist(), width // 3 + 2, cv2.LINE_AA
                )
            case _:
                points = (np.array(at) + rng.integers(-160, 160, (3, 2))).astype(np.int32)
                cv2.fillPoly(big, [points], color.tolist(), cv2.LINE_AA)
    light = simulate.linearise(big).astype(np.float32)
    return encoded(cv2.resize(light, (side, side), interpolation=cv2.INTER_AREA)).clip(0, 1)


def grating(rng: np.random.Generator, side: int = 256) -> Array:
    """Grey waves (3, side, side), straight or circular, of 0.03 to 0.5 cycles/px: what most makes false colour."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    if rng.random() < 0.5:
        angle, frequency = rng.uniform(0, 2 * math.pi), rng.uniform(0.03, 0.5)
        phase = 2 * math.pi * frequency * (math.cos(angle) * y + math.sin(angle) * x)
    else:  # the frequency grows with the distance from a centre, to at most 0.5
        top, left = rng.uniform(-0.5 * side, 1.5 * side, 2)
        phase = math.pi * ((y - top) ** 2 + (x - left) ** 2) * (0.5 / (2.2 * side))
    wave = 0.5 + 0.5 * np.cos(phase + rng.uniform(0, 2 * math.pi))
    if rng.random() < 0.2:
        wave = (wave > 0.5).astype(np.float32)
    low, high = rng.uniform(0, 1, 2)
    light = low + (high - low) * wave
    return np.repeat((encoded(light) if rng.random() < 0.5 else light)[None], 3, axis=0)


def edges(rng: np.random.Generator, side: int = 256) -> Array:
    """Flat fields with straight borders (3, side, side), grey two times in three: what shows ripples beside an edge."""
    y, x = np.mgrid[: 4 * side, : 4 * side].astype(np.float32)
    seeds = rng.uniform(0, 4 * side, (int(rng.integers(4, 24)), 2))
    nearest = np.argmin([(y - v) ** 2 + (x - u) ** 2 for v, u in seeds], axis=0)
    levels = rng.uniform(0, 1, (len(seeds), 3)) if rng.random() < 1 / 3 else np.repeat(rng.uniform(0, 1, (len(seeds), 1)), 3, 1)
    light = cv2.resize(levels[nearest].astype(np.float32), (side, side), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    return encoded(light) if rng.random() < 0.5 else light


def covariance(pools: dict[str, Pool], seed: int, patches: int = 4000) -> Array:
    """The covariance of colours of photographs: patches weigh by the inverse root of their activity, which is then ACTIVITY."""
    rng = np.random.default_rng(seed)
    total = np.zeros(0)
    for i in range(patches):
        pool = pools["photo" if rng.random() < 0.75 else "panorama"]
        image = drawn(pool, rng, SIDE, 0.15).astype(np.float64)
        steep = float(np.mean(np.diff(image, axis=-1) ** 2) + np.mean(np.diff(image, axis=-2) ** 2))
        new = (steep + 3e-4) ** -0.5 * lmmse.covariance(image)
        total = total + new if i else new
    centre = lmmse.LAGS
    steep = 4 * float(np.mean([total[k, k, centre, centre] - total[k, k, centre, centre + 1] for k in range(3)]))
    return np.asarray(lmmse.folded(total * (ACTIVITY / steep)))


def train(net: nn.Module, pools: dict[str, Pool], options: argparse.Namespace, keep_it: Callable[[nn.Module], None]) -> None:
    """Averaged weights after so many CPU seconds, kept every five minutes; the rate warms up, then falls as a cosine."""
    pattern = PATTERN[options.cfa]
    pack, cells = lmmse.reach(len(pattern))
    light = Light.encoded(options.seed)
    batches = MosaicBatches(
        pools["photo"],
        pattern,
        light,
        side=SIDE + 2 * pack * (cells // 2),
        batch=BATCH,
        seed=options.seed,
        mix={kind: (pools[kind], share) for kind, share in SHARE.items() if kind != "photo"},
    )
    objective = partial(packed, filters=light.filters(np.array(pattern)), chroma=CHROMA)
    judged = [replace(batches, seed=options.seed + (1 << 20))(k) for k in range(24)]  # of the same pictures: progress alone
    checkpoint = checkpoint_for(options.out, options.resume)
    began = time.process_time()

    def kept(average: nn.Module, step: int) -> None:
        figure = float(objective_risk(average, judged, objective).mean())
        print(f"{time.process_time() - began:6.0f} s  step {step}  loss {figure:.6f}", flush=True)
        keep_it(average)

    fitted = fit(
        net,
        objective,
        batches,
        budget=Budget(options.seconds),
        rate=options.rate,
        validate=partial(objective_risk, batches=judged, objective=objective),
        validations=max(1, round(options.seconds / 300)),
        warm=500,
        clip=0.05,
        seed=options.seed,
        half=True,
        checkpoint=checkpoint,
        identity={"cfa": options.cfa, "width": options.width, "depth": options.depth},
        preview=kept,
    )
    keep_it(fitted.net)
    checkpoint.unlink(missing_ok=True)


def licences(folder: Path, parser: argparse.ArgumentParser) -> dict[str, str]:
    table = dict(line.split("\t") for line in (folder / "LICENCES.tsv").read_text().splitlines() if line)
    if missing := [p.name for p in folder.iterdir() if p.suffix in (".jpg", ".png", ".npy") and p.name not in table]:
        parser.error(f"no licence in LICENCES.tsv for {', '.join(sorted(missing))}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cfa", choices=sorted(PATTERN), default="xtrans")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--seconds", type=float, default=2400)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = licences(options.photos, parser)
    pools = pictures(options.photos)
    for kind, pool in pools.items():
        print(f"{kind}: {len(pool.pictures)} pictures, {sum(i.shape[1] * i.shape[2] for i in pool.pictures) / 1e6:.0f} Mpx")
    if options.fit:
        np.savez(options.out, covariance=covariance(pools, options.seed).astype(np.float32))
        return
    config = {"pack": lmmse.reach(len(PATTERN[options.cfa]))[0], "width": options.width, "depth": options.depth}
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in PATTERN[options.cfa]]}
    start = None if options.start is None else model_file.load(options.start).net
    net = model_file.new("packed", config, scaling=scaling, net=start).net
    data = [{"name": name, "licence": licence} for name, licence in sorted(table.items())]
    command = " ".join(["python", *sys.argv])

    def keep_it(average: nn.Module) -> None:
        made = model_file.new("packed", config, scaling=scaling, net=average, data=data, command=command, seed=options.seed)
        model_file.save(made, options.out)

    train(net, pools, options, keep_it)


if __name__ == "__main__":
    main()
