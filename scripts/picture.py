"""docs/picture.png: raw, restored and residual of one sample of each domain.

firstlight demo -o demo-out && python scripts/picture.py demo-out
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from firstlight import calibrating, intake, io
from firstlight.box import Box

mpl.use("Agg")
import matplotlib.pyplot as plt

CASES = {
    "astronomy": ("astronomy/light.fits", "star_field.fits", None),
    "microscopy": ("microscopy/tubules.mrc", "tubules.mrc", "microscopy.detector.json"),
    "photography (X-Trans)": ("photography/xtrans.dng", "xtrans_X-Trans.dng", None),
    "tomography": ("tomography/scan.h5", "projections.h5", "sample/tomography/detector.json"),
}


def main(demo: Path) -> None:
    figure, axes = plt.subplots(3, 4, figsize=(12, 9.2), layout="constrained")
    for column, (name, (light, restored, detector)) in zip(axes.T, CASES.items(), strict=True):
        here = demo / "sample" / Path(light).parent
        paths = {k: sorted(here.glob(f"{k}_*.fits")) for k in ("bias", "dark", "flat")}
        options = calibrating.Calibration(**paths, detector=str(demo / detector) if detector else None)
        frame = intake.to_electrons(calibrating.calibrated(demo / "sample" / light, options))
        after = next((demo / "restored").glob(f"*{restored}"))
        better = io.read(after)
        lead = len(frame.shape) - 2
        pick = (slice(None), 8) if "A" in frame.axes else (0,) * lead  # of a scan one detector row: a sinogram
        y, x = np.asarray(frame.data)[pick], np.asarray(better.data)[pick]
        v = np.broadcast_to(frame.noise.variance(np.asarray(better.data)), frame.shape)[pick]
        crop = Box((0, 0), y.shape).intersect(Box((100, 100), (260, 260)) if "A" not in frame.axes else Box((0, 0), (90, 256)))
        y, x, v = y[crop.slices], x[crop.slices], v[crop.slices]
        low, high = np.percentile(x, [1, 99.5])
        for axis, image, limits, cmap in (
            (column[0], y, (low, high), "gray"),
            (column[1], x, (low, high), "gray"),
            (column[2], (y - x) / np.sqrt(v), (-4, 4), "RdBu_r"),
        ):
            axis.imshow(image, vmin=limits[0], vmax=limits[1], cmap=cmap, aspect="auto", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        column[0].set_title(name, fontsize=13)
    for axis, label in zip(axes[:, 0], ("raw, calibrated", "restored", "residual / noise"), strict=True):
        axis.set_ylabel(label, fontsize=13)
    figure.savefig(Path(__file__).parents[1] / "docs" / "picture.png", dpi=72)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
