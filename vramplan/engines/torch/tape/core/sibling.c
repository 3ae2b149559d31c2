/* What is known of a run from another, and tries by what happens in the large pool alone.
 *
 * Runs that only differ in the scratch that libraries take ask for the same else, in the same order.
 * The two pools of the allocator know nothing of each other but what is reserved in all. So where
 * scratch leaves the small pool as it is, everything there happens in both runs alike, and only the
 * large one has to be gone through again: half of a diffusion model's requests, a twentieth of a
 * language model's. Where no scratch is another any more and the large pool looks as it did in the
 * other run, the rest is that run. The same is true of a run under a limit: of the small pool only
 * whole segments are given back, and they are counted (`line.h`).
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
    Spans *spans = &r->journal.run;
    if (f->base->journal.run.spans[which * MOST_PLANS].most == 0) { /* only nothing is the same */
        if (size) return FAILED;
        narrow(spans, (int32_t)which, 0, -1, 0);
    }
    if (request->live >= 0) {
        if (based <= SMALL) return FAILED;
        narrow(spans, (int32_t)which, 0, size - 1, size);
        TRY(obtain_large(r, f, e, size, &block));
        r->blocks[request->live] = block;
        set_owner(&r->allocator.blocks[block], request->live);
        return DONE;
    }
    int has_grown = e->of < 0;
    block_size = (size + ROUND - 1) & -ROUND;
    if (has_grown && (size > SMALL || block_size != ((based + ROUND - 1) & -ROUND))) return FAILED;
    int64_t small = has_grown ? -1 - e->of : e->of;
    if (size > SMALL) {
        if (fitting(&r->allocator, size) >= 0)
            narrow_to_room(spans, (int32_t)which, 0, small, &r->allocator);
        else
            narrow_to_segment(spans, (int32_t)which, 0, size, largest_free(&r->allocator, 1));
        TRY(obtain_large(r, f, e, size, &block));
        return allocator_free(&r->allocator, block);
    }
    /* of a free block of the small pool nothing stays taken */
    if (!has_grown && block_size > e->of) return FAILED;
    if (has_grown) narrow(spans, (int32_t)which, 0, block_size - ROUND, block_size);
    else narrow_to_room(spans, (int32_t)which, 0, small, &r->allocator);
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
        set_owner(&a->blocks[block], request->live);
        return DONE;
    }
    case SIZED: return follow_sized(r, f, e);
    case GROWN:
        a->reserved += SMALL_SEGMENT;
        if (a->reserved > a->granted) a->granted = a->reserved;
        if (a->reserved > a->peak_reserved) a->peak_reserved = a->reserved;
        return see_growth(r, granted, e->request);
    case EMPTIED:
        TRY(allocator_empty_cache(a));
        a->reserved -= e->of;
        return DONE;
    case TAKEN:
    case RETURNED:
    case ORDERED: return DONE; /* as in the base */
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
           is_same_pool(a, b, 1, NULL, NULL);
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
    /* scratch that is not the same is not asked for any more */
    for (int32_t i = 0; i < j->size_count; i++) {
        if (memcmp(&j->plans[i], &other->plans[i], sizeof(Plans))) continue;
        const Span *one = &other->run.spans[i * MOST_PLANS];
        narrow_as(&j->run, i, 0, one);
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
            int joins = !f.joined && i >= f.alike && has_joined(r, &f, small);
            /* a limit that acts before half of it all is there stops the run soon */
            if (!joins && small->allocator.granted < most_granted(&base->journal) / 2) continue;
            State *opening = &j->openings[j->opening_count];
            TRY(allocator_copy(&opening->allocator, &r->allocator, UNLIMITED));
            opening->request = small->request;
            opening->small = small;
            if (joins) f.joined = j->opening_count;
            j->opening_count++;
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

/* What the journal's sizes but the first, cuBLAS's, were found from: of each the kind of library, the
 * element size that its component was cast to, how many operands, and those. */
EXPORT void vramplan_asked(const void *run, int64_t *rows) {
    const Run *r = run;
    for (int32_t i = 1; i < r->journal.size_count; i++, rows += 3 + MOST_OPERANDS) {
        const Asked *one = &r->sized[i];
        rows[0] = one->kind;
        rows[1] = one->width;
        rows[2] = one->count;
        memcpy(rows + 3, one->operands, sizeof one->operands);
    }
}

/* Read a size as it is given: how many plans, and MOST_PLANS numbers of bytes. */
static int read_plans(const int64_t *words, Plans *plans) {
    memset(plans, 0, sizeof *plans);
    if (words[0] < 1 || words[0] > MOST_PLANS) return FAILED;
    plans->count = (int32_t)words[0];
    for (int32_t i = 0; i < plans->count; i++) {
        plans->size[i] = words[1 + i];
        if (plans->size[i] < 0 || plans->size[i] > LARGEST) return FAILED;
    }
    return DONE;
}

static int add_sizes(Run *r, const int64_t *words, int64_t count) {
    for (; count > 0; count--, words += 1 + MOST_PLANS) {
        Plans plans;
        TRY(read_plans(words, &plans));
        TRY(add_size(r, &plans));
    }
    return DONE;
}

/* The run of a program that has gone once, with other scratch, of which there are as many sizes as
 * it asked for: what is the same is taken from it, and it outlives this one. NULL where it may differ
 * in more, and has to be run. */
EXPORT void *vramplan_sibling(const void *run, const int64_t *sizes, int64_t count,
                              int64_t cublas) {
    const Run *base = run;
    if (!base->is_told || !base->cold_marks || count != base->journal.size_count - 1) return NULL;
    Run *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->program = base->program;
    __atomic_add_fetch(&r->program->holders, 1, __ATOMIC_RELAXED);
    r->base = base;
    Journal *j = &r->journal;
    int status = allocator_begin(&r->allocator, UNLIMITED, 0) || journal_begin(j, 0) ||
                 add_one_size(r, cublas) || add_sizes(r, sizes, count);
    j->requests = base->journal.requests;
    j->is_borrowed = 1;
    j->count = base->journal.count;
    j->live_count = base->journal.live_count;
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

/* steps between two checkpoints, at least */
#ifndef LEAST_STEPS
#define LEAST_STEPS 256
#endif
#ifndef STEPS_A_BLOCK
#define STEPS_A_BLOCK 1
#endif
#define MOST_TRIED 4096
#define MOST_SEARCHED 256 /* in one run and its siblings */

static const Run *teller(const Run *r) { return r->base != NULL ? r->base : r; }

/* Where it stood at an opening, of the large pool alone. */
static int open_large(const Run *r, State *start, const State *from, int64_t limit) {
    int32_t lives = r->journal.live_count + 1;
    TRY(make_room((void **)&start->held, &start->held_room, lives, sizeof(int32_t)));
    memset(start->held, 0xff, (size_t)lives * sizeof(int32_t));
    start->held_count = r->journal.live_count;
    TRY(keep_chosen(start, NULL, r->journal.size_count));
    TRY(line_copy(&start->line, from->small != NULL ? &from->small->line : &from->line));
    TRY(allocator_large(&start->allocator, &from->allocator, limit));
    start->allocator.outside = start->line.whole * SMALL_SEGMENT;
    const Block *blocks = start->allocator.blocks;
    for (int32_t s = start->allocator.pools[1].first_segment; s >= 0; s = start->allocator.beside[s].later)
        for (int32_t b = s; b >= 0; b = blocks[b].next)
            if (!is_free(&blocks[b])) start->held[owner_of(&blocks[b])] = b;
    return DONE;
}

/* What has been given back with the large pool's cache. */
static void see_given_back(State *now) {
    if (now->line.whole && !now->allocator.outside) line_empty(&now->line);
}

/* A segment of the small pool that no other has room for: one that is wholly free, or a new one. */
static int take_segment(State *now, int32_t number) {
    Allocator *a = &now->allocator;
    if (line_take(&now->line, number)) {
        a->outside -= SMALL_SEGMENT;
        return DONE;
    }
    if (a->reserved + SMALL_SEGMENT > a->limit) {
        TRY(allocator_empty_cache(a));
        if (a->reserved + SMALL_SEGMENT > a->limit) {
            a->asked = SMALL_SEGMENT;
            return REFUSED;
        }
    }
    a->reserved += SMALL_SEGMENT;
    if (a->reserved > a->granted) a->granted = a->reserved;
    return line_add(&now->line, number);
}

/* Scratch that is taken and given back at once, by one plan of a size; of the small pool's free
 * blocks in segments that are partly in use the largest has so many bytes. */
static int borrow(State *now, Spans *spans, int32_t which, int32_t plan, int64_t size,
                  int64_t part) {
    Allocator *a = &now->allocator;
    int64_t small = now->line.whole ? SMALL : part;
    if (size <= small || size > SMALL) {
        int status = lend(a, spans, which, plan, size, small);
        see_given_back(now);
        return status;
    }
    narrow_to_segment(spans, which, plan, size, part);
    TRY(take_segment(now, WHOLE));
    a->outside += SMALL_SEGMENT;
    return DONE;
}

/* Scratch under a limit, by the plan in use or the first after it that is not refused. */
static int borrow_plan(const Run *r, State *now, int64_t part, int32_t which, int refused) {
    const Plans *plans = &r->journal.plans[which];
    uint8_t *chosen = &now->chosen[which];
    int32_t at = *chosen;
    for (; at < plans->count; at++) {
        int status = borrow(now, r->journal.search, which, at, plans->size[at], part);
        if (status == REFUSED && refused != FAILS) continue;
        if (status == REFUSED) narrow_to_refusal(r->journal.search, which, at, plans->size[at]);
        if (status) return status;
        *chosen = (uint8_t)at;
        return DONE;
    }
    narrow_to_last(r->journal.search, which, plans, refused);
    if (refused != WITHOUT) return REFUSED;
    *chosen = (uint8_t)at;
    return DONE;
}

static int ask_large(State *now, int64_t size, int32_t live) {
    int32_t block;
    int status = allocator_malloc(&now->allocator, size, &block);
    see_given_back(now);
    if (status) return status;
    now->held[live] = block;
    set_owner(&now->allocator.blocks[block], live);
    return DONE;
}

/* A step under a limit; TANGLED where the small pool would be another in more than what is told. */
static int try_step(const Run *r, State *now, const Step *s, int refused) {
    switch (s->kind) {
    case ASKS: return ask_large(now, s->of, s->live);
    case RETURNS: return allocator_free(&now->allocator, now->held[s->live]);
    case OWN: {
        int64_t size = r->journal.sizes[s->of];
        narrow(r->journal.search, (int32_t)s->of, 0, size - 1, size);
        return ask_large(now, size, s->live);
    }
    case BORROWS: return borrow_plan(r, now, s->of, s->live, refused);
    case OPENS: return take_segment(now, s->live);
    case CLOSES:
        line_return(&now->line, s->live);
        now->allocator.outside += SMALL_SEGMENT;
        return DONE;
    case ORDERS: return line_is_before(&now->line, s->live, (int32_t)s->of) ? DONE : TANGLED;
    default:
        TRY(allocator_empty_cache(&now->allocator));
        line_empty(&now->line);
        return DONE;
    }
}

static int advance_steps(void *of, State *now, int64_t end, int refused) {
    Run *r = of;
    const Run *told = teller(r);
    const Step *steps = told->steps;
    while (now->request < end) {
        const Turns *loop;
        int32_t which;
        int64_t place = next_turn(&told->loops, now->request, &loop, &which);
        if (place == now->request) {
            TRY(turn(&r->tries, now, loop, which));
            if (now->request > place) continue; /* behind the loop */
            place = next_turn(&told->loops, place + 1, &loop, &which);
        }
        int64_t stop = place < end ? place : end;
        for (int64_t at = now->request; at < stop; at++) {
            int status = try_step(r, now, &steps[at], refused);
            if (status) {
                now->request = at;
                return status;
            }
        }
        now->request = stop;
    }
    return DONE;
}

/* Whether an event is a step of a try, and which. */
static int step_of(const Run *r, const Event *e, Step *s) {
    const Request *request = &r->journal.requests[e->request];
    s->of = e->of;
    s->live = (int32_t)e->of;
    switch (e->kind) {
    case LARGE:
        s->kind = request->size == GIVEN_BACK ? RETURNS : ASKS;
        s->of = request->size;
        s->live = request->live;
        return 1;
    case SIZED: /* a size below 0 is one of the journal's own */
        s->kind = request->live < 0 ? BORROWS : OWN;
        s->of = request->live < 0 ? e->part : -1 - request->size;
        s->live = request->live < 0 ? (int32_t)(-1 - request->size) : request->live;
        return 1;
    case GROWN:
        s->kind = OPENS;
        return e->of != WHOLE; /* for scratch, which is seen to */
    case TAKEN: s->kind = OPENS; return 1;
    case RETURNED: s->kind = CLOSES; return 1;
    case ORDERED:
        s->kind = ORDERS;
        s->live = (int32_t)(e->of >> 32);
        return 1;
    case EMPTIED: s->kind = EMPTIES; return 1;
    default: return 0;
    }
}

/* Note where the iterations of its loops begin that are in no other. */
static int note_turns(Run *r) {
    int64_t *at = malloc(((size_t)r->event_count + 1) * sizeof(int64_t)), step = 0;
    int32_t depth = 0, count = 0;
    if (at == NULL) return FAILED;
    int status = DONE;
    for (int32_t i = 0; i < r->event_count && !status; i++) {
        const Event *e = &r->events[i];
        Step one;
        int is_begun = i + 1 < r->event_count && r->events[i + 1].kind == ITERATING;
        if (e->kind == LOOPING && is_begun && !depth++) count = 0; /* else it has no iteration */
        if (e->kind == ITERATING && depth == 1) at[count++] = step;
        if (e->kind == ITERATED && e->of && !--depth) {
            at[count] = step;
            status = turns_add(&r->loops, r->steps, at, count, r->journal.live_count,
                               r->segments.count);
        }
        step += step_of(r, e, &one);
    }
    free(at);
    return status;
}

int note_steps(Run *r) {
    if (!r->is_told) return DONE;
    size_t count = (size_t)r->event_count + 1;
    r->steps = malloc(count * sizeof(Step));
    r->step_requests = malloc(count * sizeof(int32_t));
    if (r->steps == NULL || r->step_requests == NULL) return FAILED;
    for (int32_t i = 0; i < r->event_count; i++) {
        if (!step_of(r, &r->events[i], &r->steps[r->step_count])) continue;
        r->step_requests[r->step_count++] = r->events[i].request;
    }
    return note_turns(r);
}

/* The first step of a request or one behind it. */
static int64_t step_from(const Run *told, int64_t request) {
    int32_t low = 0, high = told->step_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (told->step_requests[middle] < request) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Try a limit by steps alone. */
static int try_steps(Run *r, int64_t limit, int refused, int keeps, int64_t *granted, int64_t *at,
                      int64_t *asked) {
    const Run *told = teller(r);
    const Journal *j = &r->journal;
    *granted = most_granted(j);
    if (limit >= *granted || !j->growth_count) return DONE;
    if (told->steps == NULL) return TANGLED;
    Way way = {r, advance_steps, told->step_count, j->live_count, j->size_count};
    Tries *t = &r->tries;
    int32_t from = tries_resume(t, limit, refused);
    if (from < 0) {
        const State *opening = opening_for(j, limit);
        /* a copy of a block takes about as long as a step */
        int64_t apart = (int64_t)opening->allocator.block_count * STEPS_A_BLOCK;
        State *start = tries_begin(t, &way, step_from(told, opening->request),
                                   keeps ? (apart > LEAST_STEPS ? apart : LEAST_STEPS) : 0,
                                   opening->allocator.granted);
        if (start == NULL || open_large(r, start, opening, limit)) {
            tries_end(t);
            return FAILED;
        }
        from = 0;
    }
    int status = tries_go(t, &way, from, limit, refused, granted);
    if (status == REFUSED) {
        *at = told->step_requests[t->now.request];
        *asked = t->now.allocator.asked;
    }
    return status;
}

/* What is known of a limit from another try; NULL for nothing. */
static const Tried *known_try(const Run *r, int64_t limit, int refused) {
    for (int32_t i = r->tried_count; i > 0; i--) {
        const Tried *one = &r->tried[i - 1];
        if (one->low <= limit && limit <= one->high && one->refused == refused) return one;
    }
    return NULL;
}

static int keep_try(Run *r, int64_t limit, int refused, int status, const int64_t *found) {
    if (r->tried_count == MOST_TRIED) r->tried_count = 0;
    TRY(make_room((void **)&r->tried, &r->tried_room, r->tried_count + 1, sizeof(Tried)));
    Tried *one = &r->tried[r->tried_count++];
    one->low = found[0];
    one->high = limit;
    one->refused = refused;
    one->status = status;
    memcpy(one->found, found, sizeof one->found);
    return DONE;
}

static int attempt(Run *r, int64_t limit, int refused, int keeps, int64_t *found) {
    int64_t at = 0;
    /* a search that is written down has to go through it all */
    const Tried *known = r->journal.search == NULL ? known_try(r, limit, refused) : NULL;
    if (known != NULL) {
        memcpy(found, known->found, sizeof known->found);
        return known->status;
    }
    if (r->joined && limit < most_granted(&r->journal) &&
        opening_for(&r->journal, limit) >= &r->journal.openings[r->joined])
        return AS_BASE;
    int status = try_steps(r, limit, refused, keeps, &found[0], &at, &found[3]);
    if (status == TANGLED)
        status = journal_try(&r->journal, limit, refused, keeps, &found[0], &at, &found[3]);
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
    if (status == DONE || status == REFUSED) TRY(keep_try(r, limit, refused, status, found));
    return status;
}

static void forget_states(Run *r) {
    tries_end(&r->tries);
    tries_end(&r->journal.tries);
}

/* Try a limit. found: what it granted at most; the phase, the component and the bytes asked for
 * where it fails. REFUSED where it does, DONE where the run completes; AS_BASE where the try is its
 * base's, which is to be asked. */
EXPORT int vramplan_attempt(void *run, int64_t limit, int refused, int64_t *found) {
    if (refused < FAILS || refused > WITHOUT) return FAILED;
    memset(found, 0, 4 * sizeof(int64_t));
    return attempt(run, limit, refused, 0, found);
}

/* What a search came to in a run or a sibling of it that goes alike; NULL for none. Below 0 the limit
 * is the least that refuses nothing. */
static const Searched *known_search(const Run *of, const Plans *plans, int32_t count, int64_t limit,
                                    int refused) {
    for (int32_t i = 0; i < of->searched_count; i++) {
        const Searched *one = &of->searched[i];
        if (one->refused != refused || (limit < 0 ? !one->is_top : one->limit != limit)) continue;
        if (are_within(&one->bounds, plans, count)) return one;
    }
    return NULL;
}

static int keep_search(Run *of, const Run *r, const Spans *spans, int64_t limit, int refused,
                       int status, const int64_t *found) {
    Bounds bounds;
    if (of->searched == NULL) of->searched = calloc(MOST_SEARCHED, sizeof(Searched));
    if (of->searched == NULL || bounds_of(&bounds, spans)) return FAILED;
    int32_t at = of->searched_count;
    if (at < MOST_SEARCHED) of->searched_count++;
    else at = of->searched_next++ % MOST_SEARCHED;
    Searched *one = &of->searched[at];
    one->limit = limit;
    one->refused = refused;
    one->status = status;
    one->is_top = limit == most_granted(&r->journal);
    memcpy(one->found, found, sizeof one->found);
    free(one->bounds.bounds);
    one->bounds = bounds;
    return DONE;
}

static int search(Run *r, int64_t limit, int refused, double seconds, int64_t *found) {
    Run *base = (Run *)r->base;
    clock_t began = clock();
    int64_t one[4] = {0, 0, 0, 0}, tries = 0;
    int status = DONE;
    while (limit > 0) {
        if ((double)(clock() - began) / CLOCKS_PER_SEC > seconds) {
            status = TOO_LONG;
            break;
        }
        tries++;
        status = attempt(r, limit - 1, refused, 1, one);
        if (status == AS_BASE) {
            r->journal.search->is_lost = 1; /* its scratch is asked for there */
            status = attempt(base, limit - 1, refused, 1, one);
        }
        if (status) break;
        limit = one[0];
    }
    found[0] = limit;
    memcpy(found + 1, one + 1, 3 * sizeof(int64_t));
    found[4] = tries;
    return status;
}

/* Try limits downwards, from a byte below one under which the run completes: each a byte below what
 * the one before was granted. REFUSED at the first that fails, and found[0] is the limit a byte
 * above it, [1] to [3] how it fails; DONE where none does, and TOO_LONG where so many seconds are
 * over, or FAILED, each with what has been reached. found[4]: how many were tried. Its base's tries
 * are made there, and asked for. */
EXPORT int vramplan_lower(void *run, int64_t limit, int refused, double seconds, int64_t *found) {
    Run *r = run, *base = (Run *)r->base, *of = base != NULL ? base : r;
    if (refused < FAILS || refused > WITHOUT || limit < 0) return FAILED;
    const Journal *j = &r->journal;
    const Searched *known = known_search(of, j->plans, j->size_count, limit, refused);
    if (known != NULL) {
        memcpy(found, known->found, sizeof known->found);
        return known->status;
    }
    Spans spans;
    memset(&spans, 0, sizeof spans);
    int status = spans_copy(&spans, &r->journal.run);
    if (!status) {
        forget_states(r); /* what is kept of other tries leaves out what they asked for */
        spans.is_lost |= !of->is_told;
        r->journal.search = &spans;
        status = search(r, limit, refused, seconds, found);
        r->journal.search = NULL;
    }
    forget_states(r);
    if (base != NULL) forget_states(base);
    if (status == REFUSED && !spans.is_lost && keep_search(of, r, &spans, limit, refused, status, found))
        status = FAILED;
    spans_end(&spans);
    return status;
}

/* What a search would come to in a sibling, with sizes and cuBLAS's as one is made of: as
 * `vramplan_lower` has it, and in found[5] the limit that it began with, if that is below 0 the least
 * that refuses nothing. FAILED where it is not known. */
EXPORT int vramplan_known(const void *run, const int64_t *sizes, int64_t count, int64_t cublas,
                          int64_t limit, int refused, int64_t *found) {
    const Run *r = run;
    if (!r->searched_count || count != r->journal.size_count - 1) return FAILED;
    Plans *plans = calloc((size_t)count + 1, sizeof *plans);
    if (plans == NULL) return FAILED;
    int status = DONE;
    plans[0] = (Plans){{cublas}, 1};
    for (int64_t i = 0; i < count && !status; i++)
        status = read_plans(sizes + i * (1 + MOST_PLANS), &plans[i + 1]);
    const Searched *known =
        status ? NULL : known_search(r, plans, (int32_t)count + 1, limit, refused);
    free(plans);
    if (known == NULL) return FAILED;
    memcpy(found, known->found, sizeof known->found);
    found[5] = known->limit;
    return known->status;
}
