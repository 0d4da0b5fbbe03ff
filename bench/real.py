"""firstlight on real data, through the command line as a user would: every figure of one section, or of all.

python bench/real.py DATA [SECTION]     emva sprat decam acs w2s fmd rgb hatp32 stars sony mrc tooth

DATA is the folder of real observations. --keep FOLDER keeps what was written. --model FILE restores with that network where a
section compares networks (w2s, fmd, decam, hatp32, stars), the shipped one where left out.
"""

from __future__ import annotations

import argparse
import io as text_io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from scipy.stats import sigmaclip

from firstlight import Detector, Frame, Noise, calibrate, io, measure
from firstlight.cli import main as firstlight
from firstlight.errors import FirstlightError
from firstlight.frame import Flag
from firstlight.measure.doubts import flat_noise
from firstlight.restore import denoise, nonlocal_means

Array = NDArray[Any]
MODELS: list[Path] = []  # of --model
SHIPPED = Path(__file__).parents[1] / "src/firstlight/weights/universal.safetensors"


def restorers() -> dict[str, Callable[[Frame], Any]]:
    """Rows of every comparison: what does nothing, a Gaussian, non-local means, networks."""
    ways: dict[str, Callable[[Frame], Any]] = {
        "unchanged": lambda f: f.data,
        "gauss 1 px": lambda f: gaussian_filter(np.asarray(f.data, dtype=np.float64), 1.0),
        "gauss 2 px": lambda f: gaussian_filter(np.asarray(f.data, dtype=np.float64), 2.0),
        "NLM": lambda f: nonlocal_means(f, std=False).data,
    }
    for name, path in [(p.stem, str(p)) for p in MODELS] or [("shipped", "universal")]:
        ways[name] = partial(_network, model=path)
    return ways


def _network(frame: Frame, model: str) -> Any:
    return denoise(frame, model=None if model == "universal" else model).data


def compared(frame: Frame, target: Array) -> list[float]:
    """PSNR after an affine fit, by row of `restorers`."""
    return [affine_psnr(np.asarray(way(frame), dtype=np.float64), target) for way in restorers().values()]


def head(first: str) -> None:
    print(f"  {first:20s}" + "".join(f"{name:>14s}" for name in restorers()))


def cli(*words: Any) -> tuple[int, str]:
    """Exit code and what was printed, standard error after standard output."""
    out, err = text_io.StringIO(), text_io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = firstlight([str(w) for w in words])
    return code, out.getvalue() + err.getvalue()


def figures(*words: Any) -> Any:
    code, text = cli(*words, "--json")
    if code == 2:
        raise SystemExit(text)
    return json.loads(text)


def emva(data: Path, work: Path) -> None:
    """Gain 3.57 e-/ADU, dark noise 10.9 e-, saturation near 3890 ADU."""
    d = figures("transfer", data / "detector/emva1288_ccd/EMVA1288_Data_subset.txt", "-o", work / "detector.json")
    for name, want in (("gain", 3.57), ("read_noise", 10.9), ("saturation", 3890.0), ("quantum_efficiency", 0.453)):
        print(f"  {name:20s}{d[name]:10.3f} +- {d.get(name + '_std', 0):<8.3f} known {want:g}: {d[name] / want - 1:+.1%}")


def sprat(data: Path, work: Path) -> None:
    """Unexposed edge: 915.8 ADU, 5.95 e-; sky differences obey the law; one exposure restored and measured."""
    files = sorted((data / "astronomy/lt_sprat").glob("*.fits.gz"))
    for f in files:
        i = figures("info", f)
        print(f"  {f.name:32s}{i['unit']:10s}gain {i['noise']['gain']} doubts {len(i['doubts'])}: {i['noise']['source'][:60]}")
    files = [f for f in files if f.name.startswith("v_e")]
    frames = [io.read(f) for f in files]
    edge = np.stack([np.asarray(f.data, dtype=float)[:35] for f in frames])  # rows that the slit does not reach
    steps = sigmaclip(np.diff(edge, axis=0) / np.sqrt(2), 4, 4).clipped
    gain = figures("info", files[0])["noise"]["gain"]
    row = Detector(gain, float(steps.std() * gain), float(edge.mean()), source="edge")
    print(f"  offset {row.offset:.1f} ADU, read noise {row.read_noise:.2f} e-")
    lights = [calibrate.flag_cosmic_rays(calibrate.calibrate(f, detector=row)) for f in frames]
    level = np.median([f.data for f in lights], axis=0)
    sky = (level < 20 * gain) & ~np.any([f.flags != 0 for f in lights], axis=0)
    for k, (first, second) in enumerate(pairwise(lights), 1):
        z = ((second.data - first.data) / np.sqrt(2 * first.noise.variance(level)))[sky]
        print(
            f"  exposures {k}, {k + 1}: chi-square {np.mean(z[np.abs(z) < 6] ** 2):.3f} on {sky.sum()} px of sky below 20 ADU"
        )
    restored_and_measured(files[0], work / "sprat.fits")


