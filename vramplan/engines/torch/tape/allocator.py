"""A model of PyTorch's CUDA caching allocator: which requests it serves from what it holds.

One device, one stream, no CUDA graphs and no private pools; garbage_collection_threshold and
roundup_power2_divisions at their defaults (off). Source: c10/cuda/CUDACachingAllocator.cpp, read
before and after pytorch#134338 (expandable_segments together with max_split_size; the model does
as after it), and the sizes in torch 2.13's c10/core/AllocatorConfig.h.

What the driver does is assumed: it refuses memory only at the limits given here, and a new
segment lies above every earlier one (addresses decide only between free blocks of one size).
A segment starts where the one before it ended, an expandable one at the next multiple of 20 MiB.

More memory is not always better: a larger limit puts off the moment at which the cache is given
back, and what is cut up until then may stay in the way. Success is not monotone in the limit.
"""

from __future__ import annotations

from bisect import bisect_left

from vramplan.engines.torch.tape import expandable
from vramplan.engines.torch.tape.blocks import (
    KEY_SHIFT,
    LARGE_SEGMENT_BYTES,
    NON_SPLIT_ROUNDING_BYTES,
    ROUND_BYTES,
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
    Block,
    BlockPool,
    round_up,
    segment_bytes,
)
from vramplan.errors import UsageError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["Block", "CachingAllocator", "OutOfDeviceMemory"]

#: stands for "no limit": above every size, and a plain int to compare with
UNLIMITED_BYTES = 1 << 62
#: the addresses of an expandable segment where the device's size is not known. Assumption: torch
#: takes 9/8 of the device, and more makes a difference only when one segment's addresses run out
ASSUMED_SPAN_BYTES = 1 << 40

# in a signature, where sizes are multiples of 512
_END_MARK = 0
_UNMAPPED_MARK = 1


class OutOfDeviceMemory(Exception):
    """A request that does not fit even after the cache was given back; sizes in bytes.

    `asked_bytes` is the segment that was asked for (what torch's message calls "tried to
    allocate"); `limit_bytes` is the limit that refused it.
    """

    def __init__(
        self, asked_bytes: int, reserved_bytes: int, allocated_bytes: int, limit_bytes: int
    ) -> None:
        super().__init__(
            f"asked for {asked_bytes} bytes with {reserved_bytes} reserved, {allocated_bytes} "
            f"allocated and a limit of {limit_bytes}"
        )
        self.asked_bytes = asked_bytes
        self.reserved_bytes = reserved_bytes
        self.allocated_bytes = allocated_bytes
        self.limit_bytes = limit_bytes


