"""What is refused or warned of before anything is drawn, and what is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors.inception import SHA256
from hastezoo.evaluation.references import Reference, reference_of
from hastezoo.evaluation.run import GRID, Plan, check, default_folder, evaluate, prepare_features
from tests.evaluation.invented import Invented, Toy


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(Invented(60), Toy(), 60, tmp_path / "out", batch_size=16, metrics=("fid",))


@pytest.fixture
def reference(plan: Plan) -> Reference:
    return reference_of(Invented(50, seed=1), plan.extractor, name="real")


def test_what_can_be_compared_passes_in_silence(plan: Plan, reference: Reference) -> None:
    assert check(plan, reference) == []


def test_sizes_that_differ_are_refused(plan: Plan, reference: Reference) -> None:
    with pytest.raises(UserError, match="the samples are 4 x 4 pixels, the reference real is of 6 x 5"):
        check(plan, replace(reference, shape=(5, 6, 3)))
    assert check(plan, replace(reference, shape=None)) == []
    assert check(plan, replace(reference, shape=(4, 4, 3))) == []


def test_statistics_of_other_widths_are_refused(plan: Plan, reference: Reference) -> None:
    class Wide(Toy):
        def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
            return {"pool": 7, "spatial": 4}

    with pytest.raises(UserError, match="has pool statistics of 6 dimensions, the samples' have 7"):
        check(replace(plan, extractor=Wide()), reference)


def test_counts_are_those_there_are(plan: Plan, reference: Reference) -> None:
    with pytest.raises(UserError, match="61 images cannot be had: invented has 60"):
        check(replace(plan, count=61), reference)
    with pytest.raises(UserError, match="fewer than the 6 dimensions"):
        check(replace(plan, count=5), reference)
    assert check(replace(plan, count=5, allow_few=True), reference) == []


def test_compression_of_one_side_is_warned_of(plan: Plan, reference: Reference) -> None:
    (line,) = check(plan, replace(reference, lossy=True))
    assert line.startswith("the reference is JPEG and the samples are not")
    assert check(plan, replace(reference, lossy=None)) == []


def test_published_statistics_and_other_weights_are_warned_of(plan: Plan, reference: Reference) -> None:
    stated = replace(reference, stated=True)
    (line,) = check(plan, stated)
    assert "are of the Inception weights of 2015-12-05" in line and "says nothing about the images" in line
    extractor = Toy()
    extractor.identity = {"weights_sha256": SHA256}
    assert check(replace(plan, extractor=extractor), stated) == []


def test_an_evaluation_can_be_asked_for_in_python(plan: Plan, reference: Reference) -> None:
    told: list[int] = []
    outcome = evaluate(plan, reference, progress=told.append)
    assert outcome.measured.metrics["fid"].value is not None and told[-1] == 60
    assert outcome.settings["count"] == 60 and outcome.settings["reference"]["name"] == "real"
    sheet = np.asarray(Image.open(plan.out / GRID))
    assert np.array_equal(sheet[2:66:16, 2:66:16], Invented(1).read(0, 1)[0, :, :, 0]), "the first image, enlarged"


def test_a_process_that_does_not_write_makes_its_share(plan: Plan) -> None:
    images = Invented(1200)
    prepare_features(replace(plan, images=images, count=1200, rank=1, ranks=2, batch_size=500))
    assert images.asked == [(500, 1000)] and not (plan.out / GRID).exists()


def test_the_folder_is_a_function_of_images_and_extractor() -> None:
    one = default_folder(Invented(60), Toy())
    assert one == default_folder(Invented(90), Toy()) and one.parent == Path("outputs")
    other = Toy()
    other.identity = {"features": "others"}
    assert len({one, default_folder(Invented(60, seed=1), Toy()), default_folder(Invented(60), other)}) == 3
