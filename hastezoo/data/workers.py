"""A preparation by several processes, each with an autoencoder and, on CUDA, a GPU of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data.preparing import Preparer, PrepareSettings, Progress
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Source
from hastezoo.errors import UserError

# What a process of the pool works with, set once when it starts.
_mine: dict[str, Any] = {}


class _Stopped(Exception):
    """The parent has asked to stop."""


def work_in_processes(
    source: Source,
    dest: Path,
    settings: PrepareSettings,
    device: str,
    processes: int,
    todo: list[int],
    options: dict[str, Any],
    progress: Progress,
) -> Iterator[ShardRecord]:
    """Make the shards of the units `todo`; yields their records as they are done.

    Raises:
        UserError: If a process fails with one, or is killed.
    """
    context = multiprocessing.get_context("spawn")
    counts, stop, turn = context.SimpleQueue(), context.Event(), context.Value("i", 0)
    start = (source, dest, settings, device, processes, options, counts, stop, turn, os.getpid())
    done = threading.Event()
    listener = threading.Thread(target=_listen, args=(counts, progress, done), daemon=True)
    listener.start()
    with ProcessPoolExecutor(processes, context, _start, start) as pool:
        waiting: set[Future[ShardRecord]] = {pool.submit(_make, unit) for unit in todo}
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a process of the preparation was killed (out of memory?); finished shards stay in {dest}, and the "
                "same command goes on, perhaps with fewer --processes"
            ) from None
        finally:
            stop.set()
            for future in waiting:
                future.cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            done.set()
            counts.put(0)
            listener.join()


def _listen(counts: Any, progress: Progress, done: threading.Event) -> None:
    while not done.is_set():
        images = counts.get()
        if images:
            progress(images)


def _start(
    source: Source,
    dest: Path,
    settings: PrepareSettings,
    device: str,
    processes: int,
    options: dict[str, Any],
    counts: Any,
    stop: Any,
    turn: Any,
    parent: int,
) -> None:
    import torch

    from hastezoo.devices import find_device

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to stop
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with turn.get_lock():
        mine = turn.value
        turn.value += 1
    where = find_device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", mine % torch.cuda.device_count())
    if where.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    autoencoder = None if source.has_moments else LatentAutoencoder.from_pretrained(settings.vae, device=where)
    _mine.update(preparer=Preparer(source, dest, settings, autoencoder, **options), counts=counts, stop=stop)


def _make(unit: int) -> ShardRecord:
    def progress(images: int) -> None:
        if _mine["stop"].is_set():
            raise _Stopped
        _mine["counts"].put(images)

    record: ShardRecord = _mine["preparer"](unit, progress)
    return record


def _die_with(parent: int) -> None:
    """End with a parent that was killed: nobody would read the results."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
