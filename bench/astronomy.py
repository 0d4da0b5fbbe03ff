"""What restoration does to a star catalogue: completeness at equal purity, and fluxes of injected stars, by method.

python bench/astronomy.py                          the table on simulated fields
python bench/astronomy.py --model a.safetensors    with rows for trained models
python bench/astronomy.py --data DATA              also HAT-P-32: how well a star's flux repeats from frame to frame

Fields: 230 stars of 50 to 30000 e-, N(>F) ~ F^-0.6, FWHM 2.5 px, sky 40 e-, read noise 5 e-, 512 x 512 px. Every method's
threshold is its own, at 95 % purity over all fields. Injected stars stand 20 px from every other, so that the mean flux ratio
tells of the method and not of neighbours. "bound" is the matched filter on each star with all others' light and noise known and
taken off: the most complete that any search of one noisy frame for stars of known shape can be. A second table has 1500 stars a
field: what neighbours cost.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum, median_filter
from scipy.spatial import cKDTree

from firstlight import Frame, Noise, Unit, measure, simulate
from firstlight.frame import Flag
from firstlight.measure.detect import peaks as maxima
from firstlight.measure.detect import plane, search, significance, sky
from firstlight.noise import Unmodelled
from firstlight.restore import nonlocal_means

Array = NDArray[Any]
Restorer = Callable[[Frame], Frame]
Search = Callable[[Frame, Frame | None], measure.Found]
SEED, SHAPE, FWHM, RADIUS = 20261121, (512, 512), 2.5, 2.0
NOISE = Noise(1.0, 25.0)
EDGES = (100.0, 300.0, 1000.0, 3000.0, 10000.0)
LOW, NOISY = 0.25, 2.0  # standard errors: impure for every method, and for what searches the noisy frame
USUAL, CROWDED = 230, 1500


def field(seed: int, n: int = USUAL) -> tuple[Array, Array]:
    """Truth [e-] and its stars (n, 3) y, x, flux."""
    truth, stars = simulate.star_field(SHAPE, np.random.default_rng(seed), n=n, sky=40.0, faintest=50.0, fwhm=FWHM)
    return truth, np.array(stars)


def noisy(truth: Array, rng: np.random.Generator) -> Frame:
    return Frame(NOISE.sample(truth, rng).astype(np.float32), "YX", Unit.ELECTRON, NOISE)


def gaussian(frame: Frame) -> Frame:
    image = gaussian_filter(np.asarray(frame.data, dtype=np.float64), 1.0)
    return frame.replace(data=image.astype(np.float32), noise=Unmodelled("smoothed"))


def median(frame: Frame) -> Frame:
    image = median_filter(np.asarray(frame.data), 3, mode="nearest")
    return frame.replace(data=image, noise=Unmodelled("smoothed"))


def learned(path: Path) -> Restorer:
    from firstlight import model_file, restore

    model = model_file.load(path)
    return lambda frame: restore.denoise(frame, model=model, std=True)


# --- ways to search -----------------------------------------------------------------------------------------------------


def separated(frame: Frame, restored: Frame | None) -> measure.Found:
    return measure.detect(frame, restored=restored, threshold=NOISY, fwhm=FWHM, way="stars")


def default(frame: Frame, restored: Frame | None) -> measure.Found:
    """What `firstlight sources` does; restored gives the variance."""
    return measure.detect(frame, restored=restored, threshold=NOISY, fwhm=FWHM)


def filtered(frame: Frame, restored: Frame | None) -> measure.Found:
    low = LOW if restored is not None else NOISY
    return measure.detect(frame, restored=restored, threshold=low, fwhm=FWHM, way="restored")


def peaks(frame: Frame, restored: Frame | None) -> measure.Found:
    return measure.detect(frame, restored=restored, threshold=LOW, fwhm=FWHM, way="peaks")


def mean_noise(frame: Frame, restored: Frame | None) -> measure.Found:
    """The restored image decides where, a matched filter on the noisy one how sure: of every place of a restored peak."""
    assert restored is not None
    p = plane(frame, restored, FWHM)
    s = significance(p.data - sky(p.data, p.good), p.variance, p.good, FWHM)
    found = search(p, True, LOW, FWHM, "restored")
    at = np.rint(found.y).astype(int), np.rint(found.x).astype(int)
    return measure.Found(found.y, found.x, s[at])


def in_std(frame: Frame, restored: Frame | None) -> measure.Found:
    """Peaks of the restored image over its own standard error, as the restorer states it."""
    assert restored is not None
    p = plane(frame, restored, FWHM)
    return maxima((p.expected - sky(p.expected, p.good)) / np.asarray(restored.std, dtype=np.float64), LOW)


def mixed(frame: Frame, restored: Frame | None) -> measure.Found:
    """A matched filter on the mean of the two."""
    assert restored is not None
    p = plane(frame, restored, FWHM)
    image = (p.data + p.expected) / 2
    return maxima(significance(image - sky(image, p.good), p.variance, p.good, FWHM), 2 * LOW)


def bound(frame: Frame, truth: Array, known: Array) -> measure.Found:
    """Each star where it is, with the significance that it has once all others are known; noise's own peaks beside them."""
    noise, good = np.asarray(frame.data, dtype=np.float64) - truth, np.ones(truth.shape, bool)
    alone = maxima(significance(noise, NOISE.variance(truth), good, FWHM), NOISY)
    false = cKDTree(known[:, :2]).query(np.stack(alone[:2], axis=1))[0] > RADIUS
    seen = np.array([_seen(noise, truth, star) for star in known])
    return measure.Found(*(np.concatenate([a, b[false]]) for a, b in zip((known[:, 0], known[:, 1], seen), alone, strict=True)))


