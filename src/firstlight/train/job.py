"""`firstlight train`: from a file, a folder or a tile set to a model file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from firstlight import intake, model_file
from firstlight.dataset.metadata import METADATA
from firstlight.dataset.store import INDEX
from firstlight.denoiser import inputs
from firstlight.errors import FrameError, ModelError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.measure.white import with_white_noise
from firstlight.model_file import Model
from firstlight.noise import Noise, Unmodelled
from firstlight.train import patch_set, sources
from firstlight.train.batches import Batch, Batches, Planes
from firstlight.train.budget import budget
from firstlight.train.loop import Fitted, fit
from firstlight.train.objectives import METHODS, Method, Objective
from firstlight.train.options import Learning, Options, check, check_patch
from firstlight.train.preview import previewer
from firstlight.train.validation import Validation, count_risk, objective_risk, r2r_risk, target_risk

__all__ = ["checkpoint_for", "learned", "measured", "told", "train"]

WIDE = 5  # px, of a widened hole: noise is taken to correlate two pixels far at most
JUDGED = 0.2  # a of the held-out risk: noise of variance 1 + a^2, nearly that of the network's use
PATCHES = 64  # held out, at most
WIDTH = 32  # of the lean network's first level, where there is enough to learn from
DEFAULTS = Options()
JUDGED_BY = "held-out mean squared error over the noise's variance"
TILES = 8  # of a set, whose noise is looked at


class Drawn(Protocol):
    """What a training learns from: the batch of a step, and steps in which as many pixels are seen as there are."""

    def __call__(self, step: int, /) -> Batch: ...

    def per_epoch(self) -> int: ...


@dataclass(frozen=True)
class _Data:
    learn: Planes
    judge: Planes | None  # None: cells of `learn` are held out
    known: bool  # the noise is, and is white
    hole: int | None
    raw: Planes | None = None  # `learn` as counts, where it is to be judged as such


def train(
    method: str,
    data: Path,
    out: Path,
    options: Options = DEFAULTS,
    tick: Callable[[int, int, str], None] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Train a network on DATA and write the model; returns its figures.

    Raises FrameError for an unknown method, noise that correlates, or data that a method cannot use, ModelError for a
    checkpoint of another training, WriteError where one is in the way.
    """
    if method not in METHODS:
        raise FrameError(f"train: method {method!r}, expected one of {', '.join(METHODS)}")
    if METHODS[method].warning:
        warnings.warn(str(METHODS[method].warning), UserWarning, stacklevel=2)
    check(method, options, _is_set(data))
    checkpoint_for(out, options.resume)  # said before the work is done
    found = _data(method, data, options)
    model = _model(method, options, data, command, found.learn)
    check_patch(options.patch, int(model.net.multiple))  # type: ignore[arg-type]
    objective, learn, validate, first = _task(method, found, model, options)
    return learned(
        model,
        objective,
        learn,
        options,
        out,
        method=method,
        risk=JUDGED_BY if found.known else "held-out loss",
        validate=validate,
        identity={**_own(method, found.hole, options), **_shape(options, found.learn)},
        preview=None if options.preview is None else previewer(options.preview, first, model.scaling["prefilter"]),
        tick=tick,
    )


def learned(
    model: Model,
    objective: Objective,
    learn: Drawn,
    options: Options | Learning,
    out: Path,
    *,
    method: str,
    risk: str,
    validate: Validation,
    identity: Mapping[str, Any],
    preview: Callable[[nn.Module, int], None] | None,
    tick: Callable[[int, int, str], None] | None,
) -> dict[str, Any]:
    """Train `model` as `options` say, write it to `out` and return its figures; risk: what `validate` measures; identity: what
    else the weights depend on. Raises as `checkpoint_for` and `fit` do."""
    checkpoint = checkpoint_for(out, options.resume)
    fitted = fit(
        model.net,
        objective,
        learn,
        budget=budget(options.budget),
        per_epoch=learn.per_epoch(),
        rate=options.rate,
        validate=validate,
        validations=options.validations,
        patience=options.patience,
        min_delta=options.min_delta,
        seed=options.seed,
        device=options.device,
        half=options.half,
        checkpoint=checkpoint,
        identity={"method": method, "begin": model.digest(), **identity},
        log=options.log,
        preview=preview,
        tick=tick,
    )
    figures = _figures(fitted, risk)
    card = {**model.card, "figures": figures, "method": method}
    model_file.save(replace(model, net=fitted.net.cpu(), card=card), out)
    checkpoint.unlink(missing_ok=True)
    return {"model": str(out), "method": method, **figures}


