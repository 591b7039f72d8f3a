"""The documents hold what was measured and computed, as the cards do."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from hastezoo.zoo import documents
from hastezoo.zoo.registry import find_card, package_cards
from tests.conftest import ROOT


def result_of(name: str) -> dict[str, Any]:
    """What a benchmark wrote."""
    result: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return result


def test_tables_of_checkpoints_are_up_to_date() -> None:
    """`make documents` writes them."""
    for name, columns in documents.DOCUMENTS.items():
        text = (ROOT / name).read_text()
        assert documents.updated(text, columns) == text, f"{name} is out of date: make documents"
        assert all(f"`{card}`" in text for card in package_cards())


MEASURED = [name for name, card in package_cards().items() if card.recipe == "digits" and card.best("measured")]


def measured(name: str) -> dict[str, Any]:
    return result_of(f"digits_quality_{name}")


@pytest.mark.parametrize("name", MEASURED)
def test_cards_hold_what_was_measured_on_these_weights(name: str) -> None:
    card, result = find_card(name), measured(name)
    assert card.weights is not None and result["weights_sha256"] == card.weights.sha256
    values = {entry.short: entry.value for entry in card.results}
    assert values["pixel FD"] == round(result["frechet"], 1)
    assert values["recognised"] == round(result["recognised"], 3)
    assert values["nearest"] == round(result["nearest_training_digit"]["unguided"]["median"], 1)


@pytest.mark.parametrize("name", MEASURED)
def test_model_card_and_readme_hold_the_measured_numbers(name: str) -> None:
    result = measured(name)
    near = result["nearest_training_digit"]
    for document in ("MODEL_CARD.md", "README.md"):
        text = (ROOT / document).read_text()
        assert f"{100 * result['recognised']:.1f} %" in text and f"{result['frechet']:.1f}" in text
        assert f"{result['frechet_floor']:.1f}" in text and f"{result['frechet_train_to_test']:.1f}" in text
    text = (ROOT / "MODEL_CARD.md").read_text()
    for kind in ("unguided", "guided", "real_test"):
        assert "{median:.1f} ({p10:.1f}, {p90:.1f})".format(**near[kind]) in text
    assert f"{100 * result['recognised_unguided']:.1f} %" in text


def test_model_card_holds_the_measured_speed() -> None:
    speed = result_of("sampling_speed")
    batch = speed["images_per_second"]["eager, batch 32"]
    text = " ".join((ROOT / "MODEL_CARD.md").read_text().split())
    assert f"takes {speed['command_seconds']['median']:.1f} s" in text
    assert f"{batch['median']:.0f} images/s in batches of 32, {batch['ratio']:.1f} times" in text


def test_weights_page_holds_the_measured_import() -> None:
    result = result_of("import_memory")
    text = " ".join((ROOT / "docs" / "weights.md").read_text().split())
    ours, obvious = result["hastezoo import"], result["torch.load and save_file"]
    assert f"{result['bytes']['released.pt'] / 1e9:.1f} GB container" in text
    assert f"in {ours['seconds']['median']:.1f} s with a peak of {ours['peak_gb']['median']:.1f} GB" in text
    assert f"take {obvious['seconds']['median']:.1f} s and {obvious['peak_gb']['median']:.1f} GB" in text
    assert ours["peak_gb"]["most"] <= 1.5 * result["bytes"]["model.safetensors"] / 1e9


@pytest.mark.parametrize("name", MEASURED)
def test_the_quality_that_was_promised(name: str) -> None:
    result = measured(name)
    assert result["recognised"] >= 0.97
    assert result["frechet"] <= 2 * result["frechet_train_to_test"]


def test_the_best_of_the_digits_is_as_near_to_them_as_they_are_to_each_other() -> None:
    results = [measured(name) for name in MEASURED]
    assert len(results) == 3 and len({find_card(name).steps for name in MEASURED}) == 1
    assert min(result["frechet"] for result in results) <= results[0]["frechet_train_to_test"]


def rows_of_the_step(result: dict[str, Any]) -> list[str]:
    return [
        f"| {kind} | {row['seconds']['median']:.2f} ({row['seconds']['least']:.2f}..{row['seconds']['most']:.2f}) | "
        f"{row['over REPA']['seconds']['median']:.3f} | {row['peak_bytes'] / 1e9:.2f} | "
        f"{row['over REPA']['peak_bytes']:.3f} |"
        for kind, row in result["runs"].items()
    ]


def rows_of_the_memory(result: dict[str, Any]) -> list[str]:
    def cells(row: dict[str, Any]) -> str:
        return f"{row['peak_bytes'] / 1e6:.1f} ({row['largest_allocation_bytes'] / 1e6:.1f})"

    return [
        f"| {tokens} | {row['map_bytes'] / 1e6:.1f} | {cells(row['naive'])} | {cells(row['ours'])} | "
        f"{row['ratios']['time']:.2f} |"
        for tokens, row in result["tokens"].items()
    ]


@pytest.mark.parametrize(("name", "rows"), [("train_step", rows_of_the_step), ("attention_memory", rows_of_the_memory)])
def test_alignment_page_holds_what_was_measured(name: str, rows: Any) -> None:
    result = result_of(name)
    text = (ROOT / "docs" / "alignment.md").read_text()
    assert [row for row in rows(result) if row not in text] == []


def test_data_page_holds_what_was_measured() -> None:
    result = result_of("data_reading")
    text = " ".join((ROOT / "docs" / "data.md").read_text().split())
    latents, images = result["latents_per_second"], result["images_per_second_two_workers"]
    for rates, base in ((latents, "a file each"), (images, "a file each, png")):
        for rate in rates.values():
            shown = f"| {rate['median']:,} ({rate['least']:,}..{rate['most']:,}) |"
            assert f"{shown} {rate['median'] / rates[base]['median']:.1f} |" in text
    decoding, size = result["decoding_ms_one_process"], result["bytes_per_sample"]
    assert f"{decoding['png']:.2f} ms of a core for a PNG and {decoding['jpeg']:.2f} ms for a JPEG" in text
    assert f"({size['png'] / 1e3:.0f} and {size['jpeg'] / 1e3:.0f} kB a sample" in text
    assert latents["prepared"]["least"] >= 20_000 and images["prepared, png"]["least"] >= 600  # what was promised


def test_text_page_holds_what_an_evaluation_costs() -> None:
    result, text = result_of("mmdit_speed"), (ROOT / "docs" / "text.md").read_text()
    for name in ("diffusers", "ours", "products alone"):
        cells = [result[kind][name] for kind in ("sampling", "training")]
        shown = "".join(
            f" {one['median']:.2f} ({one['least']:.2f}..{one['most']:.2f}) | {one['ratio']:.2f} |" for one in cells
        )
        assert shown in text, name
    assert 7 * 60 < 250 * result["sampling"]["ours"]["median"] < 8.5 * 60 and "takes eight\nminutes" in text


def test_data_page_holds_what_was_measured_of_captions() -> None:
    rates = result_of("caption_reading")["samples_per_second"]
    text = (ROOT / "docs" / "data.md").read_text()
    for rate in rates.values():
        over = rates["prepared"]["median"] / rate["median"]
        assert f"| {rate['median']:,} ({rate['least']:,}..{rate['most']:,}) | {over:.1f} |" in text
    assert all(rates["prepared"]["median"] > 2 * rate["median"] for name, rate in rates.items() if name != "prepared")


def test_data_page_holds_what_was_computed_of_captions() -> None:
    """And the rules by which captions are chosen, in the words of the code."""
    text = (ROOT / "docs" / "data.md").read_text()
    one = 2 * 77 * 768
    assert f"{one / 1e3:.0f} kB" in text and f"(a few have six or seven) | {82_783 * 5 * one / 1e9:.0f} GB |" in text
    assert f"| moments, 2 x 2 x 4 x 32 x 32 bytes an image | {82_783 * 2 * 2 * 4 * 32 * 32 / 1e9:.1f} GB |" in text
    assert f"| `--limit 20000`, states | {20_000 * 5 * one / 1e9:.0f} GB |" in text
    assert "`hastezoo coco subset ID`" in text and "`hastezoo coco ID`" in text


def costs() -> Any:
    """benchmarks/training_costs.py, which is no module of the package."""
    path = ROOT / "benchmarks" / "training_costs.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        return importlib.import_module("training_costs")


def test_training_page_holds_the_table_of_costs() -> None:
    result = result_of("training_costs")
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("training", "text")}
    rows = {name: costs().row(name, cost) for name, cost in result["checkpoints"].items()}
    assert len(rows) == 15
    for name, row in rows.items():
        assert row in pages["text" if find_card(name).text else "training"], name


@pytest.mark.parametrize("name", ["sit-s", "sit-b-haste", pytest.param("mmdit-coco-haste", marks=pytest.mark.slow)])
def test_costs_are_what_the_dry_run_says(name: str) -> None:
    """Two of them, so that the table is not out of date; all dry runs are tested beside the recipes."""
    from hastezoo.recipes.dry_run import Machine, as_json, plan
    from hastezoo.recipes.latents import recipe_config

    written = result_of("training_costs")["checkpoints"][name]
    now = as_json(plan(find_card(name), recipe_config(find_card(name)), Machine()))
    assert {key: now[key] for key in written} == pytest.approx(written)


def test_costs_of_metrics_are_those_measured() -> None:
    result = result_of("metric_speed")
    text = (ROOT / "docs" / "evaluation.md").read_text()
    distance, balls, kid = result["frechet_distance"], result["precision_recall"], result["kid"]
    ours, root, eigenvalues = (
        distance[name]["seconds"]["median"] for name in ("ours", "square root", "torch-fidelity")
    )
    for line in (
        f"| FID: moments, distance, error | {result['stage_seconds']['fid']['total']:.1f} |",
        f"| sFID likewise | {result['stage_seconds']['sfid']['total']:.1f} |",
        f"| {ours:.2f} | scipy's square root {root:.2f}, torch-fidelity's eigenvalues {eigenvalues:.2f} |",
        f"| {balls['seconds']:.0f} | its products alone {balls['floor']['seconds']:.0f}; peak memory "
        f"{balls['peak_gb']:.2f} GB",
        f"| {kid['ours, float64']['seconds']:.1f} | torch-fidelity in float32 "
        f"{kid['torch-fidelity, float32']['seconds']:.1f} |",
    ):
        assert line in text, line


def test_what_the_app_costs_is_as_it_was_measured() -> None:
    result, text = result_of("app"), (ROOT / "docs" / "app.md").read_text()
    memory = result["resident_mib"]
    for words in (
        f"comes {result['seconds_to_first_answer']['median']:.1f} s after",
        f"the first paint {result['seconds_from_request_to_first_paint']['median']:.1f} s after",
        f"embedded model {result['seconds_of_first_generation']:.1f} s after",
        f"API take {result['seconds_of_a_generation']['median']:.1f} s, {result['app_over_pipeline']:.2f} of",
        f"holds {max(memory):.0f} MiB at most over {len(memory)} generations",
        f"{max(memory[-10:]) - max(memory[:10]):+.0f} MiB more in the last ten",
    ):
        assert words in " ".join(text.split()), words
