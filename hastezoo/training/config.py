"""What a recipe says, typed. Precedence: recipe < file < command line."""

from __future__ import annotations

import contextlib
import json
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hastezoo.errors import UserError, explain, nearest
from hastezoo.files import LOCK, write_json


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimizerConfig(_Strict):
    """AdamW; the defaults are REPA's and HASTE's. `warmup_steps` raises the rate linearly from 0."""

    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    eps: float = Field(1e-8, gt=0)
    warmup_steps: int = Field(0, ge=0)


class TimeLaw(_Strict):
    """How the times of training are drawn: uniformly in [0, 1], or sigma = exp(z) with z ~ N(mean, std^2) and
    t = sigma / (1 + sigma) (`lognormal`; HASTE's reviews try mean 0 and 1 with std 1)."""

    kind: Literal["uniform", "lognormal"] = "uniform"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)


class ParallelConfig(_Strict):
    """How a run is spread over its processes. The steps are the same, so all of it may change when a run goes on.

    Attributes:
        engine: ddp, a copy of everything on each process; or fsdp (FSDP2), of which each holds a share.
        shards: Of fsdp: processes that hold one copy together, such as the GPUs of a node (hybrid sharding); None for
            all processes.
        checkpoints: One file, which the main process writes while the others wait; or sharded, a folder that all
            write while training goes on. auto is one file with ddp, and sharded with fsdp.
        silence: Seconds without a sign of life from a process, after which the job ends.
        stall: Seconds without a finished step, after which it does.
    """

    engine: Literal["ddp", "fsdp"] = "ddp"
    shards: int | None = Field(None, ge=2)
    checkpoints: Literal["auto", "file", "sharded"] = "auto"
    silence: float = Field(60.0, gt=0)
    stall: float = Field(900.0, gt=0)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.engine == "ddp" and self.shards is not None:
            raise ValueError(f"shards = {self.shards} is for engine = fsdp; with ddp every process has a copy of all")
        if self.engine == "fsdp" and self.checkpoints == "file":
            raise ValueError("checkpoints = file would gather on one process what fsdp has spread; take sharded")
        return self

    @property
    def sharded_checkpoints(self) -> bool:
        """Whether a checkpoint is a folder."""
        return self.checkpoints == "sharded" or (self.checkpoints == "auto" and self.engine == "fsdp")


class TrainConfig(_Strict):
    """The settings of the loop.

    Attributes:
        seed: Decides initial weights, sample order, times, noise and label dropout.
        steps: Optimizer steps.
        batch_size: Of all processes together.
        ema_decay: Per step.
        clip: Largest gradient norm; None for no clipping.
        precision: fp32, or bf16 autocast with float32 losses.
        label_dropout: Share of labels replaced by the null label.
        times: The law of t.
        log_every, sample_every, diagnose_every, checkpoint_every: In steps; 0 for no samples, no diagnoses.
        keep: Checkpoints kept, beside the milestones that stay: those of the steps `keep_at`, and of every
            `milestone_every` steps (0 for none).
        accumulation: Backward passes to a step. Each process takes batch_size / processes / accumulation samples at
            a time; the step is the same.
        activation_checkpointing: Recompute activations in the backward pass instead of keeping them.
        compile: Compile the blocks of the network (torch.compile), one by one.
        parallel: How the run is spread over its processes.
        workers: Processes that read data, of each process; 0 reads in between.
        trackers: What is told of the losses beside metrics.jsonl: tensorboard, wandb.
    """

    seed: int = Field(0, ge=0)
    steps: int = Field(ge=1)
    batch_size: int = Field(256, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    clip: float | None = Field(1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    label_dropout: float = Field(0.1, ge=0, lt=1)
    times: TimeLaw = TimeLaw()
    log_every: int = Field(50, ge=1)
    sample_every: int = Field(1000, ge=0)
    diagnose_every: int = Field(0, ge=0)
    checkpoint_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)
    keep_at: tuple[int, ...] = ()
    milestone_every: int = Field(0, ge=0)
    accumulation: int = Field(1, ge=1)
    activation_checkpointing: bool = False
    compile: bool = False
    parallel: ParallelConfig = ParallelConfig()
    workers: int = Field(0, ge=0)
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()


# What may change when a run is resumed: it ends elsewhere, reports or is spread differently, but takes the same steps.
_FREE = (
    "steps", "log_every", "sample_every", "diagnose_every", "checkpoint_every", "keep", "keep_at", "milestone_every",
    "accumulation", "activation_checkpointing", "compile", "parallel", "workers", "trackers",
)  # fmt: skip
FREE_ON_RESUME = {
    *(f"train.{name}" for name in _FREE), "data.path", "data.font", "data.names", "grid", "evaluation",
}  # fmt: skip

RUN_FILES = (
    "config.json", "run.json", "metrics.jsonl", "alignment.jsonl", "diagnostics.jsonl", "evaluations.jsonl",
    "wandb.json",
)  # fmt: skip

Config = TypeVar("Config", bound=BaseModel)


def configure(recipe: Config, file: Path | None = None, settings: Iterable[str] = ()) -> Config:
    """A recipe's configuration with a file's values over it, and the command line's over those.

    Args:
        recipe: The recipe's own values.
        file: TOML or JSON with some of the keys.
        settings: `key.subkey=value`, the value in TOML's notation or a bare string; `train.` may be left out.

    Raises:
        UserError: If the file cannot be read, or a key or value is not valid.
    """
    values = recipe.model_dump()
    if file is not None:
        _merge(values, _read(file))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes key=value, not {setting!r}")
        nested: Any = _parse(text)
        parts = key.strip().split(".")
        if parts[0] not in values and parts[0] in values.get("train", {}):
            parts.insert(0, "train")  # optimizer.lr is train.optimizer.lr
        _check_known(parts[0], values)
        for part in reversed(parts):
            nested = {part: nested}
        _merge(values, nested)
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, type(recipe))) from None


