"""What metrics are called, which way is better, and how many digits they are shown with."""

from __future__ import annotations

import math

# In the order in which a result has them; the first is what tables of checkpoints show.
KEYS = ("fid", "sfid", "is", "precision", "recall", "kid")
INCEPTION = {
    "fid": "FID", "sfid": "sFID", "is": "IS", "precision": "precision", "recall": "recall", "kid": "KID",
}  # fmt: skip
# Of other features the distances have names of their own, so that none is taken for an FID.
ELSEWHERE = {**INCEPTION, "fid": "FD", "sfid": "sFD", "kid": "KD"}
FLOAT32 = "_float32"  # ends the keys of precision and recall without the ADM evaluator's 16-bit distances
HIGHER = {"is", "precision", "recall"}
DECIMALS = {"fid": 2, "sfid": 2, "is": 2, "precision": 3, "recall": 3, "kid": 5}  # as they are published
MOST_DECIMALS = 6
DASH = "-"


def metric_name(key: str, features: str = "inception") -> str:
    """What a metric of those features is called; a key that is not known, as it is.

    Args:
        key: One of `KEYS`, or precision_float32, recall_float32.
        features: Name of the extractor: inception, dinov2, pixels.
    """
    plain = key.removesuffix(FLOAT32)
    if plain not in INCEPTION:
        return key
    ending = " (float32)" if plain != key else ""
    if features == "inception":
        return INCEPTION[plain] + ending
    name = ELSEWHERE[plain]
    if features == "pixels":
        return f"pixel {name}{ending}"
    return f"{name}-{'DINOv2' if features == 'dinov2' else features}{ending}"


def metrics_of(features: str) -> tuple[str, ...]:
    """The keys of the metrics that these features have: sFID and the Inception Score are the Inception network's."""
    return KEYS if features == "inception" else tuple(key for key in KEYS if key not in ("sfid", "is"))


def higher_is_better(key: str) -> bool:
    """Which way is better: up for the Inception Score, precision and recall, down for distances."""
    return key.removesuffix(FLOAT32) in HIGHER


def decimals(key: str, error: float | None = None) -> int:
    """Decimals to show: those of publications, and more where the error has its two leading digits further down.

    Nobody has a custom for KID, whose size is that of its features: with an error it has as many as that warrants.
    """
    usual = DECIMALS.get(key.removesuffix(FLOAT32), 3)
    if not error or not math.isfinite(error):
        return usual
    warranted = min(MOST_DECIMALS, 1 - math.floor(math.log10(abs(error))))
    return max(0 if key == "kid" else usual, warranted)


def shown(key: str, value: float | None, error: float | None = None, sign: str = "") -> str:
    """A value with as many decimals as its error warrants; a dash for none.

    Args:
        key: Of the metric.
        value: To show.
        error: Of the value.
        sign: `+` for a difference.
    """
    return DASH if value is None else f"{value:{sign}.{decimals(key, error)}f}"
