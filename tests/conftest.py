"""Fixtures shared by all tests."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_hub import LocalHub

if TYPE_CHECKING:
    from torch import Tensor

    from hastezoo.pipeline import Pipeline

ROOT = Path(__file__).resolve().parent.parent
# Outputs of the reference implementations lie beside the checkout; tests that use them skip where they are absent.
GOLDEN = Path(os.environ.get("HASTEZOO_GOLDEN", ROOT.parent / "shared" / "golden"))
# So do the published figures, as a table.
FACTS = Path(os.environ.get("HASTEZOO_FACTS", ROOT.parent / "shared" / "facts"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def golden() -> Any:
    """Loads a golden file: `golden("samplers")`."""
    from safetensors.torch import load_file

    def load(name: str) -> dict[str, Any]:
        path = GOLDEN / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"no {path}")
        return load_file(str(path))

    return load


@pytest.fixture
def reported() -> list[dict[str, str]]:
    """The rows of the table of published figures."""
    path = FACTS / "reported_results.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a store of its own, so that the user's cards do not reach it."""
    home = tmp_path / "home"
    monkeypatch.setenv("HASTEZOO_HOME", str(home))
    return home


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub on this machine that the real client talks to, with a cache of its own and no token."""
    from huggingface_hub import constants

    with LocalHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def states(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The float states that `pipe`, a fixture of the test's own file, turns into bytes."""
    seen: list[Tensor] = []
    decode = pipe.autoencoder.decode
    monkeypatch.setattr(pipe.autoencoder, "decode", lambda x: seen.append(x) or decode(x))
    return seen


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a randomly initialised AutoencoderKL of the SD VAE's structure, 1/8 and 4 channels, but narrow."""
    from tests.vae import save_vae

    return save_vae(tmp_path_factory.mktemp("vae"), (8, 8, 8, 8), norm_num_groups=4, sample_size=32)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a randomly initialised CLIP text encoder of two layers, 32 wide, and its tokenizer."""
    from tests.clip import save_clip

    return save_clip(tmp_path_factory.mktemp("clip"), width=32)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 small images in a folder a class."""
    from tests.recipes.small import write_images

    return write_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small ViT with random weights."""
    from tests.recipes.small import write_teacher

    return write_teacher(tmp_path_factory.mktemp("vit") / "teacher")


@pytest.fixture(scope="session")
def prepared(pictures: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small images as a data set of 64 px, with latents of the small autoencoder."""
    from hastezoo.data.prepare import prepare
    from hastezoo.data.preparing import PrepareSettings
    from hastezoo.data.source import open_source

    dest = tmp_path_factory.mktemp("data") / "prepared"
    settings = PrepareSettings(name="folder", resolution=64, vae=str(tiny_vae), shard_size=100)
    prepare(open_source(str(pictures), shard_size=100), dest, settings)
    return dest


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve images with made-up captions in COCO's format: their folder, and the file of annotations."""
    from tests.data.coco_making import write_coco

    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="session")
def captioned(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Those images as a data set of 64 px, with latents and states of the small networks."""
    from tests.data.coco_making import make_coco, one_thread

    dest = tmp_path_factory.mktemp("data") / "captioned"
    with one_thread():
        make_coco(*coco, dest, tiny_vae, tiny_clip)
    return dest


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """PyTorch computes with one thread while a module's tests run."""
    from tests.data.coco_making import one_thread

    with one_thread():
        yield
