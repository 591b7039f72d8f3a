"""What an evaluation is expected to find, and every reason why it cannot be held against it."""

from __future__ import annotations

from typing import Any

import pytest

from hastezoo.evaluation.prompts import FROZEN
from hastezoo.evaluation.results import expected as expectations
from hastezoo.evaluation.results.expected import default_protocol, expected_for, stated
from hastezoo.evaluation.results.figures import Expected
from hastezoo.evaluation.results.settings import Settings
from hastezoo.zoo.card import Card, Result
from hastezoo.zoo.registry import find_card, find_protocol, package_cards
from tests.evaluation.examples import DIGITS, INCEPTION_SHA256, REPA, changed


def expected(example: dict[str, Any] = REPA, card: Card | None = None, **settings: Any) -> dict[str, Expected]:
    """The figures of the example's card by metric, the first of each."""
    values = changed(example, **settings)["settings"]
    found = expected_for(values, card or find_card(values["model"] or "sit-xl-repa"))
    return {figure.key: figure for figure in reversed(found)}


def reasons(example: dict[str, Any] = REPA, key: str = "fid", card: Card | None = None, **settings: Any) -> list[str]:
    return expected(example, card, **settings)[key].reasons


def test_an_evaluation_as_the_figure_was_taken_can_be_held_against_it() -> None:
    found = expected()
    assert {key: (one.value, one.kind, one.source, one.protocol) for key, one in found.items()} == {
        "fid": (1.42, "reported", "HASTE rebuttal", "repa"),
        "sfid": (4.7, "reported", "HASTE rebuttal", "repa"),
        "is": (305.7, "reported", "HASTE rebuttal", "repa"),
    }
    assert all(one.reasons == [] and one.remarks == [] for one in found.values())
    digits = expected(DIGITS)
    assert list(digits) == ["fid"] and digits["fid"].reasons == [] and "perfect generator" in digits["fid"].note
    assert digits["fid"].verdict(10.57, 0.5) == "agrees within the noise"


LOWER = "(balanced ones lower FID by about 0.1)"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sampling": {"steps": 50}}, "steps 50 instead of 250"),
        ({"sampling": {"cfg": 1.5}}, "cfg 1.5 instead of 1.8"),
        ({"sampling": {"interval": [0.0, 1.0]}}, "interval [0, 1] instead of [0, 0.7]"),
        ({"sampling": {"cfg": 1.0}}, "cfg 1 instead of 1.8"),
        ({"sampling": {"channels": 3}}, "channels 3 instead of all"),
        ({"sampling": {"solver": "heun"}}, "solver heun instead of euler-maruyama"),
        ({"sampling": {"diffusion_norm": 0.5}}, "diffusion_norm 0.5 instead of 1"),
        ({"sampling": {"last_step": "none"}}, "last_step none instead of mean"),
        ({"sampling": {"last_step_size": 0.01}}, "last_step_size 0.01 instead of 0.04"),
        ({"sampling": {"start": 0.99}}, "start 0.99 instead of 1"),
        ({"sampling": {"shiny": 1}}, "the samples were drawn with settings that this version does not know"),
        ({"count": 10_000}, "10,000 samples instead of 50,000"),
        ({"count": None}, "a number not recorded of samples instead of 50,000"),
        ({"labels": "balanced"}, f"balanced labels instead of random ones {LOWER}"),
        ({"labels": None}, "not recorded labels instead of random ones"),
        ({"step": 400_000}, "weights of step 400,000, the figure is of step 4,000,000"),
        ({"weights": "mine.pt", "step": None}, "the weights are those of mine.pt, which may not be the card's"),
        ({"vae": "stabilityai/sd-vae-ft-mse"}, "autoencoder stabilityai/sd-vae-ft-mse instead of {vae}"),
        ({"vae": "mse"}, "autoencoder mse instead of {vae}"),
        ({"vae": None}, "autoencoder not recorded instead of {vae}"),
        ({"rounding": "nearest"}, "rounding nearest instead of truncate"),
        ({"rounding": None, "sampling": {"rounding": "nearest"}}, "rounding nearest instead of truncate"),
        ({"resolution": 128}, "images of 128 px instead of 256"),
        ({"lossy": True}, "the samples went through a lossy format"),
        ({"reference": {"name": "imagenet512"}}, "reference imagenet512 instead of imagenet256"),
        ({"reference": {"name": "", "description": "a folder"}}, "reference a folder instead of imagenet256"),
        ({"reference": None}, "reference not recorded instead of imagenet256"),
        ({"reference": {"verified": False}}, "the file that goes by the name imagenet256 was not verified to be it"),
        (
            {"extractor": {"weights_sha256": "00" * 32}},
            "weights of the Inception network other than those of 2015-12-05",
        ),
        ({"extractor": None}, "the weights of the Inception network are not recorded"),
        (
            {"samples": "x.npz", "model": None, "sampling": None},
            "the samples are existing images (x.npz), and how they were drawn is not recorded",
        ),
        ({"sampling": None}, "how the samples were drawn is not recorded"),
    ],
    ids=str,
)  # fmt: skip
def test_each_setting_that_moves_the_numbers_is_a_reason_by_itself(settings: dict[str, Any], reason: str) -> None:
    assert reasons(**settings) == [reason.format(vae="stabilityai/sd-vae-ft-ema")]


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 7},
        {"device": "cpu", "threads": 1, "processes": 8, "batch_size": 1, "date": None, "versions": {}, "seconds": {}},
        {"compile": True},
        {"vae": "ema"},
        {"vae": "stabilityai/sd-vae-ft-ema@0123"},
        {"vae": "hub:stabilityai/sd-vae-ft-ema"},
        {"weights_sha256": "00" * 32},  # of the converted file, which is as our converter writes it
        {"step": None},
        {"sampling": {"diffusion": "sigma"}},  # 2 t on the linear path, as the other form
        {"sampling": {"rtol": 1e-3}},  # of a solver that was not used
        {"reference": {"features_count": 5000}},  # FID is of the statistics
        {"order": "permuted"},  # so is the order
        {"protocol": None},  # settings by hand, the same
        {"lossy": False},
        {"another": "key"},
    ],
    ids=str,
)
def test_what_moves_nothing_is_no_reason(settings: dict[str, Any]) -> None:
    assert reasons(**settings) == []


