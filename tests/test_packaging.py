"""The package as a user gets it: `python -m hastezoo.recipes.digits` uninstalled, editable and plainly installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

COPIED = ("hastezoo", "recipes", "pyproject.toml", "README.md", "LICENSE")


def works(folder: Path, paths: list[Path], expected: Path | None) -> None:
    """The recipe's help runs from `folder` with `paths` on PYTHONPATH, and comes from below `expected`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [sys.executable, "-m", "hastezoo.recipes.digits", "--help"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "--checkpoint" in result.stdout
    code = "import hastezoo.recipes.digits as recipe, hastezoo; print(recipe.__file__); print(hastezoo.__file__)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    if expected is not None:
        for file in result.stdout.split():
            assert Path(file).is_relative_to(expected), result.stdout


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout") / "repo"
    copy.mkdir()
    for name in COPIED:
        source = root / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("plain") / "site"
    # The build gets a copy of its own: it leaves files beside the sources.
    source = shutil.copytree(checkout, target.parent / "source")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=180)
    return target


def test_uninstalled_from_the_checkout(checkout: Path) -> None:
    works(checkout, [], checkout)


def test_uninstalled_from_elsewhere(checkout: Path, tmp_path: Path) -> None:
    works(tmp_path, [checkout], checkout)


def test_plainly_installed(installed: Path, tmp_path: Path) -> None:
    works(tmp_path, [installed], installed)


def test_as_it_is_installed_here(root: Path, tmp_path: Path) -> None:
    """Under `make test` that is editable."""
    try:
        url = json.loads(metadata.distribution("hastezoo").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        pytest.skip("hastezoo is not installed here")
    editable = url.get("dir_info", {}).get("editable", False)
    works(tmp_path, [], root if editable else None)
    works(root, [], root)


def test_installed_copy_holds_its_data(installed: Path, root: Path) -> None:
    for pattern in (
        "zoo/cards/*.toml",
        "zoo/embedded/*.safetensors",
        "zoo/*.toml",
        "conditioning/classes/*.json",
        "data/*.json",
        "training/*.toml",
        "evaluation/references/*.toml",
        "recipes/*.toml",
        "recipes/launch/*",
        "webapp/assets/*",
    ):
        home = root if pattern.startswith("recipes/") else root / "hastezoo"
        wanted = {path.name for path in home.glob(pattern)}
        assert wanted and wanted == {path.name for path in (installed / "hastezoo").glob(pattern)}
    assert (installed / "hastezoo" / "py.typed").exists()


def test_list_of_packages_is_complete(root: Path) -> None:
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(root).parts) for path in (root / "hastezoo").rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"hastezoo.recipes"})


def test_requirements_of_a_space_are_those_of_the_package(root: Path) -> None:
    wanted = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (root / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == wanted


def test_version_and_citation_agree(root: Path) -> None:
    import hastezoo

    assert f'version: "{hastezoo.__version__}"' in (root / "CITATION.cff").read_text()
