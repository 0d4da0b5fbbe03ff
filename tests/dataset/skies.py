"""A folder of small images of every kind that document 3's users have: FITS, grey, RGB and RGBA pictures, TIFF."""

from pathlib import Path

import cv2
import numpy as np
from astropy.io import fits


def field(seed: int, shape: tuple[int, ...] = (150, 190), stars: int = 60) -> np.ndarray:
    """Counts of a star field on a sky of 300 ADU."""
    rng = np.random.default_rng(seed)
    scene = np.full(shape[-2:], 300.0)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    for _ in range(stars):
        cy, cx, flux = rng.uniform(0, shape[-2]), rng.uniform(0, shape[-1]), 10 ** rng.uniform(2.5, 4.6)
        scene += flux / 10 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)
    return np.minimum(rng.poisson(np.broadcast_to(scene, shape)), 60000).astype(np.uint16)


def write_fits(path: Path, data: np.ndarray, **cards: object) -> None:
    """A FITS file with cards."""
    hdu = fits.PrimaryHDU(data)
    hdu.header.update(cards)
    hdu.writeto(path)


def write_skies(root: Path) -> Path:
    """Seven images: two exposures of one field, another one, grey, RGB, RGBA and TIFF pictures; and a file that is none."""
    root.mkdir(parents=True)
    view = field(1)
    noise = np.random.default_rng(2).normal(0, 8, view.shape)
    header = {"TELESCOP": "SAAO 1.0m", "FILTER": "V", "GAIN": 2.0, "RDNOISE": 5.0}
    write_fits(root / "one_a.fits", view, **header)
    write_fits(root / "one_b.fits", np.rint(view + noise).astype(np.uint16), **header)
    write_fits(root / "float.fits", field(3).astype(np.float32) / 7)
    small = np.clip(field(4) // 40, 0, 255).astype(np.uint8)
    cv2.imwrite(str(root / "grey.png"), small)
    colour = np.stack([np.clip(field(k) // 30, 0, 255) for k in (5, 6, 7)], axis=-1).astype(np.uint8)
    cv2.imwrite(str(root / "hubble_f606w.png"), colour)
    alpha = np.full(small.shape, 255, np.uint8)
    alpha[:20, :30] = 0
    other = np.stack([np.clip(field(k) // 30, 0, 255) for k in (8, 9, 10)], axis=-1).astype(np.uint8)
    other[:20, :30] = 255  # what lies under transparent pixels is no data
    cv2.imwrite(str(root / "clear.png"), np.dstack([other, alpha]))
    cv2.imwrite(str(root / "deep.tif"), field(11))
    (root / "notes.txt").write_text("seeing 1.2\n")
    return root
