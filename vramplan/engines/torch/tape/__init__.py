"""Tapes: their format, their symbolic sizes, their replay and the caching-allocator model."""
