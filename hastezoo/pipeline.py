"""The pipeline: card + weights + autoencoder + conditioning + protocol = images. The public API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from hastezoo.autoencoders import to_bytes
from hastezoo.conditioning.conditions import Asked, Conditions, listed
from hastezoo.devices import find_device, find_dtype, fitting_batch_size
from hastezoo.errors import UserError
from hastezoo.loading import check_text_encoder, load_autoencoder, load_conditions, load_network
from hastezoo.sampling import solvers
from hastezoo.sampling.guidance import guided
from hastezoo.sampling.interpolants import find_interpolant
from hastezoo.sampling.noise import NoiseSource
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, find_card, make_protocol, validated
from hastezoo.zoo.weights import resolve

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class Batch:
    """Images of one solver run.

    Attributes:
        pixels: uint8 (B, H, W, C).
        conditions, seeds: One label or prompt, and one seed, per image.
        evaluations: Velocities evaluated for the batch.
        passes: Network passes per image; a guided velocity takes two.
    """

    pixels: np.ndarray
    conditions: list[int] | list[str]
    seeds: list[int]
    evaluations: int
    passes: int


@dataclass
class Output:
    """What a call of the pipeline returns.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels, prompts: One per image, of a model of classes or of text; the other is empty.
        seeds: One per image.
        protocol: The settings that were used, in full.
        evaluations: Velocities evaluated per image, as the solver counts them.
        passes: Network passes per image.
        seconds: Time spent sampling.
    """

    pixels: np.ndarray
    labels: list[int]
    prompts: list[str]
    seeds: list[int]
    protocol: Protocol
    evaluations: int
    passes: int
    seconds: float

    @property
    def images(self) -> list[Image]:
        """The images as PIL."""
        from hastezoo.pictures import to_pil

        return [to_pil(pixels) for pixels in self.pixels]


class _CountedModel:
    """The network as guidance wants it: casts to the network's dtype and back, and counts passes per image."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.network, self.dtype = network, dtype
        self.calls = 0
        self.rows = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.calls += 1
        self.rows += len(x)
        # Time stays float32: the network embeds it before it casts.
        return self.network(x.to(self.dtype), t.float(), condition).to(x.dtype)


