"""torch → tape: runs the real pipeline code without data and writes down its allocations."""
