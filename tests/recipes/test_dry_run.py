"""The dry run against closed forms, for every checkpoint of every recipe; needs no data and no weights."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hastezoo.recipes.latents import checkpoints, recipe_config
from hastezoo.training.config import TrainConfig
from hastezoo.zoo.registry import package_cards
from tests.recipes.manifests import write_manifest

RECIPES = {name: recipe for recipe in ("imagenet256", "imagenet512") for name in checkpoints(recipe)}
# Every size but one, every method and both resolutions; a step of the others takes as long to count, and follows from
# the same closed forms.
QUICK = ("sit-s", "sit-b-repa", "sit-b-haste", "sit-xl-haste-512")
PHOTOGRAPHS = 1_281_167  # of ImageNet's training set
H100 = 989.5e12  # FLOP/s in bfloat16, by its data sheet
SIZES = {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)}  # depth, width, heads
TEACHER = "vit_base_patch14_dinov2.lvd142m"
WIDE, HEADS, HEAD = 768, 12, 64  # DINOv2-B


def invoke(name: str, *options: str) -> Result:
    """`--dry-run` of a checkpoint by its recipe, in a world of its own."""
    main = importlib.import_module(f"hastezoo.recipes.{RECIPES[name]}").main
    return CliRunner(env={"WORLD_SIZE": None}).invoke(main, ["--checkpoint", name, "--dry-run", *options])


def planned(name: str, *options: str) -> dict[str, Any]:
    result = invoke(name, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def shown(name: str, *options: str) -> str:
    """The table of a dry run with its columns run together."""
    result = invoke(name, *options)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def refused(name: str, *options: str) -> str:
    """The one line a dry run ends in."""
    result = invoke(name, *options)
    assert result.exit_code == 2 and not result.stdout and result.stderr.count("\n") == 1, result.output
    return result.stderr


class Derived:
    """What a checkpoint's run takes, from the papers' tables: depth, width, heads, tokens, steps."""

    def __init__(self, name: str) -> None:
        self.card, self.config = package_cards()[name], recipe_config(package_cards()[name])
        self.depth, self.width, self.heads = SIZES[name.split("-")[1]]
        self.side = self.card.resolution // 8
        self.tokens = (self.side // 2) ** 2
        self.plain = self.card.method == "plain"
        self.pairs = 0 if self.card.method != "haste" else 3 if self.width == 768 else 4

    @property
    def samples(self) -> int:
        return PHOTOGRAPHS * (2 if self.plain else 1)

    @property
    def linears(self) -> int:
        """Weights of the projector: three linears, 2048 wide."""
        return 0 if self.plain else self.width * 2048 + 2048 * 2048 + 2048 * WIDE

    @property
    def projector(self) -> int:
        return 0 if self.plain else self.linears + 2048 + 2048 + WIDE

    @property
    def teacher(self) -> int:
        """Twelve blocks with layer scales, the last norm, patches of 14, a class token, a table of positions."""
        blocks = 12 * (12 * WIDE**2 + 9 * WIDE + 2 * WIDE + 2 * 2 * WIDE)
        ends = 2 * WIDE + (3 * 14 * 14 + 1) * WIDE + WIDE + (self.tokens + 1) * WIDE
        return 0 if self.plain else blocks + ends

    def step(self) -> int:
        """FLOPs of the student on an image. The backward pass has two products for each of the forward's, but for
        the two linears whose inputs need no gradient; the original SiT puts out twice the channels."""
        tokens, width, put_out = self.tokens, self.width, 8 if self.plain else 4
        first = tokens * 4 * 4 * width + 256 * width
        block = 12 * tokens * width**2 + 2 * tokens**2 * width + 6 * width**2
        forward = first + width**2 + self.depth * block + tokens * width * put_out * 4 + 2 * width**2
        return 2 * (3 * forward - first)

    def lesson(self) -> int:
        """FLOPs of the teacher on an image: forward, with a class token."""
        tokens = self.tokens + 1
        blocks = 12 * (12 * tokens * WIDE**2 + 2 * tokens**2 * WIDE)
        return 0 if self.plain else 2 * (self.tokens * 3 * 14 * 14 * WIDE + blocks)

    def losses(self) -> int:
        """FLOPs of the projector and of attention's loss: rows of two maps, gradients of queries and of keys."""
        rows = self.pairs * HEADS * self.tokens**2 * (3 * (self.width // self.heads) + HEAD)
        return 2 * (3 * self.tokens * self.linears + rows)

    def taught(self) -> int:
        """Steps with alignment."""
        if self.config.alignment is None:
            return 0
        return self.config.alignment.termination.step or self.config.train.steps


@functools.cache
def every_number(name: str) -> dict[str, Any]:
    return planned(name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RECIPES]
)
def test_every_checkpoint_of_every_recipe(name: str) -> None:
    """On a node of eight H100 at a quarter of their peak."""
    found, derived = every_number(name), Derived(name)
    steps, taught = derived.config.train.steps, derived.taught()
    assert found["checkpoint"] == name and found["parameters"] == derived.card.parameters
    assert (found["steps"], found["aligned_steps"]) == (steps, taught)
    assert found["samples"] == derived.samples
    assert found["epochs"] == pytest.approx(steps * 256 / derived.samples)
    parts = (found["processes"], found["accumulation"], found["portion"])
    assert parts == (8, 1, 32) and found["batch_size"] == 8 * 1 * 32
    assert found["projector_parameters"] == derived.projector
    assert found["teacher_parameters"] == derived.teacher and found["teacher"] == ("" if derived.plain else TEACHER)

    teaching, plain = 256 * taught * derived.lesson(), 256 * steps * derived.step()
    total = plain + 256 * taught * derived.losses() + teaching
    assert found["flops_per_image"] == derived.step()
    assert found["flops"] == pytest.approx(total, rel=1e-12)
    assert found["teacher_share"] == pytest.approx(teaching / total, rel=1e-12)
    assert (found["teacher_share"] > 0) == (derived.card.method != "plain")
    assert found["hours"] == pytest.approx(total / (H100 * 0.25 * 8) / 3600, rel=1e-12)
    assert found["gpu_hours"] == pytest.approx(8 * found["hours"], rel=1e-12) and found["cost"] is None

    state = 5 * 4 * derived.card.parameters + 4 * 4 * derived.projector + 2 * derived.teacher
    assert found["state_bytes"] == state
    assert found["memory_bytes"] == state + found["activation_bytes"] + 1.5e9 < found["gpu_bytes"] == 80e9
    assert found["checkpoint_bytes"] == 4 * 4 * derived.card.parameters + 3 * 4 * derived.projector
    assert found["checkpoints"] == 2 + steps // 100_000
    moments = 2 * 4 * derived.side**2 * 2 * (2 if derived.plain else 1)
    assert found["data_bytes"] == PHOTOGRAPHS * (moments + 3 * derived.card.resolution**2)
    assert not found["data_measured"] and found["changes"] == {}


def kept(name: str) -> int:
    return int(every_number(name)["activation_bytes"])


def test_activations_grow_with_the_model_its_tokens_and_the_teacher() -> None:
    """Their bytes are checked against real steps where they are counted; here that the right ones are shown."""
    assert kept("sit-s") < kept("sit-b") < kept("sit-l") < kept("sit-xl-haste-512")
    assert kept("sit-b") < kept("sit-b-repa") < kept("sit-b-haste")
    half = planned("sit-s", "--set", "accumulation=2")
    assert (half["accumulation"], half["portion"], half["batch_size"]) == (2, 16, 256)
    assert 0.45 < half["activation_bytes"] / kept("sit-s") < 0.6
    assert {key for key in half if half[key] != every_number("sit-s")[key]} == {
        "accumulation", "portion", "activation_bytes", "memory_bytes", "communication", "changes"
    }  # fmt: skip
    again = planned("sit-s", "--set", "train.activation_checkpointing=true")
    assert again["activation_bytes"] < kept("sit-s") / 2 and again["flops"] > every_number("sit-s")["flops"]


@pytest.mark.slow
def test_activations_grow_likewise_for_the_others() -> None:
    assert kept("sit-l") < kept("sit-xl") < kept("sit-xl-512")
    for size in ("l", "xl"):
        assert kept(f"sit-{size}") < kept(f"sit-{size}-repa") < kept(f"sit-{size}-haste")


def test_the_table_says_what_the_json_says() -> None:
    found, table = every_number("sit-b-haste"), shown("sit-b-haste")
    for part in (
        "sit-b-haste (sit_b_2, 130,303,504 parameters)",
        f"400,000, the first 100,000 with the teacher {TEACHER}",
        "79.9 of 1,281,167 samples",
        "8 processes x accumulation 1 x 32 samples = 256",
        f"about {found['memory_bytes'] / 1e9:.1f} GB a GPU",
        "fits a h100 of 80 GB",
        f"{found['flops']:.3g}",
        f"share {100 * found['teacher_share']:.1f} %",
        f"{found['hours']:.1f} hours on 8 x h100 at 25 % of the peak ({found['gpu_hours']:.1f} GPU hours)",
        "data at most, raw 272.9 GB",
        f"6 checkpoints of 2.2 GB = {6 * found['checkpoint_bytes'] / 1e9:.1f} GB",
        "nothing was run",
    ):
        assert part in table, part
    assert "at the given price" not in table and "Changed" not in table


@pytest.mark.parametrize("name", ["sit-s", "sit-b-repa", "sit-b-haste"])
def test_what_differs_from_the_paper_is_shown(name: str) -> None:
    """Of each method; that the rows are the right ones is the published settings' test."""
    rows, table = every_number(name)["differences"], shown(name)
    assert {"precision"} < {row["what"] for row in rows}
    place = table.index("Where the recipe differs from the paper:")
    for row in rows:
        assert all(row[key] in table[place:] for key in ("what", "paper", "here", "why"))


def test_changed_settings_are_shown_with_the_recipes(tmp_path: Path) -> None:
    """Of the command line and of a file, with both values; one that is set to the recipe's value is no change."""
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nema_decay = 0.999\n[train.optimizer]\nlr = 3e-4\n")
    options = ["--config", str(file)]
    for setting in ("optimizer.lr=2e-4", "train.clip=1.0", "grid.images=4", "batch_size=256", "data.flip=false"):
        options += ["--set", setting]
    found = planned("sit-s", *options)
    assert found["changes"] == {
        "data.flip": [True, False],
        "grid.images": [16, 4],
        "train.clip": [None, 1.0],
        "train.ema_decay": [0.9999, 0.999],
        "train.optimizer.lr": [1e-4, 2e-4],
    }
    assert found["samples"] == PHOTOGRAPHS and found["epochs"] == pytest.approx(800_000 * 256 / PHOTOGRAPHS)
    table = shown("sit-s", *options)
    changed = table[table.index("Changed from the recipe:") :]
    assert "train.optimizer.lr 0.0001 0.0002" in changed and "train.clip None 1.0" in changed


def test_steps_scale_what_they_should() -> None:
    """A tenth of the steps, all of them with the teacher: HASTE's tau lies beyond."""
    short = planned("sit-b-haste", "--set", "steps=40_000")
    derived = Derived("sit-b-haste")
    each = derived.step() + derived.losses() + derived.lesson()
    assert short["aligned_steps"] == 40_000 and short["flops"] == pytest.approx(256 * 40_000 * each)
    assert short["teacher_share"] == pytest.approx(derived.lesson() / each)


def test_without_alignment_no_teacher_is_counted() -> None:
    found, derived = planned("sit-b-haste", "--set", "alignment=none"), Derived("sit-b-haste")
    assert (found["teacher"], found["teacher_parameters"], found["teacher_share"]) == ("", 0, 0)
    assert found["flops"] == 256 * 400_000 * derived.step()


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"steps": 1000, "checkpoint_every": 5000}, 1),
        ({"steps": 20_000, "checkpoint_every": 5000}, 2),
        ({"steps": 20_000, "checkpoint_every": 5000, "keep": 3, "keep_at": (7, 30_000)}, 4),
        ({"steps": 20_000, "checkpoint_every": 3000, "milestone_every": 10_000, "keep_at": (10_000, 11_000)}, 5),
    ],
    ids=str,
)
def test_checkpoints_that_will_lie_there(settings: dict[str, Any], count: int) -> None:
    """Counted by walking through the run's steps as the loop does; a milestone counts once, and not before its step."""
    config = TrainConfig(**settings)
    milestones = {*config.keep_at, *range(0, config.steps + 1, config.milestone_every or config.steps + 1)}
    passing, stay = 0, 0
    for step in range(1, config.steps + 1):
        stay += step in milestones
        saved = step % config.checkpoint_every == 0 or step == config.steps
        passing = min(config.keep, passing + (saved and step not in milestones))
    assert stay + passing == count
    options = [f"--set={key}={list(value) if isinstance(value, tuple) else value}" for key, value in settings.items()]
    options += [] if config.milestone_every else ["--set=milestone_every=0"]
    assert planned("sit-s", *options)["checkpoints"] == count


