"""The folder that is served: one folder a request, removed when it is old."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from pathlib import Path

from hastezoo.errors import UserError

EVERY = 600.0  # seconds between two looks for what is old

log = logging.getLogger("hastezoo.webapp")


class Outputs:
    """Where images and results go.

    Args:
        root: The folder; made if needed.
        keep_hours: How long a request's folder stays after its last change.

    Raises:
        UserError: If the folder cannot be made.
    """

    def __init__(self, root: Path, keep_hours: float) -> None:
        self.root, self.seconds = root, keep_hours * 3600
        try:
            for folder in self._parents:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {root}: {error.strerror}; give another --outputs") from None
        self._stop = threading.Event()

    @property
    def images(self) -> Path:
        """Of requests for images, a folder each."""
        return self.root / "images"

    @property
    def evaluations(self) -> Path:
        """Of evaluations, a folder each."""
        return self.root / "evaluations"

    @property
    def gradio(self) -> Path:
        """What Gradio writes of its own."""
        return self.root / "gradio"

    @property
    def _parents(self) -> tuple[Path, ...]:
        return self.images, self.evaluations, self.gradio

    def folder(self, name: str) -> Path:
        """A new request's folder; the name is a ticket's."""
        return self.images / name

    def clean(self, now: float | None = None) -> int:
        """Remove what is older than it may be; how many folders that were."""
        limit = (time.time() if now is None else now) - self.seconds
        removed = 0
        for parent in self._parents:
            for folder in parent.iterdir():
                with contextlib.suppress(OSError):  # somebody else's removal, or a file that is being written
                    if folder.is_dir() and newest(folder) < limit:
                        shutil.rmtree(folder)
                        removed += 1
        return removed

    def start_cleaning(self) -> None:
        """Clean now and then, in a thread of its own."""
        threading.Thread(target=self._keep_cleaning, name="hastezoo-cleaning", daemon=True).start()

    def close(self) -> None:
        """Stop cleaning."""
        self._stop.set()

    def _keep_cleaning(self) -> None:
        while not self._stop.is_set():
            removed = self.clean()
            if removed:
                log.info("removed %d old folders of %s", removed, self.root)
            self._stop.wait(EVERY)


def newest(folder: Path) -> float:
    """When anything in the folder was last changed."""
    return max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
