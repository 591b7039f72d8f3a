"""A checkpoint onto the Hub: safetensors, config, and a model card with the front matter that the Hub validates."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hastezoo import __version__, hub
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.files import atomic_write, write_json
from hastezoo.zoo.card import Card, Result, Text
from hastezoo.zoo.modelfile import is_ours, read_config, read_header
from hastezoo.zoo.registry import find_protocol
from hastezoo.zoo.verify import verify_file

# Licences by the identifiers that the Hub knows; anything else is "other", with its name.
LICENCES = {"mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail"}


@dataclass(frozen=True)
class Parcel:
    """What would be pushed.

    Attributes:
        weights: The file of ours, verified.
        readme: The model card, with front matter.
        config: The architecture and its values, for tools that read config.json (the Hub counts downloads by it).
    """

    weights: Path
    readme: str
    config: dict[str, Any]


def pack(card: Card, weights: Path, repo: str, licence: str | None = None) -> Parcel:
    """Check that the weights are sound and may be passed on, and write their model card.

    Args:
        card: The checkpoint.
        weights: A file of ours.
        repo: `owner/name`, where it will be.
        licence: Of the weights, where it is not the card's: those you trained are yours.

    Raises:
        UserError: If the file is not sound, or its licence does not let it be passed on.
    """
    if not weights.is_file():
        raise UserError(f"there is no file {weights}")
    if not is_ours(weights):
        raise UserError(f"{weights} is not a file of hastezoo; `hastezoo import {card.name} {weights}` first")
    metadata = read_header(weights)
    bad = [check for check in verify_file(weights, card) if not check.good]
    if bad:
        raise UserError(f"{weights} is not fit to be published: {bad[0].what}: {bad[0].detail}")
    licence = _check_licence(card, metadata, licence)
    config = {"architecture": metadata["architecture"], **read_config(metadata)}
    return Parcel(weights, model_card(card, weights, repo, licence, metadata), config)


def _check_licence(card: Card, metadata: dict[str, str], licence: str | None) -> str:
    """The licence to publish under. Weights converted from somebody's release carry that release's terms."""
    released = _is_released(card, metadata)
    if released and card.redistribution != "allowed":
        raise UserError(
            f"{card.name} was released with the licence {card.licence!r}, which does not say that its weights may be "
            "passed on; ask its authors. Weights that you trained yourself can be pushed with --weights"
        )
    formats = {origin.format for origin in card.origins}
    if released and _origin(metadata) not in formats:
        raise UserError(
            f"the weights come from a release in the format {_origin(metadata)!r}, those of {card.name} from "
            f"{' or '.join(sorted(formats))}: the licence {card.licence} may not be theirs"
        )
    if released and licence is not None and licence.lower() != card.licence.lower():
        raise UserError(f"{card.name} was released under {card.licence}; it cannot be published under {licence}")
    chosen = licence or card.licence
    if not released and licence is None and chosen.lower() not in LICENCES:
        raise UserError(
            "these weights are yours: say under which licence they are published, such as --licence apache-2.0"
        )
    return chosen


def _origin(metadata: dict[str, str]) -> str:
    """The format that the weights were converted from; nothing for those that a recipe wrote."""
    return metadata.get("origin", "").strip('"')


def _is_released(card: Card, metadata: dict[str, str]) -> bool:
    """Whether the weights are somebody's release, as far as the file tells."""
    return bool(_origin(metadata)) and bool(card.origins)


