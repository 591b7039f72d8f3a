"""Inception's features: torch-fidelity's own bit for bit, the maps of sFID, and metrics of them as torch-fidelity's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hastezoo.evaluation.extractors.inception import SHA256, Inception
from hastezoo.evaluation.extractors.networks import BATCH
from hastezoo.evaluation.metrics import frechet_distance, inception_score, kernel_distance, probabilities
from hastezoo.evaluation.statistics import Moments
from tests.evaluation.networks import random_images

SAMPLES = 8  # of each side; a multiple of the batch, so that torch-fidelity is given the same batches
COLUMNS = 5  # fewer than samples: torch-fidelity's FID takes no singular covariance


@dataclass
class Seen:
    """Images of one size, and what was seen in them: by us, and by torch-fidelity (the samples alone)."""

    images: np.ndarray
    samples: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    pool: torch.Tensor
    logits: torch.Tensor


def tensors(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@pytest.fixture(scope="module")
def fidelity(inception_file: Path) -> Any:
    """torch-fidelity's extractor, which loads the file itself."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("theirs", layers, feature_extractor_weights_path=str(inception_file))


# At ADM's size always; enlarged much and reduced where there is time.
SIZES = [pytest.param(64, marks=pytest.mark.slow), 256, pytest.param(512, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=SIZES)
def seen(request: pytest.FixtureRequest, inception: Inception, fidelity: Any) -> Seen:
    images, others = (random_images(SAMPLES, request.param, seed) for seed in (1, 2))
    with torch.inference_mode():
        parts = [fidelity(part) for part in tensors(images).split(BATCH["cpu"])]
    pool, logits = (torch.cat(layer) for layer in zip(*parts, strict=True))
    return Seen(images, inception(images), inception(others // 2), pool, logits)


def test_the_features_are_torch_fidelitys_bit_for_bit(seen: Seen) -> None:
    assert seen.samples["pool"].dtype == seen.samples["spatial"].dtype == np.float32
    assert np.array_equal(seen.samples["pool"], seen.pool.numpy())
    assert seen.samples["pool"].std(0).mean() > 0.01, "the images look the same, so nothing was compared"


def test_metrics_are_torch_fidelitys(seen: Seen, inception: Inception) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    ours = [side["pool"].astype(np.float64) for side in (seen.samples, seen.reference)]
    theirs = [seen.pool.double(), torch.from_numpy(ours[1])]
    statistics = [fid_features_to_statistics(side[:, :COLUMNS]) for side in theirs]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(*(Moments.of(side[:, :COLUMNS]) for side in ours)) == pytest.approx(expected, rel=1e-6)

    expected = isc_features_to_metric(seen.logits, splits=2, shuffle=True, rng_seed=2020)
    order = np.random.RandomState(2020).permutation(SAMPLES)
    assert inception.classifier is not None
    score = inception_score([probabilities(ours[0], inception.classifier)[order]], SAMPLES // 2)
    assert score.value == pytest.approx(expected["inception_score_mean"], rel=1e-6) and score.value > 1.05

    expected = kid_features_to_metric(*theirs, kid_subsets=5, kid_subset_size=6, verbose=False)
    score = kernel_distance(*ours, subsets=5, size=6)
    assert score.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)


def test_spatial_features_are_seven_maps_of_mixed_6_conv(inception: Inception, fidelity: Any) -> None:
    """Convolution, batch norm and ReLU by hand in float64, from what torch-fidelity's layer is given."""
    images = random_images(BATCH["cpu"], 64, seed=3)
    given: dict[str, np.ndarray] = {}
    hooks = [
        fidelity.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: given.update({name: inputs[0].double().numpy()})
        )
        for name in ("Mixed_6d", "Mixed_6e")
    ]
    with torch.inference_mode():
        fidelity(tensors(images))
    for hook in hooks:
        hook.remove()

    def by_hand(name: str) -> np.ndarray:
        layer = fidelity.get_submodule(name).branch1x1
        weight = layer.conv.weight[:7, :, 0, 0].double().numpy()
        gain, shift, mean, variance = (
            getattr(layer.bn, key)[:7].double().numpy()[:, None, None]
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        maps = np.einsum("oc,bchw->bohw", weight, given[name])
        return np.maximum((maps - mean) / np.sqrt(variance + 0.001) * gain + shift, 0)

    found, maps = inception(images)["spatial"], by_hand("Mixed_6d")
    expected = maps.transpose(0, 2, 3, 1).reshape(len(images), 17 * 17 * 7)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for wrong in (maps, by_hand("Mixed_6e").transpose(0, 2, 3, 1)):
        assert np.abs(found - wrong.reshape(len(images), -1)).mean() > 0.1


def test_images_are_resized_as_tensorflow_1_does_it(inception: Inception) -> None:
    """Pixel i of 299 is at i * 64 / 299, between its two neighbours, without centring; and no other way will do."""
    images = random_images(2, 64, seed=4)
    given: list[torch.Tensor] = []
    first = inception._network.Conv2d_1a_3x3
    hook = first.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].clone()))
    found = inception(images)["pool"]
    hook.remove()
    place = np.arange(299) * 64 / 299
    low = place.astype(int)
    high, share = np.minimum(low + 1, 63), place - low
    rows = images[:, low] + (images[:, high] - images[:, low].astype(float)) * share[:, None, None]
    expected = rows[:, :, low] + (rows[:, :, high] - rows[:, :, low]) * share[:, None]
    np.testing.assert_allclose(given[0][:2] * 128 + 128, expected.transpose(0, 3, 1, 2), atol=2e-3)
    centred = F.interpolate(tensors(images).float(), (299, 299), mode="bilinear").round().byte()
    other = inception(centred.permute(0, 2, 3, 1).numpy())["pool"]
    assert np.abs(found - other).mean() > 0.05 * found.std()


