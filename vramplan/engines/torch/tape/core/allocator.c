/* The caching allocator's model, as allocator.py and expandable.py have it (without max_split). */

#include <stdlib.h>
#include <string.h>

#include "core.h"

#define MIB ((int64_t)1 << 20)
#define LARGE_SEGMENT (20 * MIB)
#define SPAN ((int64_t)1 << 40)

int grow_room(void **items, int32_t *room, int32_t wanted, size_t each) {
    int64_t next = *room < 16 ? 16 : (int64_t)*room * 2;
    while (next < wanted) next *= 2;
    if (next > INT32_MAX / 2) return FAILED;
    void *more = realloc(*items, (size_t)next * each);
    if (more == NULL) return FAILED;
    *items = more;
    *room = (int32_t)next;
    return DONE;
}

#define LINE 64 /* bytes of the processor's cache that are read at a time */

/* Make room for blocks, and for what is beside them. */
static int make_blocks(Allocator *a, int32_t wanted) {
    if (wanted <= a->block_room) return DONE;
    int64_t room = a->block_room < 16 ? 16 : (int64_t)a->block_room * 2;
    while (room < wanted) room *= 2;
    if (room > INT32_MAX / 2) return FAILED;
    Beside *beside = realloc(a->beside, (size_t)room * sizeof(Beside));
    if (beside == NULL) return FAILED;
    a->beside = beside;
    void *memory = malloc((size_t)room * sizeof(Block) + LINE);
    if (memory == NULL) return FAILED;
    Block *blocks = (Block *)(((uintptr_t)memory + LINE - 1) & ~(uintptr_t)(LINE - 1));
    if (a->block_count) memcpy(blocks, a->blocks, (size_t)a->block_count * sizeof(Block));
    free(a->blocks_memory);
    a->blocks_memory = memory;
    a->blocks = blocks;
    a->block_room = (int32_t)room;
    return DONE;
}

