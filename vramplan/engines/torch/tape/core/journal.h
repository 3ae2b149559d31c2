/* What a run asked for, written down, and tried again under limits (rehearsal.py). */
#ifndef VRAMPLAN_JOURNAL_H
#define VRAMPLAN_JOURNAL_H

#include "spans.h"
#include "tries.h"

#define GIVEN_BACK 0           /* of a request's size: what is alive under a number is freed */
#define EMPTY_CACHE INT64_MIN  /* of a request's size */
#define MOST_OPENINGS 64

/* A size below 0 is one of the journal's own sizes, the first of them -1. */
typedef struct {
    int64_t size;
    int32_t live; /* what the tensor is numbered, among those that are alive; -1: scratch, which is
                   * freed at once, and may be done without */
} Request;

typedef struct {
    int64_t request, granted;
} Growth;

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
    Spans run;     /* which of those sizes make the same run without a limit, of this scratch alone */
    Spans *search; /* and the same search of a limit, while there is one */
    int is_expandable, is_complete; /* nothing more is written down */
    State openings[MOST_OPENINGS]; /* of the run without a limit, by rising request */
    int32_t opening_count;
    int64_t apart; /* requests between two of them, at least */

    Tries tries;
} Journal;

int journal_begin(Journal *j, int is_expandable);
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
/* The last opening before the first request that a limit refuses, which is below the most granted. */
const State *opening_for(const Journal *j, int64_t limit);
/* Tries a limit: what it granted at most; which request it refused, and the bytes asked for then.
 * REFUSED where it does, DONE where the run completes. `keeps` what a try of a lower limit goes on
 * from. */
int journal_try(Journal *j, int64_t limit, int refused, int keeps, int64_t *granted, int64_t *at,
                int64_t *asked);

#endif
