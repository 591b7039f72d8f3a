"""What a recipe of latents does otherwise for images of classes and for captioned images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.models.registry import find_architecture
from hastezoo.zoo.card import Card

if TYPE_CHECKING:
    from torch import Tensor

    from hastezoo.conditioning.conditions import Conditions
    from hastezoo.data.manifest import Manifest
    from hastezoo.data.prepared import Prepared
    from hastezoo.evaluation.prompts import PromptList

IMAGENET_CLASSES = 1000
FAMILIAR = (207, 360, 387, 974, 88, 979, 417, 279)  # ImageNet classes that grids of samples show
SHOWN = 8  # conditions in a grid of samples
# Of the training sets that nothing is known of yet: images, and captions where they have some.
SIZES = {"imagenet256": (1_281_167, 0), "imagenet512": (1_281_167, 0), "coco256": (82_783, 414_113)}


class Classes:
    """A SiT and images in classes."""

    def check(self, manifest: Manifest, path: Path | None) -> None:
        """Refuse another kind of data.

        Raises:
            UserError: If it is captioned.
        """
        if manifest.text is not None:
            raise UserError(f"{path} has captions and no classes: `python -m hastezoo.recipes.coco256` trains on it")

    def wanted(self, manifest: Manifest) -> dict[str, Any]:
        """Settings of a model that fits the data."""
        return {"num_classes": len(manifest.classes)}

    def given(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The same settings of a model."""
        return {"num_classes": model.get("num_classes")}

    def named(self, settings: Mapping[str, Any]) -> str:
        """Those settings in words."""
        return f"{settings['num_classes']} classes"

    def record(self, card: Card, manifest: Manifest) -> dict[str, Any]:
        """What a run's record says of its conditions."""
        if has_imagenet_labels(manifest):
            return {"class_list": "imagenet"}
        return {"classes": tuple(manifest.classes)}

    def null(self, samples: Prepared) -> int | Tensor:
        """The null label."""
        return len(samples.manifest.classes)

    def shown(self, samples: Prepared, count: int) -> tuple[Conditions, list[Any]]:
        """What grids of samples show, for `count` images: conditions and labels, by number where they may be own."""
        from hastezoo.conditioning.conditions import Labels
        from hastezoo.conditioning.labels import ClassList

        classes = len(samples.manifest.classes)
        labels = FAMILIAR if classes == IMAGENET_CLASSES else range(min(classes, SHOWN))
        return Labels(ClassList(tuple((str(label),) for label in range(classes)))), list(labels)

    def reference(self, manifest: Manifest) -> str:
        """What a quick FID is held against, where not the data itself."""
        return f"imagenet{manifest.resolution}" if has_imagenet_labels(manifest) else ""

    def evaluated(self, samples: Prepared, prompts: str) -> tuple[Conditions, PromptList | None]:
        """What a quick FID draws."""
        return self.shown(samples, 1)[0], None


class Captions:
    """An MMDiT and captioned images."""

    def check(self, manifest: Manifest, path: Path | None) -> None:
        """Refuse another kind of data.

        Raises:
            UserError: If it has no captions.
        """
        if manifest.text is None:
            raise UserError(f"{path} has classes and no captions; prepare some with `hastezoo prepare coco256`")

    def wanted(self, manifest: Manifest) -> dict[str, Any]:
        """Settings of a model that fits the data."""
        assert manifest.text is not None
        return {"context_width": manifest.text.width}

    def given(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The same settings of a model."""
        return {"context_width": model.get("context_width")}

    def named(self, settings: Mapping[str, Any]) -> str:
        """Those settings in words."""
        return f"captions with states {settings['context_width']} wide"

    def record(self, card: Card, manifest: Manifest) -> dict[str, Any]:
        """What a run's record says of its conditions."""
        return {"text": card.text}

    def null(self, samples: Prepared) -> int | Tensor:
        """The states of the empty prompt."""
        assert samples.null is not None
        return samples.null

    def shown(self, samples: Prepared, count: int) -> tuple[Conditions, list[Any]]:
        """What grids of samples show, for `count` images: the first captions of some images, always the same."""
        from hastezoo.conditioning.conditions import Prompts
        from hastezoo.conditioning.text import StoredText
        from hastezoo.data.order import permutation

        about, null = samples.manifest.text, samples.null
        assert about is not None and null is not None
        chosen = permutation(0, 0, samples.manifest.samples)[: min(SHOWN, count)].tolist()
        states = {"": null} | {samples.captions(row)[0]: samples.caption_states(row, 0) for row in chosen}
        stored = StoredText(
            states, length=about.length, width=about.width, source=about.encoder, sha256=about.encoder_sha256
        )
        return Prompts(stored), [prompt for prompt in states if prompt]

    def reference(self, manifest: Manifest) -> str:
        """What a quick FID is held against, where not the data itself."""
        return ""

    def evaluated(self, samples: Prepared, prompts: str) -> tuple[Conditions, PromptList | None]:
        """What a quick FID draws: the captions of a prepared data set, whose states are known.

        Raises:
            UserError: If their states are not known.
        """
        from hastezoo.conditioning.conditions import Prompts
        from hastezoo.evaluation.prompts import open_prompts

        found = open_prompts(prompts)
        if found.encoder is None:
            raise UserError(f"evaluation.prompts: {prompts} has no states of its prompts; name a prepared data set")
        return Prompts(found.encoder), found


Kind = Classes | Captions


def kind_of(architecture: str) -> Kind:
    """What a model of an architecture is trained on."""
    return Captions() if find_architecture(architecture).family == "mmdit" else Classes()


def has_imagenet_labels(manifest: Manifest) -> bool:
    """Whether the labels are ImageNet's."""
    return manifest.name.startswith("imagenet") and len(manifest.classes) == IMAGENET_CLASSES
