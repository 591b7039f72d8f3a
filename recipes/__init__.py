"""Recipes: one module per data set. `python -m hastezoo.recipes.digits` trains a checkpoint of the zoo from nothing."""
