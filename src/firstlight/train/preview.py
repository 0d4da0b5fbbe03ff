"""What a validation looks like: held-out patches as the camera saw them, as estimated, and what was taken off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from firstlight.atomic import replacing
from firstlight.denoiser import estimate
from firstlight.train.batches import Batch
from firstlight.train.validation import judged

__all__ = ["previewer"]

Array = NDArray[Any]
ROWS = 3  # patches


def previewer(folder: Path, batch: Batch, prefilter: str = "mean") -> Callable[[nn.Module, int], None]:
    """A function (net, step) that writes FOLDER/preview-STEP.png: noisy, estimate, their difference (grey = 0, +-4 sigma)."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)

    def draw(net: nn.Module, step: int) -> None:
        device = next(net.parameters()).device
        z = batch.z[:ROWS].to(device)
        with judged(net):
            mean = estimate(net, z, prefilter).mean
        rows = [_row(one[0].cpu().numpy(), two[0].cpu().numpy()) for one, two in zip(z, mean, strict=True)]
        _, png = cv2.imencode(".png", np.concatenate(rows))
        with replacing(folder / f"preview-{step:07d}.png") as temp:
            temp.write_bytes(png.tobytes())

    return draw


def _row(z: Array, mean: Array) -> Array:
    low, high = np.percentile(mean, [0.5, 99.5])
    shown = [(part - low) / max(high - low, 1e-6) for part in (z, mean)] + [0.5 + (z - mean) / 8]
    return np.asarray(np.round(255 * np.clip(np.concatenate(shown, axis=1), 0, 1)), dtype=np.uint8)
