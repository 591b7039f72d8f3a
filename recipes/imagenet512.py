"""Trains every SiT of the zoo at 512 px.

hastezoo prepare imagenet512 /path/to/ILSVRC/train DATA
torchrun --nproc-per-node 8 -m hastezoo.recipes.imagenet512 --data DATA
"""

from __future__ import annotations

from .latents_command import make_command

main = make_command(
    "imagenet512", "sit-xl-haste-512", "Train a SiT of 512 px from nothing, plain or with HASTE; run again to go on."
)

if __name__ == "__main__":
    main()
