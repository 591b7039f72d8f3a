"""Results of evaluations, written by hand: examples for tests. Nobody measured these numbers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from hastezoo.evaluation.results.result import EvaluationResult
from hastezoo.zoo.registry import find_card, find_protocol

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

# An evaluation of sit-xl-repa exactly as its published figures were taken.
REPA: dict[str, Any] = {
    "metrics": {
        "fid": {"value": 1.434, "error": 0.021, "reason": None},
        "sfid": {"value": 4.6904, "error": 0.03, "reason": None},
        "is": {"value": 306.2, "error": 2.4, "reason": None},
        "precision": {"value": 0.8012, "error": None, "reason": None},
        "recall": {"value": 0.6411, "error": None, "reason": None},
        "kid": {"value": None, "error": None, "reason": "not asked for"},
        "precision_float32": {"value": 0.7991, "error": None, "reason": None},
        "recall_float32": {"value": 0.6398, "error": None, "reason": None},
    },
    "settings": {
        "model": "sit-xl-repa",
        "weights": None,
        "weights_sha256": "ab" * 32,
        "step": 4_000_000,
        "samples": None,
        "samples_identity": {"model": "sit-xl-repa", "seed": "0"},
        "protocol": "repa",
        "sampling": find_protocol("repa").model_dump(mode="json"),
        "labels": "random",
        "count": 50_000,
        "seed": 0,
        "rounding": "truncate",
        "dtype": "float32",
        "compile": False,
        "vae": "stabilityai/sd-vae-ft-ema",
        "vae_sha256": "cd" * 32,
        "resolution": 256,
        "features": "inception",
        "extractor": {"features": "inception", "weights_sha256": INCEPTION_SHA256},
        "reference": {
            "name": "imagenet256",
            "description": "ADM's reference",
            "count": 1_281_167,
            "identity": {"kind": "npz", "sha256": "ef" * 32},
            "features_count": 10_000,
        },
        "order": "as given",
        "device": "cuda:0 (somebody's)",
        "threads": 8,
        "processes": 1,
        "batch_size": 64,
        "versions": {"hastezoo": "0.0", "torch": "2.0"},
        "date": "2000-01-01",
        "seconds": {"features": 100.0, "metrics": 10.0},
        "command": "hastezoo eval-fid --model sit-xl-repa",
    },
    "expected": [],
    "notes": ["written by hand"],
    "curve": {"count": [3125, 6250, 12_500, 25_000, 50_000], "fid": [3.2, 2.3, 1.85, 1.6, 1.434], "limit": 1.34},
}

# An evaluation of the embedded digits as their card states it.
DIGITS: dict[str, Any] = {
    "metrics": {
        "fid": {"value": 10.6, "error": 0.5},
        "sfid": {"value": None, "reason": "pixels have no spatial features"},
        "is": {"value": None, "reason": "pixels have no classifier"},
        "precision": {"value": 0.9},
        "recall": {"value": 0.8},
        "kid": {"value": 0.123456, "error": 0.01},
    },
    "settings": {
        "model": "sit-ti-digits-haste",
        "weights_sha256": find_card("sit-ti-digits-haste").weights.sha256,  # type: ignore[union-attr]
        "step": 4000,
        "protocol": "digits-nocfg",
        "sampling": find_protocol("digits-nocfg").model_dump(mode="json"),
        "labels": "random",
        "count": 1797,
        "seed": 0,
        "rounding": "nearest",
        "dtype": "float32",
        "resolution": 8,
        "features": "pixels",
        "extractor": {"features": "pixels"},
        "reference": {"name": "digits", "count": 1797, "identity": {"kind": "digits"}, "features_count": 1797},
        "order": "as given",
    },
}


def changed(example: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """An example with other settings; `sampling` and `reference` change only what is named of them."""
    copy = deepcopy(example)
    for key in ("sampling", "reference"):
        if isinstance(settings.get(key), dict):
            settings[key] = {**copy["settings"][key], **settings[key]}
    copy["settings"].update(settings)
    return copy


def result(example: dict[str, Any], **settings: Any) -> EvaluationResult:
    return EvaluationResult.model_validate(changed(example, **settings))


def write(folder: Path, example: dict[str, Any], **settings: Any) -> Path:
    """A folder with the example as result.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(changed(example, **settings)))
    return folder
