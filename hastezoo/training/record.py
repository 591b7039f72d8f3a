"""What a run is of, beside its settings: written by a recipe into `run.json`, read when the run is exported."""

from __future__ import annotations

import datetime
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hastezoo import __version__
from hastezoo.errors import UserError, explain
from hastezoo.files import write_json
from hastezoo.zoo.card import Autoencoder, Text

FILE = "run.json"
Model = TypeVar("Model", bound=BaseModel)


class RunRecord(BaseModel):
    """Attributes:
    recipe: Module of `hastezoo.recipes`.
    checkpoint: Name of the card that the recipe trains.
    command: As it was typed.
    device, processes: Where it runs; of the latest start.
    data: The data set in words.
    samples: How many it has.
    class_list: Name of the list of class names; empty where `classes` says them.
    classes: Class names by label, of a data set of the user's own.
    text: What makes conditions of prompts, of a model of text, which has no classes.
    resolution: Side of the images in pixels.
    autoencoder: What made the latents, or none.
    hastezoo, torch, python, date: Versions, and the day of the latest start.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    recipe: str
    checkpoint: str
    command: str = ""
    device: str = ""
    processes: int = 1
    data: str = ""
    samples: int = 0
    class_list: str = ""
    classes: tuple[str, ...] = ()
    text: Text | None = None
    resolution: int
    autoencoder: Autoencoder = Autoencoder()
    hastezoo: str = __version__
    torch: str = ""
    python: str = platform.python_version()
    date: str = ""

    def write(self, out: Path) -> None:
        """Write it into a run's folder, dated today."""
        import torch

        dated = self.model_copy(update={"date": datetime.date.today().isoformat(), "torch": torch.__version__})
        write_json(out / FILE, dated.model_dump(mode="json"))

    @classmethod
    def read(cls, out: Path) -> Self:
        """The record of a run.

        Raises:
            UserError: If the folder has none that can be read.
        """
        return read_json(out / FILE, cls)


def read_json(path: Path, kind: type[Model]) -> Model:
    """A file of a run's folder.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no run of a recipe: it has no {path.name}") from None
    except ValidationError as error:
        raise UserError(explain(error, kind, str(path))) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def typed_command(module: str) -> str:
    """`python -m MODULE` with the arguments of this process, quoted; nothing where another module was started."""
    if Path(sys.argv[0]).stem != module.rpartition(".")[2]:
        return ""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])
