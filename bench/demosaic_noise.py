"""Demosaicking noisy light: jointly, or demosaicked and denoised one after the other, from ISO 100 to 12 800.

python bench/demosaic_noise.py DATA [--images 4] [--cfa xtrans|bayer] [--model MODEL.safetensors] [--iso 100 800 3200 12800]

DATA holds kodak/*.png and mcmaster/*.tif. The camera is the one of a Sony ILCE-7RM3's raw file at ISO 3200, as
calibrate.transfer_single finds it: 0.1003 e-/ADU, 1.10 e- read noise, 14 848 ADU from black to white (1489 e-), white balance
2.469, 1, 1.527. The gain goes as 1 / ISO, the read noise stays (its own at low ISO is larger). White of a picture's linear
light lies at green's saturation; red and blue get as many electrons less as the balance makes up for; nothing saturates.
Every method gets the same balanced samples and knows their noise. Seed: 6, ISO, place of the picture.

LibRaw's methods know no noise. "then denoised": the shipped universal network on each colour, told k^2 times the variance
that the mosaic's samples of this colour have (what demosaicking leaves is less, and correlated); k is the best of --factors
for each ISO and set of pictures, by PSNR on those very pictures: in its favour. "of roots": LibRaw is fed the encoded samples
that ours work on (restore.encoding), which it likes better; denoised there, told constant noise. "means, then": the mosaic
by non-local means first. "net of the mosaic, then": by the universal network, each phase of the pattern apart.

PSNR of sRGB values as in demosaic.py, Kodak / McMaster. CPU seconds of one thread per Mpx, the median, both steps; without
what is done once a noise level.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from demosaic import LIBRAW, PATTERN, arguments, framed, inside, libraw, network, ours, pictures, psnr, samples, srgb
from numpy.typing import NDArray

from firstlight import Frame, Mosaic, Noise, Unit, simulate
from firstlight.restore import denoise, nonlocal_means
from firstlight.restore.encoding import encoding

Array = NDArray[Any]
Way = Callable[[Frame, tuple[int, ...]], tuple[Array, float]]
ISO, GAIN, READ, SPAN = 3200, 0.1003, 1.10, 14848  # e-/ADU, e-, ADU
BALANCE = (2.469, 1.0, 1.527)
FACTORS = (0.7, 1.0, 1.4, 2.0)
BEST = {"xtrans": "LibRaw Markesteijn 3-pass", "bayer": "LibRaw AHD"}


def noise_of(iso: float, pattern: Any) -> Noise:
    """Of balanced samples, white 1, as a cell of the pattern."""
    full = GAIN * SPAN * ISO / iso
    gains = np.array(BALANCE)[np.array(pattern)]
    return Noise(gains / full, (gains * READ / full) ** 2)


def told(noise: Noise, pattern: Any, k: float) -> Noise:
    """k^2 times the noise of R, G and B, for planes (C, Y, X)."""
    cell = np.array(pattern)
    a, b = (np.array([np.asarray(p)[cell == c][0] for c in range(3)])[:, None, None] for p in (noise.a, noise.b))
    return Noise(k * k * a, k * k * b)


def timed(step: Callable[..., Frame], frame: Frame, **params: Any) -> tuple[Array, float]:
    """Data, and CPU seconds per pixel of a plane."""
    start = time.process_time()
    out = step(frame, **params)
    return np.asarray(out.data), (time.process_time() - start) / (frame.shape[-1] * frame.shape[-2])


def plain(wide: Frame, shape: tuple[int, ...], pattern: Any, name: str) -> tuple[Array, float]:
    out, taken = libraw(np.asarray(wide.data), pattern, name)
    return inside(out, shape), taken


def after(wide: Frame, shape: tuple[int, ...], pattern: Any, name: str, k: float) -> tuple[Array, float]:
    out, first = plain(wide, shape, pattern, name)
    assert isinstance(wide.noise, Noise)
    planes = np.ascontiguousarray(out.transpose(2, 0, 1))
    found, second = timed(denoise, Frame(planes, "CYX", Unit.ARBITRARY, told(wide.noise, pattern, k)))
    return found.transpose(1, 2, 0), first + second


def rooted(wide: Frame, shape: tuple[int, ...], pattern: Any, name: str, k: float) -> tuple[Array, float]:
    start = time.process_time()
    code = encoding(wide, Mosaic(pattern))
    roots = code.encode(np.asarray(wide.data), Mosaic(pattern).at((wide.shape[0], wide.shape[1])))
    coded = time.process_time() - start
    out, first = libraw(roots, pattern, name)
    planes = np.ascontiguousarray(inside(out, shape).transpose(2, 0, 1))
    second = 0.0
    if k:
        noise = Noise(0.0, (k * np.array(code.sigma)[:, None, None]) ** 2)
        planes, second = timed(denoise, Frame(planes, "CYX", Unit.ARBITRARY, noise))
    start = time.process_time()
    light = code.decode(planes)
    third = (time.process_time() - start) / planes[0].size
    return light.transpose(1, 2, 0), coded / roots.size + first + second + third


def before(wide: Frame, shape: tuple[int, ...], pattern: Any, name: str, step: Callable[..., Frame]) -> tuple[Array, float]:
    clean, first = timed(partial(step, std=False), wide)
    out, second = libraw(clean, pattern, name)
    return inside(out, shape), first + second


def joint(wide: Frame, shape: tuple[int, ...], pattern: Any, **params: Any) -> tuple[Array, float]:
    assert isinstance(wide.noise, Noise)
    return ours(np.asarray(wide.data), shape, pattern, wide.noise, **params)


def ways(options: Any) -> dict[str, dict[float, Way]]:
    """By row: by the factor that its best is chosen from."""
    pattern, key = PATTERN[options.cfa], LIBRAW[options.cfa][BEST[options.cfa]]
    name, one = BEST[options.cfa].removeprefix("LibRaw "), {"pattern": pattern, "name": key}
    rows: dict[str, dict[float, Way]] = {
        name: {0: partial(plain, **one)},
        f"{name}, then denoised": {k: partial(after, **one, k=k) for k in options.factors},
        f"{name} of roots": {0: partial(rooted, **one, k=0.0)},
        f"{name} of roots, then denoised": {k: partial(rooted, **one, k=k) for k in options.factors},
        f"means, then {name}": {0: partial(before, **one, step=nonlocal_means)},
        f"net of the mosaic, then {name}": {0: partial(before, **one, step=denoise)},
        "ours, lmmse": {0: partial(joint, pattern=pattern, method="lmmse")},
    }
    if (model := network(options)) is not None:
        rows["ours, net, float32"] = {0: partial(joint, pattern=pattern, method="net", model=model, bf16=False)}
        rows["ours, net, bfloat16"] = {0: partial(joint, pattern=pattern, method="net", model=model, bf16=True)}
    return {row: by for row, by in rows.items() if options.only in row}


def exposed(options: Any, iso: float) -> Iterator[tuple[int, Array, Frame]]:
    """Which set, sRGB values (Y, X, 3), and the noisy samples around them."""
    pattern = PATTERN[options.cfa]
    noise = noise_of(iso, pattern)
    for place, (k, truth) in enumerate(pictures(options.data, options.images)):
        mean = samples(simulate.linearise(truth).astype(np.float32), pattern)
        seen = noise.sample(mean, np.random.default_rng([6, int(iso), place])).astype(np.float32)
        yield k, truth, framed(seen, pattern, noise)


def table(options: Any, rows: dict[str, dict[float, Way]], iso: float) -> dict[str, tuple[list[str], float]]:
    """By row: PSNR of both sets with the factor, and CPU seconds per px."""
    found = {row: {k: ([], []) for k in by} for row, by in rows.items()}
    taken: dict[str, list[float]] = {row: [] for row in rows}
    small = framed(np.full((120, 120), 0.5, dtype=np.float32), PATTERN[options.cfa], noise_of(iso, PATTERN[options.cfa]))
    for row in rows:
        if row.startswith("ours"):
            rows[row][0](small, (48, 48))  # filters are solved once a noise level
    for which, truth, wide in exposed(options, iso):
        for row, by in rows.items():
            for k, way in by.items():
                out, seconds = way(wide, truth.shape)
                found[row][k][which].append(psnr(srgb(out), truth))
                taken[row].append(seconds)
    best = {}
    for row, by in found.items():
        parts = []
        for which in (0, 1):
            value, k = max((float(np.mean(sets[which])), k) for k, sets in by.items())
            parts.append(f"{value:.2f}" + (f" (k {k:g})" if len(by) > 1 else ""))
        best[row] = (parts, float(np.median(taken[row])))
    return best


def main() -> None:
    parser = arguments(images=4)
    parser.add_argument("data", type=Path)
    parser.add_argument("--iso", type=float, nargs="+", default=[100, 800, 3200, 12800])
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    options = parser.parse_args()
    rows = ways(options)
    for iso in options.iso:
        full = GAIN * SPAN * ISO / iso
        print(f"\n{options.cfa}, ISO {iso:g}: {full:.0f} e- at green's white{'':10s}Kodak        McMaster   CPU s/Mpx")
        for row, (parts, seconds) in table(options, rows, iso).items():
            print(f"{row:44s}{parts[0]:>14s}{parts[1]:>16s}{1e6 * seconds:12.2f}", flush=True)


if __name__ == "__main__":
    main()
