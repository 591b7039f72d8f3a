"""CLIP text encoders of the real structure with random weights, and a small tokenizer that splits as CLIP's does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

START, END = "<|startoftext|>", "<|endoftext|>"
# Pairs that make these words one token each; all other text falls into its bytes.
MERGES = ("c a", "ca t</w>", "r e", "re d</w>", "b u", "bu s</w>", "o f</w>", "t h", "th e</w>")


def save_clip(
    folder: Path,
    *,
    width: int = 32,
    layers: int = 2,
    heads: int = 2,
    seed: int = 0,
    full: bool = False,
    hidden: int | None = None,
    length: int = 77,
) -> Path:
    """Write one in transformers' format: config, weights, and the four files of its tokenizer.

    Args:
        folder: Made if need be.
        width, layers, heads: 768, 12, 12 is the size of ViT-L/14's.
        seed: Of the weights.
        full: With an image half, small, as whole CLIPs have it.
        hidden: Width of the MLP; four times the width by default.
        length: Positions.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

    write_tokenizer(folder, length)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    text: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": width,
        "intermediate_size": hidden or 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": length,
        "bos_token_id": vocabulary[START],
        "eos_token_id": vocabulary[END],
        "pad_token_id": vocabulary[END],
        "initializer_factor": 4.0,  # so that layers change something: by default the tables of tokens drown them
    }
    image = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 8, "patch_size": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if full:
            model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config={**image, **sizes}, projection_dim=16))
        else:
            model = CLIPTextModel(CLIPTextConfig(**text))
        for name, value in model.named_parameters():
            # Zero biases and unit gains would hide a step that is left out.
            if name.endswith("bias") or "norm" in name:
                torch.nn.init.normal_(value.detach(), float("norm" in name and name.endswith("weight")), 0.2)
    model.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, length: int = 77) -> None:
    """The files of a byte-level BPE tokenizer in CLIP's layout: bytes, bytes that end a word, merges, start and end."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{one}</w>" for one in symbols), *(pair.replace(" ", "") for pair in MERGES), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    files: dict[str, Any] = {
        "vocab.json": {token: number for number, token in enumerate(tokens)},
        "special_tokens_map.json": special,
        "tokenizer_config.json": {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": length},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte: itself where it is one, else the next free from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
