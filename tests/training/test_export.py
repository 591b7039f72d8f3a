"""From a run's folder to a card: weights, numbers, names, and nothing half-done."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.conditioning.labels import class_names
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.models.registry import create_model
from hastezoo.training import onefile
from hastezoo.training.export import export_run
from hastezoo.training.record import RunRecord
from hastezoo.zoo.card import Autoencoder, Result
from hastezoo.zoo.modelfile import load_model, save_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.verify import verify

TINY = {"input_size": 8, "in_channels": 1, "num_classes": 10, "depth": 1, "width": 16, "heads": 1}
RECORD = RunRecord(
    recipe="digits", checkpoint="sit-ti-digits", command="python -m hastezoo.recipes.digits --set 'a=\"b\"'",
    device="a machine", processes=2, data="digits", samples=1437, class_list="digits", resolution=8,
)  # fmt: skip
# Resumed twice: the clock starts over after 20 and after 30.
METRICS: list[dict[str, Any]] = [
    {"step": 10, "loss": 2.0, "denoising": 1.5, "feature": -0.2, "attention": 1.2, "grad_norm": 1.0, "seconds": 4.0},
    {"step": 20, "loss": 1.75, "denoising": 1.25, "attention": 1.0, "grad_norm": 1.0, "seconds": 6.5},
    {"step": 30, "loss": 0.75, "denoising": 0.75, "grad_norm": 1.0, "seconds": 2.25},
    {"step": 40, "loss": 0.5, "denoising": 0.5, "grad_norm": 1.0, "seconds": 1.0},
]
TERMINATION = {"kind": "step", "step": 25, "start": 10, "threshold": -0.05}
HASTE = {"feature_weight": 0.5, "attention_weight": 0.5, "feature_layer": 1, "termination": TERMINATION}


def network(seed: int, **changed: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = create_model("sit_ti_2", **{**TINY, **changed})
    for parameter in model.parameters():  # a new SiT has zeros where it puts out
        torch.nn.init.normal_(parameter)
    return model


def save(run: Path, step: int, **changed: Any) -> None:
    """A checkpoint whose average and raw weights are drawn from the step."""
    state = {"model": network(step).state_dict(), "ema": network(step + 1).state_dict(), "optimizer": {}, **changed}
    onefile.write(onefile.path_of(run / "checkpoints", step), {"step": step, **state})


def write_run(
    run: Path,
    *,
    record: RunRecord | None = RECORD,
    alignment: dict[str, Any] | None = HASTE,
    metrics: list[dict[str, Any]] = METRICS,
    steps: int = 40,
) -> Path:
    """A run with checkpoints of the steps 20 and 40."""
    run.mkdir(parents=True)
    train = {"steps": steps, "log_every": 10, "batch_size": 64}
    config = {"architecture": "sit_ti_2", "model": TINY, "train": train, "alignment": alignment}
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (run / "alignment.jsonl").write_text('{"step": 25, "ended": true}\n')
    if record is not None:
        record.write(run)
    for step in (20, 40):
        save(run, step)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def same(path: Path, model: torch.nn.Module) -> bool:
    found, wanted = load_model(path)[0].state_dict(), model.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_average_of_the_newest_checkpoint_is_a_checkpoint_of_the_zoo(run: Path, own_home: Path) -> None:
    before = files(run)
    made = export_run(run, "mine")
    assert files(run) == before
    assert sorted(files(own_home)) == ["cards/mine.safetensors", "cards/mine.toml"]
    assert made.weights == own_home / "cards" / "mine.safetensors" and same(made.weights, network(41))
    assert load_model(made.weights)[1]["step"] == "40" and load_model(made.weights)[1]["weights"] == '"ema"'
    card = find_card("mine")
    assert card == made.card and card.weights is not None and card.weights_path == made.weights
    assert (card.weights.sha256, card.weights.bytes) == (sha256_of(made.weights), made.weights.stat().st_size)
    assert [check.what for check in verify(card) if not check.good] == []


def test_the_card_has_the_runs_numbers(run: Path) -> None:
    card = export_run(run, "mine").card
    base = find_card("sit-ti-digits")
    assert (card.architecture, card.steps, card.recipe, card.resolution) == ("sit_ti_2", 40, "digits", 8)
    assert card.config == {
        **TINY, "patch_size": 2, "mlp_ratio": 4.0, "qk_norm": False, "learn_sigma": False, "reversed_time": False,
    }  # fmt: skip
    assert card.parameters == sum(parameter.numel() for parameter in network(0).parameters())
    assert (card.classes, card.protocol, card.papers) == ("digits", base.protocol, base.papers)
    assert card.title == "sit_ti_2 with HASTE, 8 px" and card.data == "digits (1,437 samples)"
    assert (card.status, card.licence, card.redistribution) == ("embedded", "of whoever trained it", "allowed")
    assert card.description == (
        "The moving average (EMA) of a run of hastezoo.recipes.digits after 40 steps; alignment ended after step 25."
    )
    training = card.training
    assert training is not None and (training.batch_size, training.seconds) == (64, 6.5 + 2.25 + 1.0)
    assert (training.device, training.command) == ("a machine, 2 processes", RECORD.command)
    note = "of training: mean over the last 10 steps at most, at step 40"
    assert card.results == [
        Result(
            metric="denoising loss", value=0.5, kind="measured", source="metrics.jsonl of the run", note=note
        )  # the sum is the same by then, and left out
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_in_another_dtype(dtype: str, run: Path) -> None:
    """Rounded once, and drawn from as any other; the run keeps its own."""
    made = export_run(run, "mine", dtype=dtype)
    found, kind = load_model(made.weights)[0].state_dict(), getattr(torch, dtype)
    wanted = network(41).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name].to(kind)) for name in wanted)
    assert all(value.dtype == kind for value in found.values())
    whole = export_run(run, "whole").card
    assert made.card.weights is not None and whole.weights is not None
    assert (made.card.weights.bytes < 0.6 * whole.weights.bytes) == (dtype != "float32")


def test_an_unknown_dtype_is_refused_and_nothing_is_written(run: Path, own_home: Path) -> None:
    with pytest.raises(UserError, match="unknown dtype 'int8': one of float32, bfloat16, float16"):
        export_run(run, "mine", dtype="int8")
    save(run, 50, ema={name: value * 1e6 for name, value in network(41).state_dict().items()})
    with pytest.raises(UserError, match="step 50 are not finite"):
        export_run(run, "mine", dtype="float16")
    assert files(own_home) == {}


def test_a_kept_step_and_the_raw_weights(run: Path) -> None:
    made = export_run(run, "mine", step=20, weights="model", title='Mine, "at" 20', licence="MIT")
    assert same(made.weights, network(20)) and load_model(made.weights)[1]["weights"] == '"model"'
    card = made.card
    assert (card.title, card.licence, card.steps) == ('Mine, "at" 20', "MIT", 20)
    assert card.training is not None and card.training.seconds == 6.5
    assert [(result.metric, result.value) for result in card.results] == [
        ("denoising loss", 1.25),
        ("total loss", 1.75),
    ]
    assert card.description == (
        "The raw weights, not their average, of a run of hastezoo.recipes.digits after 20 steps, "
        "taken at step 20 of 40."
    )
    with pytest.raises(UserError, match=r"no checkpoint of step 30 is kept in .*; kept: 20, 40$"):
        export_run(run, "other", step=30)


@pytest.mark.parametrize(
    ("alignment", "method", "title"),
    [
        (None, "plain", "sit_ti_2, 8 px"),
        ({**HASTE, "attention_weight": 0.0}, "repa", "sit_ti_2 with REPA, 8 px"),
        (HASTE, "haste", "sit_ti_2 with HASTE, 8 px"),
    ],
)
def test_the_method_is_the_alignments(tmp_path: Path, alignment: Any, method: str, title: str) -> None:
    card = export_run(write_run(tmp_path / "run", alignment=alignment), "mine").card
    assert (card.method, card.title) == (method, title)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    card = export_run(write_run(tmp_path / "run", steps=1000, metrics=[]), "mine").card
    assert "after 40 steps, stopped at step 40 of 1,000" in card.description
    assert card.results == [] and card.training is not None and card.training.seconds is None


def test_latents_and_classes_are_the_records(tmp_path: Path) -> None:
    latents = Autoencoder(kind="kl", repo="someone/vae", scale=0.5, bias=0.25, downsampling=8)
    record = RECORD.model_copy(update={"autoencoder": latents, "resolution": 64, "recipe": "hastezoo.recipes.own"})
    card = export_run(write_run(tmp_path / "run", record=record), "mine").card
    assert (card.autoencoder, card.resolution, card.recipe) == (latents, 64, "own")


def test_a_newest_checkpoint_that_cannot_be_read_is_passed_over(run: Path) -> None:
    (run / "checkpoints" / "step-00000050.pt").write_bytes(b"PK cut")
    writing = run / "checkpoints" / ".step-00000060.pt.1.partial"  # by the run, which goes on
    writing.write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"step-00000050.pt cannot be read .*; trying the one before"):
        made = export_run(run, "mine")
    assert same(made.weights, network(41)) and made.card.steps == 40 and writing.exists()
    with pytest.raises(UserError, match=r"step-00000050.pt cannot be read"):
        export_run(run, "other", step=50)
    for step in (20, 40):
        (run / "checkpoints" / f"step-{step:08d}.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"step-00000020.pt cannot be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_run(run, "other")


def evaluate(run: Path, name: str, metrics: dict[str, Any], **settings: Any) -> None:
    (run / "evaluations").mkdir(exist_ok=True)
    (run / "evaluations" / f"{name}.json").write_text(json.dumps({"metrics": metrics, "settings": settings}))


def test_evaluations_become_results_fid_first(run: Path) -> None:
    values = {
        "kid": {"value": 0.002, "error": 0.0005},
        "IS": {"value": 250.5, "error": None},
        "fid": {"value": 3.1, "error": None},
        "precision": {"value": None, "error": None},
        "recall": None,
        "sfid": {"value": float("nan")},
    }
    evaluate(run, "b", values, protocol="haste", count=50_000)
    evaluate(run, "c", {"fid": {"value": 9.0}, "other": {"value": 1.0}}, step=40)
    evaluate(run, "a", {"fid": {"value": 7.0}}, step=20)
    with pytest.warns(UserWarning, match=r"a.json is not of the weights that are exported"):
        card = export_run(run, "mine").card
    rows = [(one.metric, one.value, one.protocol, one.count, one.note) for one in card.results[:-1]]
    assert rows == [
        ("FID", 3.1, "haste", 50_000, ""),
        ("FID", 9.0, "", None, ""),
        ("IS", 250.5, "haste", 50_000, ""),
        ("KID", 0.002, "haste", 50_000, "error 0.0005"),
        ("other", 1.0, "", None, ""),
    ]
    assert card.results[0].source == "evaluations/b.json of the run" and card.results[-1].metric == "denoising loss"
    assert card.best("measured") == card.results[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        earlier = export_run(run, "earlier", step=20).card
        raw = export_run(run, "raw", weights="model").card
    assert [one.value for one in earlier.results if one.metric == "FID"] == [7.0]
    assert [one.metric for one in raw.results] == ["denoising loss"]


def test_a_broken_evaluation_is_one_line(run: Path, own_home: Path) -> None:
    evaluate(run, "a", {"fid": {"value": "good"}})
    with pytest.raises(UserError, match=r"a.json: metrics.fid.value: .*\(given: 'good'\)$"):
        export_run(run, "mine")
    assert files(own_home) == {}


def test_weights_that_are_not_finite_are_refused(run: Path, own_home: Path) -> None:
    broken = network(1)
    next(broken.parameters()).data.view(-1)[3] = float("nan")
    save(run, 50, ema=broken.state_dict())
    with pytest.raises(UserError, match="the weights of step 50 are not finite: NaN or infinity in "):
        export_run(run, "mine")
    assert files(own_home) == {}
    export_run(run, "mine", weights="model")


def test_a_checkpoint_of_another_model_is_refused(run: Path) -> None:
    save(run, 50, ema=network(1, depth=2).state_dict())
    with pytest.raises(UserError, match=r"step 50 does not fit .*config.json") as caught:
        export_run(run, "mine")
    assert "\n" not in str(caught.value)


def own_classes(tmp_path: Path, *names: str) -> Path:
    record = RECORD.model_copy(update={"class_list": "", "classes": names})
    return write_run(tmp_path / "own", record=record)


def test_classes_of_the_users_own(tmp_path: Path, own_home: Path) -> None:
    names = [f'Käse "{label}"' for label in range(10)]
    card = export_run(own_classes(tmp_path, *names), "mine").card
    assert card.classes == "mine" and list(class_names("mine")) == names
    assert json.loads((own_home / "classes" / "mine.json").read_text(encoding="utf-8")) == names


@pytest.mark.parametrize("names", [(), ("cat", "dog")])
def test_the_classes_must_be_as_many_as_the_models(tmp_path: Path, own_home: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=rf"run.json names {len(names)} classes, but the model has 10"):
        export_run(own_classes(tmp_path, *names), "mine")
    assert files(own_home) == {}


def test_a_list_of_classes_that_is_there_is_not_replaced_unasked(tmp_path: Path, own_home: Path) -> None:
    run = own_classes(tmp_path, *"abcdefghij")
    (own_home / "classes").mkdir(parents=True)
    (own_home / "classes" / "mine.json").write_text('["theirs"]')
    with pytest.raises(UserError, match=r"taken: there is .*classes/mine.json"):
        export_run(run, "mine")
    assert list(class_names("mine")) == ["theirs"]
    export_run(run, "mine", force=True)
    assert list(class_names("mine")) == list("abcdefghij")
    with pytest.raises(UserError, match="'digits' is that of a list of classes of the package"):
        export_run(run, "digits", force=True)


def test_a_name_that_is_taken(run: Path, own_home: Path) -> None:
    for force in (False, True):
        with pytest.raises(UserError, match="'sit-ti-digits' is that of a checkpoint of the package"):
            export_run(run, "sit-ti-digits", force=force)
    export_run(run, "mine", step=20)
    before = files(own_home)
    with pytest.raises(UserError, match=r"'mine' is taken: there is .*mine.toml; choose another, or --force"):
        export_run(run, "mine")
    assert files(own_home) == before
    made = export_run(run, "mine", force=True)
    assert find_card("mine").steps == 40 and same(made.weights, network(41))
    made.path.rename(made.path.with_name("another.toml"))
    for force in (False, True):
        with pytest.raises(UserError, match="taken by a card in another file"):
            export_run(run, "mine", force=force)


@pytest.mark.parametrize("name", ["Mine", "../mine", "", "mine two", "-mine", "mine.pt", "mine.safetensors", "mine\n"])
def test_what_is_no_name(run: Path, own_home: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"is no name of a checkpoint|would be taken for a file"):
        export_run(run, name)
    assert files(own_home) == {}


def failing(*arguments: Any, **named: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", ["hastezoo.zoo.modelfile.save_model", "hastezoo.training.export.read_card"])
def test_a_failure_on_the_way_leaves_everything_as_it_was(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    run = own_classes(tmp_path, *"abcdefghij")
    for force in (False, True):
        before = files(own_home)
        with monkeypatch.context() as patched:
            patched.setattr(broken, failing)
            with pytest.raises(OSError, match="No space"):
                export_run(run, "mine", force=force)
        assert files(own_home) == before and not list(own_home.glob("cards/.*"))
        export_run(run, "mine", step=20, force=force)


def test_weights_do_not_stay_without_their_card(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card cannot take its name, after classes and weights have theirs."""
    replace, seen = Path.replace, []

    def replacing(path: Path, to: Path) -> Path:
        seen.append(Path(to).name)
        return failing() if to == own_home / "cards" / "mine.toml" else replace(path, to)  # type: ignore[return-value]

    monkeypatch.setattr(Path, "replace", replacing)
    with pytest.raises(OSError, match="No space"):
        export_run(own_classes(tmp_path, *"abcdefghij"), "mine")
    assert seen[-3:] == ["mine.json", "mine.safetensors", "mine.toml"]
    assert files(own_home) == {} and not list(own_home.glob("cards/.*"))


