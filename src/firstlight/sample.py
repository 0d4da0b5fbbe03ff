"""The embedded sample set: small scenes with known truth, written as the raw files that instruments write.

astronomy/    light.fits with bias, dark and flat frames (cosmic rays, hot pixels, vignetting), truth.fits
microscopy/   tubules.mrc (a stack), cells.ome.tif (two channels), flats and darks of the same camera, truths
photography/  chart.dng (Bayer) and xtrans.dng (X-Trans), as uncompressed CFA DNG, truths
tomography/   scan.h5 (APS Data Exchange: data, white, dark, theta), truth of the projections
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import io, simulate
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic, Pattern, Scan
from firstlight.noise import Unmodelled

__all__ = ["SEED", "write_sample"]

SEED = 20261121
Array = NDArray[Any]


def write_sample(folder: Path, seed: int = SEED) -> dict[str, Any]:
    """Write the whole set below `folder`; returns the manifest, also written as sample.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries = [*_astronomy(folder, rng), *_microscopy(folder, rng), *_photography(folder, rng), *_tomography(folder, rng)]
    manifest = {"seed": seed, "entries": entries}
    (folder / "sample.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def _truth(path: Path, image: Array, axes: str, unit: Unit, geometry: Any = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = Frame(image.astype(np.float32), axes, unit, Unmodelled("the truth of a simulation"), geometry=geometry)
    io.write(frame, path)
    return f"{path.parent.name}/{path.name}"


def _fits(path: Path, counts: Array, cards: Mapping[str, Any]) -> str:
    from astropy.io import fits

    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.PrimaryHDU(counts)
    for key, value in cards.items():
        hdu.header[key] = value
    hdu.writeto(path, overwrite=True)
    return f"{path.parent.name}/{path.name}"


def _astronomy(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    here, shape, exposure = folder / "astronomy", (512, 512), 300.0
    sensor = simulate.make_sensor(
        shape, rng, gain=1.5, read_noise=5.0, offset=1000.0, dark=0.02, hot=0.001, prnu=0.01, vignetting=0.25
    )
    scene, _ = simulate.star_field(shape, rng, n=230, sky=40.0)
    common = {"TELESCOP": "SIMULATED", "INSTRUME": "Firstlight CCD", "GAIN": sensor.gain, "RDNOISE": sensor.read_noise}
    common |= {"SATURATE": sensor.saturation, "BUNIT": "adu"}
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 256.5, "CRPIX2": 256.5}
    sky |= {"CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4}
    hit = scene + simulate.cosmic_rays(shape, rng)
    lights = [
        _fits(here / "light.fits", sensor.expose(hit, rng, exposure), common | sky | {"EXPTIME": exposure, "OBJECT": "field"})
    ]
    bias = [_fits(here / f"bias_{i}.fits", sensor.bias(rng), common | {"EXPTIME": 0.0}) for i in range(9)]
    nothing, lamp = np.zeros(shape), np.full(shape, 30000.0)
    dark = [_fits(here / f"dark_{i}.fits", sensor.expose(nothing, rng, 600), common | {"EXPTIME": 600.0}) for i in range(5)]
    flat = [_fits(here / f"flat_{i}.fits", sensor.expose(lamp, rng, 2), common | {"EXPTIME": 2.0}) for i in range(9)]
    truth = _truth(here / "truth.fits", scene, "YX", Unit.ELECTRON)
    entry = {"name": "star field", "domain": "astronomy", "lights": lights, "bias": bias, "dark": dark, "flat": flat}
    return [entry | {"truth": truth, "cosmic_rays": True}]


def _microscopy(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    import mrcfile
    import tifffile

    here = folder / "microscopy"
    here.mkdir(parents=True, exist_ok=True)
    shape = (320, 320)
    camera: dict[str, Any] = {"gain": 0.46, "read_noise": 1.6, "offset": 100.0, "dark": 0.0, "hot": 0.0}
    sensor = simulate.make_sensor(shape, rng, prnu=0.0, **camera)
    stack = np.stack([simulate.filaments(shape, rng, n=25) for _ in range(3)])
    with mrcfile.new(here / "tubules.mrc", overwrite=True) as f:
        f.set_data(sensor.expose(stack, rng))
        f.voxel_size = 650.0  # Angstrom
    cells = np.stack([simulate.spots(shape, rng, peak=40.0), simulate.filaments(shape, rng, n=30, peak=80.0)])
    meta = {"axes": "CYX", "PhysicalSizeX": 0.065, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.065, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(here / "cells.ome.tif", sensor.expose(cells, rng), metadata=meta)
    chip = simulate.make_sensor((192, 192), rng, prnu=0.01, vignetting=0.1, **camera)
    for level in (20, 80, 300, 1000, 4000, 12000):
        for i in range(2):
            counts = chip.expose(np.full((192, 192), float(level)), rng)
            tifffile.imwrite(here / f"flat_{level:05d}_{i}.tif", counts)
    for i in range(2):
        tifffile.imwrite(here / f"dark_{i}.tif", chip.bias(rng))
    flats = sorted(f"microscopy/{p.name}" for p in here.glob("flat_*.tif"))
    darks = sorted(f"microscopy/{p.name}" for p in here.glob("dark_*.tif"))
    series = {"domain": "microscopy", "transfer": flats, "transfer_darks": darks}
    return [
        {"name": "tubules", "lights": ["microscopy/tubules.mrc"]}
        | series
        | {"truth": _truth(here / "tubules_truth.npy", stack, "ZYX", Unit.ELECTRON)},
        {"name": "cells", "lights": ["microscopy/cells.ome.tif"]}
        | series
        | {"truth": _truth(here / "cells_truth.npy", cells, "CYX", Unit.ELECTRON)},
    ]


def _photography(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    here = folder / "photography"
    here.mkdir(parents=True, exist_ok=True)
    out = []
    rows: tuple[tuple[str, Pattern, tuple[int, int]], ...] = (("chart", BAYER, (400, 600)), ("xtrans", XTRANS, (516, 516)))
    for name, pattern, shape in rows:
        mosaic = Mosaic(pattern)
        sensor = simulate.make_sensor(
            shape, rng, gain=1.2, read_noise=3.0, offset=512.0, bits=14, dark=0.0, hot=0.0, prnu=0.004
        )
        rgb = simulate.chart(shape, rng) * np.array([0.5, 1.0, 0.65]) * 900.0
        scene = np.take_along_axis(rgb, mosaic.at(shape)[..., None], axis=-1)[..., 0]
        observation = Observation(
            instrument="Firstlight Sample",
            setting="3200",
            exposure=0.02,
            saturation=float(sensor.saturation),
            white_balance=(2.0, 1.0, 1.54),
            offset=sensor.offset,
        )
        noise = sensor.detector.noise()
        frame = Frame(sensor.expose(scene, rng), "YX", Unit.ADU, noise, geometry=mosaic, observation=observation)
        io.write(frame, here / f"{name}.dng")
        path = here / f"{name}.dng"  # a camera leaves no description of ours: the DNG's own tags must do
        path.write_bytes(path.read_bytes().replace(b"firstlight\0{", b"somebodyXX\0{"))
        entry = {"name": f"{name} ({'X-Trans' if len(pattern) == 6 else 'Bayer'})", "domain": "photography"}
        truth = _truth(here / f"{name}_truth.npy", scene, "YX", Unit.ELECTRON, mosaic)
        out.append(entry | {"lights": [f"photography/{name}.dng"], "truth": truth})
    return out


def _tomography(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    import h5py

    here = folder / "tomography"
    here.mkdir(parents=True, exist_ok=True)
    count, rows, width, full = 90, 16, 256, 2000.0
    theta = np.linspace(0, 180, count, endpoint=False)
    lines, _ = simulate.phantom_projections(np.radians(theta), rows, width, center=126.0)
    sensor = simulate.make_sensor((rows, width), rng, gain=2.0, read_noise=4.0, offset=100.0, dark=0.0, hot=0.0, prnu=0.03)
    beam = full * (1 - 0.3 * np.linspace(-1, 1, width) ** 2)[None, :] * np.ones((rows, 1))
    with h5py.File(here / "scan.h5", "w") as f:
        exchange = f.create_group("exchange")
        exchange["data"] = sensor.expose(beam * np.exp(-lines), rng)
        exchange["data_white"] = sensor.expose(np.broadcast_to(beam, (20, rows, width)), rng)
        exchange["data_dark"] = sensor.expose(np.zeros((20, rows, width)), rng)
        exchange["theta"] = theta
        exchange["theta"].attrs["units"] = "deg"
        f["implements"] = "exchange"
        for name, value, unit in (("detector/actual_pixel_size_x", 5.0, "um"), ("monochromator/energy", 25.0, "keV")):
            f[f"measurement/instrument/{name}"] = value
            f[f"measurement/instrument/{name}"].attrs["units"] = unit
    scan = Scan(np.radians(theta), center=126.0)
    truth = _truth(here / "truth.npy", np.exp(-lines), "AYX", Unit.TRANSMISSION, scan)
    detector = {"gain": sensor.gain, "read_noise": sensor.read_noise, "offset": sensor.offset, "source": "simulation"}
    (here / "detector.json").write_text(json.dumps(detector, indent=1))
    entry = {"name": "projections", "domain": "tomography", "lights": ["tomography/scan.h5"]}
    return [entry | {"detector": "tomography/detector.json", "truth": truth}]
