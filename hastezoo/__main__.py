"""`python -m hastezoo` is `hastezoo`."""

from hastezoo.cli.main import main

if __name__ == "__main__":
    main(prog_name="hastezoo")
