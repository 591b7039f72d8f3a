"""Where a run's numbers and pictures go beside `metrics.jsonl`: TensorBoard and Weights & Biases, chosen by name.

What is written here is a convenience, and the run's own files are the record: a tracker that fails once the run is
under way says so in one warning and is switched off, and the run goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hastezoo.errors import UserError, nearest
from hastezoo.files import write_json

WANDB_FILE = "wandb.json"
TENSORBOARD_FOLDER = "tensorboard"


class Tracker(Protocol):
    """Something that a run tells its numbers to. Only the main process has any."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take note of numbers, by name, after `step` steps."""

    def image(self, step: int, name: str, path: Path) -> None:
        """Take note of a picture, a file that stays where it is."""

    def close(self) -> None:
        """Send what is still to be sent. Nothing is logged after it."""


def create_trackers(names: Sequence[str], out: Path, config: Mapping[str, Any], step: int) -> list[Tracker]:
    """Trackers by name, each guarded: no exception of theirs reaches the run once they are made.

    Args:
        names: `tensorboard`, `wandb`; naming one twice makes one.
        out: The run's folder.
        config: The run's settings as JSON values.
        step: Steps done by the checkpoint that the run goes on from, 0 for a new run.

    Raises:
        UserError: If a name is unknown, its package is not installed, or it cannot be begun.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in TRACKERS:
            near = nearest(name, TRACKERS) or list(TRACKERS)
            raise UserError(f"unknown tracker {name!r}; nearest: {', '.join(near)}")
    trackers: list[Tracker] = []
    try:
        for name in chosen:
            trackers.append(_Guarded(name, _begin(name, out, config, step)))
    except BaseException:
        for tracker in trackers:
            tracker.close()
        raise
    return trackers


def _begin(name: str, out: Path, config: Mapping[str, Any], step: int) -> Tracker:
    try:
        return TRACKERS[name](out, config, step)
    except UserError:
        raise
    except ImportError:
        raise UserError(
            f"the tracker {name} needs a package that is not installed: pip install 'hastezoo[{name}]'"
        ) from None
    except Exception as error:
        raise UserError(f"the tracker {name} could not be begun: {_one_line(error)}; leave it out to train") from None


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


class _Guarded:
    """A tracker whose first failure is a warning, and its last word."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker, self.alive = name, tracker, True

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._attempt(lambda: self.tracker.log(step, values), f"at step {step}")

    def image(self, step: int, name: str, path: Path) -> None:
        self._attempt(lambda: self.tracker.image(step, name, path), f"at step {step}")

    def close(self) -> None:
        self._attempt(self.tracker.close, "when it was closed")
        self.alive = False

    def _attempt(self, work: Callable[[], None], when: str) -> None:
        if not self.alive:
            return
        try:
            work()
        except Exception as error:
            self.alive = False
            warnings.warn(
                f"the tracker {self.name} failed {when} ({_one_line(error)}) and is switched off; "
                "the run goes on, and metrics.jsonl has everything",
                stacklevel=3,
            )
            with contextlib.suppress(Exception):  # so that what it took before is not lost
                self.tracker.close()


class TensorBoard:
    """Event files in `out/tensorboard`: `tensorboard --logdir RUN/tensorboard`.

    A resumed run marks what was logged after the step it goes on from as void, so that no step stands twice; so does
    one that begins again because it was killed before its first checkpoint.
    """

    def __init__(self, out: Path, config: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(log_dir=str(out / TENSORBOARD_FOLDER), purge_step=step + 1 if step else 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # logging is rare, and a kill must not leave a gap before a checkpoint

    def image(self, step: int, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))  # (H, W, 3), uint8
        self.writer.add_image(name, pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, the same one whenever the folder's run goes on.

    Its id is kept in `out/wandb.json`; project, entity and mode are W&B's own settings (`WANDB_PROJECT`, by default
    hastezoo, `WANDB_ENTITY`, `WANDB_MODE=offline`). W&B takes no step before its newest, so steps that a resumed run
    takes again are not logged twice.

    Written against the client's documented functions and tested with a stand-in that records the calls; the real client
    and its service could not be tried where this was written.
    """

    def __init__(self, out: Path, config: Mapping[str, Any], step: int) -> None:
        self.module: Any = importlib.import_module("wandb")
        # A folder called wandb, such as the client itself leaves behind, can be imported too.
        if not hasattr(self.module, "init"):
            raise ImportError("wandb is a folder, not the package")
        self.run: Any = self.module.init(
            project=os.environ.get("WANDB_PROJECT") or "hastezoo",
            name=out.resolve().name,
            id=_wandb_id(out / WANDB_FILE),
            resume="allow",
            dir=str(out),
            config=dict(config),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        self.run.log({name: self.module.Image(str(path))}, step=step)

    def close(self) -> None:
        self.run.finish()


def _wandb_id(path: Path) -> str:
    """The id in that file, which is made with a new one where there is none.

    Raises:
        UserError: If the file holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"id": secrets.token_hex(8)})
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} holds no id of a run of W&B; remove it to begin a new one there") from None


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