class CachingAllocator:
    """The allocator: blocks handed out and taken back, and the memory held from the driver.

    `limit_bytes` is what ``torch.cuda.set_per_process_memory_fraction`` allows: a new segment is
    refused when reserved + segment exceeds it. `device_bytes` is what the driver has to give.
    Without `expandable_segments` both refuse the same requests. With it they differ as in torch:
    the fraction counts the segment the request would get (so what is reserved may exceed the limit
    by less than a page of 20 MiB), the driver counts the pages that are mapped. With
    `limit_is_card` the limit stands for a smaller card, and counts pages too.

    The counters are torch's: `allocated_bytes` (allocated_bytes.all.current), `reserved_bytes`
    (reserved_bytes.all.current), their peaks, and `retries` (num_alloc_retries). `granted_bytes` is
    ours: the most that was ever compared with the limit and let pass. The limit acts by that
    comparison alone, so everything happens alike under any limit from there up to this one.
    """

    __slots__ = (
        "_device_bytes",
        "_is_expandable",
        "_is_plain",
        "_large",
        "_limit_bytes",
        "_limit_is_card",
        "_max_split_size_bytes",
        "_next_address",
        "_small",
        "allocated_bytes",
        "granted_bytes",
        "peak_allocated_bytes",
        "peak_reserved_bytes",
        "reserved_bytes",
        "retries",
    )

    def __init__(
        self,
        *,
        limit_bytes: int | None = None,
        device_bytes: int | None = None,
        expandable_segments: bool = False,
        max_split_size_bytes: int | None = None,
        limit_is_card: bool = False,
    ) -> None:
        if max_split_size_bytes is not None and max_split_size_bytes < LARGE_SEGMENT_BYTES:
            raise UsageError(
                f"max_split_size of {max_split_size_bytes} bytes is too small",
                hint="torch accepts max_split_size_mb from 20 on",
            )
        self._limit_bytes = UNLIMITED_BYTES if limit_bytes is None else limit_bytes
        self._device_bytes = UNLIMITED_BYTES if device_bytes is None else device_bytes
        self._is_expandable = expandable_segments
        self._limit_is_card = limit_is_card
        self._max_split_size_bytes = max_split_size_bytes
        self._is_plain = not expandable_segments and max_split_size_bytes is None
        self._small = BlockPool(
            page_bytes=SMALL_SEGMENT_BYTES,
            least_rest_bytes=ROUND_BYTES,
            split_below_bytes=UNLIMITED_BYTES,
        )
        # should_split: "remaining > kSmallSize" of multiples of 512
        classic_rest_bytes = SMALL_BYTES + ROUND_BYTES
        self._large = BlockPool(
            page_bytes=LARGE_SEGMENT_BYTES,
            least_rest_bytes=ROUND_BYTES if expandable_segments else classic_rest_bytes,
            split_below_bytes=UNLIMITED_BYTES
            if expandable_segments or max_split_size_bytes is None
            else max_split_size_bytes,
        )
        self._next_address = 0
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = 0
        self.granted_bytes = 0
        self.retries = 0

    def malloc(self, size_bytes: int) -> Block:
        """Return a block of at least `size_bytes`.

        Nothing is allocated for a size of 0 (torch gives such a tensor a null pointer): the block
        returned is one shared empty block, which `free` accepts any number of times.
        Raises OutOfDeviceMemory; the cache has been given back by then.
        """
        # The replay spends its time here and in `free`: pool operations are written out.
        if size_bytes > SMALL_BYTES:
            pool = self._large
        elif size_bytes > 0:
            pool = self._small
        else:
            return _empty_block(size_bytes)
        size_bytes = (size_bytes + (ROUND_BYTES - 1)) & -ROUND_BYTES
        keys = pool.keys
        index = bisect_left(keys, size_bytes << KEY_SHIFT)
        if not self._is_plain:
            index = self._choose(pool, index, size_bytes)
        if index < len(keys):
            del keys[index]
            block = pool.blocks.pop(index)
            block.free = False
        else:
            block = self._obtain(pool, size_bytes)
        rest_bytes = block.size_bytes - size_bytes
        if rest_bytes >= pool.least_rest_bytes and size_bytes < pool.split_below_bytes:
            address = block.address + size_bytes
            after = block.next
            rest = Block(pool, address, rest_bytes, block, after)
            if after is not None:
                after.previous = rest
            block.next = rest
            block.size_bytes = size_bytes
            rest.free = True
            rest.key = key = rest_bytes << KEY_SHIFT | address
            index = bisect_left(keys, key)
            keys.insert(index, key)
            pool.blocks.insert(index, rest)
        else:
            size_bytes = block.size_bytes
        self.allocated_bytes = allocated_bytes = self.allocated_bytes + size_bytes
        if allocated_bytes > self.peak_allocated_bytes:  # noqa: PLR1730  # a call here costs
            self.peak_allocated_bytes = allocated_bytes
        return block

    def free(self, block: Block) -> None:
        """Take `block` back and merge it with its free neighbours.

        Raises ValueError for a block that is free already.
        """
        if block.free:
            if block is _EMPTY:
                return
            raise ValueError(f"freed twice: {block}")
        size_bytes = block.size_bytes
        self.allocated_bytes -= size_bytes
        pool = block.pool
        keys = pool.keys
        blocks = pool.blocks
        block.free = True
        after = block.next
        if after is not None and after.free:
            index = bisect_left(keys, after.key)
            del keys[index], blocks[index]
            size_bytes += after.size_bytes
            block.next = after = after.next
            if after is not None:
                after.previous = block
        before = block.previous
        if before is not None and before.free:
            index = bisect_left(keys, before.key)
            del keys[index], blocks[index]
            size_bytes += before.size_bytes
            before.next = after
            if after is not None:
                after.previous = before
            block = before
        block.size_bytes = size_bytes
        block.key = key = size_bytes << KEY_SHIFT | block.address
        index = bisect_left(keys, key)
        keys.insert(index, key)
        blocks.insert(index, block)

    @property
    def highest_allocated_bytes(self) -> int:
        """The peak of what was allocated, with what was lent."""
        return self.peak_allocated_bytes

    def lend(self, size_bytes: int) -> None:
        """Hand a block out and take it back at once, as library scratch is."""
        self.free(self.malloc(size_bytes))

    def has_room(self, size_bytes: int) -> bool:
        """Return whether a request finds a free block: lent then, it leaves nothing behind.

        False where that is not known: only without expandable segments and split limits is it told.
        """
        if not self._is_plain:
            return False
        keys = (self._large if size_bytes > SMALL_BYTES else self._small).keys
        return bool(keys) and keys[-1] >> KEY_SHIFT >= size_bytes

    def empty_cache(self) -> None:
        """Give back to the driver all free segments, or free pages of expandable segments."""
        for pool in (self._large, self._small):
            if self._is_expandable:
                self.reserved_bytes -= expandable.release_pages(pool)
            else:
                for block in list(pool.blocks):
                    if block.previous is None and block.next is None:
                        self._release(block)

    def adopt_segment(
        self, address: int, ranges: Iterable[tuple[int, bool]], *, is_small: bool
    ) -> list[Block]:
        """Take over a segment as it stands: sizes in bytes, and whether each range is in use.

        Returns the blocks in use, by rising address. Only without expandable segments.
        """
        pool = self._small if is_small else self._large
        used: list[Block] = []
        before: Block | None = None
        for size_bytes, is_used in ranges:
            block = Block(pool, address, size_bytes, before)
            if before is None:
                pool.segments.append(block)
            else:
                before.next = block
            if is_used:
                used.append(block)
                self.allocated_bytes += size_bytes
            else:
                pool.add(block)
            self.reserved_bytes += size_bytes
            address += size_bytes
            before = block
        self._next_address = max(self._next_address, address)
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return used

    def place_next_segment(self, address: int) -> None:
        """Put the next segment where the driver put it."""
        self._next_address = address

    def give_back(self, address: int) -> bool:
        """Give the segment at `address` back to the driver; False where it is not wholly free."""
        for pool in (self._small, self._large):
            for head in pool.segments:
                if head.address == address and head.free and head.next is None:
                    self._release(head)
                    return True
        return False

    def reset_peaks(self) -> None:
        """Set both peaks to the current figures, as ``torch.cuda.reset_peak_memory_stats``."""
        self.peak_allocated_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes

    def fork(self, limit_bytes: int | None) -> tuple[CachingAllocator, dict[Block, Block]]:
        """Return a copy of this allocator under another limit, and the copy of each block.

        The two share nothing: what is asked of one leaves the other as it is. Peaks and retries go
        along.
        """
        twin = CachingAllocator(
            limit_bytes=limit_bytes,
            device_bytes=self._device_bytes,
            expandable_segments=self._is_expandable,
            max_split_size_bytes=self._max_split_size_bytes,
            limit_is_card=self._limit_is_card,
        )
        twins = self._small.copy_into(twin._small) | self._large.copy_into(twin._large)
        twin._next_address = self._next_address
        twin.allocated_bytes = self.allocated_bytes
        twin.reserved_bytes = self.reserved_bytes
        twin.peak_allocated_bytes = self.peak_allocated_bytes
        twin.peak_reserved_bytes = self.peak_reserved_bytes
        twin.granted_bytes = self.granted_bytes
        twin.retries = self.retries
        return twin, twins

    def inactive_split_bytes(self) -> int:
        """Return the free bytes of segments that are partly in use: reserved, not releasable.

        torch's inactive_split_bytes, which leaves expandable segments out (always 0 there).
        """
        if self._is_expandable:
            return 0
        return sum(
            block.size_bytes
            for pool in (self._small, self._large)
            for block in pool.blocks
            if block.previous is not None or block.next is not None
        )

    def signature(self, held: Iterable[Block] = ()) -> Hashable:
        """Return what decides every later allocation: settings, segments, blocks and their order.

        Equal signatures mean equal futures for equal requests, of `allocated_bytes` and
        `reserved_bytes` too; peaks and retries are the past and are not part of it. "Equal
        requests" includes *which* block a free names: give the blocks in use, in an order of the
        caller's own (its tensors), as `held`, and the place of each is part of the signature.
        Without it, two states in which equal blocks belong to different tensors look the same.
        """
        layout: list[int] = []
        places: dict[Block, int] = {}
        for pool in (self._small, self._large):
            for chain in pool.walk():
                for block in chain:
                    size_bytes = block.size_bytes
                    if block.free:
                        layout.append(-size_bytes)
                    elif block.mapped:
                        places[block] = len(layout)
                        layout.append(size_bytes)
                    else:
                        layout.append(size_bytes + _UNMAPPED_MARK)
                layout.append(_END_MARK)
            layout.append(_END_MARK)
        settings = (
            self._limit_bytes,
            self._device_bytes,
            self._is_expandable,
            self._limit_is_card,
            self._max_split_size_bytes,
        )
        return settings, tuple(layout), tuple(places.get(block, -1) for block in held)

    def _choose(self, pool: BlockPool, index: int, size_bytes: int) -> int:
        """Return the index of the free block to use, beyond the last for none (get_free_block)."""
        none = len(pool.keys)
        if index == none:
            return none
        if self._is_expandable:
            index = expandable.choose(pool, index)
        if self._max_split_size_bytes is not None:
            found_bytes = pool.blocks[index].size_bytes
            if size_bytes < self._max_split_size_bytes:
                if found_bytes >= self._max_split_size_bytes:
                    return none
            elif found_bytes >= size_bytes + NON_SPLIT_ROUNDING_BYTES:
                return none
        return index

    def _obtain(self, pool: BlockPool, size_bytes: int) -> Block:
        """Return a used block from new memory, giving cached memory back where that is needed."""
        block = self._grow(pool, size_bytes)
        if block is None and self._release_oversize(pool, size_bytes):
            block = self._grow(pool, size_bytes)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._grow(pool, size_bytes)
        if block is None:
            raise OutOfDeviceMemory(
                segment_bytes(size_bytes),
                self.reserved_bytes,
                self.allocated_bytes,
                min(self._limit_bytes, self._device_bytes),
            )
        return block

    def _grow(self, pool: BlockPool, size_bytes: int) -> Block | None:
        """Return a used block from new memory, or None where a limit refuses it (alloc_block)."""
        grown_bytes = counted_bytes = segment_bytes(size_bytes)
        run = expandable.find_room(pool, size_bytes) if self._is_expandable else []
        if self._is_expandable and self._limit_is_card:
            counted_bytes = expandable.missing_bytes(run, size_bytes, pool.page_bytes)
        asked_bytes = self.reserved_bytes + counted_bytes
        if asked_bytes > self._limit_bytes:
            return None
        self.granted_bytes = max(self.granted_bytes, asked_bytes)
        room_bytes = self._device_bytes - self.reserved_bytes
        block: Block | None
        if self._is_expandable:
            run = run or [self._add_expandable(pool)]
            block, grown_bytes = expandable.map_room(run, size_bytes, room_bytes)
        elif grown_bytes > room_bytes:
            return None
        else:
            block = Block(pool, self._next_address, grown_bytes)
            pool.segments.append(block)
            self._next_address += grown_bytes
        self.reserved_bytes += grown_bytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        return block

    def _add_expandable(self, pool: BlockPool) -> Block:
        if self._device_bytes == UNLIMITED_BYTES:
            span_bytes = ASSUMED_SPAN_BYTES
        else:
            span_bytes = self._device_bytes + self._device_bytes // 8
        span_bytes = max(pool.page_bytes, round_up(span_bytes, pool.page_bytes))
        # pages are told apart by address alone, so a segment starts at a page of either pool
        address = round_up(self._next_address, LARGE_SEGMENT_BYTES)
        self._next_address = address + span_bytes
        return expandable.add_segment(pool, address, span_bytes)

    def _release_oversize(self, pool: BlockPool, size_bytes: int) -> bool:
        """Give back just enough unsplittable blocks (release_available_cached_blocks).

        Only with max_split_size, and never from expandable segments (pytorch#134338).
        """
        max_split = self._max_split_size_bytes
        if max_split is None or self._is_expandable:
            return False
        wanted_bytes = max(size_bytes, max_split)
        index = bisect_left(pool.keys, wanted_bytes << KEY_SHIFT)
        if index < len(pool.blocks):
            self._release(pool.blocks[index])
            return True
        released_bytes = 0
        while released_bytes < wanted_bytes and pool.blocks:
            largest = pool.blocks[-1]
            if largest.size_bytes < max_split:
                break
            released_bytes += largest.size_bytes
            self._release(largest)
        return released_bytes >= wanted_bytes

    def _release(self, block: Block) -> None:
        """Give a whole free segment back (release_block)."""
        block.pool.remove(block)
        block.pool.segments.remove(block)
        self.reserved_bytes -= block.size_bytes


def _empty_block(size_bytes: int) -> Block:
    if size_bytes < 0:
        raise ValueError(f"negative size: {size_bytes}")
    return _EMPTY


_EMPTY = Block(BlockPool(page_bytes=1, least_rest_bytes=1, split_below_bytes=0), 0, 0)
_EMPTY.free = True
