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

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net, self.prefilter = model.net, model.scaling["prefilter"]

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        found = estimate(self.net, z, self.prefilter)
        return (found.mean,) if found.log_variance is None else (found.mean, found.log_variance)


def to_onnx(model: Model, path: str | Path) -> Path:
    """Write `model` to `path` (.onnx) and compare it there with itself at two sizes; returns the path.

    The graph takes z, float32 (1, C, Y, X) or (1, C, Z, Y, X) in the model's domain (stabilised data, noise of variance 1),
    lengths any multiples of `multiple`, and gives mean and, where the network has it, log_variance, alike. Metadata
    "firstlight": scaling, axes, halo, multiple and card as JSON. Raises MissingExtra without onnx, onnxruntime and
    onnxscript, ModelError where the written graph's answers differ by more than 1e-4.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"ONNX needs {', '.join(missing)}; install firstlight[onnx]")
    path = Path(path)
    whole, sample = _Whole(model).eval(), _sample(model, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp:
        temp.write_bytes(_graph(model, whole, sample))
        for size in (3, 5):
            _compare(path, temp, whole, _sample(model, size))
    return path


def _sample(model: Model, size: int) -> Tensor:
    """Lengths of `size`, `size` + 1, ... multiples, so that no two axes agree."""
    rng = torch.Generator().manual_seed(size)
    shape = [model.multiple * (size + i) for i in range(len(model.axes))]
    return 5 + torch.randn((1, model.channels, *shape), generator=rng)


def _graph(model: Model, whole: nn.Module, sample: Tensor) -> bytes:
    from torch.export import Dim

    sizes: dict[int, Any] = {2 + i: model.multiple * Dim(f"n{i}", min=2, max=1 << 16) for i in range(len(model.axes))}
    names = ["mean", "log_variance"][: len(whole(sample))]
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # of torch's own deprecated calls
        program: Any = torch.onnx.export(
            whole, (sample,), dynamo=True, input_names=["z"], output_names=names, dynamic_shapes=(sizes,), verbose=False
        )
    proto = program.model_proto
    about = {"axes": model.axes, "halo": model.halo, "multiple": model.multiple}
    text = json.dumps({**about, "scaling": dict(model.scaling), "card": dict(model.card)}, sort_keys=True)
    proto.metadata_props.add(key="firstlight", value=text)
    return bytes(proto.SerializeToString())


def _compare(path: Path, temp: Path, whole: nn.Module, sample: Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(temp), providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, {"z": sample.numpy()})
    with torch.inference_mode():
        wanted = [w.numpy() for w in whole(sample)]
    worst = max(float(np.abs(f - w).max()) for f, w in zip(found, wanted, strict=True))
    if not worst <= PARITY:
        raise ModelError(
            f"{path}: ONNX differs from the network by {worst:.1e}, expected {PARITY:.0e} at most; report this model"
        )
