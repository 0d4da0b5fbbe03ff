"""Stripe removal against algotom's and SciPy's: CPU time per megapixel, the same numbers, and what each method does to truth.

python bench/tomography_stripes.py --peer VENV/bin/python      VENV: an environment of its own that holds algotom

CPU time is user and system of all threads, the least of --rounds runs. Noise is continuous: where values are equal, as whole
counts are, the order of a sorted column is free, and so is a difference of some 1e-4 between implementations.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ANGLES, ROWS, WIDTH, PHOTONS, SEED = 720, 8, 1024, 20000, 20261122
METHODS = ("", "_dead", "_large", "_sorting", "_titarenko", "_fourier_wavelet")
KINDS = ("none", "full", "partial", "wide", "dead")


def spent_so_far() -> float:
    """[s] user and system, of all threads and of finished children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def cpu(run: Callable[[], Any], rounds: int, pixels: int) -> float:
    """[CPU-ms per Mpix]."""
    run()
    spent = []
    for _ in range(rounds):
        before = spent_so_far()
        run()
        spent.append(spent_so_far() - before)
    return min(spent) * 1e9 / pixels


def as_peer(folder: Path, rounds: int) -> None:
    """Runs in the peer's environment: every row by algotom, its results and times left in `folder`."""
    from algotom.prep import removal

    data = np.load(folder / "scan.npy")
    calls = {
        "": lambda s: removal.remove_all_stripe(s, snr=3.0, la_size=61, sm_size=21),
        "_dead": lambda s: removal.remove_dead_stripe(s, snr=3.0, size=61, residual=False),
        "_large": lambda s: removal.remove_large_stripe(s, snr=3.0, size=61),
        "_sorting": lambda s: removal.remove_stripe_based_sorting(s, 21),
        "_titarenko": lambda s: removal.remove_stripe_based_regularization(s, alpha=0.05, sort=False),
        "_fourier_wavelet": lambda s: removal.remove_stripe_based_wavelet_fft(s, level=4, wavelet_name="db5"),
    }
    times = {}
    for method, call in calls.items():
        done = np.stack([call(data[:, y]) for y in range(data.shape[1])], axis=1)
        np.save(folder / f"peer{method}.npy", done.astype(np.float32))
        times[method] = cpu(lambda call=call: [call(data[:, y]) for y in range(data.shape[1])], rounds, data.size)
    (folder / "peer.json").write_text(json.dumps(times))


def clean(rng: np.random.Generator) -> tuple[Array, Array]:
    """(noisy transmission of an ellipse phantom (A, Y, X), the truth)."""
    from firstlight import simulate

    angles = np.linspace(0, np.pi, ANGLES, endpoint=False)
    truth = np.exp(-simulate.phantom_projections(angles, ROWS, WIDTH, scale=2.0)[0])
    return (truth + np.sqrt(truth / PHOTONS) * rng.standard_normal(truth.shape)).astype(np.float32), truth


