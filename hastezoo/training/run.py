"""What changes while a run goes on: parameters, EMA, optimizer, alignment, and the number of the step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hastezoo.alignment.holistic import HolisticAlignment
from hastezoo.data.batch import Batch
from hastezoo.data.order import generator, process_slice
from hastezoo.errors import UserError
from hastezoo.processes import Processes
from hastezoo.training.angles import gradient_cosines
from hastezoo.training.checkpoints import Checkpoints, restore
from hastezoo.training.config import TrainConfig
from hastezoo.training.ema import Ema
from hastezoo.training.engines import compile_blocks, create_engine, gathered
from hastezoo.training.objective import Draws, Objective, draw
from hastezoo.training.samples import Samples
from hastezoo.training.saving import create_saver
from hastezoo.training.state import State
from hastezoo.training.student import Student
from hastezoo.training.trackers import create_trackers
from hastezoo.training.tracking import JsonLines, Window

What = Literal["average", "trained"]


class Run:
    """A run, restored from the newest checkpoint in its folder if there is one.

    Attributes:
        student: The model and, while alignment is active, its projector; a share of them with an engine that shards.
        average, trained: After `gather`, on the main process, the average's network and the student with all of their
            parameters, however they lie over processes.
        step: Steps done.
    """

    average: nn.Module | None
    trained: Student | None

    def __init__(
        self, model: nn.Module, objective: Objective, config: TrainConfig, out: Path, processes: Processes
    ) -> None:
        self.objective, self.config, self.processes = objective, config, processes
        self.engine = create_engine(config, processes)
        self.model = model.to(processes.device)
        self.model.recompute = config.activation_checkpointing  # type: ignore[assignment]
        self.ema = Ema(self.model, config.ema_decay)
        self.checkpoints = Checkpoints(out / "checkpoints", config.keep, config.keep_at, config.milestone_every)
        stored = self.checkpoints.latest(processes)
        projector = self._begin_alignment({} if stored is None else stored.values)
        self.student = Student(self.model, projector).to(processes.device)
        for network in (self.model, self.ema.model, self.student.projector):
            if network is not None:
                self.engine.lay_out(network)
        if config.compile:
            compile_blocks(self.model)
        self.optimizer = self._optimizer()
        self.step = 0
        self.step = restore(self.state, stored)
        self.saver = create_saver(
            self.checkpoints, processes, shards=config.parallel.sharded_checkpoints, saved=self.step
        )
        self._open_logs(out)
        self.began = time.perf_counter()
        self.window = Window()
        self.grad_norm = torch.zeros(())
        self.wrapped = self.engine.wrap(self.student)

    def _open_logs(self, out: Path) -> None:
        """What the main process writes, from the step on that the run goes on from."""
        main = self.processes.main
        self.metrics = JsonLines(out / "metrics.jsonl", self.step) if main else None
        self.events = JsonLines(out / "alignment.jsonl", self.step) if main and self.alignment else None
        self.diagnostics = JsonLines(out / "diagnostics.jsonl", self.step) if main else None
        self.evaluations = JsonLines(out / "evaluations.jsonl", self.step) if main else None
        self.trackers = create_trackers(self.config.trackers, out, self._settings(out), self.step) if main else []

    @property
    def state(self) -> State:
        """What a checkpoint holds of it."""
        values = {} if self.alignment is None else {"alignment": self.alignment.state_dict()}
        return State(self.step, self.model, self.ema.model, self.student.projector, self.optimizer, values)

    @property
    def alignment(self) -> HolisticAlignment | None:
        return self.objective.alignment

    def _begin_alignment(self, values: dict[str, Any]) -> nn.Module | None:
        """Make teacher and projector, unless the checkpoint's values say that alignment has ended; the projector."""
        if self.alignment is None:
            return None
        if values.get("alignment") is not None:
            self.alignment.load_state_dict(values["alignment"])
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

    def gather(self, what: Collection[What], *, everywhere: bool = False) -> None:
        """Bring `average` and `trained` up to date, on the main process or everywhere; all processes at once."""
        whole = partial(self.engine.whole, everywhere=everywhere)
        if "average" in what:
            self.average = whole(self.ema.model)
        if "trained" in what:
            projector = None if self.student.projector is None else whole(self.student.projector)
            model = whole(self.model)
            self.trained = None if model is None else Student(model, projector)

    def at(self, doing: str) -> None:
        """Tell the other processes' watch what this one is about to do."""
        self.processes.heart.at(self.step, doing)

    def advance(self, batch: Batch, shape: tuple[int, ...]) -> None:
        """One optimizer step on this process' part of the batch, in as many portions as are accumulated."""
        config, processes = self.config, self.processes
        draws = draw(
            config.seed, self.step, config.batch_size, shape, config.label_dropout, law=config.times,
            posterior=batch.std is not None, rank=processes.rank, processes=processes.count,
        )  # fmt: skip
        self.at("forward and backward")
        self.optimizer.zero_grad(set_to_none=True)
        portions = [process_slice(len(batch), index, config.accumulation) for index in range(config.accumulation)]
        losses = [self._backward(batch.rows(rows), draws.rows(rows), last=rows.stop == len(batch)) for rows in portions]
        self.grad_norm = gathered(nn.utils.clip_grad_norm_(self.student.parameters(), config.clip or math.inf))
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
        with self.engine.portion(self.wrapped, last):
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
        self.gather({"trained"}, everywhere=True)
        assert self.trained is not None
        return gradient_cosines(
            self.objective, self.trained, samples, self.alignment.config.termination,
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
        self.wrapped = self.engine.wrap(self.student)
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()

    def check_finite(self) -> None:
        """Stop before anything that is not finite is reported or saved.

        Raises:
            UserError: If a loss since the last report, a gradient or a parameter is not finite; it names which.
        """
        size = gathered(nn.utils.get_total_norm([one.detach() for one in self.student.parameters()], math.inf))
        name = self.window.broken(self.processes)
        broken = {None: None, "loss": "the loss", "gradient": "the gradient"}.get(name, f"the {name} loss")
        if broken is None and not bool(torch.isfinite(self.processes.mean(size))):
            broken = "a parameter"
        if broken is not None:
            saved = self.saver.saved
            kept = f"the checkpoint of step {saved} is good" if saved else "nothing was saved yet"
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
        """Let the trackers send what they hold, and give back what writes checkpoints."""
        for tracker in self.trackers:
            tracker.close()
        self.saver.close()

    def note(self, **values: Any) -> None:
        """Write a line about alignment."""
        if self.events is not None:
            self.events.log(step=self.step, **values)

    @property
    def taught(self) -> bool:
        """Whether a teacher looks at the images."""
        return self.alignment is not None and self.alignment.active

    def save(self, *, wait: bool = False) -> None:
        """Write a checkpoint, or begin to; with `wait` it is safe when this returns, on every process."""
        self.saver.save(self.state)
        if wait:
            self.saver.finish()
            self.processes.wait()
