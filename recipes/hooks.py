"""The periodic work of recipes: grids of samples at fixed seeds, looks at alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.pipeline import Pipeline
    from hastezoo.processes import Processes
    from hastezoo.training.loop import Hook
    from hastezoo.training.run import Run
    from hastezoo.training.samples import Samples


def sample_grids(
    out: Path,
    every: int,
    pipeline_of: Callable[[nn.Module], Pipeline],
    shown: Sequence[Any],
    seeds: Sequence[int],
    *,
    columns: int,
    **settings: Any,
) -> Hook:
    """Draws with the average, always the same classes or prompts from the same seeds: `samples/step-*.png`.

    Args:
        pipeline_of: Makes a pipeline of the average's network; called once.
        shown, seeds: Of each image; a class or a prompt, by the model.
        columns: Of the grid.
        **settings: Of the sampling protocol.
    """
    from hastezoo import pictures
    from hastezoo.files import atomic_write
    from hastezoo.training.loop import Hook

    made: list[Pipeline] = []

    def call(run: Run) -> None:
        if not made:
            assert run.average is not None
            made.append(pipeline_of(run.average))
        asked: dict[str, Any] = {"prompts" if made[0].conditions.text else "classes": list(shown)}
        output = made[0](seeds=list(seeds), **asked, **settings)
        sheet = pictures.grid(output.pixels, columns=columns, captions=output.prompts or None)
        (out / "samples").mkdir(exist_ok=True)
        path = out / "samples" / f"step-{run.step:08d}.png"
        atomic_write(path, pictures.encode(sheet, "png"))
        run.show("samples", path)

    return Hook(every, call, doing="drawing samples")


def diagnoses(
    config: TrainConfig, alignment_of: Callable[[], HolisticAlignment], samples: Samples, processes: Processes
) -> list[Hook]:
    """A look at features, attention and gradients now and then, also of a plain run, if it is asked for.

    Args:
        alignment_of: Makes the alignment that is measured by.
    """
    from hastezoo.training.probe import Probe, probe_hook

    if not config.diagnose_every or not processes.main:
        return []
    return [probe_hook(Probe(alignment_of(), samples), config.diagnose_every)]
