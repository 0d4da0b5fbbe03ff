"""Astronomy: CCDs and infrared arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.domains.rows import DetectorRow, Grid, Layout, Preset
from firstlight.scaling import Scaling

_ACS = ("HST ACS/WFC", "ACS/WFC")
_DECAM = ("DECam N2", "DECam S3-222_135959-11-1", "CTIO 4.0-m telescope DECam S3-222_135959-11-1")

DETECTORS = (
    DetectorRow(
        cameras=("SPRAT", "LT SPRAT", "Liverpool Telescope SPRAT E2V CCD30-11 10333-02-26"),
        gain=2.45,
        read_noise=5.95,
        offset=915.8,
        source="Liverpool Telescope SPRAT: GAIN of the header of 2018-08-10 (dated 2014-09-04), offset and read noise of the "
        "unexposed edge of its frames",
    ),
    DetectorRow(
        cameras=("SAAO STE3 CCD", "STE3 CCD", "SAAO 1.0m STE3 CCD"),
        gain=1.9,
        read_noise=5.0,
        source="SAAO STE3: GAIN and RDNOISE of a raw frame's header (ccdproc's a8280271.fits)",
    ),
    DetectorRow(
        cameras=_DECAM,
        setting="amp A",
        gain=3.87047534931607,
        read_noise=5.959384,
        saturation=45791.6550305167,
        source="DECam CCD N2, amplifier A: GAINA, RDNOISEA, SATURATA of c4d_170316_062107_ooi",
    ),
    DetectorRow(
        cameras=_DECAM,
        setting="amp B",
        gain=3.88300553808994,
        read_noise=6.163348,
        saturation=45845.4416955499,
        source="DECam CCD N2, amplifier B: GAINB, RDNOISEB, SATURATB of c4d_170316_062107_ooi",
    ),
    *(
        DetectorRow(
            cameras=_ACS,
            setting=f"gain 1 amp {amp}",
            gain=gain,
            read_noise=read_noise,
            offset=offset,
            source=f"ACS/WFC raw counts, CCDGAIN 1, amplifier {amp}: ATODGN{amp}, READNSE{amp}, BIASLEV{amp} of a header "
            "(COSMOS, F814W)",
        )
        for amp, gain, read_noise, offset in (
            ("A", 0.99989998, 4.9699998, 2428.6321),
            ("B", 0.97210002, 4.8499999, 2521.9624),
            ("C", 1.0107, 5.2399998, 2443.8806),
            ("D", 1.018, 4.8499999, 2470.5903),
        )
    ),
)

SCALINGS = {"documented": Scaling(170.0, 5.0)}

_ARCHIVE = "Hubble Legacy Archive products are electron/s and drizzled (correlated noise): no gain in e-/DN applies to them"

PRESETS = (
    Preset(
        "hst",
        "documented",
        SCALINGS["documented"],
        gain=1.0,
        read_noise=3.5,
        source=f"document 1, one row for every Hubble instrument: {_ARCHIVE}",
    ),
    Preset(
        "acs-wfc",
        "document0",
        SCALINGS["documented"],
        gain=1.0,
        read_noise=3.5,
        source=f"document 0, ACS/WFC: headers say 4.85 to 5.24 e- at CCDGAIN 1; {_ARCHIVE}",
    ),
    Preset(
        "wfc3-uvis",
        "document0",
        SCALINGS["documented"],
        gain=1.5,
        read_noise=3.09,
        source=f"document 0, WFC3/UVIS; {_ARCHIVE}",
    ),
    Preset(
        "wfc3-ir",
        "document0",
        SCALINGS["documented"],
        gain=2.5,
        read_noise=15.0,
        source=f"document 0, WFC3/IR: read noise depends on the number of samples up the ramp; {_ARCHIVE}",
    ),
    Preset(
        "wfpc2",
        "document0",
        SCALINGS["documented"],
        gain=7.0,
        read_noise=6.5,
        source=f"document 0, WFPC2: one figure for four CCDs; {_ARCHIVE}",
    ),
)

GRIDS = (
    Grid("hla", (4232, 4220), 9, 9, 256, pairs=153, gaps=True),  # gaps of 241 and 239 px: 30 % of the image
    Grid("hla half", (2116, 2110), 9, 9, 256),
)

_HLA = r"(?:direct_images|g800l_images)/(?:[^/]*_)?(?P<association>[^/_]+)_(?P<kind>detection|g800l)_sci\.(?i:fits?(?:\.gz)?)"

LAYOUTS = (
    Layout(
        "hla",
        "astronomy",
        _HLA,
        scene="astro_{association}",
        view="astro_{association}",
        data_type="{kind}",
        level="{kind}",
        labels={"g800l": "noisy", "detection": "clean"},  # the document's claim; no such pair stands the proof
    ),
    Layout(
        "hla",
        "astronomy",
        _HLA,
        scene="astro_{association}",
        view="astro_{association}",
        data_type="{kind}",
        level="{kind}",
        labels={"g800l": "noisy", "detection": "clean"},
        profile="documented",
        warning="Hubble Legacy Archive: a direct image and a G800L grism frame (spectra in place of sources) are no "
        "noisy/clean pair; both are drizzled, so that neighbouring pixels' noise correlates",
    ),
    Layout(
        "hat-p-32",
        "astronomy",
        r"(?P<target>HATP-32)(?P<stamp>\d{12})\.(?i:fits?(?:\.gz)?)",
        scene="astro_{target}",  # every frame of one field
        view="astro_{target}",
        data_type="noisy",
        level="{stamp}",
    ),
)

STEP_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}

RECIPE = "astronomy"
