/* A run's requests, tried again under limits (rehearsal.py).
 *
 * Up to the first request that a limit refuses, the run under it is the run without one, so a try
 * starts from an opening of that run. Limits are mostly tried downwards, each a byte below what the
 * one before was granted: such a try goes another way only from the interval on in which that was
 * granted, and often comes back to where the one before it stood at the same request. From there on
 * it is that one again, as far as its limit allows. Two states are the same if they cannot be told
 * apart by what is asked of them: blocks of the same sizes in segments of the same order, held for
 * the same tensors (`signature` in allocator.py).
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
    j->tried_limit = INT64_MIN;
    j->opening_count = 1;
    return allocator_begin(&j->openings[0].allocator, UNLIMITED, is_expandable);
}

static void end_state(State *state) {
    allocator_end(&state->allocator);
    free(state->held);
    free(state->chosen);
}

void journal_end(Journal *j) {
    for (int32_t i = 0; i < MOST_OPENINGS; i++) end_state(&j->openings[i]);
    for (int32_t i = 0; i <= MOST_CHECKPOINTS; i++) end_state(&j->checkpoints[i]);
    end_state(&j->now);
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

static int keep(State *state, const Allocator *a, const int32_t *held, int32_t held_count,
                int64_t request, int64_t limit) {
    TRY(make_room((void **)&state->held, &state->held_room, held_count + 1, sizeof(int32_t)));
    if (held_count) memcpy(state->held, held, (size_t)held_count * sizeof(int32_t));
    state->held_count = held_count;
    state->request = request;
    return allocator_copy(&state->allocator, a, limit);
}

int keep_chosen(State *state, const State *from, int32_t count) {
    TRY(make_room((void **)&state->chosen, &state->chosen_room, count + 1, sizeof(uint8_t)));
    memset(state->chosen, 0, (size_t)count + 1);
    if (from != NULL && from->chosen != NULL)
        memcpy(state->chosen, from->chosen,
               (size_t)(from->chosen_count < count ? from->chosen_count : count));
    state->chosen_count = count;
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
    int32_t at = now->chosen[which], block;
    for (; at < plans->count; at++) {
        int status = plans->size[at] ? allocator_malloc(&now->allocator, plans->size[at], &block)
                                     : DONE;
        if (status == REFUSED && refused != FAILS) continue;
        if (status) return status;
        now->chosen[which] = (uint8_t)at;
        return plans->size[at] ? allocator_free(&now->allocator, block) : DONE;
    }
    if (refused != WITHOUT) return REFUSED;
    now->chosen[which] = (uint8_t)at;
    return DONE;
}

/* Ask again up to a request; REFUSED where one is refused, at now->request. */
static int advance(const Journal *j, State *now, int64_t end, int refused) {
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
            if (size < 0) size = j->sizes[-1 - size];
            if (size == 0) continue;
            status = allocator_malloc(a, size, &block);
        }
        if (status) {
            now->request = at;
            return status;
        }
        if (live >= 0) {
            held[live] = block;
            a->blocks[block].owner = live;
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

int is_same_pool(const Allocator *one, const Allocator *other, int which) {
    if (one->pools[which].free_count != other->pools[which].free_count) return 0;
    int32_t x = one->pools[which].first_segment, y = other->pools[which].first_segment;
    while (x >= 0 && y >= 0) {
        int32_t b = x, c = y;
        while (b >= 0 && c >= 0) {
            const Block *p = &one->blocks[b], *q = &other->blocks[c];
            if (p->size != q->size || p->is_free != q->is_free || p->is_mapped != q->is_mapped)
                return 0;
            if (!p->is_free && p->is_mapped && p->owner != q->owner) return 0;
            b = p->next;
            c = q->next;
        }
        if (b >= 0 || c >= 0) return 0;
        x = one->blocks[x].later;
        y = other->blocks[y].later;
    }
    return x < 0 && y < 0;
}

/* True where two states cannot be told apart by any requests. */
static int is_same(const State *first, const State *second) {
    const Allocator *one = &first->allocator, *other = &second->allocator;
    if (memcmp(first->chosen, second->chosen, (size_t)first->chosen_count) != 0) return 0;
    return one->reserved == other->reserved && one->allocated == other->allocated &&
           is_same_pool(one, other, 0) && is_same_pool(one, other, 1);
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
    for (int32_t s = to->allocator.pools[1].first_segment; s >= 0; s = blocks[s].later)
        for (int32_t b = s; b >= 0; b = blocks[b].next)
            if (!blocks[b].is_free) to->held[blocks[b].owner] = b;
    return DONE;
}

/* Start from an opening, with checkpoints over the rest that know nothing yet. */
static int start_anew(Journal *j, int64_t first, int64_t limit) {
    const State *from = opening_before(j, first);
    int64_t rest = j->count - from->request;
    int64_t interval = rest / MOST_CHECKPOINTS + 1;
    if (interval < LEAST_INTERVAL) interval = LEAST_INTERVAL;
    j->checkpoint_count = 0;
    for (int64_t at = from->request; at < j->count; at += interval)
        j->checkpoints[j->checkpoint_count++].request = at;
    j->tried_before = from->allocator.granted;
    if (from->small != NULL) return graft(&j->checkpoints[0], from, limit);
    TRY(keep_chosen(&j->checkpoints[0], NULL, 0)); /* without a limit nothing is refused */
    return keep(&j->checkpoints[0], &from->allocator, from->held, from->held_count, from->request,
                limit);
}

/* Go on from a checkpoint. `is_known`: what stands behind it is of a try that completed. */
static int go_on(Journal *j, int32_t from, int64_t limit, int refused, int is_known) {
    State *now = &j->now;
    const State *start = &j->checkpoints[from];
    TRY(make_room((void **)&now->held, &now->held_room, j->live_count + 1, sizeof(int32_t)));
    memset(now->held, 0xff, ((size_t)j->live_count + 1) * sizeof(int32_t));
    TRY(keep(now, &start->allocator, start->held, start->held_count, start->request, limit));
    TRY(keep_chosen(now, start, j->size_count));
    for (int32_t i = from; i < j->checkpoint_count; i++) {
        int is_last = i + 1 == j->checkpoint_count;
        State *here = &j->checkpoints[i], *next = &j->checkpoints[i + 1];
        now->allocator.granted = 0;
        TRY(advance(j, now, is_last ? j->count : next->request, refused));
        here->granted = now->allocator.granted;
        if (is_last) break;
        if (!is_known || !is_same(now, next)) {
            TRY(keep(next, &now->allocator, now->held, j->live_count, next->request, limit));
            TRY(keep_chosen(next, now, j->size_count));
            continue;
        }
        /* from here on it is the try before this one, up to what this limit refuses */
        int32_t k = i + 1;
        while (k < j->checkpoint_count && j->checkpoints[k].granted <= limit) k++;
        if (k == j->checkpoint_count) break;
        start = &j->checkpoints[k];
        TRY(keep(now, &start->allocator, start->held, start->held_count, start->request, limit));
        TRY(keep_chosen(now, start, j->size_count));
        i = k - 1;
    }
    return DONE;
}

/* What was granted at most in the intervals that end before a request, and before them. */
static int64_t most_up_to(const Journal *j, int64_t request) {
    int64_t most = j->tried_before;
    for (int32_t i = 0; i < j->checkpoint_count; i++) {
        int64_t end = i + 1 < j->checkpoint_count ? j->checkpoints[i + 1].request : j->count;
        if (end <= request && j->checkpoints[i].granted > most) most = j->checkpoints[i].granted;
    }
    return most;
}

int journal_try(Journal *j, int64_t limit, int refused, int64_t *granted, int64_t *at,
                int64_t *asked) {
    *granted = most_granted(j);
    if (limit >= *granted || !j->growth_count) return DONE;
    int64_t first = first_refused(j, limit);
    int is_known = limit <= j->tried_limit && refused == j->tried_refused &&
                   j->tried_before <= limit && first >= j->checkpoints[0].request;
    int32_t from = 0;
    if (is_known) {
        while (from < j->checkpoint_count && j->checkpoints[from].granted <= limit) from++;
    } else {
        TRY(start_anew(j, first, limit));
    }
    j->tried_limit = INT64_MIN; /* until this one has completed */
    if (from < j->checkpoint_count) {
        int status = go_on(j, from, limit, refused, is_known);
        if (status == REFUSED) {
            *at = j->now.request;
            *asked = j->now.allocator.asked;
            *granted = most_up_to(j, *at);
            if (j->now.allocator.granted > *granted) *granted = j->now.allocator.granted;
        }
        if (status) return status;
    }
    *granted = most_up_to(j, INT64_MAX);
    j->tried_limit = limit;
    j->tried_refused = refused;
    return DONE;
}