def test_the_features_of_an_image_do_not_depend_on_its_batch(inception: Inception) -> None:
    images = random_images(5, 64, seed=5)
    together = inception(images)
    assert not inception._network.Mixed_6d.branch1x1._forward_hooks, "hooks pile up"
    for name, values in together.items():
        assert values.shape == (5, inception.widths((64, 64, 3))[name])
        parts = [inception(images[:1])[name], inception(images[1:])[name]]
        assert np.array_equal(values, np.concatenate(parts)), name


def test_grey_images_are_equal_channels_and_other_arrays_are_refused(inception: Inception) -> None:
    grey = random_images(1, 64)[..., :1]
    assert np.array_equal(inception(grey)["pool"], inception(grey.repeat(3, axis=3))["pool"])
    for wrong in (grey[0], grey.astype(np.float32), grey.repeat(4, axis=3), grey[:0]):
        with pytest.raises(ValueError, match="images are uint8"):
            inception(wrong)


def test_the_caller_settings_change_nothing_and_stay(inception: Inception) -> None:
    images = random_images(1, 64)
    expected = inception(images)["pool"]
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    inside: list[Any] = []

    def look(*_: Any) -> None:
        flags = torch.backends.cudnn
        inside.append((torch.get_float32_matmul_precision(), flags.allow_tf32, flags.benchmark, flags.deterministic))
        inside.append((torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))

    hook = inception._network.register_forward_hook(look)
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        with torch.autocast("cpu", torch.bfloat16):
            found = inception(images)["pool"]
        after = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    finally:
        hook.remove()
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]
    assert np.array_equal(found, expected) and after == ("medium", True, True)
    assert inside == [("highest", False, False, True), (False, True)]


def test_what_an_evaluation_wants_to_know(inception: Inception, inception_file: Path) -> None:
    from importlib.metadata import version

    assert (inception.name, inception.channels) == ("inception", 3)
    assert inception.identity == {
        "features": "inception",
        "weights": "another file",
        "weights_sha256": hashlib.sha256(inception_file.read_bytes()).hexdigest(),
        "torch_fidelity": version("torch-fidelity"),
    }
    assert Inception(inception._network, SHA256, torch.device("cpu")).identity["weights"].startswith("2015-12-05")
    assert not inception._network.training
    assert inception.widths((64, 64, 3)) == {"pool": 2048, "spatial": 2023}
    classifier = torch.load(inception_file, weights_only=True)["fc.weight"]
    assert inception.classifier is not None and np.array_equal(inception.classifier, classifier)


@pytest.mark.gpu
def test_on_a_gpu(inception: Inception, inception_file: Path) -> None:
    there = Inception.from_file(inception_file, device="cuda")
    images = random_images(70, 64, seed=6)
    found, expected = there(images), inception(images[:8])
    for name, values in found.items():
        # TF32 would be off by 1e-3 and more.
        np.testing.assert_allclose(values[:8], expected[name], rtol=2e-4, atol=2e-4)
        assert np.array_equal(values[60:65], there(images[60:65])[name]), "features depend on the batch"
