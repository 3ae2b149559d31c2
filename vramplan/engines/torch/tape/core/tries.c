/* A run tried under one limit after another.
 *
 * Limits are mostly tried downwards, each a byte below what the one before was granted: such a try
 * goes another way only from the stretch on in which that was granted, and often comes back to where
 * the one before it stood at the same place. From there on it is that one again, as far as its limit
 * allows. Two states are the same if they cannot be told apart by what is asked of them: blocks of
 * the same sizes in segments of the same order, held for the same tensors (`signature` in
 * allocator.py).
 */

#include "tries.h"

#include <stdlib.h>
#include <string.h>

#ifndef MOST_CHECKPOINTS
#define MOST_CHECKPOINTS 96
#endif

/* -------------------------------------------------------------------------------------- states */

int keep(State *state, const Allocator *a, const int32_t *held, int32_t held_count,
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

void end_state(State *state) {
    allocator_end(&state->allocator);
    free(state->held);
    free(state->chosen);
    line_end(&state->line);
}

int copy_state(State *to, const State *from, int32_t held, int64_t limit, int32_t sizes) {
    TRY(keep(to, &from->allocator, from->held, held, from->request, limit));
    TRY(line_copy(&to->line, &from->line));
    return keep_chosen(to, from, sizes);
}

int is_same_pool(const Allocator *one, const Allocator *other, int which, const int32_t *its,
                 const int32_t *others) {
    if (one->pools[which].free_count != other->pools[which].free_count) return 0;
    int32_t x = one->pools[which].first_segment, y = other->pools[which].first_segment;
    while (x >= 0 && y >= 0) {
        int32_t b = x, c = y;
        while (b >= 0 && c >= 0) {
            const Block *p = &one->blocks[b], *q = &other->blocks[c];
            if (p->size != q->size || (p->place ^ q->place) & (IS_FREE | IS_MAPPED))
                return 0;
            if (!is_free(p) && is_mapped(p)) {
                if (its == NULL ? owner_of(p) != owner_of(q)
                                : its[owner_of(p)] < 0 || its[owner_of(p)] != others[owner_of(q)])
                    return 0;
            }
            b = p->next;
            c = q->next;
        }
        if (b >= 0 || c >= 0) return 0;
        x = one->beside[x].later;
        y = other->beside[y].later;
    }
    return x < 0 && y < 0;
}

/* True where two states cannot be told apart by any requests. */
static int is_same(const State *first, const State *second) {
    const Allocator *one = &first->allocator, *other = &second->allocator;
    return one->reserved == other->reserved && one->allocated == other->allocated &&
           !memcmp(first->chosen, second->chosen, (size_t)first->chosen_count) &&
           line_is_same(&first->line, &second->line) &&
           is_same_pool(one, other, 0, NULL, NULL) && is_same_pool(one, other, 1, NULL, NULL);
}

/* --------------------------------------------------------------------------------------- tries */

State *tries_begin(Tries *t, const Way *way, int64_t position, int64_t apart, int64_t before) {
    int64_t rest = way->end - position, interval = rest / MOST_CHECKPOINTS + 1;
    if (interval < apart) interval = apart;
    if (!apart || interval > rest) interval = rest;
    int64_t count = interval > 0 ? (rest + interval - 1) / interval : 1;
    if (count > t->room) {
        State *more = realloc(t->checkpoints, (size_t)count * sizeof(State));
        if (more == NULL) return NULL;
        memset(more + t->room, 0, (size_t)(count - t->room) * sizeof(State));
        t->checkpoints = more;
        t->room = (int32_t)count;
    }
    t->count = (int32_t)count;
    t->known = t->is_complete = 0;
    t->tried_before = before;
    for (int32_t i = 0; i < t->count; i++) {
        t->checkpoints[i].request = position + interval * i;
        t->checkpoints[i].is_left_out = 0;
    }
    return &t->checkpoints[0];
}

/* The last checkpoint up to one at which it is known how the try stood. */
static int32_t known_before(const Tries *t, int32_t checkpoint) {
    while (t->checkpoints[checkpoint].is_left_out) checkpoint--; /* the first is not */
    return checkpoint;
}

int32_t tries_resume(const Tries *t, int64_t limit, int refused) {
    if (!t->known || limit > t->tried_limit || refused != t->tried_refused ||
        t->tried_before > limit)
        return -1;
    int32_t from = 0;
    while (from < t->known - 1 && t->checkpoints[from].granted <= limit) from++;
    if (t->is_complete && from == t->count - 1 && t->checkpoints[from].granted <= limit)
        return t->count;
    return known_before(t, from);
}

/* What was granted at most before a checkpoint. */
static int64_t most_before(const Tries *t, int32_t checkpoint) {
    int64_t most = t->tried_before;
    for (int32_t i = 0; i < checkpoint; i++)
        if (t->checkpoints[i].granted > most) most = t->checkpoints[i].granted;
    return most;
}

/* Leave out the checkpoints that a try has gone past; return the last of them. What may have been
 * granted behind each is what was in the iterations that stand for those there. */
static int32_t leave_out(Tries *t, int32_t checkpoint, int64_t *granted) {
    *granted = 0;
    for (int32_t i = checkpoint; i >= 0; i--) {
        if (t->checkpoints[i].granted > *granted) *granted = t->checkpoints[i].granted;
        if (t->checkpoints[i].request <= t->repeated) break;
    }
    while (checkpoint + 1 < t->count && t->checkpoints[checkpoint + 1].request < t->now.request) {
        State *one = &t->checkpoints[++checkpoint];
        one->granted = *granted;
        one->is_left_out = 1;
    }
    return checkpoint;
}

/* Go through all that is behind a checkpoint; where it stops, `reached` is the checkpoint before. */
static int go_on(Tries *t, const Way *way, int32_t from, int64_t limit, int refused,
                 int32_t *reached) {
    State *now = &t->now;
    int32_t known = t->known;
    int64_t granted = 0;
    *reached = from;
    t->kept_count = 0;
    TRY(make_room((void **)&now->held, &now->held_room, way->lives + 1, sizeof(int32_t)));
    memset(now->held, 0xff, ((size_t)way->lives + 1) * sizeof(int32_t));
    State *start = &t->checkpoints[from];
    TRY(copy_state(now, start, start->held_count, limit, way->sizes));
    for (int32_t i = from; i < t->count; i++) {
        int is_last = i + 1 == t->count;
        State *here = &t->checkpoints[i], *next = here + 1;
        *reached = i;
        now->allocator.granted = granted;
        TRY(way->advance(way->of, now, is_last ? way->end : next->request, refused));
        here->granted = now->allocator.granted;
        if (!is_last && now->request > next->request) {
            i = leave_out(t, i, &granted) - 1; /* and on from there to the next */
            continue;
        }
        granted = 0;
        if (is_last) {
            known = t->count;
            t->is_complete = 1;
            break;
        }
        if (i + 1 >= known || next->is_left_out || !is_same(now, next)) {
            TRY(copy_state(next, now, way->lives, limit, way->sizes));
            next->is_left_out = 0;
            continue;
        }
        /* from here on it is the try before this one, up to what this limit refuses */
        int32_t k = i + 1;
        while (k < known - 1 && t->checkpoints[k].granted <= limit) k++;
        if (t->is_complete && k == t->count - 1 && t->checkpoints[k].granted <= limit) break;
        k = known_before(t, k);
        t->kept_count = 0;
        start = &t->checkpoints[k];
        TRY(copy_state(now, start, start->held_count, limit, way->sizes));
        i = k - 1;
    }
    t->known = known;
    return DONE;
}

int tries_go(Tries *t, const Way *way, int32_t from, int64_t limit, int refused,
             int64_t *granted) {
    int status = DONE;
    if (!t->known) t->known = 1; /* where it starts */
    if (from < t->count) {
        int32_t reached;
        status = go_on(t, way, from, limit, refused, &reached);
        if (status) {
            *granted = most_before(t, reached);
            if (t->now.allocator.granted > *granted) *granted = t->now.allocator.granted;
            t->known = reached + 1;
            t->is_complete = 0;
        }
    }
    if (status == DONE) *granted = most_before(t, t->count);
    t->tried_limit = limit;
    t->tried_refused = refused;
    return status;
}

void tries_end(Tries *t) {
    for (int32_t i = 0; i < t->room; i++) end_state(&t->checkpoints[i]);
    free(t->checkpoints);
    end_state(&t->now);
    for (int32_t i = 0; i < KEPT; i++) end_state(&t->kept[i]);
    memset(t, 0, sizeof *t);
}
