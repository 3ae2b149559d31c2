"""ggml's graph allocator: which bytes of a compute buffer each tensor of a graph gets.

Leaves come first, then nodes in order; a result may take the place of an operand that nobody else
needs; what nobody needs any more is free. Free ranges are taken best fit, the last one (which
reaches to the end) only where no other has room. Source: ggml-org/ggml, src/ggml-alloc.c.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from vramplan.engines.ggml.graph.builder import Graph
from vramplan.engines.ggml.graph.repeats import UnlikeError
from vramplan.engines.ggml.graph.tensor import IN_PLACE, Tensor

_ENDLESS = 1 << 62


class _Buffer:
    """One buffer's free ranges, by rising offset; `most_bytes` is how far it was ever used."""

    __slots__ = ("alignment", "has_empty", "most_bytes", "offsets", "sizes")

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.offsets = [0]
        self.sizes = [_ENDLESS]
        self.most_bytes = 0
        self.has_empty = False  # a range of nothing was given back, and ranges may be in any order

    def take(self, size: int) -> int:
        sizes = self.sizes
        size = (size + self.alignment - 1) & -self.alignment
        last = len(sizes) - 1
        best, best_size = last, _ENDLESS
        for index in range(last):
            found = sizes[index]
            if size <= found <= best_size:
                best, best_size = index, found
        offset = self.offsets[best]
        if sizes[best] == size:
            del self.offsets[best], sizes[best]
        else:
            self.offsets[best] += size
            sizes[best] -= size
        end = offset + size
        if end > self.most_bytes:  # noqa: PLR1730  # a call here costs
            self.most_bytes = end
        return offset

    def give_back(self, offset: int, size: int) -> None:
        size = (size + self.alignment - 1) & -self.alignment
        self.has_empty |= not size
        if self.has_empty:
            self._give_back_in_order(offset, size)
            return
        offsets, sizes = self.offsets, self.sizes
        index = bisect_left(offsets, offset)
        joins_next = index < len(offsets) and offsets[index] == offset + size
        if index and offsets[index - 1] + sizes[index - 1] == offset:
            sizes[index - 1] += size
            if joins_next:
                sizes[index - 1] += sizes[index]
                del offsets[index], sizes[index]
        elif joins_next:
            offsets[index] = offset
            sizes[index] += size
        else:
            offsets.insert(index, offset)
            sizes.insert(index, size)

    def _give_back_in_order(self, offset: int, size: int) -> None:
        """Give back as the engine does, range by range.

        A tensor without elements gives back a range of nothing, where others may have been given
        their bytes since; the first range that touches what is given back is made longer, whichever
        others there are (ggml_dyn_tallocr_free_bytes).
        """
        offsets, sizes = self.offsets, self.sizes
        for index, start in enumerate(offsets):
            if start + sizes[index] == offset:
                sizes[index] += size
                if index + 1 < len(offsets) and offset + size == offsets[index + 1]:
                    sizes[index] += sizes[index + 1]
                    del offsets[index + 1], sizes[index + 1]
                return
            if offset + size == start:
                offsets[index] = offset
                sizes[index] += size
                if index and offsets[index - 1] + sizes[index - 1] == offset:
                    sizes[index - 1] += sizes[index]
                    del offsets[index], sizes[index]
                return
        place = 0
        while place < len(offsets) and offsets[place] < offset:
            place += 1
        offsets.insert(place, offset)
        sizes.insert(place, size)


def allocate(graph: Graph, alignments: Sequence[int] = (32,)) -> list[int]:
    """Return the bytes that each backend's compute buffer holds for `graph`.

    `alignments` has one number per backend; with one all is allocated there. Raises UnlikeError
    where layers that stand for others leave memory in different states.
    """
    return _Allocation(graph, alignments).run()


def take_back(graph: Graph) -> None:
    """Make a graph that was allocated as it was when it was built."""
    for node in (*graph.leaves, *graph.nodes):
        for tensor in (node, node.view_of, *node.sources):
            if tensor is not None:
                tensor.place, tensor.address, tensor.is_own = -1, -1, False
                tensor.children = tensor.views = 0


class _Allocation:
    """One graph being given its memory."""

    def __init__(self, graph: Graph, alignments: Sequence[int]) -> None:
        self._graph = graph
        self._buffers = [_Buffer(alignment) for alignment in alignments]
        self._watched = {id(end) for pair in graph.alike for end in pair}

    def run(self) -> list[int]:
        """Allocate everything in order."""
        for leaf in self._graph.leaves:
            self._allocate(leaf)
        for node in self._graph.nodes:
            if node.view_of is not None and node.op != "none":
                node.view_of.views += 1
            for source in node.sources:
                source.children += 1
                if source.is_input:
                    self._allocate(source)
        watched = self._watched
        states: dict[int, object] = {}
        for node in self._graph.nodes:
            for source in node.sources:
                if not source.is_own and source.place < 0:
                    self._allocate(source)
            self._allocate(node)
            self._release_sources(node)
            if id(node) in watched:
                states[id(node)] = self._state(node)
        for one, other in self._graph.alike:
            if states.get(id(one)) != states.get(id(other)):
                raise UnlikeError
        return [buffer.most_bytes for buffer in self._buffers]

    def _state(self, end: Tensor) -> object:
        """Return what decides what happens next: where a layer's result is, and what is free."""
        free = [(tuple(one.offsets), tuple(one.sizes), one.most_bytes) for one in self._buffers]
        return end.place, end.address, free

    def _release_sources(self, node: Tensor) -> None:
        for source in node.sources:
            source.children -= 1
            if source.children or source.views:
                continue
            shown = source.view_of
            if shown is not None:
                shown.views -= 1
                if not shown.views and not shown.children and shown.is_own:
                    self._free(shown)
            elif source.is_own:
                self._free(source)

    def _allocate(self, node: Tensor) -> None:
        if node.place >= 0 or node.is_external or node.view_of is not None:
            return
        node.is_own = True
        if node.op in IN_PLACE and self._take_over(node):
            return
        node.place = max(node.backend, 0) if len(self._buffers) > 1 else 0
        node.address = self._buffers[node.place].take(node.size_bytes)

    def _take_over(self, node: Tensor) -> bool:
        """Give `node` an operand's memory that nobody else needs and that is laid out alike.

        An operand that is a view owns nothing, so nothing of it is taken (ggml_gallocr_is_own).
        """
        for parent in node.sources:
            if not parent.is_own or parent.is_output or parent.children != 1 or parent.views:
                continue
            if (node.type, node.shape, node.strides) != (
                parent.type,
                parent.shape,
                parent.strides,
            ):
                continue
            node.place, node.address = parent.place, parent.address
            parent.is_own = False
            return True
        return False

    def _free(self, tensor: Tensor) -> None:
        if tensor.is_output:
            return
        self._buffers[tensor.place].give_back(tensor.address, tensor.size_bytes)
        tensor.is_own = False
