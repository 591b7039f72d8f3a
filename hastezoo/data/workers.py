"""A preparation by several processes, each with networks and, on CUDA, a GPU of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data.captioned import load_encoder
from hastezoo.data.preparing import Preparer, PrepareSettings, Progress
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Source
from hastezoo.errors import REQUEUE, UserError

# Windows has neither the second nor masks.
_STOPPING = {getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)}

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
) -> Generator[ShardRecord]:
    """Make the shards of the units `todo`; yields their records as they are done.

    Raises:
        UserError: If a process fails with one, or is killed.
    """
    context = multiprocessing.get_context("spawn")
    with _deaf_children():  # a helper of Python's own starts with these
        counts, stop, turn = context.SimpleQueue(), context.Event(), context.Value("i", 0)
    start = (source, dest, settings, device, processes, options, counts, stop, turn, os.getpid())
    done, failed = threading.Event(), list[BaseException]()
    listener = threading.Thread(target=_listen, args=(counts, progress, done, stop, failed), daemon=True)
    listener.start()
    with ProcessPoolExecutor(processes, context, _start, start) as pool:
        waiting: set[Future[ShardRecord]] = set()
        try:
            with _deaf_children():
                waiting |= {pool.submit(_make, unit) for unit in todo}
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield future.result()
            done.set()
            listener.join()
            if failed:
                raise failed[0]
        except _Stopped:
            raise failed[0] from None
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
            listener.join()


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that start meanwhile do not hear what ends the parent, which may be sent to all of them at once.

    So they do not die over half a shard; the parent says when to stop.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(counts: Any, progress: Progress, done: threading.Event, stop: Any, failed: list[BaseException]) -> None:
    """Pass on what the processes count, to the last; where that raises, they are told to stop."""
    ended = False
    while not ended:
        ended = done.wait(0.1)
        while not counts.empty():
            images = counts.get()
            try:
                if not failed:
                    progress(images)
            except BaseException as error:
                failed.append(error)
                stop.set()


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to stop
    signal.signal(signal.SIGTERM, _terminated)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    import torch

    from hastezoo.devices import find_device

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
    encoder = None if settings.text_encoder is None else load_encoder(settings.text_encoder, where)
    preparer = Preparer(source, dest, settings, autoencoder, **options, encoder=encoder)
    _mine.update(preparer=preparer, counts=counts, stop=stop)


def _terminated(number: int, frame: Any) -> None:
    """End, as when the pool is broken; but not over half a shard, which is given up first."""
    if not _mine.get("busy"):
        os._exit(REQUEUE)
    _mine["terminated"] = True


def _make(unit: int) -> ShardRecord:
    def progress(images: int) -> None:
        if _mine["stop"].is_set() or _mine.get("terminated"):
            raise _Stopped
        _mine["counts"].put(images)

    _mine["busy"] = True
    try:
        record: ShardRecord = _mine["preparer"](unit, progress)
        return record
    finally:
        _mine["busy"] = False
        if _mine.get("terminated"):
            os._exit(REQUEUE)


def _die_with(parent: int) -> None:
    """End with a parent that was killed: nobody would read the results."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