def restored_and_measured(source: Path, goal: Path, *options: Any) -> None:
    figures("restore", source, "-o", goal, "--std", *options)
    m = figures("measure", source, "--restored", goal, *options)
    got, want = m["chi2"], m["chi2_expected"]
    print(f"  {source.name}: chi2 {got:.3f}, expected {want:.3f}, ratio {got / want:.3f}; lag-1 {m['lag1']:+.3f}")


def decam(data: Path, work: Path) -> None:
    """Pull of image less its local median, in units of the weight map's own sigma: 1."""
    stem = str(data / "astronomy/decam/c4d_170316_062107_{}_z_ls9.N2.fits")
    image, weight, mask = (np.asarray(io.read(stem.format(k)).data, dtype=np.float64) for k in ("ooi", "oow", "ood"))
    good = (mask == 0) & (weight > 0)
    pull = (image - median_filter(np.where(good, image, np.median(image[good])), 41)) * np.sqrt(weight)
    pull = pull[20:-20, 20:-20][good[20:-20, 20:-20]]
    print(f"  pull MAD x 1.4826 = {1.4826 * np.median(np.abs(pull - np.median(pull))):.3f} on {pull.size} px")
    b = np.where(good, 1 / np.where(good, weight, 1), np.median(1 / weight[good]))  # the weights hold the sky's photons
    flags = np.where(good, 0, int(Flag.DEFECT)).astype(np.uint8)
    frame = Frame(image.astype(np.float32), "YX", "adu", Noise(0.0, b.astype(np.float32)), flags=flags)
    for name, way in restorers().items():
        try:
            left = ((image - np.asarray(way(frame), dtype=np.float64)) * np.sqrt(weight))[good]
            print(f"  {name:12s}residual over the weights' sigma: MAD x 1.4826 = {1.4826 * np.median(np.abs(left)):.3f}")
        except FirstlightError as error:
            print(f"  {name}: {error}")


def acs(data: Path, work: Path) -> None:
    """The unit and the correlation are doubted; restoring is refused, with a detector too."""
    path = data / "astronomy/hst_acs/acs_cosmos_147246_f814w.fits"
    for doubt in figures("info", path)["doubts"]:
        print("  doubt:", doubt)
    for options in (
        [],
        ["--detector", "gain=1,read_noise=4.97"],
        ["--detector", "gain=1,read_noise=4.97", "--unit", "electron/s"],
    ):
        code, text = cli("restore", path, "-o", work / "acs.fits", *options)
        print(f"  restore {' '.join(options)} -> {code}: {text.strip()}")
    print("  written:", (work / "acs.fits").exists())


def affine_psnr(x: Array, target: Array) -> float:
    return measure.psnr(measure.affine_fit(x, target)[2], target, peak=float(target.max()))


def w2s(data: Path, work: Path) -> None:
    """PSNR after an affine fit against the mean of 400 frames; peak its maximum. A scene is a field, all its channels."""
    head("field, channel")
    scenes: dict[str, list[list[float]]] = {}
    for path in sorted((data / "microscopy/w2s").glob("input_avg1_*.tif")):
        target = np.asarray(io.read(path.with_name(path.name.replace("input_avg1", "target_avg400"))).data, dtype=np.float64)
        code, text = cli("transfer", path, "-o", work / "w2s.json")
        if code:
            print(f"  {path.stem[-5:]:20s}refused: {text[29:110]} ...")
            continue
        row = compared(with_noise(path, work / "w2s.json"), target)
        scenes.setdefault(path.stem[-5:-2], []).append(row)
        print(f"  {path.stem[-5:]:20s}" + "".join(f"{v:14.2f}" for v in row), flush=True)
    means = np.array([np.mean(rows, axis=0) for rows in scenes.values()])
    print(f"  {f'mean of {len(means)} scenes':20s}" + "".join(f"{v:14.2f}" for v in means.mean(axis=0)))
    print(f"  {'over gauss 1 px':20s}" + "".join(f"{v:+14.2f}" for v in (means - means[:, 1:2]).mean(axis=0)))
    print(f"  {'least of scenes':20s}" + "".join(f"{v:+14.2f}" for v in (means - means[:, 1:2]).min(axis=0)))


def with_noise(path: Path, detector: Path) -> Frame:
    frame = io.read(path)
    noise = Detector.from_dict(json.loads(detector.read_text())).noise()
    return frame.replace(data=np.asarray(frame.data, dtype=np.float32), unit="adu", noise=noise)