def test_no_card_stands_beside_weights_of_another_run(
    run: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a kill falls between the two renames of a replacement."""
    export_run(run, "mine", step=20)
    weights, card, replace = own_home / "cards" / "mine.safetensors", own_home / "cards" / "mine.toml", Path.replace
    seen = []

    def replacing(path: Path, to: Path) -> Path:
        if to == weights:
            seen.append(card.exists())
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", replacing)
    export_run(run, "mine", force=True)
    assert seen == [False] and card.exists()


def test_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; name the one"):
        export_run(tmp_path / "nowhere", "mine")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        export_run(run, "mine")
    (run / "config.json").unlink()
    with pytest.raises(UserError, match=r"is no run of a recipe: it has no config.json"):
        export_run(run, "mine")
    (run / "run.json").unlink()
    with pytest.raises(UserError, match=r"no run of a recipe: it has no run.json"):
        export_run(run, "mine")


@pytest.mark.parametrize(
    ("data", "samples", "told"),
    [("cats", 1437, "cats (1,437 samples)"), ("1,437 cats", 1437, "1,437 cats"), ("cats", 0, "cats")],
)
def test_the_card_says_once_how_many_samples(tmp_path: Path, data: str, samples: int, told: str) -> None:
    record = RECORD.model_copy(update={"data": data, "samples": samples})
    assert export_run(write_run(tmp_path / "run", record=record), "mine").card.data == told


def test_a_record_of_a_card_that_is_not_known(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", record=RECORD.model_copy(update={"checkpoint": "sit-ti-digts"}))
    with pytest.raises(UserError, match=r"run.json: unknown model 'sit-ti-digts'; nearest: sit-ti-digits"):
        export_run(run, "mine")


def test_a_card_with_awkward_words_is_read_back(tmp_path: Path) -> None:
    words = 'a "b" \\ c\nd \x7f é 😀 = [x]'
    record = RECORD.model_copy(update={"command": words, "data": words, "samples": 0})
    card = export_run(write_run(tmp_path / "run", record=record), "mine", title=words, licence=words).card
    assert card.training is not None
    assert (card.title, card.licence, card.data, card.training.command) == (words,) * 4


def test_the_file_is_the_one_that_a_recipe_writes_at_the_end(run: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "theirs.safetensors", network(41), "sit_ti_2", weights="ema", step=40)
    assert export_run(run, "mine").weights.read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