def told(row: Mapping[str, Any]) -> str:
    """A training's figures in a line."""
    risk = ""
    if "risk" in row:
        risk = f"; {row['risk_is']} {row['risk']:.4f}, {row['risk_at_start']:.4f} at the start"
    return f"{row['model']}: {row['method']}, {row['steps']} steps in {row['seconds']:g} s ({row['stopped']}){risk}"


def checkpoint_for(out: Path, resume: bool) -> Path:
    """Where a training's state lies; raises WriteError for another output than a model, or one that nobody goes on with."""
    if out.suffix != ".safetensors":
        raise WriteError(f"{out}: a model file ends in .safetensors; name it {out.with_suffix('.safetensors').name}")
    path = out.with_name(f"{out.stem}.checkpoint.safetensors")
    if path.exists() and not resume:
        raise WriteError(f"{path}: an unfinished training is there; say --resume to go on with it, or remove it")
    return path


def _is_set(data: Path) -> bool:
    return (data / METADATA).is_file() or (data / INDEX).is_file()


def _data(method: str, data: Path, options: Options) -> _Data:
    rules = METHODS[method]
    if _is_set(data):
        learn = sources.tile_set(data, "train", target=rules.target)
        if rules.white and not options.assume_white:
            _check_tiles(data, method)
        return _Data(learn, sources.tile_set(data, "validation", target=rules.target), True, options.hole)
    if data.suffix.lower() == ".csv":
        return _patched(method, data, options)
    frames = sources.folder(data, detector=options.detector, unit=options.unit, ext=options.ext)
    if method == "supervised":
        raise FrameError(f"{data}: supervised training needs clean targets; give a tile set whose noisy tiles have them")
    if method == "n2n":
        return _Data(sources.pairs(frames), None, True, None)
    known = all(isinstance(f.noise, Noise) for f in frames)
    if not known and rules.noise:
        intake.check_white(next(f for f in frames if isinstance(f.noise, Unmodelled)), f"train {method}")
    frames = [f if isinstance(f.noise, Noise) else measured(f) for f in frames]
    hole = options.hole if options.assume_white else _hole(frames, method, rules, options)
    known = known and not _wide(hole)
    raw = sources.counts(frames) if known and not options.colour else None
    return _Data(sources.frames(frames, colour=options.colour), None, known, hole, raw)


def _patched(method: str, data: Path, options: Options) -> _Data:
    """The patches of `firstlight split`: what trains and what validates are images apart."""
    rules, own = METHODS[method], {"detector": options.detector, "colour": options.colour}
    if rules.target:
        raise FrameError(f"{data}: patches bring no target for {method}; take a method that learns from noisy images alone")
    learn, judge = (patch_set.chosen(data, name, **own) for name in ("train", "validation"))  # type: ignore[arg-type]
    some = patch_set.several(learn, TILES, options.detector, options.unit)
    known = patch_set.known([*learn, *judge], options.detector)
    if not known and rules.noise:
        raise FrameError(f"train {method} needs the noise of each pixel, and some patches state none; give --detector")
    some = [f if isinstance(f.noise, Noise) else measured(f) for f in some]
    hole = options.hole if options.assume_white else _hole(some, method, rules, options)
    learned, judged = (patch_set.planes(p, measured, unit=options.unit, **own) for p in (learn, judge))  # type: ignore[arg-type]
    return _Data(learned, judged, known and not _wide(hole), hole)


def _check_tiles(data: Path, method: str) -> None:
    """Raises FrameError where the noise of one of TILES tiles correlates, as far as they have flat parts."""
    from firstlight.dataset import NoiseTileDataset

    tiles = NoiseTileDataset(data, "train", unit="electron", unmodelled="drop")
    for i in np.unique(np.linspace(0, len(tiles) - 1, TILES).astype(int)):
        item = tiles[int(i)]
        noise = Noise(*(item[name].numpy() for name in ("a", "b", "offset")))
        try:
            intake.check_white(Frame(item["image"].numpy(), "CYX", Unit.ELECTRON, noise), f"train {method}")
        except FrameError as error:
            raise FrameError(f"{data}: tile {item['tile_id']}: {error}") from error


def _wide(hole: int | None) -> bool:
    return hole is not None and hole > 1


def _hole(frames: Sequence[Frame], method: str, rules: Method, options: Options) -> int | None:
    """The hole as asked, or widened where noise correlates and the user says so."""
    for frame in frames if rules.white else ():
        try:
            intake.check_white(frame, f"train {method}")
        except FrameError as error:
            if not (rules.hole and options.widen):
                raise FrameError(f"{error}" + ("; or --widen the hole" if rules.hole else "")) from error
            return max(options.hole or 1, WIDE)
    return options.hole


