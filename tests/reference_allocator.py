"""PyTorch's CUDA caching allocator, one step after another, to compare the fast model with.

Written from the rules and meant to be read beside them: a segment is a plain list of cells, every
search looks at everything, and neighbours are merged by going through the list. Nothing is shared
with the model but the sizes' names and one convention, so that addresses can be compared: a
segment starts where the one made before it ended, an expandable one at the next multiple of 20 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
USED, FREE, UNMAPPED = "used", "free", "unmapped"


class ReferenceOutOfMemory(Exception):
    """A request refused: (asked, reserved, allocated, limit) in bytes."""


@dataclass(eq=False)
class Cell:
    """A range of a segment."""

    address: int
    size: int
    state: str

    @property
    def end(self):
        return self.address + self.size


class Segment:
    """A range of addresses that belongs to one pool."""

    def __init__(self, small, cell):
        self.small = small
        self.page = 2 * MIB if small else 20 * MIB
        self.cells = [cell]

    def split(self, cell, size):
        """Shorten `cell` to `size`; the rest is a cell of its own in the same state."""
        rest = Cell(cell.address + size, cell.size - size, cell.state)
        cell.size = size
        self.cells.insert(self.cells.index(cell) + 1, rest)
        return rest

    def merge_neighbours(self):
        """Make one cell of neighbours that are both free or both unmapped."""
        merged = []
        for cell in self.cells:
            if merged and cell.state != USED and merged[-1].state == cell.state:
                merged[-1] = Cell(merged[-1].address, merged[-1].size + cell.size, cell.state)
            else:
                merged.append(cell)
        self.cells = merged


class ReferenceAllocator:
    """One device, one stream."""

    def __init__(self, *, limit=None, device=None, expandable=False, max_split=None):
        self.limit = limit
        self.device = device
        self.expandable = expandable
        self.max_split = max_split
        self.segments = []
        self.next_address = 0
        self.peak_allocated = 0
        self.peak_reserved = 0
        self.retries = 0

    @property
    def allocated(self):
        return sum(c.size for s in self.segments for c in s.cells if c.state == USED)

    @property
    def reserved(self):
        return sum(c.size for s in self.segments for c in s.cells if c.state != UNMAPPED)

    @property
    def inactive_split(self):
        if self.expandable:
            return 0
        split = [s for s in self.segments if len(s.cells) > 1]
        return sum(c.size for s in split for c in s.cells if c.state == FREE)

    # -- requests ---------------------------------------------------------------------------

    def malloc(self, asked):
        """Return the used cell, or None for nothing."""
        if asked == 0:
            return None
        size = (asked + 511) // 512 * 512
        small = size <= MIB
        found = self.find_cached(small, size)
        if found is None:
            found = self.ask_driver(small, size)
        if found is None and self.release_oversize(small, size):
            found = self.ask_driver(small, size)
        if found is None:
            self.empty_cache()
            self.retries += 1
            found = self.ask_driver(small, size)
        if found is None:
            limits = [x for x in (self.limit, self.device) if x is not None]
            raise ReferenceOutOfMemory(
                self.segment_size(size), self.reserved, self.allocated, min(limits)
            )
        segment, cell = found
        if self.should_split(small, size, cell.size - size):
            segment.split(cell, size)
        cell.state = USED
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return cell

    def free(self, cell):
        """Take a cell back."""
        if cell is None:
            return
        cell.state = FREE
        for segment in self.segments:
            segment.merge_neighbours()

    def empty_cache(self):
        """Return to the driver whatever it can take."""
        for segment in list(self.segments):
            if not self.expandable:
                if [c.state for c in segment.cells] == [FREE]:
                    self.segments.remove(segment)
                continue
            unmapped = False
            for cell in list(segment.cells):
                if cell.state == FREE:
                    unmapped = self.unmap_pages(segment, cell) or unmapped
            segment.merge_neighbours()
            if unmapped and [c.state for c in segment.cells] == [UNMAPPED]:
                self.segments.remove(segment)

    # -- rules ------------------------------------------------------------------------------

    def segment_size(self, size):
        if size <= MIB:
            return 2 * MIB
        if size < 10 * MIB:
            return 20 * MIB
        return (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)

    def should_split(self, small, size, rest):
        if small or self.expandable:
            return rest >= 512
        return rest > MIB and (self.max_split is None or size < self.max_split)

    def find_cached(self, small, size):
        """Best fit: the smallest cell that is large enough, the lowest address among equals."""
        fitting = [
            (cell.size, cell.address, segment, cell)
            for segment in self.segments
            if segment.small == small
            for cell in segment.cells
            if cell.state == FREE and cell.size >= size
        ]
        if not fitting:
            return None
        fitting.sort(key=lambda entry: entry[:2])
        choice = 0
        if self.expandable:
            while choice + 1 < len(fitting) and (
                self.room_to_grow(*fitting[choice + 1][2:])
                < self.room_to_grow(*fitting[choice][2:])
            ):
                choice += 1
        segment, cell = fitting[choice][2:]
        if self.max_split is not None:
            if size < self.max_split and cell.size >= self.max_split:
                return None
            if size >= self.max_split and cell.size >= size + 20 * MIB:
                return None
        return segment, cell

    def room_to_grow(self, segment, cell):
        index = segment.cells.index(cell)
        following = segment.cells[index + 1 : index + 2]
        return cell.size + sum(c.size for c in following if c.state == UNMAPPED)

    def ask_driver(self, small, size):
        asked = self.segment_size(size)
        if self.limit is not None and self.reserved + asked > self.limit:
            return None
        if self.expandable:
            return self.grow_segment(small, size)
        if self.device is not None and self.reserved + asked > self.device:
            return None
        segment = Segment(small, Cell(self.next_address, asked, FREE))
        self.next_address += asked
        self.add_segment(segment)
        return segment, segment.cells[0]

    def add_segment(self, segment):
        self.segments.append(segment)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def release_oversize(self, small, size):
        """Free one block that is large enough, else the largest ones that may not be split."""
        if self.max_split is None or self.expandable:
            return False
        wanted = max(size, self.max_split)
        whole = [s for s in self.segments if s.small == small and s.cells[0].state == FREE]
        whole = [s for s in whole if len(s.cells) == 1 and s.cells[0].size >= self.max_split]
        whole.sort(key=lambda s: (s.cells[0].size, s.cells[0].address))
        for segment in whole:
            if segment.cells[0].size >= wanted:
                self.segments.remove(segment)
                return True
        released = 0
        while whole and released < wanted:
            segment = whole.pop()
            released += segment.cells[0].size
            self.segments.remove(segment)
        return released >= wanted

    # -- expandable segments ----------------------------------------------------------------

    def grow_segment(self, small, size):
        found = self.find_run(small, size)
        if found is None:
            page = 2 * MIB if small else 20 * MIB
            span = 1024**4 if self.device is None else self.device + self.device // 8
            span = max(page, (span + page - 1) // page * page)
            address = (self.next_address + 20 * MIB - 1) // (20 * MIB) * (20 * MIB)
            self.next_address = address + span
            self.add_segment(Segment(small, Cell(address, span, UNMAPPED)))
            found = self.segments[-1], address
        segment, start = found
        while True:
            index = [c.address for c in segment.cells].index(start)
            cell = segment.cells[index]
            have = cell.size if cell.state == FREE else 0
            if have >= size:
                return segment, cell
            hole = cell if cell.state == UNMAPPED else segment.cells[index + 1]
            assert hole.state == UNMAPPED
            pages = -(-min(size - have, hole.size) // segment.page)
            if self.device is not None and self.reserved + pages * segment.page > self.device:
                return None
            if pages * segment.page < hole.size:
                segment.split(hole, pages * segment.page)
            hole.state = FREE
            segment.merge_neighbours()
            self.peak_reserved = max(self.peak_reserved, self.reserved)

    def find_run(self, small, size):
        """Return the segment and the address of the lowest free and unmapped run that fits."""
        for segment in sorted(self.segments, key=lambda s: s.cells[0].address):
            if segment.small != small:
                continue
            for index, cell in enumerate(segment.cells):
                if cell.state != UNMAPPED:
                    continue
                first = index - 1 if index and segment.cells[index - 1].state == FREE else index
                room = 0
                for following in segment.cells[first:]:
                    if following.state == USED:
                        break
                    room += following.size
                if room >= size:
                    return segment, segment.cells[first].address
        return None

    def unmap_pages(self, segment, cell):
        """Unmap the pages that lie in `cell` from end to end; return whether there were any."""
        pages = [
            page
            for page in range(cell.address // segment.page, cell.end // segment.page)
            if page * segment.page >= cell.address
        ]
        if not pages:
            return False
        begin, end = pages[0] * segment.page, (pages[-1] + 1) * segment.page
        if begin > cell.address:
            cell = segment.split(cell, begin - cell.address)
        if end < cell.end:
            segment.split(cell, end - cell.address)
        cell.state = UNMAPPED
        return True
