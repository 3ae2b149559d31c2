"""Runs the real thing, each measurement in a process of its own, and tells what it held."""
