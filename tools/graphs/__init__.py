"""Makes the graph tapes that ship, `python -m tools.graphs`: see `__main__`."""
