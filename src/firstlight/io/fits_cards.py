"""What FITS header cards say: unit, detector, noise, sky, exposure. Cards of the header alone, never a table of instruments.

One keyword has several meanings, and these are the readings taken:

- gain [e-/ADU]: EGAIN, EPERDN, then GAIN. A GAIN whose comment says ADU/e- is inverted; one above 20, or whose comment
  speaks of dB or a setting, is the camera's setting (then `setting`) and no gain. One gain for each amplifier (GAINA..,
  GAIN1.., ATODGNA.. of HST, which goes before its commanded CCDGAIN) is one gain only where all agree.
- read noise [e-]: RDNOISE, READNOIS, RON, ... ; in ADU where the comment says so; zero means that it is not stated.
- offset [ADU]: zero where a bias correction is on record; BIASLVL, BIASLEV, -PEDESTAL; the median of the overscan BIASSEC.
  OFFSET and BLKLEVEL are camera settings in units of their own, no offset.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

from firstlight.frame import Unit
from firstlight.geometry import Sky
from firstlight.noise import Noise, Unmodelled

__all__ = ["BUNIT", "axes", "correlated", "doubts", "exposure", "noise", "observation", "sky", "stated", "text", "unit"]

GAIN = ("EGAIN", "EPERDN", "GAIN", "CCDGAIN")
READ_NOISE = ("RDNOISE", "READNOIS", "RDNOIS", "READNSE", "RON", "ENOISE", "READNOISE", "RO_NOISE")
OFFSET = ("BIASLVL", "BIASLEV")
SATURATION = ("SATURATE", "SATURATN", "SATLEVEL", "SATURATI")
AMPLIFIED = {"gain": ("ATODGN", "GAIN"), "read_noise": ("READNSE", "RDNOISE", "RDNOIS", "RON"), "offset": ("BIASLEV",)}
BUNIT = {Unit.ADU: "adu", Unit.ADU_RATE: "adu/s", Unit.ELECTRON: "electron", Unit.ELECTRON_RATE: "electron/s"}
_COUNT = {"adu": Unit.ADU, "dn": Unit.ADU, "du": Unit.ADU, "count": Unit.ADU, "ct": Unit.ADU, "cps": Unit.ADU_RATE}
_WCS = re.compile(
    r"^((CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME)\d[A-Z]?|(CD|PC)\d_\d[A-Z]?|P[VS]\d_\d+[A-Z]?|"
    r"(LONPOLE|LATPOLE|RADESYS|EQUINOX|WCSAXES|WCSNAME)[A-Z]?|RADECSYS|[AB]P?_(ORDER|DMAX|\d_\d))$"
)
_CELESTIAL = re.compile(r"^(RA|DEC|[GEHS]LON|[GEHS]LAT|..LN|..LT)[-A-Z]*-[A-Z]{3}(-SIP)?$")
_SPECTRAL = ("FREQ", "WAVE", "AWAV", "ENER", "WAVN", "VRAD", "VOPT", "VELO", "ZOPT", "BETA", "LAMBDA", "STOKES", "RGB", "COLOR")


def _value(header: Any, key: str) -> Any:
    try:
        return header.get(key)
    except Exception:  # a card that cannot be parsed says nothing
        return None


def text(header: Any, *keys: str) -> str | None:
    """The first of `keys` that holds text."""
    for key in keys:
        value = _value(header, key)
        if value is not None and (found := str(value).strip()):
            return found
    return None


def number(header: Any, *keys: str) -> float | None:
    """The first of `keys` that holds a finite number, written as one or as text."""
    for key in keys:
        value = _value(header, key)
        if isinstance(value, bool):
            continue
        try:
            found = float(value)
        except (TypeError, ValueError):
            continue
        if np.isfinite(found):
            return found
    return None


def _comment(header: Any, key: str) -> str:
    try:
        return str(header.comments[key]).lower()
    except Exception:
        return ""


def unit(header: Any, integer: bool) -> Unit:
    """The unit that BUNIT names; without BUNIT, integers are raw counts and anything else is arbitrary."""
    name = (text(header, "BUNIT") or "").lower()
    if not name:
        return Unit.ADU if integer else Unit.ARBITRARY
    for known in Unit:
        if name == known.lower():
            return known
    top, _, below = re.sub(r"\s*(/|per)\s*s(ec|econd)?s?$|[ .]s(\^|\*\*)?-1$", "/s", name).partition("/")
    top = top.strip().removesuffix("s")
    found = Unit.ELECTRON if top in ("electron", "e-", "e", "elec") else _COUNT.get(top)
    if name == "cps":
        return Unit.ADU_RATE
    if found is None or below not in ("", "s") or (below and found not in (Unit.ELECTRON, Unit.ADU)):
        return Unit.ARBITRARY
    return {Unit.ELECTRON: Unit.ELECTRON_RATE, Unit.ADU: Unit.ADU_RATE}[found] if below else found


def _is_setting(header: Any, value: float) -> bool:
    comment = _comment(header, "GAIN")
    if re.search(r"e-?l?e?c?t?r?o?n?s?\s*(/|per)\s*(adu|dn|count)", comment):
        return False
    return value > 20 or "db" in comment.split() or "setting" in comment


def _gain(header: Any) -> tuple[float, str] | None:
    for key in GAIN:
        value = number(header, key)
        if value is None or value <= 0 or (key == "GAIN" and _is_setting(header, value)):
            continue
        inverse = re.search(r"(adu|dn|counts?)\s*(/|per)\s*e", _comment(header, key))
        return (1 / value if inverse else value), key
    return None


def _amplifiers(header: Any, what: str) -> tuple[list[float], str] | None:
    for prefix in AMPLIFIED[what]:
        for names in ("ABCD", "123456789"):
            found = [v for n in names if (v := number(header, f"{prefix}{n}")) is not None and v > 0]
            if found:
                return found, f"{prefix}{names[0]}.."
    return None


def _one(found: tuple[list[float], str] | None) -> tuple[Any, str] | None:
    if found is None:
        return None
    values, key = found
    return (values[0] if len(set(values)) == 1 else values), key


def _read_noise(header: Any, gain: Any) -> tuple[float, str] | None:
    for key in READ_NOISE:
        value = number(header, key)
        if value is None or value <= 0:
            continue
        in_adu = re.search(r"\b(adu|dn|counts?)\b", _comment(header, key)) and "e" not in _comment(header, key).split()
        if in_adu and "electron" not in _comment(header, key):
            return (value * gain, key) if isinstance(gain, float) else None
        return value, key
    return None


def _offset(header: Any) -> tuple[Any, str] | None:
    for key in ("ZEROCOR", "BIASCORR", "BLEVCORR", "SUBBIAS", "BIASSUB"):
        done = text(header, key)
        if done and done.upper() not in ("OMIT", "F", "FALSE", "PERFORM", "NONE", "N/A"):
            return 0.0, key
    for key in OFFSET:
        if (value := number(header, key)) is not None:
            return value, key
    if (value := number(header, "PEDESTAL")) is not None:
        return -value, "PEDESTAL"
    return _one(_amplifiers(header, "offset"))


def stated(header: Any) -> dict[str, Any]:
    """gain [e-/ADU], read_noise [e-], offset [ADU], saturation, each a number, or a list by amplifier; `source` names cards."""
    facts: dict[str, Any] = {}
    # calibrated gains of amplifiers go before HST's commanded CCDGAIN, after a plain GAIN
    gain = _gain(header)
    by_amplifier = _one(_amplifiers(header, "gain"))
    facts["gain"] = by_amplifier if by_amplifier and (gain is None or gain[1] == "CCDGAIN") else gain
    known = facts["gain"][0] if facts["gain"] else None
    facts["read_noise"] = _read_noise(header, known) or _one(_amplifiers(header, "read_noise"))
    facts["offset"] = _offset(header)
    level = number(header, *SATURATION)
    facts["saturation"] = (level, "SATURATE") if level is not None and level > 0 else None
    found = {k: v[0] for k, v in facts.items() if v}
    if found:
        found["source"] = "header: " + ", ".join(v[1] for v in facts.values() if v)
    return found


def correlated(header: Any) -> str | None:
    """Why the pixels' noise is not independent, where the header says so: drizzled, resampled, combined."""
    images = number(header, "NDRIZIM")
    if images or text(header, "D001KERN") or (text(header, "DRIZCORR") or "").upper() == "COMPLETE":
        made = f" from {images:.0f} images" if images else ""
        return f"drizzled{made} (NDRIZIM, DRIZCORR): the noise of neighbouring pixels is correlated"
    if text(header, "RESAMPT1"):
        return "resampled (RESAMPT1): the noise of neighbouring pixels is correlated"
    n = number(header, "NCOMBINE")
    if n is not None and n > 1:
        return f"combined from {n:.0f} exposures (NCOMBINE), as a sum or a mean the header does not say"
    return None


