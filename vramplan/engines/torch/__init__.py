"""PyTorch: tapes of real pipeline code, replayed through a model of its caching allocator."""
