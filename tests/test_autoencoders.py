"""Pixels to bytes, and latents through diffusers' AutoencoderKL."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from hastezoo.autoencoders import Identity, LatentAutoencoder, create_autoencoder, to_bytes
from hastezoo.errors import UserError
from tests.local_hub import LocalHub


def bytes_of(values: list[float], rounding: str) -> list[int]:
    return to_bytes(torch.tensor(values).view(-1, 1, 1, 1), rounding).flatten().tolist()  # type: ignore[arg-type]


def test_roundings_are_the_two_of_the_field() -> None:
    x = torch.linspace(-1.2, 1.2, 999, dtype=torch.float64)
    truncate = (255 * (x + 1) / 2).clamp(0, 255).floor()
    nearest = (127.5 * x + 128).clamp(0, 255).floor()
    assert bytes_of(x.tolist(), "truncate") == pytest.approx(truncate.tolist(), abs=0)
    assert bytes_of(x.tolist(), "nearest") == pytest.approx(nearest.tolist(), abs=0)


def test_every_byte_survives_the_round_trip_to_nearest() -> None:
    levels = torch.arange(256, dtype=torch.float64)
    assert bytes_of((levels / 127.5 - 1).tolist(), "nearest") == list(range(256))


def test_shape_is_batch_height_width_channels() -> None:
    x = torch.zeros(2, 3, 4, 5)
    x[1, 2, 3, 4] = 1
    out = to_bytes(x)
    assert out.shape == (2, 4, 5, 3) and out.dtype == torch.uint8 and out[1, 3, 4, 2] == 255


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="one of truncate, nearest"):
        to_bytes(torch.zeros(1, 1, 1, 1), "up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown autoencoder"):
        create_autoencoder("vae")
    assert isinstance(create_autoencoder("identity"), Identity)


def test_latents_are_scaled_and_shifted_as_the_models_expect(tiny_vae: Path) -> None:
    """encode = scale * mean + bias, decode its inverse before the decoder: against diffusers' own calls."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    plain = AutoencoderKL.from_pretrained(str(tiny_vae)).eval()
    ours = LatentAutoencoder.from_pretrained(tiny_vae, 0.18215, 0.25)
    pixels, latents = torch.rand(2, 3, 32, 48) * 2 - 1, torch.randn(2, 4, 4, 6)
    with torch.no_grad():
        expected = 0.18215 * plain.encode(pixels).latent_dist.mean + 0.25
        assert torch.allclose(ours.encode(pixels), expected, atol=1e-6)
        expected = plain.decode((latents - 0.25) / 0.18215).sample
        assert torch.allclose(ours.decode(latents.double()), expected, atol=1e-5)
    assert ours.decode(latents).shape == (2, 3, 32, 48) and ours.downsampling == 8


def test_images_pass_a_few_at_a_time(tiny_vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = LatentAutoencoder.from_pretrained(tiny_vae, 0.18215, 0.0)
    latents = torch.randn(5, 4, 4, 4)
    whole = ours.decode(latents)
    seen: list[int] = []
    decode = ours.vae.decode
    monkeypatch.setattr(ours.vae, "decode", lambda z: seen.append(len(z)) or decode(z))
    monkeypatch.setattr("hastezoo.autoencoders.PIXELS_AT_ONCE", 2 * 32 * 32)
    assert torch.allclose(ours.decode(latents), whole, atol=1e-5) and seen == [2, 2, 1]


def test_tiles_are_decoded_one_by_one(tiny_vae: Path) -> None:
    """64 x 64 pixels in tiles of 32 that overlap by a quarter: the first 24 x 24 are the first tile's alone."""
    whole = LatentAutoencoder.from_pretrained(tiny_vae, 0.18215, 0.0)
    tiled = LatentAutoencoder.from_pretrained(tiny_vae, 0.18215, 0.0, tiling=True)
    latents = torch.randn(1, 4, 8, 8)
    image = tiled.decode(latents)
    assert image.shape == (1, 3, 64, 64)
    first = whole.decode(latents[..., :4, :4])
    assert torch.allclose(image[..., :24, :24], first[..., :24, :24], atol=1e-5)
    assert not torch.allclose(whole.decode(latents)[..., :24, :24], first[..., :24, :24], atol=1e-2)


def test_a_vae_of_another_latent_space_is_refused(tiny_vae: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_vae, tmp_path / "vae")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    with pytest.raises(UserError, match=r"scales its latents by 0\.13025, the model was trained with 0\.18215"):
        LatentAutoencoder.from_pretrained(folder, 0.18215, 0.0)


@pytest.mark.parametrize("how", ["empty", "config", "truncated", "other", "no-folder", "folder-like"])
def test_what_is_no_autoencoder_is_refused_in_one_line(tiny_vae: Path, tmp_path: Path, how: str) -> None:
    folder = shutil.copytree(tiny_vae, tmp_path / "vae")
    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    source = str(folder)
    if how == "empty":
        weights.unlink()
    elif how == "config":
        config.write_text("{")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "other":
        config.write_text(json.dumps({**json.loads(config.read_text()), "latent_channels": 8}))
    elif how == "no-folder":
        source = str(tmp_path / "nothing")
    else:
        source = "./some/vae"
    with pytest.raises(UserError) as caught:
        LatentAutoencoder.from_pretrained(source, 0.18215, 0.0)
    assert "\n" not in str(caught.value) and source in str(caught.value)


def test_a_vae_comes_from_the_hub_by_its_short_name(tiny_vae: Path, local_hub: LocalHub) -> None:
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        local_hub.files["stabilityai/sd-vae-ft-mse", name] = (tiny_vae / name).read_bytes()
    ours = LatentAutoencoder.from_pretrained("mse", 0.18215, 0.0)
    assert ours.source == "stabilityai/sd-vae-ft-mse" and len(ours.sha256) == 64
    with pytest.raises(
        UserError, match=r"autoencoder hub:stabilityai/sd-vae-ft-ema:config\.json: there is no such repo.*--vae FOLDER"
    ):
        LatentAutoencoder.from_pretrained("ema", 0.18215, 0.0)
