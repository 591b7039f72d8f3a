"""A request said again: as a `hastezoo sample` line, or as a script in Python, that draws the same images.

What is said is as short as it can be: settings that the card or a named protocol gives are left out. The `count` of a
protocol, how many images an evaluation takes, decides no image; of all of a request it alone may come out otherwise.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hastezoo import autoencoders
from hastezoo.asking import LARGEST_SEED, MOST_SEEDS, PROTOCOL_KEYS
from hastezoo.conditioning import clip_files
from hastezoo.conditioning.labels import class_names, label_of_seed
from hastezoo.conditioning.prompts import clean
from hastezoo.errors import UserError
from hastezoo.request import Request
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import find_card, find_protocol, protocols

LONGEST = 100_000  # bytes of a line; Linux takes 131,072 for one word of it
WIDTH = 100  # of a script
INSTEAD = "make it again with `hastezoo sample --from` its samples.json"


def as_command(request: Request, out: str | Path | None = None, *, device: str | None = None) -> str:
    """The line for a POSIX shell that draws exactly this request.

    Args:
        request: Of any origin. Files and folders that it names are taken to be still there.
        out: The folder to name; None leaves it to the command.
        device: To name; None leaves it to the machine.

    Raises:
        UserError: If no line says it: its images are not conditions x seeds, a setting has no option, or the line
            would be too long for a shell.
    """
    card = _card_of(request)
    words = ["hastezoo", "sample", *_option("model", request.model), *_subject_words(request, card)]
    name, changed = _protocol_of(request, card, PROTOCOL_KEYS)
    if name != card.protocol:
        words += _option("protocol", name)
    for key, value in changed.items():
        words += [f"--{key.replace('_', '-')}", *map(_number, value if isinstance(value, tuple) else (value,))]
    words += _option("batch-size", request.batch_size)
    for key, value in _loading(request, card, device).items():
        words += [f"--{key.replace('_', '-')}"] if value is True else _option(key.replace("_", "-"), value)
    words += _option("format", request.format) if request.format != "png" else []
    words += _option("out", out) if out is not None else []
    line = shlex.join(words)
    if len(line.encode()) > LONGEST:
        raise UserError(f"the command would take {len(line.encode()):,} bytes, more than a shell does; {INSTEAD}")
    return line


def as_python(request: Request, *, device: str | None = None) -> str:
    """A script that draws the same pixels and saves them as files in the working directory.

    Args:
        request: Of any origin. Files and folders that it names are taken to be still there.
        device: To name; None leaves it to the machine.

    Raises:
        UserError: If a prompt of the request is not one that can be drawn from.
    """
    card = _card_of(request)
    name, changed = _protocol_of(request, card)
    loading = _loading(request, card, device)
    drawing: dict[str, str] = {"prompts" if request.prompts else "classes": _asked_code(request)}
    drawing["negative"] = _code(request.negative) if request.negative else ""
    drawing["seeds"] = _seeds_code(request)
    drawing["batch_size"] = repr(request.batch_size)
    drawing["protocol"] = _code(name) if name != card.protocol else ""
    drawing |= {key: _code(value) for key, value in changed.items()}
    loaded = [_code(request.model), *(f"{key}={_code(value)}" for key, value in loading.items())]
    ending, lossless = ("webp", ", lossless=True") if request.format == "webp" else ("png", "")
    return (
        "from hastezoo import Pipeline\n\n"
        f"pipe = {_call('Pipeline.from_pretrained', loaded)}\n"
        f"out = {_call('pipe', [f'{key}={code}' for key, code in drawing.items() if code])}\n"
        "for number, image in enumerate(out.images):\n"
        f'    image.save(f"{{number:05}}.{ending}"{lossless})\n'
    )


def _card_of(request: Request) -> Card:
    """The card, if it draws what the request has."""
    card = find_card(request.model)
    if (card.text is None) == bool(request.prompts):
        raise UserError(
            f"{request.model} draws {'classes' if card.text is None else 'from text'}: no such request is its"
        )
    if any(clean(prompt) != prompt for prompt in (*request.prompts, request.negative)):
        raise UserError("a prompt of the request has spaces or characters that prompts are cleaned of")
    return card


def _protocol_of(request: Request, card: Card, settable: Collection[str] | None = None) -> tuple[str, dict[str, Any]]:
    """(a named protocol, the settings that differ from it), with as few of these as can be; the card's own wins a tie.

    Args:
        request: It has the protocol wanted.
        card: Of its model.
        settable: The settings that can be told otherwise, to anything but None; None for all.
    """
    wanted = request.protocol.model_dump(exclude={"count"})
    found = []
    for name in dict.fromkeys([card.protocol, *protocols()]):
        base = find_protocol(name)
        changed = {key: value for key, value in wanted.items() if value != getattr(base, key)}
        unsaid = [] if settable is None else [key for key in changed if key not in settable or changed[key] is None]
        found.append((len(unsaid), len(changed), name, changed, unsaid))
    _, _, name, changed, unsaid = min(found, key=lambda one: one[:2])
    if unsaid:
        raise UserError(f"no option of `hastezoo sample` sets {', '.join(unsaid)} as this request has it; {INSTEAD}")
    return name, changed


def _loading(request: Request, card: Card, device: str | None) -> dict[str, Any]:
    """What the pipeline is loaded with, where that is not the card's: by the names of `Pipeline.from_pretrained`."""
    vae, encoder = request.vae, request.text_encoder
    if vae is not None and vae == autoencoders.place_of(card.autoencoder.repo):
        vae = None
    if encoder is not None and card.text is not None and encoder == clip_files.place_of(card.text.repo):
        encoder = None
    given = {
        "weights": request.weights,
        "vae": vae,
        "vae_tiling": request.vae_tiling,
        "text_encoder": encoder,
        "device": device,
        "dtype": request.dtype if request.dtype != "float32" else None,
        "compile": request.compile,
    }
    return {key: value for key, value in given.items() if value not in (None, False)}


