"""What is loaded when, and which room may know which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "timm",
    "torchvision",
    "sklearn",
    "scipy",
    "matplotlib",
    "torchdiffeq",
    "diffusers",
    "transformers",
    "huggingface_hub",
    "datasets",
    "pyarrow",
    "tensorboard",
    "torch_fidelity",
    "gradio",
)

# From the design: a room may import itself, the ground floor, and what is named here.
GROUND = {"errors", "files", "pictures", "axes", "stores", "home", "digests", "hub", "__init__"}
BELOW: dict[str, set[str]] = {
    "models": set(),
    "sampling": set(),
    "autoencoders": set(),
    "devices": set(),
    "conditioning": set(),
    "board": set(),
    "peers": set(),
    "heartbeat": {"board", "peers"},
    "processes": {"heartbeat"},
    "zoo": {"models", "sampling", "autoencoders", "conditioning", "devices"},
    "alignment": {"models", "devices"},
    "data": {"autoencoders", "conditioning", "devices", "models", "sampling"},
    "evaluation": {
        "pipeline",
        "processes",
        "data",
        "zoo",
        "autoencoders",
        "conditioning",
        "models",
        "sampling",
        "devices",
    },
    "loading": {"zoo", "autoencoders", "conditioning", "models", "sampling"},
    "pipeline": {"loading", "zoo", "autoencoders", "conditioning", "models", "sampling", "devices"},
    "request": {"conditioning", "sampling"},
    "asking": {"request", "pipeline", "zoo", "conditioning", "sampling"},
    "commands": {"asking", "request", "zoo", "autoencoders", "conditioning", "sampling"},
    "trajectory": {"autoencoders", "sampling"},
    "job": {"request", "pipeline", "trajectory", "zoo", "autoencoders", "conditioning", "sampling"},
    "training": {
        "processes",
        "data",
        "zoo",
        "autoencoders",
        "conditioning",
        "models",
        "sampling",
        "devices",
        "alignment",
    },
    "webapp": {
        "asking",
        "commands",
        "trajectory",
        "request",
        "job",
        "pipeline",
        "evaluation",
        "zoo",
        "autoencoders",
        "conditioning",
        "sampling",
        "devices",
    },
}
STRICT = {"models", "sampling"}  # these import nothing else of hastezoo, not even the ground floor


def loaded_by(*arguments: str) -> set[str]:
    """The heavy packages that a command leaves in sys.modules."""
    code = (
        "import sys\nfrom hastezoo.cli.main import main\n"
        f"try:\n    main({list(arguments)!r}, prog_name='hastezoo')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("LOADED", 1)[1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("list",),
        ("list", "--json"),
        ("list", "--markdown"),
        ("info", "sit-ti-digits"),
        ("info", "sit-xl-haste"),
        ("classes", "retriever", "--model", "sit-xl"),
        ("cache", "list"),
        ("sample", "--help"),
        ("diagnose", "--help"),
        ("compare", "--help"),
        ("prepare", "--help"),
        ("prepare", "coco256", "--help"),
        ("inspect", "--help"),
        ("reference", "--help"),
        ("reference", "build", "--help"),
        ("export", "--help"),
        ("app", "--help"),
        ("--version",),
    ],
    ids=" ".join,
)
def test_looking_around_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert loaded_by(*arguments) == set()


def test_sampling_loads_torch_and_nothing_else_heavy(tmp_path: Path) -> None:
    assert loaded_by("sample", "-n", "2", "--steps", "2", "--out", str(tmp_path / "x")) == {"torch"}


def test_the_public_names_are_lazy() -> None:
    code = "import sys, hastezoo as h; h.list_checkpoints(); h.list_architectures(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False", result.stderr


def imports_of(path: Path) -> set[str]:
    """The rooms of hastezoo that a file imports, at the top or inside a function; not those for type checking."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "hastezoo" and len(parts) > 1:
                rooms.add("__init__" if parts[1].startswith("__") else parts[1])
    return rooms


def test_dependencies_point_down(root: Path) -> None:
    package = root / "hastezoo"
    for room, allowed in BELOW.items():
        files = list((package / room).rglob("*.py")) if (package / room).is_dir() else [package / f"{room}.py"]
        assert files
        for path in files:
            ground = set() if room in STRICT else GROUND
            outside = imports_of(path) - {room} - allowed - ground
            assert not outside, f"{path.relative_to(root)} imports {sorted(outside)}"


def test_every_room_is_in_the_plan(root: Path) -> None:
    rooms = {
        path.stem for path in (root / "hastezoo").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - GROUND - {"__main__", "cli"} == set(BELOW)


def test_training_knows_neither_pipeline_nor_evaluation(root: Path) -> None:
    for path in (root / "hastezoo" / "training").glob("*.py"):
        assert not imports_of(path) & {"pipeline", "evaluation", "job", "cli"}
