"""One training loop; what varies (data, objective, hooks) comes in as arguments."""
