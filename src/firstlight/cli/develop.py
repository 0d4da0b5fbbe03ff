"""Raw photographs developed: `firstlight develop`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from firstlight.cli.options import Json, Out, Switch
from firstlight.terminal import emit_rows, progress

__all__ = ["develop"]

Format = Literal["avif", "ultrahdr", "jxl", "tiff", "dng", "cfa-dng", "jpeg"]
Method = Literal["auto", "net", "lmmse", "bilinear", "markesteijn", "markesteijn1", "vng", "ppg", "ahd", "dcb", "dht", "aahd"]


def develop(
    photos: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    *,
    out: Out,
    to: Format | None = None,
    method: Method = "auto",
    model: str | None = None,
    denoise: str = "auto",
    ev: float = 0.0,
    wb: str | None = None,
    white: float | None = None,
    ensemble: Switch = False,
    keep_samples: Switch = False,
    detector: str | None = None,
    quality: float | None = None,
    transfer: Literal["srgb", "linear"] | None = None,
    profile: Literal["physical", "documented"] = "physical",
    jobs: int = 1,
    anew: Switch = False,
    json: Json = False,
) -> int:
    """Raw photographs into pictures: demosaicked and denoised by their own noise, HDR by default; run again, it goes on.

    Parameters
    ----------
    photos
        Raw files (ARW, RAF, DNG, NEF, CR2, CR3), or folders of them, subfolders included.
    out
        Output file, or folder for several photographs.
    to
        avif (default): HLG, 10 bits; ultrahdr: JPEG with a gain map; jxl: scene-linear float32, lossless; tiff: 16 bits; jpeg;
        dng: linear camera colours, for other raw developers; cfa-dng: the denoised mosaic, for them too. Where it is left out,
        by the name of the output.
    method
        auto: the network that comes with firstlight for Bayer and X-Trans, else lmmse; net; lmmse: linear estimate; bilinear;
        the others are LibRaw's, for comparison: markesteijn, markesteijn1 and vng of X-Trans; vng, ppg, ahd, dcb, dht and aahd
        of Bayer.
    model
        A network of `train demosaic` in place of the one that comes with firstlight.
    denoise
        auto: by the noise of the file, of --detector, or as estimated from the picture; off; or a factor times that noise.
    ev
        Stops brighter than the file asks for.
    wb
        Multipliers of red, green and blue, such as 2.1,1,1.6; the camera's where left out.
    white
        Nits of diffuse white on a display of 1000: 203 where left out.
    ensemble
        The mean over the mosaic's eight flips and turns: 8 times the work.
    keep_samples
        Measured samples come out as they went in, noise included.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    quality
        0 to 100, of avif, ultrahdr and jpeg: 95 where left out; 100 keeps every code of an AVIF.
    transfer
        Of tiff: srgb (default), or linear in Rec.2020.
    profile
        physical; documented is the published pipeline with its own network (--model), with a warning of what is wrong.
    jobs
        Photographs developed at once, each in a process of about 1.5 GB at 24 megapixels.
    anew
        Replace pictures that are there from another file or other options.
    """
    from firstlight import developing

    options = developing.Developing(
        to=to,
        method=method,
        model=model,
        denoise=denoise,
        ev=ev,
        wb=wb,
        white=white,
        ensemble=ensemble,
        keep_samples=keep_samples,
        detector=detector,
        quality=quality,
        transfer=transfer,
        profile=profile,
        jobs=jobs,
        anew=anew,
    )
    with progress(json) as tick:
        rows = developing.develop(photos, out, options, tick)
    return emit_rows(rows if json else _told(rows), json)


def _told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows for people: pictures that were there already are one line."""
    left = [r for r in rows if r.get("skipped")]
    if not left:
        return rows
    count = f"{len(left)} photograph{'s' if len(left) > 1 else ''}"
    line = {"input": count, "output": str(Path(left[0]["output"]).parent), "summary": "there already, made alike: left as is"}
    return [*(r for r in rows if not r.get("skipped")), line]
