"""ggml's graphs and the allocator that gives them memory: what an engine's compute buffer holds."""
