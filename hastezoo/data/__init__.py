"""Datasets: how they are read, and in which order."""