def test_a_setting_without_effect_on_another_path_is_one_there() -> None:
    card = find_card("sit-xl-repa").model_copy(update={"path": "cosine"})
    assert reasons(card=card, sampling={"diffusion": "sigma"}) == ["diffusion sigma instead of linear"]


def test_another_protocol_is_named_with_what_it_changes() -> None:
    other = find_protocol("haste").model_dump(mode="json")
    assert reasons(protocol="haste", sampling=other) == [
        "protocol haste instead of repa: cfg 1.65 instead of 1.8, interval [0, 0.72] instead of [0, 0.7]"
    ]
    other = find_protocol("sit-ode").model_dump(mode="json")
    assert reasons(protocol="sit-ode", sampling=other, rounding="nearest") == [
        "protocol sit-ode instead of repa: solver heun instead of euler-maruyama, steps 125 instead of 250, "
        "cfg 1.5 instead of 1.8, interval [0, 1] instead of [0, 0.7], channels 3 instead of all",
        "rounding nearest instead of truncate",
    ]


def test_a_protocol_that_draws_the_same_under_another_name_is_the_same() -> None:
    """haste-nocfg and repa-nocfg."""
    other = find_protocol("repa-nocfg").model_dump(mode="json")
    found = reasons(model="sit-b-haste", protocol="repa-nocfg", sampling=other, step=100_000)
    assert found == ["the figure is of weights that were not released, so this is another run of the training"]


def test_several_settings_are_several_reasons() -> None:
    assert len(reasons(count=1000, rounding="nearest", sampling={"steps": 50, "cfg": 1.5})) == 4


def test_what_is_not_stated_of_the_figure_is_a_reason() -> None:
    unstated = "the figure's protocol is not stated"
    assert reasons(model="sit-xl", step=7_000_000) == [unstated]
    assert reasons(model="sit-xl", step=7_000_000, key="is", order="permuted") == [
        unstated, "the samples were shuffled for the Inception Score, not taken in their order",
    ]  # fmt: skip
    figure = Result(key="fid", metric="FID", value=1.0, kind="reported", source="x", protocol="of yesterday")
    card = find_card("sit-xl-repa").model_copy(update={"results": [figure]})
    assert reasons(card=card) == [
        "the figure's protocol 'of yesterday' is not known here", "the figure's reference is not stated",
    ]  # fmt: skip


