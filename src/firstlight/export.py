"""A model for other programs: ONNX, checked against the network that it came from."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from firstlight.atomic import replacing
from firstlight.denoiser import estimate
from firstlight.errors import MissingExtra, ModelError
from firstlight.model_file import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["to_onnx"]

NEEDED = ("onnx", "onnxruntime", "onnxscript")  # onnxscript: torch's exporter is written in it
PARITY = 1e-4  # in noise units; float32 rounding alone is 1e-6


class _Whole(nn.Module):
    """From the model's domain to its estimate, the prefilter included."""

    names, outputs = ("z",), ("mean", "log_variance")

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net, self.prefilter = model.net, model.scaling["prefilter"]

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        found = estimate(self.net, z, self.prefilter)
        return (found.mean,) if found.log_variance is None else (found.mean, found.log_variance)


class _Packed(nn.Module):
    """A PackedNet's corrected colours, from a mosaic extended by one cell all around, its linear estimate and the noise."""

    names, outputs = ("mosaic", "base", "sigma"), ("colours",)

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net, self.pack = model.net, model.multiple

    def forward(self, mosaic: Tensor, base: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        folded = functional.pixel_unshuffle(mosaic, self.pack)
        found = self.net(folded, functional.pixel_unshuffle(base, self.pack), sigma)
        return (base + functional.pixel_shuffle(found, self.pack),)


class _Planes(nn.Module):
    """Document 4's U-Net: mosaic and the planes of its colours to colours."""

    names, outputs = ("planes",), ("colours",)

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        return (self.net(planes),)


def _whole(path: Path, model: Model) -> _Whole | _Packed | _Planes:
    """What is written. Raises ModelError for a network on mosaics that has no such form."""
    name = model.card["net"]["name"]
    if model.scaling["domain"] != "mosaic":
        return _Whole(model)
    kinds: dict[str, type[_Packed | _Planes]] = {"packed": _Packed, "mosaic-unet": _Planes}
    if name not in kinds:
        raise ModelError(f"{path}: network {name!r} on mosaics, expected {' or '.join(kinds)}; ONNX holds no other")
    return kinds[name](model)


def to_onnx(model: Model, path: str | Path) -> Path:
    """Write `model` to `path` (.onnx) and compare it there with itself at two sizes; returns the path.

    The graph takes z, float32 (1, C, Y, X) or (1, C, Z, Y, X) in the model's domain (stabilised data, noise of variance 1),
    lengths any multiples of `multiple`, and gives mean and, where the network has it, log_variance, alike. Networks on
    mosaics give colours (1, 3, Y, X), all encoded as `restore.encoding` says, the pattern of the metadata's scaling starting at
    the first pixel: "packed" from mosaic (1, 1, Y + 2 multiple, X + 2 multiple), base (1, 3, Y, X), the linear estimate of
    `restore.lmmse`, and sigma (1, 3); "mosaic-unet" from planes (1, 4, Y, X): the mosaic, and 1 where R, G, B lie. Metadata
    "firstlight": scaling, axes, halo, multiple and card as JSON. Raises MissingExtra without onnx, onnxruntime and
    onnxscript, ModelError where the written graph's answers differ by more than 1e-4, or for another network on mosaics.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"ONNX needs {', '.join(missing)}; install firstlight[onnx]")
    path = Path(path)
    whole = _whole(path, model).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp:
        temp.write_bytes(_graph(model, whole))
        for size in (3, 5):
            _compare(path, temp, whole, _samples(model, whole, size))
    return path


def _samples(model: Model, whole: nn.Module, size: int) -> tuple[Tensor, ...]:
    """Lengths of `size`, `size` + 1, ... multiples, so that no two axes agree."""
    rng = torch.Generator().manual_seed(size)
    step = model.multiple
    shape = [step * (size + i) for i in range(len(model.axes))]
    if isinstance(whole, _Packed):
        wide = [n + 2 * step for n in shape]
        sizes = ((1, 1, *wide), (1, 3, *shape), (1, 3))
        return tuple(torch.rand(s, generator=rng) for s in sizes)
    channels = 4 if isinstance(whole, _Planes) else model.channels
    return (5 + torch.randn((1, channels, *shape), generator=rng),)


def _sizes(model: Model, whole: nn.Module) -> tuple[dict[int, Any], ...]:
    """Axes of each input whose lengths are left open."""
    from torch.export import Dim

    counts = [Dim(f"n{i}", min=2, max=1 << 16) for i in range(len(model.axes))]
    own = {2 + i: model.multiple * n for i, n in enumerate(counts)}
    if not isinstance(whole, _Packed):
        return (own,)
    return {2 + i: model.multiple * n + 2 * model.multiple for i, n in enumerate(counts)}, own, {}


def _graph(model: Model, whole: nn.Module) -> bytes:
    samples = _samples(model, whole, 3)
    names = list(whole.outputs)[: len(whole(*samples))]  # type: ignore[arg-type]
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # of torch's own deprecated calls
        program: Any = torch.onnx.export(
            whole,
            samples,
            dynamo=True,
            input_names=list(whole.names),  # type: ignore[arg-type]
            output_names=names,
            dynamic_shapes=_sizes(model, whole),
            verbose=False,
        )
    proto = program.model_proto
    about = {"axes": model.axes, "halo": model.halo, "multiple": model.multiple}
    text = json.dumps({**about, "scaling": dict(model.scaling), "card": dict(model.card)}, sort_keys=True)
    proto.metadata_props.add(key="firstlight", value=text)
    return bytes(proto.SerializeToString())


def _compare(path: Path, temp: Path, whole: nn.Module, samples: tuple[Tensor, ...]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(temp), providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(
        None,
        {k: v.numpy() for k, v in zip(whole.names, samples, strict=True)},  # type: ignore[arg-type]
    )
    with torch.inference_mode():
        wanted = [w.numpy() for w in whole(*samples)]
    worst = max(float(np.abs(f - w).max()) for f, w in zip(found, wanted, strict=True))
    if not worst <= PARITY:
        raise ModelError(
            f"{path}: ONNX differs from the network by {worst:.1e}, expected {PARITY:.0e} at most; report this model"
        )
