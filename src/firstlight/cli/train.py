"""`firstlight train METHOD DATA -o model.safetensors`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from firstlight.cli.options import Json, Out, Switch
from firstlight.terminal import emit, progress

__all__ = ["train"]

Choice = Annotated[bool | None, Parameter(negative="--no-half")]


def train(
    method: Literal["n2v", "n2v2", "neighbour", "r2r", "n2n", "supervised", "masked-l2"],
    data: Path,
    *,
    out: Out,
    budget: str = "60s",
    net: Literal["lean", "seed"] = "lean",
    width: int | None = None,
    start: Path | None = None,
    batch: int = 8,
    patch: int = 64,
    rate: float = 2e-3,
    alpha: float = 1.0,
    share: float = 0.01,
    hole: int | None = None,
    prefilter: Literal["mean", "input", "zero"] = "mean",
    colour: Switch = False,
    patience: int | None = None,
    min_delta: float = 0.0,
    validations: int = 10,
    seed: int = 0,
    device: str = "cpu",
    half: Choice = None,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    assume_white: Switch = False,
    widen: Switch = False,
    resume: Switch = False,
    log: Path | None = None,
    preview: Path | None = None,
    licence: str | None = None,
    json: Json = False,
) -> int:
    """A denoiser learned from a file, a folder of images or a tile set; no clean image is needed but for supervised.

    Parameters
    ----------
    method
        r2r where the noise is known; n2v, n2v2 and neighbour where it is only known to be white; n2n from exposures of one
        scene; supervised from a tile set with clean tiles; masked-l2 is a published objective that does not denoise.
    data
        A file, a folder of images, or a tile set of `firstlight tiles`.
    out
        The model file to write, .safetensors. A checkpoint lies beside it until the training has ended.
    budget
        60s, 10m or 2h of processor time (on a GPU of its time), 500 steps, or 3 epochs.
    net
        lean: small and fast; seed: the U-Net of the documented astronomy pipeline.
    width
        Channels of the lean network's first level; by default 8 to 32, by how many noisy pixels there are to learn from.
    start
        A model file to train further.
    batch
        Patches a step.
    patch
        Side of a patch [px].
    rate
        Learning rate at the start of the cosine.
    alpha
        Of r2r: the added noise over the image's own.
    share
        Of n2v: the share of pixels masked.
    hole
        Of n2v and masked-l2: the width [px] hidden around a masked pixel, odd.
    prefilter
        What the network corrects: a local mean, the input, or nothing.
    colour
        Learn on all channels together.
    patience
        End after so many validations without progress.
    min_delta
        The least progress that counts.
    validations
        How many, evenly over the budget.
    seed
        Of everything random.
    device
        cpu, cuda or cuda:1.
    half
        Compute in bfloat16; by default where the machine is faster so.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the files do not say.
    ext
        One of several images in each file.
    assume_white
        Go on where neighbouring pixels' noise correlates.
    widen
        Where it correlates, hide 5 px around each masked pixel instead of refusing (n2v, n2v2).
    resume
        Go on with a training that was interrupted.
    log
        A file of JSON lines, one a validation.
    preview
        A folder for a picture a validation: noisy, estimate, difference.
    licence
        The licence of the data, for the model's card.
    """
    from firstlight import train as training

    options = training.Options(
        net=net,
        width=width,
        start=start,
        budget=budget,
        batch=batch,
        patch=patch,
        rate=rate,
        alpha=alpha,
        share=share,
        hole=hole,
        prefilter=prefilter,
        colour=colour,
        patience=patience,
        min_delta=min_delta,
        validations=validations,
        seed=seed,
        device=device,
        half=half,
        detector=detector,
        unit=unit,
        ext=ext,
        assume_white=assume_white,
        widen=widen,
        resume=resume,
        log=log,
        preview=preview,
        licence=licence,
    )
    command = shlex.join(["firstlight", "train", method, data.name, *training.changed(options)])
    try:
        with progress(json) as tick:
            row = training.train(method, data, out, options, tick, command)
    except KeyboardInterrupt:
        sys.stderr.write("firstlight: interrupted; go on from the checkpoint with --resume\n")
        return 130
    emit(row, json, lambda: training.told(row))
    return 0
