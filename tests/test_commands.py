"""A request said again draws the same: the line and the script are run, and their images compared."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hastezoo.asking import Ask, load, make_request
from hastezoo.cli.main import main
from hastezoo.commands import as_command, as_python
from hastezoo.conditioning.labels import label_of_seed
from hastezoo.errors import UserError
from hastezoo.job import Job
from hastezoo.pipeline import Pipeline
from hastezoo.request import Request, read_record
from hastezoo.zoo.registry import find_card
from tests.text_models import write_text_checkpoint

DIGITS = "sit-ti-digits-haste"
SDE = {"solver": "euler-maruyama", "steps": 3, "diffusion": "sbdm", "start": 0.97, "last_step": "tweedie"}

# What is asked for, what the line says between the model and --batch-size, and what stands in the script's call.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "from the seeds": ({"seeds": [0, 1, 2, 3]}, "--seed 0 -n 4 --steps 2", "classes=[0, 8, 4, 5], seeds=range(0, 4)"),
    "one class": ({"classes": ["seven"], "seeds": [5]}, "--class 7 --seed 5 -n 1 --steps 2", "classes=7, seeds=[5]"),
    "two classes": (
        {"classes": [7, "two"], "seeds": [5, 6, 7]},
        "--class 7 --class 2 --seed 5 -n 3 --steps 2",
        "classes=[label for label in [7, 2] for _ in range(3)], seeds=list(range(5, 8)) * 2",
    ),
    "a seed for all": ({"classes": [7, 2]}, "--class 7 --class 2 --seed 0 -n 1", "classes=[7, 2], seeds=[0] * 2"),
    "listed seeds": (
        {"classes": [3], "seeds": [9, 0, 1, 2, 3, 7, 6]},
        "--class 3 --seeds 9,0-3,7,6",
        "seeds=[9, 0, 1, 2, 3, 7, 6]",
    ),
    "the largest seed": ({"seeds": [2**63 - 2, 2**63 - 1]}, f"--class 0 --seeds {2**63 - 2}-{2**63 - 1}", "seeds=["),
    "small batches": ({"seeds": range(5), "batch_size": 2}, "--seed 0 -n 5", "batch_size=2"),
    "an SDE": (
        {"classes": [1], "overrides": SDE},
        "--class 1 --seed 0 -n 1 --solver euler-maruyama --steps 3 --diffusion sbdm --last-step tweedie --start 0.97",
        'solver="euler-maruyama", steps=3, diffusion="sbdm", last_step="tweedie", start=0.97',
    ),
    "an interval": (
        {"overrides": {"cfg": 1.1 + 2.2, "interval": (0.1, 0.7), "steps": 3}},
        "--class 0 --seed 0 -n 1 --steps 3 --cfg 3.3000000000000003 --interval 0.1 0.7 --batch-size",
        "interval=(0.1, 0.7)",
    ),
    "another protocol": (
        {"protocol": "sit-ode", "overrides": {"steps": 2, "channels": 1}},
        "--class 0 --seed 0 -n 1 --protocol sit-ode --steps 2 --channels 1 --batch-size",
        'batch_size=4, protocol="sit-ode", steps=2, channels=1)',
    ),
    "another rounding": (
        {"protocol": "haste", "overrides": {"steps": 3}},
        "--class 0 --seed 0 -n 1 --protocol haste --steps 3 --batch-size",
        'batch_size=4, protocol="haste", steps=3)',
    ),
    "bfloat16": ({"dtype": "bfloat16"}, "--class 0 --seed 0 -n 1", "batch_size=1"),
    "webp": ({"format": "webp", "classes": [4], "seeds": [1, 2]}, "--class 4", "seeds=[1, 2]"),
    "npz": ({"format": "npz", "classes": [4, 5], "seeds": [1, 2]}, "--class 4 --class 5", "seeds=[1, 2] * 2"),
}


def asked(case: str) -> Ask:
    given = {"batch_size": 4, "overrides": {"steps": 2}, "device": "cpu", **CASES[case][0]}
    return Ask(**{**given, "batch_size": 1} if case == "bfloat16" else given)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run works in an empty folder, so that a path that is not whole leads nowhere."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture(scope="module")
def pipes() -> dict[str, Pipeline]:
    return {dtype: load(Ask(device="cpu", dtype=dtype)) for dtype in ("float32", "bfloat16")}


def drawn(request: Request, pipeline: Pipeline) -> Path:
    Job(pipeline, request, Path("first").resolve()).run()
    return Path("first")


def run_line(line: str) -> None:
    words = shlex.split(line)
    assert words[:2] == ["hastezoo", "sample"]
    result = CliRunner().invoke(main, words[1:])
    assert result.exit_code == 0, (line, result.output)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "samples.json"}


def check_line(request: Request, line: str) -> None:
    """The line's files are those in `first`, and its record is of the same request, but for `count`."""
    run_line(line)
    assert files(Path("again")) == files(Path("first")) and len(files(Path("first"))) > 1
    again = read_record(Path("again"))
    count = {"protocol": again.protocol.model_copy(update={"count": request.protocol.count})}
    assert again.model_copy(update=count) == request


