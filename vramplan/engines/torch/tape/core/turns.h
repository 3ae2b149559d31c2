/* Loops whose iterations ask for the same: what a try needs to know that it has come back. */
#ifndef VRAMPLAN_TURNS_H
#define VRAMPLAN_TURNS_H

#include "tries.h"

/* An event as a try needs it: in the large pool bytes for a tensor that is numbered so, or its
 * return; one of the journal's sizes, for a tensor; scratch, of which size, and the largest free
 * block of small segments that are partly in use; of the small pool's segments one in use and one
 * wholly free, or two in order; or the cache given back. */
enum { ASKS, RETURNS, OWN, BORROWS, OPENS, CLOSES, ORDERS, EMPTIES };
typedef struct {
    int64_t of;
    int32_t live, kind;
} Step;

/* The last iterations of a loop, which ask for the same in the same order. What is alive where one
 * begins has another number than what was in its place an iteration ago; how each is numbered where
 * the loop ends tells that they are the same. */
typedef struct {
    int64_t *at; /* steps at which they begin, and the one behind the last */
    int32_t count; /* of those */
    int32_t lives, segments;
    int32_t *names; /* by place, then by number of a tensor and of a segment; -1: nothing is there */
} Turns;

typedef struct {
    Turns *loops;
    int32_t count, room;
} AllTurns;

/* Add a loop of a run's steps, of which so many iterations begin at these and end at the last. */
int turns_add(AllTurns *all, const Step *steps, const int64_t *at, int32_t iterations,
              int32_t lives, int32_t segments);
void turns_end(AllTurns *all);
/* The first of all places from a step on, in `loop` the number `which`; INT64_MAX where none is. */
int64_t next_turn(const AllTurns *all, int64_t step, const Turns **loop, int32_t *which);
/* Go on behind the loop where a try stands as it did an iteration ago, or two; else keep how. */
int turn(Tries *t, State *now, const Turns *loop, int32_t which);

#endif
