"""The program that lets the engine make a model: `python tests/engine_makes.py KEYS FULL LIST`.

Of a header's keys (`engine_made`), in a process of its own: the engine ends one that it dislikes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import sys
from pathlib import Path

from vramplan.engines.ggml.witness.ggml_backend import Tensor
from vramplan.engines.ggml.witness.llama_library import model_parameters, open_library

#: a list of a model's tensors, in the engine's library
_TENSORS = "_Z29llama_internal_get_tensor_mapPK11llama_model"


def main(header: str, full: str, listed: str) -> None:
    """Let the engine make a model of a header's keys, list its tensors, and write it."""

    class Init(ctypes.Structure):
        _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))

    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    library = open_library(Path(spec.submodule_search_locations[0]))
    library.llama_backend_init()
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.gguf_init_from_file.restype = pointer
    library.gguf_init_from_file.argtypes = [text, Init]
    keys = library.gguf_init_from_file(header.encode(), Init(True, None))
    parameters = model_parameters(library)
    parameters.use_extra_buffers, parameters.gpu_layers, parameters.load_mode = False, 0, 0
    kind = ctypes.CFUNCTYPE(None, pointer, pointer)
    nothing = kind(lambda *_: None)
    init = library.llama_model_init_from_user
    init.restype, init.argtypes = pointer, [pointer, kind, pointer, type(parameters)]
    model = init(keys, nothing, None, parameters)
    if model:
        tell = getattr(library, _TENSORS)
        tell.restype, tell.argtypes = pointer, [pointer]
        begin, end = (pointer * 2).from_address(tell(model))
        found = []
        for at in range(begin or 0, end or 0, 16):  # pairs of pointers: a name, a tensor
            tensor = Tensor.from_address(pointer.from_address(at + 8).value or 0)
            shape = list(tensor.shape)
            while len(shape) > 1 and shape[-1] == 1:
                shape.pop()
            found.append((tensor.name.decode(), shape))
        Path(listed).write_text(json.dumps(found), encoding="utf-8")
        library.llama_model_save_to_file.argtypes = [pointer, text]
        library.llama_model_save_to_file(model, full.encode())
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
