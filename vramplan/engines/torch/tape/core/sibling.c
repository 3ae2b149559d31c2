/* What is known of a run from another, and tries by what happens in the large pool alone.
 *
 * Runs that only differ in the scratch that libraries take ask for the same else, in the same order.
 * The two pools of the allocator know nothing of each other but what is reserved in all. So where
 * scratch leaves the small pool as it is, everything there happens in both runs alike, and only the
 * large one has to be gone through again: half of a diffusion model's requests, a twentieth of a
 * language model's. Where no scratch is another any more and the large pool looks as it did in the
 * other run, the rest is that run. The same is true of a run under a limit, until something of the
 * small pool is given back.
 */

#include <stdlib.h>
#include <string.h>

#include "run.h"

/* ------------------------------------------------------------------------------- siblings */

#define NESTED 16

typedef struct {
    const Run *base;
    int64_t total_peak; /* allocated in both pools, since the last mark */
    int32_t opening, joined;
    int32_t alike; /* the event from which on no scratch is another */
    Quiet loops[NESTED];
    int loop_count;
} Following;

static void see_peak(Following *f, int64_t allocated) {
    if (allocated > f->total_peak) f->total_peak = allocated;
}

/* Note that a sibling was granted more than ever, if it was. */
static int see_growth(Run *r, int64_t granted, int32_t request) {
    Journal *j = &r->journal;
    if (r->allocator.granted <= granted) return DONE;
    TRY(make_room((void **)&j->growths, &j->growth_room, j->growth_count + 1, sizeof(Growth)));
    j->growths[j->growth_count].request = request;
    j->growths[j->growth_count++].granted = r->allocator.granted;
    return DONE;
}

static int obtain_large(Run *r, Following *f, const Event *e, int64_t size, int32_t *block) {
    Allocator *a = &r->allocator;
    int64_t granted = a->granted;
    if (size <= SMALL || allocator_malloc(a, size, block)) return FAILED;
    see_peak(f, a->allocated + e->now);
    return see_growth(r, granted, e->request);
}

static int follow_sized(Run *r, Following *f, const Event *e) {
    const Request *request = &f->base->journal.requests[e->request];
    int64_t which = -1 - request->size, size = r->journal.sizes[which], block_size;
    int64_t based = f->base->journal.sizes[which];
    int32_t block;
    if (request->live >= 0) {
        if (based <= SMALL) return FAILED;
        TRY(obtain_large(r, f, e, size, &block));
        r->blocks[request->live] = block;
        r->allocator.blocks[block].owner = request->live;
        return DONE;
    }
    int has_grown = e->of < 0;
    block_size = (size + ROUND - 1) & -ROUND;
    if (has_grown && (size > SMALL || block_size != ((based + ROUND - 1) & -ROUND))) return FAILED;
    if (size > SMALL) {
        TRY(obtain_large(r, f, e, size, &block));
        return allocator_free(&r->allocator, block);
    }
    /* of a free block of the small pool nothing stays taken */
    if (!has_grown && block_size > e->of) return FAILED;
    see_peak(f, r->allocator.allocated + e->now + block_size);
    return DONE;
}

