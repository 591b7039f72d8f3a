"""What a training step costs, before there is data: the code of the real step runs on tensors without values.

FLOPs are of matrix products, two for a multiply-add, as torch counts them; attention counts as the products that its
definition has, whichever kernel takes them. Elementwise work, the optimizer and the EMA are not counted. Memory is what
autograd keeps from the forward pass for the backward pass, with fused attention (no N x N map).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hastezoo.alignment.config import AlignmentConfig, TerminationConfig
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hastezoo.alignment.capture import Lesson
    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.models.taps import Captured

# Two batches give the line on which all others lie, but for 1: its tensors are contiguous more often, and keep less.
PROBES = (2, 3)


@dataclass(frozen=True)
class Cost:
    """What a step costs. Without alignment the aligned student is the plain one, and there is no teacher.

    Attributes:
        batch: Images in a backward pass, of one process.
        parameters, projector_parameters, teacher_parameters: Numbers of them.
        plain_flops: Per image, forward and backward, of the student alone.
        aligned_flops: The same with the projector and the losses of alignment, without the teacher.
        teacher_flops: Per image, forward.
        plain_saved, aligned_saved: Bytes kept for the backward pass of the batch. In bf16 autocast's copies of the
            weights are among them; with recomputation, what a block keeps while it is run again.
        teacher_bytes: Of the teacher's weights.
        blocks, block_parameters: How many blocks the student has, and how many of its parameters are theirs.
        cast_bytes: Of plain_saved and aligned_saved, autocast's copies of the weights of blocks.
    """

    batch: int
    parameters: int
    projector_parameters: int
    teacher_parameters: int
    plain_flops: int
    aligned_flops: int
    teacher_flops: int
    plain_saved: int
    aligned_saved: int
    teacher_bytes: int
    blocks: int = 0
    block_parameters: int = 0
    cast_bytes: int = 0

    @property
    def trained_bytes(self) -> int:
        """Float32 weights, gradients, AdamW's two moments and the EMA, which a projector has not."""
        return 20 * self.parameters + 16 * self.projector_parameters

    @property
    def state_bytes(self) -> int:
        """What is trained, and the teacher."""
        return self.trained_bytes + self.teacher_bytes

    @property
    def checkpoint_bytes(self) -> int:
        """Of a checkpoint while there is alignment: weights, EMA and AdamW's moments."""
        return 16 * self.parameters + 12 * self.projector_parameters


def step_cost(
    architecture: str,
    model: dict[str, Any],
    alignment: AlignmentConfig | None,
    *,
    batch: int,
    precision: str,
    recompute: bool = False,
) -> Cost:
    """What a step costs; nothing is downloaded, and no weights are made. What was counted once is not counted again.

    Args:
        architecture, model: Registered name and the values that override its own.
        alignment: With which teacher and how; None for a plain model.
        batch: Images in a backward pass, of one process.
        precision: fp32, or bf16 autocast.
        recompute: Whether blocks run a second time in the backward pass (the model's `recompute`); FLOPs count that.

    Raises:
        UserError: If there is no such model, teacher or precision, or alignment does not fit the model.
    """
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision is fp32 or bf16, not {precision!r}")
    if batch < 1:
        raise UserError(f"a batch has 1 or more images, not {batch}")
    described = None if alignment is None else alignment.model_dump_json()
    counted = _count_step(architecture, json.dumps(model, sort_keys=True, default=str), described, precision, recompute)
    plain_saved, aligned_saved = (_on_line(two, batch) for two in zip(*counted.saved, strict=True))
    return Cost(batch=batch, plain_saved=plain_saved, aligned_saved=aligned_saved, **counted.numbers)


class _Counted(NamedTuple):
    """Of a step: what of its `Cost` does not depend on the batch; and bytes kept, plain and aligned, of each probe."""

    numbers: dict[str, int]
    saved: list[tuple[int, int]]


