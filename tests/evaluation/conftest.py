"""Networks that several files of tests look at images with."""

from __future__ import annotations

from pathlib import Path

import pytest

from hastezoo.evaluation.extractors.inception import Inception


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of Inception in a file like torch-fidelity's."""
    from tests.evaluation.networks import inception_state, write_inception

    return write_inception(tmp_path_factory.mktemp("inception") / "inception.pth", inception_state())


@pytest.fixture(scope="session")
def inception(inception_file: Path) -> Inception:
    """The extractor with those weights, on the CPU."""
    return Inception.from_file(inception_file, device="cpu")


@pytest.fixture(scope="session")
def dot_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small ViT of `tests.evaluation.dots`."""
    from tests.evaluation.dots import write_dot

    return write_dot(tmp_path_factory.mktemp("dot") / "dot.safetensors")
