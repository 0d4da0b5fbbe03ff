"""A small field of stars as FITS with a known detector, a colour picture with opacity, their patches, a small network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstlight import Frame, Noise, Unit, Unmodelled, io, model_file, simulate
from firstlight.cli import main
from firstlight.dataset.manifest import Patch, write_patches

NOISE = Noise(1.0, 25.0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: Any) -> tuple[int, str, str]:
        code = main([str(w) for w in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def stars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(light.fits, truth.fits): 30 stars on 192 x 176 px, gain 1, read noise 5 e-."""
    folder = tmp_path_factory.mktemp("stars")
    truth, _ = simulate.star_field((192, 176), np.random.default_rng(1), n=30, faintest=800)
    light = Frame(NOISE.sample(truth, np.random.default_rng(2)).astype(np.float32), "YX", Unit.ELECTRON, NOISE)
    for name, frame in (("light", light), ("truth", light.replace(data=truth.astype(np.float32)))):
        io.write(frame, folder / f"{name}.fits")
    return folder / "light.fits", folder / "truth.fits"


@pytest.fixture(scope="session")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RGB PNG of 8 bits with opacity, 96 x 80 px: stars, noise, one transparent corner."""
    rng = np.random.default_rng(4)
    light, _ = simulate.star_field((96, 80), rng, n=12, sky=40, faintest=400, brightest=1500)
    codes = np.clip(np.rint(light + rng.normal(0, 4, (3, 96, 80))), 0, 255).astype(np.uint8)
    alpha = np.full((96, 80), 255, np.uint8)
    alpha[:9, :11] = 0
    from imagecodecs import png_encode

    path = tmp_path_factory.mktemp("colour") / "picture.png"
    path.write_bytes(png_encode(np.dstack([*codes, alpha])))
    return path


@pytest.fixture(scope="session")
def rgb_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small percentile model of three channels, its weights random."""
    torch.manual_seed(0)
    made = model_file.new("seed", {"channels": 3, "base": 2}, scaling=model_file.PERCENTILE)
    return model_file.save(made, tmp_path_factory.mktemp("model") / "rgb.safetensors")


def cut(frame: Frame, parent: Path, folder: Path, *, tile: int = 64, stride: int = 32, clip: bool = False) -> list[Patch]:
    """Patches as `firstlight patches` writes them, scaled by numbers that float32 holds."""
    data, rows = np.asarray(frame.data), []
    height, width = data.shape[-2:]
    for y in [*range(0, height - tile, stride), height - tile]:
        for x in [*range(0, width - tile, stride), width - tile]:
            scale, offset = 64.0 + (x if clip else 0), -8.0
            part = (data[..., y : y + tile, x : x + tile].astype(np.float64) + offset) / scale
            part = np.clip(part, 0, 1) if clip else part
            path = folder / f"p_{y}_{x}.npy"
            np.save(path, part.astype(np.float32))
            said = {"scale": scale, "offset": offset} | ({"clip": [0.0, 1.0]} if clip else {})
            noise = {"unmodelled": "a picture"} if isinstance(frame.noise, Unmodelled) else {"a": 1.0, "b": 25.0, "offset": 0.0}
            channels = 1 if data.ndim == 2 else data.shape[0]
            rows.append(
                Patch(f"p_{y}_{x}", "parent", str(parent), str(path), y, x, tile, tile, channels, "float32", json.dumps(said),
                      height, width, str(data.dtype), str(frame.unit), json.dumps(noise), 1.0, "test")
            )  # fmt: skip
    return rows


@pytest.fixture
def patches(stars: tuple[Path, Path], tmp_path: Path) -> Path:
    """patches_splits.csv of the star field."""
    return write_patches(tmp_path / "patches_splits.csv", cut(io.read(stars[0]), stars[0], tmp_path), split=True)
