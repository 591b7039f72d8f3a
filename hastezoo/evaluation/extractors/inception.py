"""Inception's features as the evaluator of ADM (OpenAI's guided-diffusion) takes them, without TensorFlow.

The network is torch-fidelity's port of the graph of 2015-12-05, with its own copy of TensorFlow's resizing: images of
any size go in, and are never resized before. FID is of the 2048 numbers of `pool_3`; sFID is of the first 7 maps of
`mixed_6/conv`, which is `Mixed_6d.branch1x1` there, in the order height, width, channel.

torch-fidelity unpickles whatever file it is given. So the file is read here, and its module gets tensors.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, SPATIAL
from hastezoo.evaluation.extractors.networks import CHANNELS, in_equal_batches
from hastezoo.files import alone_in
from hastezoo.zoo.convert.containers import read_content
from hastezoo.zoo.download import Progress, download

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
POOL_WIDTH = 2048
MAPS, SIDE = 7, 17  # of mixed_6/conv
PATIENCE = 600  # seconds to wait for another process that downloads the file
# Batch norm counts its training steps. Nothing depends on them, and files converted from TensorFlow have none.
COUNTERS = ".num_batches_tracked"


class Inception:
    """Extractor of `pool` (2048) and `spatial` (2023 = 17 x 17 x 7).

    Args:
        network: torch-fidelity's module, on the device.
        sha256: Of the file of its weights.
        device: Where it is.
    """

    def __init__(self, network: Any, sha256: str, device: torch.device) -> None:
        self.name = "inception"
        self.identity = {
            "features": self.name,
            "weights": "2015-12-05 of torch-fidelity" if sha256 == SHA256 else "another file",
            "weights_sha256": sha256,
            "torch_fidelity": version("torch-fidelity"),
        }
        self.channels: int | None = CHANNELS
        self.classifier: np.ndarray | None = network.fc.weight.detach().cpu().numpy()
        self._network, self._device = network, device

    @classmethod
    def from_file(
        cls, path: Path | None = None, *, device: str = "auto", progress: Progress = lambda done, total: None
    ) -> Self:
        """Inception with the weights of a file, pickle or safetensors.

        Args:
            path: Any file of such weights. None for torch-fidelity's own, where torch-fidelity keeps it; it is
                downloaded if it is not there.
            device: Where the network runs.
            progress: Told of the download.

        Raises:
            UserError: If there is no such device; or the weights are not to be had, are not those expected, ask for
                code, or are of another network.
        """
        from hastezoo.devices import find_device

        target = find_device(device)
        file = default_file(progress) if path is None else Path(path)
        network = bare_network()
        state = _fitting(read_content(file)[0], network.state_dict(), file)
        network.load_state_dict(state, assign=True)
        return cls(network.to(target), sha256_of(file), target)

    def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
        return {POOL: POOL_WIDTH, SPATIAL: SIDE * SIDE * MAPS}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return in_equal_batches(self._features, images, self._device)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        found: list[Tensor] = []
        layer = self._network.Mixed_6d.branch1x1
        hook = layer.register_forward_hook(lambda module, given, maps: found.append(maps[:, :MAPS]))
        try:
            (pool,) = self._network(images)
        finally:
            hook.remove()
        return {POOL: pool, SPATIAL: found[0].permute(0, 2, 3, 1).flatten(1)}


def default_file(progress: Progress = lambda done, total: None) -> Path:
    """torch-fidelity's own file of weights, where torch-fidelity keeps it; downloaded if it is not there.

    Raises:
        UserError: If it is not to be had, or another file has its place.
    """
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with alone_in(path.parent, "downloading to", PATIENCE):
                return download(URL_INCEPTION_V3, path, sha256=SHA256, progress=progress)
        found = sha256_of(path)
    except OSError as error:
        raise UserError(f"cannot use {path}: {error.strerror}; name a file of weights with --inception PATH") from None
    except UserError as error:
        raise UserError(f"{error}; bring it to {path}, or name a file that you have with --inception PATH") from None
    if found != SHA256:
        raise UserError(
            f"{path} has sha256 {found[:12]}..., expected {SHA256[:12]}...; remove it and it is downloaded anew, or "
            "name a file of weights with --inception PATH"
        )
    return path


def bare_network() -> Any:
    """torch-fidelity's module on the meta device. Its constructor loads a file: here an empty one, of our own."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
            return super().load_state_dict(state_dict, strict, assign) if state_dict else None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.device("meta"):
        return Bare("inception-v3-compat", [str(POOL_WIDTH)], feature_extractor_weights_path=empty)


def _fitting(content: Any, wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of a file as the network's own: in memory, float32. There are no others in it."""
    import torch

    if trouble := _misfit(content, wanted):
        raise UserError(f"{path} {trouble}: the file wanted is {FILE} of torch-fidelity, or one like it")
    state = {name: torch.zeros_like(like, device="cpu") for name, like in wanted.items() if name.endswith(COUNTERS)}
    return {
        name: state[name] if name in state else content[name].to(torch.float32, copy=True).contiguous()
        for name in wanted
    }


def _misfit(content: Any, wanted: Mapping[str, Tensor]) -> str | None:
    """The first thing in a file that is not as the network has it, in words."""
    import torch

    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}, not a state dict"
    for name, like in wanted.items():
        if name.endswith(COUNTERS):
            continue
        tensor, shape = content.get(name), tuple(like.shape)
        if not isinstance(tensor, torch.Tensor):
            return f"has no tensor {name}"
        if tuple(tensor.shape) != shape or not tensor.dtype.is_floating_point:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"has {name} as {kind} {tuple(tensor.shape)}, and the network's are floats {shape}"
    unknown = next((name for name in content if name not in wanted), None)
    return None if unknown is None else f"has {str(unknown)[:60]!r}, which the network has not"
