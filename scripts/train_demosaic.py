"""Train the network that ships as src/firstlight/weights/demosaic_{xtrans,bayer}.safetensors, and fit its linear estimate.

python scripts/train_demosaic.py PHOTOS OUT.safetensors --cfa xtrans|bayer [--seconds 2400] [--start MODEL.safetensors]
python scripts/train_demosaic.py PHOTOS OUT.npz --fit          the covariance of colours alone

PHOTOS: a folder of pictures that may be trained on (JPEG or PNG, sRGB; .npy, linear RGB panoramas) with their licences
(LICENCES.tsv: file name, tab, licence). Photographs are shrunk by 2 to 8 in linear light, which removes compression and
noise. With them charts, zone plates and coloured edges and letters, from seeds of their own. Half of the patches get another
saturation (x 0.6-2.2) and other channel gains (0.6-1.3).

Half of the steps are without noise, sRGB values or square roots of light, half are exposures of a detector of 60 000 e- at
ISO 100 and 2 to 4 e- read noise, at ISO 100 to 25 600, white-balanced. The loss is the mean absolute error of encoded
colours, over what the noise of the step makes unavoidable. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from firstlight import model_file, simulate
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import lmmse
from firstlight.train.demosaic import STEADY
from firstlight.train.mosaics import bank, curved, exposed, masks
from firstlight.train.pictures import encoded, recoloured

Array = NDArray[Any]
PATTERN = {"xtrans": XTRANS, "bayer": BAYER}
SHARE = {"photo": 0.68, "art": 0.06, "panorama": 0.1, "drawn": 0.16}
BATCH, SIDE, BANKS = 12, 96, 24
ACTIVITY = 4e-3  # mean square of differences between neighbours, along Y and X together, of sRGB values: a mean photograph's


def shrunk(linear: Array, factors: tuple[int, ...]) -> list[Tensor]:
    out = []
    for k in factors:
        size = (linear.shape[1] // k, linear.shape[0] // k)
        if min(size) >= 2 * SIDE:
            part = linear if k == 1 else cv2.resize(linear, size, interpolation=cv2.INTER_AREA)
            out.append(torch.from_numpy(encoded(np.clip(part, 0, 1)).transpose(2, 0, 1)).half())
    return out


def pictures(folder: Path) -> dict[str, list[Tensor]]:
    """sRGB values (3, Y, X) by kind."""
    pool: dict[str, list[Tensor]] = {kind: [] for kind in SHARE}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npy":
            light = np.load(path).astype(np.float32)
            for top in (80, 95, 99):  # exposures
                pool["panorama"] += shrunk(np.maximum(light, 0) / np.percentile(light, top), (1,))
        elif path.suffix in (".jpg", ".png"):
            linear = simulate.linearise(cv2.imread(str(path))[..., ::-1]).astype(np.float32)
            kind = "art" if path.name.startswith(("ukui", "Painting")) else "photo"
            pool[kind] += shrunk(linear, (2, 3, 4, 6, 8) if min(linear.shape[:2]) > 1000 else (1, 2))
    pool["drawn"] = [torch.from_numpy(drawn(np.random.default_rng(3000 + i), i).transpose(2, 0, 1)).half() for i in range(160)]
    return pool


def drawn(rng: np.random.Generator, kind: int, side: int = 256) -> Array:
    """A picture (side, side, 3) of edges no photograph is sharp enough for, area-averaged from four times the size."""
    if kind % 8 == 0:
        return encoded(simulate.chart((side, side), rng)).astype(np.float32)
    if kind % 8 == 1:
        y, x = (np.mgrid[:side, :side] - rng.uniform(0, side, (2, 1, 1))).astype(np.float32)
        wave = 0.5 + 0.5 * np.cos((y * y + x * x) * rng.uniform(0.3, 1) * math.pi / side + rng.uniform(0, 6))
        low, high = rng.uniform(0, 1, (2, 3)) if rng.random() < 0.5 else np.repeat(rng.uniform(0, 1, (2, 1)), 3, 1)
        return (low + (high - low) * wave[..., None]).astype(np.float32)
    big = np.empty((4 * side, 4 * side, 3), np.uint8)
    big[:] = rng.uniform(0, 256, 3)
    for _ in range(int(rng.integers(60, 400))):
        color = rng.uniform(0, 255, 3) if rng.random() < 0.7 else np.repeat(rng.uniform(0, 255), 3)
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


def patch(
    pool: dict[str, list[Tensor]],
    rng: np.random.Generator,
    side: int,
    sizes: dict[str, Array],
    share: dict[str, float] = SHARE,
    recolored: float = 0.5,
) -> Tensor:
    """sRGB values (3, side, side), turned and flipped, the share `recolored` of them with other colours."""
    kind = rng.choice(list(share), p=list(share.values()))
    for _ in range(3):  # what is flat teaches little
        image = pool[kind][rng.choice(len(pool[kind]), p=sizes[kind])]
        y, x = (int(rng.integers(n - side + 1)) for n in image.shape[1:])
        part = image[:, y : y + side, x : x + side].float()
        if float((part[1, :, 1:] - part[1, :, :-1]).abs().mean()) > rng.uniform(0, 0.015):
            break
    part = torch.rot90(part, int(rng.integers(4)), (1, 2))
    part = part.flip(2) if rng.random() < 0.5 else part
    if rng.random() < recolored:
        part = torch.from_numpy(recoloured(part.numpy(), rng))
    return part


def weights_of(pool: dict[str, list[Tensor]]) -> dict[str, Array]:
    """How likely each picture is drawn: by the root of its area."""
    roots = {kind: np.sqrt([i.shape[1] * i.shape[2] for i in images]) for kind, images in pool.items()}
    return {kind: root / root.sum() for kind, root in roots.items()}


def fit(pool: dict[str, list[Tensor]], seed: int, patches: int = 4000) -> Array:
    """The covariance of colours of photographs: patches weigh by the inverse root of their activity, which is then ACTIVITY."""
    rng, sizes = np.random.default_rng(seed), weights_of(pool)
    total = np.zeros(0)
    for i in range(patches):
        image = patch(pool, rng, SIDE, sizes, {"photo": 0.75, "panorama": 0.25}, 0.15).numpy().astype(np.float64)
        steep = float(np.mean(np.diff(image, axis=-1) ** 2) + np.mean(np.diff(image, axis=-2) ** 2))
        new = (steep + 3e-4) ** -0.5 * lmmse.covariance(image)
        total = total + new if i else new
    centre = lmmse.LAGS
    steep = 4 * float(np.mean([total[k, k, centre, centre] - total[k, k, centre, centre + 1] for k in range(3)]))
    return np.asarray(lmmse.folded(total * (ACTIVITY / steep)))


def packed(cell: Array, sigma: tuple[float, float, float]) -> Tensor:
    """Filters as a convolution's weights (3 side^2, side^2, cells, cells)."""
    from firstlight.restore.packed import as_convolution

    return as_convolution(lmmse.filters(cell, sigma)[0])


