"""False colour: what demosaickers make of grey charts, a zone plate and slanted edges, that no colour is in.

python bench/demosaic_charts.py [--cfa xtrans|bayer] [--model MODEL.safetensors] [--domain enc|lin] [--out FOLDER]

Charts of 516 px, area-averaged from 4 x 4 as many: a zone plate from 0 to half a cycle per px at the middle of each side, grey
beyond; nine dark squares, turned by 3 to 43 degrees. chroma: the mean of |R - G| and |B - G| of sRGB
values of 0 to 255, clipped to [0, 255], 10 px of border left out, and in brackets its share of the first row's that is not
bilinear; Lab: the mean of sqrt(a*^2 + b*^2). Right is 0. lin, the default: the charts are light, as a camera sees it; enc: sRGB
values, as demosaic.py says. PSNR beside it: grey is no colour either, but flat. --out: the pictures as PNG, one a method.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from demosaic import BORDER, PATTERN, arguments, methods, psnr, samples, srgb
from numpy.typing import NDArray

Array = NDArray[Any]
SIDE, FINE = 516, 4
DEGREES = (3, 8, 13, 18, 23, 28, 33, 38, 43)
DARK, BRIGHT = 0.05, 0.85


def zone_plate() -> Array:
    """Values (Y, X) in [0, 1]: cos(pi r^2 / (2 R)), of r / (2 R) cycles per px, R half the side."""
    y, x = (np.mgrid[: SIDE * FINE, : SIDE * FINE] + 0.5) / FINE - SIDE / 2
    square, half = y * y + x * x, SIDE / 2
    wave = np.where(square < half * half, np.cos(np.pi * square / (2 * half)), 0)
    return averaged(DARK + (BRIGHT - DARK) * (0.5 + 0.5 * wave))


def edges() -> Array:
    """Values (Y, X): nine dark squares, each turned by an angle of its own."""
    tile = SIDE // 3
    y, x = (np.mgrid[: tile * FINE, : tile * FINE] + 0.5) / FINE - tile / 2
    fields = []
    for angle in np.radians(DEGREES):
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        fields.append(averaged(np.where(np.maximum(abs(u), abs(v)) < tile / 3, DARK, BRIGHT)))
    return np.block([fields[k : k + 3] for k in (0, 3, 6)])


def averaged(fine: Array) -> Array:
    rows, cols = (n // FINE for n in fine.shape)
    return fine.reshape(rows, FINE, cols, FINE).mean((1, 3)).astype(np.float32)


def chroma(picture: Array) -> tuple[float, float]:
    """Mean |R - G| and |B - G| [of 255], and of CIELAB, of sRGB values (Y, X, 3)."""
    part = np.clip(picture, 0, 1)[BORDER:-BORDER, BORDER:-BORDER].astype(np.float32)
    plain = 255 * float(np.mean(np.abs(part[..., ::2] - part[..., 1:2])))
    lab = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2Lab)
    return plain, float(np.mean(np.hypot(lab[..., 1], lab[..., 2])))


def main() -> None:
    parser = arguments()
    parser.set_defaults(domain="lin")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table, reference = methods(options), dict[str, float]()
    charts = {"zone plate": zone_plate(), "slanted edges": edges()}
    heads = "".join(f"{name + ': chroma':>26s}{'Lab':>7s}{'PSNR':>8s}" for name in charts)
    print(f"{options.cfa + ', ' + options.domain:30s}{heads}{'CPU s/Mpx':>12s}")
    for name, run in table.items():
        row, taken = "", 0.0
        for chart, grey in charts.items():
            truth = np.repeat(grey[..., None], 3, axis=2)
            out, taken = run(samples(truth, PATTERN[options.cfa]), truth.shape)
            if options.domain == "lin":
                out, truth = srgb(out), srgb(truth)
            plain, lab = chroma(out)
            if "bilinear" not in name:
                reference.setdefault(chart, plain)
            share = f"{plain / reference[chart]:.2f}" if chart in reference else "-"
            row += f"{plain:19.2f} ({share:>4s}){lab:7.2f}{psnr(out, truth):8.2f}"
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                picture = np.round(255 * np.clip(out, 0, 1)).astype(np.uint8)
                file = f"{options.cfa}_{options.domain}_{chart}_{name}.png".replace(" ", "-").replace(",", "")
                cv2.imwrite(str(options.out / file), picture[..., ::-1])
        print(f"{name:30s}{row}{1e6 * taken:12.3f}", flush=True)


if __name__ == "__main__":
    main()
