"""`hastezoo`: a command a file, loaded when it is called, so that help needs no torch."""

from __future__ import annotations

import importlib

import click

from hastezoo import __version__

COMMANDS = {
    "list": "What checkpoints there are, where their weights are, how good they are.",
    "info": "Everything about one checkpoint, or what a file of weights is.",
    "sample": "Draw images.",
    "classes": "The classes of a checkpoint, by number and name.",
    "pull": "Fetch a checkpoint's weights.",
    "import": "Take a file of weights into the local store, converting it.",
    "verify": "Check a checkpoint's weights: bytes, shapes, finite numbers.",
    "cache": "What the local store holds; remove from it.",
    "eval-fid": "Measure a checkpoint or images: FID, sFID, IS, precision, recall, KID.",
    "prepare": "Make a data set for training from images.",
    "inspect": "What a prepared data set holds, and whether it is sound.",
    "compare": "Two or more evaluations side by side.",
    "diagnose": "How a run's losses, gradients and alignment went, as a picture.",
    "reference": "What samples are held against: statistics of real images, made or looked at.",
    "export": "A run's result as a checkpoint of your own, with a card.",
    "app": "The app: a page to draw, compare and evaluate, and its API.",
    "push": "Publish a checkpoint on the Hugging Face Hub.",
}
MODULES = {"import": "import_file"}  # `import` is no name for a module


class LazyCommands(click.Group):
    """Reads `hastezoo.cli.NAME` only for the command that runs; its `command` is the click command."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"hastezoo.cli.{MODULES.get(name, name).replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from hastezoo.errors import nearest

            near = nearest(args[0], COMMANDS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            context.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(context, args)


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hastezoo")
def main() -> None:
    """A zoo of pretrained diffusion transformers: SiT trained plain, with REPA and with HASTE."""
