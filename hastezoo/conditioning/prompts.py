"""What a prompt is: cleaned, read from a file, named in files and shown in a terminal. No network is needed for it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from hastezoo.errors import UserError

LONGEST = 100_000  # characters; a text encoder reads about 300 of them, and whoever gives a book gave the wrong file

# Surrogates, which no UTF-8 file can hold, and the control characters (Cc) but for those that are whitespace.
_REFUSED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
# Windows takes these for devices, with any ending.
_RESERVED = re.compile("con|prn|aux|nul|(com|lpt)[0-9]")


def clean(prompt: str) -> str:
    """A prompt as it is drawn from and recorded: composed (NFC), with single spaces for all whitespace, stripped.

    An empty one is allowed; it means "without text". Cleaning twice changes nothing more.

    Raises:
        UserError: If it has a control character or half a surrogate pair, or is longer than `LONGEST`.
    """
    found = _REFUSED.search(prompt)
    if found:
        kind = "lone surrogate" if found[0] >= "\ud800" else "control character"
        raise UserError(f"the prompt has the {kind} {_code(found[0])} at character {found.start() + 1}; remove it")
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", prompt)).strip()
    if len(text) > LONGEST:
        raise UserError(f"the prompt has {len(text):,} characters; {LONGEST:,} are the most")
    return text


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a text file in UTF-8, one a line, cleaned; blank lines are skipped.

    Raises:
        UserError: If there is no such file, it is not text in UTF-8, has no prompts, or one that cannot be drawn from.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the file of prompts {path} is not text in UTF-8 (byte {error.start}); save it as such"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a file of prompts") from None
    except OSError as error:
        # Windows answers PermissionError where a folder is opened.
        reason = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror or error}"
        raise UserError(f"the file of prompts {path} {reason}") from None
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(clean(line))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    found = [prompt for prompt in prompts if prompt]
    if not found:
        raise UserError(f"the file {path} has no prompts; write one a line")
    return found


def slug(prompt: str, length: int = 40) -> str:
    """A prompt in the name of a file: lower-case ASCII letters, digits and hyphens; "" where none are left.

    Args:
        prompt: Accents are dropped; what has no ASCII letter for it is left out.
        length: The most characters; it is cut at a word, or within a word that is longer than that.
    """
    parts = unicodedata.normalize("NFKD", prompt).casefold()
    letters = "".join(one for one in parts if unicodedata.category(one) != "Mn")
    text = re.sub("[^a-z0-9]+", "-", letters).strip("-")
    if len(text) > length:
        whole = text[: length + 1].rpartition("-")[0]
        text = whole or text[:length]
    return f"{text}-prompt" if _RESERVED.fullmatch(text) else text


def shown(prompt: str, length: int = 60) -> str:
    """A prompt in a line of a terminal: quoted, shortened; what would be invisible or turn the text round spelled out.

    Args:
        prompt: Cleaned or not.
        length: The most characters between the quotes.
    """
    text = ""
    for place, one in enumerate(prompt):
        # Format characters such as U+202E or U+200B, controls, surrogates, and separators of lines and paragraphs.
        piece = f"<{_code(one)}>" if unicodedata.category(one) in ("Cf", "Cc", "Cs", "Zl", "Zp") else one
        if len(text) + len(piece) + (place < len(prompt) - 1) > length:
            return f'"{text}…"'
        text += piece
    return f'"{text}"'


def notes(prompt: str) -> list[str]:
    """What is to be said of a cleaned prompt, whatever encodes it; a line each."""
    if not prompt:
        return ["the prompt is empty: drawn without text; unless there is a negative prompt, guidance changes nothing"]
    if foreign_share(prompt) > 0.5:
        return ["most letters are not Latin; the text encoder learned from English captions and may not follow"]
    return []


def foreign_share(prompt: str) -> float:
    """The share of letters of other scripts than Latin among all letters; 0 where there are none."""
    letters = [one for one in prompt if one.isalpha()]
    return sum("LATIN" not in unicodedata.name(one, "") for one in letters) / max(1, len(letters))


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
