"""Which scenes train, validate and test. By scene for every kind of data; other published rules by name, for comparison."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from firstlight.dataset.layout import documented
from firstlight.dataset.rows import Source
from firstlight.errors import FrameError

__all__ = ["RULES", "assign", "bucket", "shuffled", "split"]

SEED = 42
SID_SPLITS = {"0": "train", "1": "test", "2": "validation"}
LEAK = (
    "split 'documented': the clean frames of every training scene are the test set, so that one scene is in train and in test"
)


def bucket(scene: str) -> int:
    """md5(scene) mod 100, 0..99."""
    return int(hashlib.md5(scene.encode(), usedforsecurity=False).hexdigest(), 16) % 100


def split(scene_ids: Iterable[str], *, rule: str = "scene") -> dict[str, str]:
    """{scene: "train" | "validation" | "test"}, in the order given.

    "scene": bucket < 70 train, < 85 validation, else test. "documented": the same for noisy frames, but else train (clean
    ones, all test, are `assign`'s matter). "seeded": shuffled by default_rng(42), int(.7 n), int(.15 n), rest. "sid": the
    first digit of the scene's number, 0 train, 1 test, 2 validation. Raises FrameError for another rule or number.
    """
    if rule not in RULES:
        raise FrameError(f"unknown split {rule!r}; known: {', '.join(RULES)}")
    scenes = list(dict.fromkeys(scene_ids))
    return dict(zip(scenes, RULES[rule](scenes), strict=True))


def assign(sources: Iterable[Source], rule: str = "scene") -> dict[str, str]:
    """{path: split}: all sources of a scene together, but for "documented", where clean ones are test (it warns)."""
    sources = list(sources)
    if rule != "documented":
        known = split(sorted({s.scene for s in sources}), rule=rule)
        return {s.path: known[s.scene] for s in sources}
    warnings.warn(LEAK, UserWarning, stacklevel=2)
    sources = documented(sources)
    known = split((s.scene for s in sources), rule=rule)
    return {s.path: "test" if s.data_type == "clean" else known[s.scene] for s in sources}


def _by_scene(scenes: Sequence[str]) -> list[str]:
    return ["train" if (b := bucket(s)) < 70 else "validation" if b < 85 else "test" for s in scenes]


def _documented(scenes: Sequence[str]) -> list[str]:
    return ["validation" if 70 <= bucket(s) < 85 else "train" for s in scenes]


def _seeded(scenes: Sequence[str]) -> list[str]:
    train, validation = int(0.7 * len(scenes)), int(0.15 * len(scenes))
    out = ["test"] * len(scenes)
    for place, i in enumerate(shuffled(len(scenes), SEED)):
        if place < train + validation:
            out[i] = "train" if place < train else "validation"
    return out


def shuffled(count: int, seed: int) -> list[int]:
    """0..count - 1 in the order that default_rng(seed) shuffles a list of that length into."""
    return [int(i) for i in np.random.default_rng(seed).permutation(count)]


def _sid(scenes: Sequence[str]) -> list[str]:
    numbers = [s.rpartition("_")[2] for s in scenes]
    for scene, number in zip(scenes, numbers, strict=True):
        if len(number) != 5 or not number.isdigit() or number[0] not in SID_SPLITS:
            raise FrameError(
                f"split 'sid': scene {scene!r}, expected five digits that begin with 0, 1 or 2, such as photo_00001"
            )
    return [SID_SPLITS[n[0]] for n in numbers]


RULES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "scene": _by_scene,
    "documented": _documented,
    "seeded": _seeded,
    "sid": _sid,
}
