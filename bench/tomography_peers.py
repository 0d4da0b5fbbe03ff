"""One peer's filtered backprojection, in its own environment: called by bench/tomography.py, which says how.

python bench/tomography_peers.py FOLDER PEER    reads sino.npy (A, N) and theta.npy, writes PEER.npy, prints CPU ms a slice
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

warnings.filterwarnings("ignore")
Reconstruct = Callable[[], Any]


def cpu() -> float:
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def algotom(sino: Any, theta: Any) -> Reconstruct:
    from algotom.rec.reconstruction import fbp_reconstruction

    middle = (sino.shape[1] - 1) / 2
    options = {"ratio": 1.0, "filter_name": None, "apply_log": False, "gpu": False, "ncore": 1}
    return lambda: fbp_reconstruction(sino, middle, angles=theta, **options)


def astra(sino: Any, theta: Any) -> Reconstruct:
    import astra

    n = sino.shape[1]
    volume, geometry = astra.create_vol_geom(n, n), astra.create_proj_geom("parallel", 1.0, n, theta)
    projector = astra.create_projector("linear", geometry, volume)

    def run() -> Any:
        data, image = astra.data2d.create("-sino", geometry, sino), astra.data2d.create("-vol", volume)
        config = astra.astra_dict("FBP")
        config |= {"ProjectorId": projector, "ProjectionDataId": data, "ReconstructionDataId": image}
        config["option"] = {"FilterType": "Ram-Lak"}
        algorithm = astra.algorithm.create(config)
        astra.algorithm.run(algorithm)
        out = astra.data2d.get(image)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([data, image])
        return out

    return run


def scikit_image(sino: Any, theta: Any) -> Reconstruct:
    from skimage.transform import iradon

    # its axis lies on pixel N // 2: half a pixel from the middle of the detector
    n = sino.shape[1]
    shifted = np.empty_like(sino)
    wave = np.exp(-1j * np.pi * np.fft.rfftfreq(2 * n))
    for row, out in zip(sino, shifted, strict=True):
        out[:] = np.fft.irfft(np.fft.rfft(row, 2 * n) * wave, 2 * n)[:n]
    return lambda: iradon(shifted.T, theta=np.rad2deg(theta), filter_name="ramp", circle=True)


def spectrum(sino: Any, theta: Any) -> tuple[Any, Any, Any]:
    """Filtered samples of the spectrum, a pair of slices as one complex number, and where they lie [rad per px]."""
    n = sino.shape[1]
    pad = 2 * n
    m = np.arange(-n, n)
    z = np.fft.fftshift(np.fft.fft(np.pad(sino.astype(float), ((0, 0), (0, n))), axis=1), axes=1)
    k = np.minimum(np.arange(pad), pad - np.arange(pad))
    taps = np.where(k % 2 == 1, -1 / (np.pi * np.maximum(k, 1)) ** 2, 0.0)
    taps[0] = 0.25
    ramp = np.fft.fftshift(np.fft.fft(taps).real)
    phase = np.exp(2j * np.pi * m * ((n - 1) / 2 + 0.5 * (np.cos(theta) + np.sin(theta)))[:, None] / pad)
    samples = (z * ramp * phase * (np.pi / len(theta)) / pad * (1 + 1j)).astype(np.complex64).ravel()
    x, y = (2 * np.pi / pad * m * f(theta)[:, None] for f in (np.cos, np.sin))
    return samples, x.ravel().astype(np.float32), y.ravel().astype(np.float32)


def with_rows(sino: Any, transform: Reconstruct) -> Reconstruct:
    """The row FFTs of a pair of slices, then the transform."""
    import scipy.fft

    rows = np.zeros((sino.shape[0], 2 * sino.shape[1]), np.complex64)

    def run() -> Any:
        rows[:, : sino.shape[1]] = sino
        rows[:, sino.shape[1] :] = 0
        scipy.fft.fft(rows, axis=1, overwrite_x=True)
        return transform()

    return run


def finufft(sino: Any, theta: Any) -> Reconstruct:
    import finufft as nufft

    n = sino.shape[1]
    samples, x, y = spectrum(sino, theta)
    plan = nufft.Plan(1, (n, n), eps=1e-4, isign=1, dtype="complex64", nthreads=1, upsampfac=1.25)
    plan.setpts(y, x)
    return with_rows(sino, lambda: plan.execute(samples))


def ducc0(sino: Any, theta: Any) -> Reconstruct:
    import ducc0 as ducc

    n = sino.shape[1]
    samples, x, y = spectrum(sino, theta)
    places, out = np.stack([y, x], 1), np.empty((n, n), np.complex64)
    options = {"forward": False, "epsilon": 1e-4, "nthreads": 1, "periodicity": 2 * np.pi, "fft_order": False}
    return with_rows(sino, lambda: ducc.nufft.nu2u(points=samples, coord=places, out=out, **options))


PEERS = {"algotom": algotom, "astra": astra, "scikit-image": scikit_image, "finufft": finufft, "ducc0": ducc0}


def main(folder: Path, name: str) -> None:
    run = PEERS[name](np.load(folder / "sino.npy"), np.load(folder / "theta.npy"))
    image = run()
    best = np.inf
    for _ in range(3):
        start = cpu()
        rounds = 5
        for _ in range(rounds):  # os.times counts in hundredths of a second
            image = run()
        best = min(best, (cpu() - start) / rounds)
    pair = np.iscomplexobj(image)
    np.save(folder / f"{name}.npy", np.asarray(image.real if pair else image, np.float32))
    print(best * 1e3 / (2 if pair else 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