def striped(kind: str, data: Array, rng: np.random.Generator) -> Array:
    out = np.array(data)
    for y in range(ROWS):
        at = 40 + rng.permutation((WIDTH - 80) // 40)[:10] * 40
        if kind == "full":
            out[:, y] *= 1 + 0.02 * rng.standard_normal(WIDTH).astype(np.float32)
        elif kind == "partial":
            for x in at:
                start = rng.integers(0, ANGLES // 2)
                out[start : start + ANGLES // 3, y, x : x + 2] *= 1.1
        elif kind == "wide":
            for x in at[:4]:
                out[:, y, x : x + 12] *= 1.2
        elif kind == "dead":
            out[:, y, at[:3]] = 0.3
            out[:, y, at[3:6]] *= 1 + 0.5 * rng.standard_normal((ANGLES, 3)).astype(np.float32)
    return out


def frame(data: Array) -> Any:
    from firstlight import Frame, Unit
    from firstlight.noise import Noise

    return Frame(data, "AYX", Unit.TRANSMISSION, Noise(1 / PHOTONS, 0.0))


def step(method: str) -> Any:
    from firstlight import calibrate

    return getattr(calibrate, "remove_stripes" + method)


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def times(peer: str, rounds: int) -> None:
    rng = np.random.default_rng(SEED)
    data = striped("full", clean(rng)[0], rng)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "scan.npy", data)
        subprocess.run([peer, __file__, "--as-peer", name, "--rounds", str(rounds)], check=True)
        theirs = json.loads((folder / "peer.json").read_text())
        print(f"{'CPU-ms per Mpix':24s}{'ours':>8s}{'algotom':>9s}{'ratio':>8s}{'rms of difference':>20s}{'largest':>10s}")
        for method in METHODS:
            scan = frame(data)
            own = cpu(lambda method=method, scan=scan: step(method)(scan), rounds, data.size)
            apart = step(method)(scan).data - np.load(folder / f"peer{method}.npy")
            ratio = theirs[method] / own
            print(
                f"{method or 'all':24s}{own:8.1f}{theirs[method]:9.1f}{ratio:8.1f}{rms(apart):20.1e}{np.abs(apart).max():10.1e}"
            )


def medians(rounds: int) -> None:
    from scipy.ndimage import median_filter

    from firstlight.calibrate.medians import slide

    columns = np.sort(np.random.default_rng(SEED).standard_normal((WIDTH, 736)), axis=1).astype(np.float32)
    out = np.empty_like(columns)
    for size in (21, 61):
        own = cpu(lambda size=size: slide(columns, size, out), rounds, columns.size)
        peer = cpu(lambda size=size: median_filter(columns, (size, 1)), 1, columns.size)
        same = np.array_equal(out, median_filter(columns, (size, 1)))
        print(
            f"{f'median of {size}':24s}{own:8.1f}{peer:9.1f}{peer / own:8.1f}   (SciPy) {'identical' if same else 'DIFFERENT'}"
        )


def truth() -> None:
    print("\nrms difference from the scan without stripes, in units of the photon noise; 'as is': before")
    print(f"{'':24s}" + "".join(f"{k:>9s}" for k in KINDS))
    rng = np.random.default_rng(SEED)
    data, exact = clean(rng)
    noise, scans = rms(data - exact), {k: striped(k, data, rng) for k in KINDS}
    print(f"{'as is':24s}" + "".join(f"{rms(scans[k] - data) / noise:9.2f}" for k in KINDS))
    for method in METHODS:
        found = [rms(step(method)(frame(scans[k])).data - data) / noise for k in KINDS]
        print(f"{method or 'all':24s}" + "".join(f"{f:9.2f}" for f in found))


def tooth(path: Path) -> None:
    from firstlight import calibrate, io

    frames = io.read_set(path)
    scan = calibrate.transmission(frames["data"], white=frames["white"], dark=frames["dark"])

    def rings(x: Array) -> float:
        mean = np.mean(-np.log(x), axis=0)
        return float(1.4826e3 * np.median(np.abs(mean[:, 1:-1] - (mean[:, 2:] + mean[:, :-2]) / 2)))

    print(
        "\nthe tooth: column mean of the optical depth less its two neighbours', robust spread x 1000; share of columns flagged"
    )
    print(f"{'as is':24s}{rings(scan.data):9.2f}")
    for method in METHODS:
        done = step(method)(scan)
        share = 0.0 if done.flags is None else np.mean(np.asarray(done.flags) != 0)
        print(f"{method or 'all':24s}{rings(done.data):9.2f}{share:9.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="a Python that has algotom")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tooth", type=Path, help="tooth_aps.h5")
    args = parser.parse_args()
    if args.as_peer is not None:
        as_peer(args.as_peer, args.rounds)
        return
    print(f"{ANGLES} x {ROWS} x {WIDTH}, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    if args.peer:
        times(args.peer, args.rounds)
    medians(args.rounds)
    truth()
    if args.tooth:
        tooth(args.tooth)


if __name__ == "__main__":
    main()
