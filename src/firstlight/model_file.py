"""A trained network as one file: safetensors with a JSON card in its header. Nothing pickled is ever run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from firstlight.atomic import replacing
from firstlight.denoiser import PREFILTERS, REACH, inputs
from firstlight.errors import ModelError, WriteError
from firstlight.nets import build

__all__ = ["FORMAT", "Model", "from_checkpoint", "load", "new", "save", "shipped"]

FORMAT = 1
ODD = (EOFError, AttributeError, TypeError, OverflowError)  # what torch.load raises besides on bytes that are no pickle
KEY = "firstlight"  # of the header's metadata
STABILISED = {"domain": "stabilised", "prefilter": "mean"}
# Document 3's pipeline: percentiles of each tile, the network's output is the image itself
PERCENTILE = {"domain": "percentile", "low": 1.0, "high": 99.5, "prefilter": "zero"}


@dataclass(frozen=True, eq=False)
class Model:
    """A network and what must be known to use it.

    scaling: {"domain": "stabilised" (generalised Anscombe, noise of variance 1), "percentile" or "mosaic" (with "pattern":
    what restore.demosaic asks for), "prefilter": a name of
    denoiser.PREFILTERS, ...}. axes: what a tile is, "YX" or "ZYX". halo [px]: how far an output pixel looks, prefilter
    included; tiles start at multiples of `multiple` [px]. card: net {"name", "config"}, data [{"name", "licence"}], command,
    seed, figures, firstlight (the version): JSON values only.
    """

    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}  # recipes check a step's parameters, this among them

    net: nn.Module
    scaling: Mapping[str, Any]
    axes: str
    halo: int
    multiple: int
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of an image that the network takes."""
        config = self.card["net"]["config"]
        given = int(config.get("channels", config.get("inputs", 1)))
        return given // inputs(self.scaling["prefilter"])

    @property
    def outputs(self) -> int:
        """Outputs of the network for each channel: 2 with a log-variance head."""
        config = self.card["net"]["config"]
        return (
            int(config["outputs"] if "outputs" in config else 1 if self.card["net"]["name"] == "seed" else 2) // self.channels
        )

    def digest(self) -> str:
        """Hexadecimal sha256 of the weights and of what gives them a meaning, as history names a model."""
        meaning = {"net": self.card["net"], "scaling": dict(self.scaling), "axes": self.axes}
        total = sha256(json.dumps(meaning, sort_keys=True).encode())
        for name, weight in sorted(self.net.state_dict().items()):
            total.update(name.encode())
            total.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()


def new(
    name: str = "lean",
    config: Mapping[str, Any] | None = None,
    *,
    scaling: Mapping[str, Any] = STABILISED,
    axes: str = "YX",
    data: Sequence[Mapping[str, Any]] = (),
    command: str = "",
    seed: int | None = None,
    figures: Mapping[str, Any] | None = None,
    net: nn.Module | None = None,
) -> Model:
    """A Model around the network `name` of firstlight.nets with `config`: `net` where trained, else initialised at random.

    Raises ModelError for an unknown network, prefilter, domain or axes, or a configuration that it does not take.
    """
    from firstlight import __version__

    config = dict(config or {})
    _check_meaning(scaling, axes)
    net = build(name, **config) if net is None else net
    card = {
        "net": {"name": name, "config": config},
        "data": [dict(d) for d in data],
        "command": command,
        "seed": seed,
        "figures": dict(figures or {}),
        "firstlight": __version__,
    }
    made = Model(net, dict(scaling), axes, int(net.halo) + REACH[scaling["prefilter"]], int(net.multiple), card)  # type: ignore[arg-type]
    if made.channels < 1:
        raise ModelError(
            f"model: {name} takes 1 input, prefilter {scaling['prefilter']!r} makes {inputs(scaling['prefilter'])} of one "
            "channel; expected a network of as many inputs"
        )
    return made


def _check_meaning(scaling: Mapping[str, Any], axes: str) -> None:
    domain, prefilter = scaling.get("domain"), scaling.get("prefilter")
    if domain not in ("stabilised", "percentile", "mosaic") or prefilter not in PREFILTERS or axes not in ("YX", "ZYX"):
        raise ModelError(
            f"model: scaling {dict(scaling)}, axes {axes!r}; expected domain 'stabilised', 'percentile' or 'mosaic', prefilter "
            f"one of {', '.join(PREFILTERS)}, axes 'YX' or 'ZYX'"
        )


def shipped(name: str = "universal") -> Path:
    """The path of a model that comes with the package. Raises ModelError where this build has none of that name."""
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise ModelError(f"no model {name!r} comes with this build of firstlight; name a model file (.safetensors)")
    return path