def noise(kind: Unit, header: Any, facts: dict[str, Any]) -> Noise | Unmodelled:
    """The noise that the header states [unit `kind`], or why it states none."""
    if reason := correlated(header):
        return Unmodelled(reason)
    if kind not in BUNIT:
        name = text(header, "BUNIT")
        return Unmodelled(
            f"the unit is {name}, which is no count"
            if name
            else "the header names no unit (BUNIT) and the values are no raw integers: name the unit"
        )
    counts = kind in (Unit.ADU, Unit.ADU_RATE)
    need = ("gain", "read_noise", "offset") if counts else ("read_noise",)
    for key in need:
        if key not in facts:
            return Unmodelled(f"no {key.replace('_', ' ')} in the header: pass a detector")
        if isinstance(facts[key], list):
            values = facts[key]
            return Unmodelled(
                f"the header gives one {key.replace('_', ' ')} for each of {len(values)} amplifiers, {min(values):.4g} to "
                f"{max(values):.4g}: pass a detector with a map"
            )
    raw = Noise(1 / facts["gain"], (facts["read_noise"] / facts["gain"]) ** 2, facts["offset"]) if counts else None
    raw = raw or Noise(1.0, facts["read_noise"] ** 2)
    if kind in (Unit.ADU, Unit.ELECTRON):
        return raw
    seconds = exposure(header)
    return raw.scaled(1 / seconds) if seconds else Unmodelled("a rate without an exposure time (EXPTIME): pass a detector")


