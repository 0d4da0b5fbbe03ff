"""Calibration: one file a detector effect, in processing order. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "assign": "detector",
    "assign_maps": "detector",
    "attenuation": "attenuation",
    "calibrate": "dark_flat",
    "center_of": "center",
    "combine": "outliers",
    "ctf": "phase",
    "divide_flat": "dark_flat",
    "documented": "detector",
    "downsample_documented": "superpixel",
    "emva_descriptor": "emva",
    "farago": "phase",
    "find_center": "center",
    "flag_cosmic_rays": "outliers",
    "flag_hot_pixels": "outliers",
    "flag_saturated": "detector",
    "gpaganin": "phase",
    "master": "dark_flat",
    "measure_shift": "register",
    "leave_out": "gaps",
    "merge_repeated": "stitch",
    "normalize_air": "normalize",
    "paganin": "phase",
    "plot": "photon_transfer",
    "register": "register",
    "remove_stripes": "stripes",
    "remove_stripes_dead": "stripes",
    "remove_stripes_fourier_wavelet": "stripes",
    "remove_stripes_large": "stripes",
    "remove_stripes_sorting": "stripes",
    "remove_stripes_titarenko": "stripes",
    "remove_zingers": "zingers",
    "shift_between": "register",
    "stitch_360": "stitch",
    "subtract_bias": "dark_flat",
    "subtract_dark": "dark_flat",
    "subtract_offset": "detector",
    "superpixels": "superpixel",
    "to_counts": "detector",
    "to_electrons": "detector",
    "Transfer": "line",
    "transfer": "photon_transfer",
    "transfer_single": "single",
    "transmission": "scan",
    "white_balance": "balance",
}

__all__ = [
    "Transfer",
    "assign",
    "assign_maps",
    "attenuation",
    "calibrate",
    "center_of",
    "combine",
    "ctf",
    "divide_flat",
    "documented",
    "downsample_documented",
    "emva_descriptor",
    "farago",
    "find_center",
    "flag_cosmic_rays",
    "flag_hot_pixels",
    "flag_saturated",
    "gpaganin",
    "leave_out",
    "master",
    "measure_shift",
    "merge_repeated",
    "normalize_air",
    "paganin",
    "plot",
    "register",
    "remove_stripes",
    "remove_stripes_dead",
    "remove_stripes_fourier_wavelet",
    "remove_stripes_large",
    "remove_stripes_sorting",
    "remove_stripes_titarenko",
    "remove_zingers",
    "shift_between",
    "stitch_360",
    "subtract_bias",
    "subtract_dark",
    "subtract_offset",
    "superpixels",
    "to_counts",
    "to_electrons",
    "transfer",
    "transfer_single",
    "transmission",
    "white_balance",
]


if TYPE_CHECKING:  # what type checkers and editors see of _NAMES; tests/test_names.py holds them equal
    from firstlight.calibrate.attenuation import attenuation
    from firstlight.calibrate.balance import white_balance
    from firstlight.calibrate.center import center_of, find_center
    from firstlight.calibrate.dark_flat import (
        calibrate,
        divide_flat,
        master,
        subtract_bias,
        subtract_dark,
    )
    from firstlight.calibrate.detector import (
        assign,
        assign_maps,
        documented,
        flag_saturated,
        subtract_offset,
        to_counts,
        to_electrons,
    )
    from firstlight.calibrate.emva import emva_descriptor
    from firstlight.calibrate.gaps import leave_out
    from firstlight.calibrate.line import Transfer
    from firstlight.calibrate.normalize import normalize_air
    from firstlight.calibrate.outliers import (
        combine,
        flag_cosmic_rays,
        flag_hot_pixels,
    )
    from firstlight.calibrate.phase import ctf, farago, gpaganin, paganin
    from firstlight.calibrate.photon_transfer import plot, transfer
    from firstlight.calibrate.register import measure_shift, shift_between
    from firstlight.calibrate.scan import transmission
    from firstlight.calibrate.single import transfer_single
    from firstlight.calibrate.stitch import merge_repeated, stitch_360
    from firstlight.calibrate.stripes import (
        remove_stripes,
        remove_stripes_dead,
        remove_stripes_fourier_wavelet,
        remove_stripes_large,
        remove_stripes_sorting,
        remove_stripes_titarenko,
    )
    from firstlight.calibrate.superpixel import downsample_documented, superpixels
    from firstlight.calibrate.zingers import remove_zingers
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.calibrate.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.calibrate' has no attribute {name!r}")


# A function named like its file: bound here for good, or the first import of the file would put the module in its place.
from firstlight.calibrate.attenuation import attenuation as attenuation  # noqa: E402
from firstlight.calibrate.register import register as register  # noqa: E402
