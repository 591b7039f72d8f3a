"""Extractors by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import EXTRACTORS, Extractor, Pixels, create_extractor, digest, own_weights
from hastezoo.evaluation.extractors.networks import BATCH, in_equal_batches
from tests.test_imports import HEAVY


def test_pixels_are_features_on_the_scale_of_the_digits() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(2, 8, 8, 2)
    found = create_extractor("pixels")(images)
    assert list(found) == ["pool"] and found["pool"].dtype == np.float32
    expected = (np.arange(256) * 16 / 255).reshape(2, 128)
    np.testing.assert_allclose(found["pool"], expected, rtol=1e-6)
    assert Pixels().widths((8, 8, 2)) == {"pool": 128}
    with pytest.raises(ValueError, match=r"\(B, H, W, C\)"):
        Pixels()(images[0])


def test_every_name_makes_its_extractor(inception_file: Path, dot_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hastezoo.evaluation.extractors.dinov2 import Dinov2
    from tests.evaluation.dots import NAME

    make = Dinov2.from_pretrained
    monkeypatch.setattr(Dinov2, "from_pretrained", lambda weights, **settings: make(weights, model=NAME, **settings))
    files = {"inception": inception_file, "dinov2": dot_file, "pixels": None}
    for name in EXTRACTORS:
        extractor: Extractor = create_extractor(name, weights=files[name], device="cpu")
        images = np.zeros((1, 32, 32, 3), np.uint8)
        widths = {feature: values.shape[1] for feature, values in extractor(images).items()}
        assert extractor.name == extractor.identity["features"] == name
        assert widths == extractor.widths((32, 32, 3))
        assert (extractor.classifier is not None) == (name == "inception")


def test_what_is_no_extractor() -> None:
    with pytest.raises(UserError, match=r"unknown features 'inceptoin': .*; nearest: inception"):
        create_extractor("inceptoin")
    with pytest.raises(UserError, match="pixels have no weights"):
        create_extractor("pixels", weights=Path("w.pth"))
    with pytest.raises(UserError, match=r"cannot read w\.pth"):
        create_extractor("inception", weights=Path("w.pth"), device="cpu")


def test_a_network_is_given_batches_of_one_size_and_the_filling_is_dropped() -> None:
    """Another size can mean another algorithm, and with it other roundings; how it rounds differs between machines."""
    shapes = []

    def network(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        shapes.append(tuple(batch.shape))
        return {"pool": batch.double().mean((2, 3))}

    images = np.random.default_rng(0).integers(0, 256, (BATCH["cpu"] + 1, 8, 6, 3), dtype=np.uint8)
    found = in_equal_batches(network, images, torch.device("cpu"))["pool"]
    assert shapes == [(BATCH["cpu"], 3, 8, 6)] * 2 and found.dtype == np.float32
    np.testing.assert_allclose(found, images.mean((1, 2)), rtol=1e-6)


def test_the_digest_is_of_all_that_is_said_in_any_order() -> None:
    identity = {"a": "1", "b": "2"}
    assert digest(identity) == digest({"b": "2", "a": "1"}) and len(digest(identity)) == 16
    assert digest(identity) != digest({"a": "1", "b": "3"})


def test_naming_extractors_loads_nothing_heavy() -> None:
    rooms = "".join(
        f"import hastezoo.evaluation.{name}\n"
        for name in ("extractors", "extractors.networks", "extractors.inception", "extractors.dinov2")
    )
    code = f"import sys\n{rooms}print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_weights_of_another_extractor_are_a_mistake() -> None:
    files = {"inception": None, "dinov2": Path("d.safetensors")}
    assert own_weights("dinov2", files) == Path("d.safetensors")
    assert own_weights("inception", {**files, "dinov2": None}) is None and own_weights("pixels", {}) is None
    with pytest.raises(UserError, match=r"^--dinov2 goes with --features dinov2, not inception; leave it out$"):
        own_weights("inception", files)
