/* A run's requests, tried again under limits (rehearsal.py).
 *
 * Up to the first request that a limit refuses, the run under it is the run without one, so a try
 * starts from an opening of that run.
 */

#include <stdlib.h>
#include <string.h>

#include "journal.h"

/* requests between two openings, and between two checkpoints, at least; tools.core_fuzz has a build
 * with fewer, so that short runs have them too */
#ifndef APART
#define APART 2000
#endif
#ifndef LEAST_INTERVAL
#define LEAST_INTERVAL 1024
#endif

int journal_begin(Journal *j, int is_expandable) {
    memset(j, 0, sizeof *j);
    j->is_expandable = is_expandable;
    j->apart = APART;
    j->opening_count = 1;
    return allocator_begin(&j->openings[0].allocator, UNLIMITED, is_expandable);
}

void journal_end(Journal *j) {
    for (int32_t i = 0; i < MOST_OPENINGS; i++) end_state(&j->openings[i]);
    tries_end(&j->tries);
    spans_end(&j->run);
    if (!j->is_borrowed) free(j->requests);
    free(j->sizes);
    free(j->plans);
    free(j->growths);
    memset(j, 0, sizeof *j);
}

/* ------------------------------------------------------------------------------ writing down */

int note_growth(Journal *j, int64_t granted) {
    TRY(make_room((void **)&j->growths, &j->growth_room, j->growth_count + 1, sizeof(Growth)));
    j->growths[j->growth_count].request = j->count;
    j->growths[j->growth_count++].granted = granted;
    return DONE;
}

int is_opening_due(const Journal *j) {
    return j->count >= j->openings[j->opening_count - 1].request + j->apart;
}

int note_opening(Journal *j, const Allocator *a, const int32_t *blocks) {
    if (j->opening_count == MOST_OPENINGS) { /* every second one goes; the first stays */
        for (int32_t i = 1; 2 * i < MOST_OPENINGS; i++) {
            State kept = j->openings[2 * i];
            j->openings[2 * i] = j->openings[i];
            j->openings[i] = kept;
        }
        j->opening_count = MOST_OPENINGS / 2;
        j->apart *= 2;
        if (!is_opening_due(j)) return DONE;
    }
    State *one = &j->openings[j->opening_count];
    TRY(keep(one, a, blocks, j->live_count, j->count, UNLIMITED));
    j->opening_count++;
    return DONE;
}

int64_t most_granted(const Journal *j) {
    return j->growth_count ? j->growths[j->growth_count - 1].granted : 0;
}

/* -------------------------------------------------------------------------------------- tries */

/* Take scratch by the plan in use, or by the first after it that is not refused. */
static int take_plan(const Journal *j, State *now, int32_t which, int refused) {
    const Plans *plans = &j->plans[which];
    int32_t at = now->chosen[which];
    for (; at < plans->count; at++) {
        int status = lend(&now->allocator, j->search, which, at, plans->size[at],
                          largest_free(&now->allocator, 0));
        if (status == REFUSED && refused != FAILS) continue;
        if (status == REFUSED) narrow_to_refusal(j->search, which, at, plans->size[at]);
        if (status) return status;
        now->chosen[which] = (uint8_t)at;
        return DONE;
    }
    narrow_to_last(j->search, which, plans, refused);
    if (refused != WITHOUT) return REFUSED;
    now->chosen[which] = (uint8_t)at;
    return DONE;
}

/* Ask again up to a request; REFUSED where one is refused, at now->request. */
static int advance(void *of, State *now, int64_t end, int refused) {
    const Journal *j = of;
    Allocator *a = &now->allocator;
    int32_t *held = now->held;
    for (int64_t at = now->request; at < end; at++) {
        int64_t size = j->requests[at].size;
        int32_t live = j->requests[at].live, block;
        if (size == GIVEN_BACK) {
            TRY(allocator_free(a, held[live]));
            continue;
        }
        if (size == EMPTY_CACHE) {
            TRY(allocator_empty_cache(a));
            continue;
        }
        int status;
        if (live < 0) {
            status = take_plan(j, now, (int32_t)(-1 - size), refused);
        } else {
            if (size < 0) {
                int32_t which = (int32_t)(-1 - size);
                size = j->sizes[which];
                narrow(j->search, which, 0, size - 1, size);
            }
            if (size == 0) continue;
            status = allocator_malloc(a, size, &block);
        }
        if (status) {
            now->request = at;
            return status;
        }
        if (live >= 0) {
            held[live] = block;
            set_owner(&a->blocks[block], live);
        }
    }
    now->request = end;
    return DONE;
}

/* The first growth that a limit refuses; there is one. */
static int64_t first_refused(const Journal *j, int64_t limit) {
    int32_t low = 0, high = j->growth_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (j->growths[middle].granted > limit) high = middle;
        else low = middle + 1;
    }
    return j->growths[low].request;
}

static const State *opening_before(const Journal *j, int64_t request) {
    int32_t opening = j->opening_count - 1;
    while (opening > 0 && j->openings[opening].request > request) opening--;
    return &j->openings[opening];
}

const State *opening_for(const Journal *j, int64_t limit) {
    return opening_before(j, first_refused(j, limit));
}

/* Put a small pool beside the large one that is all that a state has. */
static int graft(State *to, const State *from, int64_t limit) {
    const State *small = from->small;
    TRY(make_room((void **)&to->held, &to->held_room, small->held_count + 1, sizeof(int32_t)));
    if (small->held_count)
        memcpy(to->held, small->held, (size_t)small->held_count * sizeof(int32_t));
    to->held_count = small->held_count;
    to->request = from->request;
    TRY(keep_chosen(to, NULL, 0));
    TRY(allocator_graft(&to->allocator, &small->allocator, &from->allocator, limit));
    const Block *blocks = to->allocator.blocks;
    for (int32_t s = to->allocator.pools[1].first_segment; s >= 0; s = to->allocator.beside[s].later)
        for (int32_t b = s; b >= 0; b = blocks[b].next)
            if (!is_free(&blocks[b])) to->held[owner_of(&blocks[b])] = b;
    return DONE;
}

/* Start from an opening. */
static int start_anew(Journal *j, const Way *way, int64_t first, int64_t limit, int keeps) {
    const State *from = opening_before(j, first);
    State *start = tries_begin(&j->tries, way, from->request, keeps ? LEAST_INTERVAL : 0,
                               from->allocator.granted);
    if (start == NULL) return FAILED;
    if (from->small != NULL) return graft(start, from, limit);
    TRY(keep_chosen(start, NULL, 0)); /* without a limit nothing is refused */
    return keep(start, &from->allocator, from->held, from->held_count, from->request, limit);
}

int journal_try(Journal *j, int64_t limit, int refused, int keeps, int64_t *granted, int64_t *at,
                int64_t *asked) {
    *granted = most_granted(j);
    if (limit >= *granted || !j->growth_count) return DONE;
    Way way = {j, advance, j->count, j->live_count, j->size_count};
    Tries *t = &j->tries;
    int32_t from = tries_resume(t, limit, refused);
    if (from < 0) {
        from = 0;
        TRY(start_anew(j, &way, first_refused(j, limit), limit, keeps));
    }
    int status = tries_go(t, &way, from, limit, refused, granted);
    if (status == REFUSED) {
        *at = t->now.request;
        *asked = t->now.allocator.asked;
    }
    return status;
}
