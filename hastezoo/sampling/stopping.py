"""How a run is stopped from outside. Apart from the solvers, so that who only catches it need not load torch."""

from __future__ import annotations


class Cancelled(Exception):
    """Raised by a callback to stop a solver between two steps."""
