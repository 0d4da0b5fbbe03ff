"""Speed of the learned restorer on the CPU, one thread: Mpx per core-second beside careamics' default Noise2Void U-Net.

python bench/learned_speed.py            the networks alone, then end to end from a frame [e-] to a frame [e-], then training
python bench/learned_speed.py --training training alone, in patches of 64 px per core-second, batches of 8

The peer is re-implemented from its published description: U-Net of depth 2, 32 channels doubled at each level, two 3 x 3
convolutions with BatchNorm and ReLU a level, max pooling, bilinear upsampling, skips, 1 x 1 head; 0.33 M parameters, float32
NCHW as shipped; its end to end adds normalisation to mean 0 and variance 1 and back. Rounds are interleaved; CPU time is the
process's, the least of the rounds counts. Weights are random: speed does not depend on them. Training is `train.fit` for all:
patches cut, loss, gradient, Adam, averaged weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from firstlight import Frame, Noise, Unit, model_file
from firstlight.inference import fast_bf16, ready
from firstlight.nets import LeanUNet
from firstlight.restore import denoise, nonlocal_means
from firstlight.train import Batches, Budget, fit, frames
from firstlight.train.objectives import Objective, n2v, r2r


def stage(inputs: int, between: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((inputs, between), (between, outputs)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Peer(nn.Module):
    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(depth)]
        self.down = nn.ModuleList(stage(a, b, b) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        # each stage ends at the width of the skip that it meets, so that joining doubles it: 0.33 M parameters
        self.middle = stage(widths[-1], 2 * widths[-1], widths[-1])
        self.up = nn.ModuleList(stage(2 * w, w, max(w // 2, width)) for w in reversed(widths))
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            skips.append(down(x))
            x = self.pool(skips[-1])
        x = self.middle(x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(torch.cat([self.grow(x), skip], dim=1))
        out: Tensor = self.head(x)
        return out


def peer_whole(net: nn.Module, y: np.ndarray) -> np.ndarray:
    mean, std = y.mean(), y.std()
    return np.asarray(net(torch.from_numpy((y - mean) / std)[None, None])[0, 0] * std + mean)


def cpu(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def table(rows: dict[str, Callable[[], Any]], amount: float, rounds: int, unit: str = "Mpx") -> None:
    for run in rows.values():
        cpu(run)  # compilers and caches
    taken = np.min([[cpu(run) for run in rows.values()] for _ in range(rounds)], axis=0)
    times = dict(zip(rows, taken, strict=True))
    first = next(iter(times.values()))
    for name, seconds in times.items():
        print(f"  {name:52s}{amount / seconds:8.2f} {unit}/core-s{first / seconds:8.1f} x", flush=True)


STEPS, BATCH = 10, 8


def training(rounds: int) -> None:
    noise = Noise(1.0, 4.0)
    y = noise.sample(np.full((512, 512), 30.0), np.random.default_rng(1)).astype(np.float32)
    batches = Batches(frames([Frame(y, "YX", Unit.ELECTRON, noise)]), BATCH, 64, held=0.0)

    def steps(net: nn.Module, objective: Objective, half: bool) -> Callable[[], Any]:
        return lambda: fit(net, objective, batches, budget=Budget(STEPS, "steps"), half=half)

    small = LeanUNet(inputs=2, widths=(8, 16, 24))
    rows = {"peer, n2v, float32": steps(Peer(), partial(n2v, prefilter="zero"), False)}
    for name, half in (("float32", False), ("bfloat16", True)):
        rows[f"lean, n2v, {name}"] = steps(LeanUNet(inputs=2), n2v, half)
        rows[f"lean, r2r, {name}"] = steps(LeanUNet(inputs=2), r2r, half)
        rows[f"lean of width 8 (one small image), r2r, {name}"] = steps(small, r2r, half)
    print("training")
    table(rows, STEPS * BATCH, rounds, "patches")


@torch.inference_mode()
def inference(given: argparse.Namespace) -> None:
    peer, lean = Peer().eval(), LeanUNet(inputs=2)
    count = [sum(p.numel() for p in n.parameters()) for n in (peer, lean)]
    print(f"parameters: peer {count[0]:,}, lean {count[1]:,}; bfloat16 in hardware: {fast_bf16()}")
    x, x2 = torch.randn(1, 1, given.side, given.side), torch.randn(1, 2, given.side, given.side)
    single, half = ready(lean, bf16=False), ready(lean, bf16=True)
    print("the network alone")
    alone = {"peer, float32": lambda: peer(x), "lean, float32": lambda: single(x2), "lean, bfloat16": lambda: half(x2)}
    table(alone, x.numel() / 1e6, given.rounds)
    noise = Noise(1.0, 4.0)
    y = noise.sample(np.full((2 * given.side, 2 * given.side), 30.0), np.random.default_rng(1)).astype(np.float32)
    frame, model = Frame(y, "YX", Unit.ELECTRON, noise), model_file.new("lean", {"inputs": 2})
    mapped = frame.replace(noise=Noise(1.0, np.random.default_rng(2).uniform(1, 9, y.shape)))
    print("end to end")
    whole: dict[str, Callable[[], Any]] = {"peer, float32": lambda: peer_whole(peer, y)}
    for name, bf16 in (("float32", False), ("bfloat16", True)):
        for std in (False, True):
            label = f"restore.denoise, {name}{', std' if std else ''}"
            whole[label] = lambda bf16=bf16, std=std: denoise(frame, model=model, bf16=bf16, std=std)
    whole["restore.denoise, bfloat16, read noise map"] = lambda: denoise(mapped, model=model, bf16=True)
    whole["restore.nonlocal_means"] = lambda: nonlocal_means(frame, std=False)
    table(whole, y.size / 1e6, given.rounds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--side", type=int, default=512, help="px of the networks' image; the frame has twice that")
    parser.add_argument("--training", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not given.training:
        inference(given)
    training(given.rounds)


if __name__ == "__main__":
    main()
