"""A scan with known truth as Data Exchange, and the same with one thing wrong."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from firstlight import simulate

CENTER = 60.7


def write_scan(path: Path, *, angles: int = 90, rows: int = 40, width: int = 128, seed: int = 5) -> Path:
    """A phantom's scan: 20000 counts, offset 100, 5 um pixels."""
    rng = np.random.default_rng(seed)
    theta = np.arange(angles) * np.pi / angles
    lines, _ = simulate.phantom_projections(theta, rows, width, center=CENTER * (width / 128), scale=1.5)
    beam = 20000 * (1 - 0.2 * np.linspace(-1, 1, width) ** 2)
    with h5py.File(path, "w") as file:
        file["exchange/data"] = (rng.poisson(beam * np.exp(-lines)) + 100).astype(np.uint16)
        file["exchange/data_white"] = (rng.poisson(np.broadcast_to(beam, (6, rows, width))) + 100).astype(np.uint16)
        file["exchange/data_dark"] = rng.poisson(np.full((6, rows, width), 100)).astype(np.uint16)
        file["exchange/theta"] = np.rad2deg(theta)
        file["exchange/theta"].attrs["units"] = "deg"
        file["measurement/instrument/detector/actual_pixel_size_x"] = 5.0
        file["measurement/instrument/detector/actual_pixel_size_x"].attrs["units"] = "um"
    return path


def put(file: h5py.File, name: str, value: np.ndarray) -> None:
    """A dataset in the place of another, with its attributes."""
    kept = dict(file[name].attrs)
    del file[name]
    file[name] = value
    file[name].attrs.update(kept)


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.h5")


@pytest.fixture
def make_scan() -> Callable[..., Path]:
    return write_scan


@pytest.fixture
def replaced() -> Callable[..., None]:
    return put