def test_memory_marks_what_does_not_fit() -> None:
    """256 images at once on one card of 24 GB; in eight portions they fit."""
    options = ("--gpus", "1", "--gpu", "RTX4090")
    found, table = planned("sit-b", *options), shown("sit-b", *options)
    assert found["memory_bytes"] > found["gpu_bytes"] == 24e9 and found["portion"] == 256
    assert "does NOT fit: raise train.accumulation a rtx4090 of 24 GB" in table
    found, table = (call("sit-b", *options, "--set", "accumulation=8") for call in (planned, shown))
    assert found["memory_bytes"] < found["gpu_bytes"] and "; fits a rtx4090 of 24 GB" in table


def test_where_copies_do_not_fit_shares_may() -> None:
    """Weights and moments that fill a card do so however small the portions are, unless the card is the only one."""
    wide = ("--set", "model.width=2304", "--set", "model.depth=28", "--set", "model.heads=32", "--gpu", "rtx4090")
    assert "does NOT fit: set train.parallel.engine=fsdp" in shown("sit-s", *wide)
    assert "does NOT fit: raise train.accumulation" in shown("sit-s", *wide, "--gpus", "1")
    assert "does NOT fit: raise train.accumulation" in shown("sit-s", *wide, "--set", "parallel.engine=fsdp")
    most = shown("sit-s", *wide, "--gpus", "1", "--set", "accumulation=256")
    assert "does NOT fit: set train.activation_checkpointing=true" in most


