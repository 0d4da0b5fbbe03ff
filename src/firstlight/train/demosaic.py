"""`firstlight train demosaic`: from pictures of linear light to a model that demosaicks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from firstlight import model_file
from firstlight.errors import FrameError, ModelError
from firstlight.geometry import BAYER, XTRANS, Pattern
from firstlight.model_file import Model
from firstlight.restore import lmmse
from firstlight.train.batches import Batch
from firstlight.train.job import checkpoint_for, learned
from firstlight.train.mosaics import Light, MosaicBatches, masks
from firstlight.train.objectives import Objective
from firstlight.train.options import Learning, check_device, check_seed
from firstlight.train.pictures import described, mixes, pool
from firstlight.train.validation import objective_risk

__all__ = ["PATTERNS", "colours", "documented", "learn_demosaic", "packed"]

Array = NDArray[Any]
Tick = Callable[[int, int, str], None]
PATTERNS: Mapping[str, Pattern] = {"xtrans": XTRANS, "bayer": BAYER}
STEADY = 0.008  # encoded noise at which a loss counts half: what noise makes unavoidable must not crowd out detail
HELD = 24  # batches judged
DOCUMENTED = (
    "profile documented: linear light, no white balance, as published: dark parts count for little, and the network fits raw "
    "colours of one camera alone; profile physical learns on encoded, balanced mosaics"
)
NORMALISED = "net unet has BatchNorm: fine-tuned on other pictures alone it forgets; --mix the ones it knows"


DEFAULTS = Learning()


def learn_demosaic(
    data: Path, out: Path, options: Learning = DEFAULTS, tick: Tick | None = None, command: str = ""
) -> dict[str, Any]:
    """Train a network on the pictures of DATA and write the model; returns its figures.

    DATA: what `train.pictures.pool` reads. A tenth of it is held out. Raises FrameError, ReadError for options or pictures that
    cannot be used, ModelError for a model or checkpoint of another training, WriteError where one is in the way.
    """
    _check(options)
    checkpoint_for(out, options.resume)  # said before the work is done
    _warn(options, described(data))
    learn, judge = _batches(data, options)
    model = _model(options, data, learn, command)
    objective: Objective = partial(documented, where=masks(learn.pattern, learn.side))
    if options.net == "packed":
        objective = partial(packed, filters=learn.light.filters(np.array(learn.pattern)))
    held = [judge(k).to(options.device) for k in range(HELD)]
    return learned(
        model,
        objective,
        learn,
        options,
        out,
        method="demosaic",
        risk="held-out loss",
        validate=partial(objective_risk, batches=held, objective=objective),
        identity=_identity(options, learn),
        preview=None if options.preview is None else _previewer(options.preview, model, held[0], learn.pattern),
        tick=tick,
    )


def packed(
    net: nn.Module, batch: Batch, rng: torch.Generator, *, filters: Mapping[float, Tensor], chroma: float = 0.0
) -> Tensor:
    """E |base + m(z) - target|, base the linear estimate for the batch's noise, over what that noise makes unavoidable; with
    `chroma` times the same of the differences of R and B from G."""
    assert batch.sigma is not None
    sigma = batch.sigma[:, :, 0, 0]
    kernel = filters[float(sigma[0, 1])].to(batch.z.device)
    pack = int(net.pack)  # type: ignore[arg-type]
    edge = pack * (kernel.shape[-1] // 2)
    assert batch.target is not None
    with torch.autocast(batch.z.device.type, enabled=False):
        folded = functional.pixel_unshuffle(batch.z, pack)
        base = functional.conv2d(folded, kernel)
    target = functional.pixel_unshuffle(batch.target[:, :, edge:-edge, edge:-edge], pack)
    error = base + net(folded, base, sigma).float() - target
    loss: Tensor = error.abs().mean()
    if chroma:
        red, green, blue = error.chunk(3, dim=1)
        loss = loss + chroma * torch.stack([red - green, blue - green]).abs().mean()
    return loss / (1 + float(sigma[0, 1]) / STEADY)


def documented(net: nn.Module, batch: Batch, rng: torch.Generator, *, where: Tensor) -> Tensor:
    """Document 4's loss: E |m - t| + E |grad m - grad t| + E |chroma m - chroma t|, chroma = colours less their mean."""
    target = batch.target
    assert target is not None
    found = net(torch.cat([batch.z, where.to(batch.z.device).expand(len(batch.z), -1, -1, -1)], dim=1)).float()
    difference = found - target
    loss = difference.abs().mean()
    loss = loss + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    total: Tensor = loss + (difference - difference.mean(dim=1, keepdim=True)).abs().mean()
    return total


