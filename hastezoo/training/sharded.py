"""A checkpoint that every process writes its share of, while training goes on (torch.distributed.checkpoint).

A folder of safetensors, a file a process, each of which says where its pieces belong, and `checkpoint.json`, which
names the files and their sizes. The folder gets its name when all is there. It can be read by any number of processes,
however parameters lie over them, and a part of it without the rest. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hastezoo.errors import UserError
from hastezoo.files import PARTIAL, write_json
from hastezoo.processes import Processes
from hastezoo.training.state import State

INDEX = "checkpoint.json"
FORMAT = 1


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, if there is one."""
    return folder / f"step-{step:08d}"


def _flat(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers become vectors of one: slices of numbers cannot be read. They share their memory."""
    return {name: tensor.reshape(1) if tensor.ndim == 0 else tensor for name, tensor in tensors.items()}


class Writer:
    """Writes checkpoints of a run in the background, one at a time.

    All processes call each of its methods. `begin` returns when tensors are copied; a group of its own keeps what the
    processes tell one another meanwhile apart from what they say in training.
    """

    def __init__(self, processes: Processes) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        on_gpu = processes.device.type == "cuda"
        self.processes = processes
        self.group: Any = dist.new_group(backend="gloo") if processes.count > 1 else None
        self.stager = DefaultStager(StagingOptions(on_gpu, False, False, on_gpu))
        self.naming = ThreadPoolExecutor(1, "checkpoint")
        # Said of a process that is alone by the thread that writes, after `begin` has returned.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)

    def begin(self, path: Path, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> Future[None]:
        """Copy the tensors, and begin to write them.

        Returns:
            Done when the checkpoint has its name, on the main process; when all is written, on others.
        """
        from torch.distributed.checkpoint import async_save
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

        partial = path.with_name(f".{path.name}{PARTIAL}")
        with warnings.catch_warnings():  # it tells one process that it is alone, and that its group is made
            warnings.simplefilter("ignore")
            writing: Any = async_save(
                _flat(tensors),
                storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True),
                process_group=self.group,
                async_stager=self.stager,
                no_dist=self.group is None,
            )
        about = {"format": FORMAT, "step": step, "processes": self.processes.count, "values": values}
        return self.naming.submit(self._complete, writing, partial, path, about)

    def _complete(self, writing: Future[Any], partial: Path, path: Path, about: dict[str, Any]) -> None:
        writing.result()
        if self.processes.main:
            files = {file.name: file.stat().st_size for file in sorted(partial.glob("*.safetensors"))}
            write_json(partial / INDEX, {**about, "files": files})
            broken = path.with_name(f".{path.name}.old{PARTIAL}")
            if path.exists():  # one that could not be read, or the run would not be here again
                path.rename(broken)
            partial.rename(path)
            shutil.rmtree(broken, ignore_errors=True)

    def close(self) -> None:
        """After the last was written."""
        self.naming.shutdown()
        self.stager.close()


class Shards:
    """A checkpoint to be read.

    Raises:
        UserError: If it is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            about = json.loads((path / INDEX).read_text(encoding="utf-8"))
            self.step, self.values = int(about["step"]), dict(about["values"])
            sizes = {name: (path / name).stat().st_size for name in about["files"]}
            wrong = [name for name, size in about["files"].items() if sizes[name] != size]
        except OSError as error:
            which = Path(error.filename or path).name
            raise UserError(f"checkpoint {path} cannot be read ({which}: {error.strerror})") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:120]})") from None
        if wrong:
            raise UserError(
                f"checkpoint {path} cannot be read ({wrong[0]} has {sizes[wrong[0]]:,} bytes, not "
                f"{about['files'][wrong[0]]:,})"
            )

    def read_into(self, state: State) -> None:
        """Every process reads what it has of each tensor; all processes at once.

        Raises:
            UserError: If it does not fit the run, or cannot be read.
        """
        self._read(_flat(state.tensors()))

    def read(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part, such as `ema`, whole and on the CPU; the rest is not read. By one process alone.

        Raises:
            UserError: If they cannot be read.
        """
        from safetensors import SafetensorError
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        try:
            known = HuggingFaceStorageReader(str(self.path)).read_metadata().state_dict_metadata
        except (SafetensorError, OSError, ValueError, LookupError) as error:
            raise self._refusal(error) from None
        names = [name for name in known if name.startswith(f"{part}.")]
        tensors = {name: torch.empty(known[name].size, dtype=known[name].properties.dtype) for name in names}  # type: ignore[union-attr]
        self._read(tensors)
        return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items()}

    def _read(self, tensors: dict[str, Tensor]) -> None:
        from torch.distributed.checkpoint import CheckpointException, load
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        alone = not dist.is_initialized()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load(tensors, storage_reader=HuggingFaceStorageReader(str(self.path)), no_dist=alone)
            except (CheckpointException, Exception) as error:  # the first is no Exception, and wraps what files raise
                raise self._refusal(error) from None

    def _refusal(self, error: BaseException) -> UserError:
        return UserError(f"checkpoint {self.path} cannot be read ({reason_of(error)})")


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line: the first cause where processes report theirs together."""
    failures: Iterable[Any] = getattr(error, "failures", {}).values()
    for wrapped in failures:
        error = wrapped[0] if isinstance(wrapped, tuple) else wrapped
        break
    while isinstance(error, BaseException) and getattr(error, "strerror", None) is None and error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
