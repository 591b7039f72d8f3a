"""After its alignment has ended, a run costs what a plain one costs: the same operators, and nothing else in memory."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hastezoo.data.digits import Digits
from hastezoo.models.registry import create_model
from hastezoo.processes import Processes
from hastezoo.recipes.digits import ARMS, DigitsConfig, align
from hastezoo.sampling.interpolants import Linear
from hastezoo.training.config import configure
from hastezoo.training.objective import Objective
from hastezoo.training.run import Run

SMALL = ["model.depth=3", "model.width=32", "model.heads=2", "train.steps=9", "train.batch_size=16"]
HASTE = ["alignment.projector_width=16", "alignment.termination.step=3"]
CPU = Processes(0, 1, torch.device("cpu"))
DIGITS = Digits("train")
# Operators on the shapes of their inputs, and how often each is called.
Operators = Counter[tuple[str, str]]


def create_run(arm: str, out: Path) -> Run:
    """A run as the recipe makes it, restored from `out` if there is something; HASTE's ends after three steps."""
    config = configure(DigitsConfig(alignment=ARMS[arm]), None, SMALL + (HASTE if arm == "haste" else []))
    torch.manual_seed(config.train.seed)
    model = create_model(config.architecture, **config.model)
    alignment = None if config.alignment is None else align(config.alignment, model, CPU.device)
    out.mkdir(exist_ok=True)
    return Run(model, Objective(Linear(), 10, alignment), config.train, out, CPU)


def advance(run: Run, until: int) -> None:
    """Take the loop's steps, until so many are done."""
    while run.step < until:
        run.advance(DIGITS.__getitems__(range(16)), DIGITS.shape)
        run.consider_ending_alignment(DIGITS)


def operators(run: Run) -> Operators:
    """What the next step calls."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        run.advance(DIGITS.__getitems__(range(16)), DIGITS.shape)
    events = profiler.key_averages(group_by_input_shape=True)
    return Counter({(event.key, str(event.input_shapes)): event.count for event in events})


def differences(one: Operators, other: Operators) -> dict[tuple[str, str], tuple[int, int]]:
    """Operators that are not called as often in both."""
    return {key: (one[key], other[key]) for key in one | other if one[key] != other[key]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Operators:
    """The fifth step of a plain run."""
    run = create_run("none", tmp_path_factory.mktemp("plain"))
    advance(run, 4)
    return operators(run)


def test_a_step_after_the_end_is_a_plain_step(plain: Operators, tmp_path: Path) -> None:
    """And one before the end is not. Tapping is no operator, so what the model answers is looked at too."""
    run = create_run("haste", tmp_path)
    answers: list[type] = []
    run.model.register_forward_hook(lambda _, __, answer: answers.append(type(answer)))
    advance(run, 1)
    aligned = operators(run)
    advance(run, 4)
    assert run.alignment is not None and run.alignment.termination.ended_at == 3
    assert differences(operators(run), plain) == {}
    assert differences(aligned, plain) and aligned.total() > 1.2 * plain.total()
    assert answers == [tuple, tuple, tuple, torch.Tensor, torch.Tensor]


def test_so_is_one_of_a_run_that_goes_on_after_the_end(plain: Operators, tmp_path: Path) -> None:
    first = create_run("haste", tmp_path)
    advance(first, 3)
    first.save()
    resumed = create_run("haste", tmp_path)
    assert resumed.step == 3
    advance(resumed, 4)
    assert differences(operators(resumed), plain) == {}


def test_nothing_of_alignment_stays_in_memory(tmp_path: Path) -> None:
    run = create_run("haste", tmp_path)
    advance(run, 2)
    left = references(run)
    assert len(left) > 10 and all(one() is not None for one in left)
    advance(run, 3)
    assert run.alignment is not None and run.alignment.teacher is None and run.alignment.projector is None
    assert run.student.projector is None
    gc.collect()
    assert [one() for one in left if one() is not None] == []


def references(run: Run) -> list[weakref.ref[Any]]:
    """To the teacher and its network, to the projector, and to what the optimizer keeps of its parameters."""
    assert run.alignment is not None
    teacher, projector = run.alignment.teacher, run.alignment.projector
    assert teacher is not None and projector is not None
    networks = [part for part in vars(teacher).values() if isinstance(part, nn.Module)]
    weights = [tensor for module in (*networks, projector) for tensor in module.parameters()]
    moments = [run.optimizer.state[parameter]["exp_avg"] for parameter in projector.parameters()]
    return [weakref.ref(part) for part in (teacher, *networks, projector, *weights, *moments)]


def test_the_optimizer_has_the_parameters_of_the_model_and_no_others(tmp_path: Path) -> None:
    run = create_run("haste", tmp_path)
    advance(run, 2)
    assert len(run.optimizer.param_groups) == 2
    advance(run, 4)
    (group,) = run.optimizer.param_groups
    wanted = [id(parameter) for parameter in run.model.parameters()]
    assert [id(parameter) for parameter in group["params"]] == wanted
    assert sorted(map(id, run.optimizer.state)) == sorted(wanted)