def fmd(data: Path, work: Path) -> None:
    """Confocal FISH and three channels of BPAE cells against means of 50 frames; PSNR after an affine fit, peak its maximum."""
    folder = data / "microscopy/fmd"
    pairs = [("FISH", io.read(folder / "Confocal_FISH_3.png").data, io.read(folder / "gt_Confocal_FISH_3.png").data)]
    raw, clean = (io.read(folder / f"confocal_BPAE_3ch_{k}.tif.gz").data for k in ("raw", "gt"))
    pairs += [(f"BPAE channel {k}", raw[k], clean[k]) for k in range(3)]
    head("")
    for name, noisy, clean_one in pairs:
        image, target = np.asarray(noisy, dtype=np.float32), np.asarray(clean_one, dtype=np.float64)
        try:
            noise = calibrate.transfer_single(Frame(image, "YX", "adu", Noise(1.0, 0.0))).detector.noise()
        except FirstlightError as error:  # then from the pair: variance against the mean
            print(f"  {name}: one image does not tell its noise ({str(error)[:90]} ...): taken from the pair")
            slope, offset = np.polyfit(*binned(target, (image - target) ** 2), 1)
            noise = Noise(float(slope), float(max(offset, 1e-3)), 0.0)
        frame = Frame(image, "YX", "adu", noise)
        seen = flat_noise(frame)
        row = compared(frame, target)
        print(f"  {name:20s}" + "".join(f"{v:14.2f}" for v in row), flush=True)
        print(
            f"    a = {noise.a:.2f}, b = {noise.b:.2f}"
            + (f", lag-1 {seen.lag_y:+.2f} (y) {seen.lag_x:+.2f} (x)" if seen else "")
        )


def binned(x: Array, y: Array) -> tuple[Array, Array]:
    """Means of y and x in 20 bins of equal number by x."""
    parts = np.array_split(np.argsort(x, axis=None), 20)
    return np.array([x.ravel()[p].mean() for p in parts]), np.array([y.ravel()[p].mean() for p in parts])


def rgb(data: Path, work: Path) -> None:
    """Pictures: what is said of their noise, and that restoring by a noise law is refused."""
    for path in sorted((data / "astronomy/rgb").iterdir()):
        doubts = [d for d in figures("info", path)["doubts"] if "correlated" in d]
        code, text = cli("restore", path, "-o", work / "rgb.png")
        print(f"  {path.name}: {doubts[0][:90] if doubts else 'no correlation seen'}")
        print(f"    restore -> {code}: {text.strip()[-120:]}")


def stars(data: Path, work: Path) -> None:
    """HAT-P-32: how well a star's flux repeats over 50 frames, dual-image and on restored ones; see bench/astronomy.py."""
    import astronomy

    astronomy.repeatability(data / "astronomy/hatp32", MODELS or [SHIPPED])


def hatp32(data: Path, work: Path) -> None:
    """50 frames stacked against single restored frames; see bench/hatp32.py."""
    import hatp32 as frames

    frames.run(data / "astronomy/hatp32", MODELS)


def sony(data: Path, work: Path) -> None:
    """CFA, black, white, ISO; restored by the command line within little memory; what stays at the CFA's period."""
    path = data / "raw/sony_ilce-7rm3_iso3200.ARW"
    i = figures("info", path)
    o = i["observation"]
    print(f"  CFA {i['geometry']['pattern']}, black {o['offset']}, white {o['saturation']}, {o['setting']}")
    t = figures("transfer", path, "-o", work / "sony.json")
    print("  transfer:", {k: round(t[k], 4) for k in ("gain", "gain_std", "read_noise", "read_noise_std", "offset")})
    options = ("--detector", work / "sony.json", "--to", "npy", "--memory")
    for memory in ("200M", "512M", "2G"):
        seconds, peak = measured("restore", path, "-o", work / f"sony_{memory}.npy", *options, memory)
        print(f"  restore --memory {memory}: {seconds:.1f} s CPU, {peak:.0f} MiB anonymous memory at its peak")
    before = np.asarray(io.read(path).data, dtype=np.float64)
    small, done = (np.asarray(io.read(work / f"sony_{m}.npy").data, dtype=np.float64) for m in ("200M", "2G"))
    print(f"  blocks of 200M and 2G differ by at most {np.abs(small / done - 1).max():.2g} of a pixel's value")
    print("  mean level per cell position: raw", np.round(phases(before), 2), "restored", np.round(phases(done), 2))
    restored_and_measured(path, work / "sony_std.dng", "--detector", work / "sony.json")


def phases(x: Array) -> Array:
    return np.array([x[i::2, j::2].mean() for i in range(2) for j in range(2)])


def measured(*words: Any) -> tuple[float, float]:
    """CPU seconds and peak anonymous memory [MiB] of a command in a process of its own, sampled every 20 ms."""
    code = "import sys; from firstlight.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{words}: exit code {process.returncode}")
            return used.ru_utime + used.ru_stime, peak / 1024
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        except OSError:
            pass
        time.sleep(0.02)


