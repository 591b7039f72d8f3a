"""`hastezoo inspect`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.data.caption_inspection import CaptionTrip
    from hastezoo.data.inspection import RoundTrip
    from hastezoo.data.manifest import Manifest
    from hastezoo.data.prepared import Prepared

PICTURE = "inspection.png"
SHOWN = 8  # captions


@click.command("inspect")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(1, 1024), default=16, show_default=True, help="To check and show.")
@click.option(
    "--vae", metavar="PLACE", help="The autoencoder of the latents, if it is not where it was [the manifest's]."
)
@click.option("--no-vae", is_flag=True, help="Leave out what needs the autoencoder.")
@click.option(
    "--text-encoder", metavar="PLACE", help="The text encoder of captions, if it is not where it was [the manifest's]."
)
@click.option("--no-text-encoder", is_flag=True, help="Leave out what needs the text encoder.")
@click.option("--no-digests", is_flag=True, help="Leave out reading every file.")
@click.option("--out", type=click.Path(path_type=Path), help=f"Picture [DATASET/{PICTURE}].")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(dataset: Path, **options: Any) -> None:
    """What a prepared data set holds, and whether it is sound.

    Its files are held against the digests of the manifest; some images are encoded again and held against their
    latents, which fails where the scale or the kind of moments is wrong, and so are captions; a picture shows images
    beside what their latents decode to.
    """
    from hastezoo.data.manifest import Manifest
    from hastezoo.data.prepared import Prepared

    manifest = Manifest.read(dataset)
    samples = Prepared(dataset)
    if not options["as_json"]:
        _show(dataset, manifest)
    if not options["no_digests"]:
        _check_digests(dataset, manifest)
    trip, picture = (None, None) if options["no_vae"] else _round_trip(samples, dataset, options)
    skips_text = manifest.text is None or options["no_text_encoder"]
    captions = None if skips_text else _caption_trip(samples, options)
    found = {
        "manifest": manifest.model_dump(mode="json"),
        "fingerprint": manifest.fingerprint,
        "digests": not options["no_digests"],
        "round_trip": None if trip is None else _numbers(trip),
        "captions": None if captions is None else dataclasses.asdict(captions),
        "picture": None if picture is None else str(picture),
    }
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
    else:
        _conclude(trip, picture, digests=not options["no_digests"])
        if manifest.text is not None:
            _conclude_captions(samples, captions, options["images"], pictured=picture is not None)
    for one in (trip, captions):
        if one is not None and one.problem is not None:
            raise UserError(f"{dataset} is not sound: {one.problem}; prepare it again")


def _numbers(trip: RoundTrip) -> dict[str, Any]:
    return {
        "images": len(trip.images),
        "mean_error": trip.mean_error,
        "std_error": trip.std_error,
        "psnr_db": trip.psnr,
        "problem": trip.problem,
    }


def _show(dataset: Path, manifest: Manifest) -> None:
    from hastezoo.cli.tables import print_facts, print_table

    latents, side = manifest.latents, manifest.resolution
    print_facts(
        {
            "data set": f"{manifest.name}, {manifest.samples:,} images {side} x {side} ({manifest.image_format}, crop "
            f"{manifest.crop}{', with mirrored latents' if manifest.flip else ''})",
            "from": manifest.source,
            **_conditions(manifest),
            "latents": f"{' x '.join(map(str, latents.shape))} {latents.dtype}, {latents.moments}, by {latents.vae}"
            + (f"@{latents.revision[:12]}" if latents.revision else ""),
            "size": f"{size_of(manifest.bytes)} in {shards_of(manifest)}",
            "skipped": f"{len(manifest.skipped):,}" + "".join(f"; {one.id}" for one in manifest.skipped[:3]),
            "fingerprint": manifest.fingerprint,
        }
    )
    rows: list[dict[str, object]] = [
        {"channel": channel, "mean": f"{mean:.4g}", "deviation": f"{std:.4g}", "posterior's deviation": f"{own:.4g}"}
        for channel, (mean, std, own) in enumerate(zip(latents.mean, latents.std, latents.posterior_std, strict=True))
    ]
    print_table(rows, right=("mean", "deviation", "posterior's deviation"))


def _conditions(manifest: Manifest) -> dict[str, str]:
    """The line about classes or captions."""
    text, counts = manifest.text, sorted(manifest.counts)
    if text is None:
        middle = counts[len(counts) // 2]
        return {"classes": f"{len(counts)}, of {counts[0]:,} to {counts[-1]:,} images, median {middle:,}"}
    return {
        "captions": f"{text.captions:,}, {text.captions / manifest.samples:.2f} an image, states {text.length} x "
        f"{text.width} {text.dtype}, by {text.encoder}" + (f"@{text.revision[:12]}" if text.revision else "")
    }


def size_of(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def shards_of(manifest: Manifest) -> str:
    """How many files, in words."""
    count = len(manifest.shards)
    return f"{count:,} shard" + ("" if count == 1 else "s")


def _check_digests(dataset: Path, manifest: Manifest) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from hastezoo.data.inspection import check_digests

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading every file", total=manifest.bytes)
        check_digests(dataset, manifest, lambda read: bar.advance(task, read))


def _round_trip(samples: Any, dataset: Path, options: dict[str, Any]) -> tuple[RoundTrip, Path]:
    import numpy as np

    from hastezoo import pictures
    from hastezoo.autoencoders import LatentAutoencoder
    from hastezoo.data.inspection import round_trip
    from hastezoo.devices import find_device
    from hastezoo.files import atomic_write

    place = options["vae"] or samples.manifest.latents.vae
    try:
        autoencoder = LatentAutoencoder.from_pretrained(place, device=find_device(options["device"]))
    except UserError as error:
        raise UserError(f"{error}; --no-vae leaves out what needs it") from None
    trip = round_trip(samples, autoencoder, options["images"])
    side_by_side = [image for pair in zip(trip.images, trip.decoded, strict=True) for image in pair]
    picture: Path = options["out"] or dataset / PICTURE
    columns = 2 * min(4, len(trip.images))
    try:
        atomic_write(picture, pictures.encode(pictures.grid(np.stack(side_by_side), columns), "png"))
    except OSError as error:
        raise UserError(f"cannot write {picture}: {error.strerror}; give another --out") from None
    return trip, picture


def _caption_trip(samples: Prepared, options: dict[str, Any]) -> CaptionTrip:
    from hastezoo.data.caption_inspection import caption_trip
    from hastezoo.data.captioned import load_encoder
    from hastezoo.devices import find_device

    assert samples.manifest.text is not None
    place = options["text_encoder"] or samples.manifest.text.encoder
    try:
        encoder = load_encoder(place, find_device(options["device"]))
    except UserError as error:
        raise UserError(f"{error}; --no-text-encoder leaves out what needs it") from None
    return caption_trip(samples, encoder, options["images"])


def _conclude_captions(samples: Prepared, trip: CaptionTrip | None, images: int, *, pictured: bool) -> None:
    from hastezoo.data.order import permutation

    if trip is None:
        click.echo("states: not held against their captions (--no-text-encoder)")
    else:
        click.echo(f"{trip.count} captions encoded anew: largest relative error {trip.error:.2g} of their states")
    shown = min(SHOWN, images, samples.manifest.samples)
    click.echo(f"first captions of {shown} images{', the first of the picture' if pictured else ''}:")
    for place, index in enumerate(permutation(0, 0, samples.manifest.samples)[:shown].tolist(), 1):
        click.echo(f"{place:3}  {samples.captions(index)[0]}")


def _conclude(trip: RoundTrip | None, picture: Path | None, *, digests: bool) -> None:
    click.echo("every file has the manifest's sha256" if digests else "files: sizes alone were checked")
    if trip is None:
        click.echo("latents: not held against their images (--no-vae)")
        return
    click.echo(
        f"{len(trip.images)} images encoded anew: largest relative error {trip.mean_error:.2g} of the means, "
        f"{trip.std_error:.2g} of the deviations; decoded at {trip.psnr:.1f} dB"
    )
    click.echo(f"picture: {picture} (each image beside what its latent decodes to)")
