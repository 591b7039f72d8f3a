"""Results held against each other: by how much they differ, and in what."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hastezoo.evaluation.results.comparison import Comparison, compare
from hastezoo.evaluation.results.result import EvaluationResult, Value
from hastezoo.evaluation.results.settings import CIRCUMSTANCES
from hastezoo.zoo.registry import find_protocol
from tests.evaluation.examples import DIGITS, REPA, result


def against(**settings: Any) -> Comparison:
    """The example, and itself with other settings."""
    return compare([result(REPA), result(REPA, **settings)], ["A", "B"])


def with_metrics(**values: Value) -> EvaluationResult:
    return EvaluationResult(metrics=values, settings=result(REPA).settings)


def test_a_result_and_itself() -> None:
    same = against()
    assert (same.reasons, same.settings, same.circumstances) == ([], {}, {})
    assert same.metrics == [*("fid", "sfid", "is", "precision", "recall", "kid"), "precision_float32", "recall_float32"]
    (fid,) = same.differences["fid"]
    assert fid is not None and (fid.value, fid.beyond_noise) == (0.0, False)
    assert same.differences["kid"] == [None]


def test_differences_are_from_the_first_with_the_error_of_both() -> None:
    a = with_metrics(fid=Value(value=2.0, error=0.03), sfid=Value(value=1.0, error=0.1))
    b = with_metrics(fid=Value(value=2.101, error=0.04), sfid=Value(value=1.2))
    c = with_metrics(fid=Value(value=1.901, error=0.04))
    d = with_metrics(fid=Value(value=1.899, error=0.04))
    found = compare([a, b, c, d], ["A", "B", "C", "D"]).differences
    more, less, still_less = found["fid"]
    assert more is not None and less is not None and still_less is not None
    assert more.value == pytest.approx(0.101) and more.error == pytest.approx(0.05) and more.beyond_noise is True
    assert less.value == pytest.approx(-0.099) and less.beyond_noise is False  # 2 x 0.05 is noise
    assert still_less.beyond_noise is True
    unknown, absent, _ = found["sfid"]
    assert unknown is not None and absent is None
    assert (unknown.error, unknown.beyond_noise) == (None, None) and math.isclose(unknown.value, 0.2)


def test_other_features_are_not_subtracted() -> None:
    found = compare([result(REPA), result(DIGITS)], ["A", "B"])
    assert set(map(tuple, found.differences.values())) == {(None,)}
    assert found.reasons[0] == "features inception and pixels"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"count": 10_000}, "samples 50,000 and 10,000"),
        ({"count": None}, "samples 50,000 and not recorded"),
        ({"labels": "balanced"}, "labels random and balanced"),
        ({"rounding": "nearest"}, "rounding truncate and nearest"),
        ({"rounding": "nearest", "sampling": {"rounding": "nearest"}}, "rounding truncate and nearest"),
        ({"rounding": None, "sampling": {"rounding": "nearest"}}, "rounding truncate and nearest"),
        ({"resolution": 512}, "resolution 256 and 512"),
        ({"vae_sha256": "ab" * 32}, "autoencoder cdcdcdcdcdcd and abababababab"),
        ({"lossy": True}, "lossy format no and yes"),
        ({"order": "permuted"}, "order for the Inception Score as given and permuted"),
        ({"extractor": {}}, "other weights of the network that sees the images"),
        ({"reference": {"name": "imagenet512"}}, "references imagenet256 and imagenet512"),
        ({"reference": {"identity": {"sha256": "00"}}}, "two references imagenet256"),
        ({"reference": None}, "a reference that is not recorded"),
        (
            {"reference": {"features_count": 5000}},
            "for precision and recall, 10,000 and 5,000 images of the reference",
        ),
        ({"sampling": {"steps": 50}}, "protocols with steps 250 and 50"),
        ({"sampling": None}, "how the samples were drawn is not recorded"),
        (
            {"protocol": "haste", "sampling": find_protocol("haste").model_dump(mode="json")},
            "protocols (repa and haste) with cfg 1.8 and 1.65, interval [0, 0.7] and [0, 0.72]",
        ),
    ],
    ids=str,
)
def test_each_setting_that_moves_the_numbers_forbids_it(settings: dict[str, Any], reason: str) -> None:
    found = against(**settings)
    assert found.reasons == [reason] and found.settings and not found.circumstances
    assert found.differences["fid"] != [None]  # the numbers are shown all the same


def test_models_are_what_is_compared_and_seeds_are_noise() -> None:
    found = against(model="sit-xl-haste", step=2_500_000, weights_sha256="00" * 32, seed=7, dtype="bfloat16")
    assert found.reasons == []
    assert found.settings == {
        "model": ["sit-xl-repa", "sit-xl-haste"],
        "weights_sha256": ["ab" * 32, "00" * 32],
        "step": [4_000_000, 2_500_000],
        "seed": [0, 7],
        "dtype": ["float32", "bfloat16"],
    }


def test_what_merely_describes_the_work_stands_apart() -> None:
    other: dict[str, Any] = {
        "device": "cpu", "threads": 2, "processes": 4, "batch_size": 8, "versions": {"torch": "2.1"},
        "date": "2000-01-02", "seconds": {"features": 1.0}, "command": "hastezoo",
    }  # fmt: skip
    assert set(other) == set(CIRCUMSTANCES)
    found = against(**other)
    assert (found.reasons, found.settings) == ([], {})
    assert found.circumstances["device"] == ["cuda:0 (somebody's)", "cpu"]
    assert found.circumstances["versions.torch"] == ["2.0", "2.1"]
    assert found.circumstances["versions.hastezoo"] == ["0.0", None]


def test_settings_inside_others_are_named() -> None:
    found = against(sampling={"cfg": 2.0}, reference={"features_count": 5}, new={"deep": {"key": 1}})
    assert found.settings == {
        "sampling.cfg": [1.8, 2.0],
        "reference.features_count": [10_000, 5],
        "new.deep.key": [None, 1],
    }


def test_what_decides_which_existing_images_they_are_is_told_and_of_drawn_ones_repeats() -> None:
    assert against(samples_identity={"seed": "7"}).settings == {}
    existing = [result(REPA, samples=f"{name}.npz", samples_identity={"sha256": name}) for name in ("a", "b")]
    assert compare(existing, ["A", "B"]).settings == {
        "samples": ["a.npz", "b.npz"], "samples_identity.sha256": ["a", "b"],
    }  # fmt: skip


def test_of_several_the_reason_says_whose() -> None:
    found = compare([result(REPA), result(REPA, count=1000), result(REPA, labels="balanced")], ["A", "B", "C"])
    assert found.reasons == ["B: samples 50,000 and 1,000", "C: labels random and balanced"]
    assert found.settings == {"labels": ["random", "random", "balanced"], "count": [50_000, 1000, 50_000]}
