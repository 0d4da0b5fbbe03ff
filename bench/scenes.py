"""The scenes that every quality benchmark is judged on: truth [e-], read noise [e-], peak [e-] for PSNR. Never trained on.

python bench/scenes.py            lists them with the PSNR of the noisy image
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight import simulate

SEED = 20261121


class Scene(NamedTuple):
    name: str
    truth: NDArray[Any]
    read_noise: float
    peak: float

    def noisy(self, seed: int = SEED) -> NDArray[Any]:
        rng = np.random.default_rng(seed)
        return rng.poisson(self.truth) + rng.normal(0, self.read_noise, self.truth.shape)


def photo(name: str, peak: float) -> NDArray[Any]:
    """A photograph of scikit-image as linear grey x peak [e-]: sRGB codes linearised, then Rec. 709 luminance."""
    from skimage import data

    image = simulate.linearise(getattr(data, name)())
    grey = image @ np.array([0.2126, 0.7152, 0.0722]) if image.ndim == 3 else image
    return np.asarray(grey * peak)


def all_scenes() -> list[Scene]:
    """Photographs at 30 and 300 e-, tubules, spots and three star fields."""
    scenes = [
        Scene(f"photo {peak:g} e- {name}", photo(name, peak), noise, peak)
        for peak, noise in ((30.0, 2.0), (300.0, 4.0))
        for name in ("astronaut", "coffee", "camera")
    ]
    scenes.append(Scene("tubules", simulate.filaments((512, 512), np.random.default_rng(SEED + 1)), 1.6, 50.0))
    scenes.append(Scene("spots", simulate.spots((512, 512), np.random.default_rng(SEED + 2)), 1.6, 20.0))
    for i in range(3):
        field, _ = simulate.star_field((512, 512), np.random.default_rng(SEED + 10 + i))
        scenes.append(Scene(f"astro {i + 1}", field, 5.0, 300.0))
    return scenes


if __name__ == "__main__":
    for scene in all_scenes():
        mse = np.mean((scene.noisy() - scene.truth) ** 2)
        print(f"{scene.name:28s} {scene.truth.shape!s:12s} noisy {10 * np.log10(scene.peak**2 / mse):6.2f} dB")