def train(
    net: nn.Module, pool: dict[str, list[Tensor]], options: argparse.Namespace, keep_it: Callable[[dict[str, Tensor]], None]
) -> None:
    """Averaged weights after so many CPU seconds, kept every five minutes; the rate warms up, then falls as a cosine."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    cell = np.array(PATTERN[options.cfa])
    pack, cells = lmmse.reach(len(cell))
    edge = pack * (cells // 2)
    side, sizes = SIDE + 2 * edge, weights_of(pool)
    mask = masks(PATTERN[options.cfa], side)
    still = packed(cell, (0.0, 0.0, 0.0))
    banks = [(one, packed(cell, one.sigma)) for one in (bank(iso, rng) for iso in np.geomspace(100, 25600, BANKS))]
    average = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=1e-5, betas=(0.9, 0.99))
    start, step, told, sums = time.process_time(), 0, 0.0, np.zeros((2, 3))
    while (spent := time.process_time() - start) < options.seconds:
        rate = options.rate * min(1, (step + 1) / 500) * 0.5 * (1 + math.cos(math.pi * spent / options.seconds)) + 5e-6
        for group in optimizer.param_groups:
            group["lr"] = rate
        truth = torch.stack([patch(pool, rng, side, sizes) for _ in range(BATCH)])
        noisy = int(rng.random() < 0.5)
        if noisy:
            one, weight = banks[int(rng.integers(BANKS))]
            samples, truth = exposed(truth, one, mask, rng)
            sigma, unit = torch.tensor([one.sigma]), 1 + one.sigma[1] / STEADY
        else:
            truth = curved(truth, rng)
            samples = (truth * mask).sum(1, keepdim=True)
            weight, sigma, unit = still, torch.zeros(1, 3), 1.0
        folded = functional.pixel_unshuffle(samples, pack)
        base = functional.conv2d(folded, weight)
        target = functional.pixel_unshuffle(truth[:, :, edge:-edge, edge:-edge], pack)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = net(folded, base, sigma.expand(BATCH, 3))
        error = (base + found.float() - target).abs()
        loss = error.mean() / unit
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        optimizer.step()
        step += 1
        keep = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                average[k].lerp_(v, 1 - keep)
            sums[noisy] += (1, float(error.mean()), float((base - target).abs().mean()))
        if spent > told:
            told += 60
            still_ratio, noisy_ratio = (s[1] / s[2] if s[0] else math.nan for s in sums)
            print(
                f"{spent:6.0f} s  step {step}  error over linear: still {still_ratio:.4f}  noisy {noisy_ratio:.4f}", flush=True
            )
            sums[:] = 0
            if step > 1 and told % 300 == 60:
                keep_it(average)
    keep_it(average)


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
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = licences(options.photos, parser)
    pool = pictures(options.photos)
    print({kind: f"{len(v)} pictures, {sum(i.shape[1] * i.shape[2] for i in v) / 1e6:.0f} Mpx" for kind, v in pool.items()})
    if options.fit:
        np.savez(options.out, covariance=fit(pool, options.seed).astype(np.float32))
        return
    config = {"pack": lmmse.reach(len(PATTERN[options.cfa]))[0], "width": options.width, "depth": options.depth}
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in PATTERN[options.cfa]]}
    start = None if options.start is None else model_file.load(options.start).net
    net = model_file.new("packed", config, scaling=scaling, net=start).net
    data = [{"name": name, "licence": licence} for name, licence in sorted(table.items())]
    command = " ".join(["python", *sys.argv])

    def keep_it(weights: dict[str, Tensor]) -> None:
        kept = copy.deepcopy(net)
        kept.load_state_dict(weights)
        made = model_file.new("packed", config, scaling=scaling, net=kept, data=data, command=command, seed=options.seed)
        model_file.save(made, options.out)

    train(net.train(), pool, options, keep_it)


if __name__ == "__main__":
    main()
