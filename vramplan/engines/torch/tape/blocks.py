"""Blocks of device memory, their sizes, and the pools that keep the free ones in order."""

from __future__ import annotations

from bisect import bisect_left, insort

from vramplan.quick_typing import TYPE_CHECKING
from vramplan.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

# c10/core/AllocatorConfig.h
ROUND_BYTES = 512  # kMinBlockSize
SMALL_BYTES = 1 * MIB  # kSmallSize: the largest request of the small pool
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer
LARGE_SEGMENT_BYTES = 20 * MIB  # large_segment_size
LARGE_BYTES = 10 * MIB  # kMinLargeAlloc: requests from here on get a segment of their own
LARGE_ROUND_BYTES = 2 * MIB  # kRoundLarge
NON_SPLIT_ROUNDING_BYTES = 20 * MIB  # max_non_split_rounding_size

#: a free block's sort key is ``size << KEY_SHIFT | address``: best fit by size, then by address
KEY_SHIFT = 64


class Block:
    """A range of a segment: used, free, or (expandable segments only) not mapped.

    Blocks of one segment form a chain through `previous` and `next` without gaps. `free` is True
    for memory that can be handed out; a range that is not mapped is neither free nor used.
    `key` is valid while the block is free. A block that was merged away stays `free`.
    """

    __slots__ = ("address", "free", "key", "mapped", "next", "pool", "previous", "size_bytes")

    def __init__(
        self,
        pool: BlockPool,
        address: int,
        size_bytes: int,
        previous: Block | None = None,
        following: Block | None = None,
    ) -> None:
        self.pool = pool
        self.address = address
        self.size_bytes = size_bytes
        self.previous = previous
        self.next = following
        self.free = False
        self.mapped = True
        self.key = 0

    def __repr__(self) -> str:
        state = "free" if self.free else "used" if self.mapped else "unmapped"
        return f"<Block {state} {self.size_bytes} at {self.address}>"

    def cut(self, size_bytes: int) -> Block:
        """Keep the first `size_bytes` and return the rest: as mapped as this, and not free."""
        address = self.address + size_bytes
        rest = Block(self.pool, address, self.size_bytes - size_bytes, self, self.next)
        rest.mapped = self.mapped
        if self.next is not None:
            self.next.previous = rest
        self.next = rest
        self.size_bytes = size_bytes
        return rest

    def absorb(self, following: Block) -> None:
        """Take over the range of the next block, which the caller has removed from its pool."""
        self.size_bytes += following.size_bytes
        self.next = following.next
        if following.next is not None:
            following.next.previous = self


class BlockPool:
    """The segments of one size class, and their free blocks in best-fit order.

    `keys` and `blocks` are parallel lists sorted by key. `segments` holds the first block of every
    segment by rising address (it is the same object for as long as the segment lives), `unmapped`
    the ranges of expandable segments that have no memory, by rising address. A block is split when
    the rest is at least `least_rest_bytes` and the request is below `split_below_bytes`.
    `page_bytes` is the step in which expandable segments are mapped.
    """

    __slots__ = (
        "blocks",
        "keys",
        "least_rest_bytes",
        "page_bytes",
        "segments",
        "split_below_bytes",
        "unmapped",
    )

    def __init__(self, *, page_bytes: int, least_rest_bytes: int, split_below_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.least_rest_bytes = least_rest_bytes
        self.split_below_bytes = split_below_bytes
        self.keys: list[int] = []
        self.blocks: list[Block] = []
        self.segments: list[Block] = []
        self.unmapped: list[Block] = []

    def add(self, block: Block) -> None:
        """Put `block` among the free blocks."""
        block.free = True
        block.key = key = block.size_bytes << KEY_SHIFT | block.address
        index = bisect_left(self.keys, key)
        self.keys.insert(index, key)
        self.blocks.insert(index, block)

    def remove(self, block: Block) -> None:
        """Take `block` out of the free blocks; its own marks stay as they are."""
        index = bisect_left(self.keys, block.key)
        del self.keys[index], self.blocks[index]

    def add_unmapped(self, block: Block) -> None:
        """Put `block` among the ranges without memory."""
        insort(self.unmapped, block, key=_address)

    def copy_into(self, empty: BlockPool) -> dict[Block, Block]:
        """Give `empty` the same segments and blocks; return the copy of each of ours."""
        twins: dict[Block, Block] = {}
        for chain in self.walk():
            before: Block | None = None
            for block in chain:
                twin = Block(empty, block.address, block.size_bytes, before)
                twin.free, twin.mapped, twin.key = block.free, block.mapped, block.key
                if before is not None:
                    before.next = twin
                twins[block] = before = twin
            empty.segments.append(twins[chain[0]])
        empty.keys = list(self.keys)
        empty.blocks = [twins[block] for block in self.blocks]
        empty.unmapped = [twins[block] for block in self.unmapped]
        return twins

    def walk(self) -> Iterator[list[Block]]:
        """Yield the blocks of every segment, by rising address."""
        for head in self.segments:
            chain = []
            block: Block | None = head
            while block is not None:
                chain.append(block)
                block = block.next
            yield chain


def segment_bytes(size_bytes: int) -> int:
    """Return the segment that a request of `size_bytes` gets when none has room for it.

    Source: get_allocation_size in c10/cuda/CUDACachingAllocator.cpp.
    """
    if size_bytes <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size_bytes < LARGE_BYTES:
        return LARGE_SEGMENT_BYTES
    return round_up(size_bytes, LARGE_ROUND_BYTES)


def round_up(size_bytes: int, step_bytes: int) -> int:
    """Return the smallest multiple of `step_bytes` that is at least `size_bytes`."""
    return -(-size_bytes // step_bytes) * step_bytes


def _address(block: Block) -> int:
    return block.address
