/* The replay's hot core: the caching allocator's model, a tape's interpreter, and tries under limits.
 *
 * One source of truth is better than two: allocator.py, expandable.py, replay.py, residency.py and
 * rehearsal.py say what is right, and this says the same, faster. What is out of the ordinary (a
 * tape that does not hold together, a figure that is too large) is an error here, and whoever called
 * asks the Python to find out what it is. Nothing here reads a file, and no index is trusted.
 */
#ifndef VRAMPLAN_CORE_H
#define VRAMPLAN_CORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { DONE = 0, FAILED = -1, REFUSED = 1, PAUSED = 3 };

/* What is done about scratch that is refused (rehearsed.py): the run fails, the library's next plan
 * is tried, or that and, after the last, none. */
enum { FAILS, NEXT_PLAN, WITHOUT };

#define TRY(call)                    \
    do {                             \
        int status_ = (call);        \
        if (status_) return status_; \
    } while (0)

#define SMALL ((int64_t)1 << 20) /* the largest request of the small pool */
#define ROUND ((int64_t)512)
#define SMALL_SEGMENT (2 * SMALL)
#define OWN_SEGMENT (10 * SMALL) /* the smallest request that gets a segment of about its size */
#define LARGE_ROUND (2 * SMALL)
#define UNLIMITED ((int64_t)1 << 62)
#define LARGEST ((int64_t)1 << 60)

/* ------------------------------------------------------------------ the allocator (allocator.c) */

/* What every request reads and writes: two of them fill a line of the processor's cache, so a run's
 * hundreds stay in the part of it that answers at once. */
typedef struct {
    int64_t place; /* its address, and which of the following it is: addresses are multiples of ROUND */
    int64_t size;
    int32_t previous, next; /* blocks, -1 for none */
    int32_t lower, higher;  /* of the free ones of its class, by size, then address */
} Block;
#define IS_FREE 1
#define IS_MAPPED 2
#define IS_LARGE 4 /* of the large pool */

/* What is read of few blocks. */
typedef struct {
    int32_t earlier, later; /* of a segment's first block: of the segments before and after it */
    int32_t segment;        /* which the allocator does not ask; what is cut off has the same */
} Beside;

static inline int is_free(const Block *b) { return (int)(b->place & IS_FREE); }
static inline int is_mapped(const Block *b) { return (int)(b->place & IS_MAPPED); }
static inline int pool_of(const Block *b) { return (b->place & IS_LARGE) != 0; }
static inline int64_t address_of(const Block *b) { return b->place & -ROUND; }
/* While a block is used: whom it is for, which the allocator does not ask. It is in no list then. */
static inline int32_t owner_of(const Block *b) { return b->lower; }
static inline void set_owner(Block *b, int32_t owner) { b->lower = owner; }

/* Sizes fall into classes, 64 to a doubling, so that the best fit is found by looking at bits. */
#define CLASS_WORDS 50

/* Two free blocks of a class: the lowest, and one near to where something was last: the next is
 * often near it, too. */
typedef struct {
    int32_t lowest, near;
} Found;

typedef struct {
    uint64_t used_words, used[CLASS_WORDS]; /* which words are not 0, which classes have a block */
    Found *found;                           /* of a class that is used */
    int32_t free_count;
    int32_t first_segment, last_segment; /* by address; -1 */
    int32_t *unmapped; /* by address */
    int32_t unmapped_count, unmapped_room;
    int64_t page, least_rest;
} Pool;

typedef struct {
    Pool pools[2]; /* small, large */
    Block *blocks; /* at the beginning of a line of the cache, in memory that begins before it */
    void *blocks_memory;
    Beside *beside;
    int32_t block_count, block_room;
    int32_t spare; /* blocks to be used again, chained through next */
    int is_expandable;
    int is_watched; /* a request that would be granted more than any before it is PAUSED */
    int64_t limit, next_address;
    int64_t allocated, reserved, peak_allocated, peak_reserved, granted, retries;
    int64_t small_allocated, small_reserved; /* of these what is in the small pool */
    int64_t outside; /* bytes of free segments that are not kept here, given back with the cache */
    int64_t asked; /* what was refused last */
} Allocator;

int allocator_begin(Allocator *a, int64_t limit, int is_expandable);
void allocator_end(Allocator *a);
int allocator_copy(Allocator *to, const Allocator *from, int64_t limit);
int allocator_malloc(Allocator *a, int64_t size, int32_t *block); /* DONE, REFUSED, PAUSED, FAILED */
int allocator_free(Allocator *a, int32_t block);
int allocator_empty_cache(Allocator *a);
int64_t largest_free(const Allocator *a, int which); /* block of a pool; 0 for none */
/* The requests that get as large a segment as one of so many bytes: above and up to these. */
void segment_span(int64_t size, int64_t *above, int64_t *most);
int64_t largest_part(const Allocator *a); /* of a segment that is not wholly free */
int32_t fitting(const Allocator *a, int64_t size); /* block that a request would get; -1 for none */
int allocator_large(Allocator *to, const Allocator *from, int64_t limit); /* the large pool alone */
/* Make `to` one that has the small pool of one and the large pool of the other, whose blocks go
 * behind those of the first by so many: `from_large` has no small ones. */
int allocator_graft(Allocator *to, const Allocator *from_small, const Allocator *from_large,
                    int64_t limit);

/* --------------------------------------------------------------- expressions (expressions.c) */

typedef struct {
    uint8_t kind;
    int32_t left, right;
    int64_t value;
} Node;

typedef struct {
    Node *nodes;
    int32_t count, room;
    char **names;
    int32_t name_count, name_room;
} Expressions;

void expressions_end(Expressions *e);
int32_t intern_name(Expressions *e, const char *text, size_t length); /* -1: no room */
int32_t parse_expression(Expressions *e, const char *text, size_t length); /* a node, -1: not read */
/* values[i] is the value of name i where known[i] is set */
int evaluate(const Expressions *e, int32_t node, const int64_t *values, const uint8_t *known,
             int64_t *result);
/* marks the names below a node */
void names_below(const Expressions *e, int32_t node, uint8_t *found);

/* ------------------------------------------------------------------------ a vector's room */

int grow_room(void **items, int32_t *room, int32_t wanted, size_t each);

static inline int make_room(void **items, int32_t *room, int32_t wanted, size_t each) {
    return wanted <= *room ? DONE : grow_room(items, room, wanted, each);
}

#endif
