"""What exists and where its weights are. Reading cards loads no torch."""