def measured(frame: Frame) -> Frame:
    """The frame with constant white noise of the size that its second differences show, where no model is known.

    Immerkaer 1996 with a median for the mean. Methods that learn without a noise model need its order of magnitude alone.
    Raises FrameError where there are none.
    """
    try:
        return with_white_noise(frame)
    except FrameError as error:
        raise FrameError(f"training: {error}") from error


def _model(method: str, options: Options, data: Path, command: str, learn: Planes) -> Model:
    if options.start is not None:
        model = model_file.load(options.start)
        if model.scaling["domain"] != "stabilised" or model.axes != "YX":
            raise ModelError(
                f"{options.start}: model of {model.scaling['domain']} data, axes {model.axes}; expected stabilised, YX"
            )
        return model
    channels = int(learn[0].z.shape[0]) if options.colour else 1
    origin = [{"name": data.name, "licence": options.licence or "not stated"}]
    common: dict[str, Any] = {"data": origin, "command": command, "seed": options.seed}
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.net == "seed":
            scaling = {"domain": "stabilised", "prefilter": "zero"}
            return model_file.new("seed", {"channels": channels}, scaling=scaling, **common)
        width = options.width or (WIDTH if METHODS[method].clean else _width(learn))
        widths = [width, 2 * width, 3 * width]
        config = {"inputs": inputs(options.prefilter, channels), "outputs": 2 * channels, "widths": widths}
        scaling = {"domain": "stabilised", "prefilter": options.prefilter}
        return model_file.new(options.net, config, scaling=scaling, **common)


def _width(learn: Planes) -> int:
    """Of the first level: with more than 0.4 weights for each noisy pixel a network learns them by heart."""
    pixels = len(learn) * int(np.prod(learn[0].z.shape))
    weights = 400 * np.arange(8, WIDTH + 1, 4) ** 2  # of the lean network of each width
    return 8 + 4 * max(int(np.searchsorted(weights, 0.4 * pixels, side="right")) - 1, 0)


def _task(method: str, data: _Data, model: Model, options: Options) -> tuple[Objective, Batches, Validation, Batch]:
    """What is minimised, on what, how it is judged, and a batch that it is not learned from."""
    prefilter = model.scaling["prefilter"]
    objective = partial(METHODS[method].objective, prefilter=prefilter, **_own(method, data.hole, options))
    learn = Batches(data.learn, options.batch, options.patch, options.seed, 0.0 if data.judge else 0.1, colour=options.colour)
    judge = replace(learn, planes=data.judge, held=0.0) if data.judge else learn
    held = [b.to(options.device) for b in judge.held_out(PATCHES)]
    validate: Validation = partial(objective_risk, batches=held, objective=objective)
    if METHODS[method].target:
        validate = partial(target_risk, batches=held, noise=1.0 if method == "n2n" else 0.0, prefilter=prefilter)
    elif data.raw is not None:
        counted = [b.to(options.device) for b in replace(judge, planes=data.raw).held_out(PATCHES)]
        validate = partial(count_risk, batches=counted, alpha=JUDGED, prefilter=prefilter)
    elif data.known:
        validate = partial(r2r_risk, batches=held, alpha=JUDGED, prefilter=prefilter)
    return objective, learn, validate, held[0]


def _own(method: str, hole: int | None, options: Options) -> Mapping[str, Any]:
    """The objective's own parameters."""
    if method == "r2r":
        return {"alpha": options.alpha}
    holes = {} if hole is None or not METHODS[method].hole else {"hole": hole}
    return {"share": options.share, **holes} if method in ("n2v", "n2v2") else holes


def _shape(options: Options, learn: Planes) -> dict[str, Any]:
    """What else the weights depend on."""
    planes = [len(learn), *learn[0].z.shape]
    return {"batch": options.batch, "patch": options.patch, "validations": options.validations, "planes": planes}


def _figures(fitted: Fitted, what: str) -> dict[str, Any]:
    """What the card says of a training; what: the figure that was to fall."""
    best = next((row for row in reversed(fitted.figures) if row["best"]), None)
    told = {} if best is None else {"risk": best["figure"], "risk_error": best["error"], "best_step": best["step"]}
    first = fitted.figures[0]["figure"] if fitted.figures else None
    return {
        **told,
        "risk_is": what,
        "risk_at_start": first,
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "stopped": fitted.stopped,
    }