def save(model: Model, path: str | Path) -> Path:
    """Write `model` to `path` (.safetensors), whole or not at all; returns the path. Raises ModelError, WriteError."""
    from safetensors.torch import save as packed

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: a model file ends in .safetensors; name it {path.with_suffix('.safetensors').name}")
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.net.state_dict().items()}
    header = {
        "format": FORMAT,
        "scaling": dict(model.scaling),
        "axes": model.axes,
        "halo": model.halo,
        "multiple": model.multiple,
        "card": dict(model.card),
    }
    try:
        text = json.dumps(header, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: the card holds what JSON cannot ({error}); give finite numbers, texts and lists") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp:
        try:
            temp.write_bytes(packed(tensors, metadata={KEY: text}))  # save_file would keep other users from reading it
        except OSError as error:
            raise WriteError(f"{path}: cannot be written ({error}); name a writable file with room") from error
    return path


def load(path: str | Path) -> Model:
    """The model in a file, in evaluation mode, on the CPU.

    Raises ModelError for a file that is absent, truncated, of another program or of a newer firstlight, or whose weights
    are not those of the network that its card names.
    """
    path = Path(path)
    text, tensors = _read(path)
    head = _Header.parsed(path, text)
    _check_meaning(head.scaling, head.axes)
    name, config = head.card["net"]["name"], head.card["net"]["config"]
    _check_shapes(path, name, config, tensors)
    net = build(name, **config)
    net.load_state_dict(tensors)
    least = int(net.halo) + REACH[head.scaling["prefilter"]]  # type: ignore[arg-type]
    if head.halo < least or head.multiple % int(net.multiple):  # type: ignore[arg-type]
        raise ModelError(
            f"{path}: halo {head.halo} and multiple {head.multiple}, expected at least {least} and a multiple of "
            f"{net.multiple} for this {name} network; the card is wrong, save the model again"
        )
    return Model(net.eval(), head.scaling, head.axes, head.halo, head.multiple, head.card)


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load as unpacked

    if not path.is_file():
        raise ModelError(f"{path}: no such file; name a model written by firstlight (.safetensors)")
    if path.suffix in (".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path}: a pickled checkpoint, expected .safetensors; convert it once with `firstlight convert` "
            "(model_file.from_checkpoint)"
        )
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
        tensors = unpacked(path.read_bytes())  # safe_open would take Ctrl-C among its tensors for a damaged file
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}); fetch or save it again") from error
    if text is None:
        raise ModelError(
            f"{path}: a safetensors file without firstlight's card, of another program; expected a firstlight model"
        )
    return text, tensors


@dataclass(frozen=True)
class _Header:
    scaling: dict[str, Any]
    axes: str
    halo: int
    multiple: int
    card: dict[str, Any]

    @classmethod
    def parsed(cls, path: Path, text: str) -> _Header:
        try:
            raw = json.loads(text)
            version = raw.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path}: the card is no JSON object with a format number; save the model again") from error
        if version != FORMAT:
            raise ModelError(f"{path}: format {version!r}, expected {FORMAT}: written by a newer firstlight; update this one")
        kinds = {"scaling": dict, "axes": str, "halo": int, "multiple": int, "card": dict}
        wrong = [k for k in kinds.keys() | raw.keys() if k not in kinds or type(raw.get(k)) is not kinds[k]]
        net = raw["card"].get("net") if not wrong else None
        if wrong or not isinstance(net, dict) or type(net.get("name")) is not str or type(net.get("config")) is not dict:
            raise ModelError(
                f"{path}: the card is wrong at {', '.join(sorted(wrong)) or 'net'}; expected scaling, axes, halo, multiple and "
                "card with net: {name, config}"
            )
        if raw["halo"] < 0 or raw["multiple"] < 1:
            raise ModelError(f"{path}: halo {raw['halo']}, multiple {raw['multiple']}; expected pixels, 0 and 1 at least")
        return cls(**raw)


def _check_shapes(path: Path, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Before any memory is taken: a card that asks for a huge network costs nothing."""
    with torch.device("meta"):
        wanted = {k: v.shape for k, v in build(name, **config).state_dict().items()}
    found = {k: v.shape for k, v in tensors.items()}
    if wanted != found:
        odd = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        raise ModelError(
            f"{path}: weights {', '.join(odd[:3])} ({len(odd)} in all) are not those of network {name!r} with {dict(config)}; "
            "the card and the weights belong to different models"
        )
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        raise ModelError(f"{path}: weights {', '.join(sorted(bad)[:3])} are not finite; the training diverged, train again")


def from_checkpoint(path: str | Path) -> Model:
    """The model in a checkpoint (.pt) of the documented astronomy pipeline, {"model": state dict}; its pickle runs nothing.

    Read through torch.load(weights_only=True), and never written again. Raises ModelError for what is no such checkpoint.
    """
    import pickle
    import struct

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; name a checkpoint (.pt)")
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, struct.error, RuntimeError, OSError, ValueError, LookupError, *ODD) as error:
        raise ModelError(
            f"{path}: cannot be read as plain weights ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "expected a whole file of tensors, which runs no code"
        ) from error
    state = raw.get("model", raw) if isinstance(raw, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"{path}: {type(raw).__name__} without a table of weights, expected {{'model': state dict}}")
    tensors = {_renamed(str(k)): v for k, v in state.items()}
    first = tensors.get("encode.0.0.weight")
    if first is None or first.ndim != 4:
        raise ModelError(f"{path}: weights {', '.join(list(state)[:3])} ..., expected enc1 to enc4, bott, up4 to dec1 and head")
    config = {"channels": int(first.shape[1]), "base": int(first.shape[0])}
    _check_shapes(path, "seed", config, tensors)
    net = build("seed", **config)
    net.load_state_dict(tensors)
    return new("seed", config, scaling=PERCENTILE, command=f"converted from {path.name}", net=net.eval())


def _renamed(key: str) -> str:
    part, _, rest = key.removeprefix("module.").removeprefix("_orig_mod.").partition(".")
    names = {f"enc{i}": f"encode.{i - 1}" for i in range(1, 5)} | {"bott": "middle", "head": "last"}
    names |= {f"{old}{i}": f"{own}.{4 - i}" for i in range(1, 5) for old, own in (("up", "up"), ("dec", "decode"))}
    return f"{names.get(part, part)}.{rest}"