static int64_t round_up(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

static int64_t segment_size(int64_t size) {
    if (size <= SMALL) return SMALL_SEGMENT;
    if (size < OWN_SEGMENT) return LARGE_SEGMENT;
    return round_up(size, LARGE_ROUND);
}

void segment_span(int64_t size, int64_t *above, int64_t *most) {
    if (size <= SMALL) {
        *above = 0;
        *most = SMALL;
    } else if (size <= OWN_SEGMENT - ROUND) { /* requests are rounded up first */
        *above = SMALL;
        *most = OWN_SEGMENT - ROUND;
    } else {
        *most = round_up(size, LARGE_ROUND);
        *above = *most - LARGE_ROUND > OWN_SEGMENT - ROUND ? *most - LARGE_ROUND : OWN_SEGMENT - ROUND;
    }
}

int allocator_begin(Allocator *a, int64_t limit, int is_expandable) {
    memset(a, 0, sizeof *a);
    a->limit = limit;
    a->is_expandable = is_expandable;
    a->spare = -1;
    for (int i = 0; i < 2; i++) {
        a->pools[i].first_segment = a->pools[i].last_segment = -1;
        a->pools[i].found = malloc(CLASS_WORDS * 64 * sizeof(Found));
    }
    a->pools[0].page = SMALL_SEGMENT;
    a->pools[0].least_rest = ROUND;
    a->pools[1].page = LARGE_SEGMENT;
    a->pools[1].least_rest = is_expandable ? ROUND : SMALL + ROUND;
    return a->pools[0].found && a->pools[1].found ? DONE : FAILED;
}

void allocator_end(Allocator *a) {
    for (int i = 0; i < 2; i++) {
        free(a->pools[i].found);
        free(a->pools[i].unmapped);
    }
    free(a->blocks_memory);
    free(a->beside);
    memset(a, 0, sizeof *a);
}

static int pool_copy(Pool *to, const Pool *from) {
    TRY(make_room((void **)&to->unmapped, &to->unmapped_room, from->unmapped_count,
                  sizeof(int32_t)));
    if (to->found == NULL) to->found = malloc(CLASS_WORDS * 64 * sizeof(Found));
    if (to->found == NULL) return FAILED;
    Pool old = *to;
    *to = *from;
    to->found = old.found;
    to->unmapped = old.unmapped;
    to->unmapped_room = old.unmapped_room;
    if (from->unmapped_count)
        memcpy(to->unmapped, from->unmapped, (size_t)from->unmapped_count * sizeof(int32_t));
    for (uint64_t words = from->used_words; words; words &= words - 1) {
        int word = __builtin_ctzll(words);
        memcpy(to->found + 64 * word, from->found + 64 * word, 64 * sizeof(Found));
    }
    return DONE;
}

/* Give an allocator back the memory of its own blocks. */
static void keep_memory(Allocator *a, const Allocator *old) {
    a->blocks = old->blocks;
    a->blocks_memory = old->blocks_memory;
    a->beside = old->beside;
    a->block_room = old->block_room;
}

/* Make `to`, all 0 or one that has begun, the same as `from` under another limit; its room is used
 * again. */
int allocator_copy(Allocator *to, const Allocator *from, int64_t limit) {
    TRY(make_blocks(to, from->block_count));
    for (int i = 0; i < 2; i++) TRY(pool_copy(&to->pools[i], &from->pools[i]));
    Allocator old = *to;
    *to = *from;
    to->limit = limit;
    to->is_watched = 0;
    to->pools[0] = old.pools[0];
    to->pools[1] = old.pools[1];
    keep_memory(to, &old);
    if (from->block_count) {
        memcpy(to->blocks, from->blocks, (size_t)from->block_count * sizeof(Block));
        memcpy(to->beside, from->beside, (size_t)from->block_count * sizeof(Beside));
    }
    return DONE;
}

/* Where a block is now; -1 for none. */
static int32_t moved(const int32_t *places, int32_t block) {
    return block < 0 ? -1 : places[block];
}

static void move_pool(Pool *pool, const int32_t *places) {
    pool->first_segment = moved(places, pool->first_segment);
    pool->last_segment = moved(places, pool->last_segment);
    for (int32_t word = 0; word < CLASS_WORDS; word++)
        for (uint64_t bits = pool->used[word]; bits; bits &= bits - 1) {
            Found *found = &pool->found[word * 64 + __builtin_ctzll(bits)];
            found->lowest = places[found->lowest];
            found->near = places[found->near];
        }
}

/* Number the large pool's blocks anew, by address, and leave out all others. */
static int move_large(Allocator *to, const Allocator *from) {
    int32_t *places = malloc(((size_t)from->block_count + 1) * sizeof(int32_t)), count = 0;
    if (places == NULL) return FAILED;
    memset(places, 0xff, ((size_t)from->block_count + 1) * sizeof(int32_t));
    for (int32_t s = from->pools[1].first_segment; s >= 0; s = from->beside[s].later)
        for (int32_t b = s; b >= 0; b = from->blocks[b].next) places[b] = count++;
    to->block_count = 0; /* nothing of what it has is kept */
    if (make_blocks(to, count)) {
        free(places);
        return FAILED;
    }
    to->block_count = count;
    for (int32_t i = 0; i < from->block_count; i++) {
        if (places[i] < 0) continue;
        Block *b = &to->blocks[places[i]];
        Beside *beside = &to->beside[places[i]];
        *b = from->blocks[i];
        *beside = from->beside[i];
        b->previous = moved(places, b->previous);
        b->next = moved(places, b->next);
        if (is_free(b)) {
            b->lower = moved(places, b->lower);
            b->higher = moved(places, b->higher);
        }
        if (b->previous < 0) {
            beside->earlier = moved(places, beside->earlier);
            beside->later = moved(places, beside->later);
        }
    }
    move_pool(&to->pools[1], places);
    free(places);
    return DONE;
}

int allocator_large(Allocator *to, const Allocator *from, int64_t limit) {
    if (from->is_expandable) return FAILED; /* blocks of no memory are told from others by address */
    Pool *small = &to->pools[0];
    if (small->found == NULL) small->found = malloc(CLASS_WORDS * 64 * sizeof(Found));
    if (small->found == NULL) return FAILED;
    TRY(pool_copy(&to->pools[1], &from->pools[1]));
    Allocator old = *to;
    *to = *from;
    to->limit = limit;
    to->is_watched = 0;
    to->pools[0] = old.pools[0];
    to->pools[1] = old.pools[1];
    keep_memory(to, &old);
    to->spare = -1;
    small->used_words = 0;
    memset(small->used, 0, sizeof small->used);
    small->free_count = small->unmapped_count = 0;
    small->first_segment = small->last_segment = -1;
    small->page = from->pools[0].page;
    small->least_rest = from->pools[0].least_rest;
    to->allocated -= to->small_allocated;
    to->small_allocated = to->small_reserved = 0;
    return move_large(to, from);
}

static void relocate(int32_t *block, int32_t by) {
    if (*block >= 0) *block += by;
}

int allocator_graft(Allocator *to, const Allocator *from_small, const Allocator *from_large,
                    int64_t limit) {
    int32_t by = from_small->block_count, count = from_large->block_count;
    TRY(make_blocks(to, by + count));
    TRY(allocator_copy(to, from_small, limit));
    TRY(pool_copy(&to->pools[1], &from_large->pools[1]));
    to->block_count = by + count;
    if (count) {
        memcpy(to->blocks + by, from_large->blocks, (size_t)count * sizeof(Block));
        memcpy(to->beside + by, from_large->beside, (size_t)count * sizeof(Beside));
    }
    for (int32_t i = by; i < by + count; i++) {
        Block *b = &to->blocks[i];
        relocate(&b->previous, by);
        relocate(&b->next, by);
        if (is_free(b)) {
            relocate(&b->lower, by);
            relocate(&b->higher, by);
        }
        relocate(&to->beside[i].earlier, by);
        relocate(&to->beside[i].later, by);
    }
    Pool *pool = &to->pools[1];
    relocate(&pool->first_segment, by);
    relocate(&pool->last_segment, by);
    for (int32_t word = 0; word < CLASS_WORDS; word++)
        for (uint64_t bits = pool->used[word]; bits; bits &= bits - 1) {
            Found *found = &pool->found[word * 64 + __builtin_ctzll(bits)];
            found->lowest += by;
            found->near += by;
        }
    if (from_large->next_address > to->next_address) to->next_address = from_large->next_address;
    to->allocated = from_small->small_allocated + from_large->allocated;
    to->reserved = from_large->reserved; /* which counts the small pool's */
    to->granted = from_large->granted;
    return DONE;
}

/* ------------------------------------------------------------------------------ free blocks */

static int bit_below(uint64_t bits) { return __builtin_ctzll(bits); }

/* The class of a size, which is a multiple of ROUND below 2^63: 6 bits after the highest. */
static int32_t class_of(int64_t size) {
    uint64_t units = (uint64_t)size / ROUND;
    if (units < 64) return (int32_t)units;
    int shift = 57 - __builtin_clzll(units); /* the highest bit's place, less 6 */
    return (shift + 1) * 64 + (int32_t)(units >> shift & 63);
}

/* The lowest free block of the classes from this one on; -1 for none. */
static int32_t lowest_from(const Pool *pool, int32_t class) {
    int32_t word = class >> 6;
    if (word >= CLASS_WORDS) return -1;
    uint64_t bits = pool->used[word] & ~(uint64_t)0 << (class & 63);
    if (!bits) {
        uint64_t words = word == 63 ? 0 : pool->used_words & ~(uint64_t)0 << (word + 1);
        if (!words) return -1;
        word = bit_below(words);
        bits = pool->used[word];
    }
    return pool->found[word * 64 + bit_below(bits)].lowest;
}

/* The smallest free block of at least `size`, of these the one of lowest address; -1 for none. */
static int32_t best_fit(const Allocator *a, const Pool *pool, int64_t size) {
    int32_t class = class_of(size);
    if (pool->used[class >> 6] >> (class & 63) & 1) {
        const Block *blocks = a->blocks;
        int32_t block = pool->found[class].near;
        if (blocks[block].size >= size) {
            while (blocks[block].lower >= 0 && blocks[blocks[block].lower].size >= size)
                block = blocks[block].lower;
            return block;
        }
        do {
            block = blocks[block].higher;
        } while (block >= 0 && blocks[block].size < size);
        if (block >= 0) return block;
    }
    return lowest_from(pool, class + 1);
}

/* The free block after this one; -1 for none. */
static int32_t following(const Allocator *a, const Pool *pool, int32_t block) {
    const Block *b = &a->blocks[block];
    return b->higher >= 0 ? b->higher : lowest_from(pool, class_of(b->size) + 1);
}

int64_t largest_free(const Allocator *a, int which) {
    const Pool *pool = &a->pools[which];
    if (!pool->used_words) return 0;
    int32_t word = 63 - __builtin_clzll(pool->used_words);
    int32_t block = pool->found[word * 64 + 63 - __builtin_clzll(pool->used[word])].lowest;
    while (a->blocks[block].higher >= 0) block = a->blocks[block].higher;
    return a->blocks[block].size;
}

int64_t largest_part(const Allocator *a) {
    const Pool *pool = &a->pools[0];
    uint64_t words = pool->used_words;
    while (words) {
        int32_t word = 63 - __builtin_clzll(words);
        words &= ~((uint64_t)1 << word);
        for (uint64_t bits = pool->used[word]; bits;) {
            int32_t bit = 63 - __builtin_clzll(bits);
            bits &= ~((uint64_t)1 << bit);
            /* a segment that is wholly free is larger than any part of one */
            int32_t found = -1, block = pool->found[word * 64 + bit].lowest;
            for (; block >= 0 && a->blocks[block].size < SMALL_SEGMENT; block = a->blocks[block].higher)
                found = block;
            if (found >= 0) return a->blocks[found].size;
        }
    }
    return 0;
}

int32_t fitting(const Allocator *a, int64_t size) {
    return best_fit(a, &a->pools[size > SMALL], (size + ROUND - 1) & -ROUND);
}

static void take_out(Allocator *a, int32_t block) {
    const Block *b = &a->blocks[block];
    Pool *pool = &a->pools[pool_of(b)];
    pool->free_count--;
    int32_t class = class_of(b->size), word = class >> 6;
    if (pool->found[class].near == block) pool->found[class].near = b->lower >= 0 ? b->lower : b->higher;
    if (b->higher >= 0) a->blocks[b->higher].lower = b->lower;
    if (b->lower >= 0) {
        a->blocks[b->lower].higher = b->higher;
        return;
    }
    if (b->higher >= 0) {
        pool->found[class].lowest = b->higher;
    } else {
        pool->used[word] &= ~((uint64_t)1 << (class & 63));
        if (!pool->used[word]) pool->used_words &= ~((uint64_t)1 << word);
    }
}

static int is_before(const Block *one, const Block *other) {
    return one->size < other->size || (one->size == other->size && one->place < other->place);
}

static void put_in(Allocator *a, int32_t block) {
    Block *blocks = a->blocks, *b = &blocks[block];
    Pool *pool = &a->pools[pool_of(b)];
    int32_t class = class_of(b->size), word = class >> 6;
    uint64_t bit = (uint64_t)1 << (class & 63);
    int32_t lower = -1, higher = -1;
    if (pool->used[word] & bit) {
        int32_t near = pool->found[class].near;
        if (is_before(&blocks[near], b)) {
            lower = near;
            higher = blocks[near].higher;
            while (higher >= 0 && is_before(&blocks[higher], b)) {
                lower = higher;
                higher = blocks[higher].higher;
            }
        } else {
            higher = near;
            lower = blocks[near].lower;
            while (lower >= 0 && !is_before(&blocks[lower], b)) {
                higher = lower;
                lower = blocks[lower].lower;
            }
        }
    } else {
        pool->used[word] |= bit;
        pool->used_words |= (uint64_t)1 << word;
    }
    if (lower >= 0) blocks[lower].higher = block;
    else pool->found[class].lowest = block;
    if (higher >= 0) blocks[higher].lower = block;
    b->lower = lower;
    b->higher = higher;
    b->place |= IS_FREE;
    pool->found[class].near = block;
    pool->free_count++;
}

static int32_t new_block(Allocator *a, int pool, int64_t address, int64_t size, int32_t previous,
                         int32_t next) {
    int32_t block = a->spare;
    if (block >= 0) {
        a->spare = a->blocks[block].next;
    } else {
        if (make_blocks(a, a->block_count + 1)) return -1;
        block = a->block_count++;
    }
    Block *b = &a->blocks[block];
    b->place = address | IS_MAPPED | (pool ? IS_LARGE : 0);
    b->size = size;
    b->previous = previous;
    b->next = next;
    return block;
}

/* A segment of one block, behind all others: the driver's addresses rise. */
static int32_t new_segment(Allocator *a, int which, int64_t address, int64_t size) {
    int32_t block = new_block(a, which, address, size, -1, -1);
    if (block < 0) return -1;
    Pool *pool = &a->pools[which];
    a->beside[block].earlier = pool->last_segment;
    a->beside[block].later = -1;
    if (pool->last_segment >= 0) a->beside[pool->last_segment].later = block;
    else pool->first_segment = block;
    pool->last_segment = block;
    return block;
}

static void drop_block(Allocator *a, int32_t block) {
    a->blocks[block].place &= ~(int64_t)IS_FREE;
    a->blocks[block].next = a->spare;
    a->spare = block;
}

static void drop_segment(Allocator *a, int32_t block) {
    Pool *pool = &a->pools[pool_of(&a->blocks[block])];
    const Beside *b = &a->beside[block];
    if (b->earlier >= 0) a->beside[b->earlier].later = b->later;
    else pool->first_segment = b->later;
    if (b->later >= 0) a->beside[b->later].earlier = b->earlier;
    else pool->last_segment = b->earlier;
    drop_block(a, block);
}

/* Keep the first `size` and return the rest, as mapped as this and not free; -1 without room. */
static int32_t cut(Allocator *a, int32_t block, int64_t size) {
    Block b = a->blocks[block];
    int32_t rest = new_block(a, pool_of(&b), address_of(&b) + size, b.size - size, block, b.next);
    if (rest < 0) return -1;
    if (!is_mapped(&b)) a->blocks[rest].place &= ~(int64_t)IS_MAPPED;
    a->beside[rest].segment = a->beside[block].segment;
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
    Pool *pool = &a->pools[pool_of(&a->blocks[block])];
    if (make_room((void **)&pool->unmapped, &pool->unmapped_room, pool->unmapped_count + 1,
                  sizeof(int32_t)))
        return FAILED;
    int32_t index = pool->unmapped_count;
    while (index > 0 &&
           a->blocks[pool->unmapped[index - 1]].place > a->blocks[block].place)
        index--;
    memmove(pool->unmapped + index + 1, pool->unmapped + index,
            (size_t)(pool->unmapped_count - index) * sizeof(int32_t));
    pool->unmapped[index] = block;
    pool->unmapped_count++;
    return DONE;
}

static void remove_unmapped(Allocator *a, int32_t block) {
    Pool *pool = &a->pools[pool_of(&a->blocks[block])];
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
    if (b->next < 0 || is_mapped(&a->blocks[b->next])) return b->size;
    return b->size + a->blocks[b->next].size;
}

static int32_t choose(const Allocator *a, const Pool *pool, int32_t block) {
    for (;;) {
        int32_t next = following(a, pool, block);
        if (next < 0 || growable(a, next) >= growable(a, block)) return block;
        block = next;
    }
}

/* The first block of the lowest run of free and unmapped neighbours that adds up to size; -1. */
static int32_t find_room(const Allocator *a, const Pool *pool, int64_t size) {
    for (int32_t i = 0; i < pool->unmapped_count; i++) {
        int32_t first = pool->unmapped[i];
        int32_t before = a->blocks[first].previous;
        if (before >= 0 && is_free(&a->blocks[before])) first = before;
        int64_t found = 0;
        int32_t block = first;
        while (found < size && block >= 0 &&
               (is_free(&a->blocks[block]) || !is_mapped(&a->blocks[block]))) {
            found += a->blocks[block].size;
            block = a->blocks[block].next;
        }
        if (found >= size) return first;
    }
    return -1;
}

/* The bytes that map_room maps for a block in the run that starts with `first`; -1: a new segment. */
static int64_t missing(const Allocator *a, int32_t first, int64_t size, int64_t page) {
    if (first < 0) return round_up(size, page);
    int64_t have = 0, mapped = 0;
    for (int32_t block = first; have < size; block = a->blocks[block].next) {
        const Block *b = &a->blocks[block];
        if (is_mapped(b)) {
            have += b->size;
            continue;
        }
        int64_t step = round_up(size - have < b->size ? size - have : b->size, page);
        have += step;
        mapped += step;
    }
    return mapped;
}

static int map_pages(Allocator *a, int32_t block, int64_t size) {
    remove_unmapped(a, block);
    if (size < a->blocks[block].size) {
        int32_t rest = cut(a, block, size);
        if (rest < 0 || add_unmapped(a, rest)) return FAILED;
    }
    a->blocks[block].place |= IS_MAPPED;
    return DONE;
}

/* Make one used block of at least `size` from the run that starts with `first` (map_room). */
static int map_room(Allocator *a, int32_t first, int64_t size, int64_t *mapped) {
    int64_t page = a->pools[pool_of(&a->blocks[first])].page;
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
        if (is_mapped(&a->blocks[block])) {
            take_out(a, block);
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
    if (next >= 0 && is_free(&a->blocks[next])) {
        take_out(a, next);
        absorb(a, first);
    }
    a->blocks[first].place &= ~(int64_t)IS_FREE;
    return DONE;
}

static int unmap(Allocator *a, int32_t block, int64_t begin, int64_t end) {
    take_out(a, block);
    if (begin > address_of(&a->blocks[block])) {
        int32_t front = block;
        block = cut(a, front, begin - address_of(&a->blocks[front]));
        if (block < 0) return FAILED;
        put_in(a, front);
    }
    if (end < address_of(&a->blocks[block]) + a->blocks[block].size) {
        int32_t rest = cut(a, block, end - begin);
        if (rest < 0) return FAILED;
        put_in(a, rest);
    }
    a->blocks[block].place &= ~(int64_t)IS_FREE;
    a->blocks[block].place &= ~(int64_t)IS_MAPPED;
    int32_t next = a->blocks[block].next;
    if (next >= 0 && !is_mapped(&a->blocks[next])) {
        remove_unmapped(a, next);
        absorb(a, block);
    }
    int32_t previous = a->blocks[block].previous;
    if (previous >= 0 && !is_mapped(&a->blocks[previous])) {
        absorb(a, previous);
        block = previous;
    } else if (add_unmapped(a, block)) {
        return FAILED;
    }
    if (a->blocks[block].previous < 0 && a->blocks[block].next < 0) {
        remove_unmapped(a, block);
        drop_segment(a, block);
    }
    return DONE;
}

static int release_pages(Allocator *a, int which) {
    Pool *pool = &a->pools[which];
    int32_t count = pool->free_count;
    if (!count) return DONE;
    int32_t *blocks = malloc((size_t)count * sizeof *blocks);
    if (blocks == NULL) return FAILED;
    int32_t block = lowest_from(pool, 0);
    for (int32_t i = 0; i < count; i++, block = following(a, pool, block)) blocks[i] = block;
    int status = DONE;
    for (int32_t i = 0; i < count && !status; i++) {
        const Block *b = &a->blocks[blocks[i]];
        int64_t begin = round_up(address_of(b), pool->page);
        int64_t end = (address_of(b) + b->size) / pool->page * pool->page;
        if (begin < end) {
            a->reserved -= end - begin;
            if (which == 0) a->small_reserved -= end - begin;
            status = unmap(a, blocks[i], begin, end);
        }
    }
    free(blocks);
    return status;
}

/* -------------------------------------------------------------------------------- requests */

int allocator_empty_cache(Allocator *a) {
    a->reserved -= a->outside;
    a->outside = 0;
    for (int which = 1; which >= 0; which--) {
        if (a->is_expandable) {
            if (release_pages(a, which)) return FAILED;
            continue;
        }
        const Pool *pool = &a->pools[which];
        int32_t block = lowest_from(pool, 0);
        while (block >= 0) {
            int32_t next = following(a, pool, block);
            const Block *b = &a->blocks[block];
            if (b->previous < 0 && b->next < 0) {
                a->reserved -= b->size;
                if (which == 0) a->small_reserved -= b->size;
                take_out(a, block);
                drop_segment(a, block);
            }
            block = next;
        }
    }
    return DONE;
}

static int32_t add_expandable(Allocator *a, int which) {
    int64_t address = round_up(a->next_address, LARGE_SEGMENT);
    int64_t span = round_up(SPAN, a->pools[which].page);
    if (address > UNLIMITED - span) return -1;
    a->next_address = address + span;
    int32_t block = new_segment(a, which, address, span);
    if (block < 0) return -1;
    a->blocks[block].place &= ~(int64_t)IS_MAPPED;
    return add_unmapped(a, block) ? -1 : block;
}

static int grow(Allocator *a, int which, int64_t size, int32_t *block) {
    int64_t grown = segment_size(size);
    int32_t first = -1;
    if (a->is_expandable) { /* a card counts the pages that are mapped */
        if (size > SPAN) return FAILED; /* no segment is that large: the Python says what then */
        first = find_room(a, &a->pools[which], size);
        grown = missing(a, first, size, a->pools[which].page);
    }
    int64_t asked = a->reserved + grown;
    if (asked > a->limit) return REFUSED;
    if (asked > a->granted) {
        if (a->is_watched) return PAUSED; /* nothing has changed but what a refusal gave back */
        a->granted = asked;
    }
    if (a->is_expandable) {
        if (first < 0) first = add_expandable(a, which);
        if (first < 0 || map_room(a, first, size, &grown)) return FAILED;
        *block = first;
    } else {
        if (a->next_address > UNLIMITED - grown) return FAILED;
        *block = new_segment(a, which, a->next_address, grown);
        if (*block < 0) return FAILED;
        a->next_address += grown;
    }
    a->reserved += grown;
    if (which == 0) a->small_reserved += grown;
    if (a->reserved > a->peak_reserved) a->peak_reserved = a->reserved;
    return DONE;
}

int allocator_malloc(Allocator *a, int64_t size, int32_t *block) {
    if (size <= 0 || size > LARGEST) return FAILED;
    int which = size > SMALL;
    const Pool *pool = &a->pools[which];
    size = (size + ROUND - 1) & -ROUND;
    int32_t found = best_fit(a, pool, size);
    if (found >= 0) {
        if (a->is_expandable) found = choose(a, pool, found);
        take_out(a, found);
        a->blocks[found].place &= ~(int64_t)IS_FREE;
    } else {
        int status = grow(a, which, size, &found);
        if (status == REFUSED) {
            if (allocator_empty_cache(a)) return FAILED;
            a->retries++;
            status = grow(a, which, size, &found);
            if (status == REFUSED) a->asked = segment_size(size);
        }
        if (status) return status;
    }
    int64_t taken = a->blocks[found].size;
    if (taken - size >= pool->least_rest) {
        int32_t rest = cut(a, found, size);
        if (rest < 0) return FAILED;
        put_in(a, rest);
        taken = size;
    }
    *block = found;
    a->allocated += taken;
    if (which == 0) a->small_allocated += taken;
    if (a->allocated > a->peak_allocated) a->peak_allocated = a->allocated;
    return DONE;
}

int allocator_free(Allocator *a, int32_t block) {
    a->allocated -= a->blocks[block].size;
    if (pool_of(&a->blocks[block]) == 0) a->small_allocated -= a->blocks[block].size;
    int32_t next = a->blocks[block].next, previous = a->blocks[block].previous;
    if (next >= 0 && is_free(&a->blocks[next])) {
        take_out(a, next);
        absorb(a, block);
    }
    if (previous >= 0 && is_free(&a->blocks[previous])) {
        take_out(a, previous);
        absorb(a, previous);
        block = previous;
    }
    put_in(a, block);
    return DONE;
}
