"""Trains the text-to-image models of the zoo at 256 px, on COCO or on one's own captioned images.

    hastezoo prepare coco256 train2014/ annotations/captions_train2014.json DATA
    python -m hastezoo.recipes.coco256 --data DATA                                  # mmdit-coco-haste, 250K steps
    torchrun --nproc-per-node 8 -m hastezoo.recipes.coco256 --data DATA --checkpoint mmdit-coco --variant 150k
    python -m hastezoo.recipes.coco256 --data DATA --variant attention-only --variant 20k-images

Ctrl-C keeps a checkpoint; the same command goes on from it, also with another number of processes.
"""

from __future__ import annotations

from .latents_command import make_command

main = make_command(
    "coco256",
    "mmdit-coco-haste",
    "Train an MMDiT of 256 px on captioned images, plain, with REPA or with HASTE; run again to go on.",
)

if __name__ == "__main__":
    main()
