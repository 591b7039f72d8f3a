"""Trains every SiT of the zoo at 256 px, on ImageNet or on one's own images.

    hastezoo prepare imagenet256 /path/to/ILSVRC/train DATA
    python -m hastezoo.recipes.imagenet256 --data DATA                     # sit-xl-haste
    torchrun --nproc-per-node 8 -m hastezoo.recipes.imagenet256 --data DATA --checkpoint sit-b-haste
    python -m hastezoo.recipes.imagenet256 --checkpoint sit-xl-repa --dry-run

Ctrl-C keeps a checkpoint; the same command goes on from it, also with another number of processes.
"""

from __future__ import annotations

from .latents_command import make_command

main = make_command(
    "imagenet256",
    "sit-xl-haste",
    "Train a SiT of 256 px from nothing, plain, with REPA or with HASTE; run again to go on.",
)

if __name__ == "__main__":
    main()
