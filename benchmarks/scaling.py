"""What do more GPUs bring? The cost model of training on many, and what several processes take on this machine.

    python benchmarks/scaling.py model        # formulas only, seconds: tables, JSON and the picture of docs/scale.md
    python benchmarks/scaling.py processes    # measures 1, 2 and 4 processes over gloo; about ten minutes of two cores
    python benchmarks/scaling.py tables       # the tables of what was written, as Markdown

`model`: FLOPs and bytes are counted on the real code without values; GPUs reach an assumed share of their peak, links
their data sheets' rates, with latencies that are assumed. The batch stays 256 images however many GPUs there are.
`processes`: see scaling_processes.py. They write benchmarks/results/scaling_model.json and scaling.json, and
docs/images/scaling.png.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import scaling_processes
import scaling_report
from dated import RESULTS, date_and_device

if TYPE_CHECKING:
    from hastezoo.training.links import Fabric
    from hastezoo.training.scaling import Work

GPU, UTILISATION, PRECISION, BATCH, GPUS_PER_NODE = "h100", 0.25, "bf16", 256, 8
DISK = 2.0  # GB/s that a node writes; assumed
LATENT: dict[str, Any] = {"input_size": 32, "in_channels": 4, "num_classes": 1000}
MODELS: dict[str, dict[str, Any]] = {"sit_b_2": LATENT, "sit_l_2": LATENT, "sit_xl_2": LATENT, "mmdit_coco": {}}
LAYOUTS: dict[str, tuple[str, int | None]] = {"ddp": ("ddp", None), "fsdp": ("fsdp", None), "hybrid": ("fsdp", 8)}
BETWEEN = ("8xinfiniband-ndr", "1xroce-100g", "1xethernet-25g")
SHARES = (1, 8, 64)
OUT, PICTURE = RESULTS / "scaling_model.json", Path(__file__).parent.parent / "docs" / "images" / "scaling.png"


def without_latency(fabric: Fabric) -> Fabric:
    """Whose messages take no time but for their bytes."""
    within, between = (replace(link, latency=0.0) for link in (fabric.within, fabric.between))
    return replace(fabric, within=within, between=between)


def times(work: Work, fabric: Fabric, flops: float) -> dict[str, Any]:
    """By layout and number of GPUs, milliseconds of a step and megabytes that a GPU sends in it."""
    from hastezoo.training.scaling import counts, exchanges, find_layout, step_time

    found: dict[str, Any] = {}
    for name, (engine, shards) in LAYOUTS.items():
        found[name] = {}
        for count in counts(BATCH, shards=shards):
            layout = find_layout(engine, count, shards)
            time = step_time(work, layout, fabric, batch=BATCH, flops=flops)
            seconds = {key: getattr(time, key) for key in ("compute", "communication", "least", "most")}
            found[name][str(count)] = {
                **{key: round(1e3 * value, 3) for key, value in seconds.items()},
                "sent_mb": round(sum(one.bytes for one in exchanges(work, layout)) / 1e6, 1),
            }
    return found


def turning_points(work: Work, fabric: Fabric, flops: float) -> dict[str, Any]:
    """By layout, from how many GPUs on communication dominates; and were there no latency."""
    from hastezoo.training.scaling import dominates_from

    def point(joined: Fabric, engine: str, shards: int | None) -> int | None:
        return dominates_from(work, joined, engine=engine, batch=BATCH, flops=flops, shards=shards)

    return {
        name: {"from": point(fabric, *how), "by_bandwidth": point(without_latency(fabric), *how)}
        for name, how in LAYOUTS.items()
    }


def shares(cost: Any, work: Work) -> dict[str, Any]:
    """By the number of processes that hold a copy together: bytes on a GPU, and a checkpoint's bytes and seconds."""
    from hastezoo.training import shares as parts
    from hastezoo.training.scaling import Layout

    return {
        str(count): {
            "state_bytes": parts.state_bytes(cost, layout),
            "transit_bytes": parts.transit_bytes(layout, work),
            "checkpoint_bytes": parts.checkpoint_share(cost, layout, sharded=count > 1),
            "seconds_to_write": parts.seconds_to_write(
                cost, layout, sharded=count > 1, gpus_per_node=GPUS_PER_NODE, disk=DISK
            ),
        }
        for count, layout in ((count, Layout(count, count)) for count in SHARES)
    }


def computed() -> dict[str, Any]:
    """Everything, for every model and fabric."""
    from hastezoo.training.estimate import step_cost
    from hastezoo.training.gpus import find_gpu
    from hastezoo.training.links import find_fabric
    from hastezoo.training.scaling import find_work

    gpu = find_gpu(GPU)
    flops = gpu.flops(UTILISATION, PRECISION)
    fabrics = {name: find_fabric(GPUS_PER_NODE, gpu.link, name) for name in BETWEEN}
    models: dict[str, Any] = {}
    for name, changes in MODELS.items():
        cost = step_cost(name, changes, None, batch=BATCH // GPUS_PER_NODE, precision=PRECISION)
        work = find_work(cost, PRECISION, aligned=False)
        models[name] = {
            "parameters": cost.parameters,
            "block_parameters": cost.block_parameters,
            "flops_per_image": cost.plain_flops,
            "shares": shares(cost, work),
            "dominates": {place: turning_points(work, fabric, flops) for place, fabric in fabrics.items()},
            "milliseconds": {place: times(work, fabric, flops) for place, fabric in fabrics.items()},
        }
        click.echo(name, err=True)
    settings = {
        "gpu": GPU, "utilisation": UTILISATION, "flops": flops, "precision": PRECISION, "batch": BATCH,
        "gpus_per_node": GPUS_PER_NODE, "disk_gb_per_second": DISK, "link": gpu.link,
        "links": {
            link.name: {"gb_per_second": link.rate, "assumed_latency_microseconds": link.latency, "about": link.about}
            for fabric in fabrics.values()
            for link in (fabric.within, fabric.between)
        },
    }  # fmt: skip
    return {"date": date_and_device()["date"], "settings": settings, "models": models}


@click.group()
def main() -> None:
    """What more GPUs bring: computed, and measured with processes."""


@main.command()
def model() -> None:
    """Compute, write, draw, and print the tables."""
    from hastezoo.files import write_json

    result = computed()
    write_json(OUT, result)
    scaling_report.draw(result, PICTURE)
    click.echo(scaling_report.model_tables(result))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Steps of each engine that are timed.")
@click.option("--quick", is_flag=True, help="A tiny model, to see that it works; writes nothing.")
def processes(rounds: int, quick: bool) -> None:
    """Measure 1, 2 and 4 processes over gloo, write, and print the table."""
    from hastezoo.files import write_json

    result = scaling_processes.measure(rounds, quick)
    if not quick:
        write_json(RESULTS / "scaling.json", result)
    click.echo(scaling_report.measured_tables(result))


@main.command()
def tables() -> None:
    """The tables of what was written."""
    for path, shown in ((OUT, scaling_report.model_tables), (RESULTS / "scaling.json", scaling_report.measured_tables)):
        click.echo(shown(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
