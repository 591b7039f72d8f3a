"""The recipes of models of latents: what imagenet256, imagenet512 and coco256 share.

Every checkpoint has its settings from its card and from what was published (`published.toml`). The data is a folder
that `hastezoo prepare` made, of ImageNet, of COCO or of one's own images. What is different for images of classes and
for captioned images is in `conditions.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from hastezoo.alignment.config import AlignmentConfig
from hastezoo.autoencoders import place_of
from hastezoo.errors import UserError
from hastezoo.training.config import TrainConfig
from hastezoo.zoo.card import Autoencoder, Card
from hastezoo.zoo.registry import find_card, package_cards

from . import running
from .conditions import kind_of
from .evaluating import EvaluationConfig, quick_fid
from .published import published
from .running import Parts, create

if TYPE_CHECKING:
    from torch import nn

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.conditioning.conditions import Conditions
    from hastezoo.data.manifest import Manifest
    from hastezoo.data.prepared import Prepared
    from hastezoo.pipeline import Pipeline
    from hastezoo.processes import Processes
    from hastezoo.training.loop import Hook


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """Which data.

    Attributes:
        path: The prepared data set; it may move between two starts of a run.
        fingerprint: Which samples these are; filled in when a run begins, and held against the data when it goes on.
        flip: Mirrored images are samples too.
        images: How many it should have, where a setting was published for so many; other data is warned of.
    """

    path: Path | None = None
    fingerprint: str = ""
    flip: bool = False
    images: int | None = Field(None, ge=1)


class GridConfig(_Strict):
    """The grids of samples that a run draws.

    Attributes:
        images: How many, of up to eight classes or captions.
        steps: Of the solver.
        vae: Decodes them: ema, mse, a folder, or owner/name of the Hub; None for the checkpoint's.
    """

    images: int = Field(16, ge=1)
    steps: int = Field(50, ge=1)
    vae: str | None = None


class LatentsConfig(_Strict):
    """What is trained, on what, and how.

    Attributes:
        architecture, model: Registered name and the values that override its own.
        data: The prepared data set.
        train: The loop's settings.
        alignment: With which teacher and how; None for a plain model.
        grid: The grids of samples.
        evaluation: A quick FID while it trains; against ImageNet, or other data's own images, unless told otherwise.
    """

    architecture: str
    model: dict[str, Any]
    data: DataConfig = DataConfig()
    train: TrainConfig
    alignment: AlignmentConfig | None = None
    grid: GridConfig = GridConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def checkpoints(recipe: str) -> dict[str, Card]:
    """The cards that a recipe retrains, by name."""
    return {name: card for name, card in package_cards().items() if card.recipe == recipe}


def recipe_config(card: Card, variants: Sequence[str] = ()) -> LatentsConfig:
    """The settings of a checkpoint before anybody changes them, with its variants laid over them in their order.

    Raises:
        UserError: If there is no such variant of it.
    """
    return LatentsConfig.model_validate(
        {"architecture": card.architecture, "model": dict(card.config), **published(card, variants)}
    )


def check_effective_batch(checkpoint: str, recipe: LatentsConfig, config: LatentsConfig, processes: int) -> None:
    """Refuse another batch than the recipe's, with the arithmetic.

    Raises:
        UserError: If the batches differ.
    """
    from hastezoo.training.feeding import counted

    wanted, train = recipe.train.batch_size, config.train
    if train.batch_size == wanted:
        return
    parts = processes * train.accumulation
    raise UserError(
        f"the effective batch would be {counted(processes)} x accumulation {train.accumulation} x "
        f"{train.batch_size / parts:g} samples = {train.batch_size}, and {checkpoint} is trained with {wanted}. Where "
        f"memory is short keep train.batch_size={wanted} and raise train.accumulation; --allow-batch-mismatch trains "
        "with another batch"
    )


def with_data(config: LatentsConfig, manifest: Manifest, out: Path, *, fresh: bool = False) -> LatentsConfig:
    """The settings with the data's fingerprint, if the model fits the data. With `fresh` the run in `out` is no matter.

    Raises:
        UserError: If it does not, or the run in `out` began with other data.
    """
    check_fits(config, manifest)
    data = config.data.model_copy(update={"fingerprint": manifest.fingerprint})
    if not fresh:
        _check_same_data(data, out)
    return config.model_copy(update={"data": data})


def check_fits(config: LatentsConfig, manifest: Manifest) -> None:
    """Refuse data that the model is not for.

    Raises:
        UserError: With the settings that would fit.
    """
    channels, height, width = manifest.latents.shape
    model, path, kind = config.model, config.data.path, kind_of(config.architecture)
    kind.check(manifest, path)
    size = model.get("input_size", 32)
    wanted = {"in_channels": channels, "input_size": height, **kind.wanted(manifest)}
    given = {"in_channels": model.get("in_channels", 4), "input_size": size, **kind.given(model)}
    changes = [f"--set model.{key}={value}" for key, value in wanted.items() if given[key] != value]
    if height != width:
        raise UserError(f"{path} has latents of {height} x {width}; this recipe trains on squares")
    if changes:
        raise UserError(
            f"{path} has latents {channels} x {height} x {width} of {kind.named(wanted)}; the model is for "
            f"{given['in_channels']} x {size} x {size} of {kind.named(given)}: {' '.join(changes)}"
        )
    if config.data.images not in (None, manifest.samples):
        warnings.warn(
            f"{path} has {manifest.samples:,} images, and these settings are for {config.data.images:,}", stacklevel=2
        )
    if config.data.flip and not manifest.flip:
        raise UserError(
            f"{path} has no moments of mirrored images; prepare it with --flip, or train without: --set data.flip=false"
        )


def _check_same_data(data: DataConfig, out: Path) -> None:
    """A run goes on with the samples it began with."""
    import json

    try:
        before = json.loads((out / "config.json").read_text(encoding="utf-8"))["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if before != data.fingerprint:
        raise UserError(
            f"{data.path} is not the data that the run in {out} began with (fingerprint {data.fingerprint}, not "
            f"{before}); give it back its --data, or another --out"
        )


def described(card: Card, config: LatentsConfig, manifest: Manifest) -> Card:
    """The checkpoint's card, for this data: its resolution, its autoencoder, its text encoder."""
    own = manifest.latents.vae
    repo = card.autoencoder.repo if own.startswith("stabilityai/") else own
    values = {
        **card.autoencoder.model_dump(),
        "repo": place_of(config.grid.vae or repo),
        "downsampling": manifest.resolution // manifest.latents.shape[1],
    }
    text = card.text
    if text is not None and manifest.text is not None:
        text = text.model_copy(update={"repo": manifest.text.encoder, "length": manifest.text.length})
    autoencoder = Autoencoder.model_validate(values)
    return card.model_copy(update={"resolution": manifest.resolution, "autoencoder": autoencoder, "text": text})