def colours(model: Model, batch: Batch, pattern: Pattern) -> Tensor:
    """The network's colours (B, 3, y, x) of a batch, of its own encoding; the linear estimate's border is left out."""
    net = model.net
    with torch.no_grad():
        if model.card["net"]["name"] == "mosaic-unet":
            where = masks(pattern, batch.z.shape[-1]).expand(len(batch.z), -1, -1, -1)
            found: Tensor = net(torch.cat([batch.z, where], dim=1))
            return found
        kernel = Light(None).filters(np.array(pattern))[0.0]
        folded = functional.pixel_unshuffle(batch.z, int(net.pack))  # type: ignore[arg-type]
        base = functional.conv2d(folded, kernel)
        base = base + net(folded, base, torch.zeros(len(batch.z), 3))
        return functional.pixel_shuffle(base, int(net.pack))  # type: ignore[arg-type]


def _check(options: Learning) -> None:
    for name, known in (("net", ("packed", "unet")), ("cfa", tuple(PATTERNS)), ("profile", ("physical", "documented"))):
        if getattr(options, name) not in known:
            raise FrameError(f"train demosaic: {name} {getattr(options, name)!r}, expected {' or '.join(known)}")
    if options.profile == "documented" and options.net != "unet":
        raise FrameError("train demosaic: profile documented is of the documented network; say --net unet too")
    for name in ("rate", "width", "depth", "validations", "patience"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise FrameError(f"train demosaic: {name} {value:g}, expected a positive number")
    if not 0 <= options.min_delta < float("inf"):
        raise FrameError(f"train demosaic: min_delta {options.min_delta:g}, expected 0 or more")
    if not 0 <= options.noisy <= 1 or any(k < 1 for k in options.shrink) or not options.shrink:
        raise FrameError(f"train demosaic: noisy {options.noisy:g}, shrink {options.shrink}; expected 0 to 1, and 1 or more")
    if options.start is not None and (options.width, options.depth) != (None, DEFAULTS.depth):
        raise FrameError("train demosaic: --width and --depth are of a new network; leave them out with --start")
    if options.patch % _multiple(options):
        raise FrameError(f"train demosaic: patch {options.patch} px, expected a multiple of {_multiple(options)}")
    check_seed(options.seed)
    check_device(options.device)


def _multiple(options: Learning) -> int:
    """Px, of the network and the pattern: of both, as a patch starts on the pattern's first pixel."""
    return 16 if options.net == "unet" else lmmse.reach(len(PATTERNS[options.cfa]))[0]


def _edge(options: Learning) -> int:
    """Px around a patch that the linear filters reach to."""
    if options.net == "unet":
        return 0
    pack, cells = lmmse.reach(len(PATTERNS[options.cfa]))
    return pack * (cells // 2)


def _warn(options: Learning, metas: list[dict[str, Any]]) -> None:
    """What cannot be undone by the training, said at its start."""
    plain = options.profile == "documented"
    if plain:
        warnings.warn(DOCUMENTED, UserWarning, stacklevel=3)
    if options.net == "unet" and options.start is not None and not options.mix:
        warnings.warn(NORMALISED, UserWarning, stacklevel=3)
    if odd := [m["source"] for m in metas if m.get("balanced") is plain]:
        what = "white-balanced" if plain else "not white-balanced"
        told = f"{len(odd)} pictures are {what} ({odd[0]}): profile {options.profile} expects the other; build the set again"
        warnings.warn(told, UserWarning, stacklevel=3)


def _batches(data: Path, options: Learning) -> tuple[MosaicBatches, MosaicBatches]:
    """What is learned from, and the tenth that is judged: without noise and other colours."""
    side = options.patch + 2 * _edge(options)
    plain = options.profile == "documented"
    light = Light(None) if plain else Light.encoded(options.seed, options.noisy if options.net == "packed" else 0.0)
    if not data.exists():
        raise FrameError(f"{data}: no such file or folder; give linear pictures, JPEG files or a torture set")
    pools = [pool(data, shrink=options.shrink, side=side, held=held) for held in (False, True)]
    common: dict[str, Any] = {"pattern": PATTERNS[options.cfa], "light": light, "side": side, "batch": options.batch}
    learn = MosaicBatches(pools[0], seed=options.seed, mix=mixes(options.mix, side), **common)
    return learn, MosaicBatches(pools[1], seed=options.seed + (1 << 20), still=True, **common)


def _model(options: Learning, data: Path, learn: MosaicBatches, command: str) -> Model:
    if options.start is not None:
        model = model_file.load(options.start)
        _same(model, options)
        return model
    name = "packed" if options.net == "packed" else "mosaic-unet"
    width = options.width or 64
    config: dict[str, Any] = {"base": width}
    if name == "packed":
        config = {"pack": _multiple(options), "width": width, "depth": options.depth}
    scaling: dict[str, Any] = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in learn.pattern]}
    scaling |= {"light": "linear", "balanced": False} if options.profile == "documented" else {}
    licence = options.licence or "not stated"
    origin = [{"name": n, "licence": licence} for n in (data.name, *(Path(path).name for path in learn.mix))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return model_file.new(name, config, scaling=scaling, data=origin, command=command, seed=options.seed)


def _same(model: Model, options: Learning) -> None:
    """Raises ModelError for a model to go on from that is of another kind."""
    wanted: dict[str, Any] = {"net": "packed" if options.net == "packed" else "mosaic-unet", "domain": "mosaic"}
    wanted |= {"pattern": [list(row) for row in PATTERNS[options.cfa]], "linear": options.profile == "documented"}
    own: dict[str, Any] = {"net": model.card["net"]["name"], "domain": model.scaling["domain"]}
    own |= {"pattern": model.scaling.get("pattern"), "linear": model.scaling.get("light") == "linear"}
    other = [f"{k} {own[k]}, expected {wanted[k]}" for k in wanted if own[k] != wanted[k]]
    if other:
        raise ModelError(f"{options.start}: a model to go on from of another kind ({'; '.join(other)})")


def _identity(options: Learning, learn: MosaicBatches) -> dict[str, Any]:
    """What else the weights depend on."""
    own = {f.name: getattr(options, f.name) for f in fields(Learning)}
    for name in ("start", "resume", "log", "preview", "licence", "device", "half", "budget", "seed", "rate"):
        del own[name]
    return {**own, "mix": list(options.mix), "shrink": list(options.shrink), "pictures": len(learn.pool.pictures)}


def _previewer(folder: Path, model: Model, batch: Batch, pattern: Pattern) -> Callable[[nn.Module, int], None]:
    """A function (net, step) that writes FOLDER/preview-STEP.png: mosaic, estimate, truth, four patches below each other."""
    import cv2

    from firstlight.atomic import replacing
    from firstlight.train.validation import judged

    folder.mkdir(parents=True, exist_ok=True)

    def draw(net: nn.Module, step: int) -> None:
        part = batch.part(slice(0, 4)).to("cpu")
        with judged(net):
            found = colours(replace(model, net=net.cpu()), part, pattern)
        net.to(batch.z.device)
        assert part.target is not None
        edge = (part.z.shape[-1] - found.shape[-1]) // 2
        inside = slice(edge, part.z.shape[-1] - edge)
        columns = (part.z.expand(-1, 3, -1, -1)[:, :, inside, inside], found, part.target[:, :, inside, inside])
        rows = torch.cat([torch.cat(list(c), dim=1) for c in columns], dim=2)
        image = np.round(255 * rows.clamp(0, 1).numpy().transpose(1, 2, 0)[..., ::-1]).astype(np.uint8)
        _, png = cv2.imencode(".png", image)
        with replacing(folder / f"preview-{step:07d}.png") as temp:
            temp.write_bytes(png.tobytes())

    return draw
