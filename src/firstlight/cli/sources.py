"""The command `firstlight sources`: a catalogue of stars."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from firstlight.cli.options import Json, MaybeOut, Switch
from firstlight.terminal import emit

__all__ = ["sources"]


def sources(
    file: Path,
    *,
    restored: Path | None = None,
    threshold: float = 5.0,
    fwhm: float | None = None,
    way: Literal["filter", "stars", "restored", "peaks"] = "filter",
    out: MaybeOut = None,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    assume_white: Switch = False,
    json: Json = False,
) -> int:
    """A catalogue of stars: found with the help of a restored image where there is one, measured on the calibrated one.

    Parameters
    ----------
    file
        The calibrated (or raw) image.
    restored
        What `restore` made of it: it helps the search (see --way), fluxes are measured on FILE.
    threshold
        Significance of a star, in standard errors of its flux on FILE; on a restored image lower ones serve.
    fwhm
        Width of a star [px]; measured from bright lone ones where it is left out.
    way
        filter: a matched filter on FILE, with the restored image's variance and lost pixels; stars: neighbours fitted and taken
        off too, for crowded fields of Gaussian stars alone, as simulated ones are: real stars' wings become stars; restored,
        peaks: search the restored image, by the star's shape or by pixels.
    out
        Catalogue to write: .csv, .ecsv or .fits.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the file does not say ("adu" for a picture that holds raw counts).
    ext
        One of several images in the file: "SCI,2", "white", 3.
    assume_white
        Go on where neighbouring pixels' noise correlates; error bars are then too small.
    """
    from firstlight import measuring

    result, text = measuring.sources(
        file,
        restored,
        out,
        threshold=threshold,
        fwhm=fwhm,
        way=way,
        detector=detector,
        unit=unit,
        ext=ext,
        assume_white=assume_white,
    )
    emit(result, json, lambda: text)
    return 0
