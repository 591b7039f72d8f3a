"""How fast is a prepared data set read?

    python benchmarks/data_reading.py [--part latents|captions] [--rows 4096] [--captioned 512]

The first part: latents of 4x32x32 from one process, and decoded 256-px images from two loader workers, each against
the layout that REPA's preprocessing leaves: a .npy and a .png file a sample, read by numpy and PIL. The ways take
turns; medians are reported with their range, and the latents' rate over the baseline's. All files are in the page
cache: this measures reading and decoding, not a disk. Images are pieces of scikit-image's photographs. Writes
benchmarks/results/data_reading.json.

The second part: latents with the states (77, 768) of one of five captions, drawn at random, from one process, against
the layout of U-ViT's preprocessing, a .npy file an image and another a caption; U-ViT's hold float32, and float16 is
measured too, to tell the files' share from the bytes'. Writes benchmarks/results/caption_reading.json.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from dated import RESULTS, date_and_device
from PIL import Image
from torch.utils.data import DataLoader

from hastezoo.data.batch import Batch
from hastezoo.data.captioned import VARIANTS, caption_of, write_empty
from hastezoo.data.images import ImageFormat, decode, encode
from hastezoo.data.manifest import LatentInfo, Manifest, TextInfo
from hastezoo.data.order import StepOrder
from hastezoo.data.prepared import Prepared
from hastezoo.data.shards import Row, features, write_index, write_shard

SIDE, SHAPE, BATCH, ROUNDS, SHARD = 256, (4, 32, 32), 256, 5, 1024
Files = tuple[list[Path], list[Path]]


def photographs() -> list[np.ndarray]:
    from skimage import data

    return [
        np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB")) for name in ("astronaut", "coffee", "rocket")
    ]


def pieces(count: int) -> Iterator[np.ndarray]:
    """Squares of 256 px at random places."""
    random, sources = np.random.default_rng(0), photographs()
    for index in range(count):
        source = sources[index % len(sources)]
        top, left = (int(random.integers(size - SIDE)) for size in source.shape[:2])
        yield source[top : top + SIDE, left : left + SIDE]


def write_prepared(folder: Path, rows: int, image_format: ImageFormat) -> Path:
    """A data set of ours."""
    folder.mkdir()
    random, images = np.random.default_rng(1), pieces(rows)
    records = []
    for start in range(0, rows, SHARD):
        samples = (
            Row(
                str(index),
                index % 1000,
                encode(next(images), image_format),
                np.abs(random.standard_normal((2, *SHAPE))),
            )
            for index in range(start, min(start + SHARD, rows))
        )
        path = folder / f"shard-{start // SHARD:05d}.arrow"
        records.append(write_shard(path, samples, features([str(label) for label in range(1000)], False)))
    info = LatentInfo(vae="random", shape=SHAPE, mean=[0] * 4, std=[1] * 4, posterior_std=[1] * 4)
    manifest = Manifest(
        name="folder", resolution=SIDE, samples=rows, classes=[str(label) for label in range(1000)], counts=[0] * 1000,
        crop="none", flip=False, image_format=image_format, latents=info, source="random", source_fingerprint="",
        shards=[record.shard for record in records if record.shard is not None],
    )  # fmt: skip
    write_index(folder, manifest)
    manifest.write(folder)
    return folder


def write_files(folder: Path, rows: int) -> Files:
    """A .npy and a .png a sample, as REPA's preprocessing leaves them."""
    random = np.random.default_rng(1)
    latents, images = [], []
    for index, pixels in enumerate(pieces(rows)):
        place = folder / f"{index // 1000:05d}"
        place.mkdir(parents=True, exist_ok=True)
        latents.append(place / f"img-mean-std-{index:08d}.npy")
        images.append(place / f"img{index:08d}.png")
        np.save(latents[-1], np.abs(random.standard_normal((8, 32, 32))).astype(np.float32))
        images[-1].write_bytes(encode(pixels, "png"))
    return latents, images


