"""docs/demosaic.png: an X-Trans exposure as LibRaw's Markesteijn and as firstlight see it, beside the truth.

python scripts/demosaic_picture.py

skimage's astronaut (NASA, public domain), halved in linear light, which no network learned from; 1500 e- at white, 2 e- of
read noise.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from skimage import data

from firstlight import Frame, Mosaic, Noise, Observation, Unit, operators, simulate
from firstlight.geometry import XTRANS
from firstlight.restore import demosaic

mpl.use("Agg")
import matplotlib.pyplot as plt

WHITE, READ = 1500.0, 2.0  # e-
CROP = np.s_[5:105, 70:190]


def main() -> None:
    light = simulate.linearise(data.astronaut() / 255.0).reshape(256, 2, 256, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    light = np.ascontiguousarray(light, dtype=np.float32)
    mean = operators.mosaic(XTRANS, light.shape[1:])(light) * WHITE
    rng = np.random.default_rng(3)
    samples = (rng.poisson(mean) + rng.normal(0, READ, mean.shape)).astype(np.float32)
    seen = Observation(saturation=WHITE)
    frame = Frame(samples, "YX", Unit.ELECTRON, Noise(1.0, READ**2), geometry=Mosaic(XTRANS), observation=seen)
    shown = {
        "Markesteijn, 3 passes": demosaic(frame, method="markesteijn").data / WHITE,
        "firstlight": demosaic(frame).data / WHITE,
        "truth": light,
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.7), layout="constrained")
    for axis, (name, picture) in zip(axes, shown.items(), strict=True):
        value = np.clip(picture, 0, 1) ** (1 / 2.2)
        error = float(np.mean((value - light ** (1 / 2.2)) ** 2))
        axis.imshow(value[:, CROP[0], CROP[1]].transpose(1, 2, 0), interpolation="nearest")
        axis.set_title(f"{name}: {-10 * np.log10(error):.1f} dB" if error else name)
        axis.axis("off")
    figure.savefig(Path(__file__).parents[1] / "docs" / "demosaic.png", dpi=100)


if __name__ == "__main__":
    main()
