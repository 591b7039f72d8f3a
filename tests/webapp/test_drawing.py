"""The work of Generate without a page: one pipeline at a time, whole folders or none, the images of the pipeline."""

from __future__ import annotations

import gc
import json
import time
import weakref
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hastezoo.conditioning.labels import label_of_seed
from hastezoo.pipeline import Pipeline
from hastezoo.webapp import forms
from hastezoo.webapp.drawing import Drawn
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.turns import Ticket
from tests.webapp.test_turns import wait

PLAIN, HASTE = "sit-ti-digits", "sit-ti-digits-haste"


def draw(studio: Studio, model: str = HASTE, **values: Any) -> Ticket:
    return studio.draw(forms.read(forms.DrawForm, {"model": model, "steps": 2, "number": 2, **values}))


def drawn(studio: Studio, model: str = HASTE, **values: Any) -> Drawn:
    ticket = wait(draw(studio, model, **values), 60)
    assert ticket.state == "done", ticket.error
    result = ticket.result
    assert isinstance(result, Drawn)
    return result


def test_the_images_are_those_of_the_pipeline(studio: Studio) -> None:
    result = drawn(studio, classes=["three", 8], seed="5", cfg=1.5)
    expected = Pipeline.from_pretrained(HASTE)(
        classes=[3, 3, 8, 8], seeds=[5, 6, 5, 6], steps=2, cfg=1.5, batch_size=result.request.batch_size
    )
    pixels = [np.asarray(Image.open(path))[..., None] for path in result.files]
    assert np.array_equal(pixels, expected.pixels)
    assert result.captions == [f"{name} · seed {seed}" for name in ("3 three", "8 eight") for seed in (5, 6)]
    assert (result.evaluations, result.passes) == (expected.evaluations, expected.passes)


def test_without_a_class_each_is_drawn_from_its_seed(studio: Studio) -> None:
    result = drawn(studio, seed="11", number=5)
    assert result.request.labels == [label_of_seed(seed, 10) for seed in range(11, 16)]


def test_the_archive_holds_the_files_and_is_the_same_each_time(studio: Studio) -> None:
    first, second = (drawn(studio, classes=[1]) for _ in range(2))
    assert first.folder != second.folder
    with zipfile.ZipFile(first.archive) as archive, zipfile.ZipFile(second.archive) as other:
        names = [path.name for path in first.files]
        assert archive.namelist() == [*names, "samples.json"]
        for name in names:
            assert archive.read(name) == other.read(name) == (first.folder / name).read_bytes()
        assert json.loads(archive.read("samples.json"))["request"]["seeds"] == [0, 1]


def test_the_progress_is_that_of_steps_and_batches(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    report = Ticket.report

    def watched(self: Ticket, **changes: Any) -> None:
        report(self, **changes)
        seen.append((self.progress.fraction, self.progress.step, self.progress.evaluations, self.progress.text))

    monkeypatch.setattr(Ticket, "report", watched)
    monkeypatch.setattr(Pipeline, "batch_size", lambda self, asked: 2)
    drawn(studio, number=3, steps=4)
    steps = [one for one in seen if one[1]]
    # Two images at a time of three: four steps take the bar to 2/3, four more to the end; a Heun step evaluates twice,
    # the last one once.
    assert [round(one[0], 4) for one in steps[:4]] == [round(2 / 3 * n / 4, 4) for n in (1, 2, 3, 4)]
    assert [one[1:3] for one in steps[:4]] == [(1, 2), (2, 4), (3, 6), (4, 7)]
    assert steps[-1][0] == pytest.approx(1)
    assert steps[-2][3] == "2 of 3 images done"


def test_the_preview_is_the_predicted_clean_image(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64
    import io

    from hastezoo import pictures
    from hastezoo.autoencoders import to_bytes
    from hastezoo.sampling.solvers import StepInfo

    previews = []
    report = Ticket.report

    def watched(self: Ticket, **changes: Any) -> None:
        report(self, **changes)
        if "preview" in changes:
            previews.append(changes["preview"])

    monkeypatch.setattr(Ticket, "report", watched)
    drawn(studio, number=3, steps=2)
    infos: list[StepInfo] = []
    pipe = Pipeline.from_pretrained(HASTE)
    pipe(seeds=[0, 1, 2], steps=2, callback=infos.append)
    expected = pictures.grid(to_bytes(pipe.autoencoder.decode(infos[0].clean), "nearest").numpy())
    data = base64.b64decode(previews[0].removeprefix("data:image/webp;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("L")), np.asarray(expected))


def test_cancelling_stops_within_a_step_and_leaves_nothing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(studio)
    ticket = draw(studio, steps=3000, number=4)
    while ticket.progress.step < 3:
        time.sleep(0.002)
    studio.turns.cancel(ticket.id)
    stopped_at = ticket.progress.step
    assert wait(ticket).state == "cancelled"
    assert ticket.progress.step <= stopped_at + 1
    assert not studio.outputs.folder(ticket.id).exists()
    assert drawn(studio).files


def test_switching_the_checkpoint_frees_the_one_before(studio: Studio) -> None:
    drawn(studio, PLAIN)
    first = weakref.ref(studio.shelf._pipeline.network)  # type: ignore[union-attr]
    assert studio.shelf.loaded == PLAIN
    drawn(studio, PLAIN)
    assert first() is not None, "it was loaded again for nothing"
    drawn(studio, HASTE)
    gc.collect()
    assert first() is None
    assert studio.shelf.loaded == HASTE


def test_a_checkpoint_that_cannot_be_had_is_one_line_and_leaves_nothing(studio: Studio) -> None:
    before = set(studio.outputs.images.iterdir())
    ticket = wait(draw(studio, "sit-b-haste"), 60)
    assert ticket.state == "failed"
    assert "sit-b-haste" in ticket.error and "\n" not in ticket.error
    assert set(studio.outputs.images.iterdir()) == before
    assert drawn(studio).files, "the next one suffers"


def test_a_full_disk_is_told_and_leaves_nothing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hastezoo.webapp.drawing.pack", full)
    ticket = wait(draw(studio), 60)
    assert (ticket.state, ticket.error) == ("failed", "the system refused: No space left on device")
    assert not studio.outputs.folder(ticket.id).exists()
