"""Reads headers of model files, wherever they are; never weights."""