def test_hours_and_price_are_of_the_machine() -> None:
    """The work is the same; 16 A100 at a quarter of their 312 TFLOP/s, or one V100 in float32."""
    usual = every_number("sit-s")
    options = ("--gpu", "a100", "--gpus", "16", "--utilisation", "0.25", "--price", "1.5")
    found = planned("sit-s", *options)
    assert (found["flops"], found["processes"], found["portion"]) == (usual["flops"], 16, 16)
    assert found["hours"] == pytest.approx(usual["flops"] / (312e12 * 0.25 * 16) / 3600)
    assert found["gpu_hours"] == pytest.approx(16 * found["hours"])
    assert found["cost"] == pytest.approx(1.5 * found["gpu_hours"])
    assert f"cost {found['cost']:,.0f} at the given price" in shown("sit-s", *options)
    single = planned("sit-s", "--gpu", "v100", "--set", "precision=fp32")
    assert single["hours"] == pytest.approx(usual["flops"] / (15.7e12 * 0.25 * 8) / 3600)


def test_processes_are_torchruns_unless_said() -> None:
    main = importlib.import_module("hastezoo.recipes.imagenet256").main
    words = ["--checkpoint", "sit-s", "--dry-run", "--json"]
    for options, count in (([], 16), (["--gpus", "32"], 32)):
        result = CliRunner(env={"WORLD_SIZE": "16"}).invoke(main, [*words, *options])
        assert json.loads(result.stdout)["processes"] == count


