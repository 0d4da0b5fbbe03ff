"""Which stars of a field are found: on the image as it is and as restored, at one detector setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.evaluation.images import Given, cleaned
from firstlight.evaluation.stars import Counts, background, catalogue, count, find, fluxes, grey, injected
from firstlight.frame import Frame
from firstlight.measure.fidelity import median3
from firstlight.measure.match import match
from firstlight.model_file import Model

__all__ = ["Field", "counted", "field", "fluxes_of", "known_by", "total"]

Array = NDArray[Any]
INJECTED = "truth: injected stars of known flux; false alarms: detections on the negative image; other stars count in neither"
CATALOGUE = "truth: the catalogue"
INPUT = "truth: what is found on the input at the same setting: agreement with the noisy image, no truth"


@dataclass(frozen=True, eq=False)
class Field:
    """images: what is searched, (Y, X) planes by name. input: the plane before; sigma [unit]: of its sky. truth: (n, 2), or
    (n, 3) with fluxes; None: whatever is found on the input. mirrored: whether false alarms are counted on the negative.
    """

    images: Mapping[str, Array]
    input: Array
    sigma: float
    truth: Array | None
    mirrored: bool


def known_by(given: Given, listed: Path | None) -> str:
    """In words, what is taken for true."""
    return CATALOGUE if listed is not None else INPUT if given.profile == "documented" else INJECTED


def field(
    frame: Frame,
    model: Model,
    given: Given,
    *,
    fwhm: float,
    rng: np.random.Generator,
    listed: Path | None = None,
    restored: Frame | None = None,
) -> Field:
    """A frame as a field of stars: those of the catalogue `listed`, of the input (profile documented), or injected ones.

    restored: what the model makes of `frame`, made where it is needed and missing. Raises FrameError as `injected` and
    `cleaned` do, ReadError for the catalogue.
    """
    before = np.asarray(grey(frame).data)
    sigma = background(before)[1]
    if listed is None and given.profile != "documented":
        planted, truth = injected(frame, fwhm=fwhm, rng=rng)
        after = cleaned(planted.replace(noise=frame.noise), model, given)
        return Field(_searched(planted, after), before, sigma, truth, True)
    after = cleaned(frame, model, given) if restored is None else restored
    if listed is None:
        return Field({"restored": np.asarray(grey(after).data)}, before, sigma, None, False)
    return Field(_searched(frame, after), before, sigma, catalogue(listed), False)


def _searched(frame: Frame, restored: Frame) -> dict[str, Array]:
    plain = grey(frame)
    smooth = median3(plain)
    return {"restored": np.asarray(grey(restored).data), "unchanged": np.asarray(plain.data), "median 3x3": smooth}


def counted(f: Field, threshold: float, fwhm: float) -> dict[str, Counts]:
    """Counts at a threshold [sigma of the input's sky], the same for every image searched; a match is within one FWHM."""
    level = threshold * f.sigma
    truth = find(f.input, fwhm=fwhm, threshold=level).places if f.truth is None else f.truth
    out = {}
    for name, image in f.images.items():
        false = len(find(-image, fwhm=fwhm, threshold=level).y) if f.mirrored else None
        out[name] = count(find(image, fwhm=fwhm, threshold=level), truth, radius=fwhm, false=false)
    return out


def total(each: list[dict[str, Counts]]) -> dict[str, Counts]:
    """Counts of several fields together. Raises FrameError for none."""
    if not each:
        raise FrameError("stars: no image could be searched; see the warnings")
    return {k: Counts(*(sum(c[k][i] for c in each) for i in range(3))) for k in each[0]}


def fluxes_of(f: Field, threshold: float, fwhm: float) -> tuple[Array, dict[str, Array]]:
    """(true, {image: measured}) [unit]: of injected stars, found or not; else of stars matched, the input's as the true."""
    if f.mirrored and f.truth is not None:
        return f.truth[:, 2], {k: fluxes(v, f.truth, fwhm=fwhm) for k, v in f.images.items() if k != "median 3x3"}
    level = threshold * f.sigma
    known = find(f.input, fwhm=fwhm, threshold=level).places if f.truth is None else f.truth[:, :2]
    image = f.images["restored"]
    _, j = match(find(image, fwhm=fwhm, threshold=level).places, known, radius=fwhm)
    return fluxes(f.input, known[j], fwhm=fwhm), {"restored": fluxes(image, known[j], fwhm=fwhm)}
