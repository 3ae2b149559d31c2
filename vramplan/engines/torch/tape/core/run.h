/* A run of a program, as far as it has gone: what replay.c and sibling.c share. */
#ifndef VRAMPLAN_RUN_H
#define VRAMPLAN_RUN_H

#include <time.h>

#include "journal.h"
#include "program.h"
#include "turns.h"

#define MOST_OPERANDS 15
#define MOST_WIDTHS 4
#define MOST_PERCENT 10000
#define TOO_LONG 2

enum { OFFLOAD_NONE, OFFLOAD_MODEL, OFFLOAD_SEQUENTIAL };

/* A tensor: its number among those alive, and how many had that number before; -1: of no bytes. */
typedef struct {
    int32_t live, turn;
} Slot;

typedef struct Frame Frame;

typedef struct {
    Frame **frames;
    int32_t count, room;
} Iterations;

struct Frame {
    Frame *parent, *chained; /* every frame there is, for the end */
    Frame *spare;
    int32_t loop, number;
    Slot *slots;
    int32_t slot_count, slot_room;
    Iterations *loops;
    int32_t loop_count, loop_room;
};

typedef struct {
    int64_t *given; /* what sizes are evaluated from, before definitions: by name */
    uint8_t *is_given;
    int64_t *values;
    uint8_t *known;
    int64_t *sizes;
} Dimensions;

typedef struct {
    Slot *slots;
    int32_t count, room;
    uint8_t is_there;
} Held;

typedef struct {
    int32_t phase, component;
    int64_t allocated_peak, reserved_peak, allocated, reserved, weights;
} Mark;

typedef struct {
    int64_t request;
    int32_t phase, component;
} Place;

typedef struct {
    int64_t width, operands[MOST_OPERANDS];
    int32_t kind, count, size; /* count 0: nothing here; which of the journal's sizes */
} Asked;

/* What a run did that a sibling, with other scratch, has to do itself or to know, and so has a try
 * under a limit: everything about the large pool, and of the small one what `line.h` has. */
enum { LARGE, SIZED, GROWN, EMPTIED, TAKEN, RETURNED, ORDERED, MARKED, LOOPING, ITERATING, ITERATED };
typedef struct {
    int32_t kind, request;
    int64_t peak, now; /* allocated in the small pool: at most since the event before, and then */
    int64_t part;      /* SIZED: the largest free block of small segments that are partly in use */
    /* GROWN: the new segment of the small pool, WHOLE if it was for scratch; TAKEN: one that was
     * wholly free, and RETURNED: that is so again; ORDERED: two, the first of which has to come
     * first; SIZED: the small pool's largest free block, -1 - it where that did not do; EMPTIED:
     * bytes given back by the small pool; ITERATED: was it the last? */
    int64_t of;
} Event;

/* The small pool's segments that are in use, as they are told. */
typedef struct {
    Line line;
    int32_t count, room; /* of numbers, each of which one segment has at a time */
    int32_t *unused, *births; /* numbers to be used again; by number, which segment that was */
    int32_t unused_count, unused_room, birth;
    int64_t *orders; /* pairs that were told to be ordered, by birth; a table with gaps of 0 */
    int32_t order_count, order_room;
} Segments;

/* How a loop goes: quiet for so many iterations, since it last reserved or peaked otherwise. */
typedef struct {
    int64_t quiet, last_reserved, last_peak;
    int32_t mark;
} Quiet;

/* What a library's scratch takes, from its operands: the number of plans, at most MOST_PLANS, and
 * the bytes of each; below 1 where that is not known. `width` is the element size that the component
 * was cast to, 0 where it was not. */
typedef int64_t (*ScratchModel)(int32_t kind, int64_t width, const int64_t *operands,
                                int64_t count, int64_t *plans);

/* What a try came to: the same under every limit from what it granted at most up to its own. */
typedef struct {
    int64_t low, high, found[4];
    int refused, status;
} Tried;

/* What a search for a limit came to, from a limit and for all scratch within its bounds. */
typedef struct {
    int64_t limit, found[5];
    int refused, status;
    int is_top; /* the limit refuses nothing, and is the least that does not */
    Bounds bounds;
} Searched;

typedef struct {
    Program *program;
    int64_t *numbers; /* the settings: name, value */
    int64_t number_count;
    ScratchModel scratch; /* NULL: it is percents of the first three operands */
    int64_t percents[MOST_WIDTHS][4]; /* for an element size, 0 for any: of each operand */
    int32_t percents_count;
    int64_t element, cublas;
    int offload, has_warm_up, is_expandable;

    Allocator allocator;
    Journal journal;
    int32_t *blocks, *turns; /* by live number */
    int32_t blocks_room, turns_room;
    int32_t *unused;
    int32_t unused_count, unused_room;
    Mark *marks;
    int32_t mark_count, mark_room;
    Place *places;
    int32_t place_count, place_room;
    int64_t *weights; /* snapshots: a count, then component and bytes */
    int32_t weights_count, weights_room;
    int is_changed; /* the weights, since the last snapshot */
    int64_t snapshot;

    int32_t phase, component;
    Held *whole;
    Held **modules;
    int64_t *cast;
    int32_t *present; /* components as they came */
    int32_t present_count;
    int64_t *weight_bytes;
    int has_cublas[2]; /* the program's thread, and autograd's */
    Frame *frames, *spare_frames;
    Asked *asked;
    int32_t asked_room, asked_count;
    Asked *sized; /* what each of the journal's sizes was found from; the first is cuBLAS's */
    int32_t sized_room;
    Event *events;
    int32_t event_count, event_room;
    Step *steps; /* of the events that are not about marks and loops */
    int32_t *step_requests; /* whose they are */
    int32_t step_count;
    AllTurns loops; /* of the steps */
    Segments segments;
    int64_t small_peak;
    int is_told; /* are events written down? */
    int32_t cold_marks, cold_places; /* of the first run */
    const void *base; /* whose events it follows, if it is a sibling */
    int32_t joined;   /* the opening from which on it is its base; 0 for none */
    Tries tries; /* by steps */
    Tried *tried;
    int32_t tried_count, tried_room;
    Searched *searched; /* in this run and its siblings, which ask the one that they follow */
    int32_t searched_count, searched_next;
    int64_t spent, slots;
    int has_gone, until_clock;
    clock_t began;
    int depth;
} Run;

void begin_iteration(const Run *r, Quiet *q);
/* Whether a loop need not go on after the iteration that ends. */
int is_quiet(const Run *r, Quiet *q);
/* Note the steps of a run that has gone once. */
int note_steps(Run *r);
/* One more of the journal's own sizes. */
int add_size(Run *r, const Plans *plans);
int add_one_size(Run *r, int64_t size);
EXPORT void vramplan_run_end(void *run);

#endif
