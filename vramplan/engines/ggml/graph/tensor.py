"""ggml's tensors without data: a type, a shape, strides, and what they are made from.

Shapes have four numbers and begin with the contiguous one, as ggml's ``ne``; strides are its ``nb``
in bytes. Source: ggml-org/ggml, src/ggml.c (ggml_new_tensor_impl, ggml_nbytes).
"""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, int, int, int]

#: bytes of an element of the types that graphs compute with
ELEMENT_BYTES: Mapping[str, int] = {"f32": 4, "f16": 2, "bf16": 2, "i32": 4, "i64": 8}

#: results of these operators may take their operand's place (ggml-alloc.c, ggml_op_can_inplace)
IN_PLACE = frozenset(
    {"fill", "scale", "add", "add_id", "sub", "mul", "div", "sqr", "sqrt", "log", "unary", "rope",
     "rms_norm", "clamp", "soft_max"}
)  # fmt: skip


class Tensor:
    """A node of a graph, an input, or (`is_external`) memory that is not the graph's.

    `view_of` is the tensor whose memory a view shows; views of views show the first one's.
    """

    __slots__ = (
        "address",
        "backend",
        "children",
        "fixed_bytes",
        "is_external",
        "is_input",
        "is_on_host",
        "is_output",
        "is_own",
        "is_seen",
        "layer",
        "name",
        "op",
        "place",
        "shape",
        "sources",
        "strides",
        "type",
        "view_of",
        "views",
    )

    def __init__(
        self,
        op: str,
        type_name: str,
        shape: Shape,
        sources: tuple[Tensor, ...] = (),
        strides: Shape | None = None,
        view_of: Tensor | None = None,
        *,
        is_input: bool = False,
        is_external: bool = False,
    ) -> None:
        self.op = op
        self.type = type_name
        self.shape = shape
        self.sources = sources
        self.strides = contiguous(type_name, shape) if strides is None else strides
        self.view_of = view_of
        self.is_input = is_input
        self.is_output = False
        self.is_external = is_external
        self.is_seen = False
        self.name = ""  # of a weight or a cache
        self.layer = -1  # of a norm: the layer whose card computes it
        self.is_on_host = False  # the engine says so, whatever it is made from
        self.fixed_bytes = -1  # where the size does not follow from type and shape
        self.backend = -1
        # what the allocator keeps
        self.children = 0
        self.views = 0
        self.is_own = False
        self.address = -1
        self.place = -1

    @property
    def size_bytes(self) -> int:
        """The bytes from the first element to the last."""
        if self.fixed_bytes >= 0:
            return self.fixed_bytes
        element = ELEMENT_BYTES[self.type]
        shape, strides = self.shape, self.strides
        return (
            element
            + (shape[0] - 1) * strides[0]
            + (shape[1] - 1) * strides[1]
            + (shape[2] - 1) * strides[2]
            + (shape[3] - 1) * strides[3]
        )

    def __repr__(self) -> str:
        return f"<{self.op} {self.type} {self.shape}>"


def contiguous(type_name: str, shape: Shape) -> Shape:
    """Return the strides of a tensor without gaps."""
    first = ELEMENT_BYTES.get(type_name, 1)
    second = first * shape[0]
    third = second * shape[1]
    return first, second, third, third * shape[2]