def align(config: AlignmentConfig, model: nn.Module, processes: Processes) -> HolisticAlignment:
    """Alignment of a model with the teacher that the config names."""
    from hastezoo.alignment.holistic import create_alignment

    return create_alignment(config, model, processes.device)


def assemble(recipe: str, checkpoint: str, config: LatentsConfig, out: Path, processes: Processes) -> Parts:
    """The model, the prepared data, the teacher."""
    from hastezoo.data.prepared import Prepared
    from hastezoo.training.record import RunRecord, typed_command

    from .hooks import diagnoses

    assert config.data.path is not None
    base = find_card(checkpoint)
    scale, bias = base.autoencoder.scale, base.autoencoder.bias
    samples = Prepared(config.data.path, scale=scale, bias=bias, flip=config.data.flip)
    card = described(base, config, samples.manifest)
    drawing = (config.train.sample_every > 0 or config.evaluation.every > 0) and processes.main
    model = create(config)
    if drawing:
        _check_vae(card, model)
    alignment = None if config.alignment is None else align(config.alignment, model, processes)
    kind = kind_of(config.architecture)
    record = RunRecord(
        recipe=recipe,
        checkpoint=checkpoint,
        command=typed_command(f"hastezoo.recipes.{recipe}"),
        device=str(processes.device),
        processes=processes.count,
        data=f"{samples.manifest.name} from {samples.manifest.source}",
        samples=samples.manifest.samples,
        resolution=card.resolution,
        autoencoder=card.autoencoder,
        **kind.record(card, samples.manifest),
    )

    def hooks() -> list[Hook]:
        measured = measured_by(base, config)
        looks = diagnoses(config.train, lambda: align(measured, model, processes), samples, processes)
        return (_pictures(card, config, out, samples, processes) if drawing else []) + looks

    return Parts(model, samples, alignment, record, hooks, kind.null(samples))


