"""Zingers, dark/flat and minus log on a simulated scan: CPU time a megapixel beside scipy, numpy, OpenCV and algotom.

python bench/tomography_preprocess.py [REPEATS]      192 x 64 x 1024 px; one thread; best of 3 runs after a warm one

CPU: user and system time of the process, all threads. algotom, where importable, is the peer; the others are the building
blocks that people use. Medians alone are compared with whole steps: find, replace, flag.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from firstlight import Frame, Unit, Unmodelled, calibrate, simulate
from firstlight.frame import Flag
from firstlight.geometry import Scan
from firstlight.noise import Noise

Array = NDArray[Any]
COUNT, ROWS, COLUMNS = 192, 64, 1024
BEAM, OFFSET, GAIN, READ_NOISE = 20000.0, 100.0, 1.0, 3.0
ZINGERS = 2000
SEED = 20261121


def simulated() -> tuple[Array, Array, Array, Array]:
    """(raw counts (A, Y, X) uint16, whites, darks, where zingers are) of a phantom in a beam that slants by a third."""
    rng = np.random.default_rng(SEED)
    angles = np.linspace(0, np.pi, COUNT, endpoint=False)
    depth = simulate.phantom_projections(angles, ROWS, COLUMNS, scale=2.0)[0]
    beam = BEAM * np.linspace(0.8, 1.1, COLUMNS)
    data = rng.poisson(beam * np.exp(-depth)) + rng.normal(OFFSET, READ_NOISE, depth.shape)
    hit = np.zeros(depth.shape, bool)
    at = tuple(rng.integers(0, n, ZINGERS) for n in depth.shape)
    hit[at] = True
    data[at] += rng.uniform(0.3, 2.0, ZINGERS) * BEAM
    whites = rng.poisson(beam, (20, ROWS, COLUMNS)) + rng.normal(OFFSET, READ_NOISE, (20, ROWS, COLUMNS))
    darks = rng.normal(OFFSET, READ_NOISE, (20, ROWS, COLUMNS))
    return *(np.clip(np.rint(x), 0, 65535).astype(np.uint16) for x in (data, whites, darks)), hit


def cpu(run: Callable[[], Any], repeats: int) -> float:
    """CPU-ms a megapixel."""
    run()
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return 1e9 * best / (COUNT * ROWS * COLUMNS)


def copies(run: Callable[[], Any]) -> float:
    """Peak of what the step allocates, and its input, in units of the scan as float32."""
    run()
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return 1 + peak / (4 * COUNT * ROWS * COLUMNS)


def table(title: str, ours: tuple[str, Callable[[], Any]], others: list[tuple[str, Callable[[], Any] | None]], n: int) -> None:
    own = cpu(ours[1], n)
    print(f"\n{title}\n  {'firstlight ' + ours[0]:58s}{own:9.2f} CPU-ms/Mpix    {copies(ours[1]):.2f} copies of memory")
    for name, run in others:
        if run is None:
            print(f"  {name:58s} not installed")
        else:
            other = cpu(run, max(1, n - 1))
            print(f"  {name:58s}{other:9.2f} CPU-ms/Mpix    {other / own:6.1f}x ours")


def zingers(data: Array, n: int, algotom: Any) -> None:
    real = data.astype(np.float32)

    def step(source: Array, noise: Any, **params: Any) -> Callable[[], Frame]:
        frame = Frame(source, "AYX", Unit.ADU, noise, geometry=Scan(np.arange(float(COUNT))))
        return lambda: calibrate.remove_zingers(frame, **params)

    known, unknown = Noise(1 / GAIN, READ_NOISE**2, OFFSET), Unmodelled("gain unknown")
    planes = None if algotom is None else lambda: [algotom.removal.remove_zinger(p, 0.08, size=2) for p in real]
    peers = [
        ("scipy median_filter 1 x 3 x 3 alone", lambda: ndimage.median_filter(real, (1, 3, 3))),
        ("OpenCV medianBlur 3 x 3 alone", lambda: [cv2.medianBlur(p, 3) for p in real]),
        ("algotom remove_zinger, local window of 2", planes),
    ]
    table("zingers in the projection, 3 x 3, float32", ("noise known", step(real, known, along="image")), peers, n)
    table("the same, local scale", ("noise unknown", step(real, unknown, along="image")), peers[:1], n)
    table("the same, uint16", ("noise known", step(data, known, along="image")), peers[:1], n)
    both = [
        ("scipy, both medians alone", lambda: [ndimage.median_filter(real, s) for s in ((1, 3, 3), (3, 1, 1))]),
        ("algotom remove_zinger, projections only", planes),
    ]
    table("zingers in the projection and along the angle, float32", ("noise known", step(real, known)), both, n)
    table("the same, local scale", ("noise unknown", step(real, unknown)), both, n)
    for size in (5, 7):
        peer = [(f"scipy median_filter 1 x {size} x {size} alone", lambda k=size: ndimage.median_filter(real, (1, k, k)))]
        table(f"zingers, {size} x {size}", ("noise known", step(real, known, size=size, along="image")), peer, 2)


def found(data: Array, hit: Array, algotom: Any) -> None:
    """What is found of the zingers, and how much else."""
    real = data.astype(np.float32)
    print(f"\n{ZINGERS} zingers of 0.3 to 2 beams\n  {'':58s}{'found %':>9s}{'false a Mpix':>15s}")
    for name, noise in (("noise known", Noise(1 / GAIN, READ_NOISE**2, OFFSET)), ("noise unknown", Unmodelled("gain unknown"))):
        for along in ("both", "image", "angle"):
            frame = Frame(real, "AYX", Unit.ADU, noise, geometry=Scan(np.arange(float(COUNT))))
            flags = calibrate.remove_zingers(frame, along=along).flags
            report(f"firstlight {name}, {along}", (np.asarray(flags) & int(Flag.COSMIC_RAY)) != 0, hit)
    if algotom is not None:
        done = np.stack([algotom.removal.remove_zinger(p, 0.08, size=2) for p in real])
        report("algotom remove_zinger, threshold .08", done != real, hit)


def report(name: str, shown: Array, hit: Array) -> None:
    false = np.count_nonzero(shown & ~hit) / (hit.size / 1e6)
    print(f"  {name:58s}{100 * np.mean(shown[hit]):9.2f}{false:15.2f}")


def fields(data: Array, whites: Array, darks: Array, n: int, algotom: Any) -> None:
    noise = Unmodelled("gain unknown")
    frame = Frame(data, "AYX", Unit.ADU, noise, geometry=Scan(np.arange(float(COUNT))))
    white, dark = (Frame(x, "TYX", Unit.ADU, noise) for x in (whites, darks))
    w, d = whites.mean(axis=0, dtype=np.float32), darks.mean(axis=0, dtype=np.float32)

    def by_numpy() -> Array:
        return (data.astype(np.float32) - d) / (w - d)

    def by_algotom() -> Array:
        return np.asarray(algotom.correction.flat_field_correction(data, w, d))

    def ours(**params: Any) -> Callable[[], Frame]:
        return lambda: calibrate.transmission(frame, white=white, dark=dark, **params)

    peers = [("numpy, fields averaged before", by_numpy), ("algotom, the same", None if algotom is None else by_algotom)]
    table("dark and flat, uint16 to float32, with the fields' means", ("mean", ours()), peers, n)
    table("flats interpolated in time", ("interpolated", ours(flats="interpolated")), peers[:1], n)
    table("flats by their median", ("median", ours(flats="median")), peers[:1], n)
    table("flats by PCA, one component", ("pca", ours(flats="pca", components=1)), peers[:1], n)
    t = calibrate.transmission(frame, white=white, dark=dark)
    plain = np.asarray(t.data)
    guarded = ("numpy, -log(maximum(t, 1e-4))", lambda: -np.log(np.maximum(plain, np.float32(1e-4))))
    table("minus log", ("attenuation", lambda: calibrate.attenuation(t)), [guarded], n)
    known = frame.replace(noise=Noise(1 / GAIN, READ_NOISE**2, OFFSET))
    noisy = calibrate.transmission(known, white=white, dark=dark)
    table("minus log with its variance", ("attenuation, noise known", lambda: calibrate.attenuation(noisy)), [guarded], n)
    table("air beside the sample", ("normalize_air", lambda: calibrate.normalize_air(t)), [], n)


def peer() -> Any:
    try:
        import algotom.prep.correction
        import algotom.prep.removal
    except ImportError:
        return None
    return algotom.prep


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    data, whites, darks, hit = simulated()
    algotom = peer()
    cv2.setNumThreads(1)
    print(f"{COUNT} x {ROWS} x {COLUMNS} px, one thread, best of {repeats}; load {os.getloadavg()[0]:.1f}")
    zingers(data, repeats, algotom)
    found(data, hit, algotom)
    fields(data, whites, darks, repeats, algotom)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
