"""ggml's backend interface as C structures: what a device must answer to be planned for.

Layouts are those of API versions 2 (llama.cpp b10229 to b11063) and 3 (b11549), which differ in the
buffer type only; a library of another version is refused, because a function in the wrong place is
a crash. Source: ggml-org/llama.cpp, ggml/src/ggml-backend-impl.h and ggml/include/ggml-backend.h,
ggml.h.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, Structure, c_bool, c_char_p, c_int, c_size_t, c_void_p

from vramplan.quick_typing import TYPE_CHECKING

#: enum ggml_backend_dev_type
GPU = 1

_Answer = c_void_p  # of functions that return an address; a string's too, so that it can be kept


_BUFFER_TYPE = (
    ("get_name", CFUNCTYPE(_Answer, c_void_p)),
    ("alloc_buffer", CFUNCTYPE(_Answer, c_void_p, c_size_t)),
    ("alloc_buffer_n", c_void_p),
    ("get_alignment", CFUNCTYPE(c_size_t, c_void_p)),
    ("get_max_size", c_void_p),
    ("get_alloc_size", CFUNCTYPE(c_size_t, c_void_p, c_void_p)),
    ("get_alloc_size_n", c_void_p),
    ("is_host", CFUNCTYPE(c_bool, c_void_p)),
)


class BufferType2(Structure):
    """A kind of memory: ggml_backend_buffer_type of API version 2."""

    _fields_ = (
        *(one for one in _BUFFER_TYPE if not one[0].endswith("_n")),
        ("device", c_void_p),
        ("context", c_void_p),
    )


class BufferType3(Structure):
    """A kind of memory: ggml_backend_buffer_type of API version 3."""

    _fields_ = (*_BUFFER_TYPE, ("device", c_void_p), ("context", c_void_p))


#: API version -> its buffer type
BUFFER_TYPES = {2: BufferType2, 3: BufferType3}


class BufferInterface(Structure):
    """A piece of memory: ggml_backend_buffer_i."""

    _fields_ = (
        ("free_buffer", CFUNCTYPE(None, c_void_p)),
        ("get_base", CFUNCTYPE(_Answer, c_void_p)),
        ("init_tensor", c_void_p),
        ("memset_tensor", c_void_p),
        ("set_tensor", CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_size_t, c_size_t)),
        ("get_tensor", CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_size_t, c_size_t)),
        ("set_tensor_2d", c_void_p),
        ("get_tensor_2d", c_void_p),
        ("cpy_tensor", c_void_p),
        ("clear", CFUNCTYPE(None, c_void_p, ctypes.c_uint8)),
        ("reset", c_void_p),
    )


class Buffer(Structure):
    """ggml_backend_buffer."""

    _fields_ = (
        ("interface", BufferInterface),
        ("type", c_void_p),
        ("context", c_void_p),
        ("size", c_size_t),
        ("usage", c_int),
    )


class OptimizeParameters(Structure):
    """ggml_backend_graph_optimize_params: how a backend keeps a tensor until another is done."""

    _fields_ = (
        ("keep", CFUNCTYPE(None, c_void_p, c_void_p, c_void_p)),
        ("context", c_void_p),
    )


class BackendInterface(Structure):
    """A stream of work: ggml_backend_i."""

    _fields_ = (
        ("get_name", CFUNCTYPE(_Answer, c_void_p)),
        ("free", CFUNCTYPE(None, c_void_p)),
        ("set_tensor_async", c_void_p),
        ("get_tensor_async", c_void_p),
        ("set_tensor_2d_async", c_void_p),
        ("get_tensor_2d_async", c_void_p),
        ("cpy_tensor_async", c_void_p),
        ("synchronize", CFUNCTYPE(None, c_void_p)),
        ("graph_plan_create", c_void_p),
        ("graph_plan_free", c_void_p),
        ("graph_plan_update", c_void_p),
        ("graph_plan_compute", c_void_p),
        ("graph_compute", CFUNCTYPE(c_int, c_void_p, c_void_p)),
        ("event_record", c_void_p),
        ("event_wait", c_void_p),
        ("graph_optimize", CFUNCTYPE(None, c_void_p, c_void_p, c_void_p)),
    )


class Backend(Structure):
    """ggml_backend."""

    _fields_ = (
        ("guid", c_void_p),
        ("interface", BackendInterface),
        ("device", c_void_p),
        ("context", c_void_p),
    )


class Properties(Structure):
    """ggml_backend_dev_props."""

    _fields_ = (
        ("name", c_void_p),
        ("description", c_void_p),
        ("memory_free", c_size_t),
        ("memory_total", c_size_t),
        ("type", c_int),
        ("device_id", c_void_p),
        ("is_async", c_bool),
        ("has_host_buffer", c_bool),
        ("has_buffer_from_host", c_bool),
        ("has_events", c_bool),
        ("has_mmap", c_bool),
    )


if TYPE_CHECKING:
    Sizes = ctypes._Pointer[c_size_t]
    PropertiesPointer = ctypes._Pointer[Properties]


class DeviceInterface(Structure):
    """A device: ggml_backend_device_i."""

    _fields_ = (
        ("get_name", CFUNCTYPE(_Answer, c_void_p)),
        ("get_description", CFUNCTYPE(_Answer, c_void_p)),
        ("get_memory", CFUNCTYPE(None, c_void_p, POINTER(c_size_t), POINTER(c_size_t))),
        ("get_type", CFUNCTYPE(c_int, c_void_p)),
        ("get_props", CFUNCTYPE(None, c_void_p, POINTER(Properties))),
        ("init_backend", CFUNCTYPE(_Answer, c_void_p, c_char_p)),
        ("get_buffer_type", CFUNCTYPE(_Answer, c_void_p)),
        ("get_host_buffer_type", CFUNCTYPE(_Answer, c_void_p)),
        ("buffer_from_host_ptr", c_void_p),
        ("supports_op", CFUNCTYPE(c_bool, c_void_p, c_void_p)),
        ("supports_buft", CFUNCTYPE(c_bool, c_void_p, c_void_p)),
        ("offload_op", CFUNCTYPE(c_bool, c_void_p, c_void_p)),
        ("event_new", c_void_p),
        ("event_free", c_void_p),
        ("event_synchronize", c_void_p),
    )


class Device(Structure):
    """ggml_backend_device."""

    _fields_ = (
        ("interface", DeviceInterface),
        ("registry", c_void_p),
        ("context", c_void_p),
    )


class RegistryInterface(Structure):
    """A family of devices: ggml_backend_reg_i."""

    _fields_ = (
        ("get_name", CFUNCTYPE(_Answer, c_void_p)),
        ("get_device_count", CFUNCTYPE(c_size_t, c_void_p)),
        ("get_device", CFUNCTYPE(_Answer, c_void_p, c_size_t)),
        ("get_proc_address", CFUNCTYPE(_Answer, c_void_p, c_char_p)),
    )


class Registry(Structure):
    """ggml_backend_reg."""

    _fields_ = (
        ("api_version", c_int),
        ("interface", RegistryInterface),
        ("context", c_void_p),
    )


class Tensor(Structure):
    """ggml_tensor, up to its name."""


Tensor._fields_ = (
    ("type", c_int),
    ("buffer", c_void_p),
    ("shape", ctypes.c_int64 * 4),
    ("strides", c_size_t * 4),
    ("op", c_int),
    ("parameters", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("sources", POINTER(Tensor) * 10),
    ("view_of", POINTER(Tensor)),
    ("view_offset", c_size_t),
    ("data", c_void_p),
    ("name", ctypes.c_char * 64),
)