@functools.lru_cache(maxsize=64)
def _count_step(architecture: str, model: str, alignment: str | None, precision: str, recompute: bool) -> _Counted:
    """Run a step on tensors without values, which takes seconds. Arguments are those of `step_cost`, as JSON."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = FakeTensorMode()
    with fake:
        student = _student(architecture, json.loads(model))
    student.recompute = recompute
    tutor = None if alignment is None else _tutor(AlignmentConfig.model_validate_json(alignment), student)
    with fake, _as_on_a_gpu():
        step = _Step(student, tutor)
        plain_flops, extra_flops = step.flops()
        saved = [step.saved(probe, precision) for probe in PROBES]
    weights = [] if tutor is None else list(tutor.model.parameters())
    numbers = {
        "parameters": _count(student),
        "projector_parameters": _count(step.projector),
        "teacher_parameters": sum(weight.numel() for weight in weights),
        "plain_flops": plain_flops,
        "aligned_flops": plain_flops + extra_flops,
        "teacher_flops": 0 if tutor is None else tutor.flops,
        "teacher_bytes": sum(weight.numel() * weight.element_size() for weight in weights),
        "blocks": len(student.blocks),
        "block_parameters": _count(student.blocks),
        "cast_bytes": _cast_bytes(student) if precision == "bf16" else 0,
    }
    return _Counted(numbers, saved)


def _student(architecture: str, model: dict[str, Any]) -> Any:
    from hastezoo.models.registry import create_model

    try:
        return create_model(architecture, **model)
    except (ValueError, TypeError) as error:
        raise UserError(f"model: {error}") from None


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _cast_bytes(student: Any) -> int:
    """Of the copies in bfloat16 that products of blocks keep of their weights; of one block where it runs again."""
    kept = student.blocks[:1] if student.recompute else student.blocks
    return sum(2 * weight.numel() for weight in kept.parameters() if weight.ndim > 1)


def _on_line(values: tuple[int, int], batch: int) -> int:
    slope = (values[1] - values[0]) // (PROBES[1] - PROBES[0])
    return values[0] + (batch - PROBES[0]) * slope


class _Tutor(NamedTuple):
    """Alignment with a teacher on the meta device, its network, what it says of one image, and the FLOPs of that."""

    alignment: HolisticAlignment
    model: nn.Module
    lesson: Lesson
    flops: int


def _tutor(config: AlignmentConfig, student: Any) -> _Tutor:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hastezoo.alignment.holistic import create_alignment
    from hastezoo.alignment.teachers import teacher_without_weights
    from hastezoo.devices import find_dtype

    alignment = create_alignment(config, student, torch.device("cpu"))
    teacher, model = teacher_without_weights(
        config.teacher.name,
        grid=student.config.grid,
        attention_layers=config.teacher_blocks,
        dtype=find_dtype(config.teacher.dtype),
    )
    with torch.device("meta"), FlopCounterMode(display=False) as counter, _attention_as_products():
        lesson = teacher(torch.empty(1, 1, *teacher.size))
    alignment.teach = lambda: teacher
    return _Tutor(alignment, model, lesson, counter.get_total_flops())


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Few large blocks of attention rows in the loss instead of many small ones: the numbers are the same, sooner.
    And attention of a student in the precision of all else, which a CPU is too slow for."""
    from hastezoo.alignment.losses import BLOCK_ELEMENTS
    from hastezoo.models.layers import SLOW_IN_BFLOAT16

    before, slow = BLOCK_ELEMENTS["cpu"], set(SLOW_IN_BFLOAT16)
    BLOCK_ELEMENTS["cpu"] = BLOCK_ELEMENTS["cuda"]
    SLOW_IN_BFLOAT16.clear()
    try:
        yield
    finally:
        BLOCK_ELEMENTS["cpu"] = before
        SLOW_IN_BFLOAT16.update(slow)


