/* What a run asked for, written down, and tried again under limits (rehearsal.py). */
#ifndef VRAMPLAN_JOURNAL_H
#define VRAMPLAN_JOURNAL_H

#include "core.h"

#define GIVEN_BACK 0           /* of a request's size: what is alive under a number is freed */
#define EMPTY_CACHE INT64_MIN  /* of a request's size */
#define MOST_OPENINGS 64
#define MOST_CHECKPOINTS 32
#define MOST_PLANS 8 /* of one library for one operator */

/* A size below 0 is one of the journal's own sizes, the first of them -1. */
typedef struct {
    int64_t size;
    int32_t live; /* what the tensor is numbered, among those that are alive; -1: scratch, which is
                   * freed at once, and may be done without */
} Request;

typedef struct {
    int64_t request, granted;
} Growth;

/* How it stood before a request; what is alive has its block under its number. */
typedef struct State {
    int64_t request, granted; /* the most that was granted until the next one */
    Allocator allocator;
    int32_t *held;
    int32_t held_count, held_room;
    uint8_t *chosen; /* by size: which plan is in use, since those before it were refused */
    int32_t chosen_count, chosen_room; /* sizes behind these have their first */
    const struct State *small; /* where its small pool is, if it has only the large one */
} State;

/* What a library would take for an operator, by plan, in the order in which they are tried. */
typedef struct {
    int64_t size[MOST_PLANS];
    int32_t count;
} Plans;

typedef struct {
    Request *requests;
    int32_t count, room;
    int is_borrowed; /* the requests are another journal's */
    int64_t *sizes;  /* that libraries take, and may differ between runs that are alike else */
    Plans *plans;    /* of each size, which is its first plan's */
    int32_t size_count, size_room, plans_room;
    int32_t live_count;
    Growth *growths; /* requests that were granted more than any before */
    int32_t growth_count, growth_room;
    int is_expandable, is_complete; /* nothing more is written down */
    State openings[MOST_OPENINGS]; /* of the run without a limit, by rising request */
    int32_t opening_count;
    int64_t apart; /* requests between two of them, at least */

    State checkpoints[MOST_CHECKPOINTS + 1]; /* of the last try that completed */
    int32_t checkpoint_count;
    int64_t tried_limit, tried_before; /* its limit, INT64_MIN for none; granted before the first */
    int tried_refused; /* what was done about refused scratch */
    State now; /* of the try that is on */
} Journal;

int journal_begin(Journal *j, int is_expandable);
/* Give a state no more than `from` has chosen of so many sizes; nothing where `from` is NULL. */
int keep_chosen(State *state, const State *from, int32_t count);
void journal_end(Journal *j);
static inline int note_request(Journal *j, int64_t size, int32_t live) {
    if (j->is_complete) return DONE;
    TRY(make_room((void **)&j->requests, &j->room, j->count + 1, sizeof(Request)));
    Request *one = &j->requests[j->count++];
    one->size = size;
    one->live = live;
    return DONE;
}

/* Keeps how it stands for tries to start from, where the last such place is far enough behind. */
int is_opening_due(const Journal *j);
int note_opening(Journal *j, const Allocator *a, const int32_t *blocks);
int note_growth(Journal *j, int64_t granted);
int64_t most_granted(const Journal *j);
/* True where a pool's states cannot be told apart by any requests. */
int is_same_pool(const Allocator *one, const Allocator *other, int which);
/* The last opening before the first request that a limit refuses, which is below the most granted. */
const State *opening_for(const Journal *j, int64_t limit);
/* Tries a limit: what it granted at most; which request it refused, and the bytes asked for then.
 * REFUSED where it does, DONE where the run completes. */
int journal_try(Journal *j, int64_t limit, int refused, int64_t *granted, int64_t *at,
                int64_t *asked);

#endif
