/* The caching allocator's model, as allocator.py and expandable.py have it (without max_split). */

#include <stdlib.h>
#include <string.h>

#include "core.h"

#define MIB ((int64_t)1 << 20)
#define ROUND ((int64_t)512)
#define SMALL MIB
#define SMALL_SEGMENT (2 * MIB)
#define LARGE_SEGMENT (20 * MIB)
#define LARGE (10 * MIB)
#define LARGE_ROUND (2 * MIB)
#define SPAN ((int64_t)1 << 40)

int make_room(void **items, int32_t *room, int32_t wanted, size_t each) {
    if (wanted <= *room) return DONE;
    int64_t next = *room < 16 ? 16 : (int64_t)*room * 2;
    while (next < wanted) next *= 2;
    if (next > INT32_MAX / 2) return FAILED;
    void *more = realloc(*items, (size_t)next * each);
    if (more == NULL) return FAILED;
    *items = more;
    *room = (int32_t)next;
    return DONE;
}

static int64_t round_up(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

static int64_t segment_size(int64_t size) {
    if (size <= SMALL) return SMALL_SEGMENT;
    if (size < LARGE) return LARGE_SEGMENT;
    return round_up(size, LARGE_ROUND);
}

int allocator_begin(Allocator *a, int64_t limit, int is_expandable) {
    memset(a, 0, sizeof *a);
    a->limit = limit;
    a->is_expandable = is_expandable;
    a->spare = -1;
    a->pools[0].page = SMALL_SEGMENT;
    a->pools[0].least_rest = ROUND;
    a->pools[1].page = LARGE_SEGMENT;
    a->pools[1].least_rest = is_expandable ? ROUND : SMALL + ROUND;
    return DONE;
}

void allocator_end(Allocator *a) {
    for (int i = 0; i < 2; i++) {
        free(a->pools[i].free);
        free(a->pools[i].unmapped);
    }
    free(a->blocks);
    memset(a, 0, sizeof *a);
}

/* Make `to`, which has begun, the same as `from` under another limit; its room is used again. */
int allocator_copy(Allocator *to, const Allocator *from, int64_t limit) {
    Allocator old = *to;
    *to = *from;
    to->limit = limit;
    to->blocks = old.blocks;
    to->block_room = old.block_room;
    for (int i = 0; i < 2; i++) {
        to->pools[i].free = old.pools[i].free;
        to->pools[i].free_room = old.pools[i].free_room;
        to->pools[i].unmapped = old.pools[i].unmapped;
        to->pools[i].unmapped_room = old.pools[i].unmapped_room;
    }
    if (make_room((void **)&to->blocks, &to->block_room, from->block_count, sizeof(Block)))
        return FAILED;
    if (from->block_count)
        memcpy(to->blocks, from->blocks, (size_t)from->block_count * sizeof(Block));
    for (int i = 0; i < 2; i++) {
        Pool *pool = &to->pools[i];
        const Pool *source = &from->pools[i];
        if (make_room((void **)&pool->free, &pool->free_room, source->free_count, sizeof(Entry)) ||
            make_room((void **)&pool->unmapped, &pool->unmapped_room, source->unmapped_count,
                      sizeof(int32_t)))
            return FAILED;
        if (source->free_count)
            memcpy(pool->free, source->free, (size_t)source->free_count * sizeof(Entry));
        if (source->unmapped_count)
            memcpy(pool->unmapped, source->unmapped,
                   (size_t)source->unmapped_count * sizeof(int32_t));
    }
    return DONE;
}

/* ------------------------------------------------------------------------------ free blocks */

/* The first entry that is not below (size, address). */
static int32_t find(const Pool *pool, int64_t size, int64_t address) {
    int32_t low = 0, high = pool->free_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        const Entry *entry = &pool->free[middle];
        if (entry->size < size || (entry->size == size && entry->address < address))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void take_out(Pool *pool, int32_t index) {
    pool->free_count--;
    memmove(pool->free + index, pool->free + index + 1,
            (size_t)(pool->free_count - index) * sizeof(Entry));
}

static int put_in(Allocator *a, int32_t block) {
    Block *b = &a->blocks[block];
    Pool *pool = &a->pools[b->pool];
    if (make_room((void **)&pool->free, &pool->free_room, pool->free_count + 1, sizeof(Entry)))
        return FAILED;
    int32_t index = find(pool, b->size, b->address);
    memmove(pool->free + index + 1, pool->free + index,
            (size_t)(pool->free_count - index) * sizeof(Entry));
    pool->free[index].size = b->size;
    pool->free[index].address = b->address;
    pool->free[index].block = block;
    pool->free_count++;
    b->is_free = 1;
    return DONE;
}

/* Put a block in the place of the entry at `index`, which is taken out: less is moved than by both. */
static void put_instead(Allocator *a, int32_t index, int32_t block) {
    Block *b = &a->blocks[block];
    Pool *pool = &a->pools[b->pool];
    Entry *free = pool->free;
    int32_t to = find(pool, b->size, b->address);
    if (to > index) {
        to--;
        memmove(free + index, free + index + 1, (size_t)(to - index) * sizeof(Entry));
    } else {
        memmove(free + to + 1, free + to, (size_t)(index - to) * sizeof(Entry));
    }
    free[to].size = b->size;
    free[to].address = b->address;
    free[to].block = block;
    b->is_free = 1;
}

static int32_t index_of(const Allocator *a, int32_t block) {
    const Block *b = &a->blocks[block];
    return find(&a->pools[b->pool], b->size, b->address);
}

static void remove_free(Allocator *a, int32_t block) {
    take_out(&a->pools[a->blocks[block].pool], index_of(a, block));
}

static int32_t new_block(Allocator *a, int pool, int64_t address, int64_t size, int32_t previous,
                         int32_t next) {
    int32_t block = a->spare;
    if (block >= 0) {
        a->spare = a->blocks[block].next;
    } else {
        if (make_room((void **)&a->blocks, &a->block_room, a->block_count + 1, sizeof(Block)))
            return -1;
        block = a->block_count++;
    }
    Block *b = &a->blocks[block];
    b->address = address;
    b->size = size;
    b->previous = previous;
    b->next = next;
    b->is_free = 0;
    b->is_mapped = 1;
    b->pool = (uint8_t)pool;
    return block;
}

static void drop_block(Allocator *a, int32_t block) {
    a->blocks[block].next = a->spare;
    a->spare = block;
}

/* Keep the first `size` and return the rest, as mapped as this and not free; -1 without room. */
static int32_t cut(Allocator *a, int32_t block, int64_t size) {
    Block b = a->blocks[block];
    int32_t rest = new_block(a, b.pool, b.address + size, b.size - size, block, b.next);
    if (rest < 0) return -1;
    a->blocks[rest].is_mapped = b.is_mapped;
    if (b.next >= 0) a->blocks[b.next].previous = rest;
    a->blocks[block].next = rest;
    a->blocks[block].size = size;
    return rest;
}

/* Take over the range of the next block, which is in no list any more. */
static void absorb(Allocator *a, int32_t block) {
    int32_t following = a->blocks[block].next;
    a->blocks[block].size += a->blocks[following].size;
    int32_t after = a->blocks[following].next;
    a->blocks[block].next = after;
    if (after >= 0) a->blocks[after].previous = block;
    drop_block(a, following);
}

/* --------------------------------------------------------------------- expandable segments */

static int add_unmapped(Allocator *a, int32_t block) {
    Pool *pool = &a->pools[a->blocks[block].pool];
    if (make_room((void **)&pool->unmapped, &pool->unmapped_room, pool->unmapped_count + 1,
                  sizeof(int32_t)))
        return FAILED;
    int32_t index = pool->unmapped_count;
    while (index > 0 &&
           a->blocks[pool->unmapped[index - 1]].address > a->blocks[block].address)
        index--;
    memmove(pool->unmapped + index + 1, pool->unmapped + index,
            (size_t)(pool->unmapped_count - index) * sizeof(int32_t));
    pool->unmapped[index] = block;
    pool->unmapped_count++;
    return DONE;
}

static void remove_unmapped(Allocator *a, int32_t block) {
    Pool *pool = &a->pools[a->blocks[block].pool];
    for (int32_t i = 0; i < pool->unmapped_count; i++)
        if (pool->unmapped[i] == block) {
            pool->unmapped_count--;
            memmove(pool->unmapped + i, pool->unmapped + i + 1,
                    (size_t)(pool->unmapped_count - i) * sizeof(int32_t));
            return;
        }
}

static int64_t growable(const Allocator *a, int32_t block) {
    const Block *b = &a->blocks[block];
    if (b->next < 0 || a->blocks[b->next].is_mapped) return b->size;
    return b->size + a->blocks[b->next].size;
}

static int32_t choose(const Allocator *a, const Pool *pool, int32_t index) {
    while (index < pool->free_count - 1 &&
           growable(a, pool->free[index + 1].block) < growable(a, pool->free[index].block))
        index++;
    return index;
}

/* The first block of the lowest run of free and unmapped neighbours that adds up to size; -1. */
static int32_t find_room(const Allocator *a, const Pool *pool, int64_t size) {
    for (int32_t i = 0; i < pool->unmapped_count; i++) {
        int32_t first = pool->unmapped[i];
        int32_t before = a->blocks[first].previous;
        if (before >= 0 && a->blocks[before].is_free) first = before;
        int64_t found = 0;
        int32_t block = first;
        while (found < size && block >= 0 &&
               (a->blocks[block].is_free || !a->blocks[block].is_mapped)) {
            found += a->blocks[block].size;
            block = a->blocks[block].next;
        }
        if (found >= size) return first;
    }
    return -1;
}

static int map_pages(Allocator *a, int32_t block, int64_t size) {
    remove_unmapped(a, block);
    if (size < a->blocks[block].size) {
        int32_t rest = cut(a, block, size);
        if (rest < 0 || add_unmapped(a, rest)) return FAILED;
    }
    a->blocks[block].is_mapped = 1;
    return DONE;
}

/* Make one used block of at least `size` from the run that starts with `first` (map_room). */
static int map_room(Allocator *a, int32_t first, int64_t size, int64_t *mapped) {
    int64_t page = a->pools[a->blocks[first].pool].page;
    /* the run is every neighbour up to the one with which it adds up */
    int64_t found = a->blocks[first].size;
    int32_t left = 1;
    for (int32_t b = first; found < size; left++) {
        b = a->blocks[b].next;
        found += a->blocks[b].size;
    }
    *mapped = 0;
    int32_t block = first;
    for (int is_first = 1; left > 0; left--, is_first = 0) {
        if (!is_first) block = a->blocks[first].next;
        if (a->blocks[block].is_mapped) {
            remove_free(a, block);
        } else {
            int64_t missing = is_first ? size : size - a->blocks[first].size;
            int64_t have = a->blocks[block].size;
            int64_t step = round_up(missing < have ? missing : have, page);
            if (*mapped + step > UNLIMITED - a->reserved) return FAILED;
            if (map_pages(a, block, step)) return FAILED;
            *mapped += step;
        }
        if (!is_first) absorb(a, first);
    }
    int32_t next = a->blocks[first].next;
    if (next >= 0 && a->blocks[next].is_free) {
        remove_free(a, next);
        absorb(a, first);
    }
    a->blocks[first].is_free = 0;
    return DONE;
}

static int unmap(Allocator *a, int32_t block, int64_t begin, int64_t end) {
    remove_free(a, block);
    if (begin > a->blocks[block].address) {
        int32_t front = block;
        block = cut(a, front, begin - a->blocks[front].address);
        if (block < 0 || put_in(a, front)) return FAILED;
    }
    if (end < a->blocks[block].address + a->blocks[block].size) {
        int32_t rest = cut(a, block, end - begin);
        if (rest < 0 || put_in(a, rest)) return FAILED;
    }
    a->blocks[block].is_free = 0;
    a->blocks[block].is_mapped = 0;
    int32_t next = a->blocks[block].next;
    if (next >= 0 && !a->blocks[next].is_mapped) {
        remove_unmapped(a, next);
        absorb(a, block);
    }
    int32_t previous = a->blocks[block].previous;
    if (previous >= 0 && !a->blocks[previous].is_mapped) {
        absorb(a, previous);
        block = previous;
    } else if (add_unmapped(a, block)) {
        return FAILED;
    }
    if (a->blocks[block].previous < 0 && a->blocks[block].next < 0) {
        remove_unmapped(a, block);
        drop_block(a, block);
    }
    return DONE;
}

static int release_pages(Allocator *a, int which) {
    Pool *pool = &a->pools[which];
    int32_t count = pool->free_count;
    if (!count) return DONE;
    int32_t *blocks = malloc((size_t)count * sizeof *blocks);
    if (blocks == NULL) return FAILED;
    for (int32_t i = 0; i < count; i++) blocks[i] = pool->free[i].block;
    int status = DONE;
    for (int32_t i = 0; i < count && !status; i++) {
        const Block *b = &a->blocks[blocks[i]];
        int64_t begin = round_up(b->address, pool->page);
        int64_t end = (b->address + b->size) / pool->page * pool->page;
        if (begin < end) {
            a->reserved -= end - begin;
            status = unmap(a, blocks[i], begin, end);
        }
    }
    free(blocks);
    return status;
}

/* -------------------------------------------------------------------------------- requests */

int allocator_empty_cache(Allocator *a) {
    for (int which = 1; which >= 0; which--) {
        if (a->is_expandable) {
            if (release_pages(a, which)) return FAILED;
            continue;
        }
        Pool *pool = &a->pools[which];
        int32_t kept = 0;
        for (int32_t i = 0; i < pool->free_count; i++) {
            const Block *b = &a->blocks[pool->free[i].block];
            if (b->previous < 0 && b->next < 0) {
                a->reserved -= b->size;
                drop_block(a, pool->free[i].block);
            } else {
                pool->free[kept++] = pool->free[i];
            }
        }
        pool->free_count = kept;
    }
    return DONE;
}

static int32_t add_expandable(Allocator *a, int which) {
    int64_t address = round_up(a->next_address, LARGE_SEGMENT);
    int64_t span = round_up(SPAN, a->pools[which].page);
    if (address > UNLIMITED - span) return -1;
    a->next_address = address + span;
    int32_t block = new_block(a, which, address, span, -1, -1);
    if (block < 0) return -1;
    a->blocks[block].is_mapped = 0;
    return add_unmapped(a, block) ? -1 : block;
}

static int grow(Allocator *a, int which, int64_t size, int32_t *block) {
    int64_t grown = segment_size(size);
    int64_t asked = a->reserved + grown;
    if (asked > a->limit) return REFUSED;
    if (asked > a->granted) {
        if (a->is_watched) return PAUSED; /* nothing has changed but what a refusal gave back */
        a->granted = asked;
    }
    if (a->is_expandable) {
        if (size > SPAN) return FAILED; /* no segment is that large: the Python says what then */
        int32_t first = find_room(a, &a->pools[which], size);
        if (first < 0) first = add_expandable(a, which);
        if (first < 0 || map_room(a, first, size, &grown)) return FAILED;
        *block = first;
    } else {
        if (a->next_address > UNLIMITED - grown) return FAILED;
        *block = new_block(a, which, a->next_address, grown, -1, -1);
        if (*block < 0) return FAILED;
        a->next_address += grown;
    }
    a->reserved += grown;
    if (a->reserved > a->peak_reserved) a->peak_reserved = a->reserved;
    return DONE;
}

int allocator_malloc(Allocator *a, int64_t size, int32_t *block) {
    if (size <= 0 || size > LARGEST) return FAILED;
    int which = size > SMALL;
    Pool *pool = &a->pools[which];
    size = (size + ROUND - 1) & -ROUND;
    int32_t index = find(pool, size, 0);
    int is_found = index < pool->free_count;
    if (is_found) {
        if (a->is_expandable) index = choose(a, pool, index);
        *block = pool->free[index].block;
        a->blocks[*block].is_free = 0;
    } else {
        int status = grow(a, which, size, block);
        if (status == REFUSED) {
            if (allocator_empty_cache(a)) return FAILED;
            a->retries++;
            status = grow(a, which, size, block);
            if (status == REFUSED) a->asked = segment_size(size);
        }
        if (status) return status;
    }
    int64_t taken = a->blocks[*block].size;
    if (taken - size >= pool->least_rest) {
        int32_t rest = cut(a, *block, size);
        if (rest < 0) return FAILED;
        if (is_found) put_instead(a, index, rest);
        else if (put_in(a, rest)) return FAILED;
        taken = size;
    } else if (is_found) {
        take_out(pool, index);
    }
    a->allocated += taken;
    if (a->allocated > a->peak_allocated) a->peak_allocated = a->allocated;
    return DONE;
}

int allocator_free(Allocator *a, int32_t block) {
    a->allocated -= a->blocks[block].size;
    int32_t next = a->blocks[block].next, previous = a->blocks[block].previous, index = -1;
    if (next >= 0 && a->blocks[next].is_free) {
        index = index_of(a, next);
        absorb(a, block);
    }
    if (previous >= 0 && a->blocks[previous].is_free) {
        if (index >= 0) take_out(&a->pools[a->blocks[block].pool], index);
        index = index_of(a, previous);
        absorb(a, previous);
        block = previous;
    }
    if (index < 0) return put_in(a, block);
    put_instead(a, index, block);
    return DONE;
}