def test_data_has_numbers_of_its_own(tmp_path: Path) -> None:
    """Samples, twice with flips, and bytes of its files; a path is no change of the settings."""
    for flip in (True, False):
        data = write_manifest(tmp_path / str(flip), samples=3000, flip=flip)
        name = "sit-s" if flip else "sit-b-haste"
        found, steps = planned(name, "--data", str(data)), 800_000 if flip else 400_000
        assert found["samples"] == (6000 if flip else 3000) and found["data_measured"]
        assert found["epochs"] == pytest.approx(steps * 256 / found["samples"])
        assert found["data_bytes"] == 12 * 10**9 and found["changes"] == {}
        assert found["flops"] == every_number(name)["flops"]
    table = shown("sit-b-haste", "--data", str(data))
    assert "data 12.0 GB" in table and "34,133.3 of 3,000 samples" in table


def test_data_for_a_model_that_is_not_square_is_counted() -> None:
    """Where there is no data yet, and the user's images will be 256 x 512."""
    found = planned("sit-s", "--set", "model.input_size=[32, 64]")
    assert found["data_bytes"] == PHOTOGRAPHS * (2 * 2 * 4 * 32 * 64 * 2 + 3 * 256 * 512)


FSDP = ("--set", "parallel.engine=fsdp")


