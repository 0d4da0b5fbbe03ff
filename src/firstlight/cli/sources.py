"""The command `firstlight sources`: a catalogue of stars."""

from __future__ import annotations

from pathlib import Path

from firstlight.cli.options import Json, MaybeOut, Switch
from firstlight.terminal import emit

__all__ = ["sources"]


def sources(
    file: Path,
    *,
    restored: Path | None = None,
    threshold: float = 5.0,
    fwhm: float | None = None,
    out: MaybeOut = None,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    assume_white: Switch = False,
    json: Json = False,
) -> int:
    """A catalogue of stars: detected on the restored image where there is one, fluxes and errors from the calibrated one.

    Parameters
    ----------
    file
        The calibrated (or raw) image.
    restored
        What `restore` made of it: stars are searched there, and measured on FILE.
    threshold
        Significance of a star, in standard errors of its flux on FILE; on a restored image lower ones serve.
    fwhm
        Width of a star [px]; measured from bright lone ones where it is left out.
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
    from firstlight import jobs

    result, text = jobs.sources(
        file,
        restored,
        out,
        threshold=threshold,
        fwhm=fwhm,
        detector=detector,
        unit=unit,
        ext=ext,
        assume_white=assume_white,
    )
    emit(result, json, lambda: text)
    return 0
