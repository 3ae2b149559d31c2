/* A run tried under one limit after another: what a try keeps for the next. */
#ifndef VRAMPLAN_TRIES_H
#define VRAMPLAN_TRIES_H

#include "line.h"

/* How it stood before something that is asked; what is alive has its block under its number. */
typedef struct State {
    int64_t request, granted; /* the most that was granted until the next one */
    Allocator allocator;
    int32_t *held;
    int32_t held_count, held_room;
    uint8_t *chosen; /* by size: which plan is in use, since those before it were refused */
    int32_t chosen_count, chosen_room; /* sizes behind these have their first */
    Line line;                 /* where the small pool is not kept, or not by itself */
    uint8_t is_left_out;       /* the last try did not come by here: it went on behind a loop */
    const struct State *small; /* where its small pool is, if it has only the large one */
} State;

int keep(State *state, const Allocator *a, const int32_t *held, int32_t held_count,
         int64_t request, int64_t limit);
/* Give a state no more than `from` has chosen of so many sizes; nothing where `from` is NULL. */
int keep_chosen(State *state, const State *from, int32_t count);
/* Make a state another one, with so much that may be alive and so many sizes, under a limit. */
int copy_state(State *to, const State *from, int32_t held, int64_t limit, int32_t sizes);
void end_state(State *state);
/* True where a pool's states cannot be told apart by any requests, with what is alive under names of
 * its own in each, or under its numbers where those are NULL. */
int is_same_pool(const Allocator *one, const Allocator *other, int which, const int32_t *its,
                 const int32_t *others);

/* What a try goes through, from a position up to the end. */
typedef struct {
    void *of;
    /* up to a position, which is where the state stands then, or behind it where it has gone on
     * behind a loop; what stopped it, if anything did */
    int (*advance)(void *of, State *now, int64_t end, int refused);
    int64_t end;
    int32_t lives, sizes;
} Way;

#define KEPT 2 /* places of a loop */

typedef struct {
    State *checkpoints; /* of the last try, at positions that rise */
    int32_t count, room;
    int32_t known; /* so many stand as it went; behind all but the last of them, what was granted */
    int is_complete; /* and behind the last one, too */
    int64_t tried_limit, tried_before; /* its limit; what was granted before the first */
    int tried_refused;                 /* what was done about refused scratch */
    State now;                         /* of the try that is on */
    State kept[KEPT]; /* how it stood where the loop's latest iterations began, the latest first */
    int32_t kept_count;
    int64_t repeated; /* where those begin that stand for the ones that were left out last */
} Tries;

/* Make room for a try that starts at a position, with checkpoints that far apart at least, and not
 * at all where that is 0; return where it starts, to be filled in. NULL without memory. */
State *tries_begin(Tries *t, const Way *way, int64_t position, int64_t apart, int64_t before);
/* The checkpoint to go on from under a limit, if the last try leads there; -1 where it does not. */
int32_t tries_resume(const Tries *t, int64_t limit, int refused);
/* Go on from a checkpoint. What was granted at most is known where it is DONE or REFUSED. */
int tries_go(Tries *t, const Way *way, int32_t from, int64_t limit, int refused, int64_t *granted);
void tries_end(Tries *t);

#endif
