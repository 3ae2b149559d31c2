"""Reads the graph out of llama.cpp that it reserves its compute buffers for: a row for each tensor.

The door is ``llama_graph_reserve`` (src/llama-ext.h), which returns the ggml_cgraph it reserved.
Nodes are told by ggml_graph_node (include/ggml.h); leaves stand in ggml_cgraph itself
(src/ggml-impl.h), whose layout is proved against the former before it is used. Without a card:
where a graph is split among devices, sources have been replaced by copies.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any

from vramplan.engines.ggml.witness import ggml_backend as ggml
from vramplan.engines.ggml.witness.llama_library import builds_known
from vramplan.errors import MissingError

_RESERVE = "_Z19llama_graph_reserveP13llama_contextjjj"
_SCHEDULER = "_ZNK13llama_context9get_schedEv"
#: more than any graph that is known has, by a hundred times
_MOST_TENSORS = 1 << 20
#: enum ggml_backend_buffer_usage: of weights
_OF_WEIGHTS = 1
_MOST_OPERATORS = 256


class _Graph(Structure):
    """ggml_cgraph, up to its leaves."""

    _fields_ = (
        ("size", c_int),
        ("node_count", c_int),
        ("leaf_count", c_int),
        ("nodes", POINTER(c_void_p)),
        ("gradients", c_void_p),
        ("sums", c_void_p),
        ("leaves", POINTER(c_void_p)),
    )


class GraphReader:
    """The functions of an engine's library that tell a graph. Raises MissingError without them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        def function(name: str, result: object, *arguments: object) -> Any:  # a foreign function
            try:
                found = getattr(library, name)
            except AttributeError:
                message = f"this build of the engine does not tell its graph ({name})"
                raise MissingError(message, hint=builds_known()) from None
            found.restype, found.argtypes = result, arguments
            return found

        self._reserve = function(_RESERVE, c_void_p, c_void_p, c_uint32, c_uint32, c_uint32)
        self._scheduler = function(_SCHEDULER, c_void_p, c_void_p)
        self._count = function("ggml_graph_n_nodes", c_int, c_void_p)
        self._node = function("ggml_graph_node", c_void_p, c_void_p, c_int)
        self._op_name = function("ggml_op_name", c_char_p, c_int)
        self._type_name = function("ggml_type_name", c_char_p, c_int)
        self._bytes = function("ggml_nbytes", c_size_t, c_void_p)
        self._backends = function("ggml_backend_sched_get_n_backends", c_int, c_void_p)
        self._backend = function("ggml_backend_sched_get_backend", c_void_p, c_void_p, c_int)
        self._name = function("ggml_backend_name", c_char_p, c_void_p)
        self._held = function("ggml_backend_sched_get_buffer_size", c_size_t, c_void_p, c_void_p)

    def held_bytes(self, context: int) -> int:
        """Return the bytes of all compute buffers that a context holds."""
        return sum(self.held_by_backend(context).values())

    def held_by_backend(self, context: int) -> dict[str, int]:
        """Return the bytes of the compute buffer of each backend, by its name."""
        scheduler, held = self._scheduler(context), {}
        for one in range(self._backends(scheduler)):
            backend = self._backend(scheduler, one)
            held[self._name(backend).decode("ascii")] = self._held(scheduler, backend)
        return held

    def reserve(self, context: int, tokens: int, sequences: int, outputs: int) -> dict[str, Any]:
        """Return the graph of a batch as JSON's values.

        Raises MissingError where the engine reserves none, or has another kind of graph.
        """
        graph = self._reserve(context, tokens, sequences, outputs)
        if not graph:
            raise MissingError("the engine reserves no such graph")
        return self._read(graph)

    def _read(self, graph: int) -> dict[str, Any]:
        nodes, leaves = self._lists(graph)
        order = list(dict.fromkeys((*leaves, *nodes)))
        numbers = {address: number for number, address in enumerate(order)}

        def number(pointer: Any) -> int:  # of a tensor that may be in neither list
            address = ctypes.addressof(pointer.contents)
            if address not in numbers:
                numbers[address] = len(order)
                order.append(address)
            return numbers[address]

        tensors = []
        for address in order:  # grows while it is read
            if len(order) > _MOST_TENSORS:
                raise MissingError("the engine's graph is larger than any that is known")
            tensors.append(self._row(address, number))
        return {
            "tensors": tensors,
            "leaves": [numbers[one] for one in leaves],
            "nodes": [numbers[one] for one in nodes],
        }

    def _lists(self, graph: int) -> tuple[list[int], list[int]]:
        """Return the addresses of nodes and leaves; raises MissingError for another layout."""
        told = _Graph.from_address(graph)
        count = self._count(graph)
        is_alike = told.node_count == count and 0 <= told.leaf_count <= told.size <= _MOST_TENSORS
        if not is_alike or not 0 < count <= told.size:
            raise MissingError("this build's graphs are laid out another way", hint=builds_known())
        nodes = [self._node(graph, number) for number in range(count)]
        if any(told.nodes[place] != nodes[place] for place in (0, count // 2, count - 1)):
            raise MissingError("this build's graphs are laid out another way", hint=builds_known())
        leaves = [told.leaves[number] for number in range(told.leaf_count)]
        if not all(leaves):
            raise MissingError("this build's graphs are laid out another way", hint=builds_known())
        return nodes, [int(one) for one in leaves if one]

    def _row(self, address: int, number: Any) -> dict[str, Any]:
        tensor = ggml.Tensor.from_address(address)
        if not 0 <= tensor.op < _MOST_OPERATORS:
            raise MissingError("this build's tensors are laid out another way", hint=builds_known())
        op = self._op_name(tensor.op).decode("ascii").lower()
        kind = "made"
        if not tensor.view_of and op == "none" and (tensor.buffer or tensor.data):
            usage = ggml.Buffer.from_address(tensor.buffer).usage if tensor.buffer else 0
            kind = "weight" if usage == _OF_WEIGHTS else "cache"
        return {
            "op": op,
            "type": self._type_name(tensor.type).decode("ascii").lower(),
            "shape": list(tensor.shape),
            "strides": list(tensor.strides),
            "sources": [number(one) for one in tensor.sources if one],
            "shows": number(tensor.view_of) if tensor.view_of else -1,
            "flags": tensor.flags & 3,  # of an input, of an output
            "kind": kind,
            "bytes": self._bytes(address),
            "name": tensor.name.decode("utf-8", errors="replace"),
        }