static int follow_event(Run *r, Following *f, const Event *e) {
    Allocator *a = &r->allocator;
    int64_t granted = a->granted;
    see_peak(f, a->allocated + e->peak);
    switch (e->kind) {
    case LARGE: {
        const Request *request = &f->base->journal.requests[e->request];
        if (request->size == GIVEN_BACK) return allocator_free(a, r->blocks[request->live]);
        int32_t block;
        TRY(obtain_large(r, f, e, request->size, &block));
        r->blocks[request->live] = block;
        a->blocks[block].owner = request->live;
        return DONE;
    }
    case SIZED: return follow_sized(r, f, e);
    case SMALL_GROWTH:
        a->reserved += SMALL_SEGMENT;
        if (a->reserved > a->granted) a->granted = a->reserved;
        if (a->reserved > a->peak_reserved) a->peak_reserved = a->reserved;
        return see_growth(r, granted, e->request);
    case EMPTIED:
        TRY(allocator_empty_cache(a));
        a->reserved -= e->of;
        return DONE;
    case MARKED:
        if (e->of) {
            Mark *mark = &r->marks[r->mark_count++];
            mark->allocated_peak = f->total_peak;
            mark->reserved_peak = a->peak_reserved;
            mark->allocated = a->allocated + e->now;
            mark->reserved = a->reserved;
        }
        f->total_peak = a->allocated + e->now;
        a->peak_reserved = a->reserved;
        return DONE;
    case LOOPING:
        if (f->loop_count == NESTED) return FAILED;
        f->joined = 0; /* how it goes depends on what peaked before */
        memset(&f->loops[f->loop_count++], 0, sizeof(Quiet));
        return DONE;
    case ITERATING:
        begin_iteration(r, &f->loops[f->loop_count - 1]);
        return DONE;
    case ITERATED: {
        a->peak_allocated = f->total_peak;
        int ends = is_quiet(r, &f->loops[f->loop_count - 1]);
        if (e->of) f->loop_count--;
        /* another number of iterations is another run */
        return e->of == 2 ? (ends ? DONE : FAILED) : !e->of && ends ? FAILED : DONE;
    }
    default: return FAILED;
    }
}

/* The event behind the last one for which scratch is another than it was in the base. */
static int32_t alike_from(const Run *r, const Run *base) {
    for (int32_t i = base->event_count; i > 0; i--) {
        const Event *e = &base->events[i - 1];
        if (e->kind != SIZED) continue;
        int64_t which = -1 - base->journal.requests[e->request].size;
        if (memcmp(&r->journal.plans[which], &base->journal.plans[which], sizeof(Plans))) return i;
    }
    return 0;
}

/* Whether everything goes on as it did in the base from one of its openings on. */
static int has_joined(const Run *r, const Following *f, const State *base) {
    const Allocator *a = &r->allocator, *b = &base->allocator;
    return !f->loop_count && a->reserved == b->reserved && a->granted == b->granted &&
           is_same_pool(a, b, 1);
}

/* Take over what the base is granted from a request on: until then it was granted as much. */
static int join(Run *r, const Run *base, int32_t opening, int32_t request) {
    Journal *j = &r->journal;
    const Journal *other = &base->journal;
    for (int32_t i = 0; i < other->growth_count; i++) {
        const Growth *one = &other->growths[i];
        if (one->request < request) continue;
        TRY(make_room((void **)&j->growths, &j->growth_room, j->growth_count + 1,
                      sizeof(Growth)));
        j->growths[j->growth_count++] = *one;
    }
    r->mark_count = base->cold_marks; /* which were copied */
    r->joined = opening;
    return DONE;
}

static int follow(Run *r, const Run *base) {
    Following f;
    memset(&f, 0, sizeof f);
    f.base = base;
    f.opening = 1;
    f.alike = alike_from(r, base);
    Journal *j = &r->journal;
    for (int32_t i = 0; i < base->event_count; i++) {
        const Event *e = &base->events[i];
        for (; f.opening < base->journal.opening_count; f.opening++) {
            const State *small = &base->journal.openings[f.opening];
            if (small->request > e->request) break;
            State *opening = &j->openings[f.opening];
            TRY(allocator_copy(&opening->allocator, &r->allocator, UNLIMITED));
            opening->request = small->request;
            opening->small = small;
            j->opening_count = f.opening + 1;
            if (!f.joined && i >= f.alike && has_joined(r, &f, small)) f.joined = f.opening;
        }
        TRY(follow_event(r, &f, e));
        if (f.joined && e->kind == MARKED) return join(r, base, f.joined, e->request);
    }
    return r->mark_count == base->cold_marks ? DONE : FAILED;
}

static void *copied(const void *items, int32_t count, size_t each) {
    void *copy = malloc(((size_t)count + 1) * each);
    if (copy != NULL && count) memcpy(copy, items, (size_t)count * each);
    return copy;
}