def check_script(request: Request, script: str) -> None:
    """The images that the script saves, in their order, are those in `first`."""
    assert max(map(len, script.splitlines())) <= 120
    exec(compile(script, "script", "exec"), {})
    saved = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(Path().glob("0*"))]
    if request.format == "npz":
        with np.load("first/samples.npz") as arrays:
            wanted = [np.repeat(one, 3, axis=2) if one.shape[2] == 1 else one for one in arrays["arr_0"]]
    else:
        wanted = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(Path("first").glob("0*"))]
    assert np.array_equal(saved, wanted) and len(saved) == len(request.seeds)


@pytest.mark.parametrize("case", CASES)
def test_the_line_draws_the_same_files(case: str, pipes: dict[str, Pipeline]) -> None:
    request = make_request(asked(case), pipes[asked(case).dtype])
    line = as_command(request, "again", device="cpu")
    drawn(request, pipes[request.dtype])
    assert line.startswith(f"hastezoo sample --model {DIGITS} {CASES[case][1]}"), line
    assert ("--dtype bfloat16" in line) == (case == "bfloat16") and f"--batch-size {request.batch_size}" in line
    check_line(request, line)


@pytest.mark.parametrize("case", CASES)
def test_the_script_draws_the_same_pixels(case: str, pipes: dict[str, Pipeline]) -> None:
    request = make_request(asked(case), pipes[asked(case).dtype])
    drawn(request, pipes[request.dtype])
    script = as_python(request, device="cpu")
    said = re.sub(r"\(\s+", "(", re.sub(r",?\s+\)", ")", re.sub(r",\s+", ", ", script)))
    assert CASES[case][2] in said, script
    check_script(request, script)


def test_as_little_as_possible_is_said(pipes: dict[str, Pipeline]) -> None:
    for name in ("digits", "digits-nocfg", "haste", "repa", "sit-ode", "sit-sde", "coco", "haste-512"):
        request = make_request(Ask(protocol=name, classes=[1], batch_size=8), pipes["float32"])
        named = "" if name == "digits" else f" --protocol {name}"
        assert as_command(request) == f"hastezoo sample --model {DIGITS} --class 1 --seed 0 -n 1{named} --batch-size 8"
    all_channels = make_request(Ask(protocol="sit-ode", overrides={"channels": None}, classes=[1]), pipes["float32"])
    assert "-n 1 --steps 125 --cfg 1.5 --batch" in as_command(all_channels), "no option says that all are guided"
    tied = make_request(Ask(protocol="haste", overrides={"cfg": 1.7, "interval": (0, 0.71)}), pipes["float32"])
    assert "-n 1 --cfg 1.7 --interval 0 0.71 --batch" in as_command(tied.model_copy(update={"model": "sit-xl-repa"}))
    nearest = make_request(Ask(protocol="repa", overrides={"cfg": 1.65}, classes=[1]), pipes["float32"])
    assert "--protocol haste --interval 0 0.7 --batch" in as_command(nearest)


def test_the_number_of_an_evaluation_forces_nothing(pipes: dict[str, Pipeline]) -> None:
    request = make_request(Ask(overrides={"count": 77}, classes=[1], batch_size=1), pipes["float32"])
    assert as_command(request) == f"hastezoo sample --model {DIGITS} --class 1 --seed 0 -n 1 --batch-size 1"
    assert "count" not in as_python(request)