def _crossed(request: Request) -> tuple[list[int], list[int]] | None:
    """(conditions, seeds), each once, whose product the request is, in its order; None if it is no product."""
    each = max(1, len(request.seeds) // request.conditions)
    numbers, seeds = request.labels[::each], request.seeds[:each]
    whole = request.seeds == seeds * len(numbers) and request.labels == [one for one in numbers for _ in seeds]
    once = len(set(numbers)) == len(numbers) == request.conditions and len(set(seeds)) == len(seeds)
    return (numbers, seeds) if whole and once else None


def _subject_words(request: Request, card: Card) -> list[str]:
    """--class or --prompt and --negative, and the seeds; no class where the labels are those drawn from the seeds."""
    numbers: list[int] = []
    if not _labels_of_seeds(request, card):
        crossed = _crossed(request)
        if crossed is None or (request.prompts and crossed[0] != list(range(len(request.prompts)))):
            raise UserError(f"the images of this request are not conditions x seeds; {INSTEAD}")
        numbers, seeds = crossed
    else:
        seeds = request.seeds
    if not request.prompts:
        words = [word for label in numbers for word in _option("class", label)]
    else:
        words = [word for number in numbers for word in _option("prompt", request.prompts[number])]
        words += _option("negative", request.negative) if request.negative else []
    return words + _seed_words(seeds)


def _labels_of_seeds(request: Request, card: Card) -> bool:
    """Whether the labels are drawn from the seeds. Where all are of one class it is named all the same: whoever then
    changes a seed keeps the class."""
    if request.prompts or request.conditions != 1 or len(set(request.seeds)) < len(request.seeds):
        return False
    if len(set(request.labels)) == 1:
        return False
    classes = len(class_names(str(card.classes)))
    return request.labels == [label_of_seed(seed, classes) for seed in request.seeds]


def _seed_words(seeds: list[int]) -> list[str]:
    first, count = seeds[0], len(seeds)
    if _contiguous(seeds) and count <= MOST_SEEDS and first <= LARGEST_SEED - MOST_SEEDS:
        return ["--seed", str(first), "-n", str(count)]
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1][1:] = [seed]
        else:
            runs.append([seed])
    return _option("seeds", ",".join("-".join(map(str, run)) for run in runs))


def _contiguous(seeds: Sequence[int]) -> bool:
    return list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))


def _option(name: str, value: object) -> list[str]:
    """An option and its value; in one word where the value could be taken for an option."""
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]


def _number(value: object) -> str:
    """A setting as short as it is exact."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _code(value: object) -> str:
    """A value as Python, a text in double quotes where it has none."""
    code = repr(value)
    return f'"{code[1:-1]}"' if isinstance(value, str) and '"' not in code else code


def _asked_code(request: Request) -> str:
    """Labels or prompts as Python: one, a product with the seeds, or a list."""
    asked, crossed = request.asked, _crossed(request)
    if len(set(asked)) == 1:
        return _code(asked[0])
    if crossed is None or len(crossed[1]) == 1:
        return _list_code(asked)
    numbers, seeds = crossed
    one, each = ("prompt", [request.prompts[number] for number in numbers]) if request.prompts else ("label", numbers)
    return f"[{one} for {one} in {_list_code(each)} for _ in range({len(seeds)})]"


def _seeds_code(request: Request) -> str:
    """The seeds as Python: a range, a list, or one of them again for every condition."""
    crossed = _crossed(request)
    seeds, times = (crossed[1], len(crossed[0])) if crossed else (request.seeds, 1)
    if len(seeds) > 2 and _contiguous(seeds):
        code = f"range({seeds[0]}, {seeds[-1] + 1})"
        return f"list({code}) * {times}" if times > 1 else code
    return _list_code(seeds) + (f" * {times}" if times > 1 else "")


def _list_code(values: Sequence[object]) -> str:
    """A list as Python, over several lines where it is long."""
    code = ", ".join(map(_code, values))
    if len(code) + 20 <= WIDTH:
        return f"[{code}]"
    texts = any(isinstance(value, str) for value in values)  # they have spaces of their own
    lines = [f"{_code(value)}," for value in values] if texts else textwrap.wrap(code, WIDTH - 8)
    return "[\n" + textwrap.indent("\n".join(lines), " " * 8) + "\n    ]"


def _call(called: str, arguments: list[str]) -> str:
    line = f"{called}({', '.join(arguments)})"
    if len(line) + 6 <= WIDTH and "\n" not in line:
        return line
    return f"{called}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"
