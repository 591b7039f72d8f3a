"""`hastezoo reference`, as a user types it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hastezoo.cli.main import main
from hastezoo.data import digits
from hastezoo.evaluation.extractors import POOL, Pixels
from hastezoo.evaluation.references import load_reference
from tests.evaluation.sources import Eye, adm, pixels, save, write_files
from tests.evaluation.test_npz import read_bytes


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["reference", *map(str, arguments)])


def good(*arguments: Any) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def bad(*arguments: Any) -> str:
    """A failure: one line on stderr, no traceback, exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert result.stderr.startswith("error: ") and not result.stdout
    return result.stderr.removeprefix("error: ").rstrip()


def facts(output: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in output.splitlines() if "  " in line.strip())
    return {name.strip(): value.strip() for name, value in pairs}


@pytest.fixture
def eye(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A stand-in for Inception; how it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def create(name: str, *, weights: Path | None = None, device: str = "auto", progress: Any = None) -> Any:
        asked.append((name, weights, device))
        return Pixels() if name == "pixels" else Eye(name)

    monkeypatch.setattr("hastezoo.evaluation.extractors.create_extractor", create)
    return asked


def test_build_and_use(tmp_path: Path) -> None:
    out = tmp_path / "ref.safetensors"
    result = run("build", "digits", "--features", "pixels", "--out", out)
    assert result.exit_code == 0 and result.stdout == f"{out}: statistics of 1,797 images, features of 1,797\n"
    assert result.stderr.startswith("pixels statistics of scikit-learn's handwritten digits, all 1,797: kept in ")
    found = load_reference(str(out), Pixels())
    assert np.allclose(found.moments[POOL].mean, digits.load("all")[0].mean(0), rtol=1e-12)
    again = run("build", "digits", "--features", "pixels", "--out", tmp_path / "b.safetensors")
    assert "computed before, read from" in again.stderr
    quiet = run("build", "digits-test", "--features", "pixels", "--out", tmp_path / "c.safetensors", "--quiet")
    assert quiet.exit_code == 0 and quiet.output == ""


def test_options_reach_what_they_are_for(eye: list[tuple[Any, ...]], tmp_path: Path) -> None:
    folder, out = write_files(tmp_path / "x", pixels(9, side=16)), tmp_path / "ref.npz"
    good("build", folder, "--out", out, "--size", 8, "--inception", "w.pth", "--device", "cpu", "--batch-size", 4)
    assert eye == [("inception", Path("w.pth"), "cpu")]
    with np.load(out) as file:
        assert file["arr_0"].shape == (9, 8, 8, 3) and file["mu"].shape == (6,)
    good("build", folder, "--out", tmp_path / "a.safetensors", "--features", "dinov2", "--dinov2", "place")
    assert eye[1] == ("dinov2", Path("place"), "auto")


def test_what_cannot_be_is_one_line(eye: list[tuple[Any, ...]], tmp_path: Path) -> None:
    out = tmp_path / "ref.safetensors"
    assert bad("build", "digits", "--out", out, "--features", "pixels", "--inception", "x.pth") == (
        "--inception goes with --features inception, not pixels; leave it out"
    )
    assert bad("build", "digitz", "--out", out).endswith("; nearest: digits")
    assert bad("build", "digits", "--out", tmp_path / "ref.pt").endswith("or in .npz for the ADM evaluator")
    assert bad("build", "digits", "--out", out, "--size", 16).startswith("digits holds images of 8 x 8 pixels")
    good("build", "digits", "--out", out)
    assert bad("build", "digits", "--out", out) == f"{out} is there already; give another --out, or --force"
    good("build", "digits", "--out", out, "--force")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_few_images_are_warned_of_in_a_line(eye: list[tuple[Any, ...]], tmp_path: Path) -> None:
    source = save(tmp_path / "x.npz", arr_0=pixels(5))
    result = run("build", source, "--out", tmp_path / "ref.safetensors", "--quiet")
    assert result.exit_code == 0 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("warning: 5 images are too few for 6 dimensions")


def test_ctrl_c_leaves_nothing(eye: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Eye, images: np.ndarray) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Eye, "__call__", interrupted)
    (tmp_path / "out").mkdir()
    result = run("build", "digits", "--out", tmp_path / "out" / "ref.safetensors")
    assert result.exit_code == 130 and result.stderr == "interrupted\n"
    assert not list((tmp_path / "out").iterdir())