def test_classes_that_the_seeds_would_draw_need_no_name_but_where_all_are_of_one(pipes: dict[str, Pipeline]) -> None:
    label = label_of_seed(5, 10)
    assert label != label_of_seed(6, 10)
    assert "--class" not in as_command(make_request(Ask(seeds=[5, 6]), pipes["float32"]))
    for asked in ([], [label]):
        line = as_command(make_request(Ask(classes=asked, seeds=[5]), pipes["float32"]))
        assert f"--class {label} --seed 5 " in line


def test_what_no_line_says_is_refused(pipes: dict[str, Pipeline]) -> None:
    base = make_request(Ask(classes=[1, 2], seeds=[3, 4], batch_size=2), pipes["float32"])
    settings = base.protocol.model_copy
    for changes, words in (
        ({"labels": [1, 2, 1, 2]}, "not conditions x seeds"),
        ({"labels": [1, 1, 1, 1]}, "not conditions x seeds"),
        ({"seeds": [3, 4, 3, 5]}, "not conditions x seeds"),
        ({"seeds": [3, 3, 3, 3]}, "not conditions x seeds"),
        ({"conditions": 4}, "not conditions x seeds"),
        ({"conditions": 3}, "not conditions x seeds"),
        ({"conditions": 1}, "not conditions x seeds"),
        ({"labels": [1, 2, 3, 4], "seeds": [5] * 4, "conditions": 3}, "not conditions x seeds"),
        ({"labels": [0, 8], "seeds": [0, 1], "conditions": 2}, "not conditions x seeds"),  # those of the seeds
        ({"labels": [0, 0], "seeds": [0, 0], "conditions": 1}, "not conditions x seeds"),
        ({"protocol": settings(update={"rtol": 1e-3})}, "no option of `hastezoo sample` sets rtol"),
        ({"protocol": settings(update={"diffusion_norm": 2.0, "atol": 1.0})}, "sets diffusion_norm, atol"),
        ({"model": "nothing"}, "unknown model"),
        ({"prompts": ["a", "b", "c"]}, "draws classes"),
    ):
        with pytest.raises(UserError, match=words) as error:
            as_command(base.model_copy(update=changes))
        assert "\n" not in str(error.value)
    many = make_request(Ask(classes=[1], seeds=range(0, 60_000, 2)), pipes["float32"])
    with pytest.raises(UserError, match="bytes, more than a shell"):
        as_command(many)


def test_a_script_says_what_no_line_can(pipes: dict[str, Pipeline]) -> None:
    base = make_request(Ask(classes=[1, 2], seeds=[3, 4], batch_size=3, overrides={"steps": 2}), pipes["float32"])
    changes = {
        "labels": [1, 2, 2, 5],
        "seeds": [3, 3, 9, 4],
        "protocol": base.protocol.model_copy(update={"solver": "dopri5", "rtol": 1e-2, "atol": 1e-2}),
    }
    request = base.model_copy(update=changes)
    drawn(request, pipes["float32"])
    script = as_python(request, device="cpu")
    assert "classes=[1, 2, 2, 5]" in script and "rtol=0.01" in script
    check_script(request, script)


def test_a_long_list_is_said_over_several_lines(pipes: dict[str, Pipeline]) -> None:
    request = make_request(Ask(seeds=range(0, 120, 3), overrides={"steps": 1, "solver": "euler"}), pipes["float32"])
    drawn(request, pipes["float32"])
    check_script(request, as_python(request, device="cpu"))
    check_line(request, as_command(request, "again", device="cpu"))


def test_own_weights_are_named(tmp_path: Path) -> None:
    source = find_card("sit-ti-digits").weights_path
    assert source is not None
    own = tmp_path / "my own $HOME 'weights'.safetensors"
    own.write_bytes(source.read_bytes())
    ask = Ask(weights=str(own), overrides={"steps": 2}, seeds=[1, 2], batch_size=2, device="cpu")
    request = make_request(ask, load(ask))
    drawn(request, load(ask))
    check_line(request, as_command(request, "again", device="cpu"))
    check_script(request, as_python(request, device="cpu"))


def test_compiling_is_said(pipes: dict[str, Pipeline]) -> None:
    request = make_request(Ask(compile=True), pipes["float32"])
    assert as_command(request).endswith(" --compile") and "compile=True" in as_python(request)
    assert "device" not in as_command(request) + as_python(request)


