"""Tile sets: from folders of raw files to training data. scan -> pair -> split -> build -> audit -> load.

Names load on first use; torch comes with those of `load` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "Audit": "audit",
    "Catalogue": "catalogue",
    "Checks": "verdict",
    "Cut": "patches",
    "DiffusionTileDataset": "load",
    "Image": "manifest",
    "Making": "mosaics",
    "Manifest": "scan",
    "NoiseTileDataset": "load",
    "PackDataset": "pack",
    "PackWriter": "pack",
    "Pair": "rows",
    "Patch": "manifest",
    "Patching": "patches",
    "Prepared": "prepare",
    "Quality": "qc",
    "Shares": "parents",
    "Source": "rows",
    "Split": "parents",
    "Summary": "summary",
    "TileRow": "rows",
    "assign": "split",
    "audit": "audit",
    "build": "build",
    "build_mosaics": "mosaics",
    "catalogue": "catalogue",
    "cut_patches": "patches",
    "laplacian_variance": "sharpness",
    "load_npy_tile": "load",
    "open_pack": "pack",
    "pair": "pair",
    "patch_frame": "manifest",
    "patch_values": "manifest",
    "plan": "counts",
    "prepare": "prepare",
    "qc": "qc",
    "read_images": "manifest",
    "read_metadata": "metadata",
    "read_patches": "manifest",
    "read_splits": "manifest",
    "read_torture": "torture",
    "sampled": "catalogue",
    "scan": "scan",
    "sharpness": "sharpness",
    "split": "split",
    "split_images": "parents",
    "split_patches": "parents",
    "unpack": "pack",
    "unscale": "unscale",
    "unscale_set": "unscale",
    "verify": "verify",
    "write_images": "manifest",
    "write_pack": "pack",
    "write_page": "page",
    "write_patches": "manifest",
    "write_torture": "torture",
}

__all__ = [
    "Audit",
    "Catalogue",
    "Checks",
    "Cut",
    "DiffusionTileDataset",
    "Image",
    "Making",
    "Manifest",
    "NoiseTileDataset",
    "PackDataset",
    "PackWriter",
    "Pair",
    "Patch",
    "Patching",
    "Prepared",
    "Quality",
    "Shares",
    "Source",
    "Split",
    "Summary",
    "TileRow",
    "assign",
    "audit",
    "build",
    "build_mosaics",
    "catalogue",
    "cut_patches",
    "laplacian_variance",
    "load_npy_tile",
    "open_pack",
    "pair",
    "patch_frame",
    "patch_values",
    "plan",
    "prepare",
    "qc",
    "read_images",
    "read_metadata",
    "read_patches",
    "read_splits",
    "read_torture",
    "sampled",
    "scan",
    "sharpness",
    "split",
    "split_images",
    "split_patches",
    "unpack",
    "unscale",
    "unscale_set",
    "verify",
    "write_images",
    "write_pack",
    "write_page",
    "write_patches",
    "write_torture",
]


if TYPE_CHECKING:  # what type checkers and editors see of _NAMES; tests/contracts/test_public_names.py holds them equal
    from firstlight.dataset.audit import Audit
    from firstlight.dataset.catalogue import Catalogue, sampled
    from firstlight.dataset.counts import plan
    from firstlight.dataset.load import DiffusionTileDataset, NoiseTileDataset, load_npy_tile
    from firstlight.dataset.manifest import (
        Image,
        Patch,
        patch_frame,
        patch_values,
        read_images,
        read_patches,
        read_splits,
        write_images,
        write_patches,
    )
    from firstlight.dataset.metadata import read_metadata
    from firstlight.dataset.mosaics import Making, build_mosaics
    from firstlight.dataset.pack import PackDataset, PackWriter, open_pack, unpack, write_pack
    from firstlight.dataset.page import write_page
    from firstlight.dataset.parents import Shares, Split, split_images, split_patches
    from firstlight.dataset.patches import Cut, Patching, cut_patches
    from firstlight.dataset.prepare import Prepared
    from firstlight.dataset.qc import Quality
    from firstlight.dataset.rows import Pair, Source, TileRow
    from firstlight.dataset.scan import Manifest
    from firstlight.dataset.sharpness import laplacian_variance
    from firstlight.dataset.split import assign
    from firstlight.dataset.summary import Summary
    from firstlight.dataset.torture import read_torture, write_torture
    from firstlight.dataset.unscale import unscale_set
    from firstlight.dataset.verdict import Checks
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.dataset.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.dataset' has no attribute {name!r}")


# Functions named like their files: bound here for good, or the first import of a file would put the module in its place.
from firstlight.dataset.audit import audit as audit  # noqa: E402
from firstlight.dataset.build import build as build  # noqa: E402
from firstlight.dataset.catalogue import catalogue as catalogue  # noqa: E402
from firstlight.dataset.pair import pair as pair  # noqa: E402
from firstlight.dataset.prepare import prepare as prepare  # noqa: E402
from firstlight.dataset.qc import qc as qc  # noqa: E402
from firstlight.dataset.scan import scan as scan  # noqa: E402
from firstlight.dataset.sharpness import sharpness as sharpness  # noqa: E402
from firstlight.dataset.split import split as split  # noqa: E402
from firstlight.dataset.unscale import unscale as unscale  # noqa: E402
from firstlight.dataset.verify import verify as verify  # noqa: E402
