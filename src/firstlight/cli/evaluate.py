"""Whole images through a trained network, and judgements of it: whole, preview, evaluate, detections, analyze."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from firstlight.cli.options import Json, MaybeOut, Out, Switch, size
from firstlight.terminal import emit, lines, progress

__all__ = ["analyze", "convert", "detections", "evaluate", "preview", "whole"]

Profile = Literal["physical", "documented"]
Images = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]
Open = Annotated[bool | None, Parameter(name="--open", negative="--no-open")]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a file does not say of itself.

    Parameters
    ----------
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the file does not say ("adu" for a picture that holds raw counts).
    ext
        One of several images in the file.
    assume_white
        Go on where neighbouring pixels' noise correlates.
    """

    detector: str | None = None
    unit: str | None = None
    ext: str | None = None
    assume_white: Switch = False


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a network is judged on.

    Parameters
    ----------
    patches
        patches_splits.csv: its parents are judged, in place of FILES.
    catalogue
        True places of stars (columns y, x); else stars of known flux are injected.
    split
        Which split of the patches.
    max_parents
        How many images at most.
    fwhm
        Width of a star [px].
    seed
        Of the injected stars.
    """

    patches: Path | None = None
    catalogue: Path | None = None
    split: str = "test"
    max_parents: int = 20
    fwhm: float = 3.0
    seed: int = 0


def whole(
    source: str,
    *,
    patches: Path | None = None,
    model: str,
    out: Out,
    to: str | None = None,
    profile: Profile = "physical",
    memory: str = "1G",
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),
    json: Json = False,
) -> int:
    """A whole image through any trained network: by path, or by the id of a parent of patches.

    Parameters
    ----------
    source
        An image, or with --patches the id of a parent; where its file is gone it is put together from its patches.
    patches
        patches.csv or patches_splits.csv.
    model
        A model file, or universal.
    out
        Output file, or folder.
    to
        Format of the output, as an extension.
    profile
        documented: tiles scaled each on its own and blended by cosines, as the documented pipeline does.
    memory
        What the image may take, 500M or 4G; a larger one is refused. The network's tiles come on top.
    """
    from firstlight.evaluation import images
    from firstlight.evaluation import whole as work

    given = images.Given(profile=profile, **vars(reading))
    parent, found = images.chosen(source, patches), images.named_model(model)
    row = work.whole(parent, found, out, given=given, to=to, memory=size(memory))
    emit(row, json, lambda: f"{row['input']} -> {row['output']}  {row['summary']}")
    return 0


def convert(checkpoint: Path, *, out: Out, json: Json = False) -> int:
    """A checkpoint (.pt) of the documented astronomy pipeline as a model file; what is pickled in it is not run.

    Parameters
    ----------
    checkpoint
        {"model": weights} of the U-Net with SiLU and BatchNorm, of any width.
    out
        Model file to write, .safetensors.
    """
    from firstlight import model_file

    model = model_file.from_checkpoint(checkpoint)
    model_file.save(model, out)
    row = {"input": str(checkpoint), "output": str(out), "channels": model.channels, "config": model.card["net"]["config"]}
    emit(row, json, lambda: f"{checkpoint} -> {out}  {model.channels} channels, percentile-scaled")
    return 0


def preview(
    *,
    patches: Path,
    model: str,
    out: Out,
    n: int = 10,
    split: str = "test",
    profile: Profile = "physical",
    detector: str | None = None,
    unit: str | None = None,
    json: Json = False,
) -> int:
    """Patches before and after, as pairs in_ID.png and out_ID.png of one stretch.

    Parameters
    ----------
    patches
        patches_splits.csv.
    model
        A model file, or universal.
    out
        Folder for the pictures.
    n
        How many patches, evenly over the list.
    split
        Which split.
    profile
        documented: each patch clipped to its percentiles.
    detector
        A detector, where the patches state no noise and the model needs it.
    unit
        What the numbers are, where the patches do not say.
    """
    from firstlight.evaluation import images
    from firstlight.evaluation import whole as work

    given = images.Given(detector, unit, None, profile)
    with progress(json) as tick:
        rows = work.preview(patches, images.named_model(model), out, given=given, n=n, split=split, tick=tick)
    emit(rows, json, lambda: lines(f"{r['in']}  {r['out']}  changed by {r['mae']:.4g} {r['unit']} (mean)" for r in rows))
    return 0


def evaluate(
    files: Images = None,
    *,
    model: str,
    out: Out,
    truth: Path | None = None,
    threshold: float = 3.0,
    profile: Profile = "physical",
    judged: Annotated[Judged, Parameter(name="*")] = Judged(),
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),
    json: Json = False,
) -> int:
    """A network judged on whole images: metrics per image beside doing nothing and classical filters, and stars found.

    Parameters
    ----------
    files
        Images, in place of --patches.
    model
        A model file, or universal.
    out
        Folder for tables and plots.
    truth
        A clean image, or a folder of them named as the parents. Without one there is no PSNR, but self-checks.
    threshold
        Of detection, in sigma of the sky before restoring, on every image the same.
    profile
        documented: against the noisy input, and its own detections as truth.
    """
    from firstlight.evaluation import evaluate as work
    from firstlight.evaluation import images

    given = images.Given(profile=profile, **vars(reading))
    many = images.parents(judged.patches, files or [], split=judged.split, most=judged.max_parents)
    options: dict[str, Any] = {
        "given": given,
        "truth": truth,
        "listed": judged.catalogue,
        "fwhm": judged.fwhm,
        "threshold": threshold,
        "seed": judged.seed,
    }
    with progress(json) as tick:
        row = work.evaluate(many, images.named_model(model), out, tick=tick, **options)
    emit(row, json, lambda: work.told(row))
    return 0


def detections(
    files: Images = None,
    *,
    model: str,
    out: Out,
    thresholds: str = "1.5..5.0",
    profile: Profile = "physical",
    judged: Annotated[Judged, Parameter(name="*")] = Judged(),
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),
    json: Json = False,
) -> int:
    """Detection thresholds swept: precision, recall and F1 of stars before and after restoring.

    Parameters
    ----------
    files
        Images, in place of --patches.
    model
        A model file, or universal.
    out
        Folder for tables and plots.
    thresholds
        In sigma of the sky before restoring: 1.5..5.0 (every 0.5), or 1.5,2,3.
    profile
        documented: what is found on the input counts as true.
    """
    from firstlight.evaluation import detections as work
    from firstlight.evaluation import images, stars

    given = images.Given(profile=profile, **vars(reading))
    many = images.parents(judged.patches, files or [], split=judged.split, most=judged.max_parents)
    options: dict[str, Any] = {
        "given": given,
        "thresholds": stars.levels(thresholds),
        "listed": judged.catalogue,
        "fwhm": judged.fwhm,
        "seed": judged.seed,
    }
    with progress(json) as tick:
        row = work.detections(many, images.named_model(model), out, tick=tick, **options)
    emit(row, json, lambda: (out / "summary_metrics.txt").read_text().rstrip())
    return 0


def analyze(
    image: Path,
    *,
    model: str | None = None,
    out: MaybeOut = None,
    open: Open = None,
    fwhm: float = 3.0,
    threshold: float = 5.0,
    profile: Profile = "physical",
    reading: Annotated[Reading, Parameter(name="*")] = Reading(),
    json: Json = False,
) -> int:
    """One image cleaned and looked at: side by side in the browser, stars found in both at one setting, a JSON report.

    Parameters
    ----------
    image
        A picture or a FITS file.
    model
        A model file; the universal one where it is left out and the image's noise is known.
    out
        Folder for the cleaned image, the report and the page; NAME-analysis where it is left out.
    open
        Open the page in the browser; by default where a person is at the terminal.
    fwhm
        Width of a star [px].
    threshold
        Of detection, in sigma of the sky before cleaning, the same for both.
    profile
        documented: tiles scaled each on its own and blended by cosines.
    """
    from firstlight.evaluation import analyze as work
    from firstlight.evaluation import images

    given = images.Given(profile=profile, **vars(reading))
    folder = Path(f"{image.stem}-analysis") if out is None else out
    report = work.analyze(image, model, folder, given=given, fwhm=fwhm, threshold=threshold)
    emit(report, json, lambda: work.told(report))
    if open or (open is None and not json and sys.stdout.isatty() and sys.stdin.isatty()):
        import webbrowser

        webbrowser.open(Path(report["page"]).absolute().as_uri())
    return 0