def _attention_as_products() -> Any:
    """Attention as the matrix products that its definition has: fused kernels take some of them twice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


class _Step:
    """The forward and backward pass of a training step, on tensors without values."""

    def __init__(self, student: Any, tutor: _Tutor | None) -> None:
        self.student, self.tutor = student, tutor
        self.projector: nn.Module | None = None
        if tutor is not None:
            tutor.alignment.begin(seed=0)
            self.projector = tutor.alignment.projector

    def denoise(self, batch: int) -> tuple[Tensor, Captured]:
        """The plain loss, and what the taps gave, which compute nothing."""
        import torch

        from hastezoo.models.taps import Taps

        config = self.student.config
        data = torch.empty(batch, config.in_channels, *config.size)
        taps = Taps() if self.tutor is None else self.tutor.alignment.taps
        velocity, captured = self.student(data, torch.empty(batch), self.student.blank_condition(batch), taps)
        return (velocity.float() - data).square().flatten(1).mean(1).mean(), captured

    def align(self, batch: int, captured: Captured) -> Tensor:
        """What alignment adds to the loss."""
        import torch

        from hastezoo.alignment.capture import Lesson

        assert self.tutor is not None

        def blank(said: Tensor) -> Tensor:
            return torch.empty(batch, *said.shape[1:], dtype=said.dtype)

        said = self.tutor.lesson
        queries, keys = ({layer: blank(x) for layer, x in heads.items()} for heads in (said.queries, said.keys))
        projected = None if self.projector is None else self.projector(captured.features)
        lesson = Lesson(blank(said.features), queries, keys, said.grid)
        return self.tutor.alignment.weighted(self.tutor.alignment.losses(captured, projected, lesson))

    def flops(self) -> tuple[int, int]:
        """Per image, of the plain student and of what alignment adds to it, forward and backward."""
        import torch
        from torch.utils._pytree import tree_map_only
        from torch.utils.flop_counter import FlopCounterMode

        from hastezoo.models.taps import Captured

        forward, backward, extra = (FlopCounterMode(display=False) for _ in range(3))
        with _attention_as_products():
            with forward:
                loss, captured = self.denoise(1)
            if self.tutor is not None:
                # Below what was tapped both losses share one backward pass, which is the plain student's.
                leaves = tree_map_only(torch.Tensor, lambda x: x.detach().requires_grad_(), vars(captured))
                with extra:
                    self.align(1, Captured(**leaves)).backward()
            with backward:
                loss.backward()
        return forward.get_total_flops() + backward.get_total_flops(), extra.get_total_flops()

    def saved(self, batch: int, precision: str) -> tuple[int, int]:
        """Bytes kept for the backward pass, of the plain and of the aligned student."""
        import torch

        kept: dict[int, int] = {}
        inputs: list[Tensor] = []  # of a block
        own = [part for part in (self.student, self.projector) if part is not None]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            block = self.student.blocks[0]
            with block.register_forward_pre_hook(lambda _, given: inputs.extend(given)), _keeping(kept, own):
                _, captured = self.denoise(batch)
                plain = sum(kept.values())
                if self.tutor is not None:
                    self.align(batch, captured)
            again = _kept_by(block, inputs) if self.student.recompute else 0
        return plain + again, sum(kept.values()) + again


def _kept_by(block: nn.Module, inputs: list[Tensor]) -> int:
    """Bytes that a block keeps, which is run again in the backward pass on what it was given in the forward pass."""
    kept: dict[int, int] = {}
    with _keeping(kept, [block]):
        block(*(given.detach().requires_grad_() for given in inputs))
    return sum(kept.values())


@contextmanager
def _keeping(kept: dict[int, int], own: list[nn.Module]) -> Iterator[None]:
    """Note the bytes of each storage that autograd keeps; the parameters' would be there anyway."""
    import torch

    held: list[Any] = []  # or the address of a storage that is freed would come again
    there = {parameter.untyped_storage()._cdata for module in own for parameter in module.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in there:
            held.append(storage)
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


class RunFlops(NamedTuple):
    """FLOPs of a run, and the teacher's share of them in [0, 1]."""

    total: float
    teacher_share: float


def aligned_steps(termination: TerminationConfig, steps: int) -> int:
    """Steps with alignment of a run; where the gradient ends it, which nobody knows before, the most it can be: all."""
    return steps if termination.step is None else min(termination.step, steps)


def run_flops(cost: Cost, steps: int, batch_size: int, aligned_steps: int) -> RunFlops:
    """FLOPs of a run of so many steps on `batch_size` images, all processes together.

    Args:
        cost: Of a step.
        steps, batch_size: Of the run.
        aligned_steps: How many of the steps have alignment (`aligned_steps`).
    """
    teacher = float(batch_size) * aligned_steps * cost.teacher_flops
    extra = float(batch_size) * aligned_steps * (cost.aligned_flops - cost.plain_flops)
    total = float(batch_size) * steps * cost.plain_flops + extra + teacher
    return RunFlops(total, teacher / total)