/* The run of a program that has gone once, with other scratch: what is the same is taken from it,
 * and it outlives this one. NULL where it may differ in more, and has to be run. */
EXPORT void *vramplan_sibling(const void *run, ScratchModel model, const int64_t *percents,
                              int64_t widths, int64_t cublas) {
    const Run *base = run;
    if (!base->is_told || !base->cold_marks || widths < 0 || widths > MOST_WIDTHS) return NULL;
    if (!widths && model == NULL) return NULL;
    for (int64_t i = 0; i < 4 * widths; i++)
        if (percents[i] < 0 || percents[i] > MOST_PERCENT) return NULL;
    Run *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->program = base->program;
    __atomic_add_fetch(&r->program->holders, 1, __ATOMIC_RELAXED);
    r->base = base;
    if (widths) memcpy(r->percents, percents, (size_t)widths * 4 * sizeof(int64_t));
    r->percents_count = (int32_t)widths;
    Journal *j = &r->journal;
    int status = allocator_begin(&r->allocator, UNLIMITED, 0) || journal_begin(j, 0) ||
                 add_one_size(r, cublas);
    j->requests = base->journal.requests;
    j->is_borrowed = 1;
    j->count = base->journal.count;
    j->live_count = base->journal.live_count;
    for (int32_t i = 1; i < base->journal.size_count && !status; i++) {
        const Asked *one = &base->sized[i];
        Plans found;
        status = find_plans(r, widths ? NULL : model, one->kind, one->width, one->operands,
                            one->count, &found) ||
                 add_size(r, &found);
    }
    r->blocks = malloc(((size_t)j->live_count + 1) * sizeof(int32_t));
    r->marks = copied(base->marks, base->cold_marks, sizeof(Mark));
    r->places = copied(base->places, base->cold_places, sizeof(Place));
    r->weights = copied(base->weights, base->weights_count, sizeof(int64_t));
    r->place_count = base->cold_places;
    r->weights_count = base->weights_count;
    if (status || !r->blocks || !r->marks || !r->places || !r->weights || follow(r, base)) {
        vramplan_run_end(r);
        return NULL;
    }
    return r;
}

/* ------------------------------------------------------------------------------------ tries */

enum { TANGLED = 4, AS_BASE = 5 };

/* Where it stood at an opening, of the large pool alone. */
static int begin_trying(Run *r, const State *from, int64_t limit) {
    State *now = &r->trying;
    int32_t lives = r->journal.live_count + 1;
    TRY(make_room((void **)&now->held, &now->held_room, lives, sizeof(int32_t)));
    now->request = from->request;
    TRY(keep_chosen(now, NULL, r->journal.size_count));
    TRY(allocator_large(&now->allocator, &from->allocator, limit));
    const Block *blocks = now->allocator.blocks;
    for (int32_t s = now->allocator.pools[1].first_segment; s >= 0; s = blocks[s].later)
        for (int32_t b = s; b >= 0; b = blocks[b].next)
            if (!blocks[b].is_free) now->held[blocks[b].owner] = b;
    return DONE;
}

/* Scratch under a limit, by the plan in use or the first after it that is not refused. */
static int try_scratch(Run *r, const Event *e, int32_t which, int refused) {
    Allocator *a = &r->trying.allocator;
    const Plans *plans = &r->journal.plans[which];
    uint8_t *chosen = &r->trying.chosen[which];
    int32_t at = *chosen, block;
    for (; at < plans->count; at++) {
        int64_t size = plans->size[at], retries = a->retries;
        if (size <= SMALL) { /* of the small pool, or nothing */
            if (at && size) return TANGLED;
            *chosen = (uint8_t)at;
            return DONE;
        }
        int status = allocator_malloc(a, size, &block);
        if (a->retries != retries && e->whole) return TANGLED;
        if (status == REFUSED && refused != FAILS) continue;
        if (status) return status;
        *chosen = (uint8_t)at;
        return allocator_free(a, block);
    }
    if (refused != WITHOUT) return REFUSED;
    *chosen = (uint8_t)at;
    return DONE;
}

