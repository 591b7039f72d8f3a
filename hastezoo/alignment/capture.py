"""What a frozen ViT of timm says of an image, in one forward pass: patch features, queries and keys of chosen blocks.

Queries and keys are taken by hooks. timm calls `q_norm` and `k_norm` in every attention, also where they do nothing, so
their outputs are what enters softmax(q k^T / sqrt d), but for the rotation by position, which is done here as there.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hastezoo.errors import UserError

Heads = dict[int, Tensor]
"""0-based block -> (B, heads, N, d)."""

ADVICE = "take a plain ViT such as vit_base_patch14_dinov2.lvd142m"


@dataclass
class Lesson:
    """What a teacher says of a batch of images.

    Attributes:
        features: (B, N, D), the final normalised patch tokens.
        queries, keys: {0-based block: (B, heads, N, d)}, of the patches alone, after QK norm and rotation.
        grid: (rows, columns) of the N patches, row by row.
    """

    features: Tensor
    queries: Heads
    keys: Heads
    grid: tuple[int, int]


class Teacher:
    """A frozen timm model. It computes in its own dtype, whatever autocast says, and keeps nothing of a call.

    Args:
        model: The model; it is frozen, moved and given hooks.
        attention_layers: 0-based blocks whose queries and keys are wanted.
        mean, std: One value a channel, of pixels in [0, 1].
        size: (H, W) of the images that the model sees.
        device: Where it runs.
        dtype: What it computes in and returns.
        compile: Whether to run it through `torch.compile`.

    Attributes:
        width: D of the features.
        depth: Number of blocks; 0 where the model has no such list.
        size: (H, W) of the images that it sees.
        grid: (rows, columns) of their patches.
        attention_layers: The blocks, each once.
        name, device, dtype: What it is, where it runs and in what.

    Raises:
        UserError: If the model gives no patch tokens, or a block does not show its queries and keys.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        attention_layers: Sequence[int] = (),
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        self.device, self.dtype, self.size = torch.device(device), dtype, (int(size[0]), int(size[1]))
        self.name = model_name(model)
        height, width = patch_size(model)
        self.grid = (self.size[0] // height, self.size[1] // width)
        self.depth = len(_blocks(model))
        self.attention_layers = tuple(dict.fromkeys(attention_layers))
        self._mean, self._std = (self._per_channel(model, values) for values in (mean, std))
        model.eval().requires_grad_(False).to(device=self.device, dtype=dtype)
        self._pass = _Pass(model, self.attention_layers, self.name)
        self.width = self._rehearse()
        self._run = torch.compile(self._pass) if compile else self._pass

    def __call__(self, images: Tensor) -> Lesson:
        """Features, queries and keys.

        Args:
            images: (B, C, H, W) of any size, uint8 in 0..255 or floats in [0, 1]. That floats are in [0, 1] is not
                checked: on a GPU the check would wait for all that is queued. One channel is repeated where the
                teacher sees three.

        Raises:
            UserError: If the images have another number of channels, or are neither uint8 nor floats.
        """
        try:
            with torch.no_grad(), self._own_dtype():
                features, (queries, keys) = self._run(self._prepare(images))
        finally:
            self._pass.tap.take()  # empty, unless the pass broke off
        return Lesson(features, queries, keys, self.grid)

    def _prepare(self, images: Tensor) -> Tensor:
        """Normalise, then resize: REPA's order, and its bicubic without antialiasing."""
        channels = len(self._mean)
        if images.ndim != 4 or images.shape[1] not in ((1, 3) if channels == 3 else (channels,)):
            raise UserError(
                f"{self.name} sees images (B, {channels}, H, W), not {tuple(images.shape)}; convert their channels"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise UserError(f"images are uint8 in 0..255 or floats in 0..1, not {images.dtype}; convert them")
        pixels = images.to(self.device).to(self._mean.dtype)
        if images.dtype == torch.uint8:
            pixels = pixels / 255
        pixels = (pixels - self._mean) / self._std  # one channel becomes three here, by broadcasting
        if pixels.shape[-2:] != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=False)
        return pixels.to(self.dtype)

    def _per_channel(self, model: Any, values: Sequence[float]) -> Tensor:
        """(C, 1, 1), in float32 or better; one value serves all channels."""
        channels = getattr(model, "in_chans", len(values))
        if len(values) not in (1, channels):
            raise UserError(f"{self.name} sees {channels} channels, but {len(values)} values of mean or std are given")
        exact = torch.promote_types(self.dtype, torch.float32)
        return torch.tensor(values, dtype=exact, device=self.device).expand(channels)[:, None, None]

    def _own_dtype(self) -> torch.autocast:
        return torch.autocast("cpu" if self.device.type == "meta" else self.device.type, enabled=False)

    @torch.no_grad()
    def _rehearse(self) -> int:
        """Run once on one black image, so that what cannot teach is refused now; the width of the features."""
        channels, count = len(self._mean), self.grid[0] * self.grid[1]
        try:
            with self._own_dtype():
                pixels = torch.zeros(1, channels, *self.size, device=self.device, dtype=self.dtype)
                features, taken = self._pass(pixels)
        except UserError:
            raise
        except Exception as error:  # any model of timm's, and each fails in its own way
            seen = f"{channels}x{by(self.size)}"
            raise UserError(f"{self.name} gives no tokens for images {seen}: {one_line(error)}") from None
        if features.ndim != 3 or features.shape[1] != count:
            raise UserError(
                f"{self.name} gives {tuple(features.shape)} for an image, not one token for each of {by(self.grid)} "
                f"patches; {ADVICE}"
            )
        for heads in (heads for part in taken for heads in part.values()):
            assert heads.ndim == 4 and heads.shape[2] == count, heads.shape
        return features.shape[2]


class _Pass(nn.Module):
    """Pixels as the model sees them -> patch features, queries and keys.

    Apart from `Teacher`, which would else hold a method of its own, compiled or not: a circle of references, for which
    the memory of a teacher that is let go would wait.
    """

    def __init__(self, model: Any, layers: Sequence[int], name: str) -> None:
        super().__init__()
        self.model = model
        # CaiT and XCiT do not say it before timm 1.0.31; they have a class token, and it comes first.
        self.prefix = getattr(model, "num_prefix_tokens", int(getattr(model, "cls_token", None) is not None))
        self.tap = AttentionTap(model, layers, self.prefix, name)
        # Models made for average pooling have their last norm after the pool, and none where the tokens come out.
        late = isinstance(getattr(model, "norm", None), nn.Identity)
        self.late_norm = getattr(model, "fc_norm", None) if late else None

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[Heads, Heads]]:
        tokens = self.model.forward_features(pixels)[:, self.prefix :]
        return tokens if self.late_norm is None else self.late_norm(tokens), self.tap.take()