def _seen(noise: Array, truth: Array, star: Array) -> float:
    y, x = (round(v) for v in star[:2])
    cut = np.s_[max(y - 12, 0) : y + 13, max(x - 12, 0) : x + 13]
    own = simulate.render(SHAPE, [simulate.Star(*star)], fwhm=FWHM)[cut]
    s = significance(noise[cut] + own, NOISE.variance(truth[cut] - own), np.ones(own.shape, bool), FWHM)
    found = maxima(s, 0.5)
    near = np.hypot(found.y + cut[0].start - star[0], found.x + cut[1].start - star[1]) <= RADIUS
    return float(found.significance[near].max(initial=0.0))


def sextractor_way(frame: Frame, restored: Frame | None) -> measure.Found:
    """Smoothed by the star's width, five linked pixels above 1.5 sigma, deblended; ranked by the peak."""
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

    p = plane(frame, restored, FWHM)
    s = significance(p.data - sky(p.data, p.good), p.variance, p.good, FWHM)
    rms = 1.0 / np.sqrt(4 * np.pi) / (FWHM / 2.3548)  # of unit white noise smoothed by the star, in units of a pixel's own
    image = s * rms * np.sqrt(p.variance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = detect_sources(s * rms, 1.5 * rms, 5)
        parts = deblend_sources(s * rms, parts, 5, progress_bar=False)
        at = SourceCatalog(image, parts)
        y, x = (np.asarray(getattr(at, k)) for k in ("y_centroid", "x_centroid"))
    top = np.asarray(maximum(s, parts.data, parts.labels))
    return measure.Found(y, x, top)


def daofind(frame: Frame, restored: Frame | None) -> measure.Found:
    from photutils.detection import DAOStarFinder

    p = plane(frame, None, FWHM)
    image = (p.data - sky(p.data, p.good)) / np.sqrt(np.median(p.variance))
    t = DAOStarFinder(2.0, FWHM)(image)
    return measure.Found(*(np.asarray(t[k]) for k in ("y_centroid", "x_centroid")), 10 ** (-0.4 * np.asarray(t["daofind_mag"])))


def rows(models: list[Path], crowded: bool = False) -> dict[str, tuple[Restorer | None, Search]]:
    table: dict[str, tuple[Restorer | None, Search]] = {
        "noisy, matched filter": (None, filtered),
        "noisy, neighbours taken off": (None, separated),
        "noisy, SExtractor's way": (None, sextractor_way),
        "NLM+GAT, matched filter": (nonlocal_means, filtered),
        "NLM+GAT, neighbours taken off": (nonlocal_means, separated),
    }
    if not crowded:
        table |= {
            "noisy, DAOStarFinder": (None, daofind),
            "median 3, matched filter": (median, filtered),
            "Gaussian 1 px, peaks": (gaussian, peaks),
            "NLM+GAT, peaks": (nonlocal_means, peaks),
        }
    ways = {"default": default, "matched filter": filtered, "neighbours taken off": separated}
    more = {"peaks": peaks, "peaks over std": in_std, "noisy significance": mean_noise, "mean with noisy": mixed}
    for path in models:
        one = learned(path)
        table |= {f"{path.stem}, {name}": (one, way) for name, way in (ways if crowded else ways | more).items()}
    return table


def psnr(image: Any, truth: Array) -> float:
    return float(10 * np.log10(300.0**2 / np.mean((np.asarray(image, dtype=np.float64) - truth) ** 2)))


class Restored:
    """Each restorer runs once on each frame, however many ways search its result."""

    def __init__(self) -> None:
        self.done: dict[tuple[str, int], Frame] = {}

    def __call__(self, restorer: Restorer | None, frame: Frame, number: int) -> Frame | None:
        if restorer is None:
            return None
        key = (f"{id(restorer)}", number)
        if key not in self.done:
            self.done[key] = restorer(frame)
        return self.done[key]


def completeness(table: dict[str, Any], fields: int, n: int = USUAL) -> dict[str, float]:
    """Prints the table of fields with n stars; returns the threshold of each row."""
    scenes = [field(SEED + 100 + i, n) for i in range(fields)]
    frames = [noisy(truth, np.random.default_rng(SEED + 200 + i)) for i, (truth, _) in enumerate(scenes)]
    known = [s for _, s in scenes]
    run, sweeps, extra = Restored(), {}, {}
    options: dict[str, Any] = {"radius": RADIUS, "brighter": 100.0}
    for name, (restorer, way) in table.items():
        images = [run(restorer, f, i) for i, f in enumerate(frames)]
        found = [way(f, r) for f, r in zip(frames, images, strict=True)]
        sweeps[name] = measure.sweep(found, known, **options)
        shown = [f.data if r is None else r.data for f, r in zip(frames, images, strict=True)]
        extra[name] = np.mean([psnr(x, t) for x, (t, _) in zip(shown, scenes, strict=True)]), sky_bias(shown, scenes, n)
    sweeps["bound"] = measure.sweep([bound(f, t, s) for f, (t, s) in zip(frames, scenes, strict=True)], known, **options)
    extra["bound"] = extra["noisy, matched filter"]
    base = sweeps["noisy, matched filter"]
    print(f"{fields} fields of {n} stars, {base.wanted.sum()} above 100 e-; completeness at 95 % purity, gain over the matched")
    print("filter on the noisy frame with the 95 % interval of a paired bootstrap over fields; sky: bias of the image searched")
    print(f"{'':32s}{'PSNR':>7s}{'sky e-':>8s}{'thresh.':>9s}{'purity':>8s}{'compl.':>8s}{'gain':>8s}{'interval':>18s}")
    for name, s in sweeps.items():
        at, d = measure.at_purity(s), measure.gain(s, base, rng=np.random.default_rng(SEED))
        print(
            f"{name:32s}{extra[name][0]:7.2f}{extra[name][1]:8.3f}{at.threshold:9.2f}{at.purity:8.3f}{at.completeness:8.3f}"
            f"{d.value:+8.3f}{d.low:+9.3f}{d.high:+9.3f}",
            flush=True,
        )
    return {name: measure.at_purity(s).threshold for name, s in sweeps.items()}


def sky_bias(shown: list[Any], scenes: list[tuple[Array, Array]], n: int) -> float:
    if n > USUAL:  # no cell is half sky
        return float("nan")
    pairs = zip(shown, scenes, strict=True)
    return float(np.mean([measure.background_bias(x, t, s[:, :2], apart=4 * FWHM)[0] for x, (t, s) in pairs]))


def lone_places(stars: Array, rng: np.random.Generator, n: int, apart: float = 20.0) -> Array:
    chosen: list[Array] = []
    while len(chosen) < n:
        p = rng.uniform(apart, np.array(SHAPE) - 1 - apart)
        near = np.concatenate([stars[:, :2], np.array(chosen).reshape(-1, 2)])
        if cKDTree(near).query(p)[0] > apart:
            chosen.append(p)
    return np.array(chosen)


def injection(table: dict[str, Any], thresholds: dict[str, float], fields: int, each: int) -> None:
    """Prints the second table: `each` stars a bin, spread over fields and exposures."""
    bins, batch = len(EDGES) - 1, 40
    exposures = int(np.ceil(each * bins / (fields * batch)))
    got: dict[str, list[measure.Recovered]] = {name: [] for name in table}
    clean: list[measure.Recovered] = []
    shown = ("noisy, matched", "noisy, neigh", "NLM+GAT, matched")
    table = {k: v for k, v in table.items() if k.startswith(shown) or k.endswith((", default", ", neighbours taken off"))}
    got = {name: got[name] for name in table}
    for k in range(fields * exposures):
        truth, stars = field(SEED + 100 + k % fields)
        rng = np.random.default_rng(SEED + 1000 + k)
        i = np.arange(batch) % bins
        flux = np.exp(rng.uniform(np.log(EDGES)[i], np.log(EDGES)[i + 1]))
        added = np.column_stack([lone_places(stars, rng, batch), flux])
        light = simulate.render(SHAPE, [simulate.Star(*row) for row in added], fwhm=FWHM)
        frame, run = noisy(truth + light, rng), Restored()
        options: dict[str, Any] = {"fwhm": FWHM, "match_radius": RADIUS, "others": stars[:, :2]}
        exact = Frame(truth + light, "YX", Unit.ELECTRON, NOISE)
        clean.append(measure.recover(exact, added, measure.Found(*added.T), **options))
        for name, (restorer, way) in table.items():
            image = run(restorer, frame, 0)
            found = way(frame, image)
            keep = found.significance >= thresholds[name]
            found = measure.Found(*(v[keep] for v in found))
            got[name].append(measure.recover(frame, added, found, restored=image, **options))
    ideal = measure.by_flux(clean, EDGES, fwhm=FWHM)
    print(f"\ninjected stars, {each} or more a bin; flux on the calibrated frame (dual) and on the restored image alone")
    head = f"{'':28s}{'flux e-':>12s}{'mag':>7s}{'n':>6s}{'compl.':>8s}{'dual ratio':>18s}{'scatter':>8s}{'pull':>6s}"
    print(head + f"{'alone':>8s}{'dy':>8s}{'dx':>8s}{'rms px':>8s}{'FWHM/':>8s}")
    for name in table:
        for row, best in zip(measure.by_flux(got[name], EDGES, fwhm=FWHM), ideal, strict=True):
            print(line(name, row, best["fwhm"]), flush=True)


def line(name: str, row: dict[str, Any], width: float) -> str:
    def text(value: float | None, form: str) -> str:
        return format(value, form) if value is not None else format("-", ">8s")

    span = f"{row['low']:.0f}-{row['high']:.0f}"
    fwhm = None if row["fwhm"] is None else row["fwhm"] / width
    return (
        f"{name:28s}{span:>12s}{row['magnitude']:7.2f}{row['n']:6d}{row['completeness']:8.3f}"
        f"{row['ratio']:9.3f} +-{row['ratio_error']:6.3f}"
        f"{row['scatter']:8.3f}{row['pull']:6.2f}{text(row['restored_ratio'], '8.3f')}{text(row['offset_y'], '+8.3f')}"
        f"{text(row['offset_x'], '+8.3f')}{text(row['offset'], '8.3f')}{text(fwhm, '8.2f')}"
    )


# --- real frames --------------------------------------------------------------------------------------------------------


def repeatability(folder: Path, models: list[Path]) -> None:
    """The same star's flux over 50 frames of HAT-P-32, each frame less the field's common change of transparency."""
    from hatp32 import exposures, noise_of, prepared

    from firstlight import calibrate

    raw = exposures(folder)
    moved, _ = prepared(raw)
    stack = calibrate.combine(moved)
    covered = np.sum([np.asarray(f.flags) == 0 for f in moved], axis=0) >= 45
    noise = noise_of(raw)
    # the noise of the stack, for detection on it: a frame's own over their number
    deep = stack.replace(noise=noise.averaged(len(moved)))
    fwhm = measure.star_width(deep)
    table = measure.sources(deep, threshold=25.0, fwhm=fwhm)
    inside = lone(table, covered, fwhm)
    stars = np.column_stack([np.asarray(table[k])[inside] for k in ("y", "x", "flux")])
    print(f"  FWHM {fwhm:.2f} px; {len(stars)} lone stars of {stars[:, 2].min():.0f} to {stars[:, 2].max():.0f} ADU")
    places = np.asarray(table["y"]), np.asarray(table["x"])
    known = [f.replace(noise=noise) for f in moved]
    ways: dict[str, Restorer | None] = {"calibrated, fixed places": None, "Gaussian 1 px": gaussian, "NLM+GAT": nonlocal_means}
    ways |= {p.stem: learned(p) for p in models}
    edges = np.quantile(stars[:, 2], [0, 0.25, 0.5, 0.75, 1])
    head = "".join(f"{f'{lo:.0f}-{hi:.0f}':>16s}" for lo, hi in pairwise(edges))
    print(f"  median over stars of the scatter of one star's flux over {len(known)} frames, in % (and over its own error bar)")
    print(f"  {'flux in ADU':40s}{head}")
    for name, restorer in ways.items():
        dual, alone = series(known, stars, fwhm, restorer, *places)
        show(name if restorer is None else f"{name}, dual-image", *dual, stars[:, 2], edges)
        if alone is not None:
            show(f"{name}, flux on it", *alone, stars[:, 2], edges)


def lone(table: Any, covered: Array, fwhm: float) -> Array:
    places = np.column_stack([table["y"], table["x"]])
    near = cKDTree(places).query(places, k=2)[0][:, 1]
    r = int(np.ceil(1.6 * fwhm))
    boxes = [(max(int(y) - r, 0), max(int(x) - r, 0)) for y, x in places]
    whole = np.array([covered[y : y + 2 * r + 2, x : x + 2 * r + 2].all() for y, x in boxes])
    bright = np.asarray(table["flags"]) & int(Flag.SATURATED | Flag.EDGE) == 0
    return np.flatnonzero((near > 4 * fwhm) & whole & bright)


def series(
    frames: list[Frame], stars: Array, fwhm: float, restorer: Restorer | None, y: Array, x: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
    """(flux, std) of every star in every frame: on the calibrated frame, and on the restored one."""
    dual, alone = [], []
    others = np.column_stack([y, x])
    for f in frames:
        restored = None if restorer is None else restorer(f)
        at = stars[:, :2]
        if restored is not None:  # places of the restored image's own detections, where there is one
            found = measure.detect(f, restored=restored, threshold=3.0, fwhm=fwhm)
            i, j = measure.match(np.column_stack([found.y, found.x]), at, radius=0.8 * fwhm)
            at = at.copy()
            at[j] = np.column_stack([found.y, found.x])[i]
        got = measure.aperture_flux(f, at[:, 0], at[:, 1], restored=restored, fwhm=fwhm, others=others)
        clean = np.where(got.flags == 0, 1.0, np.nan)
        dual.append((got.flux * clean, got.flux_std))
        if restored is not None:
            got = measure.aperture_flux(restored.replace(noise=f.noise), at[:, 0], at[:, 1], fwhm=fwhm, others=others)
            alone.append((got.flux * clean, got.flux_std))
    one = np.array(dual).swapaxes(0, 1)
    two = np.array(alone).swapaxes(0, 1) if alone else None
    return (one[0], one[1]), None if two is None else (two[0], two[1])


def evened(flux: Array, bright: Array) -> Array:
    """Fluxes (frames, stars) less the field's common change, by the brighter half of the stars."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        best = bright >= np.median(bright)
        return flux / np.nanmedian((flux / np.nanmedian(flux, axis=0))[:, best], axis=1)[:, None]


def show(name: str, flux: Array, std: Array, bright: Array, edges: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(evened(flux, bright), (16, 84), axis=0)
    scatter = (high - low) / 2
    cells = []
    for lo, hi in pairwise(edges):
        here = (bright >= lo) & (bright <= hi)
        share = np.nanmedian(scatter[here] / bright[here])
        cells.append(f"{100 * share:9.2f} ({np.nanmedian(scatter[here] / np.median(std, axis=0)[here]):4.2f})")
    print(f"  {name:40s}" + "".join(f"{c:>16s}" for c in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fields", type=int, default=20)
    parser.add_argument("--stars", type=int, default=1000, help="injected, in each bin of flux")
    parser.add_argument("--simulated", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    parser.add_argument("--data", type=Path, default=os.environ.get("FIRSTLIGHT_DATA"))
    options = parser.parse_args()
    start = time.process_time()
    if options.simulated:
        table = rows(options.model)
        thresholds = completeness(table, options.fields)
        print()
        completeness(rows(options.model, crowded=True), max(options.fields // 3, 2), CROWDED)
        if options.stars:
            injection(table, thresholds, options.fields, options.stars)
    if options.data is not None:
        print("\nHAT-P-32")
        repeatability(Path(options.data) / "astronomy/hatp32", options.model)
    print(f"{time.process_time() - start:.0f} s of CPU time")


if __name__ == "__main__":
    main()
