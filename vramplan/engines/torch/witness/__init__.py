"""A card that is not there: stand-ins for NVIDIA's libraries, under the CUDA build of torch.

The caching allocator, the choice of kernels and every operator's own code are torch's, unchanged.
Kernels compute nothing and memory is address space, so a machine without a GPU or a driver answers
what would be allocated on any card, and where it would end.

Modules that a program's own process imports (`start`, and what it needs) use the standard library
and `vramplan.errors` alone: the Python that runs the program need not have vramplan installed.
"""