class Separate:
    """Samples in files of their own."""

    def __init__(self, files: Files, *, images: bool) -> None:
        self.latents, self.pictures, self.images = *files, images

    def __len__(self) -> int:
        return len(self.latents)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        moments = torch.from_numpy(np.stack([np.load(self.latents[index]) for index in indices])) * 0.18215
        pixels = None
        if self.images:
            stack = np.stack([decode(self.pictures[index].read_bytes()) for index in indices])
            pixels = torch.from_numpy(stack).permute(0, 3, 1, 2)
        return Batch(moments[:, :4], torch.zeros(len(indices), dtype=torch.int64), pixels, moments[:, 4:])


CAPTIONS, STATES = 5, (77, 768)


class Normals:
    """In the place of a text encoder: states that mean nothing."""

    source, revision, sha256 = "random", "", ""
    length, width = STATES

    def states(self, prompts: Sequence[str]) -> torch.Tensor:
        random = np.random.default_rng([len(prompts), *prompts[0].encode()])
        return torch.from_numpy(random.standard_normal((len(prompts), *STATES), np.float32)).half()


def write_captioned(folder: Path, rows: int) -> Path:
    """A data set of ours with captions; of the images, which are not read, there is a pixel."""
    folder.mkdir()
    random, pixel = np.random.default_rng(1), encode(np.zeros((1, 1, 3), np.uint8), "png")
    encoder, captions = Normals(), tuple("abcde")
    samples = (
        Row(str(index), 0, pixel, np.abs(random.standard_normal((2, *SHAPE))), None, captions,
            encoder.states([f"{index}"] * CAPTIONS).numpy())
        for index in range(rows)
    )  # fmt: skip
    record = write_shard(folder / "shard-00000.arrow", samples, features([], False))
    assert record.shard is not None
    text = TextInfo(
        encoder="random",
        length=STATES[0],
        width=STATES[1],
        captions=CAPTIONS * rows,
        empty=write_empty(folder, encoder),
    )
    latents = LatentInfo(vae="random", shape=SHAPE, mean=[0] * 4, std=[1] * 4, posterior_std=[1] * 4)
    manifest = Manifest(
        name="coco256", resolution=SIDE, samples=rows, classes=[], counts=[], crop="none", flip=False,
        image_format="png", latents=latents, text=text, source="random", source_fingerprint="", shards=[record.shard],
    )  # fmt: skip
    write_index(folder, manifest)
    manifest.write(folder)
    return folder


class SeparateCaptions:
    """Latents and states in files of their own, as U-ViT's preprocessing leaves them."""

    variants = VARIANTS

    def __init__(self, folder: Path, rows: int, kind: type[np.floating[Any]]) -> None:
        self.folder, self.rows = folder, rows
        folder.mkdir()
        random, encoder = np.random.default_rng(1), Normals()
        for index in range(rows):
            np.save(folder / f"{index}.npy", random.standard_normal((8, 32, 32), np.float32))
            for place, states in enumerate(encoder.states([f"{index}"] * CAPTIONS).numpy().astype(kind)):
                np.save(folder / f"{index}_{place}.npy", states)

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        turns, plain = np.divmod(indices, self.rows)
        moments = torch.from_numpy(np.stack([np.load(self.folder / f"{index}.npy") for index in plain])) * 0.18215
        names = [f"{index}_{caption_of(int(turn), CAPTIONS)}.npy" for index, turn in zip(plain, turns, strict=True)]
        states = torch.from_numpy(np.stack([np.load(self.folder / name) for name in names]))
        return Batch(moments[:, :4], states, None, moments[:, 4:])


def captioned_per_second(samples: Any, steps: int) -> float:
    """From this process."""
    order = list(StepOrder(len(samples), BATCH, 0, 0, steps, variants=samples.variants))
    began = time.perf_counter()
    for indices in order:
        samples.__getitems__(indices)
    return steps * BATCH / (time.perf_counter() - began)


