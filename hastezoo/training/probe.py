"""Looks at how a run's alignment goes, every so many steps: `diagnostics.jsonl`, which `hastezoo diagnose` draws."""

from __future__ import annotations

import torch
from torch import Tensor

from hastezoo.alignment.grids import resize_tokens
from hastezoo.alignment.holistic import HolisticAlignment
from hastezoo.alignment.progress import attention_divergence, cknna
from hastezoo.alignment.teachers import Lesson
from hastezoo.data.order import generator, permutation
from hastezoo.models.taps import Captured, Taps
from hastezoo.processes import Processes
from hastezoo.sampling import interpolants
from hastezoo.training.angles import gradient_cosines
from hastezoo.training.loop import Hook
from hastezoo.training.run import Run
from hastezoo.training.samples import Samples


class Probe:
    """Measures a student on fixed images, noised to one t by fixed noise.

    The teacher is asked once; what it said of these images is kept, so that a run can be looked at after its teacher
    has left, or without ever having had one.

    Args:
        alignment: Which teacher, layers and pairs to measure by. It is this probe's own and takes no part in training.
        samples: Where the images come from.
        images: How many.
        t: How noisy the student's input is.
        k: Neighbours of CKNNA.
    """

    def __init__(
        self, alignment: HolisticAlignment, samples: Samples, *, images: int = 256, t: float = 0.5, k: int = 10
    ) -> None:
        self.config, self.grid, self.t, self.k = alignment.config, alignment.grid, t, k
        self.pairs = self.config.attention_pairs
        self.chosen = permutation(0, 0, len(samples))[:images].tolist()
        self.samples = samples
        self.lesson = self._ask(alignment)

    @torch.no_grad()
    def _ask(self, alignment: HolisticAlignment) -> Lesson:
        batch = self.samples.__getitems__(self.chosen)
        assert batch.images is not None
        lesson = alignment.teach()(batch.images)
        return Lesson(lesson.features.float().cpu(), _on_cpu(lesson.queries), _on_cpu(lesson.keys), lesson.grid)

    @torch.no_grad()
    def measure(self, run: Run) -> dict[str, object]:
        """CKNNA of the features after every block, and the divergence of every pair's attention."""
        depth = len(run.model.blocks)  # type: ignore[arg-type]
        by_block = [self._captured(run, Taps(layer)) for layer in range(1, depth + 1)]
        target = self.lesson.features.mean(1)
        similarity = [cknna(_features(captured).mean(1), target, self.k) for captured in by_block]
        attention = self._captured(run, Taps(None, tuple(student for student, _ in self.pairs)))
        divergence = {
            f"{student}<-{teacher}": attention_divergence(
                self._resized(attention.queries[student]),
                self._resized(attention.keys[student]),
                self.lesson.queries[teacher],
                self.lesson.keys[teacher],
            )
            for student, teacher in self.pairs
        }
        return {"t": self.t, "k": self.k, "images": len(self.chosen), "cknna": similarity, "attention_kl": divergence}

    def _captured(self, run: Run, taps: Taps) -> Captured:
        """What the model's taps give on the fixed images, on the CPU in float32."""
        device = run.processes.device
        batch = self.samples.__getitems__(self.chosen)
        noise = torch.randn(batch.data.shape, generator=generator(0, "probe"))
        t = torch.full((len(batch),), self.t)
        x = interpolants.noisy(run.objective.path, batch.data, noise, interpolants.expand(t, batch.data))
        assert run.trained is not None
        _, captured = run.trained.model(x.to(device), t.to(device), batch.condition.to(device), taps)
        features = None if captured.features is None else captured.features.float().cpu()
        return Captured(features, _on_cpu(captured.queries), _on_cpu(captured.keys))

    def _resized(self, heads: Tensor) -> Tensor:
        return resize_tokens(heads, self.grid, self.lesson.grid)

    def cosines(self, run: Run) -> dict[str, list[float]]:
        """The gradients' cosine at each time while alignment is active; by this process alone."""
        alignment = run.alignment
        config = self.config.termination
        if alignment is None or not alignment.active or config.block >= alignment.config.reach:
            return {}
        assert run.trained is not None
        found = gradient_cosines(
            run.objective, run.trained, self.samples, config, seed=run.config.seed,
            batch_size=run.config.batch_size // run.processes.count,
            processes=Processes(0, 1, run.processes.device), precision=run.config.precision,
        )  # fmt: skip
        return {"times": list(config.times), "cosines": found}


def _on_cpu(heads: dict[int, Tensor]) -> dict[int, Tensor]:
    return {block: taken.float().cpu() for block, taken in heads.items()}


def _features(captured: Captured) -> Tensor:
    assert captured.features is not None
    return captured.features


def probe_hook(probe: Probe, every: int) -> Hook:
    """A hook that writes what the probe finds into the run's folder."""

    def call(run: Run) -> None:
        assert run.diagnostics is not None
        run.diagnostics.log(step=run.step, **probe.measure(run), **probe.cosines(run))

    return Hook(every, call, sees="trained", doing="looking at alignment")
