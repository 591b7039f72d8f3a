"""How good images are: statistics of features, and metrics from statistics."""
