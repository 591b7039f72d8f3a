"""Options that several commands share: which checkpoint, and how it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hastezoo.asking import PROTOCOL_KEYS

Command = TypeVar("Command", bound=Callable[..., Any])

_MODEL = (
    click.option(
        "--weights", metavar="FILE|hub:REPO", help="Weights of your own: a file, or hub:owner/repo[@rev][:file]."
    ),
    click.option("--vae", metavar="VAE", help="Autoencoder of a latent model: ema, mse, a folder, owner/name."),
    click.option("--vae-tiling", is_flag=True, help="Decode in tiles, for images that do not fit the memory."),
    click.option(
        "--text-encoder", metavar="ENCODER", help="CLIP text encoder of a model of text: a folder, owner/name."
    ),
)
_PROTOCOL = (
    click.option("--solver", help="euler, heun, dopri5, euler-maruyama, stochastic-heun."),
    click.option("--steps", type=int, help="Integration steps."),
    click.option("--cfg", type=float, help="Scale of classifier-free guidance; 1 is none."),
    click.option(
        "--interval", type=float, nargs=2, metavar="LOW HIGH", help="Guide only where LOW <= t <= HIGH; t = 0 is data."
    ),
    click.option("--channels", type=int, help="Guide only the first so many channels (original SiT: 3)."),
    click.option("--diffusion", help="Of the SDE solvers: linear, sigma, sbdm, constant."),
    click.option("--last-step", help="Of the SDE solvers: mean, euler, tweedie, none."),
    click.option("--start", type=float, help="First time, below 1 for sbdm."),
)
_DEVICE = (
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps."),
    click.option("--dtype", default="float32", show_default=True, help="Of the network: float32, bfloat16, float16."),
    click.option("--compile", is_flag=True, help="Run the network through torch.compile; pays off for many images."),
)


def _all(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_options = _all(_MODEL)
protocol_options = _all(_PROTOCOL)
device_options = _all(_DEVICE)


def overrides(options: dict[str, Any]) -> dict[str, Any]:
    """The settings of the protocol that were given."""
    return {key: options[key] for key in PROTOCOL_KEYS if options[key] is not None}
