"""What a PNG file says of itself: read by hand, equal for equal requests, and read back."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hastezoo import __version__, pictures
from hastezoo.asking import Ask, load, make_request
from hastezoo.cli.main import main
from hastezoo.errors import UserError
from hastezoo.job import Job
from hastezoo.pipeline import Pipeline
from hastezoo.request import Request
from hastezoo.stores import ImageFiles
from tests.text_models import write_text_checkpoint


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return load(Ask(device="cpu"))


def chunks(path: Path) -> list[tuple[str, bytes]]:
    """(type, data) of every chunk; each checksum is checked."""
    data, place, found = path.read_bytes(), 8, []
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + body),)
        found.append((kind.decode(), body))
        place += 12 + length
    return found


def told(path: Path) -> dict[str, Any]:
    """The settings in a file: one tEXt chunk, before the pixels, in ASCII with sorted keys."""
    kinds = [kind for kind, _ in chunks(path)]
    assert kinds.count("tEXt") == 1 and kinds.index("tEXt") < kinds.index("IDAT") and "tIME" not in kinds
    key, _, text = dict(chunks(path))["tEXt"].partition(b"\x00")
    content: dict[str, Any] = json.loads(text.decode("ascii"))
    assert key == b"hastezoo" and text.decode() == json.dumps(content, sort_keys=True)
    return content


def drawn(request: Request, pipeline: Pipeline, folder: Path) -> list[Path]:
    Job(pipeline, request, folder).run()
    return sorted(folder.glob("0*"))


def test_each_file_tells_what_decided_it(pipe: Pipeline, tmp_path: Path) -> None:
    ask = Ask(classes=[7, "two"], seeds=[5, 9], batch_size=3, overrides={"steps": 2, "count": 5}, device="cpu")
    files = drawn(make_request(ask, pipe), pipe, tmp_path / "a")
    sampling = {
        "solver": "heun", "steps": 2, "cfg": 2.0, "interval": [0.0, 1.0], "channels": None, "diffusion": "linear",
        "diffusion_norm": 1.0, "last_step": "mean", "last_step_size": 0.04, "start": 1.0, "rtol": 1e-6, "atol": 1e-6,
        "labels": "random", "rounding": "nearest",
    }  # fmt: skip
    for file, label, seed in zip(files, (7, 7, 2, 2), (5, 9, 5, 9), strict=True):
        assert told(file) == {
            "hastezoo": __version__, "model": "sit-ti-digits-haste", "weights_sha256": pipe.weights_sha256,
            "class": label, "seed": seed, "sampling": sampling, "batch_size": 3, "dtype": "float32",
        }  # fmt: skip
        assert json.loads(pictures.read_text(file)["hastezoo"]) == told(file)


def test_the_command_and_the_layer_below_write_the_same_bytes(pipe: Pipeline, tmp_path: Path) -> None:
    ask = Ask(classes=[3], seeds=[1, 2], batch_size=2, overrides={"steps": 2}, device="cpu")
    ours = drawn(make_request(ask, pipe), pipe, tmp_path / "a")
    line = f"--class three --seeds 1,2 --batch-size 2 --steps 2 --device cpu --out {tmp_path / 'b'}"
    assert CliRunner().invoke(main, ["sample", *line.split()]).exit_code == 0
    theirs = sorted((tmp_path / "b").glob("0*"))
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs] and len(ours) == 2


def test_neither_the_machine_nor_paths_are_told(pipe: Pipeline, tmp_path: Path) -> None:
    request = make_request(Ask(overrides={"steps": 1}), pipe)
    moved = request.model_copy(update={"device": "cuda:7", "weights": "/home/somebody/w.safetensors"})
    (first,), (second,) = drawn(request, pipe, tmp_path / "a"), drawn(moved, pipe, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_models_of_text_tell_their_prompts_and_networks(
    own_home: Path, tiny_clip: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    write_text_checkpoint(own_home, tiny_clip, tiny_vae)
    ask = Ask(
        model="tiny-text", prompts=['a "red" bus', "eine Katze über 一只猫 🐈"], negative="Möbel", vae_tiling=True,
        seeds=[4], overrides={"steps": 1}, device="cpu",
    )  # fmt: skip
    pipeline = load(ask)
    request = make_request(ask, pipeline)
    first, second = map(told, drawn(request, pipeline, tmp_path / "a"))
    assert (first["prompt"], second["prompt"]) == ('a "red" bus', "eine Katze über 一只猫 🐈")
    assert first["negative"] == "Möbel" and first["vae_tiling"] is True and "class" not in first
    assert first["vae_sha256"] == pipeline.autoencoder.sha256 and len(first["vae_sha256"]) == 64
    assert first["text_encoder_sha256"] == request.text_encoder_sha256 and len(first["text_encoder_sha256"]) == 64
    plain = request.model_copy(update={"negative": "", "vae_tiling": False})
    assert first.keys() - told(drawn(plain, pipeline, tmp_path / "b")[0]).keys() == {"negative", "vae_tiling"}


def test_other_files_carry_nothing(pipe: Pipeline, tmp_path: Path) -> None:
    request = make_request(Ask(overrides={"steps": 1}, format="webp"), pipe)
    (webp,) = drawn(request, pipe, tmp_path / "a")
    assert webp.suffix == ".webp" and pictures.read_text(webp) == {}
    store = ImageFiles(tmp_path, ["class0"], [0], "png")  # as an evaluation keeps its images
    store.write(range(1), np.zeros((1, 8, 8, 1), dtype=np.uint8))
    assert [kind for kind, _ in chunks(store.path(0))] == ["IHDR", "IDAT", "IEND"]
    assert pictures.read_text(store.path(0)) == {}
    with pytest.raises(ValueError, match="only PNG"):
        pictures.encode(Image.new("L", (8, 8)), "webp", {"a": "b"})


def test_what_is_no_picture_is_refused(pipe: Pipeline, tmp_path: Path) -> None:
    (file,) = drawn(make_request(Ask(overrides={"steps": 1}), pipe), pipe, tmp_path / "a")
    whole = file.read_bytes()
    for name, content, words in (
        ("empty.png", b"", "is no picture"),
        ("words.png", b"a cat", "is no picture"),
        ("cut.png", whole[:-40], "cannot be read"),
        ("broken.png", whole[:60] + b"\x00" * 8 + whole[68:], "is no picture"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words) as error:
            pictures.read_text(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
    for name in ("nowhere.png", "."):
        with pytest.raises(UserError, match="cannot be read"):
            pictures.read_text(tmp_path / name)