def measure_captions(rows: int) -> dict[str, Any]:
    """The second part."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        ours = Prepared(write_captioned(root / "ours", rows), images=False)
        half, single = (SeparateCaptions(root / kind.__name__, rows, kind) for kind in (np.float16, np.float32))
        rates = in_turns(
            {
                "prepared": lambda: captioned_per_second(ours, 16),
                "a file each, float16": lambda: captioned_per_second(half, 16),
                "a file each, float32": lambda: captioned_per_second(single, 16),
            }
        )
    medians = {name: rate["median"] for name, rate in rates.items()}
    return {
        "images": rows,
        "captions": CAPTIONS * rows,
        "states": list(STATES),
        "batch": BATCH,
        "samples_per_second": rates,
        "over_a_file_each": {
            kind: round(medians["prepared"] / medians[f"a file each, {kind}"], 1) for kind in ("float16", "float32")
        },
        "megabytes_of_states_per_sample": round(2 * STATES[0] * STATES[1] / 1e6, 3),
    }


def latents_per_second(samples: Any, steps: int) -> float:
    """From this process."""
    order = list(StepOrder(len(samples), BATCH, 0, 0, steps))
    began = time.perf_counter()
    for indices in order:
        samples.__getitems__(indices)
    return steps * BATCH / (time.perf_counter() - began)


def images_per_second(samples: Any, steps: int, workers: int) -> float:
    """From so many loader workers, from the second batch on."""
    order = StepOrder(len(samples), BATCH, 0, 0, steps + 1)
    loader = DataLoader(samples, batch_sampler=order, collate_fn=lambda batch: batch, num_workers=workers)
    began, count = 0.0, 0
    for batch in loader:
        if not began:
            began = time.perf_counter()
            continue
        count += len(batch)
    return count / (time.perf_counter() - began)


def in_turns(cases: dict[str, Callable[[], float]]) -> dict[str, dict[str, float]]:
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(ROUNDS + 1):
        for name, measure in cases.items():
            rate = measure()
            if turn:  # the first turn warms up
                rates[name].append(rate)
    return {
        name: {"median": round(statistics.median(all_)), "least": round(min(all_)), "most": round(max(all_))}
        for name, all_ in rates.items()
    }


def decoding_seconds(folder: Path) -> float:
    """Of one image by PIL alone, in this process: the floor of a worker."""
    files = [file.as_py() for file in Prepared(folder)._column("image", np.arange(256)).field("bytes")]
    began = time.perf_counter()
    for file in files:
        decode(file)
    return (time.perf_counter() - began) / len(files)


def measure_latents(rows: int) -> dict[str, Any]:
    """The first part."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        ours = {kind: write_prepared(root / kind, rows, kind) for kind in ("png", "jpeg")}  # type: ignore[arg-type]
        files = write_files(root / "files", rows)
        latents = in_turns(
            {
                "prepared": lambda: latents_per_second(Prepared(ours["png"], images=False), 64),
                "a file each": lambda: latents_per_second(Separate(files, images=False), 16),
            }
        )
        images = in_turns(
            {
                "prepared, png": lambda: images_per_second(Prepared(ours["png"]), 8, 2),
                "prepared, jpeg": lambda: images_per_second(Prepared(ours["jpeg"]), 8, 2),
                "a file each, png": lambda: images_per_second(Separate(files, images=True), 8, 2),
            }
        )
        sizes = {kind: sum(shard.bytes for shard in Manifest.read(ours[kind]).shards) / rows for kind in ours}
        decoding = {kind: round(1000 * decoding_seconds(ours[kind]), 2) for kind in ours}
    return {
        "rows": rows,
        "batch": BATCH,
        "latents_per_second": latents,
        "latents_over_a_file_each": round(latents["prepared"]["median"] / latents["a file each"]["median"], 1),
        "images_per_second_two_workers": images,
        "decoding_ms_one_process": decoding,
        "bytes_per_sample": {kind: round(size) for kind, size in sizes.items()},
    }


@click.command()
@click.option("--part", type=click.Choice(["latents", "captions"]), help="Only this one.")
@click.option("--rows", default=4096, show_default=True, help="Of latents and images.")
@click.option("--captioned", default=512, show_default=True, help="Images with five captions each.")
def main(part: str | None, rows: int, captioned: int) -> None:
    """Measure and write the results."""
    parts = {
        "latents": ("data_reading", measure_latents, rows),
        "captions": ("caption_reading", measure_captions, captioned),
    }
    for name, measure, count in (parts[key] for key in parts if part in (None, key)):
        result = {**date_and_device(), **measure(count)}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