/* The large pool's part of an event under a limit; TANGLED where the small one's changes with it. */
static int try_event(Run *r, const Event *e, const Request *request, int refused) {
    Allocator *a = &r->trying.allocator;
    int32_t *held = r->trying.held, block;
    int64_t size = request->size, retries = a->retries;
    if (e->kind == EMPTIED) {
        TRY(allocator_empty_cache(a));
        a->reserved -= e->of;
        return DONE;
    }
    if (e->kind == SMALL_GROWTH) {
        if (a->reserved + SMALL_SEGMENT > a->limit) {
            if (e->whole) return TANGLED;
            TRY(allocator_empty_cache(a));
            if (a->reserved + SMALL_SEGMENT > a->limit) {
                if (refused != FAILS && request->live < 0) return TANGLED; /* by another plan */
                a->asked = SMALL_SEGMENT;
                return REFUSED;
            }
        }
        a->reserved += SMALL_SEGMENT;
        if (a->reserved > a->granted) a->granted = a->reserved;
        return DONE;
    }
    if (size == GIVEN_BACK) return allocator_free(a, held[request->live]);
    if (request->live < 0) return try_scratch(r, e, (int32_t)(-1 - size), refused);
    if (size < 0) size = r->journal.sizes[-1 - size];
    if (size <= SMALL) return DONE; /* of the small pool, or nothing */
    int status = allocator_malloc(a, size, &block);
    if (a->retries != retries && e->whole) return TANGLED;
    if (status) return status;
    held[request->live] = block;
    a->blocks[block].owner = request->live;
    return DONE;
}

/* Try a limit by the large pool's events alone: as long as nothing of the small pool is given back
 * it goes as it did without a limit. TANGLED where something is, or that cannot be told. */
static int try_large(Run *r, int64_t limit, int refused, int64_t *granted, int64_t *at,
                     int64_t *asked) {
    const Run *told = r->base != NULL ? r->base : r;
    Journal *j = &r->journal;
    *granted = most_granted(j);
    if (limit >= *granted || !j->growth_count) return DONE;
    if (!told->is_told || r->is_tangled) return TANGLED;
    const State *from = opening_for(j, limit);
    TRY(begin_trying(r, from, limit));
    int32_t low = 0, high = told->event_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (told->events[middle].request < from->request) low = middle + 1;
        else high = middle;
    }
    Allocator *a = &r->trying.allocator;
    for (int32_t i = low; i < told->event_count; i++) {
        const Event *e = &told->events[i];
        if (e->kind >= MARKED) continue;
        int status = try_event(r, e, &j->requests[e->request], refused);
        if (status) {
            r->is_tangled = status == TANGLED;
            *granted = a->granted;
            *at = e->request;
            *asked = a->asked;
            return status;
        }
    }
    *granted = a->granted;
    return DONE;
}

/* Try a limit. found: what it granted at most; the phase, the component and the bytes asked for
 * where it fails. REFUSED where it does, DONE where the run completes; AS_BASE where the try is its
 * base's, which is to be asked. */
EXPORT int vramplan_attempt(void *run, int64_t limit, int refused, int64_t *found) {
    Run *r = run;
    int64_t at = 0;
    if (refused < FAILS || refused > WITHOUT) return FAILED;
    if (r->joined && limit < most_granted(&r->journal) &&
        opening_for(&r->journal, limit) >= &r->journal.openings[r->joined])
        return AS_BASE;
    int status = try_large(r, limit, refused, &found[0], &at, &found[3]);
    if (status == TANGLED)
        status = journal_try(&r->journal, limit, refused, &found[0], &at, &found[3]);
    if (status == REFUSED) {
        int32_t low = 0, high = r->place_count;
        while (low < high) {
            int32_t middle = low + (high - low) / 2;
            if (r->places[middle].request <= at) low = middle + 1;
            else high = middle;
        }
        if (!low) return FAILED;
        found[1] = r->places[low - 1].phase;
        found[2] = r->places[low - 1].component;
    }
    return status;
}