class AttentionTap:
    """Keeps the patch tokens' queries and keys of one forward pass, until they are taken.

    Args:
        model: A timm ViT; the hooks stay on it.
        layers: 0-based blocks.
        prefix: How many tokens before the patches (class, registers) to cut.
        name: What messages call the model.

    Raises:
        UserError: If there is no such block, or it does not show its queries and keys.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int], prefix: int, name: str) -> None:
        from timm.layers import apply_rot_embed_cat

        self._prefix, self._name, self._rotate = prefix, name, apply_rot_embed_cat
        self._queries: Heads = {}
        self._keys: Heads = {}
        self._rope: dict[int, Tensor | None] = {}
        blocks = _blocks(model)
        outside = [layer for layer in layers if not 0 <= layer < len(blocks)]
        if outside:
            known = f"0..{len(blocks) - 1}, the blocks of {name}" if len(blocks) else f"{name}, which has no blocks"
            raise UserError(f"attention_layers {outside} are not in {known}")
        for layer in layers:
            self._watch(layer, self._attention(blocks[layer], layer))

    def take(self) -> tuple[Heads, Heads]:
        """The queries and keys of the last pass; nothing is kept, so that memory is given back."""
        queries, keys = self._queries, self._keys
        self._queries, self._keys, self._rope = {}, {}, {}
        return queries, keys

    def _attention(self, block: Any, layer: int) -> Any:
        """The block's attention, if it is known to be softmax(q k^T / sqrt d) v and no more."""
        attention = getattr(block, "attn", None)
        prefix = getattr(attention, "num_prefix_tokens", self._prefix)
        # Not isinstance: what derives from these may do something else, as do others with a q_norm (relative
        # positions added to the logits, the difference of two maps).
        if type(attention) in _known_attentions() and prefix == self._prefix:
            return attention
        found = " with ".join(type(part).__name__ for part in (block, attention) if part is not None)
        raise UserError(
            f"block {layer} of {self._name} ({found}) does not show its queries and keys; {ADVICE}, or leave "
            "attention alignment out"
        )

    def _watch(self, layer: int, attention: Any) -> None:
        parameters = tuple(inspect.signature(attention.forward).parameters)
        half = getattr(attention, "rotate_half", False)
        groups = getattr(attention, "num_kv_groups", 1)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(zip(parameters, args, strict=False)) | kwargs
            if given.get("attn_mask") is not None or given.get("is_causal"):
                raise UserError(f"block {layer} of {self._name} masks its attention: queries and keys do not tell it")
            self._rope[layer] = given.get("rope")

        def query(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._queries[layer] = self._patches(output, self._rope[layer], half)

        def key(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            keys = self._patches(output, self._rope[layer], half)
            # Grouped queries: several heads share a key; it is repeated as the module does.
            self._keys[layer] = keys.repeat_interleave(groups, dim=1) if groups > 1 else keys

        attention.register_forward_pre_hook(before, with_kwargs=True)
        attention.q_norm.register_forward_hook(query)
        attention.k_norm.register_forward_hook(key)

    def _patches(self, heads: Tensor, rope: Tensor | None, half: bool) -> Tensor:
        """(B, heads, prefix + N, d) -> (B, heads, N, d), rotated where the module does; prefixes never are."""
        patches = heads[:, :, self._prefix :]
        return patches if rope is None else self._rotate(patches, rope, half=half).type_as(patches)


def _known_attentions() -> tuple[type, ...]:
    from timm.models import eva, vision_transformer

    return vision_transformer.Attention, eva.EvaAttention, eva.AttentionRope


def _blocks(model: Any) -> Any:
    return getattr(model, "blocks", ())


def patch_size(model: Any) -> tuple[int, int]:
    """(height, width) of a patch in pixels; of a hybrid, which cuts a feature map, what that is in the image.

    Raises:
        UserError: If the model cuts no image into patches.
    """
    embed: Any = getattr(model, "patch_embed", None)
    image, grid, patch = (getattr(embed, key, None) for key in ("img_size", "grid_size", "patch_size"))
    if image and grid:
        return image[0] // grid[0], image[1] // grid[1]
    if patch:
        return (patch, patch) if isinstance(patch, int) else (patch[0], patch[1])
    raise UserError(f"{model_name(model)} cuts no image into patches; {ADVICE}")


def model_name(model: Any) -> str:
    """The timm name, with the tag where there is one; the class where timm did not make it."""
    found = getattr(model, "pretrained_cfg", None) or {}
    return ".".join(found[key] for key in ("architecture", "tag") if found.get(key)) or type(model).__name__


def by(pair: Sequence[int]) -> str:
    """16x16."""
    return "x".join(str(number) for number in pair)


def one_line(error: Exception) -> str:
    """An error's message, whatever its length, as a piece of a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