def test_order_matters_to_the_inception_score_and_images_of_the_reference_to_precision() -> None:
    figures = [
        Result(key=key, metric=key, value=1.0, kind="reported", source="x", protocol="repa", reference="imagenet256")
        for key in ("fid", "is", "precision", "recall")
    ]  # type: ignore[arg-type]
    card = find_card("sit-xl-repa").model_copy(update={"results": figures})
    found = expected(card=card, order="permuted", reference={"features_count": 5000}, labels="balanced")
    of_images = "5,000 images of the reference instead of 10,000"
    balanced = "balanced labels instead of random ones"
    assert {key: one.reasons for key, one in found.items()} == {
        "fid": [f"{balanced} {LOWER}"],
        "is": [balanced, "the samples were shuffled for the Inception Score, not taken in their order"],
        "precision": [balanced, of_images],
        "recall": [balanced, of_images],
    }


def test_the_figures_own_labels_count_and_settings_come_before_the_protocols() -> None:
    fields: dict[str, Any] = {"labels": "balanced", "count": 1000, "overrides": {"cfg": 3.5}}
    figure = find_card("sit-xl-repa").results[0].model_copy(update=fields)
    card = find_card("sit-xl-repa").model_copy(update={"results": [figure]})
    assert reasons(card=card) == [
        "cfg 1.8 instead of 3.5",
        "50,000 samples instead of 1,000",
        f"random labels instead of balanced ones {LOWER}",
    ]
    assert reasons(card=card, labels="balanced", count=1000, sampling={"cfg": 3.5}) == []


def test_weights_of_a_card_that_holds_them_are_told_by_their_digest() -> None:
    assert reasons(DIGITS, weights_sha256="01" * 32, weights="mine.safetensors") == [
        "weights with sha256 010101010101... instead of b1bcda998567..."
    ]
    assert reasons(DIGITS, weights_sha256=None) == ["weights with sha256 not recorded instead of b1bcda998567..."]
    same = find_card("sit-ti-digits-haste").weights
    assert same is not None and reasons(DIGITS, weights="copy.safetensors", weights_sha256=same.sha256) == []


def test_a_file_with_the_digest_of_a_cards_origin_is_the_cards() -> None:
    card = find_card("sit-s")
    figure = find_card("sit-xl-repa").results[0]
    card = card.model_copy(update={"results": [figure]})
    settings = {"step": None, "weights": "SiT-S-2-256.pt", "weights_sha256": card.origins[0].sha256}
    assert reasons(card=card, **settings) == []
    assert len(reasons(card=card, **{**settings, "weights_sha256": "00" * 32})) == 1


def test_a_figure_of_an_earlier_step_is_told_from_the_cards() -> None:
    nocfg = find_protocol("haste-nocfg").model_dump(mode="json")
    settings = {"model": "sit-b-haste", "protocol": "haste-nocfg", "sampling": nocfg}
    run = "the figure is of weights that were not released, so this is another run of the training"
    assert reasons(**settings, step=100_000) == [run]
    assert reasons(**settings, step=400_000) == ["weights of step 400,000, the figure is of step 100,000", run]
    assert reasons(**settings, step=None) == [
        "the step of the weights is not recorded, the figure is of step 100,000", run,
    ]  # fmt: skip


def test_published_figures_of_coco_are_never_comparable() -> None:
    drawing = find_protocol("coco").model_copy(update={"cfg": 3.5}).model_dump(mode="json")
    script = "the figure comes from U-ViT's script, not the ADM evaluator"
    settings: dict[str, Any] = {
        "model": "mmdit-coco-haste", "protocol": "coco", "sampling": drawing, "count": 40_192, "labels": None,
        "step": 250_000,
    }  # fmt: skip
    with_its_file = reasons(**settings, reference={"name": "coco256-val"})
    assert with_its_file[-1] == script and not any("labels" in one or "cfg" in one for one in with_its_file)
    ours = reasons(**settings, reference={"name": "my images"})
    assert ours[-2:] == ["reference my images instead of coco256-val", script]
    assert any("cfg 2.25 instead of 3.5" in one for one in reasons(**settings | {"sampling": {**drawing, "cfg": 2.25}}))
    card = find_card("mmdit-coco-haste")
    measured = card.model_copy(update={"results": [card.results[0].model_copy(update={"kind": "measured"})]})
    assert script not in reasons(card=measured, **settings, reference={"name": "coco256-val"})


