"""The teacher and what it teaches: features and attention of a frozen ViT."""