def mrc(data: Path, work: Path) -> None:
    """Microscope files: read, described, written back, read again."""
    for path in sorted((data / "microscopy/mrc").iterdir()):
        i = figures("info", path)
        print(f"  {path.name}: {i['axes']} {i['shape']} {i['dtype']} [{i['unit']}], spacing {i['spacing']} um")
        print(f"    {i['noise']['source'][:100]}; doubts {i['doubts']}")
        frame = io.read(path)
        io.write(frame, work / (path.stem + ".mrc"))
        back = io.read(work / (path.stem + ".mrc"))
        spacing = all(np.isclose(back.spacing[k], v, rtol=1e-5) for k, v in frame.spacing.items())
        same = np.array_equal(np.asarray(back.data).squeeze(), np.asarray(frame.data).squeeze())
        print(f"    written as MRC: {back.axes}, same values {same}, same spacing {spacing}, unit {back.unit}")


def tooth(data: Path, work: Path) -> None:
    """Gain from white and dark frames, projections to transmission, restored."""
    path = data / "tomography/tooth_aps.h5"
    i = figures("info", path)
    print(f"  {i['axes']} {i['shape']} [{i['unit']}], {i['geometry']['angles']} angles; {i['noise']['source']}; {i['doubts']}")
    parts = io.read_set(path)
    white, dark = (np.asarray(parts[k].data, dtype=np.float64) for k in ("white", "dark"))
    d = np.diff(white, axis=0)
    d -= d.mean(axis=(1, 2), keepdims=True)
    v = np.mean(d * d)
    lags = [float(np.mean(p * q) / v) for p, q in ((d[:, 0], d[:, 1]), (d[..., 1:], d[..., :-1]))]
    print(f"  white {white.mean():.0f} ADU, variance {v / 2:.0f}, of its noise lag-1 {lags[0]:.2f} (y) {lags[1]:.2f} (x)")
    print(f"  dark {dark.mean():.1f} ADU, variance {dark.var(axis=0, ddof=1).mean():.1f}")
    own, level = white.var(axis=0, ddof=1).ravel(), white.mean(axis=0).ravel() - dark.mean()
    by_level = np.array_split(np.argsort(level), 4)
    print("  variance / signal of the white by signal:", [round(float((own[k] / level[k]).mean()), 3) for k in by_level])
    frames = [[f.replace(data=np.asarray(f.data)[k], axes="YX") for k in range(10)] for f in (parts["white"], parts["dark"])]
    try:
        row = calibrate.transfer(frames[0], darks=frames[1]).detector
        print(f"  transfer: gain {row.gain:.3f} +- {row.gain_std:.3f} e-/ADU, read noise {row.read_noise:.1f} e-")
    except FirstlightError as error:
        print("  transfer refuses:", error)
        row = Detector(float((white.mean() - dark.mean()) / (v / 2)), 0.0, float(dark.mean()), source="white")
    (work / "tooth.json").write_text(json.dumps(row.to_dict()))
    for options in ([], ["--detector", work / "tooth.json"]):
        goal = work / f"tooth{len(options)}.h5"
        code, text = cli("calibrate", path, "-o", goal, *options)
        print(f"  calibrate {'with a detector' if options else ''} -> {code}: {text.strip().splitlines()[-1]}")
        code, text = cli("restore", goal, "-o", work / f"tooth_restored{len(options)}.h5", "--std")
        print(f"  restore -> {code}: {text.strip().splitlines()[-1]}")
        if code:
            code, text = cli("restore", goal, "-o", work / f"tooth_restored{len(options)}.h5", "--std", "--assume-white")
            print(f"  restore --assume-white -> {code}: {text.strip().splitlines()[-1]}")
        else:
            m = figures("measure", goal, "--restored", work / f"tooth_restored{len(options)}.h5")
            print(f"  measure: chi2 {m['chi2']:.3f}, expected {m['chi2_expected']:.3f}; lag-1 {m['lag1']:+.3f}")


SECTIONS: dict[str, Callable[[Path, Path], None]] = {
    f.__name__: f for f in (emva, sprat, decam, acs, w2s, fmd, rgb, hatp32, stars, sony, mrc, tooth)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("section", nargs="?", choices=[*SECTIONS], help="all of them where left out")
    parser.add_argument("--keep", type=Path, help="folder for the files written, kept")
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    MODELS.extend(given.model)
    for name in [given.section] if given.section else SECTIONS:
        print(f"{name}: {SECTIONS[name].__doc__}", flush=True)
        start = time.process_time()
        with tempfile.TemporaryDirectory() as temporary:
            work = given.keep or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            SECTIONS[name](given.data, work)
        print(f"  {time.process_time() - start:.1f} s CPU", flush=True)


if __name__ == "__main__":
    main()