def test_a_named_file_whose_digest_nobody_knows_was_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """imagenet256's is checked by its size; a copy of it under a path of its own is it, once its digest is known."""
    from hastezoo.evaluation.references.named import named_references

    names = dict(named_references())
    known = names["imagenet256"]
    copy = {"name": "/data/copy.npz"}
    assert known.bytes and reasons(reference=copy) == ["reference /data/copy.npz instead of imagenet256"]
    names["imagenet256"] = known.model_copy(update={"sha256": "ef" * 32})
    monkeypatch.setattr(expectations, "named_references", lambda: names)
    assert reasons(reference=copy) == []
    assert len(reasons(reference={**copy, "identity": {"kind": "npz", "sha256": "00" * 32}})) == 1
    names["imagenet256"] = known.model_copy(update={"sha256": "", "bytes": None})
    assert reasons() == ["the file that goes by the name imagenet256 was not verified to be it"]


def test_tiles_are_a_remark() -> None:
    found = expected(vae_tiling=True)["fid"]
    assert found.reasons == [] and "in tiles" in found.remarks[0] and expected(vae_tiling=False)["fid"].remarks == []


def test_precision_of_the_network_is_a_remark() -> None:
    found = expected(dtype="bfloat16")["fid"]
    assert found.reasons == [] and found.verdict(1.42, 0.02) == "agrees within the noise"
    assert found.remarks == ["drawn in bfloat16 (the sources of the figures do not state theirs)"]
    assert expected(DIGITS, dtype="bfloat16")["fid"].remarks == ["drawn in bfloat16"]


def test_figures_of_other_features_are_not_expected() -> None:
    assert expected(features="dinov2") == {} and expected(DIGITS, features="inception") == {}
    assert expected_for(Settings(), None) == []
    assert INCEPTION_SHA256.startswith(expectations.INCEPTION_SHA256)


def test_settings_may_be_typed() -> None:
    values = changed(REPA)["settings"]
    card = find_card("sit-xl-repa")
    assert expected_for(Settings.model_validate(values), card) == expected_for(values, card)


@pytest.mark.parametrize(
    ("name", "features", "protocol"),
    [
        ("sit-ti-digits-haste", "pixels", "digits-nocfg"),
        ("sit-ti-digits-haste", "inception", "digits"),
        ("sit-ti-digits-haste", None, "digits-nocfg"),
        ("sit-xl-haste", "inception", "haste"),
        ("sit-b-haste", "inception", "haste-nocfg"),
        ("sit-xl", "inception", "sit-ode"),  # the first figure states none
        ("sit-s", "inception", "sit-ode"),
    ],
)
def test_the_protocol_to_measure_with(name: str, features: str | None, protocol: str) -> None:
    assert default_protocol(find_card(name), features) == protocol


def test_the_figure_that_is_stated() -> None:
    figure = stated(find_card("sit-ti-digits-haste"))
    assert figure is not None and (figure.value, figure.features, figure.reference) == (10.6, "pixels", "digits")
    assert stated(find_card("sit-ti-digits-haste"), "inception") is None and stated(find_card("sit-s")) is None


@pytest.mark.parametrize("name", package_cards())
def test_measuring_a_card_as_its_figure_states_leaves_only_what_nobody_can_change(name: str) -> None:
    """The defaults of an evaluation are those of the figure: its protocol, count and reference, the card's weights."""
    card = find_card(name)
    figure = stated(card)
    if figure is None:
        return
    protocol = find_protocol(default_protocol(card)).model_copy(update=figure.overrides)
    values = changed(
        DIGITS if figure.features == "pixels" else REPA,
        model=name,
        protocol=default_protocol(card),
        sampling=protocol.model_dump(mode="json"),
        rounding=protocol.rounding,
        labels=protocol.labels if card.classes else None,
        count=figure.count or protocol.count,
        step=figure.step or card.steps,
        weights_sha256=card.weights.sha256 if card.weights else None,
        resolution=card.resolution,
        reference={"name": figure.reference},
        prompts={"source": "captions_val2014.json", "rule": FROZEN} if card.text else None,
    )["settings"]
    left = expected_for(values, card)[0].reasons
    known = ("not stated", "not released", "U-ViT's script", "was not verified", "which captions")
    assert all(any(part in reason for part in known) for reason in left), left
    assert left == [] or name not in ("sit-ti-digits", "sit-ti-digits-repa", "sit-ti-digits-haste", "sit-xl-repa")