def test_info_of_our_own_file(eye: list[tuple[Any, ...]], tmp_path: Path) -> None:
    out = tmp_path / "r.safetensors"
    good("build", "digits-test", "--features", "pixels", "--out", out)
    shown = facts(good("info", out))
    assert shown["kind"] == "a file of `hastezoo reference build`" and shown["images"] == "360"
    assert shown["holds"] == "features F32 (360, 64), mu F64 (64,), sigma F64 (64, 64)"
    assert (
        shown["image size"] == "8 x 8 x 1"
        and shown["lossy"] == "no"
        and shown["metrics"] == "fid, precision, recall, kid"
    )
    assert shown["features"] == "pixels (features pixels, scale bytes x 16 / 255)"
    assert shown["not there"] == "spatial: pixels has no spatial features"
    found = json.loads(good("info", out, "--json"))
    assert found["kind"] == "reference" and found["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert found["bytes"] == out.stat().st_size and found["count"] == 360 and found["extractor"] == Pixels().identity


def test_info_of_the_evaluators_file(tmp_path: Path) -> None:
    found = json.loads(good("info", adm(tmp_path / "x.npz", pixels(20)), "--json"))
    assert found["kind"] == "npz" and found["metrics"] == ["fid", "sfid", "precision", "recall", "kid"]
    assert found["arrays"]["arr_0"] == "uint8 (20, 8, 8, 3)" and found["arrays"]["sigma"] == "float64 (6, 6)"
    assert (found["images"], found["shape"], found["count"], found["missing"]) == (20, [8, 8, 3], None, {})
    found = json.loads(good("info", adm(tmp_path / "y.npz", mu_s=None, sigma_s=None), "--json"))
    assert found["metrics"] == ["fid"] and found["images"] is None
    assert found["missing"] == {"spatial": "no mu_s and sigma_s", "features": "no images (arr_0)"}
    shown = facts(good("info", tmp_path / "y.npz"))
    assert shown["not there"] == "spatial: no mu_s and sigma_s; features: no images (arr_0)"
    assert shown["images"] == "not stated"


def test_info_of_images(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(5), "jpg")
    shown = facts(good("info", folder))
    assert shown["lossy"] == "yes, such as JPEG" and shown["images"] == "5" and shown["image size"] == "8 x 8 x 3"
    found = json.loads(good("info", save(tmp_path / "y.npz", arr_0=pixels(5)), "--json"))
    assert found["kind"] == "images" and found["arrays"] == {"arr_0": "uint8 (5, 8, 8, 3)"} and found["count"] == 5


def test_info_of_published_files(own_home: Path) -> None:
    shown = facts(good("info", "imagenet256"))
    assert shown["kind"] == "published, and not here" and shown["images"] == "1,281,167"
    found = json.loads(good("info", "coco256-val", "--json"))
    assert found["kind"] == "absent" and found["metrics"] == [] and found["count"] is None
    assert found["get"].endswith(f"put it at {own_home / 'references' / 'fid_stats_mscoco256_val.npz'}")
    assert found["note"].startswith("mu and sigma alone, made by another script")
    (own_home / "references").mkdir(parents=True)
    adm(own_home / "references" / "VIRTUAL_imagenet512.npz", pixels(20))
    found = json.loads(good("info", "imagenet512", "--json"))
    assert (found["name"], found["count"], found["images"]) == ("imagenet512", 1_281_167, 20)


def test_info_reads_headers(eye: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the digest, which is recorded the first time."""
    monkeypatch.setattr("hastezoo.digests.SMALL", 0)
    path = adm(tmp_path / "x.npz", pixels(400, side=64))
    good("build", path, "--out", tmp_path / "y.safetensors")
    good("info", path)
    before = read_bytes()
    good("info", path)
    assert read_bytes() - before < 1 << 20 < path.stat().st_size / 4


def test_info_of_what_is_nothing(tmp_path: Path) -> None:
    assert bad("info", "nothing").startswith("there is no file, folder or name 'nothing'")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "is truncated or damaged" in bad("info", tmp_path / "x.npz")
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert "is not a readable safetensors file" in bad("info", tmp_path / "x.safetensors")


def test_looking_loads_nothing_heavy(tmp_path: Path) -> None:
    path = adm(tmp_path / "x.npz", pixels(5))
    code = (
        "import sys\nfrom hastezoo.cli.main import main\n"
        f"for arguments in (['imagenet256'], [{str(path)!r}], [{str(tmp_path)!r}]):\n"
        "    try:\n        main(['reference', 'info', *arguments], prog_name='hastezoo')\n"
        "    except SystemExit:\n        pass\n"
        "print('LOADED', *[name for name in ('torch', 'datasets', 'sklearn', 'scipy') if name in sys.modules])"
    )
    write_files(tmp_path, pixels(3))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.rstrip().endswith("LOADED"), result.stdout + result.stderr