def test_memory_of_a_gpu_falls_with_shards() -> None:
    """All but the teacher is spread; blocks that are gathered in bfloat16 need no copies of their weights in it."""
    usual, derived = every_number("sit-b-haste"), Derived("sit-b-haste")
    weights = 12 * 18 * WIDE**2  # of twelve blocks' products
    block, rest = weights // 12 + 15 * WIDE, derived.card.parameters - weights - 12 * 15 * WIDE + derived.projector
    for options, shards in ((FSDP, 32), ((*FSDP, "--set", "parallel.shards=4"), 4)):
        found = planned("sit-b-haste", "--gpus", "32", *options)
        spread = (20 * derived.card.parameters + 16 * derived.projector) / shards
        assert found["state_bytes"] == pytest.approx(spread + 2 * derived.teacher, abs=1)
        assert found["transit_bytes"] == block * (3 * 2 + 4) + 8 * rest
        copying = planned("sit-b-haste", "--gpus", "32")
        assert found["activation_bytes"] == copying["activation_bytes"] - 2 * weights
        parts = ("state_bytes", "activation_bytes", "transit_bytes")
        assert found["memory_bytes"] == sum(found[part] for part in parts) + 1.5e9 < copying["memory_bytes"]
        assert found["checkpoint_share_bytes"] == -(-usual["checkpoint_bytes"] // 32)
        assert {"state_bytes", "communication", "changes"} <= {key for key in found if found[key] != copying[key]}
        assert (found["hours"], found["flops"]) == (copying["hours"], usual["flops"])
    assert usual["transit_bytes"] == 0 and usual["checkpoint_share_bytes"] == usual["checkpoint_bytes"]
    alone = planned("sit-b-haste", "--gpus", "1", *FSDP, "--set", "accumulation=8")
    assert alone["state_bytes"] == usual["state_bytes"] and alone["transit_bytes"] == 0
    table = shown("sit-b-haste", "--gpus", "32", *FSDP)
    assert "what fsdp gathers 0.2, framework 1.5" in table and "GB of one by each process" in table
    assert "gathers" not in shown("sit-b-haste") and "each process" not in shown("sit-b-haste")


def seconds_of_copies(parameters: int, count: int, rate: float, latency: float) -> float:
    """A ring's all-reduce of float32 gradients in buckets of 25 MiB, and a small one."""
    buckets = -(-4 * parameters // (25 * 2**20)) + 1
    return 2 * (count - 1) / count * 4 * parameters / rate + buckets * 2 * (count - 1) * latency


def test_what_communication_adds() -> None:
    """With alignment the projector's gradients are sent too. What the computing hides is not added at the least."""
    derived = Derived("sit-b-haste")
    own, taught = derived.card.parameters, derived.card.parameters + derived.projector
    each = [derived.step() + derived.losses() + derived.lesson(), derived.step()]
    for count, options, rate, latency in (
        (8, (), 450e9, 3e-6),
        (8, ("--link", "pcie4-x16"), 31.5e9, 5e-6),
        (8, ("--gpus-per-node", "4"), 400e9, 5e-6),
        (64, (), 400e9, 5e-6),
        (16, ("--between", "2xethernet-25g"), 6.25e9, 30e-6),
    ):
        found = planned("sit-b-haste", "--gpus", str(count), *options)["communication"]
        waits = [seconds_of_copies(size, count, rate, latency) for size in (taught, own)]
        compute = [256 * flops / count / (H100 * 0.25) for flops in each]
        most = (100_000 * waits[0] + 300_000 * waits[1]) / 3600
        late = [max(0.0, wait - busy) for wait, busy in zip(waits, compute, strict=True)]
        least = (100_000 * late[0] + 300_000 * late[1]) / 3600
        assert found["most_hours"] == pytest.approx(most) and found["least_hours"] == pytest.approx(least, abs=1e-9)
        assert (least > 0) == (count > 8 or "pcie4-x16" in options)
        assert found["sent_bytes"] == pytest.approx(2 * (count - 1) / count * 4 * own)


def test_from_where_communication_dominates() -> None:
    """The smallest power of two at which copies' gradients take longer than the backward pass."""
    derived = Derived("sit-b-haste")
    for options, slowest, late in (
        (("--between", "8xinfiniband-ndr"), 400e9, 5e-6),
        (("--between", "ethernet-400g"), 50e9, 30e-6),
    ):
        for count in (2**power for power in range(1, 9)):
            rate, latency = (450e9, 3e-6) if count <= 8 else (min(450e9, slowest), late)
            backward = 256 / count * derived.step() * 2 / 3 / (H100 * 0.25)
            if seconds_of_copies(derived.card.parameters, count, rate, latency) > backward:
                break
        found = planned("sit-b-haste", *options)["communication"]
        assert found["dominates_from"] == count and found["most_gpus"] == 256
        assert f"with ddp it outlasts the backward pass from {count} GPUs on" in shown("sit-b-haste", *options)


def test_communication_in_words() -> None:
    found, table = every_number("sit-b-haste")["communication"], shown("sit-b-haste")
    added = f"adds {found['least_hours']:.1f} to {found['most_hours']:.1f} hours: a GPU sends "
    assert f"{added}{found['sent_bytes'] / 1e9:.2f} GB a step, in a node over nvlink-h100; with ddp it" in table
    table = shown("sit-b-haste", "--gpus", "64", "--between", "4xroce-200g", *FSDP, "--set", "parallel.shards=8")
    assert "over nvlink-h100; 8 nodes by 4 x roce-200g; with fsdp in groups of 8 it outlasts" in table
    assert "over pcie4-x16; with fsdp it outlasts" in shown("sit-b-haste", "--gpu", "l40s", *FSDP)
    alone = ("--gpus", "1", "--set", "accumulation=32", "--utilisation", "0.001")
    assert "none with one GPU; with ddp the backward pass hides it, up to 8 GPUs" in shown("sit-b-haste", *alone)
    assert planned("sit-b-haste", *alone)["communication"]["sent_bytes"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gpu h10", "unknown GPU 'h10'; near it: h100"),
        ("--link nvlink-h10", "unknown link 'nvlink-h10'; near it: nvlink-h100"),
        ("--between 8xinfinband-ndr", "unknown link 'infinband-ndr'; near it: infiniband-ndr"),
        ("--link ethernet-25g", "ethernet-25g joins nodes; within a node take nvlink-"),
        (
            "--gpus 4 --set parallel.engine=fsdp --set parallel.shards=8",
            "4 processes do not divide into groups of parallel.shards = 8",
        ),
        ("--gpus 6", "batch_size 256 does not divide over 6 processes: 256 / 6 = 42.6667"),
        (
            "--gpus 16 --set accumulation=3",
            "256 does not divide over 16 processes x accumulation 3: 256 / 48 = 5.33333; with 16 processes "
            "accumulation can be 1, 2, 4, 8",
        ),
        ("--utilisation 1.5", "utilisation is a share of the peak above 0 and up to 1, not 1.5"),
        ("--data nowhere", "there is no folder nowhere"),
        ("--set model.widht=8", "sit_s_2 has no setting 'widht'; nearest: width"),
        ("--set architecture=sit_xxl_2", "unknown architecture 'sit_xxl_2'"),
    ],
)
def test_what_cannot_be_planned_is_one_line(options: str, message: str) -> None:
    assert message in refused("sit-s", *options.split())


def test_a_price_below_nothing_is_refused() -> None:
    result = invoke("sit-s", "--price", "-1")
    assert result.exit_code == 2 and "-1" in result.stderr


def test_data_that_training_would_refuse_is_refused(tmp_path: Path) -> None:
    """Or the numbers would be those of a run that cannot be."""
    data = str(write_manifest(tmp_path / "large", side=64, classes=7))
    assert "--set model.input_size=64 --set model.num_classes=7" in refused("sit-b-haste", "--data", data)
    data = str(write_manifest(tmp_path / "few", samples=100))
    assert "100 samples, fewer than a batch of 256" in refused("sit-b-haste", "--data", data)
    data = str(write_manifest(tmp_path / "one way"))
    assert "no moments of mirrored images" in refused("sit-s", "--data", data)
    assert planned("sit-s", "--data", data, "--set", "data.flip=false")["samples"] == 3000
