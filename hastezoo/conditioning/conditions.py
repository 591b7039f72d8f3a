"""What a user asks for -> what a network takes: classes by number or name, or prompts; one of two, by the model."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from hastezoo.conditioning.labels import ClassList, find_label, label_of_seed
from hastezoo.conditioning.prompts import clean
from hastezoo.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hastezoo.conditioning.text import TextEncoder

Asked = int | str | Sequence[int | str] | None


class Labels:
    """Of a model of classes.

    Attributes:
        names: The classes by label; the null label is their number.
    """

    text = False

    def __init__(self, names: ClassList) -> None:
        self.names = names

    def read(self, asked: Asked, seeds: Sequence[int]) -> list[int]:
        """One label per seed: the class asked for (one is broadcast), or drawn from the seed.

        Raises:
            UserError: If a class is unknown or the counts do not match.
        """
        if asked is None:
            return [label_of_seed(seed, len(self.names)) for seed in seeds]
        return _paired([find_label(one, self.names) for one in listed(asked)], seeds, "classes")

    def tensors(self, labels: Sequence[Any], negative: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """(labels (B,), the null label (1,)), int64.

        Raises:
            UserError: If there is a negative prompt.
        """
        import torch

        if negative:
            raise UserError("a negative prompt is for models that draw from text; this one draws classes")
        null = torch.full((1,), len(self.names), dtype=torch.int64, device=device)
        return torch.tensor(list(labels), dtype=torch.int64, device=device), null


class Prompts:
    """Of a model of text.

    Attributes:
        encoder: Turns prompts into states.
    """

    text = True

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def read(self, asked: Asked, seeds: Sequence[int]) -> list[str]:
        """One cleaned prompt per seed; one is broadcast.

        Raises:
            UserError: If there is none, one cannot be drawn from, or the counts do not match.
        """
        if asked is None:
            raise UserError("the model draws from text: give it prompts")
        return _paired([clean(_text(one)) for one in listed(asked)], seeds, "prompts")

    def tensors(self, prompts: Sequence[Any], negative: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """(states of the prompts (B, L, D), those of the negative prompt (1, L, D)), float16; of a model of words
        numbers, (B, L) and (1, L) int64.

        The negative prompt takes the place of the empty one, which the model learned as "no condition".

        Raises:
            UserError: If a prompt cannot be drawn from.
        """
        states = self.encoder.states([*prompts, clean(negative)]).to(device)
        return states[:-1], states[-1:]


Conditions = Labels | Prompts


def listed(value: Any) -> list[Any]:
    """A list as it is; one class, prompt or seed as a list of one."""
    return [value] if isinstance(value, str | Integral) else list(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"a prompt is a text, not {value!r}")
    return value


def _paired(found: list[Any], seeds: Sequence[int], what: str) -> list[Any]:
    if len(found) not in (1, len(seeds)):
        raise UserError(f"{len(found)} {what} do not pair with {len(seeds)} seeds; give one, or as many")
    return found * len(seeds) if len(found) == 1 else found
