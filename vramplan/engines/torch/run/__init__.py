"""Runs real components on a GPU, in a process of its own, and tells what they held."""
