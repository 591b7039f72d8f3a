"""Small folders of runs, written by hand, that tests read, sum up and draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# A run of 40 steps, logged every 10, looked at by the trigger at 10 and 20, when it ended, and by the probe every 10.
METRICS: list[dict[str, Any]] = [
    {"step": 10, "loss": 2.0, "denoising": 1.5, "feature": -0.2, "attention": 1.2, "grad_norm": 3.0, "lr": 1e-3},
    {"step": 20, "loss": 1.0, "denoising": 0.75, "feature": -0.4, "attention": 0.9, "grad_norm": 2.0, "lr": 1e-3},
    {"step": 30, "loss": 0.5, "denoising": 0.5, "grad_norm": 1.0, "lr": 1e-3, "seconds": 6.5, "note": "x"},
    {"step": 40, "loss": 0.25, "denoising": 0.25, "grad_norm": 1.0, "lr": 1e-3, "seconds": 8.5},
]
TIMES: list[float] = [0.1, 0.8]
EVENTS: list[dict[str, Any]] = [
    {"step": 10, "cosines": [0.2, 0.4], "times": TIMES},
    {"step": 20, "cosines": [-0.2, 0.06], "times": TIMES},
    {"step": 20, "ended": True},
]
DIAGNOSES: list[dict[str, Any]] = [
    {"step": 5, "t": 0.5, "cknna": [0.1, 0.2, 0.15], "attention_kl": {"1<-2": 2.0, "2<-3": 3.0}, "times": TIMES,
     "cosines": [0.3, 0.5]},
    {"step": 10, "t": 0.5, "cknna": [0.2, 0.3, 0.25], "attention_kl": {"1<-2": 1.0, "2<-3": 1.5}, "times": TIMES,
     "cosines": [0.9, 0.9]},
    {"step": 30, "t": 0.5, "cknna": [0.2, 0.3, 0.35], "attention_kl": {"1<-2": 0.5, "2<-3": 0.75}},
]  # fmt: skip
TERMINATION = {"kind": "gradient", "step": None, "start": 10, "every": 10, "threshold": -0.05, "block": 1}
ALIGNMENT: dict[str, Any] = {
    "teacher": {"name": "somebody"}, "feature_weight": 0.5, "attention_weight": 0.5, "feature_layer": 2,
    "attention_pairs": [[1, 2], [2, 3]], "termination": TERMINATION,
}  # fmt: skip
PLAIN_METRICS = [{**line, "loss": line["denoising"]} for line in METRICS[2:]]


def write_run(
    folder: Path,
    *,
    alignment: dict[str, Any] | None = ALIGNMENT,
    metrics: list[dict[str, Any]] = METRICS,
    events: list[dict[str, Any]] = EVENTS,
    diagnoses: list[dict[str, Any]] = DIAGNOSES,
    diagnose_every: int = 10,
) -> Path:
    """The folder of a run; a file of which there is no line is not there."""
    folder.mkdir(parents=True)
    train = {"seed": 0, "steps": 50, "log_every": 10, "diagnose_every": diagnose_every, "batch_size": 64}
    config = {"architecture": "sit_ti_2", "train": train, "alignment": alignment}
    (folder / "config.json").write_text(json.dumps(config))
    for name, lines in (("metrics", metrics), ("alignment", events), ("diagnostics", diagnoses)):
        if lines:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_plain_run(folder: Path, **changed: Any) -> Path:
    """A run without alignment that nothing looked at."""
    return write_run(
        folder,
        **{"alignment": None, "metrics": PLAIN_METRICS, "events": [], "diagnoses": [], "diagnose_every": 0, **changed},
    )


def with_termination(**changed: Any) -> dict[str, Any]:
    return {**ALIGNMENT, "termination": {**TERMINATION, **changed}}
