"""`hastezoo inspect`, as a user types it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hastezoo.cli.main import main
from hastezoo.data.images import decode
from hastezoo.data.order import permutation
from hastezoo.data.prepare import prepare
from hastezoo.digests import sha256_of
from tests.data.coco_making import captions_of
from tests.data.comparing import rows_of
from tests.data.making import COUNT, Given, Posterior, make, settings_of, write_photographs
from tests.data.test_prepared import damage

pytestmark = pytest.mark.usefixtures("alone")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments), "--device", "cpu"])


def good(*arguments: Any) -> str:
    result = run(*arguments)
    assert result.exit_code == 0 and result.stderr == "", result.output
    return result.stdout


def bad(*arguments: Any) -> str:
    """A failure: one line on stderr, no traceback, exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert result.stderr.startswith("error: ")
    return result.stderr.removeprefix("error: ").rstrip()


@pytest.fixture(scope="module")
def folder(tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inspect")
    images = write_photographs(place / "images")
    (images / "coffee" / "0.png").write_bytes(b"")
    make(images, place / "set", tiny_vae, flip=True)
    return place / "set"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("inspection.png")))


@pytest.fixture(scope="module")
def wrong(folder: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scaled before they were stored."""
    images, posterior = [decode(row["image"]["bytes"]) for row in rows_of(folder)], Posterior(tiny_vae)
    dest = tmp_path_factory.mktemp("wrong") / "set"
    prepare(Given(images, [posterior(one) * 0.18215 for one in images]), dest, settings_of(tiny_vae))
    return dest


def test_what_it_holds_and_that_it_is_sound(folder: Path, tiny_vae: Path) -> None:
    output = good(folder)
    facts = {
        line.split("  ")[0].strip(): line.split("  ", 1)[1].strip() for line in output.splitlines() if "  " in line
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert facts["data set"] == f"folder, {COUNT - 1} images 32 x 32 (png, crop adm-centre, with mirrored latents)"
    assert facts["from"] == manifest["source"] and facts["skipped"] == "1; coffee/0.png"
    assert facts["classes"] == "3, of 5 to 6 images, median 6"
    assert facts["latents"] == f"4 x 4 x 4 float16, mean-std, by {tiny_vae}"
    assert facts["3"].split() == [f"{manifest['latents'][key][3]:.4g}" for key in ("mean", "std", "posterior_std")]
    lines = output.splitlines()
    assert lines[-3] == "every file has the manifest's sha256"
    assert lines[-2].startswith("16 images encoded anew: largest relative error 0.000")
    assert lines[-1] == f"picture: {folder / 'inspection.png'} (each image beside what its latent decodes to)"


def test_the_picture_shows_images_beside_what_is_decoded(folder: Path, tmp_path: Path) -> None:
    """Five pairs, four a row; 32 px doubled, two pixels apart."""
    out = tmp_path / "x.png"
    assert f"picture: {out} " in good(folder, "--images", 5, "--out", out, "--no-digests")
    with Image.open(out) as picture:
        assert picture.size == (8 * 66 + 2, 2 * 66 + 2) and picture.format == "PNG"
        pixels = np.asarray(picture)
    rows, chosen = rows_of(folder), permutation(0, 0, COUNT - 1)[:5].tolist()
    for place, row in enumerate(chosen):
        top, left = 2 + 66 * (place // 4), 2 + 132 * (place % 4)
        assert np.array_equal(pixels[top : top + 64 : 2, left : left + 64 : 2], decode(rows[row]["image"]["bytes"]))
    assert pixels[80, 80].tolist() != [40, 40, 40]


def test_findings_as_json(folder: Path) -> None:
    found = json.loads(good(folder, "--json", "--images", 4))
    assert found["manifest"] == json.loads((folder / "manifest.json").read_text())
    assert found["digests"] is True and len(found["fingerprint"]) == 16
    trip = found["round_trip"]
    assert trip.keys() == {"images", "mean_error", "std_error", "psnr_db", "problem"}
    assert (
        trip["images"] == 4 and trip["problem"] is None and 0 < trip["mean_error"] < 0.001 and 0 < trip["psnr_db"] < 40
    )
    assert found["picture"] == str(folder / "inspection.png")


def test_without_the_autoencoder(copy: Path) -> None:
    output = good(copy, "--no-vae")
    assert output.endswith("every file has the manifest's sha256\nlatents: not held against their images (--no-vae)\n")
    found = json.loads(good(copy, "--no-vae", "--no-digests", "--json"))
    assert (found["round_trip"], found["picture"], found["digests"]) == (None, None, False)
    assert "files: sizes alone were checked" in good(copy, "--no-vae", "--no-digests")
    assert not (copy / "inspection.png").exists()


def test_latents_that_were_scaled_fail(wrong: Path, tiny_vae: Path) -> None:
    line = bad(wrong)
    assert line.startswith(f"{wrong} is not sound: the stored means are 0.182") and line.endswith("; prepare it again")
    result = run(wrong, "--json")
    assert result.exit_code == 2 and "they were scaled before" in json.loads(result.stdout)["round_trip"]["problem"]
    assert run(wrong, "--no-vae").exit_code == 0


def test_a_flipped_byte_fails(copy: Path) -> None:
    path = copy / "shard-00002.arrow"
    data = path.read_bytes()
    path.write_bytes(data[:3000] + bytes([data[3000] ^ 4]) + data[3001:])
    line = bad(copy, "--no-vae")
    assert line.startswith(f"the shard {path} is damaged (sha256 ")
    assert run(copy, "--no-vae", "--no-digests").exit_code == 0


def test_what_cannot_be_is_one_line(copy: Path, tiny_vae: Path, tmp_path: Path) -> None:
    assert bad(tmp_path / "nowhere").startswith(f"there is no folder {tmp_path / 'nowhere'}; `hastezoo prepare` makes")
    assert "it has no manifest.json" in bad(tiny_vae)
    assert bad(copy, "--vae", copy) == (
        f"the folder {copy} is no autoencoder of diffusers: it has no config.json; --no-vae leaves out what needs it"
    )
    line = bad(copy, "--out", tmp_path / "no" / "x.png")
    assert line == f"cannot write {tmp_path / 'no' / 'x.png'}: No such file or directory; give another --out"
    (copy / "shard-00000.arrow").unlink()
    assert (
        bad(copy) == f"the shard {copy / 'shard-00000.arrow'} is missing: copy it again, or prepare the data set anew"
    )


def test_the_autoencoder_may_have_moved(copy: Path, tiny_vae: Path, tmp_path: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["latents"]["vae"] = str(tmp_path / "gone")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert bad(copy).endswith("; --no-vae leaves out what needs it")
    assert "images encoded anew" in good(copy, "--vae", tiny_vae)


@pytest.fixture
def texts(captioned: Path, tmp_path: Path) -> Path:
    """A copy of the captioned data set."""
    return Path(shutil.copytree(captioned, tmp_path / "texts", ignore=shutil.ignore_patterns("inspection.png")))


def test_captions_are_shown_and_encoded_anew(texts: Path, tiny_clip: Path) -> None:
    output = good(texts, "--images", 5)
    assert f"captions     69, 5.75 an image, states 77 x 32 float16, by {tiny_clip}" in output
    assert "classes" not in output
    chosen = permutation(0, 0, 12)[:5].tolist()
    counted = sum(len(captions_of(index)) for index in chosen)
    lines = output.splitlines()
    assert re.fullmatch(rf"{counted} captions encoded anew: largest relative error \d\S* of their states", lines[-7])
    assert lines[-6] == "first captions of 5 images, the first of the picture:"
    assert lines[-5:] == [f"{place:3}  {captions_of(index)[0]}" for place, index in enumerate(chosen, 1)]
    found = json.loads(good(texts, "--images", 2, "--json"))["captions"]
    assert found["problem"] is None and found["count"] == sum(len(captions_of(index)) for index in chosen[:2])
    assert 0 <= found["error"] < 2e-3


def test_without_the_text_encoder(texts: Path, tiny_clip: Path, tmp_path: Path) -> None:
    manifest = json.loads((texts / "manifest.json").read_text())
    manifest["text"]["encoder"] = str(tmp_path / "gone")
    (texts / "manifest.json").write_text(json.dumps(manifest))
    assert bad(texts, "--no-vae", "--json").endswith("; --no-text-encoder leaves out what needs it")
    assert "captions encoded anew" in good(texts, "--no-vae", "--text-encoder", tiny_clip)
    output = good(texts, "--no-vae", "--no-text-encoder")
    assert "states: not held against their captions (--no-text-encoder)\nfirst captions of 8 images:\n" in output


def spoilt(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """With other states in all rows, and the digests to go with them."""
    for number in range(12):

        def changed(row: dict[str, Any]) -> dict[str, Any]:
            states = np.frombuffer(row["states"], "<f2").reshape(-1, 77, 32)
            return {**row, "states": np.ascontiguousarray(change(states)).tobytes()}

        damage(folder, changed, number)
    return folder


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda states: states[::-1], "are those of its captions in another order; prepare it again"),
        (
            lambda states: states * np.float16(1.1),
            "are not what the text encoder makes of them: another text encoder, ",
        ),
        (lambda states: states[:, ::-1], "are not what the text encoder makes of them: another text encoder, "),
    ],
)
def test_states_of_something_else_fail(texts: Path, change: Any, problem: str) -> None:
    spoilt(texts, change)
    result = run(texts, "--no-vae", "--images", 3)
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {texts} is not sound: the ")
    assert problem in result.stderr and result.stderr.count("\n") == 1


def test_another_empty_caption_fails(texts: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = texts / "empty.safetensors"
    save_file({"states": load_file(path)["states"] * 1.5}, path)
    manifest = json.loads((texts / "manifest.json").read_text())
    manifest["text"]["empty"]["sha256"] = sha256_of(path)
    (texts / "manifest.json").write_text(json.dumps(manifest))
    result = run(texts, "--no-vae", "--images", 1)
    assert result.exit_code == 2
    assert "the states of the empty caption are not what the text encoder makes of it; prepare it" in result.stderr
