"""Small synthetic data sets, named as SID, BioSR, the Hubble archive and W2S name theirs: every file valid and different.

Counts and sizes are parameters, so that the documented ones (231 and 193 scenes; 211 cells and 68 x 6; 153 pairs) can be had.
"""

from __future__ import annotations

import io as memory
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from firstlight import io
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Unmodelled

SID_FIRST = (0, 0, 1, 0, 0, 0, 2, 0, 1, 0)  # 00001, 00002, 10003, ...: 0 train, 1 test, 2 validation
SID_SECONDS = (("0.04", "10"), ("0.1", "10"), ("0.1", "30"))  # ratios 250, 100, 300
SID_CAMERAS = {
    "Sony": ("ILCE-7SM2", "ARW", BAYER, 512.0, 5.05),
    "Fuji": ("X-T2", "RAF", XTRANS, 1024.0, 1.8),
}
STANDARD = (("CCPs", 54), ("F-actin", 51), ("F-actin_Nonlinear", 51), ("Microtubules", 55))  # 211 cells


def scene(shape, rng, patches=24):
    """Light in 0..1 (Y, X): rectangles of random size and brightness on a gradient; sharp edges everywhere."""
    y, x = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    out = 0.15 + 0.1 * y + 0.1 * x
    for _ in range(patches):
        top, left = (rng.integers(0, n) for n in shape)
        high, wide = (rng.integers(max(2, n // 16), max(3, n // 3)) for n in shape)
        out[top : top + high, left : left + wide] = rng.uniform(0.05, 1.0)
    return out


def sid(root, *, sony=2, fuji=2, shorts=1, shape=(192, 288), fuji_shape=(192, 288), seed=11):
    """ROOT/SID/{Sony,Fuji}/{short,long}/00001_00_0.04s.ARW: CFA DNGs under the cameras' names, which LibRaw reads.

    `shorts` frames per scene, one long one; black 512 and 1024, white 16383 ADU; Poisson noise and 2 e- read noise.
    """
    for camera, scenes, size in (("Sony", sony, shape), ("Fuji", fuji, fuji_shape)):
        _, suffix, pattern, black, gain = SID_CAMERAS[camera]
        rng = np.random.default_rng([seed, size[0], camera == "Fuji"])
        color = np.array([0.6, 1.0, 0.7])[Mosaic(pattern).at(size)]
        for i in range(1, scenes + 1):
            number = f"{SID_FIRST[(i - 1) % 10]}{i:04d}"
            light = 9000.0 * gain * scene(size, rng) * color  # e- of the long exposure
            short, long = SID_SECONDS[(i - 1) % 3]
            for kind, seconds, frames in (("short", short, shorts), ("long", long, 1)):
                folder = Path(root) / "SID" / camera / kind
                folder.mkdir(parents=True, exist_ok=True)
                for k in range(frames):
                    e = rng.poisson(light * float(seconds) / float(long)) + rng.normal(0, 2.0, size)
                    adu = np.clip(np.rint(black + e / gain), 0, 16383).astype("<u2")
                    before, after = _dng(camera, float(seconds), size)
                    (folder / f"{number}_{k:02d}_{seconds}s.{suffix}").write_bytes(before + adu.tobytes() + after)
    return Path(root)


@lru_cache(maxsize=64)
def _dng(camera, seconds, size):
    """What stands before and after the pixels of a DNG of that camera."""
    import tifffile

    model, _, pattern, black, _ = SID_CAMERAS[camera]
    seen = Observation(
        instrument=model,
        setting="ISO 200",
        exposure=seconds,
        time="2016-01-02T20:00:00",
        offset=black,
        saturation=16383.0,
        white_balance=(1.6, 1.0, 1.4),
    )
    no_gain = Unmodelled("no gain: pass a detector")
    frame = Frame(np.zeros(size, np.uint16), "YX", Unit.ADU, no_gain, geometry=Mosaic(pattern), observation=seen)
    with tempfile.TemporaryDirectory() as folder:
        path = io.write(frame, Path(folder) / "x.dng")
        whole = path.read_bytes()
        with tifffile.TiffFile(path) as tiff:
            start = tiff.pages[0].dataoffsets[0]
    return whole[:start], whole[start + 2 * size[0] * size[1] :]


def biosr(root, *, standard=4, er=1, levels=0, er_levels=6, side=64, phases=9, seed=12):
    """ROOT/microscopy/structures/{CCPs,...}/Cell_001/RawSIMData_gt.mrc (phases, side, side) and SIM_gt.mrc (2 side, 2 side).

    `standard` cells over four structures in their true proportion, the nonlinear ones with SIM_gt_a.mrc; `er` cells with
    `er_levels` of RawGTSIMData and GTSIM. With `levels`, RawSIMData_level_01.. beside them: 5, 10, 15, ... e- at the peak.
    """
    rng = np.random.default_rng(seed)
    base = Path(root) / "microscopy" / "structures"
    for structure, cells in zip((s for s, _ in STANDARD), _shares(standard), strict=True):
        for cell in range(1, cells + 1):
            folder = base / structure / f"Cell_{cell:03d}"
            light = _stripes(scene((side, side), rng), phases)
            _mrc(folder / "RawSIMData_gt.mrc", _counts(light * 600, rng))
            for level in range(1, levels + 1):
                _mrc(folder / f"RawSIMData_level_{level:02d}.mrc", _counts(light * 5 * level, rng))
            name = "SIM_gt_a.mrc" if structure.endswith("Nonlinear") else "SIM_gt.mrc"
            _mrc(folder / name, _counts(np.kron(light.mean(0), np.ones((2, 2))) * 5000, rng))
    for cell in range(1, er + 1):
        folder = base / "ER" / f"Cell_{cell:03d}"
        for level in range(1, er_levels + 1):
            light = _stripes(scene((side, side), rng), phases)
            _mrc(folder / "RawGTSIMData" / f"RawGTSIMData_level_{level:02d}.mrc", _counts(light * 600, rng))
            if level <= levels:
                _mrc(folder / f"RawSIMData_level_{level:02d}.mrc", _counts(light * 5 * level, rng))
            _mrc(
                folder / "GTSIM" / f"GTSIM_level_{level:02d}.mrc",
                _counts(np.kron(light.mean(0), np.ones((2, 2))) * 5000, rng),
            )
    return Path(root)


def _shares(total):
    whole = sum(n for _, n in STANDARD)
    ends = [round(total * sum(n for _, n in STANDARD[: i + 1]) / whole) for i in range(len(STANDARD))]
    return [b - a for a, b in zip([0, *ends], ends, strict=False)]


def _stripes(light, phases):
    x = np.arange(light.shape[1])
    return np.stack([light * (1 + 0.5 * np.cos(2 * np.pi * (x / 7 + k / phases))) for k in range(phases)])


def _counts(electrons, rng):
    return np.clip(np.rint(100 + rng.poisson(electrons) + rng.normal(0, 1.5, electrons.shape)), 0, 65535).astype("<u2")


def _mrc(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_mrc_head(data.shape) + data.tobytes())


@lru_cache(maxsize=16)
def _mrc_head(shape):
    frame = Frame(np.zeros(shape, np.uint16), "TYX"[3 - len(shape) :], Unit.ARBITRARY, Unmodelled("no gain"))
    with tempfile.TemporaryDirectory() as folder:
        return io.write(frame, Path(folder) / "x.mrc").read_bytes()[:1024]


def hla(root, *, pairs=2, shape=(128, 132), seed=13):
    """ROOT/astronomy/hla_associations/direct_images/j8hqbifjq_detection_sci.fits and g800l_images/j8hqbifjq_g800l_sci.fits.

    Electrons per second, float32: point sources, and the same sources as spectra 40 px long that begin 12 px to their right.
    """
    rng = np.random.default_rng(seed)
    base = Path(root) / "astronomy" / "hla_associations"
    for i in range(pairs):
        name = "j8hqbifjq" if i == 0 else f"j8hq{np.base_repr(i + 36**4, 36).lower()[-4:]}q"
        direct, grism = np.zeros(shape), np.zeros(shape)
        for _ in range(40):
            y, x, flux = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), 10 ** rng.uniform(1.5, 3.5)
            spot = np.exp(-0.5 * (np.arange(shape[0]) - y) ** 2 / 1.44)
            direct += flux / 9 * np.outer(spot, np.exp(-0.5 * (np.arange(shape[1]) - x) ** 2 / 1.44))
            dx = np.arange(shape[1]) - x
            grism += flux / 120 * np.outer(spot, ((dx > 12) & (dx < 52)).astype(float))
        for folder, kind, light in (("direct_images", "detection", direct), ("g800l_images", "g800l", grism)):
            target = base / folder / f"{name}_{kind}_sci.fits"
            target.parent.mkdir(parents=True, exist_ok=True)
            e = rng.poisson(light + 20) + rng.normal(0, 5, shape) - 20
            head = _fits_head(kind, shape)
            body = (e / 500.0).astype(">f4").tobytes()
            target.write_bytes(head + body + bytes(-len(body) % 2880))
    return Path(root)


@lru_cache(maxsize=16)
def _fits_head(kind, shape):
    from astropy.io import fits

    hdu = fits.PrimaryHDU(np.zeros(shape, ">f4"))
    cards = {"TELESCOP": "HST", "INSTRUME": "ACS", "DETECTOR": "WFC", "BUNIT": "ELECTRONS/S", "EXPTIME": 500.0}
    hdu.header.update(cards | {"FILTER": "G800L" if kind == "g800l" else "F814W", "DATE-OBS": "2002-10-01"})
    out = memory.BytesIO()
    hdu.writeto(out)
    whole = out.getvalue()
    size = 4 * shape[0] * shape[1]
    return whole[: len(whole) - size - (-size % 2880)]


def w2s(root, *, fields=2, side=128, seed=14):
    """ROOT/w2s/{input_avg1,target_avg400}_001_0.tif: one frame and the mean of 400, three channels a field, float32 counts."""
    rng = np.random.default_rng(seed)
    base = Path(root) / "w2s"
    base.mkdir(parents=True, exist_ok=True)
    for field in range(1, fields + 1):
        for channel in range(3):
            light = 60 * scene((side, side), rng)
            for name, frames in (("input_avg1", 1), ("target_avg400", 400)):
                data = 100 + rng.poisson(light * frames) / frames + rng.normal(0, 2 / np.sqrt(frames), light.shape)
                frame = Frame(data.astype(np.float32), "YX", Unit.ARBITRARY, Unmodelled("no gain"))
                path = io.write(frame, base / f"{name}_{field:03d}_{channel}.tif")
                path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    return base.parent