class Pipeline:
    """A checkpoint ready to draw.

    Example:
        >>> pipe = Pipeline.from_pretrained("sit-ti-digits")
        >>> out = pipe(classes=[3, "seven"], seeds=[0, 1])
        >>> out.images[0].save("three.png")
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        device: torch.device,
        dtype: torch.dtype,
        weights_sha256: str = "",
        compile: bool = False,
        vae: str | Path | None = None,
        vae_tiling: bool = False,
        conditions: Conditions | None = None,
        text_encoder: str | Path | None = None,
    ) -> None:
        self.card = card
        self.device, self.dtype = device, dtype
        self.weights_sha256 = weights_sha256
        self.compiled, self.vae_tiling = compile, vae_tiling
        self.config = cast(Any, network.config)
        network = network.to(device=device, dtype=dtype).eval()
        self.network: Any = torch.compile(network) if compile else network
        self.path = find_interpolant(card.path)
        self.autoencoder = load_autoencoder(card, self.config, vae, device=device, tiling=vae_tiling)
        self.conditions: Conditions = (
            load_conditions(card, self.config, text_encoder, device=device) if conditions is None else conditions
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str = DEFAULT_CHECKPOINT,
        *,
        device: str = "auto",
        dtype: str = "float32",
        weights: str | Path | None = None,
        compile: bool = False,
        vae: str | Path | None = None,
        vae_tiling: bool = False,
        text_encoder: str | Path | None = None,
        conditions: Conditions | None = None,
        say: Callable[[str], None] = lambda text: None,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> Self:
        """Load a checkpoint of the zoo, fetching its weights if they are not here.

        Args:
            name: As `hastezoo list` shows.
            device: auto, cpu, cuda, cuda:1, mps.
            dtype: Of the network: float32, bfloat16, float16. The solver's state stays float64.
            weights: Weights of your own for the card's architecture, instead of the card's: a file (of ours, or one
                that the converter reads), or `hub:owner/repo[@revision][:file]`.
            compile: Run the network through torch.compile.
            vae: The autoencoder of a latent model, instead of the card's: ema, mse, a folder, or owner/name of the Hub.
            vae_tiling: Decode in tiles, for images that do not fit the memory.
            text_encoder: Of a model of text, instead of the card's: a folder, or owner/name of the Hub.
            conditions: What makes conditions, ready made, instead of either.
            say, progress: Told of downloads and conversions.

        Raises:
            UserError: If the name, device or dtype is not to be had, or the weights do not verify.
        """
        card = find_card(name)
        check_text_encoder(card, text_encoder)
        place, kind = find_device(device), find_dtype(dtype)  # refused before anything is downloaded
        found = resolve(card, weights, say=say, progress=progress)
        return cls(
            load_network(card, found),
            card,
            device=place,
            dtype=kind,
            weights_sha256=found.sha256,
            compile=compile,
            vae=vae,
            vae_tiling=vae_tiling,
            text_encoder=text_encoder,
            conditions=conditions,
        )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, H, W) of what the network sees."""
        return (self.config.in_channels, *self.config.size)

    def protocol(self, name: str | None = None, **overrides: Any) -> Protocol:
        """The card's default protocol, or a named one, with some settings replaced.

        Raises:
            UserError: If the name, a key or a value is not valid.
        """
        return make_protocol(name or self.card.protocol, overrides)

    def __call__(
        self,
        classes: Asked = None,
        seeds: int | Sequence[int] | None = None,
        *,
        prompts: str | Sequence[str] | None = None,
        negative: str = "",
        batch_size: int | str = "auto",
        callback: solvers.Callback | None = None,
        protocol: str | Protocol | None = None,
        **overrides: Any,
    ) -> Output:
        """Draw images. Classes (or prompts) and seeds are zipped; one value is broadcast.

        Args:
            classes: Numbers or names, of a model of classes; None draws each label from its seed.
            seeds: One per image; by default 0, or 0, 1, 2, ... for several classes or prompts.
            prompts: What to draw, of a model of text; "" draws without text.
            negative: What guidance leads away from, instead of the empty prompt.
            batch_size: Images at a time, or "auto".
            callback: Called after every solver step; raise `solvers.Cancelled` to stop.
            protocol: A named protocol or a whole one, instead of the card's.
            **overrides: Settings of the Protocol, such as steps=50, cfg=1.5, solver="heun".

        Raises:
            UserError: If a class, prompt, seed or setting is not valid.
            Cancelled: If the callback raised it.
        """
        asked = self._asked(classes, prompts)
        count = len(asked) if asked else 1
        chosen = list(range(count)) if seeds is None else [_seed(seed) for seed in listed(seeds)]
        chosen = chosen * count if len(chosen) == 1 else chosen
        settings = self._settings(protocol, overrides)
        conditions = self.conditions.read(asked, chosen)
        began = time.perf_counter()
        batches = list(self.stream(conditions, chosen, settings, batch_size, callback, negative=negative))
        drawn: list[Any] = [one for batch in batches for one in batch.conditions]
        return Output(
            pixels=np.concatenate([batch.pixels for batch in batches]),
            labels=[] if self.conditions.text else drawn,
            prompts=drawn if self.conditions.text else [],
            seeds=chosen,
            protocol=settings,
            evaluations=max(batch.evaluations for batch in batches),
            passes=max(batch.passes for batch in batches),
            seconds=time.perf_counter() - began,
        )

    def _asked(self, classes: Asked, prompts: str | Sequence[str] | None) -> list[Any] | None:
        """The one of both that this model draws from, as a list."""
        given, other = (prompts, classes) if self.conditions.text else (classes, prompts)
        if other is not None:
            has, wants = ("text", "prompts") if self.conditions.text else ("classes", "classes")
            raise UserError(f"{self.card.name} draws from {has}: give it {wants}")
        return None if given is None else listed(given)

    def _settings(self, protocol: str | Protocol | None, overrides: dict[str, Any]) -> Protocol:
        if isinstance(protocol, Protocol):
            return validated({**protocol.model_dump(), **overrides})
        return self.protocol(protocol, **overrides)

    def stream(
        self,
        conditions: Sequence[int] | Sequence[str],
        seeds: Sequence[int],
        protocol: Protocol,
        batch_size: int | str = "auto",
        callback: solvers.Callback | None = None,
        *,
        negative: str = "",
    ) -> Iterator[Batch]:
        """Draw images batch by batch, so that memory stays bounded whatever their number."""
        if not seeds:
            raise UserError("no seeds: name at least one image")
        size = self.batch_size(batch_size)
        for first in range(0, len(seeds), size):
            part = slice(first, first + size)
            yield self.draw(conditions[part], seeds[part], protocol, callback, negative=negative)

    def batch_size(self, asked: int | str) -> int:
        """A number as it is; "auto" as what fits the memory."""
        if asked == "auto":
            return fitting_batch_size(self.network, self.config, self.device, self.dtype)
        if not str(asked).isdecimal() or int(asked) < 1:
            raise UserError(f"batch size {asked!r} is neither a number of at least 1 nor auto")
        return int(asked)

    @torch.inference_mode()
    def draw(
        self,
        conditions: Sequence[int] | Sequence[str],
        seeds: Sequence[int],
        protocol: Protocol,
        callback: solvers.Callback | None = None,
        *,
        negative: str = "",
    ) -> Batch:
        """Draw one batch of labels or prompts, as `conditions.read` gives them.

        Raises:
            UserError: If the memory does not suffice, the network does not compile or returns NaN.
            ValueError: If a seed is out of range.
            Cancelled: If the callback raised it.
        """
        source = NoiseSource(seeds)
        model = _CountedModel(self.network, self.dtype)
        try:
            asked = self.conditions.tensors(conditions, negative, self.device)
            state = self._integrate(model, asked, source, protocol, callback)
        except torch.OutOfMemoryError:
            raise UserError(f"a batch of {len(seeds)} does not fit the memory of {self.device}; lower it") from None
        except Exception as error:
            if self.compiled and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).strip().splitlines()[0]
                raise UserError(
                    f"torch.compile failed ({reason}); leave out --compile, or install a C++ compiler"
                ) from None
            raise
        if not bool(torch.isfinite(state).all()):
            raise UserError(f"{self.card.name} returned NaN or infinity in {self.dtype}; try another dtype or solver")
        pixels = to_bytes(self.autoencoder.decode(state), protocol.rounding).cpu().numpy()
        drawn = cast(Any, list(conditions))
        return Batch(pixels, drawn, list(seeds), model.calls, model.rows // len(seeds))

    def _integrate(
        self,
        model: _CountedModel,
        asked: tuple[Tensor, Tensor],
        source: NoiseSource,
        protocol: Protocol,
        callback: solvers.Callback | None,
    ) -> Tensor:
        condition, null = asked
        velocity = guided(
            model, condition, null, scale=protocol.cfg, interval=protocol.interval, channels=protocol.channels
        )
        shape = (len(condition), *self.sample_shape)
        return solvers.integrate(
            protocol.solver,
            velocity,
            source.initial(shape).to(self.device),
            steps=protocol.steps,
            interpolant=self.path,
            noise=source,
            diffusion=solvers.Diffusion(protocol.diffusion, protocol.diffusion_norm),
            last_step=protocol.last_step,
            last_step_size=protocol.last_step_size,
            start=protocol.start,
            callback=callback,
            rtol=protocol.rtol,
            atol=protocol.atol,
            jumps=protocol.interval if protocol.cfg != 1 else (),
        )


def _seed(value: Any) -> int:
    if not isinstance(value, Integral) or not 0 <= int(value) < 2**63:
        raise UserError(f"a seed is a whole number in 0..2**63-1, not {value!r}")
    return int(value)