def test_a_folder_is_quoted_and_never_an_option(pipes: dict[str, Pipeline]) -> None:
    request = make_request(Ask(batch_size=1), pipes["float32"])
    assert shlex.split(as_command(request, "my folder"))[-2:] == ["--out", "my folder"]
    assert shlex.split(as_command(request, "-x"))[-1:] == ["--out=-x"]


PROMPTS = {
    "two": (["a red bus", "two cats"], ""),
    "negative": (["a cat"], "-a 'dark' \"bus\""),
    "empty": ([""], ""),
    "quotes": (['it\'s "so" `pwd` $HOME \\ ; rm -rf * #', "!!", "{x} %s"], ""),
    "lines": (["a cat\non a\tmat", "  spaces   all over "], ""),
    "unicode": (["eine Katze über Möbeln", "一只猫坐在垫子上 🐈", "قطة على سجادة"], "\u202e犬なし"),
    "dashes": (["--help", "-n", "-", "--"], "--seed"),
    "long": (["a cat on a mat, " * 20, "one more, " * 8], ""),
}


@pytest.fixture
def text_models(own_home: Path, tiny_clip: Path, tiny_vae: Path) -> None:
    write_text_checkpoint(own_home, tiny_clip, tiny_vae)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", PROMPTS)
def test_prompts_are_said_so_that_they_come_out_the_same(case: str, text_models: None) -> None:
    prompts, negative = PROMPTS[case]
    ask = Ask(
        model="tiny-text", prompts=prompts, negative=negative, seeds=[4, 5, 8], batch_size=2, device="cpu",
        overrides={"steps": 2, "cfg": 3.0},
    )  # fmt: skip
    pipeline = load(ask)
    request = make_request(ask, pipeline)
    drawn(request, pipeline)
    line, script = as_command(request, "again", device="cpu"), as_python(request, device="cpu")
    assert "--vae" not in line and "encoder" not in line + script and "vae=" not in script
    check_line(request, line)
    if case != "long":
        check_script(request, script)
        assert read_record(Path("again")).prompts == request.prompts
    else:
        exec(compile(script, "script", "exec"), {})


def test_other_autoencoders_and_encoders_are_named(
    text_models: None, tiny_clip: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    from tests.clip import save_clip
    from tests.vae import save_vae

    vae = save_vae(tmp_path / "vae 2", (8, 8, 8, 8), norm_num_groups=4, sample_size=32)
    clip = save_clip(tmp_path / "clip 2", width=32, seed=9)
    ask = Ask(
        model="tiny-text", prompts=["a cat"], seeds=[1], device="cpu", overrides={"steps": 2}, vae=str(vae),
        vae_tiling=True, text_encoder=str(clip), batch_size=1,
    )  # fmt: skip
    pipeline = load(ask)
    request = make_request(ask, pipeline)
    drawn(request, pipeline)
    line = as_command(request, "again", device="cpu")
    words = shlex.split(line)
    assert words[words.index("--vae") + 1] == str(vae) and words[words.index("--text-encoder") + 1] == str(clip)
    assert "--vae-tiling" in words
    check_line(request, line)
    check_script(request, as_python(request, device="cpu"))


def test_prompts_of_a_record_that_nobody_can_type_are_refused(text_models: None) -> None:
    ask = Ask(model="tiny-text", prompts=["a cat", "a bus"], device="cpu")
    request = make_request(ask, load(ask))
    for changes, words in (
        ({"prompts": ["a  cat", "a bus"]}, "cleaned"),
        ({"negative": "no\n"}, "cleaned"),
        ({"labels": [1, 0]}, "not conditions x seeds"),
        ({"prompts": ["a cat", "a bus", "a dog"]}, "not conditions x seeds"),
        ({"prompts": [], "labels": [0, 1]}, "draws from text"),
    ):
        with pytest.raises(UserError, match=words):
            as_command(request.model_copy(update=changes))
    for changes in ({"prompts": ["a  cat", "a bus"]}, {"prompts": []}):
        with pytest.raises(UserError):
            as_python(request.model_copy(update=changes))


def test_the_line_of_a_written_record_is_that_of_its_request(pipes: dict[str, Pipeline]) -> None:
    request = make_request(asked("two classes"), pipes["float32"])
    drawn(request, pipes["float32"])
    assert as_command(read_record(Path("first"))) == as_command(request)
    assert json.loads(Path("first/samples.json").read_text())["request"]["model"] == DIGITS
