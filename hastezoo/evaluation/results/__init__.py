"""What an evaluation found, what it was expected to find, and how two results compare."""
