"""The program that asks llama.cpp many questions in one process: a line of JSON each way.

It makes an architecture's tensors out of a header's keys, reads out the graphs of a file at many
settings, and tells what buffers are held for it with layers on a card that is not there. An engine
that dislikes a model may end the process: whoever asks starts another.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from ctypes import c_bool, c_char_p, c_int, c_void_p
from typing import Any

from vramplan.engines.ggml.witness import ggml_backend as ggml
from vramplan.engines.ggml.witness.dry_run import open_engine, parameters
from vramplan.engines.ggml.witness.graph_reader import GraphReader
from vramplan.engines.ggml.witness.llama_library import model_parameters
from vramplan.engines.ggml.witness.pretended_card import PretendedCard, plug_in
from vramplan.errors import MissingError
from vramplan.units import GIB

_TENSORS = "_Z29llama_internal_get_tensor_mapPK11llama_model"
#: std::pair<std::string, ggml_tensor *>, a string being a pointer in the wheels' C++ library
_PAIR, _POINTER = 16, 8
#: enum ggml_log_level
_ERROR = 4


class _Keys(ctypes.Structure):
    _fields_ = (("no_alloc", c_bool), ("context", c_void_p))


class Engine:
    """The engine's library, with or without a card."""

    def __init__(self, *, has_card: bool) -> None:
        library = self._library = open_engine({"package": "xllamacpp"})
        card = PretendedCard(name="pretended", total_bytes=900 * GIB, free_bytes=800 * GIB)
        self._device = plug_in(library, [card]) if has_card else None
        self.said = ""
        self._listener = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)(self._listen)
        library.llama_log_set(self._listener, None)
        library.llama_backend_init()
        self._reader = GraphReader(library)
        for name, result, arguments in (
            ("gguf_init_from_file", c_void_p, [c_char_p, _Keys]),
            (_TENSORS, c_void_p, [c_void_p]),
            ("llama_free", None, [c_void_p]),
            ("llama_model_free", None, [c_void_p]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def _listen(self, level: int, text: bytes, _: object) -> None:
        if level == _ERROR and not self.said:
            self.said = text.decode(errors="replace").strip()

    def tensors(self, path: str) -> list[tuple[str, list[int]]]:
        """Return names and shapes of the tensors that the engine makes of a file's keys."""
        library = self._library
        kind = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
        nothing = kind(lambda *_: None)
        settings = model_parameters(library)
        settings.use_extra_buffers, settings.gpu_layers, settings.load_mode = False, 0, 0
        settings.no_alloc = True
        make = library.llama_model_init_from_user
        make.restype, make.argtypes = c_void_p, [c_void_p, kind, c_void_p, type(settings)]
        keys = library.gguf_init_from_file(path.encode(), _Keys(no_alloc=True))
        model = make(keys, nothing, None, settings)
        if not model:
            raise MissingError("no such model")
        begin, end = (c_void_p * 2).from_address(getattr(library, _TENSORS)(model))
        found = []
        for at in range(begin or 0, end or 0, _PAIR):
            tensor = ggml.Tensor.from_address(c_void_p.from_address(at + _POINTER).value or 0)
            shape = list(tensor.shape)
            while len(shape) > 1 and shape[-1] == 1:
                shape.pop()
            found.append((tensor.name.decode(), shape))
        library.llama_model_free(model)
        return found

    def loads(self, path: str) -> list[str]:
        """Raise MissingError where a file is not loaded."""
        library = self._library
        settings = model_parameters(library)
        settings.use_extra_buffers, settings.gpu_layers, settings.load_mode = False, 0, 0
        settings.no_alloc = True
        load = library.llama_model_load_from_file
        load.restype, load.argtypes = c_void_p, [c_char_p, type(settings)]
        model = load(path.encode(), settings)
        if not model:
            raise MissingError("the engine does not load the file")
        library.llama_model_free(model)
        return []

    def graphs(self, path: str, asked: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the graph of a file at each of the settings."""
        for request, context in self._contexts(path, asked):
            numbers = [int(request[key]) for key in ("tokens", "parallel", "outputs")]
            graph = self._reader.reserve(context, numbers[0], numbers[1], numbers[2])
            yield {**graph, "held_bytes": self._reader.held_bytes(context)}

    def digests(self, path: str, asked: list[Mapping[str, Any]]) -> Iterator[str]:
        """Yield what tells the graph at each of the settings from any other."""
        for graph in self.graphs(path, asked):
            yield hashlib.sha256(json.dumps(graph).encode()).hexdigest()

    def buffers(self, path: str, asked: list[Mapping[str, Any]]) -> Iterator[dict[str, int]]:
        """Yield the bytes held of each backend at each of the settings."""
        for _, context in self._contexts(path, asked, allocates=True):
            yield self._reader.held_by_backend(context)

    def _contexts(
        self, path: str, asked: list[Mapping[str, Any]], *, allocates: bool = False
    ) -> Iterator[tuple[Mapping[str, Any], int]]:
        library = self._library
        load, make = library.llama_model_load_from_file, library.llama_init_from_model
        loaded, layers = None, None
        for request in asked:
            model, context = parameters(library, request)
            model.gpu_layers = request["gpu_layers"]
            if not allocates:
                model.no_alloc, model.load_mode = c_bool(1), 0
            load.restype, load.argtypes = c_void_p, [c_char_p, type(model)]
            make.restype, make.argtypes = c_void_p, [c_void_p, type(context)]
            if loaded is None or layers != request["gpu_layers"]:
                if loaded:
                    library.llama_model_free(loaded)
                loaded, layers = load(path.encode(), model), request["gpu_layers"]
                if not loaded:
                    raise MissingError("the engine does not load the file")
            made = make(loaded, context)
            if not made:
                raise MissingError("the engine makes no context")
            yield request, made
            library.llama_free(made)
        if loaded:
            library.llama_model_free(loaded)


def main() -> None:
    """Answer questions until there are no more."""
    engine = Engine(has_card=sys.argv[1:] == ["card"])
    answers: list[str] = []
    for line in sys.stdin:
        asked, engine.said = json.loads(line), ""
        told: object
        try:
            if asked["what"] == "tensors":
                told = engine.tensors(asked["path"])
            elif asked["what"] == "loads":
                told = engine.loads(asked["path"])
            elif asked["what"] == "graphs":
                told = list(engine.graphs(asked["path"], asked["settings"]))
            elif asked["what"] == "digests":
                told = list(engine.digests(asked["path"], asked["settings"]))
            else:
                told = list(engine.buffers(asked["path"], asked["settings"]))
        except MissingError as problem:
            told = {"problem": f"{problem}: {engine.said}"}
        answers.append(json.dumps(told, separators=(",", ":")))
        if asked.get("more"):  # to be told with the next, at once
            continue
        sys.stdout.write("\n".join(answers) + "\n")
        sys.stdout.flush()
        answers.clear()
    os._exit(0)


if __name__ == "__main__":
    main()
