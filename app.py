"""The app, as `python app.py` and Hugging Face Spaces start it; the options are those of `hastezoo app`."""

from hastezoo.cli.app import command

command()