def _check_known(first: str, values: dict[str, Any]) -> None:
    """Refuse a key whose first part is neither a setting nor one of `train`'s."""
    known = [*values, *values.get("train", {})]
    if first not in known:
        near = nearest(first, known, 1)
        raise UserError(
            f"unknown key {first!r}" + (f"; nearest: {near[0]}" if near else f"; known: {', '.join(values)}")
        )


def _merge(values: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _parse(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is neither valid TOML nor JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold a table of settings")
    return values


def make_folder(out: Path) -> None:
    """Make the folder of a run.

    Raises:
        UserError: If it cannot be.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; give another --out") from None


def withdraw_claim(out: Path) -> None:
    """Take back what `claim_run` and the record wrote for a run that never began."""
    for name in ("config.json", "run.json", LOCK):
        (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the user's own things may lie there
        out.rmdir()


def claim_run(out: Path, config: BaseModel) -> None:
    """Make `out` the folder of a run with these settings, which are written into its config.json.

    Raises:
        UserError: If the folder cannot be written, or holds a run with other settings.
    """
    path = out / "config.json"
    make_folder(out)
    try:
        if path.exists():
            _compare(_read(path), config.model_dump(mode="json"), out)
        write_json(path, config.model_dump(mode="json"))
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; give another --out") from None


def discard_run(out: Path, checkpoint: str) -> None:
    """Remove what a run made in `out`, and nothing else that may lie there."""
    for name in ("checkpoints", "samples", "evaluations", "tensorboard", "wandb"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (*RUN_FILES, f"{checkpoint}.safetensors"):
        (out / name).unlink(missing_ok=True)


def _compare(before: dict[str, Any], now: dict[str, Any], out: Path, place: str = "") -> None:
    for key in sorted(before.keys() | now.keys()):
        old, new, name = before.get(key), now.get(key), f"{place}{key}"
        if name in FREE_ON_RESUME:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            _compare(old, new, out, f"{name}.")
        elif old != new:
            was, wanted = _short(old), _short(new)
            raise UserError(f"{out} holds a run with {name} = {was}, not {wanted}; give another --out, or --fresh")


def _short(value: Any) -> str:
    """A setting in a message; of a long list, such as a vocabulary, how many values it has."""
    return f"{len(value):,} values ({value[0]} ...)" if isinstance(value, list) and len(value) > 8 else str(value)
