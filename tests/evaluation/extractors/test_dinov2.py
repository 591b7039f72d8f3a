"""DINOv2's features: images resized, positions resampled and the token taken as the reference does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from hastezoo import hub
from hastezoo.errors import UserError
from hastezoo.evaluation.extractors.dinov2 import MODEL, Dinov2, _architecture, resampled
from tests.evaluation.dots import GRID, MEAN, NAME, STD, WIDTH, dot_state, write_dot
from tests.evaluation.networks import random_images
from tests.local_hub import LocalHub


def cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """The bicubic kernel; a = -0.5 is Keys' own (Pillow, and torch with antialiasing), -0.75 torch's without."""

    def kernel(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    return kernel


def antialiased(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) that resizes a line of pixels; where it shrinks, the kernel is as much wider."""
    scale = old / new
    centre = (np.arange(new) + 0.5) * scale
    weights = cubic(-0.5)((np.arange(old) + 0.5 - centre[:, None]) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


def plain(old: int, new: int, scale: float) -> np.ndarray:
    """The matrix (new, old) of bicubic interpolation without antialiasing; beyond the edge is what is at the edge."""
    place = (np.arange(new) + 0.5) / scale - 0.5
    matrix = np.zeros((new, old))
    for row, centre in enumerate(place):
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[row, min(max(tap, 0), old - 1)] += cubic(-0.75)(np.array(centre - tap))
    return matrix


def by_hand(images: np.ndarray, table: Tensor, state: dict[str, Tensor]) -> np.ndarray:
    """What the network says of images (B, H, W, 3), everything around it computed in float64 with numpy."""
    matrix = antialiased(images.shape[1], 224)
    resized = matrix @ images.transpose(0, 3, 1, 2) @ matrix.T
    mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
    network = timm.create_model(NAME, num_classes=0, img_size=224).eval()
    network.load_state_dict(state | {"pos_embed": table})
    with torch.no_grad():
        tokens = network.double().forward_features(torch.from_numpy((resized / 255 - mean) / std))
    return tokens[:, 0].numpy()


def reference_table(state: dict[str, Tensor]) -> Tensor:
    """Positions of 16 x 16 patches, from those of 37 x 37."""
    matrix = plain(GRID, 16, 16.1 / GRID)
    patches = state["pos_embed"][0, 1:].double().numpy().T.reshape(WIDTH, GRID, GRID)
    image = (matrix @ patches @ matrix.T).reshape(WIDTH, 256).T
    return torch.cat([state["pos_embed"][:, :1], torch.from_numpy(image).float()[None]], 1)


@pytest.mark.parametrize("size", [64, 256])
def test_features_are_those_of_a_plain_derivation(size: int, dot_file: Path) -> None:
    images, state = random_images(5, size), dot_state()
    found = Dinov2.from_pretrained(dot_file, model=NAME, device="cpu")(images)
    assert list(found) == ["pool"] and found["pool"].dtype == np.float32
    expected = by_hand(images, reference_table(state), state)
    np.testing.assert_allclose(found["pool"], expected, rtol=1e-3, atol=2e-4)
    assert found["pool"].std(0).mean() > 0.02, "the images look the same, so nothing was compared"


def test_positions_are_resampled_as_dinov2_does_it() -> None:
    state = dot_state()
    found = resampled(state["pos_embed"], 16)
    np.testing.assert_allclose(found, reference_table(state), atol=2e-5)
    assert torch.equal(resampled(found, 16), found)
    centred = plain(GRID, 16, 16 / GRID) - plain(GRID, 16, 16.1 / GRID)
    assert np.abs(centred).max() > 0.1, "the offset makes no difference, so it was not tested"


@pytest.mark.parametrize("shape", [(1, 257), (1, 0, 4), (1, 1, 4), (1, 30, 4)])
def test_what_is_no_table_of_positions_is_left_to_timm(shape: tuple[int, ...]) -> None:
    table = torch.zeros(shape)
    assert resampled(table, 16) is table


def test_the_features_of_an_image_do_not_depend_on_its_batch(dot_file: Path) -> None:
    extractor, images = Dinov2.from_pretrained(dot_file, model=NAME, device="cpu"), random_images(6, 64)
    parts = [extractor(images[:1])["pool"], extractor(images[1:])["pool"]]
    assert np.array_equal(extractor(images)["pool"], np.concatenate(parts))


def test_what_an_evaluation_wants_to_know(dot_file: Path) -> None:
    before = torch.random.get_rng_state()
    extractor = Dinov2.from_pretrained(dot_file, model=NAME, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws random numbers"
    assert (extractor.name, extractor.channels, extractor.classifier) == ("dinov2", 3, None)
    assert extractor.widths((64, 64, 3)) == {"pool": WIDTH}
    assert extractor.identity == {
        "features": "dinov2",
        "model": NAME,
        "weights_sha256": hashlib.sha256(dot_file.read_bytes()).hexdigest(),
        "resize": "bicubic with antialiasing to 224 px",
        "positions": "bicubic with offset 0.1",
        "timm": timm.__version__,
    }
    assert not extractor._network.training
    assert "state_dict" not in extractor._network.pretrained_cfg, "timm's copy of the weights stays in memory"


def test_the_model_of_the_papers() -> None:
    """ViT-L/14 with a class token of 1024 and ImageNet's mean and standard deviation."""
    network = _architecture(MODEL)
    assert network.num_features == 1024 and network.patch_embed.grid_size == (16, 16) and len(network.blocks) == 24
    config = timm.data.resolve_model_data_config(network)
    assert config["mean"] == (0.485, 0.456, 0.406) and config["std"] == (0.229, 0.224, 0.225)


def test_dinov2s_own_file(tmp_path: Path, dot_file: Path) -> None:
    """Its names are timm's, and a mask token is in it."""
    torch.save(dot_state() | {"mask_token": torch.zeros(1, WIDTH)}, tmp_path / "dot_pretrain.pth")
    images = random_images(1, 64)
    found = Dinov2.from_pretrained(tmp_path / "dot_pretrain.pth", model=NAME, device="cpu")(images)
    expected = Dinov2.from_pretrained(dot_file, model=NAME, device="cpu")(images)
    assert np.array_equal(found["pool"], expected["pool"])


def test_the_hub_is_asked_where_timm_keeps_it(local_hub: LocalHub, dot_file: Path) -> None:
    local_hub.files[f"timm/{NAME}", "model.safetensors"] = dot_file.read_bytes()
    found = Dinov2.from_pretrained(model=NAME, device="cpu")
    assert found.identity["weights_sha256"] == hashlib.sha256(dot_file.read_bytes()).hexdigest()
    sent = local_hub.sent
    Dinov2.from_pretrained(model=NAME, device="cpu")
    assert local_hub.sent == sent, "the bytes came twice"


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch, local_hub: LocalHub) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(hub.Unreachable, match=r"timm/vit_dot.*cannot be reached.*--dinov2") as caught:
        Dinov2.from_pretrained(model=NAME, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vit_large_patch14_dinov", r"timm has no model 'vit_large_patch14_dinov'; nearest: vit_large_patch14_dinov2"),
        ("resnet18", "timm cannot build resnet18 for images of 224 px"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "no ViT with a class token and without registers; take vit_large"),
        ("vit_dot_patch14_518.elsewhere", "is not on the Hub; give a file of its weights"),
    ],
)
def test_models_that_do_not_serve(model: str, message: str, local_hub: LocalHub) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Dinov2.from_pretrained(model=model, device="cpu")
    assert "\n" not in str(caught.value) and not local_hub.requests


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "cannot read .*No such file"),
        ("pointer", "a pointer of git LFS"),
        ("code", r"asks for (posix|nt)\.mkdir"),
        ("missing", "does not fit vit_dot.*norm.weight"),
        ("another", "does not fit vit_dot"),
        ("positions", "does not fit vit_dot"),
    ],
)
def test_files_that_do_not_serve(how: str, message: str, tmp_path: Path) -> None:
    path, state = tmp_path / ("w.pth" if how == "code" else "w.safetensors"), dot_state()
    if how == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif how == "code":
        torch.save({"norm.weight": RunsCode(tmp_path / "ran")}, path)
    elif how == "missing":
        write_dot(path, {name: tensor for name, tensor in state.items() if name != "norm.weight"})
    elif how == "another":
        write_dot(path, state | {"patch_embed.proj.weight": torch.zeros(8, 3, 14, 14)})
    elif how == "positions":
        write_dot(path, state | {"pos_embed": torch.zeros(1, 1000, WIDTH)})
    with pytest.raises(UserError, match=message) as caught:
        Dinov2.from_pretrained(path, model=NAME, device="cpu")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and not (tmp_path / "ran").exists()


@pytest.mark.gpu
def test_on_a_gpu(dot_file: Path) -> None:
    there, here = (Dinov2.from_pretrained(dot_file, model=NAME, device=device) for device in ("cuda", "cpu"))
    images = random_images(70, 64)
    found = there(images)["pool"]
    np.testing.assert_allclose(found[:8], here(images[:8])["pool"], rtol=2e-4, atol=2e-4)
    assert np.array_equal(found[60:65], there(images[60:65])["pool"]), "features depend on the batch"
