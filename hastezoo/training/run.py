"""What changes while a run goes on: parameters, EMA, optimizer, alignment, and the number of the step."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hastezoo.alignment.holistic import HolisticAlignment
from hastezoo.data.batch import Batch
from hastezoo.data.order import generator, process_slice
from hastezoo.errors import UserError
from hastezoo.processes import Processes
from hastezoo.training.angles import gradient_cosines
from hastezoo.training.checkpoints import Checkpoints
from hastezoo.training.config import TrainConfig
from hastezoo.training.ema import Ema
from hastezoo.training.objective import Draws, Objective, draw
from hastezoo.training.samples import Samples
from hastezoo.training.student import Student
from hastezoo.training.trackers import create_trackers
from hastezoo.training.tracking import JsonLines, Window


class Run:
    """A run, restored from the newest checkpoint in its folder if there is one.

    Attributes:
        student: The model and, while alignment is active, its projector.
        step: Steps done.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, config: TrainConfig, out: Path, processes: Processes
    ) -> None:
        self.objective, self.config, self.processes = objective, config, processes
        self.model = model.to(processes.device)
        self.model.recompute = config.activation_checkpointing  # type: ignore[assignment]
        self.ema = Ema(self.model, config.ema_decay)
        self.checkpoints = Checkpoints(out / "checkpoints", config.keep, config.keep_at, config.milestone_every)
        state = self.checkpoints.load_latest()
        self.student = Student(self.model, self._begin_alignment(state)).to(processes.device)
        self.optimizer = self._optimizer()
        self.step = self.saved = self._restore(state)
        self.metrics = JsonLines(out / "metrics.jsonl", self.step) if processes.main else None
        self.events = JsonLines(out / "alignment.jsonl", self.step) if processes.main and self.alignment else None
        self.diagnostics = JsonLines(out / "diagnostics.jsonl", self.step) if processes.main else None
        self.evaluations = JsonLines(out / "evaluations.jsonl", self.step) if processes.main else None
        self.trackers = create_trackers(config.trackers, out, self._settings(out), self.step) if processes.main else []
        self.began = time.perf_counter()
        self.window = Window()
        self.grad_norm = torch.zeros(())
        self.wrapped = self._wrap()

    @property
    def alignment(self) -> HolisticAlignment | None:
        return self.objective.alignment

    def _begin_alignment(self, state: dict[str, Any] | None) -> nn.Module | None:
        """Make teacher and projector, unless the checkpoint says that alignment has ended; the projector."""
        if self.alignment is None:
            return None
        if state is not None and state.get("alignment") is not None:
            self.alignment.load_state_dict(state["alignment"])
        self.alignment.begin(generator(self.config.seed, "projector").initial_seed())
        return self.alignment.projector

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW over the model's parameters, and in a group of its own, which can be dropped, over the projector's."""
        adamw = self.config.optimizer
        groups = [list(part.parameters()) for part in (self.model, self.student.projector) if part is not None]
        return torch.optim.AdamW(
            [{"params": group} for group in groups],
            lr=adamw.lr, betas=adamw.betas, eps=adamw.eps, weight_decay=adamw.weight_decay,
        )  # fmt: skip

    @staticmethod
    def _settings(out: Path) -> dict[str, Any]:
        """What the run's folder says that it does, for trackers."""
        path = out / "config.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def _restore(self, state: dict[str, Any] | None) -> int:
        """Put a run back where its newest checkpoint was; its step, or 0 for a new run."""
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        if self.student.projector is not None:
            self.student.projector.load_state_dict(state["projector"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def _wrap(self) -> nn.Module:
        if self.processes.count == 1:
            return self.student
        devices = [self.processes.device] if self.processes.device.type == "cuda" else None
        # The only buffer is the table of positions, the same everywhere; and gradients need not be kept twice.
        return DistributedDataParallel(
            self.student, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def advance(self, batch: Batch, shape: tuple[int, ...]) -> None:
        """One optimizer step on this process' part of the batch, in as many portions as are accumulated."""
        config, processes = self.config, self.processes
        draws = draw(
            config.seed, self.step, config.batch_size, shape, config.label_dropout, law=config.times,
            posterior=batch.std is not None, rank=processes.rank, processes=processes.count,
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        portions = [process_slice(len(batch), index, config.accumulation) for index in range(config.accumulation)]
        losses = [self._backward(batch.rows(rows), draws.rows(rows), last=rows.stop == len(batch)) for rows in portions]
        self.grad_norm = nn.utils.clip_grad_norm_(self.student.parameters(), config.clip or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = config.optimizer.lr * min(1.0, (self.step + 1) / max(1, config.optimizer.warmup_steps))
        self.optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        means = {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}
        self.window.add({**means, "gradient": self.grad_norm})

    def _backward(self, batch: Batch, draws: Draws, *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one portion of the step; its losses. Processes average their gradients with the last."""
        device = self.processes.device
        waiting = isinstance(self.wrapped, DistributedDataParallel) and not last
        with self.wrapped.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                loss = self.objective(self.wrapped, batch.to(device), draws.to(device))
            (loss.total / self.config.accumulation).backward()
        return {**loss.terms, "loss": loss.total.detach()}

    def consider_ending_alignment(self, samples: Samples) -> bool:
        """End alignment if its termination says so after this step; whether it ended now."""
        alignment = self.alignment
        if alignment is None or not alignment.active:
            return False
        termination = alignment.termination
        if termination.wants_cosines(self.step):
            termination.observe(self.step, self.cosines(samples))
            self.note(cosines=termination.history[-1]["cosines"], times=list(termination.config.times))
        termination.pass_step(self.step)
        if termination.active:
            return False
        self.check_finite()
        self.note(ended=True)
        self._end_alignment(alignment)
        return True

    def cosines(self, samples: Samples) -> list[float]:
        """The cosine of the two gradients at each time, over the images that the termination names."""
        assert self.alignment is not None
        return gradient_cosines(
            self.objective, self.student, samples, self.alignment.config.termination,
            seed=self.config.seed, batch_size=self.config.batch_size, processes=self.processes,
            precision=self.config.precision,
        )  # fmt: skip

    def _end_alignment(self, alignment: HolisticAlignment) -> None:
        """Go on as a plain run: no teacher in memory, no taps, no projector in student or optimizer."""
        alignment.end()
        if self.student.projector is not None:
            for parameter in self.student.projector.parameters():
                self.optimizer.state.pop(parameter, None)
            del self.optimizer.param_groups[1]
            self.student.projector = None
        self.wrapped = self._wrap()
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()

    def check_finite(self) -> None:
        """Stop before anything that is not finite is reported or saved.

        Raises:
            UserError: If a loss since the last report, a gradient or a parameter is not finite; it names which.
        """
        size = nn.utils.get_total_norm([parameter.detach() for parameter in self.student.parameters()], math.inf)
        name = self.window.broken(self.processes)
        broken = {None: None, "loss": "the loss", "gradient": "the gradient"}.get(name, f"the {name} loss")
        if broken is None and not bool(torch.isfinite(self.processes.mean(size))):
            broken = "a parameter"
        if broken is not None:
            kept = f"the checkpoint of step {self.saved} is good" if self.saved else "nothing was saved yet"
            raise UserError(
                f"{broken} is not finite by step {self.step} ({self.window.last()}); {kept}. "
                "Lower optimizer.lr, or use precision fp32"
            )

    def report(self) -> float:
        """Write a line of metrics, means since the last; the mean loss."""
        means = self.window.means(self.processes)
        grad_norm = means.pop("gradient")
        loss = means.pop("loss")
        self.window = Window()
        for tracker in self.trackers:
            tracker.log(self.step, {"loss": loss, **means, "grad_norm": grad_norm})
        if self.metrics is not None:
            self.metrics.log(
                step=self.step,
                loss=loss,
                **means,
                grad_norm=grad_norm,
                lr=self.optimizer.param_groups[0]["lr"],
                seconds=round(time.perf_counter() - self.began, 2),
            )
        return loss

    def show(self, name: str, picture: Path) -> None:
        """Hand a picture to the trackers."""
        for tracker in self.trackers:
            tracker.image(self.step, name, picture)

    def evaluated(self, **values: float) -> None:
        """Write a line of what a hook measured of the average, such as a quick FID."""
        if self.evaluations is not None:
            self.evaluations.log(step=self.step, **values)
        for tracker in self.trackers:
            tracker.log(self.step, {f"evaluation/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Let the trackers send what they hold."""
        for tracker in self.trackers:
            tracker.close()

    def note(self, **values: Any) -> None:
        """Write a line about alignment."""
        if self.events is not None:
            self.events.log(step=self.step, **values)

    def _write(self, state: dict[str, Any]) -> None:
        try:
            self.checkpoints.save(self.step, state)
        except (OSError, RuntimeError) as error:  # torch wraps what the system says
            if "DataLoader worker" in str(error):  # torch's signal handler speaks up wherever it finds the program
                raise
            cause = error if isinstance(error, OSError) else error.__context__
            reason = getattr(cause, "strerror", None) or " ".join(str(error).split())[:120]
            kept = f"that of step {self.saved} is good" if self.saved else "none was written yet"
            raise UserError(
                f"the checkpoint of step {self.step} cannot be written to {self.checkpoints.folder} ({reason}); {kept}."
                " When that is mended, the same command goes on"
            ) from None

    @property
    def taught(self) -> bool:
        """Whether a teacher looks at the images."""
        return self.alignment is not None and self.alignment.active

    def save(self) -> None:
        """Write a checkpoint; every process waits until it is safe."""
        if self.processes.main:
            parts: dict[str, Any] = {"model": self.model, "ema": self.ema.model, "optimizer": self.optimizer}
            if self.student.projector is not None:
                parts["projector"] = self.student.projector
            if self.alignment is not None:
                parts["alignment"] = self.alignment
            states = {name: part.state_dict() for name, part in parts.items()}
            self._write({"step": self.step, **states})
        self.processes.wait()
        self.saved = self.step
