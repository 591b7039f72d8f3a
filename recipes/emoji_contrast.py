"""Pictures and names in one space: the network behind the emoji's teacher and behind the judge of what is drawn.

A small ViT of timm's sees the picture, an encoder of words reads the name, and both are trained so that of a batch's
names the picture's own is the nearest (CLIP, Radford et al. 2021). The ViT alone is the teacher; both together say
whether a picture is what its prompt asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hastezoo.conditioning.words import WordNumbers
from hastezoo.errors import UserError
from hastezoo.models.words import WordEncoder

ARCHITECTURE = "vit_tiny_patch16_224"
# Its own size, on top of timm's name: 64 patches of 4x4, as the student's.
VISION: dict[str, Any] = {
    "img_size": 32, "patch_size": 4, "in_chans": 3, "num_classes": 0,
    "embed_dim": 128, "depth": 6, "num_heads": 4, "global_pool": "avg", "fc_norm": False,
}  # fmt: skip
MEAN = STD = (0.5, 0.5, 0.5)
LENGTH, NAME_WIDTH, SHARED = 16, 64, 128
NAME_SIDE = "names.safetensors"


class Contrast(nn.Module):
    """Both sides.

    Args:
        words: The vocabulary of the names.
        vision: Settings of the ViT, over `VISION`.
    """

    def __init__(self, words: Sequence[str], **vision: Any) -> None:
        import timm

        super().__init__()
        self.settings = {**VISION, **vision}
        self.reader = WordNumbers(words, LENGTH)
        self.vision = timm.create_model(ARCHITECTURE, **self.settings)
        self.names = nn.ModuleDict(
            {
                "words": WordEncoder(len(words), LENGTH, NAME_WIDTH, depth=1, heads=2),
                "shared": nn.Linear(NAME_WIDTH, SHARED),
                "picture": nn.Linear(self.settings["embed_dim"], SHARED),
            }
        )
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def of_pictures(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32) in [0, 1] -> (B, D), of length 1."""
        return F.normalize(self.names["picture"](self.vision((images - MEAN[0]) / STD[0])), dim=1)

    def of_numbers(self, numbers: Tensor) -> Tensor:
        """Numbers of words (B, L) -> (B, D), of length 1."""
        said = (numbers > 0).unsqueeze(2)
        states = self.names["words"](numbers)
        return F.normalize(self.names["shared"]((states * said).sum(1) / said.sum(1).clamp(min=1)), dim=1)

    def of_names(self, names: Sequence[str]) -> Tensor:
        """Names -> (B, D), of length 1.

        Raises:
            UserError: If no word of a name is known.
        """
        return self.of_numbers(self.reader.states(names))

    def loss(self, images: Tensor, numbers: Tensor) -> Tensor:
        """The mean of both cross-entropies: which name belongs to a picture, and which picture to a name."""
        logits = self.sharpness.clamp(max=math.log(100)).exp() * self.of_pictures(images) @ self.of_numbers(numbers).T
        own = torch.arange(len(images))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def save(self, out: Path, facts: dict[str, Any]) -> None:
        """Write the folder that timm's `local-dir:` reads as the ViT, with the names' side beside it, in float16.

        Args:
            out: The folder.
            facts: What else its config.json says.

        Raises:
            UserError: If it cannot be written.
        """
        from safetensors.torch import save as to_bytes

        from hastezoo.files import atomic_write, write_json

        def packed(module: nn.Module, **metadata: str) -> bytes:
            return to_bytes({key: value.half().contiguous() for key, value in module.state_dict().items()}, metadata)

        config = {
            "architecture": ARCHITECTURE,
            "num_classes": 0,
            "model_args": self.settings,
            "pretrained_cfg": {
                "input_size": [3, 32, 32], "mean": MEAN, "std": STD, "fixed_input_size": True, "num_classes": 0,
            },
            **facts,
        }  # fmt: skip
        try:
            out.mkdir(parents=True, exist_ok=True)
            atomic_write(out / NAME_SIDE, packed(self.names, words=json.dumps(list(self.reader.numbers))))
            atomic_write(out / "model.safetensors", packed(self.vision))
            write_json(out / "config.json", config)
        except OSError as error:
            raise UserError(f"cannot write to {out}: {error.strerror}; give another --out") from None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Both sides of a folder that `save` wrote, to judge with.

        Raises:
            UserError: If it is not one.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from hastezoo.zoo.modelfile import read_metadata

        if not (folder / NAME_SIDE).is_file():
            raise UserError(
                f"{folder} is no judge: it has no {NAME_SIDE}; train one with hastezoo.recipes.emoji_teacher"
            )
        try:
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_args"]
            found = cls(json.loads(read_metadata(folder / NAME_SIDE)["words"]), **settings)
            found.vision.load_state_dict(load_file(folder / "model.safetensors"))
            found.names.load_state_dict(load_file(folder / NAME_SIDE))
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder} cannot be read as a judge: {' '.join(str(error).split())[:160]}") from None
        return found.eval().requires_grad_(False)