def push(parcel: Parcel, repo: str, *, private: bool = False, message: str | None = None) -> str:
    """Publish; one commit with everything, so that a reader never sees half of it.

    Args:
        parcel: From `pack`.
        repo: `owner/name`; made if need be.
        private: Make it private.
        message: Of the commit.

    Returns:
        The commit's URL.

    Raises:
        UserError: If the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    place = hub.parse(hub.PREFIX + repo)
    api = HfApi(library_name="hastezoo", library_version=__version__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atomic_write(folder / "README.md", parcel.readme.encode())
        write_json(folder / "config.json", parcel.config)
        files = {
            hub.DEFAULT_FILE: parcel.weights,
            "README.md": folder / "README.md",
            "config.json": folder / "config.json",
        }
        try:
            api.create_repo(place.repo, private=private, exist_ok=True)
            commit = api.create_commit(
                place.repo,
                [CommitOperationAdd(path, str(file)) for path, file in files.items()],
                commit_message=message or f"Upload with hastezoo {__version__}",
            )
        except Exception as error:
            raise hub.explained(error, place) from None
    return str(commit.commit_url)


def model_card(card: Card, weights: Path, repo: str, licence: str, metadata: dict[str, str]) -> str:
    """The README.md of a repository of the Hub: front matter, and what our card knows."""
    from huggingface_hub import ModelCardData

    known = licence.lower() in LICENCES
    data = ModelCardData(
        license=licence.lower() if known else "other",
        license_name=None if known else licence,
        library_name="hastezoo",
        pipeline_tag="text-to-image" if card.classes is None else "unconditional-image-generation",
        tags=[
            "diffusion",
            "flow-matching",
            card.architecture.split("_")[0],
            *([card.method] * (card.method != "plain")),
        ],
        datasets=["imagenet-1k"] if card.classes == "imagenet" else None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(card, weights, repo, licence, metadata)}"


def _body(card: Card, weights: Path, repo: str, licence: str, metadata: dict[str, str]) -> str:
    protocol = find_protocol(card.protocol)
    guided = f", guidance {protocol.cfg:g} in [{protocol.interval[0]:g}, {protocol.interval[1]:g}]"
    how = 'prompts=["a red bus"]' if card.classes is None else "classes=[0, 1], seeds=[0, 1]"
    origin, digest = _origin(metadata), sha256_of(weights)
    made = f"Converted from a checkpoint in the format `{origin}`." if origin else "Written by a recipe of hastezoo."
    lines = [
        f"# {card.title}",
        "",
        card.description,
        "",
        "```python",
        "import hastezoo",
        "",
        f'pipe = hastezoo.Pipeline.from_pretrained("{card.name}", weights="hub:{repo}")',
        f"images = pipe({how}).images",
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| architecture | `{card.architecture}`, {card.parameters:,} parameters |",
        f"| method | {card.method} |",
        f"| training step | {metadata.get('step', 'not stated')} |",
        f"| data | {card.data or 'not stated'} |",
        f"| latents | {card.autoencoder.repo or 'none: pixels'}, scale {card.autoencoder.scale:g} |",
        *([f"| text | {_text(card.text)} |"] if card.text else []),
        f"| sampled by default with | {protocol.solver}, {protocol.steps} steps{guided if protocol.cfg != 1 else ''} |",
        f"| licence | {licence} |",
        f"| sha256 | `{digest}` |",
        "",
        made,
        "",
    ]
    if card.results:
        # A card's figures are of the published weights; others of the same name have none yet.
        theirs = _is_released(card, metadata) or (card.weights is not None and card.weights.sha256 == digest)
        heading = "## Results" if theirs else "## Results of the published checkpoint, not of these weights"
        lines += [heading, "", "| metric | value | protocol | |", "|---|---|---|---|"]
        lines += [_result(result) for result in card.results] + [""]
    lines += ["## Papers", "", *[f"- {paper}" for paper in card.papers], ""]
    return "\n".join(lines)


def _text(text: Text) -> str:
    """What makes a condition of a prompt."""
    if text.kind == "words":
        return f"words that the network encodes itself, {text.length} of a prompt"
    return f"{text.repo}, {text.length} tokens"


def _result(result: Result) -> str:
    note = f"; {result.note}" if result.note else ""
    return (
        f"| {result.metric} | {result.value:g} | {result.protocol or '-'} | *{result.kind}* by {result.source}{note} |"
    )
