"""The state of a training as one safetensors file: network, average, best, optimizer as tensors, counters as JSON in its head.

Nothing is pickled. The file appears whole or not at all, so that a training killed at any moment resumes from the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firstlight.atomic import replacing
from firstlight.errors import ModelError, WriteError

__all__ = ["State", "begin", "load", "save"]

KEY, VERSION = "firstlight.training", 1


@dataclass
class State:
    """What a training is at a step; `average` is the network's exponential moving average, `best` the best one validated.

    seconds: of the budget, spent. stale: validations since the best. history: a row per validation.
    """

    net: nn.Module
    average: nn.Module
    best: nn.Module
    optimizer: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0
    figure: float | None = None
    stale: int = 0
    validations: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


COUNTERS = ("step", "seconds", "figure", "stale", "validations", "history")


def begin(net: nn.Module, rate: float) -> State:
    """The state before the first step; Adam."""
    average = deepcopy(net).requires_grad_(False)
    return State(net, average, deepcopy(average), torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.99)))


def save(state: State, path: Path, identity: Mapping[str, Any]) -> None:
    """Write the state; `identity` (JSON) says which training it is of. Raises WriteError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    head = {"version": VERSION, "identity": identity, **{k: getattr(state, k) for k in COUNTERS}}
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in _tensors(state).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temp:
        try:
            save_file(tensors, temp, metadata={KEY: json.dumps(head, allow_nan=False)})
        except SafetensorError as error:  # the system's errors come wrapped
            raise WriteError(f"{path}: cannot be written ({error}); name a writable file with room") from error


def load(state: State, path: Path, identity: Mapping[str, Any]) -> None:
    """Read a state into one that has begun alike. Raises ModelError where the file is damaged or of another training."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a handle, no mapping)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a whole checkpoint of a training ({error}); remove it to begin anew") from error
    if head.get("version") != VERSION:
        raise ModelError(
            f"{path}: checkpoint of version {head.get('version')}, expected {VERSION}; begin anew with this release"
        )
    _same(path, head["identity"], json.loads(json.dumps(identity)))
    if head["step"]:
        _prime(state.optimizer)
    _into(state, tensors, path)
    for name in COUNTERS:
        setattr(state, name, head[name])


def _same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    other = [k for k in sorted({*theirs, *ours}) if theirs.get(k) != ours.get(k)]
    if other:
        told = "; ".join(f"{k} {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in other)
        raise ModelError(
            f"{path}: checkpoint of another training ({told}); resume with its options, or remove it to begin anew"
        )


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of the state by name, the state's own memory."""
    found: dict[str, Tensor] = {}
    for part in ("net", "average", "best"):
        found |= {f"{part}.{name}": t for name, t in getattr(state, part).state_dict(keep_vars=False).items()}
    for i, p in enumerate(_parameters(state.optimizer)):
        found |= {f"optimizer.{i}.{name}": t for name, t in state.optimizer.state.get(p, {}).items()}
    return found


def _parameters(optimizer: torch.optim.Adam) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _prime(optimizer: torch.optim.Adam) -> None:
    """Gives Adam the tensors that it makes at its first step."""
    for p in _parameters(optimizer):
        if p.requires_grad:
            moments = {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.tensor(0.0), **moments}


def _into(state: State, tensors: Mapping[str, Tensor], path: Path) -> None:
    own = _tensors(state)
    wrong = [k for k in sorted({*own, *tensors}) if k not in own or k not in tensors or own[k].shape != tensors[k].shape]
    if wrong:
        raise ModelError(
            f"{path}: {len(wrong)} tensors do not fit this network, the first is {wrong[0]}; remove it to begin anew"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