def measured_by(card: Card, config: LatentsConfig) -> AlignmentConfig:
    """By which teacher, layers and pairs a run is looked at: its own, or where it has no pairs HASTE's of its size."""
    own = config.alignment
    if own is not None and own.attention_weight:
        return own
    values = published(card.model_copy(update={"method": "haste"}))["alignment"]
    if "feature_layer" not in values:  # S, which HASTE was not tried on
        values = {}
    haste = AlignmentConfig.model_validate(values)
    return haste if own is None else haste.model_copy(update={"teacher": own.teacher})


def _check_vae(card: Card, model: Any) -> None:
    """Grids need an autoencoder: what is wrong with it is said before anything is trained."""
    import torch

    from hastezoo.loading import load_autoencoder

    try:
        load_autoencoder(card, model.config, None, device=torch.device("cpu"))
    except UserError as error:
        raise UserError(
            f"grids of samples need an autoencoder: {error}. Or name one with --set grid.vae=FOLDER, or draw none with "
            "--set train.sample_every=0"
        ) from None


def _pictures(card: Card, config: LatentsConfig, out: Path, samples: Prepared, processes: Processes) -> list[Hook]:
    """Grids of samples, and what is measured of others."""
    from .hooks import sample_grids

    kind = kind_of(config.architecture)
    count = config.grid.images
    conditions, shown = kind.shown(samples, count)
    grids = sample_grids(
        out, config.train.sample_every, _drawing(card, conditions, processes),
        [shown[index % len(shown)] for index in range(count)], [index // len(shown) for index in range(count)],
        columns=min(len(shown), count), steps=config.grid.steps,
    )  # fmt: skip
    if not config.evaluation.every:
        return [grids]
    folder = config.data.path
    reference = config.evaluation.reference or kind.reference(samples.manifest) or str(folder)
    evaluation = config.evaluation.model_copy(update={"reference": reference})
    conditions, prompts = kind.evaluated(samples, evaluation.prompts or str(folder))
    pipeline_of = _drawing(card, conditions, processes)
    return [grids, *quick_fid(evaluation, pipeline_of, card.protocol, str(processes.device), prompts)]


def _drawing(card: Card, conditions: Conditions, processes: Processes) -> Callable[[nn.Module], Pipeline]:
    """Makes a pipeline of the average's network."""

    def pipeline_of(network: nn.Module) -> Pipeline:
        import torch

        from hastezoo.pipeline import Pipeline

        return Pipeline(network, card, device=processes.device, dtype=torch.float32, conditions=conditions)

    return pipeline_of


def run(recipe: str, checkpoint: str, config: LatentsConfig, out: Path, **options: Any) -> None:
    """Train into `out`, going on if it holds a run, until it is finished. Options and errors are `running.run`'s.

    Raises:
        UserError: If the model does not fit the data, or the run in `out` began with other data.
    """
    from hastezoo.data.manifest import Manifest

    assert config.data.path is not None
    config = with_data(config, Manifest.read(config.data.path), out, fresh=bool(options.get("fresh")))
    running.run(
        checkpoint, config, out, lambda processes: assemble(recipe, checkpoint, config, out, processes), **options
    )
