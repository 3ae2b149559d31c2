"""Segments that grow: what ``expandable_segments:True`` changes in the caching allocator.

A segment is a range of addresses larger than the card, of which whole pages (2 MiB in the small
pool, 20 MiB in the large one) get memory when it is needed and give it back when it is free. The
rules are those of c10/cuda/CUDACachingAllocator.cpp: find_expandable_block, map_block,
try_allocate_expandable_block, unmap_block and release_expandable_segment.
"""

from __future__ import annotations

from vramplan.engines.torch.tape.blocks import Block, round_up
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.blocks import BlockPool


def choose(pool: BlockPool, index: int) -> int:
    """Return the index of the free block to use, given the first that is large enough.

    A block at the growing end of a segment counts with the addresses behind it, so that it is used
    last: the search goes on for as long as the next larger block has fewer to grow into.
    """
    blocks = pool.blocks
    last = len(blocks) - 1
    while index < last and _growable_bytes(blocks[index + 1]) < _growable_bytes(blocks[index]):
        index += 1
    return index


def find_room(pool: BlockPool, size_bytes: int) -> list[Block]:
    """Return the lowest run of free and unmapped neighbours that adds up to `size_bytes`.

    It holds a range that is not mapped, or starts before one; empty where there is no such run.
    """
    for unmapped in pool.unmapped:
        before = unmapped.previous
        block: Block | None = unmapped if before is None or not before.free else before
        run: list[Block] = []
        found_bytes = 0
        while found_bytes < size_bytes and block is not None and (block.free or not block.mapped):
            run.append(block)
            found_bytes += block.size_bytes
            block = block.next
        if found_bytes >= size_bytes:
            return run
    return []


def missing_bytes(run: list[Block], size_bytes: int, page_bytes: int) -> int:
    """Return the bytes that `map_room` maps for a block in a run, or in a new segment for none."""
    have_bytes = mapped_bytes = 0
    for block in run:
        if block.mapped:
            have_bytes += block.size_bytes
        else:
            step_bytes = round_up(min(size_bytes - have_bytes, block.size_bytes), page_bytes)
            have_bytes += step_bytes
            mapped_bytes += step_bytes
    return mapped_bytes if run else round_up(size_bytes, page_bytes)


def add_segment(pool: BlockPool, address: int, span_bytes: int) -> Block:
    """Return a new segment of `span_bytes` addresses, none of them mapped."""
    block = Block(pool, address, span_bytes)
    block.mapped = False
    pool.segments.append(block)
    pool.add_unmapped(block)
    return block


def map_room(run: list[Block], size_bytes: int, room_bytes: int) -> tuple[Block | None, int]:
    """Make one used block of at least `size_bytes` from a run of `find_room`.

    Returns the block and the bytes mapped for it, at most `room_bytes`. Where those are not enough
    the block is None; what was mapped before the refusal stays mapped and free, as in torch.
    """
    first = run[0]
    pool = first.pool
    mapped_bytes = 0
    for block in run:
        if block.mapped:
            pool.remove(block)
        else:
            missing_bytes = size_bytes if block is first else size_bytes - first.size_bytes
            step_bytes = round_up(min(missing_bytes, block.size_bytes), pool.page_bytes)
            if mapped_bytes + step_bytes > room_bytes:
                if block is not first:
                    pool.add(first)
                return None, mapped_bytes
            _map(block, step_bytes)
            mapped_bytes += step_bytes
        if block is not first:
            first.absorb(block)
    if first.next is not None and first.next.free:
        pool.remove(first.next)
        first.absorb(first.next)
    first.free = False
    return first, mapped_bytes


def release_pages(pool: BlockPool) -> int:
    """Unmap every page that is wholly free, drop segments without memory, return the bytes."""
    released_bytes = 0
    page_bytes = pool.page_bytes
    for block in list(pool.blocks):
        begin = round_up(block.address, page_bytes)
        end = (block.address + block.size_bytes) // page_bytes * page_bytes
        if begin < end:
            released_bytes += end - begin
            _unmap(block, begin, end)
    return released_bytes


def _map(block: Block, size_bytes: int) -> None:
    block.pool.unmapped.remove(block)
    if size_bytes < block.size_bytes:
        block.pool.add_unmapped(block.cut(size_bytes))
    block.mapped = True


def _unmap(block: Block, begin: int, end: int) -> None:
    pool = block.pool
    pool.remove(block)
    if begin > block.address:
        front, block = block, block.cut(begin - block.address)
        pool.add(front)
    if end < block.address + block.size_bytes:
        pool.add(block.cut(end - begin))
    block.free = False
    block.mapped = False
    if block.next is not None and not block.next.mapped:
        pool.unmapped.remove(block.next)
        block.absorb(block.next)
    if block.previous is not None and not block.previous.mapped:
        block.previous.absorb(block)
        block = block.previous
    else:
        pool.add_unmapped(block)
    if block.previous is None and block.next is None:
        pool.unmapped.remove(block)
        pool.segments.remove(block)


def _growable_bytes(block: Block) -> int:
    behind = block.next
    if behind is None or behind.mapped:
        return block.size_bytes
    return block.size_bytes + behind.size_bytes
