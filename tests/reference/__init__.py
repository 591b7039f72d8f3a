"""Plain float64 re-derivations, written from the papers without looking at the package."""
