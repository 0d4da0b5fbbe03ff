"""The command line. Imports nothing but cyclopts; every command imports its own work when it runs.

Exit codes: 0 good, 1 a check failed, 2 bad input or usage, 130 interrupted, 143 terminated.
With --json, standard output holds JSON alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from firstlight import __version__
from firstlight.cli.develop import develop
from firstlight.cli.evaluate import analyze, convert, detections, evaluate, preview, whole
from firstlight.cli.manifest import manifest, patches, qc, split
from firstlight.cli.mosaics import compare, dataset, sharpness, torture, training
from firstlight.cli.options import Files, Json, MaybeOut, Out, Switch, size
from firstlight.cli.recipes import center, check, run
from firstlight.cli.sources import sources
from firstlight.cli.tiles import tiles
from firstlight.errors import FirstlightError, FrameError
from firstlight.terminal import close_output, emit, emit_rows, lines, one_line_warnings, progress, stoppable

__all__ = ["app", "main"]

app = App(
    name="firstlight",
    help="From raw detector counts to calibrated, restored and measured images.",
    version=__version__,
    version_flags=["--version"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

app.command(tiles)
app.command(training)
app.command(dataset)
for command in (check, run, center, sources, manifest, patches, split, qc):
    app.command(command)
for door in (develop, convert, whole, preview, evaluate, detections, analyze, torture, sharpness, compare):
    app.command(door)


@app.command
def info(
    file: Path,
    *,
    ext: str | None = None,
    detector: str | None = None,
    unit: str | None = None,
    json: Json = False,
) -> int:
    """What a file holds: axes, unit, noise and where it came from, geometry, flags, header, doubts.

    Parameters
    ----------
    file
        Any file that firstlight reads.
    ext
        One of several images in the file: "SCI,2", "white", 3.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the file does not say: adu, electron, electron/s, ...
    """
    from firstlight import facts

    result = facts.info(file, ext=ext, detector=detector, unit=unit)
    emit(result, json, lambda: facts.info_text(result))
    return 0


@app.command
def calibrate(
    lights: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    *,
    bias: Files = None,
    dark: Files = None,
    flat: Files = None,
    detector: str | None = None,
    unit: str | None = None,
    cosmic_rays: Switch = False,
    hot_pixels: Switch = False,
    stack: Switch = False,
    out: Out,
    json: Json = False,
) -> int:
    """Raw counts to electrons: offset or bias, dark scaled by exposure, gain, flat; masters' own noise added.

    Parameters
    ----------
    lights
        Raw exposures of the scene.
    bias
        Zero-second frames, or one master.
    dark
        Dark frames, or one master; scaled by exposure.
    flat
        Flat-field frames, or one master; bias and dark are taken off them first.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the file does not say ("adu" for a picture that holds raw counts).
    cosmic_rays
        Flag cosmic rays (L.A.Cosmic).
    hot_pixels
        Flag hot pixels, from the darks where there are some.
    stack
        Align the calibrated lights by whole pixels and combine them, sigma-clipped, into one.
    out
        Output file, or folder for several lights.
    """
    from firstlight import calibrating

    options = calibrating.Calibration(bias or [], dark or [], flat or [], detector, unit, cosmic_rays, hot_pixels)
    with progress(json) as tick:
        rows = calibrating.calibrate(lights, out, options, stack=stack, tick=tick)
    return emit_rows(rows, json)


@app.command
def transfer(
    flats: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    *,
    darks: Files = None,
    unit: str | None = None,
    gain: float | None = None,
    out: MaybeOut = None,
    plot: Path | None = None,
    json: Json = False,
) -> int:
    """Gain, read noise and saturation from data: the photon-transfer curve of flats, or of one image with enough levels.

    Parameters
    ----------
    flats
        Pairs of flats at several levels; or one EMVA 1288 descriptor (.txt); or one image.
    darks
        Dark or bias frames.
    unit
        What the numbers are, where the file does not say ("adu" for a picture that holds raw counts).
    gain
        A known gain [e-/ADU]: from one image, fit the read noise alone.
    out
        Detector file (JSON) that every other command takes as --detector.
    plot
        PNG of the curve.
    """
    from firstlight import calibrating

    result, text = calibrating.transfer(flats, darks or [], unit=unit or "adu", gain=gain, out=out, plot=plot)
    emit(result, json, lambda: text)
    return 0


@app.command
def restore(
    files: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    *,
    out: Out,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    method: Literal["network", "means"] | None = None,
    model: str | None = None,
    strength: float | None = None,
    std: Switch = False,
    ensemble: Switch = False,
    samples: int | None = None,
    seed: int = 0,
    finetune: str | None = None,
    keep_model: Path | None = None,
    to: str | None = None,
    memory: str = "1G",
    assume_white: Switch = False,
    resume: Switch = False,
    json: Json = False,
) -> int:
    """A better image: linear, in physical units, header and WCS kept, same format out as in, any size.

    Parameters
    ----------
    files
        Raw or calibrated images.
    out
        Output file, or folder for several files.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the file does not say ("adu" for a picture that holds raw counts).
    ext
        One of several images in the file: "SCI,2", "white", 3.
    method
        network (default), or means: non-local means, without any training (default for undemosaicked mosaics).
    model
        The network: universal (default), which comes with firstlight, or a model file.
    strength
        Smoothing of the non-local means, relative to 1; it alone asks for them.
    std
        Also write the standard error per pixel.
    ensemble
        The mean of the network's estimates under flips and quarter turns: better, at 8 times the cost.
    samples
        Write so many draws from what the truth may be, as the leading axis S, instead of its mean.
    seed
        Seed of the samples and of the fine-tuning.
    finetune
        Adapt the network to this very file first, in so much processor time: 60s, 5m, or "500 steps". It is kept where
        held-out pixels say that it is better.
    keep_model
        Write the network that was used after fine-tuning (.safetensors).
    to
        Format of the outputs, as an extension: fits, ome.tif, mrc, zarr, npy, ...
    memory
        Memory for blocks in flight, such as 500M or 4G.
    assume_white
        Go on where neighbouring pixels' noise correlates.
    resume
        Leave outputs that already exist as they are.
    """
    from firstlight import restoring

    options = restoring.Restoration(
        detector=detector,
        unit=unit,
        ext=ext,
        method=method,
        model=model,
        strength=strength,
        std=std,
        samples=samples,
        seed=seed,
        finetune=finetune,
        keep_model=keep_model,
        ensemble=ensemble,
        to=to,
        memory=size(memory),
        assume_white=assume_white,
        resume=resume,
    )
    with progress(json) as tick:
        rows = restoring.restore(files, out, options, tick)
    return emit_rows(rows, json)


@app.command
def measure(
    file: Path,
    *,
    restored: Path | None = None,
    truth: Path | None = None,
    peak: float | None = None,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    json: Json = False,
) -> int:
    """Can it be trusted? Residual chi-square beside its expectation, correlation, bias; with truth PSNR and SSIM.

    Parameters
    ----------
    file
        The calibrated (or raw) image.
    restored
        What `restore` made of it.
    truth
        The true scene, where it is known.
    peak
        Peak of the PSNR [unit of the image]; the truth's maximum by default.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the file does not say.
    ext
        One of several images in the file.
    """
    from firstlight import measuring

    result, text, passed = measuring.measure(file, restored, truth, peak=peak, detector=detector, unit=unit, ext=ext)
    emit(result, json, lambda: text)
    return 0 if passed else 1


@app.command
def sample(out: Path, *, seed: int | None = None, json: Json = False) -> int:
    """Write the sample set: small scenes with known truth as real raw files of every domain.

    Parameters
    ----------
    out
        Folder to write.
    seed
        Seed of the simulation.
    """
    from firstlight.sample import SEED, write_sample

    manifest = write_sample(out, SEED if seed is None else seed)
    emit(manifest, json, lambda: lines(f"{e['domain']:12s} {e['name']:18s} {e['lights'][0]}" for e in manifest["entries"]))
    return 0


@app.command
def demo(
    data: Path | None = None,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("demo-out"),
    detector: str | None = None,
    json: Json = False,
) -> int:
    """The main job: read, calibrate, restore and measure, on the sample set or on your own files; a table and a report.

    Parameters
    ----------
    data
        A file or folder of yours; the sample set where it is left out.
    out
        Folder for the results and report.html.
    detector
        A detector for files of yours that name none.
    """
    from firstlight import demo as main_job

    with progress(json) as tick:
        rows, text, passed = main_job.run(out, data, detector=detector, tick=tick)
    emit(rows, json, lambda: text)
    return 0 if passed else 1


def _given(words: Sequence[str]) -> list[str]:
    """The words; an empty one, a path to nowhere, would mean the folder one is in. Raises FrameError."""
    for before, word in zip(["firstlight", *words], words, strict=False):
        if not word or (word.startswith("-") and word.endswith("=")):
            raise FrameError(f"an empty argument after {before}, expected a value: is a variable of the shell unset?")
    return list(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (and exits with it as a console script)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name, or a sign, that the terminal's encoding lacks
    try:
        with stoppable(), one_line_warnings():
            result = app(_given(sys.argv[1:] if argv is None else argv), exit_on_error=False, print_error=False)
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        sys.stderr.write(f"firstlight: {' '.join(str(error).split())}; see `firstlight --help`\n")
    except FirstlightError as error:
        sys.stderr.write(f"firstlight: {' '.join(str(error).split())}\n")
    except KeyboardInterrupt:
        sys.stderr.write(
            "firstlight: interrupted; finished outputs are whole, the one under way was removed or is NAME.partial\n"
        )
        return 130
    except BrokenPipeError:
        close_output()
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"firstlight: {where}{error.strerror or ' '.join(str(error).split())}\n")
        close_output()
    except MemoryError:
        sys.stderr.write("firstlight: out of memory; give a smaller --memory or a machine with more\n")
    return 2