def exposure(header: Any) -> float | None:
    """Exposure time [s]."""
    seconds = number(header, "EXPTIME", "EXPOSURE", "EXP_TIME", "TEXPTIME", "ITIME")
    return seconds if seconds is not None and seconds >= 0 else None


def observation(header: Any, kind: Unit, facts: dict[str, Any]) -> dict[str, Any]:
    """instrument, setting, exposure [s], time, band, offset and saturation [ADU]: keywords for Observation."""
    names = [n for k in ("TELESCOP", "INSTRUME", "DETECTOR") if (n := text(header, k))]
    when = text(header, "DATE-OBS")
    clock = text(header, "TIME-OBS", "UT", "UTSTART")
    if when and "T" not in when and clock and re.match(r"^\d\d?:\d\d", clock):
        when = f"{when}T{clock}"
    band = text(header, "FILTER", "FILTNAM1", "FILTERS")
    if band is None:
        wheel = [f for k in ("FILTER1", "FILTER2", "FILTER3") if (f := text(header, k))]
        band = " ".join(f for f in wheel if not re.match(r"(?i)clear|open|empty|n/a|none", f)) or " ".join(wheel) or None
    value = number(header, "GAIN")
    setting = f"gain {value:g}" if value is not None and _is_setting(header, value) else text(header, "ISOSPEED")
    # of raw counts: one number, or none where the amplifiers differ
    levels = {k: v for k in ("offset", "saturation") if kind == Unit.ADU and isinstance(v := facts.get(k), float)}
    return {
        "instrument": " ".join(dict.fromkeys(names)) or None,
        "setting": setting,
        "exposure": exposure(header),
        "time": when,
        "band": band,
        **levels,
    }


def sky(header: Any) -> Sky | None:
    """The world coordinates of a celestial header, alternates and SIP or PV distortions included; None for any other.

    None too, with a UserWarning that names it, where one of their cards cannot be read: the rest would tell another sky.
    """
    kinds = [text(header, f"CTYPE{i}") or "" for i in (1, 2)]
    if not all(_CELESTIAL.match(k) for k in kinds):
        return None
    cards = []
    for card in header.cards:
        if _WCS.match(card.keyword):
            try:
                cards.append((card.keyword, card.value))
            except Exception:
                warnings.warn(
                    f"{card.keyword} cannot be read: the sky's coordinates are left out; mend that card", stacklevel=2
                )
                return None
    return Sky(tuple(cards))


def is_wcs(keyword: str) -> bool:
    """True for a card of the world coordinate system."""
    return _WCS.match(keyword) is not None


def axes(header: Any, lead: int, integer: bool) -> str:
    """Axes of an image with `lead` axes before YX: 3 -> C where CTYPE3 is spectral, STOKES or RGB, T where it is time;
    without CTYPE3 raw integers are a sequence (T), others channels (C). 4 and 5 axes: TCYX, TCZYX."""
    if lead != 1:
        return {0: "", 2: "TC", 3: "TCZ"}[lead] + "YX"
    kind = (text(header, "CTYPE3") or "").upper()
    if kind.startswith(("TIME", "UTC", "TAI", "MJD")):
        return "TYX"
    if kind.startswith(("DIST", "DEPTH", "Z")):
        return "ZYX"
    return "CYX" if kind.startswith(_SPECTRAL) or not integer else "TYX"


def doubts(header: Any, kind: Unit, facts: dict[str, Any]) -> tuple[str, ...]:
    """Where the cards contradict each other."""
    found = []
    wrote = (text(header, "D001OUUN") or "").lower()
    if wrote == "cps" and kind in (Unit.ELECTRON, Unit.ADU):
        found.append(
            f"BUNIT says {text(header, 'BUNIT')} but drizzle wrote cps (D001OUUN): the values are {kind}/s; times EXPTIME "
            "they are counts"
        )
    value = number(header, "GAIN")
    if value is not None and _is_setting(header, value):
        found.append(f"GAIN = {value:g} is a camera setting, no gain in e-/ADU")
    if kind == Unit.ADU and {"gain", "read_noise"} <= set(facts) and "offset" not in facts:
        found.append("the header gives a gain and a read noise but no offset (bias level)")
    return tuple(found)
