"""The public API on the embedded checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import hastezoo
from hastezoo.errors import UserError
from hastezoo.pipeline import Pipeline
from hastezoo.sampling.solvers import SOLVERS, Cancelled, StepInfo


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return hastezoo.Pipeline.from_pretrained("sit-ti-digits", device="cpu")


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_image_is_the_same_alone_in_a_batch_and_in_any_order(
    pipe: Pipeline, states: list[torch.Tensor], solver: str
) -> None:
    classes, seeds = [index % 10 for index in range(16)], list(range(100, 116))
    settings: dict[str, Any] = {"solver": solver, "steps": 8, "interval": (0.2, 0.8)}
    pipe(classes=classes, seeds=seeds, batch_size=16, **settings)
    pipe(classes=classes[::-1], seeds=seeds[::-1], batch_size=16, **settings)
    for index in (0, 7, 15):
        pipe(classes=classes[index], seeds=seeds[index], **settings)
    together, backwards, *alone = states
    assert (together - backwards.flip(0)).abs().max() < 1e-4
    for index, image in zip((0, 7, 15), alone, strict=True):
        assert (together[index] - image[0]).abs().max() < 1e-4


@pytest.mark.parametrize("solver", ["heun", "euler-maruyama"])
def test_identical_calls_are_identical_to_the_byte(pipe: Pipeline, states: list[torch.Tensor], solver: str) -> None:
    for _ in range(2):
        pipe(classes=[3, 5], seeds=[0, 1], steps=5, solver=solver)
    assert torch.equal(states[0], states[1])


def test_the_pipeline_is_the_sum_of_its_parts(pipe: Pipeline, states: list[torch.Tensor]) -> None:
    """Noise, guidance and solver put together by hand around the bare network."""
    from hastezoo.sampling import guidance, interpolants, noise, solvers

    settings: dict[str, Any] = {"steps": 6, "solver": "euler-maruyama", "diffusion": "sigma", "last_step": "tweedie"}
    pipe(classes=[2, 8], seeds=[11, 12], cfg=1.7, interval=(0.3, 0.9), **settings)

    def model(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return pipe.network(x.float(), t.float(), labels).double()

    field = guidance.guided(model, torch.tensor([2, 8]), torch.tensor([10]), scale=1.7, interval=(0.3, 0.9))
    source = noise.NoiseSource([11, 12])
    x = solvers.integrate(
        settings.pop("solver"), field, source.initial((2, 1, 8, 8)), interpolant=interpolants.Linear(), noise=source,
        **settings,
    )  # fmt: skip
    assert torch.equal(x, states[0])


def test_classes_and_seeds_are_zipped_and_one_is_broadcast(pipe: Pipeline) -> None:
    assert pipe(classes=["seven", 2], seeds=[4, 5], steps=1).labels == [7, 2]
    one_class = pipe(classes=3, seeds=[4, 5], steps=1)
    assert (one_class.labels, one_class.seeds) == ([3, 3], [4, 5])
    one_seed = pipe(classes=[3, 4], seeds=9, steps=1)
    assert (one_seed.labels, one_seed.seeds) == ([3, 4], [9, 9])
    assert pipe(classes=[3, 4], steps=1).seeds == [0, 1]
    assert len(pipe(steps=1).images) == 1
    assert pipe(classes=np.array([3, 4]), seeds=np.int64(2), steps=1).labels == [3, 4]
    with pytest.raises(UserError, match="3 classes do not pair with 2 seeds"):
        pipe(classes=[1, 2, 3], seeds=[0, 1])


def test_labels_without_classes_come_from_the_seeds(pipe: Pipeline) -> None:
    assert pipe(seeds=range(8), steps=1).labels == [0, 8, 4, 5, 0, 4, 8, 4]


def test_evaluations_and_network_passes_are_reported(pipe: Pipeline) -> None:
    out = pipe(classes=[1, 2], seeds=[0, 1], solver="euler", steps=10, cfg=2.0, interval=(0.45, 0.85))
    # t = 1, 0.9, ..., 0.1: guided at 0.8, 0.7, 0.6 and 0.5
    assert (out.evaluations, out.passes) == (10, 14)
    assert pipe(seeds=[0], solver="euler-maruyama", steps=10, cfg=1.0).passes == 10


def test_images_are_what_the_pixels_say(pipe: Pipeline) -> None:
    out = pipe(classes=0, seeds=[1, 2], steps=3)
    assert out.pixels.shape == (2, 8, 8, 1) and out.pixels.dtype == np.uint8
    assert out.images[1].mode == "L" and np.array_equal(np.asarray(out.images[1]), out.pixels[1, :, :, 0])


def test_guided_digits_are_recognised(pipe: Pipeline) -> None:
    """A twentieth of what benchmarks/digits_quality.py measures."""
    from sklearn.svm import SVC

    from hastezoo.data import digits

    judge = SVC(gamma=0.001).fit(*digits.load("train"))
    classes = [index % 10 for index in range(50)]
    drawn = digits.from_bytes(pipe(classes=classes, seeds=range(5000, 5050)).pixels)
    assert (judge.predict(drawn) == classes).mean() >= 0.97


def test_the_callback_can_cancel(pipe: Pipeline) -> None:
    seen: list[StepInfo] = []

    def stop(info: StepInfo) -> None:
        seen.append(info)
        if info.index == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipe(seeds=[0, 1], callback=stop)
    assert len(seen) == 3 and seen[-1].clean.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_stays_close(dtype: str, pipe: Pipeline) -> None:
    low = Pipeline.from_pretrained("sit-ti-digits", device="cpu", dtype=dtype)
    wanted = pipe(classes=range(4), seeds=range(4)).pixels.astype(float)
    got = low(classes=range(4), seeds=range(4)).pixels.astype(float)
    assert np.abs(got - wanted).mean() < 8, "of 255 grey levels"


def test_the_card_decides_what_is_not_asked_for(pipe: Pipeline) -> None:
    assert pipe(seeds=[0], steps=2).protocol == pipe.protocol("digits", steps=2)
    named = pipe(seeds=[0], protocol="haste", steps=2).protocol
    assert (named.solver, named.cfg, named.interval, named.steps) == ("euler-maruyama", 1.65, (0.0, 0.72), 2)
    whole = pipe(seeds=[0], protocol=named, cfg=1.0).protocol
    assert (whole.solver, whole.cfg) == ("euler-maruyama", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: input should be greater than or equal to 1"),
        ({"stepz": 3}, "unknown key 'stepz'; nearest: steps"),
        ({"interval": (0.9, 0.1)}, r"interval \(0.9, 0.1\)"),
        ({"solver": "eler"}, "solver"),
        ({"classes": 10}, "out of range"),
        ({"seeds": [-1]}, "a seed is a whole number"),
        ({"seeds": [1.5]}, "a seed is a whole number"),
        ({"seeds": ["x"]}, "a seed is a whole number"),
        ({"seeds": []}, "no seeds"),
        ({"batch_size": 0}, "batch size"),
        ({"solver": "euler-maruyama", "diffusion": "sbdm"}, "infinite at t = 1"),
    ],
)
def test_bad_arguments_are_one_line(pipe: Pipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pipe(**arguments)
    assert "\n" not in str(caught.value)


def test_nan_is_not_sold_as_an_image(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "network", lambda x, t, y: x * float("nan"))
    with pytest.raises(UserError, match="returned NaN"):
        pipe(seeds=[0], steps=2)


def test_weights_with_other_classes_are_refused(pipe: Pipeline, tmp_path: Any) -> None:
    from hastezoo.zoo.modelfile import save_model

    tiny = {"input_size": 8, "in_channels": 1, "num_classes": 5, "width": 16, "depth": 1, "heads": 1}
    save_model(tmp_path / "x.safetensors", hastezoo.create_model("sit_ti_2", **tiny), "sit_ti_2")
    with pytest.raises(UserError, match="5 classes, but sit-ti-digits has 10"):
        Pipeline.from_pretrained("sit-ti-digits", weights=tmp_path / "x.safetensors")
    save_model(tmp_path / "y.safetensors", hastezoo.create_model("sit_ti_2", **tiny), "sit_ti_4")
    with pytest.raises(UserError, match="sit_ti_4, but sit-ti-digits is a sit_ti_2"):
        Pipeline.from_pretrained("sit-ti-digits", weights=tmp_path / "y.safetensors")


@pytest.mark.slow
def test_compiled_agrees_with_eager(pipe: Pipeline, states: list[torch.Tensor]) -> None:
    import shutil

    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    compiled = Pipeline.from_pretrained("sit-ti-digits", device="cpu", compile=True)
    compiled.autoencoder = pipe.autoencoder
    for one in (pipe, compiled):
        one(classes=[3, 4], seeds=[0, 1], steps=3)
    assert (states[0] - states[1]).abs().max() < 1e-4


def test_a_failed_compilation_is_one_line(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fail(*_: Any) -> torch.Tensor:
        raise TorchDynamoException("no compiler\nand a long story")

    monkeypatch.setattr(pipe, "network", fail)
    monkeypatch.setattr(pipe, "compiled", True)
    with pytest.raises(UserError, match=r"torch.compile failed \(no compiler\); leave out --compile"):
        pipe(seeds=[0], steps=2)


def test_auto_batch_size_is_bounded_and_repeatable(pipe: Pipeline) -> None:
    assert 1 <= pipe.batch_size("auto") == pipe.batch_size("auto") <= 256
    assert pipe.batch_size(7) == pipe.batch_size("7") == 7


def test_public_names() -> None:
    assert "sit-ti-digits" in hastezoo.list_checkpoints() and "sit_xl_2" in hastezoo.list_architectures()
    assert hastezoo.checkpoint_card("sit-ti-digits").resolution == 8
    model = hastezoo.create_model("sit_s_8", num_classes=3)
    assert model.null_label == 3
    with pytest.raises(AttributeError):
        hastezoo.nothing  # noqa: B018
