"""The program that records an engine's graph: `python -m … REQUEST`, one line of JSON on stdout.

It loads a file's header into the real llama.cpp without weights or caches (`no_alloc`), has it
reserve the graph of a batch, and reads that out. It runs in a process of its own, which has bounds,
and ends at once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from ctypes import c_bool, c_char_p, c_void_p

from vramplan.engines.ggml.witness.dry_run import open_engine, parameters
from vramplan.engines.ggml.witness.graph_reader import GraphReader
from vramplan.errors import MissingError

#: what the process may ask for: a header and a graph are some 100 MB, and the compute buffer is
#: reserved although nobody ever writes to it
_MOST_MEMORY = 64 << 30
#: enum llama_load_mode: nothing is read or mapped
_LOAD_NOTHING = 0


def main(request: Mapping[str, object]) -> None:
    """Print the graph that a request asks for. Raises MissingError where it is not to be had."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    library = open_engine(request)
    library.llama_backend_init()
    model, context = parameters(library, request)
    model.gpu_layers = 0
    model.no_alloc, model.load_mode = c_bool(True), _LOAD_NOTHING
    reader = GraphReader(library)
    load, make = library.llama_model_load_from_file, library.llama_init_from_model
    load.restype, load.argtypes = c_void_p, [c_char_p, type(model)]
    make.restype, make.argtypes = c_void_p, [c_void_p, type(context)]
    loaded = load(str(request["model"]).encode(), model)
    made = make(loaded, context) if loaded else None
    if made is None:
        raise MissingError("the engine does not load the file at these settings")
    numbers = [int(str(request[key])) for key in ("tokens", "parallel", "outputs")]
    graph = reader.reserve(made, numbers[0], numbers[1], numbers[2])
    told = {**graph, "held_bytes": reader.held_bytes(made)}
    json.dump(told, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except MissingError as problem:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
