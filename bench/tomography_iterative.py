"""Iterative reconstruction: CPU time a slice and error against truth, ours beside astra-toolbox and tomopy where installed.

    python bench/tomography_iterative.py [--size 512] [--slices 8]

Shepp-Logan head, projections averaged over detector bins, RMSE inside 0.95 of the field's radius against the image averaged
over pixels. CPU time of all threads (user and system), so that other work on the machine weighs little; the load is printed.
The first call of each method is not counted: tables of the geometry are made once for all slices.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from firstlight import restore
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Noise
from firstlight.simulate import projections, shepp_logan, shepp_logan_ellipses


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--slices", type=int, default=8)
    given = options.parse_args()
    n, count = given.size, given.slices
    print(f"N = {n}, {count} slices, 1 thread of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    full, few = scan(n, 3 * n // 2, count, 0.0), scan(n, 3 * n // 16, count, 1.0)
    print(f"\n{3 * n // 2} views, no noise")
    line("fbp", full, lambda f: restore.reconstruct(f, workers=1))
    line("cgls 10", full, lambda f: restore.cgls(f, workers=1))
    line("cgls 30", full, lambda f: restore.cgls(f, iterations=30, workers=1))
    line("cgls 10, projector pair", full, lambda f: restore.cgls(f, pair=True, workers=1))
    line("cgls 10 from fbp", full, lambda f: restore.cgls(f, start="fbp", workers=1))
    line("sirt 10", full, lambda f: restore.sirt(f, iterations=10, workers=1))
    line("mlem 10", full, lambda f: restore.mlem(f, iterations=10, workers=1))
    line("osem 4 x 8", full, lambda f: restore.osem(f, workers=1))
    peers(full)
    print(f"\n{3 * n // 16} views, noise 1 (largest projection {few.data.max():.0f})")
    line("fbp", few, lambda f: restore.reconstruct(f, workers=1))
    line("fbp hann", few, lambda f: restore.reconstruct(f, filter="hann", workers=1))
    for k in (5, 10):
        line(f"cgls {k}", few, lambda f, k=k: restore.cgls(f, iterations=k, workers=1))
    line("tv, weight from the noise model", few, lambda f: restore.total_variation(f, workers=1))
    for w in (5.0, 10.0, 20.0, 40.0, 80.0):
        line(f"tv, weight {w:g}", few, lambda f, w=w: restore.total_variation(f, weight=w, workers=1))


def scan(n: int, views: int, slices: int, noise: float) -> Frame:
    angles = np.arange(views) * np.pi / views
    clean = projections(shepp_logan_ellipses(n), angles, n)[:, None]
    data = clean + noise * np.random.default_rng(0).standard_normal((views, slices, n))
    geometry = Scan(angles, center=(n - 1) / 2)
    return Frame(data.astype(np.float32), "AYX", Unit.OPTICAL_DEPTH, Noise(0.0, max(noise, 1e-3) ** 2), geometry=geometry)


def line(name: str, frame: Frame, run: Callable[[Frame], Frame]) -> None:
    run(frame)
    began = time.process_time()
    out = run(frame)
    took = time.process_time() - began
    said = {k: v for k, v in out.history[-1].params.items() if k in ("ended", "weights", "noise_from")}
    print(
        f"{name:34s} {1e3 * took / frame.shape[1]:9.1f} CPU-ms a slice   RMSE {error(out.data):.4f}   {said or ''}", flush=True
    )


def error(slices: Any) -> float:
    n = slices.shape[-1]
    c = np.arange(n) - (n - 1) / 2
    inside = np.hypot(c, c[:, None]) < 0.95 * n / 2
    return float(np.sqrt(np.mean((np.asarray(slices) - shepp_logan(n))[..., inside] ** 2)))


def peers(frame: Frame) -> None:
    for name, run in (("astra", _astra), ("tomopy", _tomopy)):
        try:
            run(frame)
        except ImportError:
            print(f"{name:34s} not installed")


def _astra(frame: Frame) -> None:
    import astra

    n, angles = frame.shape[2], np.asarray(frame.geometry.angles)
    volume, rays = astra.create_vol_geom(n, n), astra.create_proj_geom("parallel", 1.0, n, angles)
    for kind, method in (("linear", "CGLS"), ("linear", "SIRT")):
        projector = astra.create_projector(kind, rays, volume)
        sino = astra.data2d.create("-sino", rays, np.ascontiguousarray(frame.data[:, 0]))
        out = astra.data2d.create("-vol", volume)
        settings = astra.astra_dict(method)
        settings |= {"ProjectorId": projector, "ProjectionDataId": sino, "ReconstructionDataId": out}
        task = astra.algorithm.create(settings)
        began = time.process_time()
        astra.algorithm.run(task, 10)
        took = time.process_time() - began
        image = astra.data2d.get(out)
        best = min(error(turned[None]) for turned in (image, image[::-1], image[:, ::-1], image[::-1, ::-1]))
        print(f"{f'astra {method} 10, {kind}':34s} {1e3 * took:9.1f} CPU-ms a slice   RMSE {best:.4f}", flush=True)


def _tomopy(frame: Frame) -> None:
    import tomopy

    sino = np.ascontiguousarray(frame.data.swapaxes(0, 1)[:1])
    for method in ("sirt", "mlem"):
        began = time.process_time()
        out = tomopy.recon(
            sino, frame.geometry.angles, center=frame.shape[2] / 2, sinogram_order=True, algorithm=method, num_iter=10, ncore=1
        )
        took = time.process_time() - began
        best = min(error(turned) for turned in (out, out[:, ::-1], out[:, :, ::-1]))
        print(f"{f'tomopy {method} 10':34s} {1e3 * took:9.1f} CPU-ms a slice   RMSE {best:.4f}", flush=True)


if __name__ == "__main__":
    main()
